//! Records and values that cannot be what they are: which of them cost a command, and which the lane.

use super::*;

#[test]
fn a_damaged_object_fails_the_command_and_not_the_lane() {
    let mut store = purse_of(3);
    outcomes(&mut store, &[action(0, 2)]);
    store.insert("purse".to_owned(), "damaged".into());
    let executed = done(&mut store, &chunk(1, &[undo(0, 2), undo(1, 2)]));
    assert!(matches!(executed.answers[0].reply.outcome, Outcome::Failed { .. }));
    assert_eq!((executed.notes[0].name, executed.next), ("corrupt-value", 3));
    assert!(matches!(record(&store, 0), Some(StepRecord::Applied { .. })));
}

#[test]
fn another_saga_with_the_same_ordinal_touches_nothing() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 4)]);
    let mut other = command(0, Direction::Undo, 4);
    other.id.saga = saga(77);
    let executed = done(&mut store, &chunk(1, &[CommandRecord::Command(other)]));
    assert!(matches!(executed.answers[0].reply.outcome, Outcome::Failed { .. }));
    assert_eq!(executed.notes[0].name, "ordinal-taken");
    assert_eq!(purse(&store), 6);
}

#[test]
fn a_record_that_cannot_be_used_is_passed_over_with_an_alarm() {
    let mut store = purse_of(10);
    let mut wrong_lane = command(0, Direction::Action, 4);
    wrong_lane.ordinal.lane = Lane(8);
    let foreign = CommandRecord::Command(wrong_lane).encode();
    let entries = vec![
        Entry::decode(LANE, 0, b"nonsense").expect("passed over"),
        Entry::decode(LANE, 1, &foreign).expect("passed over"),
    ];
    let executed = done(&mut store, &Chunk { lane: LANE, first: 0, entries, replied: 0 });
    let names: Vec<_> = executed.notes.iter().map(|note| note.name).collect();
    assert_eq!(names, ["unusable-record", "unusable-record"]);
    assert_eq!((executed.next, executed.answers.len(), purse(&store)), (2, 0, 10));
}

#[test]
fn a_command_whose_reply_may_fit_in_no_record_is_passed_over() {
    let mut huge = command(0, Direction::Action, 1);
    huge.id.step = "s".repeat(MAX_PAYLOAD_BYTES);
    let entry = Entry::decode(LANE, 0, &CommandRecord::Command(huge).encode()).unwrap();
    assert!(matches!(&entry.work, Work::Unusable { why } if why.contains("bytes")), "{:?}", entry.work);
}

#[test]
fn a_record_of_another_format_halts() {
    let mut bytes = action(0, 1).encode().to_vec();
    bytes[1] = 2;
    assert!(matches!(Entry::decode(LANE, 0, &bytes), Err(HaltReason::UnknownFormat(_))));
}

#[test]
fn step_records_that_cannot_be_read_stop_the_chunk_before_them() {
    let mut store = purse_of(10);
    let key = "rec:7:order@00000000000000000000000000000001:1".to_owned();
    store.insert(key.clone(), "nonsense".into());
    let executed = done(&mut store, &chunk(0, &[action(0, 1), action(1, 1), action(2, 1)]));
    assert!(matches!(executed.stop, Some(HaltReason::Corrupt(_))));
    assert_eq!((executed.next, executed.answers.len(), lane(&store).next, purse(&store)), (1, 1, 1, 9));
    assert_eq!(store[&key], "nonsense");
}

#[test]
fn a_lane_value_that_cannot_be_read_halts_and_stays() {
    for (value, is_unknown) in [(&b"nonsense"[..], false), (b"\x08\x02", true)] {
        let mut store = purse_of(10);
        store.insert("lane:7".to_owned(), Bytes::copy_from_slice(value));
        let before = store.clone();
        let executed = done(&mut store, &chunk(0, &[action(0, 1)]));
        assert_eq!(matches!(executed.stop, Some(HaltReason::UnknownFormat(_))), is_unknown);
        assert!(executed.stop.is_some() && executed.answers.is_empty());
        assert_eq!(store, before);
    }
}

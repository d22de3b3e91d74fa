//! The rules of a participant, one by one, over a map instead of a store.

use std::collections::BTreeMap;

use proptest::prelude::*;
use saga_core::ended::EndedSequences;
use saga_core::ids::{CommandId, SagaId, Starter, TraceContext};
use saga_core::record::Refusal;
use uuid::Uuid;

use super::*;

mod unusable;

const LANE: Lane = Lane(7);
type Store = BTreeMap<String, Bytes>;

/// Takes the input's number from the purse `purse`; what is not there is refused.
struct Purse;

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).expect("digits").parse().expect("a number")
}

impl Business for Purse {
    fn keys(&self, _command: &Command) -> Vec<String> {
        vec!["purse".to_owned()]
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        let Some(purse) = values.get("purse")? else { return Ok(Decision::Fail { reason: "no purse".to_owned() }) };
        let (held, asked) = (number(&purse), number(&command.input));
        // Written before it is decided: only what is applied may count.
        values.set("purse".to_owned(), held.wrapping_sub(asked).to_string().into());
        Ok(if asked > held {
            Decision::Refuse(Refusal { code: "empty".to_owned(), reason: format!("{held} held") })
        } else {
            Decision::Apply { output: Bytes::from(format!("took {asked}")), undo: command.input.clone() }
        })
    }

    fn undo(&self, _command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        let Some(purse) = values.get("purse")? else {
            return Ok(UndoOutcome::ObjectGone { object: "purse".to_owned() });
        };
        if purse == "damaged" {
            return Err(Fault::Corrupt("purse is damaged".to_owned()));
        }
        values.set("purse".to_owned(), (number(&purse) + number(done)).to_string().into());
        Ok(UndoOutcome::Reversed)
    }
}

fn ordinal(sequence: u64) -> Ordinal {
    Ordinal { starter: Starter { name: "order".to_owned(), store: Uuid::from_u128(1) }, lane: LANE, sequence }
}

fn saga(sequence: u64) -> SagaId {
    SagaId(Uuid::from_u128(100 + u128::from(sequence)))
}

fn command(sequence: u64, direction: Direction, amount: u64) -> Command {
    Command {
        id: CommandId { saga: saga(sequence), step: "take".to_owned(), direction },
        ordinal: ordinal(sequence),
        operation: "take".to_owned(),
        input: amount.to_string().into(),
        uses: BTreeMap::new(),
        may_refuse: true,
        trace: TraceContext::default(),
    }
}

fn action(sequence: u64, amount: u64) -> CommandRecord {
    CommandRecord::Command(command(sequence, Direction::Action, amount))
}

fn undo(sequence: u64, amount: u64) -> CommandRecord {
    CommandRecord::Command(command(sequence, Direction::Undo, amount))
}

fn floor(below: u64, ranges: &[(u64, u64)]) -> CommandRecord {
    CommandRecord::Floor(Floor {
        starter: ordinal(0).starter,
        ended: EndedSequences::new(below, ranges.iter().copied()),
    })
}

fn entries(first: i64, records: &[CommandRecord]) -> Vec<Entry> {
    let offsets = first..;
    offsets.zip(records).map(|(offset, record)| Entry::decode(LANE, offset, &record.encode()).expect("known")).collect()
}

fn chunk(first: i64, records: &[CommandRecord]) -> Chunk {
    Chunk { lane: LANE, first, entries: entries(first, records), replied: 0 }
}

fn purse_of(amount: u64) -> Store {
    Store::from([("purse".to_owned(), Bytes::from(amount.to_string()))])
}

fn done(store: &mut Store, chunk: &Chunk) -> Executed {
    match execute(&Purse, chunk, store).expect("a map has read everything") {
        Verdict::Executed(executed) => executed,
        Verdict::Fenced { next } => panic!("fenced at {next}"),
    }
}

/// Executes records at the lane's position and gives the outcomes.
fn outcomes(store: &mut Store, records: &[CommandRecord]) -> Vec<Outcome> {
    let first = lane(store).next;
    done(store, &chunk(first, records)).answers.into_iter().map(|answer| answer.reply.outcome).collect()
}

fn lane(store: &Store) -> ParticipantLane {
    store.get("lane:7").map(|bytes| ParticipantLane::decode(bytes).expect("a lane")).unwrap_or_default()
}

fn record(store: &Store, sequence: u64) -> Option<StepRecord> {
    let key = format!("rec:7:order@00000000000000000000000000000001:{sequence}");
    let records = StepRecords::decode(store.get(&key)?).expect("records");
    assert_eq!(records.saga, saga(sequence));
    records.steps.get("take").cloned()
}

fn purse(store: &Store) -> u64 {
    number(&store["purse"])
}

fn applied(amount: u64) -> Outcome {
    Outcome::Applied { output: format!("took {amount}").into() }
}

fn refused(held: u64) -> Outcome {
    Outcome::Refused(Refusal { code: "empty".to_owned(), reason: format!("{held} held") })
}

#[test]
fn no_record_and_action_asks_the_business() {
    let mut store = purse_of(10);
    assert_eq!(outcomes(&mut store, &[action(0, 4)]), [applied(4)]);
    assert_eq!(purse(&store), 6);
    let stored = StepRecord::Applied { output: "took 4".into(), undo: "4".into() };
    assert_eq!(record(&store, 0), Some(stored));
}

#[test]
fn no_record_and_undo_leaves_a_tombstone() {
    let mut store = purse_of(10);
    assert_eq!(outcomes(&mut store, &[undo(0, 4)]), [Outcome::Undone]);
    assert_eq!((purse(&store), record(&store, 0)), (10, Some(StepRecord::Cancelled)));
}

#[test]
fn applied_and_action_repeats_the_reply() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 4)]);
    assert_eq!(outcomes(&mut store, &[action(0, 4)]), [applied(4)]);
    assert_eq!(purse(&store), 6);
}

#[test]
fn applied_and_undo_reverses_what_was_done() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 4)]);
    // The input of the undo does not count, only what the record says was done.
    assert_eq!(outcomes(&mut store, &[undo(0, 9)]), [Outcome::Undone]);
    assert_eq!((purse(&store), record(&store, 0)), (10, Some(StepRecord::Undone)));
}

#[test]
fn refused_and_action_repeats_the_refusal() {
    let mut store = purse_of(3);
    assert_eq!(outcomes(&mut store, &[action(0, 4)]), [refused(3)]);
    store.insert("purse".to_owned(), "50".into());
    assert_eq!(outcomes(&mut store, &[action(0, 4)]), [refused(3)]);
    assert_eq!(purse(&store), 50);
}

#[test]
fn refused_and_undo_changes_nothing() {
    let mut store = purse_of(3);
    outcomes(&mut store, &[action(0, 4)]);
    assert_eq!(outcomes(&mut store, &[undo(0, 4)]), [Outcome::Undone]);
    assert_eq!((purse(&store), record(&store, 0)), (3, Some(StepRecord::Undone)));
}

#[test]
fn undone_or_cancelled_and_action_is_cancelled() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[undo(0, 4), action(1, 4), undo(1, 4)]);
    assert_eq!(outcomes(&mut store, &[action(0, 4), action(1, 4)]), [Outcome::Cancelled, Outcome::Cancelled]);
    assert_eq!(purse(&store), 10);
}

#[test]
fn undone_or_cancelled_and_undo_is_undone_again() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[undo(0, 4), action(1, 4), undo(1, 4)]);
    assert_eq!(outcomes(&mut store, &[undo(0, 4), undo(1, 4)]), [Outcome::Undone, Outcome::Undone]);
    assert_eq!(purse(&store), 10);
}

#[test]
fn duplicates_in_one_chunk_have_one_effect() {
    let mut store = purse_of(10);
    assert_eq!(outcomes(&mut store, &[action(0, 4), action(0, 4), action(1, 4)]), [applied(4), applied(4), applied(4)]);
    assert_eq!(purse(&store), 2);
}

#[test]
fn undo_before_action_in_one_chunk_cancels() {
    let mut store = purse_of(10);
    let answers = outcomes(&mut store, &[undo(0, 4), action(0, 4), undo(0, 4)]);
    assert_eq!(answers, [Outcome::Undone, Outcome::Cancelled, Outcome::Undone]);
    assert_eq!(purse(&store), 10);
}

#[test]
fn a_moved_lane_fences_and_nothing_is_written() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 1), action(1, 1)]);
    let before = store.clone();
    for first in [0, 1, 3] {
        let verdict = execute(&Purse, &chunk(first, &[action(9, 5)]), &mut store);
        assert_eq!(verdict, Ok(Verdict::Fenced { next: 2 }));
    }
    assert_eq!(store, before);
}

#[test]
fn replied_rides_along_and_never_goes_back() {
    let mut store = purse_of(10);
    done(&mut store, &chunk(0, &[action(0, 1), action(1, 1)]));
    assert_eq!((lane(&store).next, lane(&store).replied), (2, 0));
    done(&mut store, &Chunk { replied: 2, ..chunk(2, &[action(2, 1)]) });
    assert_eq!((lane(&store).next, lane(&store).replied), (3, 2));
    done(&mut store, &Chunk { replied: 1, ..chunk(3, &[]) });
    assert_eq!((lane(&store).next, lane(&store).replied), (3, 2));
    done(&mut store, &Chunk { replied: 99, ..chunk(3, &[]) });
    assert_eq!((lane(&store).next, lane(&store).replied), (3, 3));
}

#[test]
fn below_next_the_recorded_answers_are_repeated_and_nothing_changes() {
    let mut store = purse_of(5);
    let records = [action(0, 4), action(1, 4), undo(2, 1), action(2, 1), action(3, 1), undo(3, 1)];
    let first = outcomes(&mut store, &records);
    assert_eq!(first[..3], [applied(4), refused(1), Outcome::Undone]);
    let mut after = store.clone();
    let repeated = repeat(&lane(&store), &entries(0, &records), &mut after).expect("readable");
    assert_eq!(after, store);
    assert_eq!(repeated.next, 6);
    let outcomes: Vec<_> = repeated.answers.into_iter().map(|answer| answer.reply.outcome).collect();
    // The action of saga 3 has been undone since: the record says so.
    let cancelled = Outcome::Cancelled;
    assert_eq!(outcomes, [applied(4), refused(1), Outcome::Undone, cancelled.clone(), cancelled, Outcome::Undone]);
}

#[test]
fn a_failed_command_and_an_ended_saga_have_nothing_to_repeat() {
    let mut store = Store::new();
    let records = [action(0, 1), action(5, 1), undo(5, 1), floor(4, &[])];
    assert!(matches!(outcomes(&mut store, &records)[0], Outcome::Failed { .. }));
    let repeated = repeat(&lane(&store), &entries(0, &records), &mut store).expect("readable");
    let names: Vec<_> = repeated.notes.iter().map(|note| (note.offset, note.name)).collect();
    assert_eq!(names, [(0, "repeat-of-ended-saga")]);
    assert_eq!(repeated.answers.len(), 2);
    let mut without_records = Store::new();
    let repeated = repeat(&lane(&store), &entries(1, &records[1..2]), &mut without_records).expect("readable");
    assert_eq!(repeated.notes[0].name, "repeat-without-record");
    assert!(repeated.answers.is_empty());
}

#[test]
fn an_undo_that_failed_has_nothing_to_repeat() {
    let mut store = purse_of(3);
    outcomes(&mut store, &[action(0, 2)]);
    store.insert("purse".to_owned(), "damaged".into());
    assert!(matches!(outcomes(&mut store, &[undo(0, 2)])[..], [Outcome::Failed { .. }]));
    let repeated = repeat(&lane(&store), &entries(1, &[undo(0, 2)]), &mut store).expect("readable");
    // The effect still stands: to answer *undone* would be a lie.
    assert_eq!((repeated.answers.len(), repeated.notes[0].name), (0, "repeat-without-record"));
}

#[test]
fn below_the_floor_is_stale_before_the_step_record() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(3, 1)]);
    let answers = outcomes(&mut store, &[floor(2, &[(3, 5)]), action(1, 1), action(3, 1), undo(4, 1), action(2, 1)]);
    assert_eq!(answers, [Outcome::Stale, Outcome::Stale, Outcome::Stale, applied(1)]);
    assert_eq!((purse(&store), record(&store, 4)), (8, None));
}

#[test]
fn step_records_of_ended_sagas_are_deleted() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 1), action(1, 1), action(2, 1), action(3, 1), action(4, 1)]);
    let executed = done(&mut store, &chunk(5, &[floor(2, &[(3, 4)])]));
    assert_eq!((executed.forgotten, executed.has_to_forget), (3, false));
    assert_eq!([0, 1, 2, 3, 4].map(|sequence| record(&store, sequence).is_some()), [false, false, true, false, true]);
    assert_eq!(outcomes(&mut store, &[action(1, 1), undo(3, 1)]), [Outcome::Stale, Outcome::Stale]);
    assert_eq!((purse(&store), record(&store, 1), record(&store, 3)), (5, None, None));
}

#[test]
fn forgetting_goes_on_in_pieces() {
    let mut store = purse_of(0);
    let many = MAX_FORGOTTEN as u64 + 1;
    let key = |sequence| record_key(LANE, &ordinal(0).starter, sequence);
    for sequence in 0..many {
        store.insert(key(sequence), Bytes::new());
    }
    let first = done(&mut store, &chunk(0, &[floor(many, &[])]));
    assert_eq!((first.forgotten, first.has_to_forget), (MAX_FORGOTTEN, true));
    assert!(store.contains_key(&key(many - 1)));
    let second = done(&mut store, &chunk(1, &[]));
    assert_eq!((second.forgotten, second.has_to_forget), (1, false));
    assert!(!store.keys().any(|key| key.starts_with("rec:")));
}

#[test]
fn a_record_written_in_the_transaction_that_forgets_it_is_gone() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[action(0, 1), floor(1, &[])]);
    assert_eq!(record(&store, 0), None);
}

#[test]
fn an_older_floor_lowers_nothing() {
    let mut store = purse_of(10);
    outcomes(&mut store, &[floor(5, &[(7, 9)]), floor(2, &[])]);
    assert_eq!(outcomes(&mut store, &[action(4, 1), action(8, 1)]), [Outcome::Stale, Outcome::Stale]);
    let floors = lane(&store).floors;
    assert_eq!(floors[&ordinal(0).starter], EndedSequences::new(5, [(7, 9)]));
}

#[test]
fn a_step_that_may_not_refuse_fails_without_a_record() {
    let mut store = purse_of(3);
    let record_of = |command| CommandRecord::Command(Command { may_refuse: false, ..command });
    let asked = record_of(command(0, Direction::Action, 4));
    assert!(matches!(outcomes(&mut store, std::slice::from_ref(&asked))[..], [Outcome::Failed { .. }]));
    assert_eq!((purse(&store), record(&store, 0)), (3, None));
    store.insert("purse".to_owned(), "4".into());
    assert_eq!(outcomes(&mut store, &[asked]), [applied(4)]);
}

/// Writes something, and answers with so many bytes as it is asked for, or refuses with them.
struct Verbose;

impl Business for Verbose {
    fn keys(&self, _command: &Command) -> Vec<String> {
        Vec::new()
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        values.set("said".to_owned(), "yes".into());
        let words = "w".repeat(usize::try_from(number(&command.input)).expect("a length"));
        Ok(if command.id.saga == saga(0) {
            Decision::Apply { output: words.into(), undo: Bytes::new() }
        } else {
            Decision::Refuse(Refusal { code: "no".to_owned(), reason: words })
        })
    }

    fn undo(&self, _command: &Command, _done: &Bytes, _values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        Ok(UndoOutcome::Reversed)
    }
}

#[test]
fn what_would_fit_into_no_reply_is_not_done() {
    let limit = MAX_OUTPUT_BYTES as u64;
    for (sequence, bytes, is_done) in [(0, limit, true), (0, limit + 1, false), (1, limit * 100, false)] {
        let mut store = Store::new();
        let Ok(Verdict::Executed(executed)) = execute(&Verbose, &chunk(0, &[action(sequence, bytes)]), &mut store)
        else {
            panic!("not executed");
        };
        let [Answer { reply, .. }] = &executed.answers[..] else { panic!("no answer") };
        assert_eq!(store.contains_key("said"), is_done, "{bytes} bytes");
        match (&reply.outcome, sequence) {
            (Outcome::Applied { output }, 0) => assert!(is_done && output.len() == MAX_OUTPUT_BYTES),
            (Outcome::Failed { .. }, 0) => {
                assert_eq!((executed.notes[0].name, record(&store, 0)), ("output-too-large", None));
            }
            (Outcome::Refused(refusal), 1) => {
                assert!((1_000..10_000).contains(&refusal.reason.len()), "cut, and not away");
                assert_eq!(record(&store, 1), Some(StepRecord::Refused(refusal.clone())));
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_undo_whose_object_is_gone_is_undone_with_an_alarm() {
    let mut store = purse_of(3);
    outcomes(&mut store, &[action(0, 2)]);
    store.remove("purse");
    let executed = done(&mut store, &chunk(1, &[undo(0, 2)]));
    assert_eq!(executed.answers[0].reply.outcome, Outcome::Undone);
    assert_eq!(executed.notes[0].name, "undo-object-gone");
    assert_eq!(record(&store, 0), Some(StepRecord::Undone));
    assert!(!store.contains_key("purse"));
}

#[test]
fn keys_are_named_once() {
    let chunk = chunk(0, &[action(0, 1), undo(0, 1), floor(0, &[]), action(1, 1)]);
    let (mut keys, mut covered) = (Vec::new(), Vec::new());
    chunk.keys(&Purse, &mut keys);
    chunk.record_keys(&mut covered);
    assert_eq!(keys, ["lane:7", "purse"]);
    assert_eq!(covered.len(), 3);
}

fn any_record() -> impl Strategy<Value = CommandRecord> {
    prop_oneof![
        6 => (0_u64..6, 0_u64..5).prop_map(|(sequence, amount)| action(sequence, amount)),
        4 => (0_u64..6).prop_map(|sequence| undo(sequence, 1)),
    ]
}

proptest! {
    /// However a log is cut into chunks, the store and the answers are the same, and the purse holds what the step
    /// records say was not taken.
    #[test]
    fn chunks_do_not_matter(records in prop::collection::vec(any_record(), 1..40), cuts in prop::collection::vec(1_usize..8, 40)) {
        let mut whole = purse_of(12);
        let expected = outcomes(&mut whole, &records);
        let mut pieces = purse_of(12);
        let (mut answers, mut rest) = (Vec::new(), &records[..]);
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            answers.extend(outcomes(&mut pieces, now));
            rest = later;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&answers, &expected);
        prop_assert_eq!(&pieces, &whole);
        let taken: u64 = (0..6)
            .filter_map(|sequence| match record(&whole, sequence) {
                Some(StepRecord::Applied { undo, .. }) => Some(number(&undo)),
                _ => None,
            })
            .sum();
        prop_assert_eq!(purse(&whole) + taken, 12);
    }
}

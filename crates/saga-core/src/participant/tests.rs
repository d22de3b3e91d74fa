use uuid::Uuid;

use super::*;
use crate::ids::Lane;

fn applied() -> StepRecord {
    StepRecord::Applied { output: Bytes::from_static(b"output"), undo: Bytes::from_static(b"undo") }
}

fn refusal() -> Refusal {
    Refusal { code: "out-of-stock".to_owned(), reason: "none left".to_owned() }
}

// The admission table: eight cells, eight tests.

#[test]
fn an_action_without_a_record_is_decided() {
    assert_eq!(admit(None, Direction::Action), Admission::Decide);
}

#[test]
fn an_undo_without_a_record_leaves_a_tombstone() {
    assert_eq!(admit(None, Direction::Undo), Admission::RecordCancelled);
}

#[test]
fn an_applied_action_is_answered_from_the_record() {
    let output = Bytes::from_static(b"output");
    assert_eq!(admit(Some(&applied()), Direction::Action), Admission::RepeatApplied { output });
}

#[test]
fn an_applied_action_is_reversed_by_what_the_record_says() {
    let undo = Bytes::from_static(b"undo");
    assert_eq!(admit(Some(&applied()), Direction::Undo), Admission::Reverse { undo });
}

#[test]
fn a_refused_action_is_answered_from_the_record() {
    let record = StepRecord::Refused(refusal());
    assert_eq!(admit(Some(&record), Direction::Action), Admission::RepeatRefused(refusal()));
}

#[test]
fn the_undo_of_a_refused_action_changes_nothing() {
    let record = StepRecord::Refused(refusal());
    assert_eq!(admit(Some(&record), Direction::Undo), Admission::RecordUndone);
}

#[test]
fn an_action_after_its_undo_is_refused_as_cancelled() {
    for record in [StepRecord::Undone, StepRecord::Cancelled] {
        assert_eq!(admit(Some(&record), Direction::Action), Admission::AnswerCancelled);
    }
}

#[test]
fn an_undo_after_the_undo_is_answered_again() {
    for record in [StepRecord::Undone, StepRecord::Cancelled] {
        assert_eq!(admit(Some(&record), Direction::Undo), Admission::RepeatUndone);
    }
}

fn starter(store: u128) -> Starter {
    Starter { name: "order".to_owned(), store: Uuid::from_u128(store) }
}

fn floor(store: u128, below: u64, ranges: &[(u64, u64)]) -> Floor {
    Floor { starter: starter(store), ended: EndedSequences::new(below, ranges.iter().copied()) }
}

fn ended(lane: &ParticipantLane, store: u128) -> Vec<u64> {
    let ordinal = |sequence| Ordinal { starter: starter(store), lane: Lane(1), sequence };
    (0..10).filter(|sequence| lane.has_ended(&ordinal(*sequence))).collect()
}

#[test]
fn a_floor_only_rises() {
    let mut lane = ParticipantLane::default();
    assert_eq!(ended(&lane, 1), []);
    lane.raise_floor(&floor(1, 2, &[(4, 5)]));
    assert_eq!(ended(&lane, 1), [0, 1, 4]);
    // A zombie's older floor, and ranges that the newer one did not have.
    lane.raise_floor(&floor(1, 1, &[(6, 7)]));
    assert_eq!(ended(&lane, 1), [0, 1, 4, 6]);
    lane.raise_floor(&floor(1, 4, &[]));
    assert_eq!(ended(&lane, 1), [0, 1, 2, 3, 4, 6]);
}

#[test]
fn a_floor_counts_for_its_starter_only() {
    let mut lane = ParticipantLane::default();
    lane.raise_floor(&floor(1, 3, &[]));
    assert_eq!(ended(&lane, 2), [], "a wiped store counts from 0 again, under another id");
}

#[test]
fn what_has_ended_is_forgotten_once_and_in_pieces() {
    let mut lane = ParticipantLane::default();
    assert!(!lane.has_to_forget());
    lane.raise_floor(&floor(1, 3, &[(5, 7)]));
    lane.raise_floor(&floor(2, 1, &[]));
    assert_eq!(lane.forget(4), [0, 1, 2, 5].map(|sequence| (starter(1), sequence)));
    assert!(lane.has_to_forget());
    assert_eq!(lane.forget(4), [(starter(1), 6), (starter(2), 0)]);
    assert!(!lane.has_to_forget());
    assert_eq!(lane.forget(4), []);
    lane.raise_floor(&floor(1, 7, &[]));
    assert_eq!(lane.forget(4), [3, 4].map(|sequence| (starter(1), sequence)), "what came above the floor is known");
    assert_eq!(lane.forgotten, lane.floors);
}

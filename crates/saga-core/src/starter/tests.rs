use super::*;

#[test]
fn sequences_are_dense_from_zero() {
    let mut lane = StarterLane::default();
    let taken: Vec<u64> = (0..4).map(|_| lane.allocate()).collect();
    assert_eq!(taken, [0, 1, 2, 3]);
    assert_eq!(lane.next_sequence, 4);
}

#[test]
fn pending_is_what_was_started_and_has_not_ended() {
    let mut lane = StarterLane::default();
    assert_eq!(lane.pending().count(), 0);
    for _ in 0..5 {
        lane.allocate();
    }
    lane.ended.insert(0);
    lane.ended.insert(3);
    assert_eq!(lane.pending().collect::<Vec<_>>(), [1, 2, 4]);
    lane.ended.insert(1);
    lane.ended.insert(2);
    lane.ended.insert(4);
    assert_eq!(lane.pending().count(), 0);
    assert_eq!(lane.ended.below(), lane.next_sequence);
}

//! Records that cannot be folded are passed over.

use crate::plans::CHECKOUT;
use crate::rig::Rig;

#[test]
fn a_saga_whose_answer_is_lost_is_held_until_somebody_looks() {
    Rig::run(
        CHECKOUT,
        "start checkout               -> do reserve
         again                        -> do reserve
         lost applied reserve pallet  -> alarm NeedsAttention
         attention                    -> SetAside
         # No safety net asks again: the answer would be the same record.
         again                        ->
         operator retry               -> do reserve
         attention                    -> none
         again                        -> do reserve
         lost applied reserve pallet  -> alarm NeedsAttention
         applied reserve pallet       -> do charge
         attention                    -> none
         again                        -> do charge
         lost                         ->
         attention                    -> none
         applied charge               -> completed
         # What has ended misses nothing.
         lost applied charge          ->",
    );
}

#[test]
fn a_start_that_is_lost_may_be_run_later() {
    let rig = Rig::run(
        CHECKOUT,
        "lost start checkout     ->
         applied reserve pallet  -> (SagaNotOpen)
         start checkout          -> do reserve
         # A second copy of it takes nothing away from the first.
         lost start checkout     ->
         attention               -> none
         applied reserve pallet  -> do charge
         applied charge          -> completed
         lost start checkout     ->
         start checkout          -> (StartOfEnded)",
    );
    assert_eq!(rig.state.floors()[0].ended.below(), 1);
}

#[test]
fn a_held_saga_still_has_its_deadlines() {
    Rig::run(
        CHECKOUT,
        "start checkout          -> do reserve
         lost operator undo      -> alarm NeedsAttention
         attention               -> SetAside
         +20000
         timer saga 1            -> tell undoing, undo reserve
         undone reserve          -> ended TimedOut - timed-out",
    );
}

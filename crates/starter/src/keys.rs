//! The keys of a starter's store.

use saga_core::ids::Lane;

/// The sequence counter, the position in the results topic and the ended sequences of a lane.
pub fn lane_key(lane: Lane) -> String {
    format!("starter:{lane}")
}

/// One pending saga with its whole start.
pub fn pending_key(lane: Lane, sequence: u64) -> String {
    format!("pending:{lane}:{sequence}")
}

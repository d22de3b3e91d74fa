//! The pure pieces of a lane loop: what log time it is, what is due, what is on its way. No clock is read here:
//! instants are arguments.

mod checkpoints;
mod clock;
mod floors;
mod resends;
mod underway;

pub use self::checkpoints::CheckpointSchedule;
pub use self::clock::LogClock;
pub use self::floors::FloorSchedule;
pub use self::resends::ResendSchedule;
pub use self::underway::Underway;

use std::time::Instant;

/// The earlier of two times, where none means never.
pub fn earliest(times: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    times.into_iter().flatten().min()
}

//! The questions of a process that starts are asked until a broker answers.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long each question is asked again: brokers that stand still, or start as well, are no reason for a process to end.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two times.
const PAUSE: Duration = Duration::from_millis(100);

/// Blocks until `ask` has an answer, or an error that time will not mend.
pub(crate) fn patiently<T, E: Display>(is_away: impl Fn(&E) -> bool, ask: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + START_PATIENCE;
    loop {
        match ask() {
            Err(error) if is_away(&error) && Instant::now() < end => {
                tracing::warn!(%error, "Kafka does not answer yet")
            }
            outcome => return outcome,
        }
        std::thread::sleep(PAUSE);
    }
}

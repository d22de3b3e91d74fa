//! The questions of a process that starts are asked until a broker answers.

use std::fmt::Display;
use std::time::{Duration, Instant};

use service_kit::backoff::{Backoff, START_PATIENCE};
use telemetry::logs::Throttle;

/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

static NO_ANSWER: Throttle = Throttle::new(Duration::from_secs(5));

/// Blocks until `ask` has an answer, or an error that time will not mend. No attempt begins after [`START_PATIENCE`].
pub(crate) fn patiently<T, E: Display>(
    brokers: &str,
    is_away: impl Fn(&E) -> bool,
    ask: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + START_PATIENCE;
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    loop {
        match ask() {
            Err(error) if is_away(&error) && Instant::now() < end => {
                if let Some(held_back) = NO_ANSWER.admit() {
                    tracing::warn!(brokers, %error, held_back, "no answer from Kafka yet");
                }
            }
            outcome => return outcome,
        }
        std::thread::sleep(backoff.pause());
    }
}

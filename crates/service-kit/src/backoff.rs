//! Pauses that double up to a cap, with jitter.

use std::time::Duration;

/// An endless row of pauses.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first`, doubles up to `max`. A zero `first` or a `max` below it is raised.
    pub fn new(first: Duration, max: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self { first, max: max.max(first), next: first }
    }
    /// The next pause: between half of the current step and all of it.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step
    }
    /// Back to the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

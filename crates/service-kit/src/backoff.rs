//! Pauses that double up to a cap, with jitter.

use std::time::Duration;

/// How long a process that starts asks each of its questions again: a store or a broker that stands still, starts as well, or
/// loads its data, is no reason to end.
pub const START_PATIENCE: Duration = Duration::from_secs(90);

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
        self.next = step.saturating_mul(2).min(self.max);
        // Half of the step is kept, so that a crowd that failed together spreads out and nobody comes back at once.
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Back to the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_between_half_a_step_and_the_step(first_ms in 0u64..5_000, max_ms in 0u64..60_000, count in 1usize..80) {
            let mut backoff = Backoff::new(Duration::from_millis(first_ms), Duration::from_millis(max_ms));
            let mut step = Duration::from_millis(first_ms.max(1));
            let max = Duration::from_millis(max_ms).max(step);
            for _ in 0..count {
                let pause = backoff.pause();
                prop_assert!(pause <= step && pause * 2 + Duration::from_nanos(2) >= step, "{pause:?} of {step:?}");
                step = (step * 2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.pause() <= Duration::from_millis(first_ms.max(1)));
        }
    }

    #[test]
    fn two_crowds_do_not_come_back_together() {
        let pauses: std::collections::BTreeSet<_> =
            (0..32).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).pause()).collect();
        assert!(pauses.len() > 16, "no jitter: {pauses:?}");
    }
}

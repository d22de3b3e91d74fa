//! One line where many would say the same.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets the first of many through at once, and then one per pause with the number of those that were held back.
///
/// ```
/// use std::time::Duration;
/// use telemetry::logs::Throttle;
///
/// static REFUSED: Throttle = Throttle::new(Duration::from_secs(10));
/// for _ in 0..3 {
///     if let Some(held_back) = REFUSED.admit() {
///         tracing::warn!(held_back, "refused");
///     }
/// }
/// ```
pub struct Throttle {
    pause: Duration,
    state: Mutex<State>,
}

struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// At most one line per pause.
    pub const fn new(pause: Duration) -> Self {
        Self { pause, state: Mutex::new(State { last: None, held_back: 0 }) }
    }

    /// Whether to write the line now, and how many were held back since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.pause) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_through_and_the_rest_are_counted() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let begin = Instant::now();
        let at = |seconds| throttle.admit_at(begin + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(9)], [Some(0), None, None]);
        assert_eq!([at(10), at(11), at(25)], [Some(2), None, Some(1)]);
    }
}

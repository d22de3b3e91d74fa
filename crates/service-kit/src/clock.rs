//! The two clocks of a process: wall time to show, monotonic time to act on. Tests set their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Protocol deadlines use neither of these but the time of the log.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual { start: Instant, start_unix_ms: u64, elapsed_ms: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A clock that stands still until [`Clock::advance`] moves it and all its clones.
    pub fn manual(start_unix_ms: u64) -> Self {
        let source = Source::Manual { start: Instant::now(), start_unix_ms, elapsed_ms: Arc::default() };
        Self { source }
    }

    /// Monotonic time, for durations.
    pub fn now(&self) -> Instant {
        match &self.source {
            Source::System => Instant::now(),
            Source::Manual { start, elapsed_ms, .. } => {
                *start + Duration::from_millis(elapsed_ms.load(Ordering::Relaxed))
            }
        }
    }

    /// Wall time in milliseconds since 1970: for people and for stored dates, never for a decision between processes.
    pub fn unix_ms(&self) -> u64 {
        match &self.source {
            Source::System => unix_ms(),
            Source::Manual { start_unix_ms, elapsed_ms, .. } => start_unix_ms + elapsed_ms.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock; the system's clock does not let itself be moved.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed_ms, .. } = &self.source {
            elapsed_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// Wall time in milliseconds since 1970, from the machine.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_with_its_clones_only_when_told() {
        let clock = Clock::manual(1_000);
        let (other, before) = (clock.clone(), clock.now());
        assert_eq!(other.unix_ms(), 1_000);
        clock.advance(Duration::from_millis(250));
        assert_eq!(other.unix_ms(), 1_250);
        assert_eq!(other.now() - before, Duration::from_millis(250));
    }
}

//! The two clocks of a process: wall time to show, monotonic time to act on. Tests set their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far the time of day may be set back at once before the process gives up: the Kafka client waits with deadlines of the time of day,
/// so it stays silent as long as the step was. A shorter silence is waited out.
const MAX_SET_BACK: Duration = Duration::from_secs(60);

/// Pause between two looks at the time of day.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// Returns once the time of day has been set back by more than [`MAX_SET_BACK`] at once: by how much.
pub(crate) async fn set_back() -> Duration {
    let (began, mut steps) = (Instant::now(), Steps::default());
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        looks.tick().await;
        if let Some(by) = steps.look(began.elapsed(), unix_ms()) {
            return by;
        }
    }
}

/// Compares the time of day with a clock that runs evenly.
#[derive(Default)]
struct Steps {
    /// By how much the time of day was ahead at the last look, milliseconds.
    ahead_ms: Option<i128>,
}

impl Steps {
    fn look(&mut self, elapsed: Duration, unix_ms: u64) -> Option<Duration> {
        let ahead_ms = i128::from(unix_ms) - elapsed.as_millis().cast_signed();
        let before_ms = self.ahead_ms.replace(ahead_ms)?;
        let by = Duration::from_millis(u64::try_from(before_ms - ahead_ms).ok()?);
        (by > MAX_SET_BACK).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_far_back_counts() {
        const HOUR_MS: u64 = 3_600_000;
        // Seconds since the start and milliseconds of the day at two looks, and how many seconds of a step back they show.
        let table = [
            ((0, HOUR_MS), (1, HOUR_MS + 1_000), None),
            ((0, HOUR_MS), (1, 2 * HOUR_MS), None),
            ((0, HOUR_MS), (1, HOUR_MS - 59_000), None),
            ((0, HOUR_MS), (1, HOUR_MS - 59_001), Some(60)),
            // The process stood still for an hour, and the clock was set back by as much.
            ((0, HOUR_MS), (3_600, HOUR_MS), Some(3_600)),
        ];
        for (first, second, expected) in table {
            let mut steps = Steps::default();
            let mut look = |(elapsed_s, unix_ms)| steps.look(Duration::from_secs(elapsed_s), unix_ms);
            assert_eq!(look(first), None);
            assert_eq!(look(second).map(|by| by.as_secs()), expected, "{first:?} {second:?}");
            assert_eq!(look(second), None, "a step counts once");
        }
    }

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

//! Log time between two records.

use std::time::{Duration, Instant};

/// Estimates log time: the last record's time plus monotonic time since it was read. The estimate is behind by the
/// time that the record was under way, so a timer is never early.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    time_ms: i64,
    seen: Instant,
}

impl LogClock {
    /// Starts from the log time that a checkpoint knows.
    pub fn new(time_ms: i64, now: Instant) -> Self {
        Self { time_ms, seen: now }
    }

    /// A record with this time has just been read. The log's time counts even if the estimate was ahead of it.
    pub fn observe(&mut self, time_ms: i64, now: Instant) {
        *self = Self::new(time_ms, now);
    }

    /// Log time now, in milliseconds since the Unix epoch.
    pub fn estimate_ms(&self, now: Instant) -> i64 {
        let passed = now.saturating_duration_since(self.seen).as_millis();
        self.time_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }

    /// When the estimate will reach this log time; `seen` for one that has passed.
    pub fn when(&self, log_ms: i64) -> Instant {
        let ahead = log_ms.saturating_sub(self.time_ms).max(0);
        // Far away is far enough: the caller looks again whenever anything happens.
        self.seen + Duration::from_millis(ahead.unsigned_abs()).min(FAR_AWAY)
    }
}

/// Longest time that an instant is moved: longer ones need not be told apart.
const FAR_AWAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_goes_on_between_records_and_is_corrected_by_them() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000, start);
        assert_eq!(clock.estimate_ms(start), 1_000);
        assert_eq!(clock.estimate_ms(start + Duration::from_millis(250)), 1_250);
        assert_eq!(clock.when(1_400), start + Duration::from_millis(400));
        assert_eq!(clock.when(900), start);
        // The estimate was ahead of the log: the record counts.
        clock.observe(1_100, start + Duration::from_millis(250));
        assert_eq!(clock.estimate_ms(start + Duration::from_millis(250)), 1_100);
        assert_eq!(clock.when(1_400), start + Duration::from_millis(550));
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let start = Instant::now();
        let clock = LogClock::new(i64::MAX, start);
        assert_eq!(clock.estimate_ms(start + Duration::from_secs(1)), i64::MAX);
        assert_eq!(LogClock::new(i64::MIN, start).when(i64::MAX), start + FAR_AWAY);
    }
}

//! When a lane's state is frozen.

use std::time::{Duration, Instant};

/// A checkpoint is due at the next tick after the first record since the last one, or when enough records have been
/// folded. The ticks are those of the whole process, so that the lanes that are due share one EXEC. An idle lane is
/// never due.
#[derive(Debug)]
pub struct CheckpointSchedule {
    epoch: Instant,
    interval: Duration,
    max_records: u64,
    folded: u64,
    due_at: Option<Instant>,
}

impl CheckpointSchedule {
    /// Ticks every `interval` from `epoch` on. An interval of zero is raised to one millisecond.
    pub fn new(epoch: Instant, interval: Duration, max_records: u64) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        Self { epoch, interval, max_records: max_records.max(1), folded: 0, due_at: None }
    }

    /// Records have been folded.
    pub fn folded(&mut self, records: u64, now: Instant) {
        if records == 0 {
            return;
        }
        self.folded += records;
        if self.due_at.is_none() {
            self.due_at = Some(self.next_tick(now));
        }
    }

    /// When the next tick with something to write comes.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// Whether to freeze now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.folded >= self.max_records || self.due_at.is_some_and(|due| due <= now)
    }

    /// Whether records have been folded since the last freeze.
    pub fn has_news(&self) -> bool {
        self.folded > 0
    }

    /// The state has been frozen as it is now.
    pub fn frozen(&mut self) {
        self.folded = 0;
        self.due_at = None;
    }

    fn next_tick(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        let interval = self.interval.as_nanos();
        let rest = interval - since % interval;
        now + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    #[test]
    fn lanes_share_ticks_and_idle_lanes_have_none() {
        let epoch = Instant::now();
        let mut early = CheckpointSchedule::new(epoch, INTERVAL, 1_000);
        let mut late = CheckpointSchedule::new(epoch, INTERVAL, 1_000);
        assert_eq!(early.due_at(), None);
        assert!(!early.is_due(epoch + INTERVAL * 100));
        early.folded(1, epoch + Duration::from_millis(2_010));
        late.folded(1, epoch + Duration::from_millis(2_990));
        assert_eq!(early.due_at(), Some(epoch + INTERVAL * 3));
        assert_eq!(early.due_at(), late.due_at());
        assert!(!early.is_due(epoch + Duration::from_millis(2_999)));
        assert!(early.is_due(epoch + INTERVAL * 3));
        early.frozen();
        assert!(!early.has_news() && early.due_at().is_none());
    }

    #[test]
    fn many_records_do_not_wait_for_the_tick() {
        let epoch = Instant::now();
        let mut schedule = CheckpointSchedule::new(epoch, INTERVAL, 10);
        schedule.folded(9, epoch);
        assert!(!schedule.is_due(epoch));
        schedule.folded(1, epoch);
        assert!(schedule.is_due(epoch));
    }
}

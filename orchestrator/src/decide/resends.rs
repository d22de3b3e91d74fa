//! The safety net: commands that nobody has answered for long are sent again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use saga_core::ids::SagaId;

/// Wait before the first re-send of a saga: far above every step timeout that a person would choose, because those
/// are the retry mechanism and this is not.
pub const FIRST_RESEND: Duration = Duration::from_secs(30);
/// Longest wait between two re-sends of a saga.
pub const LONGEST_RESEND: Duration = Duration::from_secs(600);
/// Time between two looks at the open sagas of a lane.
pub const RESEND_SCAN: Duration = Duration::from_secs(5);
/// Sagas re-sent in one look: 20 per lane and second.
pub const RESENDS_PER_SCAN: usize = 100;

/// Which sagas to send again and when. Memory only, never part of the state: a takeover starts anew.
#[derive(Debug)]
pub struct ResendSchedule {
    waits: BTreeMap<SagaId, Wait>,
    next_scan: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Offset of the last record that changed the saga: any news starts the wait anew.
    changed_by: i64,
    next: Instant,
    pause: Duration,
}

impl ResendSchedule {
    /// Begins to wait now.
    pub fn new(now: Instant) -> Self {
        Self { waits: BTreeMap::new(), next_scan: now + RESEND_SCAN }
    }

    /// When to look again.
    pub fn next_scan(&self) -> Instant {
        self.next_scan
    }

    /// Looks at all open sagas (id and offset of the last record that changed it) and says which to send again now.
    pub fn scan(&mut self, open: impl Iterator<Item = (SagaId, i64)>, now: Instant) -> Vec<SagaId> {
        self.next_scan = now + RESEND_SCAN;
        let mut before = std::mem::take(&mut self.waits);
        let mut due = Vec::new();
        for (saga, changed_by) in open {
            let known = before.remove(&saga).filter(|wait| wait.changed_by == changed_by);
            let mut wait = known.unwrap_or(Wait { changed_by, next: now + FIRST_RESEND, pause: FIRST_RESEND });
            if wait.next <= now && due.len() < RESENDS_PER_SCAN {
                due.push(saga);
                wait.pause = (wait.pause * 2).min(LONGEST_RESEND);
                wait.next = now + wait.pause;
            }
            self.waits.insert(saga, wait);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn saga(number: u128) -> SagaId {
        SagaId(Uuid::from_u128(number))
    }

    #[test]
    fn a_silent_saga_is_sent_again_after_30_s_doubling_to_10_min() {
        let start = Instant::now();
        let mut schedule = ResendSchedule::new(start);
        let mut sent_at = Vec::new();
        for second in (0..3_000).step_by(5) {
            let now = start + Duration::from_secs(second);
            if !schedule.scan([(saga(1), 7)].into_iter(), now).is_empty() {
                sent_at.push(second);
            }
        }
        assert_eq!(sent_at, [30, 90, 210, 450, 930, 1_530, 2_130, 2_730]);
    }

    #[test]
    fn news_starts_the_wait_anew_and_ended_sagas_are_forgotten() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut schedule = ResendSchedule::new(start);
        assert!(schedule.scan([(saga(1), 7)].into_iter(), at(0)).is_empty());
        assert!(schedule.scan([(saga(1), 8)].into_iter(), at(30)).is_empty());
        assert_eq!(schedule.scan([(saga(1), 8)].into_iter(), at(60)), [saga(1)]);
        assert!(schedule.scan(std::iter::empty(), at(65)).is_empty());
        assert!(schedule.waits.is_empty());
    }

    #[test]
    fn one_look_sends_a_bounded_number_and_forgets_none() {
        let start = Instant::now();
        let open = || (0..150).map(|number| (saga(number), 1));
        let mut schedule = ResendSchedule::new(start);
        assert!(schedule.scan(open(), start).is_empty());
        assert_eq!(schedule.scan(open(), start + FIRST_RESEND).len(), RESENDS_PER_SCAN);
        assert_eq!(schedule.scan(open(), start + FIRST_RESEND + RESEND_SCAN).len(), 50);
        assert_eq!(schedule.next_scan(), start + FIRST_RESEND + RESEND_SCAN * 2);
    }
}

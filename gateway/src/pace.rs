//! Refusals wait for their turn.
//!
//! Whoever is refused at once comes back at once, and a refusal costs a good part of what a request costs that is passed on
//! (`docs/decisions/refusals-wait.md`). So turns are a millisecond apart. When more come, each waits for the longest time that is
//! allowed, and a crowd comes back no sooner than that; who finds no room to wait is refused at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// From one turn to the next.
const BETWEEN: Duration = Duration::from_millis(1);

/// Gives out turns.
pub(crate) struct Pace {
    longest: Duration,
    room: Semaphore,
    /// The first turn that nobody has.
    free: Mutex<Instant>,
}

impl Pace {
    /// Turns that are at most `longest` away, with room for so many who wait.
    pub(crate) fn new(longest: Duration, room: usize) -> Self {
        Self { longest, room: Semaphore::new(room), free: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn; not at all when there is no room to wait, as whoever waits keeps a connection that others may need.
    pub(crate) async fn turn(&self) {
        let Ok(_room) = self.room.try_acquire() else { return };
        let wait = self.next(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How far away the turn is of somebody who comes `now`.
    pub(crate) fn next(&self, now: Instant) -> Duration {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*free).clamp(now, now + self.longest);
        *free = turn + BETWEEN;
        turn - now
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const LONGEST: Duration = Duration::from_millis(500);

    /// How far away the turns of a thousand are that come with so much time between them.
    fn turns(longest: Duration, between: Duration) -> Vec<Duration> {
        let pace = Pace::new(longest, 1);
        let begin = Instant::now();
        (0..1_000).map(|nth| pace.next(begin + between * nth)).collect()
    }

    #[test]
    fn few_have_their_turn_at_once_and_many_wait_up_to_the_longest_time() {
        let few = turns(LONGEST, Duration::from_millis(1));
        assert!(few.iter().all(Duration::is_zero), "{few:?}");
        let many = turns(LONGEST, Duration::from_micros(100));
        // Each comes a tenth of a millisecond after the one before, and has its turn a millisecond after it.
        assert_eq!(many[100], Duration::from_micros(100 * 900));
        assert_eq!(many.last(), Some(&LONGEST));
        let at_once = turns(Duration::ZERO, Duration::from_micros(100));
        assert!(at_once.iter().all(Duration::is_zero), "{at_once:?}");
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let pace = Pace::new(LONGEST, 1);
        let begin = Instant::now();
        for _ in 0..100_000 {
            pace.next(begin);
        }
        assert_eq!(pace.next(begin + 2 * LONGEST), Duration::ZERO);
    }

    #[tokio::test]
    async fn who_finds_no_room_does_not_wait() {
        let pace = Pace::new(Duration::from_secs(3_600), 1);
        for _ in 0..100_000 {
            pace.next(Instant::now());
        }
        let mut nobody = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(pace.turn()), pin!(pace.turn()));
        assert_eq!(first.as_mut().poll(&mut nobody), Poll::Pending);
        assert_eq!(second.as_mut().poll(&mut nobody), Poll::Ready(()));
    }
}

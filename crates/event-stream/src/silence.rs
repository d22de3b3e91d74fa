//! Notices a consumer that does not bring what lies in the log. A client whose broker was away has been seen to fall silent
//! for good, one that thinks its connection whole waits long for an answer, and neither tells anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use saga_core::ids::Lane;
use tokio::runtime::Handle;

use crate::fetching::Fetching;
use crate::inquiry::Inquiry;

/// Pause between two questions for the logs' ends. A lane that lies behind such an end at two of them, in the same place, is not
/// being read.
const LOOK_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

type Ends = BTreeMap<Lane, i64>;
/// Where lanes of a process stood when their consumer was made anew: what the next one does not bring either, none will.
pub(crate) type Renewals = Arc<Mutex<BTreeMap<Lane, i64>>>;

/// What a fetching thread knows of the ends of its lanes' logs. Another client is asked: its own may be the one that is silent.
pub(crate) struct Silence {
    pub(crate) inquiry: Arc<Inquiry>,
    asked_at: Instant,
    /// The last answer, until it is looked at.
    answer: Arc<Mutex<Option<Ends>>>,
    /// Lanes that were behind at the last answer, and where they stood.
    behind: BTreeMap<Lane, (u64, i64)>,
    renewals: Renewals,
}

impl Silence {
    pub(crate) fn new(inquiry: Arc<Inquiry>, renewals: Renewals) -> Self {
        Self { inquiry, asked_at: Instant::now(), answer: Arc::default(), behind: BTreeMap::new(), renewals }
    }

    /// Asks when it is time to, and judges what was answered; never waits. A lane that is returned has stood before records in
    /// the log since the answer before, and none has been returned for that place.
    pub(crate) fn look(&mut self, lanes: &BTreeMap<Lane, Fetching>, runtime: &Handle) -> Option<Lane> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let silent = answer.and_then(|ends| self.judge(lanes, &ends));
        if !lanes.is_empty() && self.asked_at.elapsed() >= LOOK_INTERVAL {
            self.asked_at = Instant::now();
            let (asked, inquiry) = (lanes.keys().copied().collect(), Arc::clone(&self.inquiry));
            let answer = Arc::clone(&self.answer);
            runtime.spawn(async move {
                // Who gets no answer begins to look anew: the broker was away.
                let ends = inquiry.ends(asked).await.unwrap_or_default();
                *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends);
            });
        }
        silent
    }

    fn judge(&mut self, lanes: &BTreeMap<Lane, Fetching>, ends: &Ends) -> Option<Lane> {
        let place = |(lane, fetching): (&Lane, &Fetching)| {
            let is_behind = !fetching.paused && ends.get(lane).is_some_and(|end| *end > fetching.next);
            is_behind.then_some((*lane, (fetching.epoch, fetching.next)))
        };
        let behind: BTreeMap<Lane, (u64, i64)> = lanes.iter().filter_map(place).collect();
        let before = std::mem::replace(&mut self.behind, behind);
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |(lane, place): &(&Lane, &(u64, i64))| {
            before.get(lane) == Some(*place) && renewals.get(lane) != Some(&place.1)
        };
        let (lane, (_, next)) = self.behind.iter().find(silent)?;
        renewals.insert(*lane, *next);
        Some(*lane)
    }
}

#[cfg(test)]
pub(crate) mod tests;

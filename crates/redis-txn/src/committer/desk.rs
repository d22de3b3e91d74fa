//! The transactions that the committer has in hand, and its duties towards their callers.

use super::*;
use std::collections::VecDeque;

use crate::error::CommitError;
use crate::queue::Room;
use crate::transaction::{Entry, Origin};

/// How often a REST transaction may take part in an EXEC that conflicts. Each time the batch is half as large and after
/// two of them replicas take turns, so this is reached only by a store that is overrun.
const REST_ATTEMPTS: u32 = 16;

/// Keys watched by one batch. Redis 7.0 compares every key of WATCH with every key that the connection watches already:
/// 64 keys take 0.1 ms, 256 keys 2 ms and 1 024 keys 17 ms of a server that does nothing else meanwhile. CPU time per
/// transaction of four keys, client and Redis together: 62 us with 32 keys per batch, 51 with 64, 54 with 128, 65 with
/// 256, 89 with 512; with `appendfsync always` 128 is the best.
const MAX_WATCHED_KEYS: usize = 128;

/// Whether the EXEC with the batch has been sent and its reply is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    No,
    Yes,
}

pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    /// What the next EXEC holds.
    pub(super) batch: Vec<Entry>,
    /// What comes after it, before anything from the queues: the rest of a batch that was made smaller.
    later: VecDeque<Entry>,
    /// Most transactions in the next batch: halved by a conflict, doubled by a commit.
    limit: usize,
    max_batch: usize,
    patience: Duration,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, settings: &Settings) -> Self {
        let max_batch = settings.max_batch.max(1);
        Self {
            shared,
            batch: Vec::new(),
            later: VecDeque::new(),
            limit: max_batch,
            max_batch,
            patience: settings.rest_patience,
        }
    }

    /// Fills an empty batch; a batch that has something left is run again as it is. False if there is nothing.
    pub(super) fn fill(&mut self) -> bool {
        self.sweep();
        if self.batch.is_empty() {
            self.top_up();
        }
        !self.batch.is_empty()
    }

    /// As many transactions as a batch may have, also those that conflicts have put off.
    pub(super) fn widen(&mut self) {
        self.limit = self.max_batch;
        self.top_up();
    }

    fn top_up(&mut self) {
        let mut watched = self.batch.iter().map(|entry| entry.watched).sum();
        while self.batch.len() < self.limit {
            let fits = |entry: &Entry| watched + entry.watched <= MAX_WATCHED_KEYS || watched == 0;
            if !self.later.front().is_some_and(fits) {
                break;
            }
            self.batch.extend(self.later.pop_front().inspect(|entry| watched += entry.watched));
        }
        if self.later.is_empty() && self.batch.len() < self.limit {
            let transactions = self.limit - self.batch.len();
            let room = Room { transactions, watched_keys: MAX_WATCHED_KEYS.saturating_sub(watched) };
            self.shared.take(&mut self.batch, room);
            self.shared.show_depth();
        }
    }

    /// Answers everything with its outcome.
    pub(super) fn commit(&mut self) {
        self.batch.iter_mut().for_each(Entry::commit);
        self.batch.clear();
    }

    pub(super) fn committed(&mut self) {
        self.limit = (self.limit * 2).min(self.max_batch);
    }

    /// Every transaction has one attempt less, and the next batch is half as large.
    pub(super) fn conflicted(&mut self) {
        for entry in &mut self.batch {
            entry.conflicts += 1;
            if entry.origin == Origin::Rest && entry.conflicts >= REST_ATTEMPTS {
                entry.fail(CommitError::Conflict { attempts: entry.conflicts });
            }
        }
        self.sweep();
        self.limit = (self.batch.len() / 2).max(1);
        while self.batch.len() > self.limit {
            if let Some(mut entry) = self.batch.pop() {
                entry.put_off();
                self.later.push_front(entry);
            }
        }
    }

    /// Drops what has been answered.
    pub(super) fn sweep(&mut self) {
        self.batch.retain(|entry| !entry.is_answered());
    }

    /// Waits for the future, and meanwhile answers requests that run out of patience.
    pub(super) async fn patiently<F: Future>(&mut self, sent: Sent, future: F) -> F::Output {
        let start = Instant::now();
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = tokio::time::sleep(TICK) => {
                    if start.elapsed() > UNHEALTHY_AFTER {
                        self.shared.set_unhealthy("no answer");
                    }
                    self.expire(sent);
                }
            }
        }
    }

    /// Whether the committer is to end and nobody waits for it any more.
    pub(super) fn is_abandoned(&mut self) -> bool {
        self.sweep();
        self.batch.is_empty() && self.later.is_empty() && self.shared.is_finished()
    }

    /// Answers what has waited too long for a store that does not answer: REST transactions, and when the committer is
    /// to end those of the lanes too, which otherwise wait for ever.
    fn expire(&mut self, sent: Sent) {
        let lanes_too = self.shared.closed_at().is_some_and(|at| at.elapsed() > self.patience);
        let patience = self.patience;
        let is_due = |entry: &Entry| {
            lanes_too || entry.origin == Origin::Rest && entry.handed_in.elapsed() > patience && !entry.is_answered()
        };
        let unavailable = || CommitError::Unavailable(format!("no answer within {} ms", patience.as_millis()));
        for entry in self.batch.iter_mut().filter(|entry| is_due(entry)) {
            // Answered means: it is not run again. If the EXEC in doubt has not happened, settling makes it abort.
            entry.fail(if sent == Sent::Yes { CommitError::OutcomeUnknown } else { unavailable() });
        }
        self.later.iter_mut().filter(|entry| is_due(entry)).for_each(|entry| entry.fail(unavailable()));
        self.later.retain(|entry| !entry.is_answered());
        self.shared.expire(patience, lanes_too);
    }
}

#[cfg(test)]
mod tests;

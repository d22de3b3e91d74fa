//! A committer without a Redis, for simulations: the same transactions, batches and overlay, and whoever drives it says
//! what is read, what becomes of the EXEC, and when.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::CommitError;
use crate::plan::{Overlay, apply_in_order};
use crate::transaction::{Entry, Origin, Transaction};

/// Where transactions are handed in; they wait until a [`Batch`] takes them.
#[derive(Clone, Default)]
pub struct Offline {
    entries: Arc<Mutex<VecDeque<Entry>>>,
}

impl Offline {
    /// Hands a lane's transaction in. The future is ready once its batch has been committed or it has failed alone.
    pub fn run<T: Transaction>(
        &self,
        lane: u32,
        transaction: T,
    ) -> impl Future<Output = Result<T::Outcome, CommitError>> + Send + use<T> {
        let (entry, answer) = Entry::new(transaction, Origin::Lane(lane as usize));
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push_back(entry);
        async move { answer.await.unwrap_or(Err(CommitError::Closed)) }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes the oldest, at most `limit`.
    pub fn batch(&self, limit: usize) -> Batch {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = entries.len().min(limit);
        Batch { entries: entries.drain(..count).collect(), overlay: Overlay::default() }
    }

    /// Puts the last transactions of a batch back in front, so that the next attempt is smaller.
    pub fn put_back(&self, batch: &mut Batch, keep: usize) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while batch.entries.len() > keep {
            if let Some(entry) = batch.entries.pop() {
                entries.push_front(entry);
            }
        }
    }
}

/// Transactions that share one EXEC.
pub struct Batch {
    entries: Vec<Entry>,
    overlay: Overlay,
}

impl Batch {
    /// How many transactions are in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads what the transactions want and applies them in order, as often as one of them asks for more keys. Those
    /// that panic are answered and drop out.
    pub fn apply(&mut self, mut read: impl FnMut(&str) -> Option<Bytes>) {
        self.overlay.clear();
        self.entries.iter_mut().for_each(|entry| entry.want(&mut self.overlay));
        loop {
            let values: Vec<_> = self.overlay.wanted().map(&mut read).collect();
            self.overlay.put_read(values);
            if apply_in_order(&mut self.overlay, &mut self.entries) {
                break;
            }
            self.entries.iter().for_each(|entry| entry.want_asked(&mut self.overlay));
        }
        self.entries.retain(|entry| !entry.is_answered());
    }

    /// The keys that EXEC must find unchanged.
    pub fn watched(&self) -> impl Iterator<Item = &str> {
        self.overlay.watched()
    }

    /// What EXEC writes; `None` when nothing has changed and no EXEC is needed.
    pub fn writes(&self) -> Option<Vec<(String, Option<Bytes>)>> {
        let writes = || self.overlay.writes().map(|(key, value)| (key.to_owned(), value.cloned())).collect();
        self.overlay.has_changes().then(writes)
    }

    /// Tells everybody what the last application gave.
    pub fn commit(mut self) {
        self.entries.iter_mut().for_each(Entry::commit);
    }
}

//! What callers hand in, and the envelope in which it travels to the committer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use telemetry::context::TraceContext;
use tokio::sync::oneshot;

use crate::error::CommitError;
use crate::plan::Overlay;
use crate::spans::Spans;

/// A small pure transaction. It may be applied several times (conflict, unknown outcome): only the last one counts.
pub trait Transaction: Send + 'static {
    /// What the caller is told once the EXEC is known to have happened.
    type Outcome: Send + 'static;

    /// Adds the keys that `apply` will read. Keys found out later may be asked for all the same (see [`Unread`]).
    fn keys(&self, keys: &mut Vec<String>);

    /// Adds keys that `apply` reads too, but that need no watch of their own, because whoever writes them also writes
    /// one of `keys` in the same EXEC: the step records of a lane are written together with the lane's position.
    ///
    /// Worth it: the cost of WATCH in Redis 7.0 grows with the square of the number of keys (see `MAX_WATCHED_KEYS`). A
    /// key that somebody writes on its own must not be named here. (Writing the other key with the value it has
    /// counts.)
    fn covered_keys(&self, keys: &mut Vec<String>) {
        let _ = keys;
    }

    /// Calls `visit` with the trace context of each saga that this transaction works for: those that are recorded get a
    /// span of it. Asked only while spans are exported; without any, the context that is current when it is handed in
    /// counts.
    fn traces(&self, visit: &mut dyn FnMut(&TraceContext)) {
        let _ = visit;
    }

    /// Reads and writes the view. On `Err(Unread)` nothing of it is kept, the missing key is read and `apply` runs
    /// again.
    fn apply(&mut self, view: &mut View<'_>) -> Result<Self::Outcome, Unread>;
}

/// `apply` asked for a key that has not been read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub String);

/// The values a transaction sees: what was read, overlaid by the writes of the transactions before it in the batch.
pub struct View<'a> {
    overlay: &'a mut Overlay,
}

impl<'a> View<'a> {
    pub(crate) fn new(overlay: &'a mut Overlay) -> Self {
        Self { overlay }
    }

    /// The key's value, `None` when it does not exist.
    ///
    /// A transaction that needs several keys which it did not name in advance does well to ask for all of them before
    /// it gives up with the first `Unread`: every key that was asked for is read before `apply` runs again.
    pub fn get(&mut self, key: &str) -> Result<Option<Bytes>, Unread> {
        self.overlay.get(key)
    }
    /// The key of another type that was read as missing since the last time, if any. A transaction that does not ask fails for it;
    /// one that asks takes it on itself.
    pub fn take_foreign(&mut self) -> Option<String> {
        self.overlay.take_foreign()
    }
    /// Writes a value (absolute; the key need not have been read).
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Bytes>) {
        self.overlay.write(key.into(), Some(value.into()));
    }
    /// Removes a key.
    pub fn unlink(&mut self, key: impl Into<String>) {
        self.overlay.write(key.into(), None);
    }
}

/// What the committer knows of a transaction, whatever its type.
trait Work: Send {
    fn keys(&self, keys: &mut Vec<String>);
    fn covered_keys(&self, keys: &mut Vec<String>);
    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread>;
    /// What the last application gave counts no longer.
    fn forget(&mut self);
    fn commit(self: Box<Self>);
    fn fail(self: Box<Self>, error: CommitError);
}

struct Job<T: Transaction> {
    transaction: T,
    outcome: Option<T::Outcome>,
    reply: oneshot::Sender<Result<T::Outcome, CommitError>>,
}

impl<T: Transaction> Work for Job<T> {
    fn keys(&self, keys: &mut Vec<String>) {
        self.transaction.keys(keys);
    }
    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.transaction.covered_keys(keys);
    }
    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        self.outcome = None;
        self.outcome = Some(self.transaction.apply(view)?);
        Ok(())
    }
    fn forget(&mut self) {
        self.outcome = None;
    }
    fn commit(self: Box<Self>) {
        // A caller that has gone away is not told; what it handed in happened all the same.
        if let Some(outcome) = self.outcome {
            let _ = self.reply.send(Ok(outcome));
        }
    }
    fn fail(self: Box<Self>, error: CommitError) {
        let _ = self.reply.send(Err(error));
    }
}

/// Which queue a transaction came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Bounded attempts and patience.
    Rest,
    /// Retried without limit; the number is the queue's place.
    Lane(usize),
}

/// What came of one application.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Done,
    Unread,
    Panicked(String),
}

/// The answer to a caller.
pub(crate) type Reply<O> = oneshot::Receiver<Result<O, CommitError>>;

/// A transaction on its way, with what the committer remembers about it.
pub(crate) struct Entry {
    /// `None` once it has been answered.
    work: Option<Box<dyn Work>>,
    pub(crate) origin: Origin,
    pub(crate) handed_in: Instant,
    /// How many nil EXECs it was part of.
    pub(crate) conflicts: u32,
    /// How often it asked for keys that had not been read.
    pub(crate) rounds_unread: u32,
    /// Keys to watch, an upper bound that is known without asking again.
    pub(crate) watched: usize,
    /// Computed by the caller, moved into the batch at the first attempt; later attempts ask again.
    named: Option<(Vec<String>, Vec<String>)>,
    asked_for: Vec<String>,
    pub(crate) spans: Spans,
}

impl Entry {
    /// Asks for the keys at once, in the caller's task: that work is not the committer's.
    pub(crate) fn new<T: Transaction>(transaction: T, origin: Origin) -> (Self, Reply<T::Outcome>) {
        let (reply, answer) = oneshot::channel();
        let mut entry = Self {
            work: Some(Box::new(Job { transaction, outcome: None, reply })),
            origin,
            handed_in: Instant::now(),
            conflicts: 0,
            rounds_unread: 0,
            watched: 0,
            named: None,
            asked_for: Vec::new(),
            spans: Spans::default(),
        };
        entry.named = entry.name_keys();
        entry.watched = entry.named.as_ref().map_or(0, |(keys, _)| keys.len());
        (entry, answer)
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.work.is_none()
    }

    /// Puts the keys of this transaction among those that the batch reads.
    pub(crate) fn want(&mut self, overlay: &mut Overlay) {
        if let Some((keys, covered)) = self.named.take().or_else(|| self.name_keys()) {
            keys.into_iter().for_each(|key| overlay.want_watched(key));
            covered.into_iter().for_each(|key| overlay.want_covered(key));
        }
        self.want_asked(overlay);
    }

    /// As [`want`](Self::want), for a batch that has the other keys already.
    pub(crate) fn want_asked(&self, overlay: &mut Overlay) {
        self.asked_for.iter().for_each(|key| overlay.want_watched(key.clone()));
    }

    /// Remembers keys for this and later attempts. False when none of them is new: asking again would not help.
    pub(crate) fn ask_for(&mut self, keys: impl Iterator<Item = String>) -> bool {
        let before = self.asked_for.len();
        for key in keys {
            if !self.asked_for.contains(&key) {
                self.asked_for.push(key);
            }
        }
        self.watched += self.asked_for.len() - before;
        self.asked_for.len() > before
    }

    /// Applies it to the view; a panic is caught.
    pub(crate) fn apply(&mut self, view: &mut View<'_>) -> Applied {
        let Some(work) = self.work.as_mut() else { return Applied::Done };
        // Safe to assert: after a panic the transaction is never looked at again, it is answered and dropped, and of
        // the overlay the caller of this function takes back every write that the transaction made.
        match catch_unwind(AssertUnwindSafe(|| work.apply(view))) {
            Ok(Ok(())) => Applied::Done,
            Ok(Err(Unread(key))) => {
                view.overlay.miss(key);
                Applied::Unread
            }
            Err(panic) => Applied::Panicked(panic_text(panic.as_ref())),
        }
    }

    /// Tells the caller what the last application gave.
    pub(crate) fn commit(&mut self) {
        if let Some(work) = self.work.take() {
            // Ended before the caller goes on: what follows is not part of it.
            std::mem::take(&mut self.spans).done();
            work.commit();
        }
    }

    /// It is part of a later batch: the outcome that it had in this one was never written.
    pub(crate) fn put_off(&mut self) {
        if let Some(work) = &mut self.work {
            work.forget();
        }
    }

    /// Tells the caller why there is no outcome.
    pub(crate) fn fail(&mut self, error: CommitError) {
        if let Some(work) = self.work.take() {
            std::mem::take(&mut self.spans).failed(&error);
            work.fail(error);
        }
    }

    fn name_keys(&mut self) -> Option<(Vec<String>, Vec<String>)> {
        let work = self.work.as_ref()?;
        // Safe to assert: as above, a transaction that panicked is answered and dropped.
        let named = catch_unwind(AssertUnwindSafe(|| {
            let (mut keys, mut covered) = (Vec::new(), Vec::new());
            work.keys(&mut keys);
            work.covered_keys(&mut covered);
            (keys, covered)
        }));
        named.map_err(|panic| self.fail(CommitError::Panicked(panic_text(panic.as_ref())))).ok()
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

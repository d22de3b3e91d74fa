//! What lies between a producer and the log: batches that are slow, lost, doubled or late, and acknowledgements.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use event_stream::PublishError;
use saga_core::ids::Lane;

use crate::log::Topic;

/// The acknowledgement of one batch: of all its pieces, or that one of them failed.
#[derive(Clone, Debug)]
pub struct SimReceipt(Arc<State>);

#[derive(Debug)]
struct State {
    open: AtomicUsize,
    failed: AtomicBool,
}

/// What a receipt says so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Nothing yet.
    NotYet,
    /// All of it is in the log.
    Yes,
    /// Unknown: some of it may not be in the log.
    Failed,
}

impl SimReceipt {
    /// For so many pieces.
    pub fn new(pieces: usize) -> Self {
        Self(Arc::new(State { open: AtomicUsize::new(pieces), failed: AtomicBool::new(false) }))
    }

    /// One piece is acknowledged.
    pub fn acknowledge(&self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// The delivery of one piece failed.
    pub fn fail(&self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }

    /// What is known.
    pub fn look(&self) -> Acknowledged {
        if self.0.failed.load(Ordering::Relaxed) {
            Acknowledged::Failed
        } else if self.0.open.load(Ordering::Relaxed) == 0 {
            Acknowledged::Yes
        } else {
            Acknowledged::NotYet
        }
    }
}

impl Future for SimReceipt {
    type Output = Result<(), PublishError>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.look() {
            Acknowledged::NotYet => Poll::Pending,
            Acknowledged::Yes => Poll::Ready(Ok(())),
            Acknowledged::Failed => Poll::Ready(Err(PublishError("simulated".to_owned()))),
        }
    }
}

/// Records of one batch for one partition.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where to.
    pub topic: Topic,
    /// Which partition.
    pub lane: Lane,
    /// The values.
    pub payloads: Vec<Bytes>,
}

/// Something under way.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Records on their way to the log; whoever holds the receipt is told afterwards, if at all.
    Append {
        /// The records.
        piece: Piece,
        /// Who is told.
        receipt: Option<SimReceipt>,
    },
    /// An acknowledgement on its way back.
    Acknowledge(SimReceipt),
    /// The producer gives up.
    Fail(SimReceipt),
}

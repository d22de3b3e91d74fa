//! Small batches leave at once. The client waits a millisecond for company before it sends (`linger.ms`, rounded up), so that the
//! records of a large batch leave together; a small one is whole by the time that anybody has woken up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use rdkafka::bindings::rd_kafka_flush;
use rdkafka::client::{Client, ClientContext};

/// Batches of at most so many records hurry. Larger ones are made where there is much to do, and there a request for each costs
/// more than the wait.
pub(super) const SMALL_BATCH: usize = 16;

/// For so long the client sends whatever comes, milliseconds: the least that it can be told. It ends earlier if everything is
/// acknowledged.
const FLUSH_MS: i32 = 1;

/// A thread that has the client send what it has.
pub(super) struct Hurry {
    thread: Thread,
    orders: Arc<Orders>,
}

#[derive(Default)]
struct Orders {
    wanted: AtomicBool,
    ended: AtomicBool,
}

impl Hurry {
    /// Starts the thread, which calls `flush` soon after each [`Hurry::up`], until this is dropped.
    pub(super) fn start(flush: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let orders = Arc::new(Orders::default());
        let followed = Arc::clone(&orders);
        let follow = move || {
            while !followed.ended.load(Ordering::Acquire) {
                if followed.wanted.swap(false, Ordering::AcqRel) {
                    flush();
                } else {
                    std::thread::park();
                }
            }
        };
        let handle = std::thread::Builder::new().name("hurry-producer".into()).spawn(follow)?;
        Ok(Self { thread: handle.thread().clone(), orders })
    }

    /// What lies in the queue now is to leave.
    pub(super) fn up(&self) {
        if !self.orders.wanted.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.orders.ended.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Has the client send without waiting for company, and waits at most [`FLUSH_MS`].
#[allow(
    unsafe_code,
    reason = "the client's own function, called with a live handle; the safe one flushes for no time at all"
)]
pub(super) fn flush<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the handle lives as long as `client`. Deliveries are told by events, so this takes none of them.
    // That some are still under way after so short a time is no error.
    let _ = unsafe { rd_kafka_flush(client.native_ptr(), FLUSH_MS) };
}

//! CPU time by stage: what the threads of the async runtime are busy with, summed up over the process.
//!
//! Off until [`start`]; until then entering a stage is one relaxed load. On, entering and leaving read the thread's own
//! clock, a system call each, so stages lie around batches and connections, never around single records. Stages may
//! nest: the time of an inner one is not that of the outer one, so that the sum is never more than the process has used.

use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use nix::time::{ClockId, clock_gettime};

use crate::metrics::CPU_STAGE_SECONDS;

/// What a thread is busy with. What is none of these is told by the process's total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connections of the process's ports and to other services, and the handlers of requests.
    Http,
    /// Reading the records of a batch.
    Decode,
    /// Making the records of a batch.
    Encode,
    /// Handing records to the Kafka client.
    Produce,
    /// Waiting for and taking over fetched records, as a lane loop does.
    Consume,
    /// Folding a batch of the inbox, with reading its records and making those that follow.
    Fold,
    /// The transactions of a batch: the rules of the business, reading and making the values of the store.
    Apply,
    /// Asking the store.
    Redis,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 8] =
        [Self::Http, Self::Decode, Self::Encode, Self::Produce, Self::Consume, Self::Fold, Self::Apply, Self::Redis];

    /// Its name in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Fold => "fold",
            Self::Apply => "apply",
            Self::Redis => "redis",
        }
    }
}

/// Counts from now on, and shows the sums as a metric. Call after [`crate::setup::start`].
pub fn start() {
    if LEDGER.on.swap(true, Ordering::Relaxed) {
        return;
    }
    for stage in Stage::ALL {
        CPU_STAGE_SECONDS.read(&[("stage", stage.name())], move || LEDGER.ns(stage) as f64 / 1e9);
    }
}

/// The thread is busy with the stage until the scope is dropped. A scope belongs to its thread, so it cannot be held
/// across an `await` of a task that moves between threads: that is what [`in_stage`] is for.
#[must_use = "the stage ends when the scope is dropped"]
pub fn enter(stage: Stage) -> Scope {
    LEDGER.enter(stage)
}

/// Each poll of the future is the stage's.
pub fn in_stage<F: Future + Unpin>(stage: Stage, future: F) -> InStage<F> {
    InStage { stage, ledger: &LEDGER, future }
}

/// A stretch of one thread's time; see [`enter`].
#[derive(Debug)]
pub struct Scope {
    entered: Option<Entered>,
    /// Its end must be seen by the thread of its beginning.
    _of_this_thread: PhantomData<*const ()>,
}

/// See [`in_stage`].
#[derive(Debug)]
pub struct InStage<F> {
    stage: Stage,
    ledger: &'static Ledger,
    future: F,
}

impl<F: Future + Unpin> Future for InStage<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _scope = self.ledger.enter(self.stage);
        Pin::new(&mut self.future).poll(context)
    }
}

static LEDGER: Ledger = Ledger::new(thread_cpu_ns);

thread_local! {
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// The stage that a thread is in, and what its clock showed when it entered or came back.
#[derive(Clone, Copy, Debug)]
struct Running {
    stage: Stage,
    since_ns: u64,
}

/// The sums of all threads.
#[derive(Debug)]
struct Ledger {
    on: AtomicBool,
    ns: [AtomicU64; Stage::ALL.len()],
    /// CPU time of the calling thread, nanoseconds.
    clock: fn() -> u64,
}

/// What a scope has to undo.
#[derive(Debug)]
struct Entered {
    ledger: &'static Ledger,
    outer: Option<Stage>,
}

impl Ledger {
    const fn new(clock: fn() -> u64) -> Self {
        Self { on: AtomicBool::new(false), ns: [const { AtomicU64::new(0) }; Stage::ALL.len()], clock }
    }

    fn ns(&self, stage: Stage) -> u64 {
        self.ns[stage as usize].load(Ordering::Relaxed)
    }

    fn enter(&'static self, stage: Stage) -> Scope {
        let entered = if self.on.load(Ordering::Relaxed) { self.change_to(stage) } else { None };
        Scope { entered, _of_this_thread: PhantomData }
    }

    /// `None`: the thread is in this stage already, and nothing changes when the scope ends.
    fn change_to(&'static self, stage: Stage) -> Option<Entered> {
        let outer = RUNNING.get().map(|running| running.stage);
        if outer == Some(stage) {
            return None;
        }
        self.change(Some(stage));
        Some(Entered { ledger: self, outer })
    }

    /// Books what has passed on the stage that the thread was in.
    fn change(&self, stage: Option<Stage>) {
        let now_ns = (self.clock)();
        if let Some(Running { stage, since_ns }) = RUNNING.get() {
            self.ns[stage as usize].fetch_add(now_ns.saturating_sub(since_ns), Ordering::Relaxed);
        }
        RUNNING.set(stage.map(|stage| Running { stage, since_ns: now_ns }));
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(Entered { ledger, outer }) = self.entered.take() {
            ledger.change(outer);
        }
    }
}

fn thread_cpu_ns() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) else { return 0 };
    let (seconds, nanoseconds) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    thread_local! {
        static CLOCK_NS: Cell<u64> = const { Cell::new(0) };
    }

    fn clock_ns() -> u64 {
        CLOCK_NS.get()
    }

    fn work(ns: u64) {
        CLOCK_NS.set(CLOCK_NS.get() + ns);
    }

    /// A ledger of one test, with a clock that only [`work`] moves.
    fn ledger(on: bool) -> &'static Ledger {
        let ledger = Box::leak(Box::new(Ledger::new(clock_ns)));
        ledger.on.store(on, Ordering::Relaxed);
        ledger
    }

    fn sum(ledger: &Ledger) -> u64 {
        Stage::ALL.into_iter().map(|stage| ledger.ns(stage)).sum()
    }

    #[test]
    fn the_time_of_an_inner_stage_is_not_the_outer_ones() {
        let ledger = ledger(true);
        work(1);
        {
            let _http = ledger.enter(Stage::Http);
            work(10);
            {
                let _redis = ledger.enter(Stage::Redis);
                work(100);
                {
                    let _again = ledger.enter(Stage::Redis);
                    let _http = ledger.enter(Stage::Http);
                    work(1_000);
                }
                work(200);
            }
            work(20);
        }
        work(2);
        assert_eq!(ledger.ns(Stage::Http), 1_030);
        assert_eq!(ledger.ns(Stage::Redis), 300);
        assert_eq!(sum(ledger), 1_330, "what is outside of all stages is nobody's");
    }

    #[test]
    fn scopes_one_after_the_other_add_up() {
        let ledger = ledger(true);
        for _ in 0..3 {
            let _fold = ledger.enter(Stage::Fold);
            work(5);
        }
        assert_eq!((ledger.ns(Stage::Fold), sum(ledger)), (15, 15));
    }

    #[test]
    fn off_nothing_is_counted_and_no_clock_read() {
        fn no_clock() -> u64 {
            panic!("the clock is read although nothing is counted")
        }
        let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new(no_clock)));
        {
            let _http = ledger.enter(Stage::Http);
            let _redis = ledger.enter(Stage::Redis);
        }
        assert_eq!(sum(ledger), 0);
    }

    #[test]
    fn a_future_is_charged_for_its_polls_and_not_for_its_waits() {
        let ledger = ledger(true);
        let mut polls = 0;
        let future = std::future::poll_fn(|_| {
            polls += 1;
            work(7);
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        let mut future = InStage { stage: Stage::Produce, ledger, future };
        let mut context = Context::from_waker(Waker::noop());
        while Pin::new(&mut future).poll(&mut context).is_pending() {
            work(1_000);
        }
        assert_eq!((ledger.ns(Stage::Produce), sum(ledger)), (21, 21));
    }

    #[test]
    fn a_panic_ends_the_stage() {
        let ledger = ledger(true);
        let panicked = std::panic::catch_unwind(|| {
            let _apply = ledger.enter(Stage::Apply);
            work(3);
            panic!("on purpose")
        });
        assert!(panicked.is_err());
        work(50);
        assert_eq!(sum(ledger), 3);
        assert!(RUNNING.get().is_none());
    }

    #[test]
    fn the_sums_are_a_metric_and_real_work_takes_time() {
        start();
        let until = thread_cpu_ns() + 2_000_000;
        {
            let _encode = enter(Stage::Encode);
            while thread_cpu_ns() < until {}
        }
        assert!(LEDGER.ns(Stage::Encode) >= 1_000_000, "{LEDGER:?}");
        let text = crate::metrics::render();
        assert!(text.contains("saga_cpu_stage_seconds_total{stage=\"encode\"} 0.00"), "{text}");
    }
}

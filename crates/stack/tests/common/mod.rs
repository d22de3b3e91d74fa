//! What the tests of the whole system share: one stack per test program, and a runner that ends it.
//!
//! libtest never drops statics, so a shared stack would outlive its tests; with a `main` of our own it ends with them.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use stack::{Progress, Stack, StackOptions};

/// What a scenario is while it runs.
pub type Run = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// A test of the whole system.
pub struct Scenario<W> {
    /// What holds.
    pub name: &'static str,
    /// Shows it.
    pub run: fn(Arc<W>) -> Run,
}

/// Names a scenario after its function.
#[macro_export]
macro_rules! scenario {
    ($($path:ident)::+) => {
        $crate::common::Scenario {
            name: stringify!($($path)::+),
            run: |world| Box::pin($($path)::+(world)),
        }
    };
}

/// Starts a stack, runs the scenarios against it one after the other, ends it.
pub fn run<W: Send + Sync + 'static>(
    configure: impl FnOnce(&mut StackOptions),
    make_world: impl FnOnce(Stack) -> W,
    end_world: impl AsyncFnOnce(W) -> anyhow::Result<()>,
    scenarios: Vec<Scenario<W>>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Faults must not meet each other, and two cores carry one crowd of requests at a time.
    arguments.test_threads = Some(1);
    if arguments.list {
        let trials = scenarios.iter().map(|scenario| Trial::test(scenario.name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = StackOptions::new(dir.path()).expect("options");
    configure(&mut options);
    let stack = runtime
        .block_on(Stack::start(options, &Progress::Silent))
        .unwrap_or_else(|error| panic!("the stack starts: {error:#}"));
    let world = Arc::new(make_world(stack));
    let trials = scenarios
        .into_iter()
        .map(|scenario| {
            let (world, handle) = (Arc::clone(&world), runtime.handle().clone());
            Trial::test(scenario.name, move || {
                handle.block_on((scenario.run)(world)).map_err(|error| format!("{error:#}").into())
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let world = Arc::into_inner(world).expect("no scenario goes on");
    if let Err(error) = runtime.block_on(end_world(world)) {
        eprintln!("the stack does not end: {error:#}");
        return ExitCode::FAILURE;
    }
    if conclusion.has_failed() {
        keep_logs(dir);
    }
    conclusion.exit_code()
}

/// A failed run is looked at afterwards: its folder stays.
fn keep_logs(dir: tempfile::TempDir) {
    eprintln!("logs of the failed run: {}", dir.keep().join("logs").display());
}

//! order-svc with a bug, for `bench poison --records fatal-results`: it panics when it reads the end of a saga that was undone
//! because there is no such user.

use std::process::ExitCode;

use order_svc::{Build, SERVICE, Settings};
use saga_core::record::{SagaOutcome, SagaResult};
use service_kit::process::{self, WaitsBy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bug.
fn panic_at(result: &SagaResult) {
    let is_fatal = matches!(&result.outcome, SagaOutcome::Undone { refusal, .. } if refusal.code == "user-not-found");
    assert!(!is_fatal, "the bug that this program is for");
}

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process_args = settings.process.clone();
    let build = Build { probe: Some(panic_at) };
    process::main(SERVICE, &process_args, WaitsBy::TimeOfDay, |shutdown| order_svc::run_as(build, settings, shutdown))
}

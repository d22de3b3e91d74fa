//! The orchestrator with a bug, for `bench poison --records fatal-starts`: it panics when it folds the start of a saga of the
//! definition `panic`.

use std::process::ExitCode;
use std::sync::Arc;

use orchestrator::settings::Settings;
use orchestrator::{Build, SERVICE};
use saga_core::record::{InboxEvent, InboxRecord};
use service_kit::process::{self, WaitsBy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bug.
fn panic_at(record: &InboxRecord) {
    let is_fatal = matches!(&record.event, InboxEvent::Start(start) if start.definition == "panic");
    assert!(!is_fatal, "the bug that this program is for");
}

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process_args = settings.process.clone();
    let build = Build { probe: Some(Arc::new(panic_at)), ..Build::default() };
    process::main(SERVICE, &process_args, WaitsBy::TimeOfDay, |shutdown| {
        orchestrator::run_as(build, settings, shutdown)
    })
}

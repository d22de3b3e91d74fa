//! The orchestrator's process: settings, telemetry, `run`.

use std::process::ExitCode;

use orchestrator::settings::Settings;
use service_kit::process::{self, WaitsBy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let args = settings.process.clone();
    process::main("orchestrator", &args, WaitsBy::TimeOfDay, |shutdown| orchestrator::run(settings, shutdown))
}

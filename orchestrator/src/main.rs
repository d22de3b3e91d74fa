//! The orchestrator's process: settings, telemetry, `run`.

use std::process::ExitCode;

use orchestrator::settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: Settings = match service_kit::process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process = settings.process.clone();
    service_kit::process::main("orchestrator", &process, |shutdown| orchestrator::run(settings, shutdown))
}

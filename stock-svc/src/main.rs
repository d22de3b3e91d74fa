//! stock-svc as a program.

use std::process::ExitCode;

use service_kit::process::{self, WaitsBy};
use stock_svc::{NAMES, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process_args = settings.participant.process.clone();
    process::main(NAMES.service, &process_args, WaitsBy::TimeOfDay, |shutdown| stock_svc::run(settings, shutdown))
}

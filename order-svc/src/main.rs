//! order-svc as a program.

use std::process::ExitCode;

use order_svc::{SERVICE, Settings};
use service_kit::process::{self, WaitsBy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process_args = settings.process.clone();
    process::main(SERVICE, &process_args, WaitsBy::TimeOfDay, |shutdown| order_svc::run(settings, shutdown))
}

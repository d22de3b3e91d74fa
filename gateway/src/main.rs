//! The gateway process.

use std::process::ExitCode;

use gateway::settings::Settings;
use service_kit::process::{self, WaitsBy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings = match process::parse::<Settings>() {
        Ok(settings) => settings,
        Err(exit_code) => return exit_code,
    };
    let args = settings.process.clone();
    process::main("gateway", &args, WaitsBy::Monotonic, |shutdown| gateway::run(settings, shutdown))
}

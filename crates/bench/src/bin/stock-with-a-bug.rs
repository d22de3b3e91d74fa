//! stock-svc with a bug, for `bench poison --records fatal-commands`: it panics when it is asked for the operation `panic`.

use std::process::ExitCode;

use bytes::Bytes;
use participant::{Business, Decision, Fault, UndoOutcome, Values};
use saga_core::record::Command;
use service_kit::process::{self, WaitsBy};
use stock_svc::{NAMES, Settings, Stock};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The rule of the stock but for the bug.
struct Buggy;

impl Business for Buggy {
    fn keys(&self, command: &Command) -> Vec<String> {
        Stock.keys(command)
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        assert!(command.operation != "panic", "the bug that this program is for");
        Stock.action(command, values)
    }

    fn undo(&self, command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        Stock.undo(command, done, values)
    }
}

fn main() -> ExitCode {
    let settings: Settings = match process::parse() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let process_args = settings.participant.process.clone();
    process::main(NAMES.service, &process_args, WaitsBy::TimeOfDay, |shutdown| {
        stock_svc::run_by(Buggy, settings, shutdown)
    })
}

//! `stack`: the whole system on one machine, behind `./dev up|down|status|logs`, and the operators' commands.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match stack::cli::run(stack::cli::Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Checks of this repository that no compiler makes: `cargo xtask tidy`.
//!
//! Deliberately not in it: anything that starts the system (that is `stack`) or needs the network.

mod dependencies;
mod manifest;
mod sources;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    if command.as_deref() != Some("tidy") {
        eprintln!("usage: cargo xtask tidy");
        return ExitCode::FAILURE;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root");
    match tidy(root) {
        Ok(complaints) if complaints.is_empty() => {
            println!("tidy: dependencies, file sizes, function sizes and crate roots are as they must be");
            ExitCode::SUCCESS
        }
        Ok(complaints) => {
            for complaint in &complaints {
                eprintln!("tidy: {complaint}");
            }
            eprintln!("tidy: {} complaint(s)", complaints.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that is wrong below `root`, one sentence each.
fn tidy(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in manifest::read_workspace(root)? {
        complaints.extend(dependencies::check(&package));
        complaints.extend(sources::check(root, &package)?);
    }
    Ok(complaints)
}

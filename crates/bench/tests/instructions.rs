//! How many instructions each hot path takes, counted by Valgrind: the same on a busy machine and on an idle one.
//!
//! The figures of `instructions.txt` are those of a test build. A path that takes a tenth more than its figure fails; when
//! that is the price of something, or a path has become faster, `UPDATE_INSTRUCTIONS=1 cargo test -p bench --test
//! instructions` writes new ones.

#[path = "../hot_path/mod.rs"]
mod hot_path;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// How far above its figure a path may be.
const TOLERANCE: f64 = 1.10;
/// A multiple of the checkpoint interval, so that every count holds the same share of them.
const TIMES: u64 = 64;

/// Without the usual harness: this program is what runs under Valgrind, too, as `instructions PATH TIMES`.
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, times] = &arguments[..]
        && let Some((_, prepare)) = hot_path::PATHS.iter().find(|(path, _)| path == name)
    {
        let mut once = prepare();
        (0..times.parse::<u64>().context("how many times")?).for_each(|_| once());
        return Ok(());
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: skipped, Valgrind is missing (the Debian package valgrind)");
        return Ok(());
    }
    check()
}

fn check() -> anyhow::Result<()> {
    let mut counted = BTreeMap::new();
    for (name, _) in hot_path::PATHS {
        counted.insert(name, instructions(name)?);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    if std::env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        let lines: Vec<String> = counted.iter().map(|(name, count)| format!("{count:>9} {name}\n")).collect();
        std::fs::write(&file, lines.concat()).context("write the figures")?;
    }
    let stored = std::fs::read_to_string(&file).context("read the figures")?;
    let stored: BTreeMap<&str, u64> = stored.lines().filter_map(read).collect();
    let mut more = Vec::new();
    for (name, count) in counted {
        let figure = stored.get(name).with_context(|| format!("{} has no figure for {name}", file.display()))?;
        let ratio = count as f64 / *figure as f64;
        println!("{count:>9} instructions, {ratio:.3} of what they were: {name}");
        if ratio > TOLERANCE {
            more.push(name);
        }
    }
    ensure!(more.is_empty(), "more than {TOLERANCE} of what they were: {}", more.join("; "));
    Ok(())
}

fn read(line: &str) -> Option<(&str, u64)> {
    let (count, name) = line.trim().split_once(' ')?;
    Some((name, count.parse().ok()?))
}

/// Instructions of doing it once. What starting and ending the process costs is in both counts and falls out.
fn instructions(name: &str) -> anyhow::Result<u64> {
    let (few, many) = (count(name, TIMES)?, count(name, 3 * TIMES)?);
    Ok((many - few) / (2 * TIMES))
}

fn count(name: &str, times: u64) -> anyhow::Result<u64> {
    let out = tempfile::NamedTempFile::new().context("make a file")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={}", out.path().display())])
        .arg(std::env::current_exe().context("find this program")?)
        .args([name, &times.to_string()])
        .output()
        .context("start Valgrind")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(out.path()).context("read what Callgrind wrote")?;
    let sum = text.lines().find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    sum.context("Callgrind wrote no sum")?.trim().parse().context("the sum is a number")
}

//! The table of settings of a service: made from its command line, and kept in the docs by a test.

use std::fmt::Write as _;
use std::path::Path;

/// Set to 1, a test of the docs rewrites them instead of failing.
pub const UPDATE_DOCS_VARIABLE: &str = "UPDATE_DOCS";

/// The settings table of a service in Markdown, from its clap command: flag, environment variable, default, meaning.
pub fn settings_table(command: &clap::Command) -> String {
    let mut table = String::from("| flag | environment | default | meaning |\n|---|---|---|---|\n");
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long() else { continue };
        if matches!(flag, "help" | "version") {
            continue;
        }
        let environment = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let default = match defaults.concat().as_str() {
            "" if argument.is_required_set() => "(required)".to_owned(),
            "" => String::new(),
            _ => format!("`{}`", defaults.join(",")),
        };
        let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(table, "| `--{flag}` | {environment} | {default} | {meaning} |");
    }
    table
}

/// The whole page of a service: title and table.
pub fn settings_page(service: &str, command: &clap::Command) -> String {
    format!(
        "# Settings of {service}\n\nWritten by a test of the service from its command line (`UPDATE_DOCS=1` rewrites it). \
         A flag wins over the environment variable.\n\n{}",
        settings_table(command)
    )
}

/// Panics with a sentence that says what to do when the file does not hold this text; rewrites it when `UPDATE_DOCS=1`.
/// For tests.
pub fn assert_documented(path: &Path, text: &str) {
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found == text {
        return;
    }
    assert!(
        std::env::var(UPDATE_DOCS_VARIABLE).is_ok_and(|value| value == "1"),
        "{} does not say what the code says; run this test with {UPDATE_DOCS_VARIABLE}=1",
        path.display()
    );
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("folder of the docs");
    }
    std::fs::write(path, text).expect("docs file");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(clap::Parser)]
    struct Example {
        /// Where | to
        #[arg(long, env = "LISTEN", default_value = "127.0.0.1:0")]
        _listen: String,
        /// Needed
        #[arg(long)]
        _must: String,
    }

    #[test]
    fn names_flag_environment_default_and_meaning() {
        let table = settings_table(&Example::command());
        assert!(table.contains("| `--listen` | `LISTEN` | `127.0.0.1:0` | Where \\| to |"), "{table}");
        assert!(table.contains("| `--must` |  | (required) | Needed |"), "{table}");
    }

    #[test]
    #[should_panic(expected = "UPDATE_DOCS=1")]
    fn a_stale_page_fails() {
        assert_documented(Path::new("no-such-folder/page.md"), "text");
    }
}

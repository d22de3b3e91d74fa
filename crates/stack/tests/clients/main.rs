//! The clients of other hands against the whole system: the schema fuzzer. Where Python or its packages are not to be had
//! it is skipped, and it is said.

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack::{Shop, Stack, repository};
use tokio::process::Command as AsyncCommand;

/// Exit code of `tools/python-env` when Python or its packages are not to be had.
const NOT_TO_BE_HAD: i32 = 69;
/// The fuzzer takes a minute or two; a machine that compiles meanwhile needs longer.
const FUZZ_DEADLINE: Duration = Duration::from_secs(900);

struct World {
    shop: Shop,
    stack: Stack,
}

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    if has_python("fuzz", "fuzz/requirements.txt") {
        scenarios.push(scenario!(every_answer_is_one_of_the_openapi_document));
        scenarios.push(scenario!(the_fuzzer_finds_what_a_document_does_not_say));
    }
    if scenarios.is_empty() {
        return ExitCode::SUCCESS;
    }
    common::run(
        |_| {},
        |stack| World { shop: Shop::new(stack.gateway_url()), stack },
        async |world: World| world.stack.stop().await.map(drop),
        scenarios,
    )
}

/// Makes the environment, once for all runs.
fn has_python(name: &str, requirements: &str) -> bool {
    let made = Command::new("tools/python-env").args([name, requirements]).current_dir(repository()).output();
    let made = made.expect("tools/python-env runs");
    if made.status.code() == Some(NOT_TO_BE_HAD) {
        eprintln!("SKIPPED, the tests with {name}: {}", String::from_utf8_lossy(&made.stderr).trim());
        return false;
    }
    assert!(made.status.success(), "tools/python-env {name}: {made:?}");
    true
}

/// Runs a script of the repository; it is killed at the deadline.
async fn run(script: &str, args: &[&str], deadline: Duration) -> anyhow::Result<Output> {
    let mut command = AsyncCommand::new(Path::new(".").join(script));
    command.args(args).current_dir(repository()).kill_on_drop(true);
    let output = tokio::time::timeout(deadline, command.output()).await;
    output
        .with_context(|| format!("{script} did not end within {deadline:?}"))?
        .with_context(|| format!("run {script}"))
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn every_answer_is_one_of_the_openapi_document(world: Arc<World>) -> anyhow::Result<()> {
    let output = run("fuzz/run", &["--url", world.stack.gateway_url(), "--no-color"], FUZZ_DEADLINE).await?;
    ensure!(output.status.success(), "{}", words(&output));
    Ok(())
}

/// A document that is wrong in four places: a status, a body, a problem's type and the keys that are taken.
async fn the_fuzzer_finds_what_a_document_does_not_say(world: Arc<World>) -> anyhow::Result<()> {
    let mut document = world.shop.get("/openapi.json").await?.json()?;
    let paths = &mut document["paths"];
    let answers = paths["/stock/find/{item_id}"]["get"]["responses"].as_object_mut().context("answers")?;
    answers.remove("404").context("the route has a 404")?;
    let no_user = &mut paths["/payment/add_funds/{user_id}/{amount}"]["post"]["responses"]["404"];
    no_user["content"]["application/problem+json"]["schema"]["properties"]["type"] =
        json!({ "enum": ["/problems/no"] });
    paths["/orders/create/{user_id}"]["post"]["parameters"][1]["schema"]["pattern"] = "^[a-z]{1,9}$".into();
    document["components"]["schemas"]["User"]["properties"]["credit"] = json!({ "type": "string" });
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(&file, document.to_string())?;
    let file = file.path().to_str().context("a path that is text")?;

    let wrong = ["findItem", "addFunds", "createOrder", "findUser"].map(|id| ["--include-operation-id", id]);
    let args = ["--url", world.stack.gateway_url(), "--document", file, "--no-color", "--max-examples", "10"];
    let output = run("fuzz/run", &[&args[..], wrong.as_flattened()].concat(), FUZZ_DEADLINE).await?;
    let words = words(&output);
    ensure!(!output.status.success() && words.contains("4 unique failures"), "{words}");
    Ok(())
}

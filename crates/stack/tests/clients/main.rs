//! The clients of other hands against the whole system: the schema fuzzer and Locust. Where Python or its packages are not
//! to be had they are skipped, and it is said.

#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack::{Shop, Stack, repository};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command as AsyncCommand;

/// Exit code of `tools/python-env` when Python or its packages are not to be had.
const NOT_TO_BE_HAD: i32 = 69;
/// The fuzzer takes a minute or two; a machine that compiles meanwhile needs longer.
const FUZZ_DEADLINE: Duration = Duration::from_secs(900);
/// A Locust run here takes some seconds.
const LOCUST_DEADLINE: Duration = Duration::from_secs(180);

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
    if has_python("locust", "locust/requirements.txt") {
        scenarios.push(scenario!(locust_runs_every_scenario_without_a_failure));
        scenarios.push(scenario!(locust_checks_out_each_loaded_order_once));
        scenarios.push(scenario!(locust_tells_a_failure_from_an_expected_refusal));
        scenarios.push(scenario!(locust_starts_nobody_when_the_data_cannot_be_loaded));
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

async fn locust(url: &str, args: &[&str]) -> anyhow::Result<Output> {
    let loaded = ["--shop-items", "100", "--shop-users", "100", "--flash-stock", "10", "--json"];
    let fixed = ["--headless", "--host", url];
    let args: Vec<&str> = args.iter().copied().chain(fixed).chain(loaded).collect();
    run("locust/run", &args, LOCUST_DEADLINE).await
}

/// How many requests had this name, and how many of them failed. Each process writes a list, that of a worker is empty.
fn counted(output: &Output, name: &str) -> anyhow::Result<(u64, u64)> {
    let lists = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Vec<serde_json::Value>>();
    let lists: Vec<_> = lists.collect::<Result<_, _>>().with_context(|| words(output))?;
    let row = lists
        .iter()
        .flatten()
        .find(|row| row["name"] == name)
        .with_context(|| format!("no {name}: {}", words(output)))?;
    let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
    Ok((number("num_requests")?, number("num_failures")?))
}

async fn locust_runs_every_scenario_without_a_failure(world: Arc<World>) -> anyhow::Result<()> {
    let args = ["Mix", "Refused", "FlashSale", "--users", "9", "--spawn-rate", "9", "--rounds", "5"];
    let output = locust(world.stack.gateway_url(), &args).await?;
    ensure!(output.status.success(), "{}", words(&output));
    ensure!(counted(&output, "/orders/checkout")? == (15, 0), "{}", words(&output));
    let flash = [counted(&output, "/orders/checkout: flash")?, counted(&output, "/orders/checkout: flash: sold out")?];
    ensure!(flash == [(10, 0), (5, 0)], "as many as there are are sold: {flash:?}");
    ensure!(world.shop.find_item("100").await?.stock == 0);
    let refused =
        [": too little credit", ": out of stock"].map(|why| counted(&output, &format!("/orders/checkout{why}")));
    let refused = refused.into_iter().filter_map(Result::ok).map(|(requests, _)| requests).sum::<u64>();
    ensure!(refused == 15, "{}", words(&output));
    Ok(())
}

async fn locust_checks_out_each_loaded_order_once(world: Arc<World>) -> anyhow::Result<()> {
    // Two workers, which must not get the same orders; the run ends when there are none left.
    let port = local_servers::free_port()?.to_string();
    let args = ["Checkout", "--users", "8", "--spawn-rate", "8", "--shop-orders", "1500", "--processes", "2"];
    let ports = ["--master-bind-port", &port, "--master-port", &port];
    let output = locust(world.stack.gateway_url(), &[&args[..], &ports].concat()).await?;
    ensure!(output.status.success(), "{}", words(&output));
    ensure!(counted(&output, "/orders/checkout")? == (1_500, 0), "{}", words(&output));
    for order in ["0", "999", "1000", "1499"] {
        ensure!(world.shop.find_order(order).await?.paid, "order {order} is paid");
    }
    Ok(())
}

async fn locust_tells_a_failure_from_an_expected_refusal(_world: Arc<World>) -> anyhow::Result<()> {
    let url = refusing_shop().await?;
    let args = ["Checkout", "--users", "2", "--spawn-rate", "2", "--shop-orders", "20"];
    let output = locust(&url, &args).await?;
    ensure!(!output.status.success(), "a run with failures fails: {}", words(&output));
    ensure!(counted(&output, "/orders/checkout")? == (20, 20), "{}", words(&output));
    let output = locust(&url, &["FlashSale", "--users", "2", "--spawn-rate", "2", "--rounds", "3"]).await?;
    ensure!(output.status.success(), "{}", words(&output));
    ensure!(counted(&output, "/orders/checkout: flash: sold out")? == (6, 0), "{}", words(&output));
    Ok(())
}

async fn locust_starts_nobody_when_the_data_cannot_be_loaded(_world: Arc<World>) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}", local_servers::free_port()?);
    let output = locust(&url, &["Mix", "--users", "2", "--spawn-rate", "2"]).await?;
    ensure!(output.status.code() == Some(1), "{}", words(&output));
    ensure!(words(&output).contains("the data cannot be loaded"), "{}", words(&output));
    Ok(())
}

/// A shop that does everything but check out: that it refuses with 409.
async fn refusing_shop() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream));
        }
    });
    Ok(url)
}

async fn refuse(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut path = String::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        if path.is_empty() {
            path.clone_from(&line);
        }
        if line == "\r\n" {
            let status = if path.contains("/orders/checkout/") { "409 Conflict" } else { "200 OK" };
            let body = r#"{"order_id": "1", "stock": 0}"#;
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
            path.clear();
        }
        line.clear();
    }
    Ok(())
}

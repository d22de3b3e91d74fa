//! The programs of Docker, with a deadline each.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::file;

/// A cold build compiles 300 crates and the C library of Kafka.
const BUILD_DEADLINE: Duration = Duration::from_secs(90 * 60);
/// From nothing to a checkout, on a busy machine.
const UP_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// The drain of all services and servers.
const DOWN_DEADLINE: Duration = Duration::from_secs(3 * 60);
/// Any other question to the engine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Fetching one base image.
const PULL_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Oldest compose that knows `depends_on … required`.
const OLDEST_COMPOSE: (u64, u64) = (2, 20);
/// Variable that turns off what needs an engine: `skip`. A first build takes long.
const SWITCH: &str = "COMPOSE_TESTS";
/// Variable that names the tag of images that are there already: they are tested as they are, nothing is built.
const GIVEN_TAG: &str = "COMPOSE_TESTS_TAG";
/// Tag of the images that the test builds; those of a person stay as they are.
const OWN_TAG: &str = "test";

fn given_tag() -> Option<String> {
    std::env::var(GIVEN_TAG).ok().filter(|tag| !tag.is_empty())
}

fn tag() -> String {
    given_tag().unwrap_or_else(|| OWN_TAG.to_owned())
}

/// Runs `docker` and gives what it prints.
pub async fn docker(arguments: &[&str], environment: &[(&str, String)], deadline: Duration) -> anyhow::Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(file::repository()).stdin(Stdio::null()).kill_on_drop(true);
    let what = || format!("docker {}", arguments.join(" "));
    let output = tokio::time::timeout(deadline, command.output()).await;
    let output = output.with_context(|| format!("{}: not done within {deadline:?}", what()))?.with_context(what)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\n{}", what(), output.status, last_lines(&errors));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 30;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Why the file cannot be rendered here; `None` when it can.
pub async fn no_compose() -> Option<String> {
    let version = docker(&["compose", "version", "--short"], &[], ANSWER_DEADLINE).await.ok();
    let Some(version) = version else { return Some("there is no docker compose".to_owned()) };
    let mut numbers = version.trim().trim_start_matches('v').split('.').map_while(|number| number.parse().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_COMPOSE;
    (found < OLDEST_COMPOSE).then(|| format!("docker compose is {}, older than {major}.{minor}", version.trim()))
}

/// Why nothing can or shall be run here; `None` when it can.
pub async fn no_engine() -> Option<String> {
    if std::env::var(SWITCH).is_ok_and(|value| value == "skip") {
        return Some(format!("{SWITCH}=skip"));
    }
    if let Some(reason) = no_compose().await {
        return Some(reason);
    }
    if docker(&["info"], &[], ANSWER_DEADLINE).await.is_err() {
        return Some("no Docker engine answers".to_owned());
    }
    for image in base_images().await {
        let here = docker(&["image", "inspect", &image], &[], ANSWER_DEADLINE).await.is_ok();
        if !here && docker(&["pull", "--quiet", &image], &[], PULL_DEADLINE).await.is_err() {
            return Some(format!("image {image} is not here and cannot be pulled"));
        }
    }
    None
}

/// The images that the default profile and the build stand on.
async fn base_images() -> Vec<String> {
    let dockerfile = std::fs::read_to_string(file::repository().join("Dockerfile")).unwrap_or_default();
    let stages = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next());
    let mut images: Vec<String> = stages.filter(|image| image.contains(':')).map(str::to_owned).collect();
    let rendered = Project::named("none", 0).render(&[]).await.unwrap_or_default();
    images.extend(bought(&rendered));
    images.sort();
    images.dedup();
    images
}

/// The images in a file that nothing in it builds.
pub fn bought(file: &Value) -> Vec<String> {
    let services = || file["services"].as_object().into_iter().flatten().map(|(_, service)| service);
    let image = |service: &Value| service["image"].as_str().map(str::to_owned);
    let built: Vec<String> = services().filter(|service| !service["build"].is_null()).filter_map(image).collect();
    services().filter_map(image).filter(|image| !built.contains(image)).collect()
}

/// One stack of containers, apart from any other on the machine.
#[derive(Clone, Debug)]
pub struct Project {
    name: String,
    gateway_port: u16,
    profiles: Vec<&'static str>,
}

impl Project {
    /// Nothing is started yet; it takes any port but the gateway's from the engine.
    pub fn named(name: &str, gateway_port: u16) -> Self {
        Self { name: name.to_owned(), gateway_port, profiles: Vec::new() }
    }

    /// With a profile.
    pub fn with(mut self, profile: &'static str) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Where the shop is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    /// The file as compose understands it.
    pub async fn render(&self, profiles: &[&'static str]) -> anyhow::Result<Value> {
        let project = profiles.iter().fold(self.clone(), |project, profile| project.with(profile));
        let text = project.compose(&["config", "--format", "json"], ANSWER_DEADLINE).await?;
        serde_json::from_str(&text).context("what compose renders is not JSON")
    }

    /// Builds all images unless they are given; what was compiled before is not compiled again.
    pub async fn build(&self) -> anyhow::Result<()> {
        if given_tag().is_some() {
            return Ok(());
        }
        self.compose(&["build", "--quiet"], BUILD_DEADLINE).await.map(drop)
    }

    /// Starts what does not run, and returns when everything is healthy.
    pub async fn up(&self, more: &[&str]) -> anyhow::Result<()> {
        let arguments = [&["up", "--detach", "--no-build", "--wait"], more].concat();
        let up = self.compose(&arguments, UP_DEADLINE).await;
        if let Err(error) = up {
            let states = self.compose(&["ps", "--all"], ANSWER_DEADLINE).await.unwrap_or_default();
            bail!("{error:#}\n{states}");
        }
        Ok(())
    }

    /// Takes everything away, data too.
    pub async fn down(&self) -> anyhow::Result<()> {
        self.compose(&["--profile", "*", "down", "--volumes", "--remove-orphans"], DOWN_DEADLINE).await.map(drop)
    }

    /// SIGKILL to all containers of a service.
    pub async fn kill(&self, service: &str) -> anyhow::Result<()> {
        self.compose(&["kill", service], ANSWER_DEADLINE).await.map(drop)
    }

    /// SIGKILL to one container of a service.
    pub async fn kill_one(&self, service: &str) -> anyhow::Result<()> {
        let containers = self.containers(Some(service)).await?;
        let container = containers.first().with_context(|| format!("no container of {service}"))?;
        docker(&["kill", container], &[], ANSWER_DEADLINE).await.map(drop)
    }

    /// The ids of the running containers of one service, or of all.
    pub async fn containers(&self, service: Option<&str>) -> anyhow::Result<Vec<String>> {
        let mut arguments = vec!["ps", "--quiet"];
        arguments.extend(service);
        let ids = self.compose(&arguments, ANSWER_DEADLINE).await?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// What the engine says of all running containers.
    pub async fn inspect(&self) -> anyhow::Result<Vec<Value>> {
        let ids = self.containers(None).await?;
        let arguments: Vec<&str> = std::iter::once("inspect").chain(ids.iter().map(String::as_str)).collect();
        let text = docker(&arguments, &[], ANSWER_DEADLINE).await?;
        serde_json::from_str(&text).context("what the engine says is not JSON")
    }

    async fn compose(&self, arguments: &[&str], deadline: Duration) -> anyhow::Result<String> {
        // Nobody's .env decides what is tested.
        let mut all = vec!["compose", "--env-file", "/dev/null", "--project-name", &self.name];
        all.extend(self.profiles.iter().flat_map(|profile| ["--profile", profile]));
        all.extend(arguments);
        let any_port = || "0".to_owned();
        let environment = [
            ("GATEWAY_PORT", self.gateway_port.to_string()),
            ("DASHBOARD_PORT", any_port()),
            ("LOCUST_PORT", any_port()),
            ("PROMETHEUS_PORT", any_port()),
            ("SAGA_TAG", tag()),
        ];
        docker(&all, &environment, deadline).await
    }
}

/// How much of an image is ours and not its base's, bytes.
pub async fn own_bytes(image: &str, base: &str) -> anyhow::Result<u64> {
    let size = async |image: &str| -> anyhow::Result<u64> {
        let text = docker(&["image", "inspect", "--format", "{{.Size}}", image], &[], ANSWER_DEADLINE).await?;
        text.trim().parse().with_context(|| format!("the size of {image}"))
    };
    let (image_size, base_size) = (size(&format!("{image}:{}", tag())).await?, size(base).await?);
    image_size.checked_sub(base_size).with_context(|| format!("{image} is smaller than {base}"))
}

//! What every container must be like: pure, over `docker-compose.yml` as it is written or as compose renders it.

use serde_json::{Map, Value};

/// Services that may publish a port: the door, and what one looks at.
const PUBLISHERS: [&str; 4] = ["gateway", "dashboard", "prometheus", "locust"];
/// Services with three replicas unless somebody says otherwise.
const THREEFOLD: [&str; 4] = ["orchestrator", "order-svc", "stock-svc", "payment-svc"];
/// Services without a health check, and why.
const WITHOUT_HEALTH: [(&str, &str); 2] = [
    ("dashboard", "its image holds no program that could be one"),
    ("collector", "its image holds the collector and nothing else"),
];
/// Parts of names of variables that hold a secret; `…_FILE` only names the file.
const SECRETIVE: [&str; 5] = ["PASSWORD", "SECRET", "TOKEN", "PRIVATE", "API_KEY"];

/// What is wrong, one sentence for each violation; empty when the file keeps all rules.
pub fn violations(file: &Value) -> Vec<String> {
    let Some(services) = file["services"].as_object().filter(|services| !services.is_empty()) else {
        return vec!["there are no services".to_owned()];
    };
    let mut found = Vec::new();
    for (name, service) in services {
        let rules: [fn(&Context<'_>) -> Option<String>; 13] = [
            root_file_system,
            privileges,
            user,
            limits,
            health,
            restarts,
            logs,
            image,
            ports,
            networks,
            secrets,
            mounts,
            replicas,
        ];
        let context = Context { name, service, services, networks: &file["networks"] };
        found.extend(rules.iter().filter_map(|rule| rule(&context)).map(|what| format!("{name}: {what}")));
        found.extend(dependencies(&context).into_iter().map(|what| format!("{name}: {what}")));
    }
    found
}

struct Context<'file> {
    name: &'file str,
    service: &'file Value,
    services: &'file Map<String, Value>,
    networks: &'file Value,
}

impl Context<'_> {
    /// Whether it does one thing and ends.
    fn is_job(&self) -> bool {
        is_job(self.service)
    }
}

fn is_job(service: &Value) -> bool {
    service["restart"] == "no"
}

fn root_file_system(context: &Context<'_>) -> Option<String> {
    (context.service["read_only"] != true).then(|| "its root file system can be written".to_owned())
}

fn privileges(context: &Context<'_>) -> Option<String> {
    let service = context.service;
    let forbidden = ["privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"];
    if let Some(key) = forbidden.iter().find(|key| !service[**key].is_null() && service[**key] != false) {
        return Some(format!("it asks for {key}"));
    }
    if service["cap_drop"] != serde_json::json!(["ALL"]) {
        return Some("it keeps capabilities".to_owned());
    }
    let is_set = |option: &str| option == "no-new-privileges:true" || option == "no-new-privileges";
    (!texts(&service["security_opt"]).any(is_set)).then(|| "it may gain privileges".to_owned())
}

fn user(context: &Context<'_>) -> Option<String> {
    let user = context.service["user"].as_str().unwrap_or_default();
    let ids: Vec<u32> = user.split(':').filter_map(|id| id.parse().ok()).collect();
    (ids.len() != 2 || ids.contains(&0)).then(|| format!("its user is \"{user}\", not a uid:gid above 0"))
}

fn limits(context: &Context<'_>) -> Option<String> {
    let limits = &context.service["deploy"]["resources"]["limits"];
    let missing = ["memory", "pids"].into_iter().find(|limit| limits[*limit].is_null())?;
    Some(format!("it has no limit of {missing}"))
}

fn health(context: &Context<'_>) -> Option<String> {
    if context.is_job() || WITHOUT_HEALTH.iter().any(|(name, _)| *name == context.name) {
        return None;
    }
    let check = &context.service["healthcheck"];
    let test: Vec<&str> = texts(&check["test"]).collect();
    let is_one = test.len() > 1 && ["CMD", "CMD-SHELL"].contains(&test[0]) && check["disable"] != true;
    let trivial = ["true", "exit 0", ":", "/bin/true"];
    if !is_one || test.get(1).is_some_and(|command| trivial.contains(command)) {
        return Some("it has no health check".to_owned());
    }
    let own = THREEFOLD.contains(&context.name) || context.name == "gateway";
    (own && !test.ends_with(&["health", "--ready"])).then(|| "its health check does not ask readiness".to_owned())
}

fn restarts(context: &Context<'_>) -> Option<String> {
    let waits = |other: &Value| {
        let condition = &other["depends_on"][context.name]["condition"];
        condition == "service_completed_successfully"
    };
    match context.service["restart"].as_str() {
        Some("unless-stopped" | "always") => None,
        Some("no") if context.services.values().any(waits) => None,
        Some("no") => Some("it is a job that nobody waits for".to_owned()),
        _ => Some("it is not started again when it dies".to_owned()),
    }
}

fn logs(context: &Context<'_>) -> Option<String> {
    let options = &context.service["logging"]["options"];
    let bounded = options["max-size"].is_string() && options["max-file"].is_string();
    (!bounded).then(|| "its log has no end".to_owned())
}

fn image(context: &Context<'_>) -> Option<String> {
    let image = context.service["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let pinned = match last.split_once(['@', ':']) {
        Some((_, tag)) => !tag.is_empty() && tag != "latest",
        None => false,
    };
    (!pinned).then(|| format!("its image \"{image}\" has no fixed tag"))
}

fn ports(context: &Context<'_>) -> Option<String> {
    let ports = context.service["ports"].as_array()?;
    if !ports.is_empty() && !PUBLISHERS.contains(&context.name) {
        return Some("it publishes a port".to_owned());
    }
    let open = ports.iter().find(|port| port["host_ip"] != "127.0.0.1")?;
    Some(format!("it publishes {open} to more than this machine"))
}

/// Only who publishes a port may be on a network with a way out; nobody shares the machine's own.
fn networks(context: &Context<'_>) -> Option<String> {
    if let Some(mode) = context.service["network_mode"].as_str() {
        return (mode != "none").then(|| format!("its network is \"{mode}\""));
    }
    let names: Vec<&str> = match &context.service["networks"] {
        Value::Object(networks) => networks.keys().map(String::as_str).collect(),
        list => texts(list).collect(),
    };
    if names.is_empty() {
        return Some("it is on the default network".to_owned());
    }
    let open = names.into_iter().find(|name| context.networks[*name]["internal"] != true)?;
    (!PUBLISHERS.contains(&context.name)).then(|| format!("network {open} leads outside"))
}

fn secrets(context: &Context<'_>) -> Option<String> {
    let variables = context.service["environment"].as_object().into_iter().flatten();
    let mut named = variables.filter(|(name, _)| {
        let name = name.to_uppercase();
        !name.ends_with("_FILE") && SECRETIVE.iter().any(|part| name.contains(part))
    });
    if let Some((name, _)) = named.next() {
        return Some(format!("variable {name} holds a secret"));
    }
    let command = texts(&context.service["command"]).chain(texts(&context.service["entrypoint"]));
    let mut words = command.filter(|word| word.contains("requirepass") || word.to_lowercase().contains("password"));
    words.next().map(|word| format!("its command holds a secret: {word}"))
}

/// What belongs to this machine can only be read, and the engine's own door is nobody's.
fn mounts(context: &Context<'_>) -> Option<String> {
    let volumes = context.service["volumes"].as_array()?;
    volumes.iter().find_map(|volume| {
        let (source, read_only) = match volume {
            Value::String(text) => (text.split(':').next().unwrap_or_default(), text.ends_with(":ro")),
            volume => (volume["source"].as_str().unwrap_or_default(), volume["read_only"] == true),
        };
        if source.contains("docker.sock") {
            return Some("it can command the engine".to_owned());
        }
        let of_this_machine = source.starts_with(['.', '/', '~']);
        (of_this_machine && !read_only).then(|| format!("it can write {source} of this machine"))
    })
}

fn replicas(context: &Context<'_>) -> Option<String> {
    if !context.service["container_name"].is_null() {
        return Some("it has a fixed name, so it cannot be scaled".to_owned());
    }
    let replicas = context.service["deploy"]["replicas"].as_u64().unwrap_or(1);
    (THREEFOLD.contains(&context.name) && replicas != 3).then(|| format!("it has {replicas} replicas, not 3"))
}

/// Whoever waits, waits for the end of a job and for the health of the rest.
fn dependencies(context: &Context<'_>) -> Vec<String> {
    let Some(dependencies) = context.service["depends_on"].as_object() else {
        let short = !context.service["depends_on"].is_null();
        return short.then(|| "it waits for a start only".to_owned()).into_iter().collect();
    };
    let wrong = dependencies.iter().filter_map(|(name, how)| {
        let Some(other) = context.services.get(name) else {
            return (how["required"] != false).then(|| format!("it waits for {name}, which is not there"));
        };
        let wanted = if is_job(other) { "service_completed_successfully" } else { "service_healthy" };
        (how["condition"] != wanted).then(|| format!("it waits for {name} otherwise than by {wanted}"))
    });
    wrong.collect()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    let one = list.as_str();
    list.as_array().into_iter().flatten().filter_map(Value::as_str).chain(one)
}

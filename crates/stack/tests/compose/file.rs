//! `docker-compose.yml` as a value, read without any program of Docker.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

/// The root of the repository.
pub fn repository() -> PathBuf {
    stack::repository()
}

/// The file with its merge keys and variables resolved, every variable to its default.
pub fn read() -> anyhow::Result<Value> {
    let path = repository().join("docker-compose.yml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut file = parse(&text)?;
    each_text(&mut file, &|text| *text = with_defaults(text));
    Ok(file)
}

/// The file's text as a value.
pub fn parse(text: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(text).context("docker-compose.yml is not YAML")
}

fn each_text(value: &mut Value, change: &impl Fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_text(value, change)),
        Value::Object(values) => values.values_mut().for_each(|value| each_text(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `${NAME:-default}` becomes the default, `${NAME}` nothing, `$$` a dollar.
fn with_defaults(text: &str) -> String {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        resolved.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            resolved.push('$');
            after
        } else if let Some((variable, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            resolved.push_str(variable.split_once(":-").map_or("", |(_, default)| default));
            after
        } else {
            resolved.push('$');
            after
        };
    }
    resolved + rest
}

/// Reads what this module must be able to read.
pub fn reads_merge_keys_and_defaults() {
    let text = "x: &x { a: 1, b: [2] }\ny:\n  <<: *x\n  a: 3\n";
    assert_eq!(parse(text).expect("YAML")["y"], serde_json::json!({"a": 3, "b": [2]}));
    assert_eq!(with_defaults("saga/${NAME}gateway:${TAG:-dev} costs $$5"), "saga/gateway:dev costs $5");
}

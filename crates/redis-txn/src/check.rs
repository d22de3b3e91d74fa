//! What a Redis must be set to before a service trusts it with money.

use redis::Value;

use crate::connection::{first_error, pipeline, string};
use crate::error::{CheckError, CommitError};
use crate::reader::Reader;
use crate::store::unavailable;

/// Oldest Redis that this was tried with: the one of Debian 12.
const MIN_MAJOR: u32 = 7;

/// A setting, the value it must have, and why.
struct Rule {
    name: &'static str,
    value: &'static str,
    why: &'static str,
    durability: bool,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "maxmemory-policy",
        value: "noeviction",
        why: "a Redis that evicts keys forgets which steps were done",
        durability: false,
    },
    Rule {
        name: "appendonly",
        value: "yes",
        why: "without it a restart forgets everything since the last snapshot",
        durability: true,
    },
    Rule {
        name: "appendfsync",
        value: "always",
        why: "anything less forgets what was acknowledged when the power fails",
        durability: true,
    },
    Rule {
        name: "no-appendfsync-on-rewrite",
        value: "no",
        why: "yes suspends appendfsync while the file is rewritten",
        durability: true,
    },
];

/// Checks all of it; see `Store::check`.
pub(crate) async fn check(reader: &Reader, allow_unsafe_fsync: bool) -> Result<(), CheckError> {
    let mut commands = pipeline();
    commands.cmd("INFO").arg("server");
    commands.cmd("INFO").arg("replication");
    let mut replies = reader.ask(&commands).await?;
    first_error(&replies).map_err(unavailable)?;
    let replication = text(replies.pop());
    let server = text(replies.pop());
    let mut faults = Vec::new();
    faults.extend(version_fault(field(&server, "redis_version")));
    if field(&replication, "role") != Some("master") {
        faults.push("this Redis is a replica: give the address of its master".to_owned());
    }
    faults.extend(setting_faults(reader, allow_unsafe_fsync).await?);
    if faults.is_empty() { Ok(()) } else { Err(CheckError::Unsafe(faults)) }
}

async fn setting_faults(reader: &Reader, allow_unsafe_fsync: bool) -> Result<Vec<String>, CommitError> {
    let mut commands = pipeline();
    for rule in &RULES {
        commands.cmd("CONFIG").arg("GET").arg(rule.name);
    }
    let replies = reader.ask(&commands).await?;
    if let Err(cause) = first_error(&replies) {
        return Ok(vec![format!("CONFIG GET is refused ({cause}): allow it, the settings must be known")]);
    }
    let mut faults = Vec::new();
    for (rule, reply) in RULES.iter().zip(replies) {
        let actual = setting(reply);
        if actual.as_deref() == Some(rule.value) {
            continue;
        }
        let actual = actual.unwrap_or_else(|| "unknown".to_owned());
        let fault = format!("set {} {} (it is {actual}): {}", rule.name, rule.value, rule.why);
        if rule.durability && allow_unsafe_fsync {
            tracing::warn!(fault, "unsafe Redis settings are allowed by ALLOW_UNSAFE_FSYNC");
        } else {
            faults.push(fault);
        }
    }
    Ok(faults)
}

fn version_fault(version: Option<&str>) -> Option<String> {
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (major, version) {
        (Some(major), _) if major >= MIN_MAJOR => None,
        (_, version) => {
            Some(format!("install Redis {MIN_MAJOR}.0 or later (it is {})", version.unwrap_or("of an unknown version")))
        }
    }
}

/// The value in a reply to CONFIG GET: name, value (or a map, in the newer protocol).
fn setting(reply: Value) -> Option<String> {
    match reply {
        Value::Array(mut pair) if pair.len() == 2 => pair.pop().map(|value| text(Some(value))),
        Value::Map(mut pairs) => pairs.pop().map(|(_, value)| text(Some(value))),
        _ => None,
    }
}

pub(crate) fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::VerbatimString { text, .. }) => text,
        value => String::from_utf8_lossy(&value.and_then(string).unwrap_or_default()).into_owned(),
    }
}

pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_info_and_versions() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        assert_eq!(field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(version_fault(Some("7.0.15")), None);
        assert_eq!(version_fault(Some("8.2.1")), None);
        assert_eq!(version_fault(Some("6.2.14")).as_deref(), Some("install Redis 7.0 or later (it is 6.2.14)"));
        assert!(version_fault(None).is_some());
    }
}

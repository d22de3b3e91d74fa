//! What a sweep varies: `NAME=VALUE,VALUE…` becomes one plan for each value.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum as _;

use crate::fsync::Fsync;
use crate::run::Plan;

/// The thing that is varied, and a plan for each of its values.
#[derive(Debug)]
pub struct Vary {
    /// Its name.
    pub name: String,
    /// At least two, in the order given; the first one counts as 1.
    pub variants: Vec<Variant>,
}

/// One value of what is varied.
#[derive(Debug)]
pub struct Variant {
    /// The value as it was written.
    pub value: String,
    /// The run that measures it.
    pub plan: Plan,
}

impl Vary {
    /// Everything that can be known to fail is refused here, before anything runs.
    pub fn parse(text: &str, plan: &Plan) -> anyhow::Result<Self> {
        let (name, values) = text.split_once('=').with_context(|| format!("--vary {text}: write NAME=VALUE,VALUE"))?;
        let variant = |value: &str| {
            ensure!(!value.is_empty(), "--vary {name}: a value is empty, write NAME=VALUE,VALUE");
            let plan = varied(plan, name, value)?;
            plan.check().with_context(|| format!("--vary {name}={value}"))?;
            Ok(Variant { value: value.to_owned(), plan })
        };
        let variants = values.split(',').map(variant).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(variants.len() > 1, "--vary {name}: one value makes no comparison, give at least two");
        let vary = Self { name: name.to_owned(), variants };
        let files: BTreeSet<String> = (0..vary.variants.len()).map(|place| vary.file_name(place, 0)).collect();
        ensure!(files.len() == vary.variants.len(), "--vary {name}: a value is there twice, leave one out");
        Ok(vary)
    }

    /// Name of the result of one run.
    pub fn file_name(&self, place: usize, round: usize) -> String {
        let plain = |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
        let value: String = self.variants[place].value.chars().map(plain).collect();
        format!("{}-{value}-{round}.json", self.name)
    }

    /// What the axis of a picture is called.
    pub fn title(&self) -> &str {
        match self.name.as_str() {
            "replicas" => "replicas of each service",
            "brokers" => "brokers of Kafka, each record on all of them",
            "partitions" => "partitions of each topic",
            "rate" => "checkouts that arrive per second",
            "connections" => "connections, each with one checkout at a time",
            "appendfsync" => "appendfsync of the Redis servers",
            name => name,
        }
    }
}

fn varied(plan: &Plan, name: &str, value: &str) -> anyhow::Result<Plan> {
    let mut plan = plan.clone();
    let number = || value.parse::<u32>().with_context(|| format!("--vary {name}: {value} is not a whole number"));
    let alone = || {
        let given = plan.connections.len() + plan.rate.len();
        ensure!(
            given == 0,
            "--vary {name}: leave out --connections and --rate, each value is the whole load of its run"
        );
        Ok(())
    };
    match name {
        "replicas" => plan.replicas = number()?,
        "brokers" => plan.brokers = number()?,
        "partitions" => plan.partitions = number()?,
        "rate" => {
            alone()?;
            plan.rate = vec![value.parse().with_context(|| format!("--vary rate: {value} is not a number"))?];
        }
        "connections" => {
            alone()?;
            plan.connections = vec![number()? as usize];
        }
        "appendfsync" => {
            let fsync = Fsync::from_str(value, false);
            plan.appendfsync = fsync.ok().with_context(|| format!("{value}: write always, everysec or no"))?;
        }
        "scenario" => plan.scenario = clap::ValueEnum::from_str(value, false).map_err(anyhow::Error::msg)?,
        _ if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_') => {
            plan.envs.push(format!("{name}={value}"));
        }
        _ if name.contains('.') && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.') => {
            plan.broker_settings.push(format!("{name}={value}"));
        }
        _ => bail!(
            "--vary {name}: write rate, connections, replicas, brokers, partitions, appendfsync, scenario, the name of \
             a setting's environment variable (KAFKA_LINGER_MS) or a setting of the broker (num.io.threads)"
        ),
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::result::Load;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: Plan,
    }

    fn parse(text: &str, args: &[&str]) -> anyhow::Result<Vary> {
        Vary::parse(text, &Cli::parse_from([&["bench"], args].concat()).plan)
    }

    #[test]
    fn one_thing_is_varied() {
        type Check = fn(&Plan) -> bool;
        let cases: [(&str, Check); 10] = [
            ("num.io.threads=8,2", |plan| plan.broker_settings == ["num.io.threads=2"]),
            ("replicas=1,3", |plan| plan.replicas == 3),
            ("partitions=100,10", |plan| plan.partitions == 10),
            ("rate=500,1.5e3", |plan| plan.loads().unwrap() == [Load::Rate(1500.0)]),
            ("connections=64,256", |plan| plan.loads().unwrap() == [Load::Connections(256)]),
            ("appendfsync=always,everysec", |plan| plan.appendfsync == Fsync::EverySec),
            ("appendfsync=always,no", |plan| plan.appendfsync == Fsync::No),
            ("scenario=checkout,flash-sale", |plan| plan.scenario.name() == "flash-sale"),
            ("KAFKA_LINGER_MS=0.5,3", |plan| plan.envs == ["KAFKA_LINGER_MS=3"]),
            ("COMMIT_MAX_BATCH=256,8", |plan| plan.envs == ["COMMIT_MAX_BATCH=8"]),
        ];
        for (text, is_varied) in cases {
            let vary = parse(text, &[]).unwrap();
            assert!(is_varied(&vary.variants[1].plan), "{text}");
            assert!(!is_varied(&vary.variants[0].plan), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_what_to_do() {
        let cases = [
            ("replicas", "write NAME=VALUE,VALUE"),
            ("replicas=1", "at least two"),
            ("replicas=1,", "a value is empty"),
            ("replicas=1,many", "many is not a whole number"),
            ("replicas=0,1", "above 0"),
            ("partitions=10,0", "above 0"),
            ("replicas=1,2,1", "twice"),
            ("rate=500,fast", "fast is not a number"),
            ("rate=500,0", "above 0"),
            ("rate=500,inf", "above 0"),
            ("connections=64,0", "above 0"),
            ("appendfsync=always,sometimes", "always, everysec or no"),
            ("scenario=checkout,nothing", "nothing"),
            ("colour=red,blue", "write rate, connections, replicas"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", parse(text, &[]).map(drop).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, args) in [("rate=1,2", ["--connections", "16"]), ("connections=1,2", ["--rate", "5"])] {
            let error = format!("{:#}", parse(text, &args).map(drop).unwrap_err());
            assert!(error.contains("leave out --connections and --rate"), "{error}");
        }
    }

    #[test]
    fn a_value_of_a_setting_may_be_a_path() {
        let vary = parse("SOME_FOLDER=/a/b,/c", &[]).unwrap();
        assert_eq!(vary.file_name(0, 1), "SOME_FOLDER-_a_b-1.json");
    }
}

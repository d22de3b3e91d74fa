//! A new version of the fold, adopted once every orchestrator runs a program that knows it: asks all of them, and posts only
//! if each one says yes and together they own every lane.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use hyper::Method;
use serde::Deserialize;

use crate::http::Http;

/// Longest wait for an answer of an admin port; it waits for Kafka no longer than 20 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait until every lane stands at the version.
const ADOPTED_DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks at that.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What to do with the version.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Action {
    /// One line for each replica: the version that its program knows, and those of its lanes
    Show,
    /// Adopt a version in every lane; from then on older programs cannot go on with them
    Adopt {
        /// The version
        version: u32,
    },
}

/// What one replica answers.
#[derive(Clone, Debug, Deserialize)]
struct Replica {
    instance: String,
    supported: u32,
    partitions: u32,
    lanes: BTreeMap<String, Option<u32>>,
}

/// Does it, with the admin ports `host:port` of all orchestrators.
pub(crate) async fn act(replicas: &[String], action: Action) -> anyhow::Result<()> {
    ensure!(
        !replicas.is_empty(),
        "no orchestrator is known: say --replicas HOST:PORT,… with the admin port of each one"
    );
    let http = Http::with_timeout(ANSWER_DEADLINE);
    let found = ask(&http, replicas).await?;
    found.iter().for_each(|replica| println!("{}", describe(replica)));
    let Action::Adopt { version } = action else { return Ok(()) };
    if let Some(why) = objection(&found, version) {
        bail!("{why}; nothing was changed");
    }
    let deadline = Instant::now() + ADOPTED_DEADLINE;
    loop {
        for address in replicas {
            let answer = http.send(Method::POST, &format!("http://{address}/fold-version/{version}")).await?;
            ensure!(answer.is_success(), "{address} answers {}: {}", answer.status, answer.text());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        let missing = behind(&ask(&http, replicas).await?, version);
        if missing == 0 {
            println!("all lanes have adopted version {version}; older programs cannot go on with them");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{missing} lanes have not adopted version {version} yet: they are halted, loading or moving; say it again later"
        );
    }
}

/// Every one must answer: a silent one may be the old program.
async fn ask(http: &Http, replicas: &[String]) -> anyhow::Result<Vec<Replica>> {
    let mut found = Vec::with_capacity(replicas.len());
    for address in replicas {
        let what = || {
            format!("{address} does not say what it supports; every replica must (an older program has no such route)")
        };
        let answer = http.get(&format!("http://{address}/fold-version")).await.with_context(what)?;
        ensure!(answer.is_success(), "{}: {}", what(), answer.status);
        found.push(serde_json::from_slice(&answer.body).with_context(what)?);
    }
    Ok(found)
}

fn describe(replica: &Replica) -> String {
    let known: Vec<u32> = replica.lanes.values().flatten().copied().collect();
    let (owned, unknown) = (replica.lanes.len(), replica.lanes.len() - known.len());
    let versions = match (known.iter().min(), known.iter().max()) {
        (Some(lowest), Some(highest)) if lowest == highest => format!("at version {lowest}"),
        (Some(lowest), Some(highest)) => format!("at versions {lowest} to {highest}"),
        _ => "at no known version".to_owned(),
    };
    format!(
        "{} supports version {}; {owned} lanes {versions}, {unknown} loading or halted",
        replica.instance, replica.supported
    )
}

/// Why the version must not be adopted. Nobody knows how many replicas there are; that those asked own all lanes shows that
/// none with a lane was forgotten.
fn objection(replicas: &[Replica], version: u32) -> Option<String> {
    if let Some(old) = replicas.iter().find(|replica| replica.supported < version) {
        return Some(format!("{} supports version {} at most", old.instance, old.supported));
    }
    let partitions = replicas.iter().map(|replica| replica.partitions).max()?;
    let owned: usize = (0..partitions).filter(|lane| owners(replicas, *lane) > 0).count();
    (owned < partitions as usize).then(|| {
        format!(
            "these replicas own {owned} of {partitions} lanes: another one has the rest (name all replicas), or lanes are \
             moving (try again)"
        )
    })
}

fn owners(replicas: &[Replica], lane: u32) -> usize {
    replicas.iter().filter(|replica| replica.lanes.contains_key(&lane.to_string())).count()
}

/// How many lanes are not known to have adopted the version.
fn behind(replicas: &[Replica], version: u32) -> usize {
    let partitions = replicas.iter().map(|replica| replica.partitions).max().unwrap_or_default();
    let adopted = |lane: &u32| {
        let standing = replicas.iter().filter_map(|replica| replica.lanes.get(&lane.to_string()).copied().flatten());
        standing.max().is_some_and(|standing| standing >= version)
    };
    (0..partitions).filter(|lane| !adopted(lane)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, supported: u32, lanes: &[(u32, Option<u32>)]) -> Replica {
        let lanes = lanes.iter().map(|(lane, version)| (lane.to_string(), *version)).collect();
        Replica { instance: name.to_owned(), supported, partitions: 4, lanes }
    }

    #[test]
    fn one_old_program_is_enough_to_refuse() {
        let new = replica("new", 2, &[(0, Some(1)), (1, Some(1)), (2, Some(1))]);
        let old = replica("old", 1, &[(3, Some(1))]);
        let why = objection(&[new.clone(), old], 2).expect("refused");
        assert_eq!(why, "old supports version 1 at most");
        assert_eq!(objection(&[new, replica("newer", 3, &[(3, Some(1))])], 2), None);
    }

    #[test]
    fn a_replica_that_was_forgotten_is_noticed_by_its_lanes() {
        let why = objection(&[replica("new", 2, &[(0, Some(1)), (1, None), (3, Some(1))])], 2).expect("refused");
        assert!(why.starts_with("these replicas own 3 of 4 lanes"), "{why}");
    }

    #[test]
    fn what_is_loading_or_moving_has_not_adopted() {
        let [a, b] = [replica("a", 2, &[(0, Some(2)), (1, None)]), replica("b", 2, &[(2, Some(1))])];
        assert_eq!(behind(&[a.clone(), b], 2), 3);
        let b = replica("b", 2, &[(1, Some(2)), (2, Some(2)), (3, Some(3))]);
        assert_eq!(behind(&[a.clone(), b], 2), 0, "the former owner does not know any more, the new one does");
        assert_eq!(describe(&a), "a supports version 2; 2 lanes at version 2, 1 loading or halted");
    }

    #[tokio::test]
    async fn without_a_list_it_says_what_it_needs() {
        let error = act(&[], Action::Adopt { version: 2 }).await.expect_err("nobody to ask").to_string();
        assert!(error.contains("--replicas HOST:PORT"), "{error}");
    }
}

//! Which crate may depend on which.

use crate::manifest::{Dependency, Kind, Package};

/// The crates from the ground up; a crate may depend on those of lower rank.
const RANKS: &[(u8, &[&str])] = &[
    (0, &["saga-core", "otlp-sink", "workspace-hack"]),
    (1, &["proto", "telemetry"]),
    (2, &["service-kit", "local-servers"]),
    (3, &["event-stream", "redis-txn"]),
    (4, &["groundwork"]),
    (5, &["participant", "rest-kit", "starter"]),
    (6, &["orchestrator", "order-svc", "stock-svc", "payment-svc", "gateway"]),
    (7, &["sim", "stack", "bench", "chaos", "xtask"]),
];

/// Siblings of one rank that may depend on each other all the same, and why.
const SIBLINGS: &[(&str, &str, Kind)] = &[
    // The load generator starts the system that it measures.
    ("bench", "stack", Kind::Normal),
    // The fault campaign starts the system that it strikes.
    ("chaos", "stack", Kind::Normal),
    // The contract tests of lanes keep their positions where services keep them.
    ("event-stream", "redis-txn", Kind::Dev),
];

/// Clients that one crate hides from all others.
const HIDDEN: &[(&str, &str)] = &[("rdkafka", "event-stream"), ("rdkafka-sys", "event-stream"), ("redis", "redis-txn")];

/// Who names a hidden client all the same, and why.
const UNHIDDEN: &[(&str, &str)] = &[
    // The auditor shares no code with what it judges.
    ("chaos", "rdkafka"),
];

/// What is wrong with the dependencies of one package.
pub fn check(package: &Package) -> Vec<String> {
    let Some(own) = rank(&package.name) else {
        return vec![format!("crate {} has no rank: give it one in xtask/src/dependencies.rs", package.name)];
    };
    package.dependencies.iter().filter_map(|dependency| refuse(&package.name, own, dependency)).collect()
}

fn refuse(user: &str, own: u8, dependency: &Dependency) -> Option<String> {
    let Dependency { name, kind } = dependency;
    if let Some((_, owner)) = HIDDEN.iter().find(|(client, _)| client == name) {
        let is_free = user == *owner || UNHIDDEN.contains(&(user, name));
        return (!is_free).then(|| format!("{user} names {name}, which only {owner} may name"));
    }
    let other = rank(name)?;
    if other < own || SIBLINGS.contains(&(user, name, *kind)) {
        return None;
    }
    let direction = if other == own { "sideways" } else { "upwards" };
    Some(format!("{user} (rank {own}) depends {direction} on {name} (rank {other}, {kind:?} dependency)"))
}

fn rank(name: &str) -> Option<u8> {
    RANKS.iter().find(|(_, names)| names.contains(&name)).map(|(rank, _)| *rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(manifest: &str) -> Vec<String> {
        let manifest = manifest.parse().unwrap();
        check(&crate::manifest::package(&manifest, "somewhere".into()).unwrap())
    }

    #[test]
    fn downwards_is_fine() {
        let manifest = "package.name = 'stock-svc'\n[dependencies]\nparticipant.workspace = true\nserde = '1'\n";
        assert_eq!(complaints(manifest), Vec::<String>::new());
    }

    #[test]
    fn upwards_is_refused_in_every_table() {
        for table in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let found = complaints(&format!("package.name = 'saga-core'\n[{table}]\nproto.workspace = true\n"));
            assert_eq!(found.len(), 1, "{table}: {found:?}");
            assert!(found[0].contains("depends upwards on proto"), "{found:?}");
        }
    }

    #[test]
    fn siblings_are_refused_apart_from_the_named_ones() {
        let found = complaints("package.name = 'order-svc'\n[dependencies]\nstock-svc.workspace = true\n");
        assert!(found[0].contains("depends sideways on stock-svc"), "{found:?}");
        assert!(complaints("package.name = 'bench'\n[dependencies]\nstack.workspace = true\n").is_empty());
        assert!(
            complaints("package.name = 'event-stream'\n[dev-dependencies]\nredis-txn.workspace = true\n").is_empty()
        );
        assert_eq!(complaints("package.name = 'event-stream'\n[dependencies]\nredis-txn.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_second_crate_that_names_a_hidden_client_is_refused() {
        let found = complaints("package.name = 'stack'\n[dev-dependencies]\nrdkafka = '0.39'\n");
        assert!(found[0].contains("only event-stream may name"), "{found:?}");
        let renamed =
            complaints("package.name = 'bench'\n[dependencies]\nstore = { package = 'redis', version = '1' }\n");
        assert!(renamed[0].contains("only redis-txn may name"), "{renamed:?}");
        assert!(complaints("package.name = 'redis-txn'\n[dependencies]\nredis.workspace = true\n").is_empty());
        assert!(complaints("package.name = 'chaos'\n[dependencies]\nrdkafka.workspace = true\n").is_empty());
    }

    #[test]
    fn a_crate_without_a_rank_is_refused() {
        assert!(complaints("package.name = 'helper'\n")[0].contains("has no rank"));
    }
}

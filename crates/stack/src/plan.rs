//! Which services run where, with which settings: pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::StackOptions;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The broker.
    Kafka,
    /// One of the four stores.
    Redis,
    /// Decides what each saga does next.
    Orchestrator,
    /// Orders; starts checkouts.
    OrderSvc,
    /// Items.
    StockSvc,
    /// Users and their credit.
    PaymentSvc,
    /// The only public port.
    Gateway,
}

impl Kind {
    /// The services with a store and lanes.
    pub const CONSUMERS: [Kind; 4] = [Kind::Orchestrator, Kind::OrderSvc, Kind::StockSvc, Kind::PaymentSvc];

    /// Its name, which is also its program's.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kafka => "kafka",
            Kind::Redis => "redis",
            Kind::Orchestrator => "orchestrator",
            Kind::OrderSvc => "order-svc",
            Kind::StockSvc => "stock-svc",
            Kind::PaymentSvc => "payment-svc",
            Kind::Gateway => "gateway",
        }
    }

    /// The name of its Redis, if it has one.
    pub fn store(self) -> Option<&'static str> {
        match self {
            Kind::Orchestrator => Some("redis-orchestrator"),
            Kind::OrderSvc => Some("redis-order"),
            Kind::StockSvc => Some("redis-stock"),
            Kind::PaymentSvc => Some("redis-payment"),
            Kind::Kafka | Kind::Redis | Kind::Gateway => None,
        }
    }
}

/// One service process to be started.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Its name, unique in the stack.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Port of its REST routes.
    pub port: u16,
    /// Port of `/readyz`, `/metrics` …
    pub admin_port: u16,
    /// Its environment variables.
    pub envs: Vec<(String, String)>,
    /// Its log.
    pub log_file: PathBuf,
    /// Whether it is not started with the others.
    pub is_spare: bool,
}

/// A port from which somebody forwards, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where the client connects.
    pub port: u16,
    /// Where the server listens.
    pub server_port: u16,
}

/// The ports over which the connections of one service lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Name of the service.
    pub service: String,
    /// What the service is.
    pub kind: Kind,
    /// To its Redis.
    pub redis: Hop,
    /// To each broker.
    pub brokers: Vec<Hop>,
}

/// Where the servers are, which every service needs to know.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Kafka, `host:port`.
    pub brokers: String,
    /// Each consuming service's Redis, `host:port`.
    pub stores: Vec<(Kind, String)>,
    /// Services that reach them over other ports.
    pub detours: Vec<Detour>,
}

/// The services of a stack; `free_port` gives a new port each time.
pub fn services(
    options: &StackOptions,
    servers: &Servers,
    mut free_port: impl FnMut() -> anyhow::Result<u16>,
) -> anyhow::Result<Vec<ServicePlan>> {
    let mut plans = Vec::new();
    for kind in Kind::CONSUMERS {
        for replica in 1..=options.replicas + options.spares {
            plans.push(plan(options, servers, kind, replica, free_port()?, free_port()?));
        }
    }
    for gateway in 1..=options.gateways {
        let port = match options.gateway_port {
            Some(port) if gateway == 1 => port,
            _ => free_port()?,
        };
        plans.push(plan(options, servers, Kind::Gateway, gateway, port, free_port()?));
    }
    let upstreams = |kind: Kind| {
        let all = plans.iter().filter(|plan| plan.kind == kind).map(|plan| address(plan.port));
        all.collect::<Vec<_>>().join(",")
    };
    let (order, stock, payment) = (upstreams(Kind::OrderSvc), upstreams(Kind::StockSvc), upstreams(Kind::PaymentSvc));
    for plan in &mut plans {
        if matches!(plan.kind, Kind::OrderSvc | Kind::Gateway) {
            plan.envs.push(("STOCK_UPSTREAMS".into(), stock.clone()));
        }
        if plan.kind == Kind::Gateway {
            plan.envs.push(("ORDER_UPSTREAMS".into(), order.clone()));
            plan.envs.push(("PAYMENT_UPSTREAMS".into(), payment.clone()));
        }
    }
    Ok(plans)
}

fn plan(
    options: &StackOptions,
    servers: &Servers,
    kind: Kind,
    replica: u32,
    port: u16,
    admin_port: u16,
) -> ServicePlan {
    let name = match kind {
        Kind::Gateway if replica == 1 => kind.name().to_owned(),
        _ => format!("{}-{replica}", kind.name()),
    };
    let mut envs = vec![
        ("INSTANCE".to_owned(), replica.to_string()),
        ("LISTEN".to_owned(), address(port)),
        ("ADMIN_LISTEN".to_owned(), address(admin_port)),
    ];
    if let Some((_, store)) = servers.stores.iter().find(|(owner, _)| *owner == kind) {
        let detour = servers.detours.iter().find(|detour| detour.service == name);
        let (redis, brokers) = detour.map_or_else(|| (store.clone(), servers.brokers.clone()), Detour::addresses);
        envs.push(("REDIS".to_owned(), redis));
        envs.push(("KAFKA_BROKERS".to_owned(), brokers));
        envs.push(("PARTITIONS".to_owned(), options.partitions.to_string()));
    }
    if kind == Kind::Orchestrator {
        envs.push(("DEFINITIONS_DIR".to_owned(), options.definitions.display().to_string()));
    }
    envs.extend(options.envs.iter().cloned());
    let own = options.own_envs.iter().filter(|(service, ..)| *service == name);
    envs.extend(own.map(|(_, key, value)| (key.clone(), value.clone())));
    let log_file = options.dir.join("logs").join(format!("{name}.log"));
    let is_spare = kind != Kind::Gateway && replica > options.replicas;
    ServicePlan { name, kind, port, admin_port, envs, log_file, is_spare }
}

impl Detour {
    /// Its Redis and its brokers, as the service is told.
    fn addresses(&self) -> (String, String) {
        let brokers: Vec<String> = self.brokers.iter().map(|hop| address(hop.port)).collect();
        (address(self.redis.port), brokers.join(","))
    }
}

/// `host:port` on this machine.
pub fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plans(replicas: u32) -> Vec<ServicePlan> {
        plans_of(|options| options.replicas = replicas, Vec::new())
    }

    fn plans_of(configure: impl FnOnce(&mut StackOptions), detours: Vec<Detour>) -> Vec<ServicePlan> {
        let mut options = StackOptions::new(Path::new("somewhere")).unwrap();
        options.gateway_port = Some(8000);
        configure(&mut options);
        options.envs.push(("EXTRA".to_owned(), "1".to_owned()));
        let stores = Kind::CONSUMERS.iter().enumerate().map(|(at, kind)| (*kind, address(7000 + at as u16))).collect();
        let mut next = 9000;
        let free_port = || {
            next += 1;
            Ok(next)
        };
        services(&options, &Servers { brokers: address(9092), stores, detours }, free_port).unwrap()
    }

    fn env<'plan>(plan: &'plan ServicePlan, key: &str) -> Option<&'plan str> {
        plan.envs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn names_and_ports_are_unique() {
        let plans = plans(3);
        assert_eq!(plans.len(), 13);
        let names: std::collections::BTreeSet<_> = plans.iter().map(|plan| &plan.name).collect();
        let ports: std::collections::BTreeSet<_> = plans.iter().flat_map(|plan| [plan.port, plan.admin_port]).collect();
        assert_eq!((names.len(), ports.len()), (13, 26));
    }

    #[test]
    fn every_service_knows_its_own_store_and_the_gateway_none() {
        let plans = plans(1);
        let stores: Vec<_> = plans.iter().map(|plan| env(plan, "REDIS")).collect();
        let expected = ["127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
        assert_eq!(stores[..4], expected.map(Some));
        assert_eq!(stores[4], None);
        assert!(plans.iter().all(|plan| env(plan, "EXTRA") == Some("1")));
    }

    #[test]
    fn the_gateway_knows_all_replicas() {
        let plans = plans(2);
        let gateway = plans.last().unwrap();
        assert_eq!(env(gateway, "LISTEN"), Some("127.0.0.1:8000"));
        for (key, kind) in [
            ("ORDER_UPSTREAMS", Kind::OrderSvc),
            ("STOCK_UPSTREAMS", Kind::StockSvc),
            ("PAYMENT_UPSTREAMS", Kind::PaymentSvc),
        ] {
            let all: Vec<String> =
                plans.iter().filter(|plan| plan.kind == kind).map(|plan| address(plan.port)).collect();
            assert_eq!(all.len(), 2);
            assert_eq!(env(gateway, key), Some(all.join(",").as_str()));
        }
    }

    #[test]
    fn more_gateways_know_the_same_replicas_and_are_no_spares() {
        let plans = plans_of(|options| options.gateways = 2, Vec::new());
        let gateways: Vec<&ServicePlan> = plans.iter().filter(|plan| plan.kind == Kind::Gateway).collect();
        let [first, second] = gateways.as_slice() else { panic!("{gateways:?}") };
        assert_eq!((first.name.as_str(), second.name.as_str()), ("gateway", "gateway-2"));
        assert!(first.port == 8000 && second.port != 8000 && !second.is_spare);
        assert_eq!(env(first, "ORDER_UPSTREAMS"), env(second, "ORDER_UPSTREAMS"));
    }

    #[test]
    fn a_spare_is_known_to_the_gateway_and_not_started_with_the_others() {
        let plans = plans_of(|options| (options.replicas, options.spares) = (2, 1), Vec::new());
        let spares: Vec<&str> = plans.iter().filter(|plan| plan.is_spare).map(|plan| plan.name.as_str()).collect();
        assert_eq!(spares, ["orchestrator-3", "order-svc-3", "stock-svc-3", "payment-svc-3"]);
        let upstreams = env(plans.last().unwrap(), "STOCK_UPSTREAMS").unwrap();
        assert_eq!(upstreams.split(',').count(), 3);
    }

    #[test]
    fn only_the_service_of_a_detour_goes_another_way() {
        let hop = |port| Hop { port, server_port: port + 1 };
        let (service, kind) = ("stock-svc-1".to_owned(), Kind::StockSvc);
        let detour = Detour { service, kind, redis: hop(500), brokers: vec![hop(600), hop(700)] };
        let plans = plans_of(|options| options.replicas = 2, vec![detour]);
        let named = |name: &str| plans.iter().find(|plan| plan.name == name).unwrap();
        assert_eq!(env(named("stock-svc-1"), "REDIS"), Some("127.0.0.1:500"));
        assert_eq!(env(named("stock-svc-1"), "KAFKA_BROKERS"), Some("127.0.0.1:600,127.0.0.1:700"));
        assert_eq!(env(named("stock-svc-2"), "REDIS"), Some("127.0.0.1:7002"));
        assert_eq!(env(named("stock-svc-2"), "KAFKA_BROKERS"), Some("127.0.0.1:9092"));
    }

    #[test]
    fn a_service_can_have_variables_of_its_own() {
        let own = ("stock-svc-2".to_owned(), "OWN".to_owned(), "1".to_owned());
        let plans = plans_of(|options| (options.replicas, options.own_envs) = (2, vec![own]), Vec::new());
        let with: Vec<&str> =
            plans.iter().filter(|plan| env(plan, "OWN").is_some()).map(|plan| plan.name.as_str()).collect();
        assert_eq!(with, ["stock-svc-2"]);
    }
}

//! The stack of containers that the scenarios share, and the scenarios.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use stack::Shop;
use tokio::sync::OnceCell;

use crate::confined;
use crate::drill::drill;
use crate::engine::{self, Project};

/// Everything ends within this time after a service or a Redis is back; containers need longer than processes.
const SETTLE: Duration = Duration::from_secs(60);
/// What our layers of one image may have at most.
const MAX_OWN_BYTES: u64 = 40_000_000;
/// The services, each with an image of its own.
const SERVICES: [&str; 5] = ["orchestrator", "order-svc", "stock-svc", "payment-svc", "gateway"];
/// What their images stand on.
const BASE: &str = "debian:bookworm-slim";
/// Containers in the default profile that go on running: a broker, four Redis, four services three times, gateway,
/// dashboard.
const CONTAINERS: usize = 1 + 4 + 4 * 3 + 1 + 1;

/// One stack for all scenarios, started by the first that needs it.
#[derive(Default)]
pub struct World {
    missing: OnceCell<Option<String>>,
    project: OnceCell<Project>,
    built: OnceCell<()>,
}

impl World {
    /// Why nothing can be run here.
    pub async fn missing(&self) -> Option<&str> {
        self.missing.get_or_init(engine::no_engine).await.as_deref()
    }

    /// Ends what was started.
    pub async fn end(&self) -> anyhow::Result<()> {
        match self.project.get() {
            Some(project) => project.down().await,
            None => Ok(()),
        }
    }

    async fn built(&self) -> anyhow::Result<()> {
        self.built.get_or_try_init(|| async { new_project("build")?.build().await }).await.copied()
    }

    async fn up(&self) -> anyhow::Result<&Project> {
        self.built().await?;
        // The project is known before it is up: what fails half-way is taken away too.
        let project = self.project.get_or_try_init(async || new_project("shop")).await?;
        project.up(&[]).await?;
        Ok(project)
    }

    pub async fn images_are_small(&self) -> anyhow::Result<()> {
        self.built().await?;
        for image in SERVICES.iter().chain(&["tools"]) {
            let own = engine::own_bytes(&format!("saga/{image}"), BASE).await?;
            println!("saga/{image}: {:.1} MB over {BASE}", own as f64 / 1e6);
            ensure!(own < MAX_OWN_BYTES, "saga/{image} has {own} bytes of its own");
        }
        Ok(())
    }

    pub async fn a_checkout_succeeds_when_up_returns(&self) -> anyhow::Result<()> {
        let project = self.up().await?;
        let shop = Shop::new(project.url());
        let item = shop.create_item(5, 10).await?;
        let user = shop.create_user(100).await?;
        let order = shop.create_order(&user, &[(&item, 2)]).await?;
        let answer = shop.checkout(&order).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        ensure!(shop.find_item(&item).await?.stock == 8 && shop.find_user(&user).await?.credit == 90);
        Ok(())
    }

    pub async fn containers_are_confined(&self) -> anyhow::Result<()> {
        let containers = self.up().await?.inspect().await?;
        ensure!(containers.len() == CONTAINERS, "{} containers, not {CONTAINERS}", containers.len());
        let complaints: Vec<String> = containers.iter().flat_map(confined::complaints).collect();
        ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        Ok(())
    }

    /// The others take over; nobody brings the dead ones back.
    pub async fn one_replica_of_each_service_is_killed(&self) -> anyhow::Result<()> {
        let project = self.up().await?;
        let strike = async || {
            for service in ["orchestrator", "order-svc", "stock-svc", "payment-svc"] {
                project.kill_one(service).await?;
            }
            Ok(())
        };
        drill(&Shop::new(project.url()), SETTLE, strike, async || Ok(())).await
    }

    pub async fn stock_svc_is_scaled_to_five_under_load(&self) -> anyhow::Result<()> {
        let project = self.up().await?;
        let strike = async || project.up(&["--scale", "stock-svc=5"]).await;
        drill(&Shop::new(project.url()), SETTLE, strike, async || Ok(())).await?;
        let count = project.containers(Some("stock-svc")).await?.len();
        ensure!(count == 5, "there are {count} stock-svc, not 5");
        Ok(())
    }

    pub async fn redis_of_stock_is_killed(&self) -> anyhow::Result<()> {
        self.killed("redis-stock").await
    }

    pub async fn redis_of_orders_is_killed(&self) -> anyhow::Result<()> {
        self.killed("redis-order").await
    }

    pub async fn redis_of_payment_is_killed(&self) -> anyhow::Result<()> {
        self.killed("redis-payment").await
    }

    pub async fn redis_of_orchestrator_is_killed(&self) -> anyhow::Result<()> {
        self.killed("redis-orchestrator").await
    }

    pub async fn kafka_is_killed(&self) -> anyhow::Result<()> {
        self.killed("kafka-1").await
    }

    pub async fn gateway_is_killed(&self) -> anyhow::Result<()> {
        self.killed("gateway").await
    }

    pub async fn dashboard_is_killed(&self) -> anyhow::Result<()> {
        self.killed("dashboard").await
    }

    pub async fn all_of_orchestrator_are_killed(&self) -> anyhow::Result<()> {
        self.killed("orchestrator").await
    }

    pub async fn all_of_order_svc_are_killed(&self) -> anyhow::Result<()> {
        self.killed("order-svc").await
    }

    pub async fn all_of_stock_svc_are_killed(&self) -> anyhow::Result<()> {
        self.killed("stock-svc").await
    }

    pub async fn all_of_payment_svc_are_killed(&self) -> anyhow::Result<()> {
        self.killed("payment-svc").await
    }

    /// All containers of a service are killed in the middle of checkouts and started again.
    async fn killed(&self, service: &str) -> anyhow::Result<()> {
        let project = self.up().await?;
        let strike = async || project.kill(service).await;
        let heal = async || project.up(&[]).await;
        drill(&Shop::new(project.url()), SETTLE, strike, heal).await
    }

    /// The profile `ha`, a stack of its own: one broker of three dies and nobody brings it back.
    pub async fn one_of_three_brokers_is_killed(&self) -> anyhow::Result<()> {
        self.built().await?;
        // Two stacks at once would fight for the machine.
        self.end().await?;
        let project = new_project("ha")?.with("ha");
        let drilled = async {
            project.up(&[]).await?;
            let strike = async || project.kill("kafka-2").await;
            drill(&Shop::new(project.url()), SETTLE, strike, async || Ok(())).await
        };
        let drilled = drilled.await;
        project.down().await?;
        drilled
    }
}

/// A project of this process with a free port.
fn new_project(name: &str) -> anyhow::Result<Project> {
    let port = local_servers::free_port().context("find a port for the gateway")?;
    Ok(Project::named(&format!("saga-test-{name}-{}", std::process::id()), port))
}

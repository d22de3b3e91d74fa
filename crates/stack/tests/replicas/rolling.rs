//! A rolling restart under load: SIGTERM, the end of the process, a new one, ready; one replica after the other.
//! Whoever checks out meanwhile gets the answer that he would have got, and no other.
//!
//! `UPGRADE_PROGRAMS` may name a folder with the programs of another build: then all go over to it as well, and back, and while they
//! do so both builds work side by side.
//!
//! There are two gateways, and clients use one of them: they are told to use the other before the one that they use is
//! restarted, as a load balancer would be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use stack::{Progress, Shop};

use super::World;
use crate::wait::until;

/// Clients, each with one request at a time.
const CLIENTS: usize = 8;
/// Checkouts that are answered before the first restart and between two.
const BETWEEN: usize = 20;
/// How long those may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A service drains within its own deadline, which is shorter.
const END_DEADLINE: Duration = Duration::from_secs(40);

/// The folder of another build's programs.
const UPGRADE_PROGRAMS: &str = "UPGRADE_PROGRAMS";

/// What clients and restarts know of each other.
#[derive(Default)]
struct Course {
    over: AtomicBool,
    answered: AtomicUsize,
    /// The gateway that clients use for what they begin, by its place among all.
    used: AtomicUsize,
}

pub async fn restarts_of_all_services_go_unnoticed(world: Arc<World>) -> anyhow::Result<()> {
    world.stack.lock().await.wait_until_ready(&Progress::Silent).await?;
    let course = Arc::new(Course::default());
    let item = world.shop.create_item(3, 1_000_000).await?;
    let gateways = world.stack.lock().await.gateways();
    let shops: Vec<Shop> = gateways.iter().map(|(_, url)| Shop::new(url)).collect();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(client(shops.clone(), item.clone(), Arc::clone(&course)))).collect();
    let restarted = restart_all(&world, &course, &gateways).await;
    course.over.store(true, Ordering::Relaxed);
    let mut answers = BTreeMap::new();
    let mut sold = 0;
    for client in clients {
        for (expected, status) in client.await.context("a client")?? {
            *answers.entry((expected, status)).or_insert(0) += 1;
            sold += u64::from(status == 200);
        }
    }
    restarted?;
    ensure!(
        answers.keys().all(|(expected, status)| expected == status),
        "(expected, answered): how often: {answers:?}"
    );
    ensure!(answers.len() == 2, "some are paid and some refused: {answers:?}");
    let left = world.shop.find_item(&item).await?.stock;
    ensure!(left == 1_000_000 - sold, "{sold} sold and {left} left");
    Ok(())
}

async fn restart_all(world: &World, course: &Course, gateways: &[(String, String)]) -> anyhow::Result<()> {
    let own = world.stack.lock().await.programs().to_owned();
    restart_services(world, course, &own).await?;
    restart_gateways(world, course, gateways, &own).await?;
    let Some(other) = std::env::var_os(UPGRADE_PROGRAMS).map(PathBuf::from) else { return Ok(()) };
    restart_services(world, course, &other).await?;
    restart_gateways(world, course, gateways, &other).await?;
    println!("all run the programs of {}", other.display());
    restart_gateways(world, course, gateways, &own).await?;
    restart_services(world, course, &own).await
}

async fn restart_services(world: &World, course: &Course, programs: &Path) -> anyhow::Result<()> {
    for service in ["orchestrator", "order-svc", "stock-svc", "payment-svc"] {
        for replica in 1..=2 {
            course.go_on().await?;
            restart(world, &format!("{service}-{replica}"), programs).await?;
        }
    }
    Ok(())
}

async fn restart_gateways(
    world: &World,
    course: &Course,
    gateways: &[(String, String)],
    programs: &Path,
) -> anyhow::Result<()> {
    for (place, (name, _)) in gateways.iter().enumerate() {
        course.used.store(place, Ordering::Relaxed);
        course.go_on().await?;
        // What has been begun there is finished there.
        course.used.store((place + 1) % gateways.len(), Ordering::Relaxed);
        restart(world, name, programs).await?;
    }
    course.go_on().await
}

async fn restart(world: &World, name: &str, programs: &Path) -> anyhow::Result<()> {
    let mut stack = world.stack.lock().await;
    stack.use_programs(name, programs)?;
    let status = stack.terminate(name, END_DEADLINE)?;
    ensure!(status.success(), "{name} has not drained: {status}");
    stack.restart(name)?;
    stack.wait_until_ready(&Progress::Silent).await
}

impl Course {
    /// Waits until some more checkouts are answered.
    async fn go_on(&self) -> anyhow::Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        let enough = async || (self.answered.load(Ordering::Relaxed) >= before + BETWEEN).then_some(());
        until("checkouts are answered", PATIENCE, enough).await
    }
}

/// Checks orders out until it is told to stop, every third of somebody who cannot pay; what each must answer, and what
/// it did.
async fn client(shops: Vec<Shop>, item: String, course: Arc<Course>) -> anyhow::Result<Vec<(u16, u16)>> {
    let mut answers = Vec::new();
    while !course.over.load(Ordering::Relaxed) {
        let (credit, expected) = if answers.len() % 3 == 2 { (2, 402) } else { (3, 200) };
        let shop = || &shops[course.used.load(Ordering::Relaxed)];
        let user = shop().create_user(credit).await.context("create a user")?;
        let order = shop().create_order(&user, &[(&item, 1)]).await.context("create an order")?;
        let answer = shop().checkout(&order).await.context("check out")?;
        answers.push((expected, answer.status));
        course.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(answers)
}

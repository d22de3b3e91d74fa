//! The auditor is audited: corruptions are planted in live stores and topics, and it must find each of them; what it cannot read
//! must make it say so.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use chaos::audit::{Announced, Evidence, Finding, Rule, Standing, judge};
use chaos::clients::{Crowd, set_up};
use chaos::collect::{Addresses, Goods, evidence, goods};
use chaos::resp::Resp;
use proto::Wire as _;
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{Refusal, ResultRecord, SagaOutcome, SagaResult, UndoCause};
use stack::{Poisoner, Progress, Shop, Stack, StackOptions};
use uuid::Uuid;

/// Orders that clients check out; as many more stay open.
const ORDERS: u64 = 200;
/// Everything that services do of themselves happens within this time.
const PATIENCE: Duration = Duration::from_secs(60);
const RESULTS: &str = "order.results";

/// A shop in which orders were checked out, and nothing is under way any more.
struct World {
    stack: Stack,
    shop: Shop,
    at: Addresses,
    before: Goods,
    crowd: std::sync::Arc<Crowd>,
    poisoner: Poisoner,
}

/// Something that is done to a store, and what takes it back: name of the Redis and command.
type Acts = Vec<(&'static str, Vec<String>)>;

impl World {
    async fn start(dir: &std::path::Path) -> anyhow::Result<Self> {
        let options = StackOptions { partitions: 4, ..StackOptions::new(dir)? };
        let stack = Stack::start(options, &Progress::Silent).await?;
        let shop = Shop::new(stack.gateway_url());
        let at = Addresses::of(&stack)?;
        set_up(&shop, 2 * ORDERS).await?;
        let before = goods(&at)?;
        let crowd = Crowd::new(stack.gateways(), ORDERS, Instant::now());
        crowd.run(ORDERS as u32, 64).await?;
        let poisoner = Poisoner::new(stack.brokers(), PATIENCE)?;
        Ok(Self { stack, shop, at, before, crowd, poisoner })
    }

    async fn read(&self) -> anyhow::Result<Evidence> {
        evidence(&self.at, &self.before, 2 * ORDERS, self.crowd.history()).await
    }

    async fn find(&self) -> anyhow::Result<Vec<Finding>> {
        Ok(findings(&self.read().await?))
    }

    /// Waits until nothing is left of what was under way: no record, so that the last floors have come too.
    async fn until_sound(&self) -> anyhow::Result<()> {
        self.until("all has ended", |evidence, found| evidence.records.is_empty() && found.is_empty()).await
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Evidence, &[Finding]) -> bool) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let evidence = self.read().await?;
            let found = findings(&evidence);
            if is_so(&evidence, &found) {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "{what}: found is {found:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn act(&self, acts: &Acts) -> anyhow::Result<()> {
        for (redis, command) in acts {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            Resp::connect(&self.stack.process(redis)?.address)?.ask(&words).with_context(|| format!("{words:?}"))?;
        }
        Ok(())
    }

    async fn append(&self, lane: u32, payload: Bytes) -> anyhow::Result<()> {
        self.poisoner.append_all(RESULTS, [lane], &payload).await
    }
}

/// What is found; a rule of campaigns, that there were faults, does not count.
fn findings(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = judge(evidence);
    findings.retain(|finding| finding.rule != Rule::ShowsSomething);
    findings
}

fn one(redis: &'static str, command: String) -> Acts {
    vec![(redis, command.split(' ').map(str::to_owned).collect())]
}

/// Another value takes the place of a key's, which is kept meanwhile.
fn replaced(redis: &'static str, key: &str, by: &str) -> (Acts, Acts) {
    let plant = [one(redis, format!("COPY {key} kept")), one(redis, format!("COPY {by} {key} REPLACE"))];
    (plant.concat(), one(redis, format!("RENAME kept {key}")))
}

/// A key that should not be.
fn added(redis: &'static str, key: &str) -> (Acts, Acts) {
    (one(redis, format!("SET {key} x")), one(redis, format!("DEL {key}")))
}

/// The first order that was told this.
fn told(evidence: &Evidence, is_it: impl Fn(u16) -> bool) -> anyhow::Result<String> {
    let told = evidence.told.iter().find(|told| told.status.is_some_and(&is_it));
    Ok(format!("order:{}", told.context("nobody was told so")?.order))
}

/// A step record of a saga that has ended.
fn forgotten(evidence: &Evidence) -> anyhow::Result<String> {
    let floor = evidence.floors.iter().find(|((store, ..), ended)| store == "redis-stock" && ended.below > 0);
    let ((_, lane, starter), ended) = floor.context("no floor")?;
    Ok(format!("rec:{lane}:{starter}:{}", ended.below - 1))
}

/// What can be taken back: each is found, and after it nothing.
async fn plants_in_stores(world: &World) -> anyhow::Result<()> {
    let sound = world.read().await?;
    let (paid, refused) = (told(&sound, |status| status == 200)?, told(&sound, |status| status == 402)?);
    let open = format!("order:{ORDERS}");
    ensure!(sound.orders[&ORDERS].standing == Standing::Open, "nobody has asked for it");
    let plants = [
        (Rule::PaidWhenToldSo, replaced("redis-order", &paid, &open)),
        (Rule::NotPaidWhenRefused, replaced("redis-order", &refused, &paid)),
        (Rule::StockConserved, replaced("redis-stock", "item:1", "item:16")),
        (Rule::CreditConserved, replaced("redis-payment", "user:1", "user:10")),
        (Rule::EverythingEnded, added("redis-order", "pending:0:99")),
        (Rule::EverythingEnded, added("redis-orchestrator", "saga:0:x")),
        (Rule::Forgotten, added("redis-stock", &forgotten(&sound)?)),
    ];
    for (rule, (plant, weed)) in plants {
        world.act(&plant)?;
        let found = world.find().await?;
        ensure!(found.iter().any(|finding| finding.rule == rule), "{plant:?}: found is {found:?}");
        world.act(&weed)?;
        ensure!(world.find().await?.is_empty(), "{weed:?} takes it back");
    }
    for (path, back, rule) in [
        ("/stock/subtract/1/1", "/stock/add/1/1", Rule::StockConserved),
        ("/payment/pay/1/1", "/payment/add_funds/1/1", Rule::CreditConserved),
    ] {
        ensure!(world.shop.post(path).await?.is_success(), "{path}");
        let found = world.find().await?;
        ensure!(found.iter().map(|finding| finding.rule).eq([rule]), "{path}: found is {found:?}");
        ensure!(world.shop.post(back).await?.is_success(), "{back}");
    }
    ensure!(world.find().await?.is_empty(), "all is taken back");
    Ok(())
}

/// What cannot be read is neither fine nor wrong.
async fn what_cannot_be_read(world: &World) -> anyhow::Result<()> {
    let lost = |redis, key: &str| (one(redis, format!("RENAME {key} kept")), one(redis, format!("RENAME kept {key}")));
    let spoilt = |redis, key: &str| {
        let plant = [one(redis, format!("COPY {key} kept")), one(redis, format!("SETRANGE {key} 0 spoilt"))];
        (plant.concat(), one(redis, format!("RENAME kept {key}")))
    };
    let another_kind = |redis, key: &str| {
        let plant = [one(redis, format!("RENAME {key} kept")), one(redis, format!("HSET {key} a b"))];
        (plant.concat(), one(redis, format!("RENAME kept {key}")))
    };
    for (plant, weed) in [
        lost("redis-order", "order:3"),
        lost("redis-stock", "item:3"),
        spoilt("redis-order", "order:3"),
        spoilt("redis-payment", "user:3"),
        another_kind("redis-payment", "user:3"),
    ] {
        world.act(&plant)?;
        ensure!(world.read().await.is_err(), "{plant:?} cannot be read");
        world.act(&weed)?;
        ensure!(world.find().await?.is_empty(), "{weed:?} takes it back");
    }
    Ok(())
}

/// A record as order-svc would read it, of this ordinal.
fn result(saga: u128, ordinal: &Ordinal, outcome: SagaOutcome) -> Bytes {
    let (saga, trace) = (SagaId(Uuid::from_u128(saga)), TraceContext::default());
    ResultRecord::Ended(SagaResult { saga, ordinal: ordinal.clone(), outcome, trace }).encode()
}

fn ordinal_of(announced: &Announced) -> anyhow::Result<Ordinal> {
    let (starter, lane, sequence) = &announced.ordinal;
    let (name, store) = starter.split_once('@').context("a starter without a store")?;
    let starter = Starter { name: name.to_owned(), store: Uuid::parse_str(store)? };
    Ok(Ordinal { starter, lane: Lane(*lane), sequence: *sequence })
}

/// What lies in a log stays there, so each rule is looked for when its record has come.
async fn plants_in_topics(world: &World) -> anyhow::Result<()> {
    let sound = world.read().await?;
    let Some(paid) = sound.announced.iter().find(|announced| announced.completed) else { bail!("nothing was paid") };
    let ordinal = ordinal_of(paid)?;
    let nobodys = Ordinal { sequence: u64::from(u32::MAX), ..ordinal.clone() };
    let undone = || {
        let refusal = Refusal { code: "planted".to_owned(), reason: "planted".to_owned() };
        SagaOutcome::Undone { cause: UndoCause::Refused, step: None, refusal }
    };
    let plants = [
        (Rule::OneOutcome, result(u128::from_be_bytes(paid.saga), &ordinal, undone())),
        (Rule::OneSagaPerSequence, result(1, &ordinal, undone())),
        (Rule::PaidByItsSaga, result(2, &nobodys, SagaOutcome::Completed)),
    ];
    for (rule, record) in plants {
        let found = world.find().await?;
        ensure!(found.iter().all(|finding| finding.rule != rule), "{rule:?} before it is planted: {found:?}");
        world.append(ordinal.lane.0, record).await?;
        let found = world.find().await?;
        ensure!(found.iter().any(|finding| finding.rule == rule), "{rule:?}: found is {found:?}");
    }
    world.poisoner.append("stock.commands", [0]).await?;
    world
        .until("a record that nobody can read", |_, found| {
            found.iter().any(|finding| finding.rule == Rule::SetAside && finding.what.contains("stock.commands"))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_in_a_live_shop_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await.unwrap();
    world.until_sound().await.unwrap();
    plants_in_stores(&world).await.unwrap();
    what_cannot_be_read(&world).await.unwrap();
    plants_in_topics(&world).await.unwrap();
    world.append(0, Bytes::from_static(&[0x08, 0x02])).await.unwrap();
    assert!(world.read().await.is_err(), "a record of a later format");
    world.stack.kill("redis-payment").unwrap();
    assert!(world.read().await.is_err(), "a store that is away");
    world.stack.stop().await.unwrap();
}

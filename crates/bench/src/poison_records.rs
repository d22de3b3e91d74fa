//! The records that `poison` brings into the topics.
//!
//! Most are appended. Results are not: one that belongs to no pending saga is set aside before the rule of order-svc sees it. So
//! checkouts are begun through the gateway that end in a fatal way, and the orchestrator sends these results.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use proto::Wire as _;
use proto::shop::{Order, OrderLine};
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::record::{Command, CommandRecord, InboxEvent, Start};
use serde::Serialize;
use stack::{Kind, Poisoner, READ_TOPICS, Shop, Stack};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::scenario::ITEM_PRICE;

/// A record that Kafka has not acknowledged in this time ends the measurement.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one record of a topic to the next the lane moves on by so many: all lanes get some where it has no common divisor
/// with their number, and neighbours in time are far apart.
const STRIDE: u64 = 37;
/// The programs that run in the place of others where records shall make one panic; they lie beside this one.
const STOCK_WITH_A_BUG: &str = "stock-with-a-bug";
const ORCHESTRATOR_WITH_A_BUG: &str = "orchestrator-with-a-bug";
const ORDER_WITH_A_BUG: &str = "order-with-a-bug";
/// The word at which the first two panic. The third one does at the end of a saga that was undone for want of a user.
const FATAL: &str = "panic";
/// A user who does not exist: a saga that is to charge this one is undone and takes nothing, so the audit need not know of it.
const NOBODY: &str = "nobody";

/// What is wrong with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Records {
    /// Bytes that no service can read, on every topic that one reads
    Unreadable,
    /// Commands at which stock-svc panics: a program with a bug runs in its place
    FatalCommands,
    /// Starts at which the orchestrator panics: a program with a bug runs in its place
    FatalStarts,
    /// Results at which order-svc panics: a program with a bug runs in its place, and more checkouts are begun that end so
    FatalResults,
}

/// Records by topic.
pub type Counts = BTreeMap<String, u64>;

/// Brings such records into the topics.
pub struct Source {
    records: Records,
    partitions: u32,
    poisoner: Poisoner,
    shop: Shop,
    sent: Counts,
    /// Checkouts with a fatal end, each until its client was answered.
    undecided: JoinSet<anyhow::Result<()>>,
}

impl Records {
    /// Where they go.
    fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Unreadable => &READ_TOPICS,
            Self::FatalCommands => &["stock.commands"],
            Self::FatalStarts => &["saga.inbox"],
            Self::FatalResults => &["order.results"],
        }
    }

    /// The program that panics at them, and in whose place it runs.
    pub fn with_a_bug(self) -> Option<(Kind, &'static str)> {
        match self {
            Self::Unreadable => None,
            Self::FatalCommands => Some((Kind::StockSvc, STOCK_WITH_A_BUG)),
            Self::FatalStarts => Some((Kind::Orchestrator, ORCHESTRATOR_WITH_A_BUG)),
            Self::FatalResults => Some((Kind::OrderSvc, ORDER_WITH_A_BUG)),
        }
    }

    /// The orders that so many of them need.
    pub fn orders(self, count: u64) -> impl Iterator<Item = (String, Bytes)> + Send {
        let count = if self == Self::FatalResults { count } else { 0 };
        (0..count).map(|number| (format!("order:{}", fatal_order_id(number)), fatal_order().encode()))
    }
}

impl Source {
    /// Of such records, for this stack and its number of lanes.
    pub fn new(records: Records, stack: &Stack, partitions: u32) -> anyhow::Result<Self> {
        let poisoner = Poisoner::new(stack.brokers(), PATIENCE)?;
        let (shop, sent, undecided) = (Shop::new(stack.gateway_url()), Counts::new(), JoinSet::new());
        Ok(Self { records, partitions, poisoner, shop, sent, undecided })
    }

    /// Brings one, and counts it.
    pub async fn bring(&mut self, number: u64) -> anyhow::Result<()> {
        let (topic, lane) = place(number, self.records.topics(), self.partitions);
        match self.records {
            Records::Unreadable => self.poisoner.append(topic, [lane]).await?,
            Records::FatalCommands => self.poisoner.append_all(topic, [lane], &fatal_command(number, lane)).await?,
            Records::FatalStarts => self.poisoner.append_all(topic, [lane], &fatal_start(number, lane)).await?,
            // order-svc chooses the lane.
            Records::FatalResults => drop(self.undecided.spawn(stay_undecided(self.shop.clone(), number))),
        }
        *self.sent.entry(topic.to_owned()).or_default() += 1;
        Ok(())
    }

    /// How many came, and whether the checkouts with a fatal end stayed undecided, as their clients are told in the end.
    pub async fn end(self) -> (Counts, anyhow::Result<()>) {
        let clients = self.undecided.join_all().await;
        (self.sent, clients.into_iter().collect())
    }
}

/// Where a record goes: the topics in turns, over all lanes.
fn place(number: u64, topics: &[&'static str], partitions: u32) -> (&'static str, u32) {
    let count = topics.len() as u64;
    let topic = topics[usize::try_from(number % count).unwrap_or_default()];
    let lane = number / count * STRIDE % u64::from(partitions);
    (topic, u32::try_from(lane).unwrap_or_default())
}

/// The start of a saga that nobody else knows, at which the orchestrator with the bug panics.
fn fatal_start(number: u64, lane: u32) -> Bytes {
    let start = Start {
        saga: saga(number),
        ordinal: ordinal(number, lane),
        definition: FATAL.to_owned(),
        inputs: BTreeMap::new(),
        results_topic: "order.results".to_owned(),
        trace: TraceContext::default(),
    };
    InboxEvent::Start(start).encode()
}

/// A command of a saga that nobody else knows, at which the stock-svc with the bug panics.
fn fatal_command(number: u64, lane: u32) -> Bytes {
    let command = Command {
        id: CommandId { saga: saga(number), step: "stock".to_owned(), direction: Direction::Action },
        ordinal: ordinal(number, lane),
        operation: FATAL.to_owned(),
        input: Bytes::new(),
        uses: BTreeMap::new(),
        may_refuse: true,
        trace: TraceContext::default(),
    };
    CommandRecord::Command(command).encode()
}

fn saga(number: u64) -> SagaId {
    SagaId(Uuid::from_u128(number.into()))
}

fn ordinal(number: u64, lane: u32) -> Ordinal {
    let starter = Starter { name: "poisoner".to_owned(), store: Uuid::nil() };
    Ordinal { starter, lane: Lane(lane), sequence: number }
}

/// No order of the load is called so.
fn fatal_order_id(number: u64) -> String {
    format!("{FATAL}-{number}")
}

/// The order-svc with the bug panics at the end of its checkout. Every scenario has the item.
fn fatal_order() -> Order {
    let mut order = Order::new(NOBODY);
    order.lines = vec![OrderLine { item_id: "0".to_owned(), quantity: 1, price: ITEM_PRICE }];
    order.total_cost = ITEM_PRICE;
    order
}

/// Checks the order out. An error if its client is told anything but that nobody knows yet, or if its saga does not stay pending.
async fn stay_undecided(shop: Shop, number: u64) -> anyhow::Result<()> {
    let id = fatal_order_id(number);
    let answer = shop.checkout(&id).await?;
    ensure!(answer.status == 504, "the checkout of {id} is answered {}: {}", answer.status, answer.text());
    let status = shop.find_order(&id).await?.status;
    ensure!(status == "checking_out", "order {id} is {status}, and its result cannot have been applied");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use order_svc::decide::{Checkout, checkout};
    use order_svc::store::decode;
    use service_kit::params::is_id;

    use super::*;

    #[test]
    fn records_go_to_every_lane_of_every_topic() {
        let places: BTreeSet<_> = (0..400).map(|number| place(number, &READ_TOPICS, 100)).collect();
        assert_eq!(places.len(), 400);
        assert!(places.iter().all(|(_, lane)| *lane < 100));
        for records in [Records::FatalCommands, Records::FatalStarts, Records::FatalResults] {
            assert!(records.topics().iter().all(|topic| READ_TOPICS.contains(topic)));
        }
    }

    #[test]
    fn results_need_orders_whose_checkout_begins_a_saga() {
        for records in [Records::Unreadable, Records::FatalCommands, Records::FatalStarts] {
            assert_eq!(records.orders(3).count(), 0);
        }
        let orders: Vec<(String, Bytes)> = Records::FatalResults.orders(2).collect();
        let keys: Vec<&str> = orders.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["order:panic-0", "order:panic-1"]);
        assert!(is_id(&fatal_order_id(u64::MAX)));
        for (_, bytes) in &orders {
            let mut order = decode(bytes).expect("an order");
            assert_eq!(checkout(&mut order, saga(1), &ordinal(1, 0)), Checkout::Started);
        }
    }
}

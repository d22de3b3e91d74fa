//! Reads the evidence: orders, items and users from the stores, announcements from the results topic.
//!
//! Whatever cannot be read whole is an error: then the verdict is *unknown*, never a pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use event_stream::{Consumer, KafkaSettings, LaneEvent, LaneFault, LaneRunner, OwnedLane};
use stack::Stack;

use crate::audit::{Announced, Evidence, Order, Saga, Standing, Told};
use crate::clients::{ITEMS, USERS};
use crate::remains;
use crate::resp::Resp;
use crate::wire::Message;

/// The results of all lanes are read within this time.
const READ_RESULTS: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Stock and credit, item and user by number.
pub type Goods = (BTreeMap<String, u64>, BTreeMap<String, u64>);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Addresses {
    order: String,
    stock: String,
    payment: String,
    orchestrator: String,
    brokers: String,
    partitions: u32,
}

impl Addresses {
    /// Of a stack.
    pub fn of(stack: &Stack) -> anyhow::Result<Self> {
        let address = |name: &str| Ok::<_, anyhow::Error>(stack.process(name)?.address);
        Ok(Self {
            order: address("redis-order")?,
            stock: address("redis-stock")?,
            payment: address("redis-payment")?,
            orchestrator: address("redis-orchestrator")?,
            brokers: stack.brokers().to_owned(),
            partitions: stack.state().partitions,
        })
    }

    pub(crate) fn stores(&self) -> [(&'static str, &str); 4] {
        [
            ("redis-order", &self.order),
            ("redis-stock", &self.stock),
            ("redis-payment", &self.payment),
            ("redis-orchestrator", &self.orchestrator),
        ]
    }

    /// The stores that keep step records.
    pub(crate) fn participants(&self) -> [(&'static str, &str); 2] {
        [("redis-stock", &self.stock), ("redis-payment", &self.payment)]
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }
}

/// Stock and credit as they are now.
pub fn goods(at: &Addresses) -> anyhow::Result<Goods> {
    let stock = numbered(&at.stock, "item", ITEMS, |message| Ok(message.number(2)))?;
    let credit = numbered(&at.payment, "user", USERS, |message| Ok(message.number(2)))?;
    let by_name = |goods: BTreeMap<u64, u64>| goods.into_iter().map(|(id, count)| (id.to_string(), count)).collect();
    Ok((by_name(stock), by_name(credit)))
}

/// Everything that the auditor wants to see. `orders` were taken in hand by clients.
pub async fn evidence(at: &Addresses, before: &Goods, orders: u64, told: Vec<Told>) -> anyhow::Result<Evidence> {
    let announced = announcements(at).await.context("read the results")?;
    let (stores, before) = (at.clone(), before.clone());
    tokio::task::spawn_blocking(move || {
        let at = stores;
        let (stock, credit) = goods(&at)?;
        let join = |before: BTreeMap<String, u64>, after: BTreeMap<String, u64>| {
            before.into_iter().filter_map(|(id, count)| Some((id.clone(), (count, *after.get(&id)?)))).collect()
        };
        Ok(Evidence {
            told,
            orders: numbered(&at.order, "order", orders, read_order)?,
            stock: join(before.0, stock),
            credit: join(before.1, credit),
            announced,
            pending: Resp::connect(&at.order)?.keys("pending:*")?,
            open_sagas: Resp::connect(&at.orchestrator)?.keys("saga:*")?,
            records: remains::records(&at)?,
            floors: remains::floors(&at)?,
            ..Evidence::default()
        })
    })
    .await?
}

fn numbered<T>(
    address: &str,
    kind: &str,
    count: u64,
    read: impl Fn(Message<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<BTreeMap<u64, T>> {
    let keys: Vec<String> = (0..count).map(|number| format!("{kind}:{number}")).collect();
    let values = Resp::connect(address)?.values(&keys)?;
    ensure!(values.len() == keys.len(), "{} values for {} keys", values.len(), keys.len());
    let read = |(number, value): (u64, Option<Vec<u8>>)| {
        let value = value.with_context(|| format!("{kind} {number} is missing"))?;
        let message = Message::read(&value)?;
        ensure!(message.number(1) == 1, "{kind} {number} has format {}", message.number(1));
        Ok((number, read(message).with_context(|| format!("read {kind} {number}"))?))
    };
    (0..count).zip(values).map(read).collect()
}

/// `shop.v1.Order`.
fn read_order(message: Message<'_>) -> anyhow::Result<Order> {
    let line = |line: &Message<'_>| Ok::<_, anyhow::Error>((line.text(1)?, line.number(2)));
    let attempt = |attempt: &Message<'_>| Ok::<_, anyhow::Error>((saga(attempt.bytes(1))?, attempt.number(2) == 1));
    let standing = if let Some(paid) = message.message(7)? {
        let by = paid.bytes(1).filter(|by| !by.is_empty());
        Standing::Paid(by.map(|by| saga(Some(by))).transpose()?)
    } else if message.bytes(6).is_some() {
        Standing::CheckingOut
    } else {
        Standing::Open
    };
    Ok(Order {
        user: message.text(2)?,
        lines: message.messages(3)?.iter().map(line).collect::<Result<_, _>>()?,
        total: message.number(4),
        standing,
        attempts: message.messages(8)?.iter().map(attempt).collect::<Result<_, _>>()?,
    })
}

/// `saga.v1.SagaResult`; none for a notice, which ends nothing, and for what is no record at all.
fn read_result(payload: &[u8]) -> Option<Announced> {
    let message = Message::read(payload).ok().filter(|message| message.number(1) == 1)?;
    let completed = message.bytes(4).is_some();
    if !completed && message.bytes(5).is_none() {
        return None;
    }
    let ordinal = message.message(3).ok()??;
    let starter = ordinal.message(1).ok()??;
    let name = format!("{}@{}", starter.text(1).ok()?, crate::audit::hex(starter.bytes(2)?));
    let lane = u32::try_from(ordinal.number(2)).ok()?;
    Some(Announced { saga: saga(message.bytes(2)).ok()?, ordinal: (name, lane, ordinal.number(3)), completed })
}

fn saga(bytes: Option<&[u8]>) -> anyhow::Result<Saga> {
    Ok(bytes.context("no saga id")?.try_into()?)
}

/// Collects what lies in the lanes, up to their ends.
#[derive(Default)]
struct Collector {
    announced: Mutex<Vec<Announced>>,
    ended: Mutex<std::collections::BTreeSet<u32>>,
}

impl LaneRunner for Collector {
    async fn run(&self, mut lane: OwnedLane) -> Result<(), LaneFault> {
        lane.fetch_from(Some(0)).await?;
        lane.set_loaded();
        loop {
            match lane.next(None).await? {
                LaneEvent::Records(records) => {
                    let read = records.iter().filter_map(|record| read_result(&record.payload));
                    self.announced.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
                }
                LaneEvent::End => {
                    self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.lane().0);
                }
                LaneEvent::Tick => {}
                LaneEvent::Revoked => return Ok(()),
            }
        }
    }
}

async fn announcements(at: &Addresses) -> anyhow::Result<Vec<Announced>> {
    let settings = KafkaSettings::new(at.brokers.clone(), "auditor");
    let collector = Arc::new(Collector::default());
    let group = format!("auditor-{}", std::process::id());
    let consumer = Consumer::start(&settings, &group, "order.results", Arc::clone(&collector))?;
    let begun = Instant::now();
    let ended = || collector.ended.lock().unwrap_or_else(PoisonError::into_inner).len();
    while ended() < at.partitions as usize {
        ensure!(begun.elapsed() < READ_RESULTS, "only {} of {} lanes could be read", ended(), at.partitions);
        tokio::time::sleep(LOOK).await;
    }
    consumer.shutdown(Duration::from_secs(5)).await;
    let announced = std::mem::take(&mut *collector.announced.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(announced)
}

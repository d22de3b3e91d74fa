//! Reads the evidence: orders, items and users from the stores, announcements from the results topic.
//!
//! Whatever cannot be read whole is an error: then the verdict is *unknown*, never a pass.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use stack::Stack;

use crate::audit::{Evidence, Order, Saga, Standing, Told};
use crate::clients::{ITEMS, USERS};
use crate::resp::Resp;
use crate::wire::Message;
use crate::{remains, results};

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
    let (at, before) = (at.clone(), before.clone());
    tokio::task::spawn_blocking(move || {
        let announced = results::announcements(&at.brokers, at.partitions).context("read the results")?;
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

fn saga(bytes: Option<&[u8]>) -> anyhow::Result<Saga> {
    Ok(bytes.context("no saga id")?.try_into()?)
}

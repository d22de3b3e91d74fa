//! Reads the evidence: orders, items and users from the stores, announcements from the results topic.
//!
//! Whatever cannot be read whole is an error: then the verdict is *unknown*, never a pass.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use stack::Stack;

use crate::audit::{Evidence, Order, Saga, Standing, Told};
use crate::clients::{ITEMS, USERS};
use crate::resp::Resp;
use crate::wire::Message;
use crate::{remains, topics};

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
    let stock = numbered(&at.stock, "item", 0..ITEMS, |message| Ok(message.number(2)))?;
    let credit = numbered(&at.payment, "user", 0..USERS, |message| Ok(message.number(2)))?;
    let by_name = |goods: BTreeMap<u64, u64>| goods.into_iter().map(|(id, count)| (id.to_string(), count)).collect();
    Ok((by_name(stock), by_name(credit)))
}

/// These orders as they are now.
pub(crate) fn orders(
    at: &Addresses,
    numbers: impl Iterator<Item = u64> + Clone,
) -> anyhow::Result<BTreeMap<u64, Order>> {
    numbered(&at.order, "order", numbers, read_order)
}

/// Everything that the auditor wants to see. `orders` were taken in hand by clients.
pub async fn evidence(at: &Addresses, before: &Goods, orders: u64, told: Vec<Told>) -> anyhow::Result<Evidence> {
    let (at, before) = (at.clone(), before.clone());
    tokio::task::spawn_blocking(move || {
        let announced = topics::announcements(&at.brokers).context("read the results")?;
        let (stock, credit) = goods(&at)?;
        let join = |before: BTreeMap<String, u64>, after: BTreeMap<String, u64>| {
            before.into_iter().filter_map(|(id, count)| Some((id.clone(), (count, *after.get(&id)?)))).collect()
        };
        Ok(Evidence {
            told,
            orders: self::orders(&at, 0..orders)?,
            stock: join(before.0, stock),
            credit: join(before.1, credit),
            announced,
            set_aside: topics::set_aside(&at.brokers).context("read the quarantine")?,
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
    numbers: impl Iterator<Item = u64> + Clone,
    read: impl Fn(Message<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<BTreeMap<u64, T>> {
    let keys: Vec<String> = numbers.clone().map(|number| format!("{kind}:{number}")).collect();
    let values = Resp::connect(address)?.values(&keys)?;
    ensure!(values.len() == keys.len(), "{} values for {} keys", values.len(), keys.len());
    let read = |(number, value): (u64, Option<Vec<u8>>)| {
        let value = value.with_context(|| format!("{kind} {number} is missing"))?;
        let message = Message::read(&value)?;
        ensure!(message.number(1) == 1, "{kind} {number} has format {}", message.number(1));
        Ok((number, read(message).with_context(|| format!("read {kind} {number}"))?))
    };
    numbers.zip(values).map(read).collect()
}

/// `shop.v1.Order`.
fn read_order(message: Message<'_>) -> anyhow::Result<Order> {
    let line = |line: &Message<'_>| Ok::<_, anyhow::Error>((line.text(1)?, line.number(2)));
    let attempt = |attempt: &Message<'_>| Ok::<_, anyhow::Error>((saga(attempt.bytes(1))?, attempt.number(2) == 1));
    let standing = match [5, 6, 7].map(|status| message.bytes(status)) {
        [Some(_), None, None] => Standing::Open,
        [None, Some(_), None] => Standing::CheckingOut,
        [None, None, Some(paid)] => {
            let by = Message::read(paid)?.bytes(1).filter(|by| !by.is_empty());
            Standing::Paid(by.map(|by| saga(Some(by))).transpose()?)
        }
        _ => bail!("it has no status, or several"),
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

#[cfg(test)]
mod tests {
    use order_svc::order::{self, Course, Status};
    use order_svc::store::encode;
    use saga_core::ids::SagaId;
    use uuid::Uuid;

    use super::*;

    /// The reader shares no code with order-svc, so it is held against what that writes.
    #[test]
    fn what_order_svc_writes_is_read() {
        let by = SagaId(Uuid::from_u128(5));
        let saga = *Uuid::from_u128(5).as_bytes();
        let table = [
            (Status::Open, Standing::Open),
            (Status::CheckingOut { saga: by, lane: 1, sequence: 2, course: Course::Forward }, Standing::CheckingOut),
            (Status::Paid { saga: Some(by) }, Standing::Paid(Some(saga))),
            (Status::Paid { saga: None }, Standing::Paid(None)),
        ];
        for (status, standing) in table {
            let mut order = order::Order::new("u".to_owned());
            order.lines.push(order::Line { item_id: "i".to_owned(), quantity: 2, price: 3 });
            order.attempts.push(order::Attempt { saga: by, verdict: order::Verdict::Paid });
            (order.total_cost, order.status) = (6, status);
            let read = read_order(Message::read(&encode(&order)).unwrap()).unwrap();
            let lines = vec![("i".to_owned(), 2)];
            let attempts = vec![(saga, true)];
            assert_eq!(read, Order { user: "u".to_owned(), lines, total: 6, standing, attempts });
        }
        assert!(read_order(Message::read(b"\x08\x01").unwrap()).is_err(), "an order without a status");
    }
}

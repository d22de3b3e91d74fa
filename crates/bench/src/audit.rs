//! Reads the stores after a run and compares them with what the clients were told; writes what the routes cannot.
//!
//! The clients' history and the stores must agree: an order answered 200 is paid, one answered 4xx is not, stock and
//! credit are taken once for each paid order and for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use proto::Wire as _;
use proto::shop::{Item, Order, User, order};
use redis_txn::{Settings, Store};

use crate::scenario::{Goods, PLENTY};
use crate::tally::Tally;

/// Keys per MGET.
const CHUNK_KEYS: usize = 1_000;

/// Where the stores of a stack listen.
pub struct Addresses {
    /// Redis of order-svc.
    pub order: String,
    /// Redis of stock-svc.
    pub stock: String,
    /// Redis of payment-svc.
    pub payment: String,
}

/// What the clients were told.
#[derive(Default)]
pub struct Told {
    /// Orders that were answered 200.
    pub paid: Vec<String>,
    /// Orders that were answered 4xx.
    pub refused: Vec<String>,
    /// Orders of which no answer told.
    pub unknown: Vec<String>,
    /// Prepared orders that may have been checked out: ids below this number.
    pub prepared: u64,
}

impl Told {
    /// Adds what a phase was told.
    pub fn add(&mut self, tally: Tally) {
        self.paid.extend(tally.paid_orders);
        self.refused.extend(tally.refused_orders);
        self.unknown.extend(tally.unknown_orders);
    }

    /// Every order that may have been checked out.
    fn orders(&self) -> BTreeSet<String> {
        let named = [&self.paid, &self.refused, &self.unknown].into_iter().flatten();
        let named = named.filter(|order| !order.is_empty()).cloned();
        named.chain((0..self.prepared).map(|number| number.to_string())).collect()
    }
}

/// What the audit counted.
#[derive(Debug)]
pub struct Verdict {
    /// Orders that are paid.
    pub paid: u64,
    /// Pieces taken from all items.
    pub pieces: u64,
    /// Credit taken from all users.
    pub credit: u64,
}

/// Reads everything and compares; each paid order was reserved and charged so many `times`. An error names the first
/// disagreement.
pub async fn audit(at: &Addresses, goods: &Goods, times: u64, told: &Told) -> anyhow::Result<Verdict> {
    let orders = Reader::connect(&at.order).await?;
    let orders: BTreeMap<String, Order> = orders.all("order", told.orders(), Order::decode).await?;
    let mut pieces_by_item: BTreeMap<String, u64> = BTreeMap::new();
    let mut credit_by_user: BTreeMap<String, u64> = BTreeMap::new();
    let mut paid = 0;
    for (id, order) in &orders {
        match order.status {
            Some(order::Status::Paid(_)) => {
                paid += 1;
                for line in &order.lines {
                    *pieces_by_item.entry(line.item_id.clone()).or_default() += times * line.quantity;
                }
                *credit_by_user.entry(order.user_id.clone()).or_default() += times * order.total_cost;
            }
            Some(order::Status::CheckingOut(_)) => bail!("order {id} is still checking out"),
            _ => {}
        }
    }
    let is_paid = |id: &String| matches!(orders.get(id).and_then(|o| o.status.as_ref()), Some(order::Status::Paid(_)));
    if let Some(id) = told.paid.iter().find(|id| !is_paid(id)) {
        bail!("order {id} was answered 200 and is not paid");
    }
    if let Some(id) = told.refused.iter().find(|id| is_paid(id)) {
        bail!("order {id} was answered 4xx and is paid");
    }

    let items = (0..goods.items).map(|id| id.to_string());
    let items = Reader::connect(&at.stock).await?.all("item", items, Item::decode).await?;
    for (id, item) in &items {
        let taken = pieces_by_item.get(id).copied().unwrap_or(0);
        if item.stock + taken != PLENTY {
            bail!("item {id}: {} left of {PLENTY}, but paid orders took {taken}", item.stock);
        }
    }
    let users = (0..goods.users).map(|id| id.to_string());
    let users = Reader::connect(&at.payment).await?.all("user", users, User::decode).await?;
    for (id, user) in &users {
        let taken = credit_by_user.get(id).copied().unwrap_or(0);
        let begun = id.parse().map_or(0, |number| goods.credit(number));
        if user.credit + taken != begun {
            bail!("user {id}: {} left of {begun}, but paid orders took {taken}", user.credit);
        }
    }
    Ok(Verdict { paid, pieces: pieces_by_item.values().sum(), credit: credit_by_user.values().sum() })
}

/// Writes rows into a store, over what is there.
pub async fn write(address: &str, rows: impl Iterator<Item = (String, Bytes)> + Send) -> anyhow::Result<()> {
    let store = Reader::connect(address).await?.store;
    store.bulk_set(rows).await.with_context(|| format!("write to {address}"))?;
    store.shutdown().await;
    Ok(())
}

struct Reader {
    store: Store,
}

impl Reader {
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let settings = Settings {
            address: address.to_owned(),
            process: format!("audit-{}", std::process::id()),
            password: redis_txn::Password::default(),
            max_batch: 1,
            conflicts_before_turn: 2,
            response_timeout: Duration::from_secs(10),
            rest_patience: Duration::from_secs(10),
        };
        let store = Store::connect(settings).await.with_context(|| format!("connect to {address}"))?;
        Ok(Self { store })
    }

    /// The values of `<kind>:<id>`; one that is missing is an error.
    async fn all<T>(
        &self,
        kind: &str,
        ids: impl IntoIterator<Item = String>,
        decode: impl Fn(&[u8]) -> Result<T, proto::DecodeError>,
    ) -> anyhow::Result<BTreeMap<String, T>> {
        let mut values = BTreeMap::new();
        let mut ids = ids.into_iter();
        loop {
            let chunk: Vec<String> = ids.by_ref().take(CHUNK_KEYS).collect();
            if chunk.is_empty() {
                break;
            }
            let keys: Vec<String> = chunk.iter().map(|id| format!("{kind}:{id}")).collect();
            for (id, value) in chunk.into_iter().zip(self.store.read(&keys).await?) {
                let value = value.with_context(|| format!("{kind} {id} is missing"))?;
                values.insert(id, decode(&value)?);
            }
        }
        self.store.shutdown().await;
        Ok(values)
    }
}

//! Reads the stores after a run and compares them with what the clients were told.
//!
//! The clients' history and the stores must agree: an order answered 200 is paid, one answered 4xx is not, stock and
//! credit are taken once for each paid order and for nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::Wire as _;
use proto::shop::{Item, Order, User, order};
use redis_txn::{Settings, Store};

/// Keys per MGET.
const CHUNK_KEYS: u64 = 1_000;

/// Where the stores of a stack listen.
pub struct Addresses {
    /// Redis of order-svc.
    pub order: String,
    /// Redis of stock-svc.
    pub stock: String,
    /// Redis of payment-svc.
    pub payment: String,
}

/// What the load was set up with.
pub struct Loaded {
    /// Items `0 … items-1`.
    pub items: u64,
    /// Pieces of each item.
    pub stock: u64,
    /// Users `0 … users-1`.
    pub users: u64,
    /// Credit of each user.
    pub credit: u64,
    /// Orders that may have been checked out: ids below this number.
    pub orders: u64,
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

/// Reads everything and compares. An error names the first disagreement.
pub async fn audit(
    at: &Addresses,
    loaded: &Loaded,
    told_paid: &[u64],
    told_refused: &[u64],
) -> anyhow::Result<Verdict> {
    let orders = Reader::connect(&at.order).await?;
    let orders: BTreeMap<u64, Order> = orders.all("order", loaded.orders, Order::decode).await?;
    let mut pieces_by_item: BTreeMap<String, u64> = BTreeMap::new();
    let mut credit_by_user: BTreeMap<String, u64> = BTreeMap::new();
    let mut paid = 0;
    for (id, order) in &orders {
        match order.status {
            Some(order::Status::Paid(_)) => {
                paid += 1;
                for line in &order.lines {
                    *pieces_by_item.entry(line.item_id.clone()).or_default() += line.quantity;
                }
                *credit_by_user.entry(order.user_id.clone()).or_default() += order.total_cost;
            }
            Some(order::Status::CheckingOut(_)) => bail!("order {id} is still checking out"),
            _ => {}
        }
    }
    let is_paid = |id: &u64| matches!(orders.get(id).and_then(|o| o.status.as_ref()), Some(order::Status::Paid(_)));
    if let Some(id) = told_paid.iter().find(|id| !is_paid(id)) {
        bail!("order {id} was answered 200 and is not paid");
    }
    if let Some(id) = told_refused.iter().find(|id| is_paid(id)) {
        bail!("order {id} was answered 4xx and is paid");
    }

    let items = Reader::connect(&at.stock).await?.all("item", loaded.items, Item::decode).await?;
    for (id, item) in &items {
        let taken = pieces_by_item.get(&id.to_string()).copied().unwrap_or(0);
        if item.stock + taken != loaded.stock {
            bail!("item {id}: {} left of {}, but paid orders took {taken}", item.stock, loaded.stock);
        }
    }
    let users = Reader::connect(&at.payment).await?.all("user", loaded.users, User::decode).await?;
    for (id, user) in &users {
        let taken = credit_by_user.get(&id.to_string()).copied().unwrap_or(0);
        if user.credit + taken != loaded.credit {
            bail!("user {id}: {} left of {}, but paid orders took {taken}", user.credit, loaded.credit);
        }
    }
    Ok(Verdict { paid, pieces: pieces_by_item.values().sum(), credit: credit_by_user.values().sum() })
}

struct Reader {
    store: Store,
}

impl Reader {
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let settings = Settings {
            address: address.to_owned(),
            process: format!("audit-{}", std::process::id()),
            max_batch: 1,
            response_timeout: Duration::from_secs(10),
            rest_patience: Duration::from_secs(10),
        };
        let store = Store::connect(settings).await.with_context(|| format!("connect to {address}"))?;
        Ok(Self { store })
    }

    /// The values of `<kind>:0 … <kind>:count-1`; one that is missing is an error.
    async fn all<T>(
        &self,
        kind: &str,
        count: u64,
        decode: impl Fn(&[u8]) -> Result<T, proto::DecodeError>,
    ) -> anyhow::Result<BTreeMap<u64, T>> {
        let mut values = BTreeMap::new();
        for first in (0..count).step_by(usize::try_from(CHUNK_KEYS)?) {
            let ids = first..(first + CHUNK_KEYS).min(count);
            let keys: Vec<String> = ids.clone().map(|id| format!("{kind}:{id}")).collect();
            for (id, value) in ids.zip(self.store.read(&keys).await?) {
                let value = value.with_context(|| format!("{kind} {id} is missing"))?;
                values.insert(id, decode(&value)?);
            }
        }
        self.store.shutdown().await;
        Ok(values)
    }
}

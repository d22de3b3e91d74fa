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

    /// Whether the orders are what clients were told.
    fn check(&self, orders: &BTreeMap<String, Order>) -> anyhow::Result<()> {
        let status = |id: &String| orders.get(id).and_then(|order| order.status.as_ref());
        let is_paid = |id: &String| matches!(status(id), Some(order::Status::Paid(_)));
        if let Some(id) = self.paid.iter().find(|id| !is_paid(id)) {
            bail!("order {id} was answered 200 and is not paid");
        }
        if let Some(id) = self.refused.iter().find(|id| is_paid(id)) {
            bail!("order {id} was answered 4xx and is paid");
        }
        Ok(())
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
    let orders = Reader::connect(&at.order).await?.all("order", told.orders(), Order::decode).await?;
    let taken = Taken::by(&orders, times)?;
    told.check(&orders)?;
    let items = (0..goods.items).map(|id| id.to_string());
    taken.check_items(&Reader::connect(&at.stock).await?.all("item", items, Item::decode).await?)?;
    let users = (0..goods.users).map(|id| id.to_string());
    taken.check_users(&Reader::connect(&at.payment).await?.all("user", users, User::decode).await?, goods)?;
    Ok(taken.verdict())
}

/// What paid orders took.
#[derive(Debug, Default)]
struct Taken {
    paid: u64,
    pieces_by_item: BTreeMap<String, u64>,
    credit_by_user: BTreeMap<String, u64>,
}

impl Taken {
    /// An error when an order has not ended.
    fn by(orders: &BTreeMap<String, Order>, times: u64) -> anyhow::Result<Self> {
        let mut taken = Self::default();
        for (id, order) in orders {
            match order.status {
                Some(order::Status::Paid(_)) => {
                    taken.paid += 1;
                    for line in &order.lines {
                        *taken.pieces_by_item.entry(line.item_id.clone()).or_default() += times * line.quantity;
                    }
                    *taken.credit_by_user.entry(order.user_id.clone()).or_default() += times * order.total_cost;
                }
                Some(order::Status::CheckingOut(_)) => bail!("order {id} is still checking out"),
                _ => {}
            }
        }
        Ok(taken)
    }

    fn check_items(&self, items: &BTreeMap<String, Item>) -> anyhow::Result<()> {
        for (id, item) in items {
            let taken = self.pieces_by_item.get(id).copied().unwrap_or(0);
            if item.stock + taken != PLENTY {
                bail!("item {id}: {} left of {PLENTY}, but paid orders took {taken}", item.stock);
            }
        }
        Ok(())
    }

    fn check_users(&self, users: &BTreeMap<String, User>, goods: &Goods) -> anyhow::Result<()> {
        for (id, user) in users {
            let taken = self.credit_by_user.get(id).copied().unwrap_or(0);
            let begun = id.parse().map_or(0, |number| goods.credit(number));
            if user.credit + taken != begun {
                bail!("user {id}: {} left of {begun}, but paid orders took {taken}", user.credit);
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Verdict {
        let (pieces, credit) = (self.pieces_by_item.values().sum(), self.credit_by_user.values().sum());
        Verdict { paid: self.paid, pieces, credit }
    }
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

#[cfg(test)]
mod tests {
    use proto::shop::OrderLine;

    use super::*;
    use crate::scenario::Scenario;

    /// Of two users, of which the second has no credit.
    const GOODS: Goods = Goods { items: 2, users: 2, rich: 1, orders: 3 };

    fn paid() -> Option<order::Status> {
        Some(order::Status::Paid(order::Paid { saga_id: Bytes::new() }))
    }

    /// Two pieces of item 0 and one of item 1, which cost user 0 nine; the last order is open.
    fn orders() -> BTreeMap<String, Order> {
        let order = |lines: &[(&str, u64)], total_cost, status| {
            let line = |(item_id, quantity): &(&str, u64)| OrderLine {
                item_id: (*item_id).to_owned(),
                quantity: *quantity,
                price: 3,
            };
            Order { lines: lines.iter().map(line).collect(), total_cost, status, ..Order::new("0") }
        };
        let open = Order::new("0").status;
        let orders =
            [order(&[("0", 1)], 3, paid()), order(&[("0", 1), ("1", 1)], 6, paid()), order(&[("1", 7)], 21, open)];
        (0..).map(|id: u64| id.to_string()).zip(orders).collect()
    }

    fn told(paid: &[&str], refused: &[&str]) -> Told {
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        Told { paid: owned(paid), refused: owned(refused), ..Told::default() }
    }

    fn items(left: [u64; 2]) -> BTreeMap<String, Item> {
        (0..).map(|id: u64| id.to_string()).zip(left.map(|stock| Item::new(stock, 3))).collect()
    }

    fn users(left: [u64; 2]) -> BTreeMap<String, User> {
        (0..).map(|id: u64| id.to_string()).zip(left.map(User::new)).collect()
    }

    #[test]
    fn what_clients_were_told_must_be_so() {
        assert!(told(&["0", "1"], &["2"]).check(&orders()).is_ok());
        assert!(told(&[], &[]).check(&orders()).is_ok(), "whoever was told nothing may have paid");
        for (wrong, said) in [
            (told(&["0", "2"], &[]), "order 2 was answered 200 and is not paid"),
            (told(&["0", "9"], &[]), "order 9 was answered 200 and is not paid"),
            (told(&["0"], &["2", "1"]), "order 1 was answered 4xx and is paid"),
        ] {
            assert_eq!(wrong.check(&orders()).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn stock_and_credit_are_taken_once_for_each_paid_order() {
        for times in [1, Scenario::Long.times()] {
            let taken = Taken::by(&orders(), times).unwrap();
            let Verdict { paid, pieces, credit } = taken.verdict();
            assert_eq!((paid, pieces, credit), (2, 3 * times, 9 * times));
            let left = [PLENTY - 2 * times, PLENTY - times];
            assert!(taken.check_items(&items(left)).is_ok());
            let credit = PLENTY - 9 * times;
            assert!(taken.check_users(&users([credit, 0]), &GOODS).is_ok());

            let [first, second] = left;
            for wrong in [[first - 1, second], [first + 1, second], [first, second - 1], [first, PLENTY]] {
                assert!(taken.check_items(&items(wrong)).is_err(), "{wrong:?}");
            }
            for wrong in [[credit - 1, 0], [credit + 1, 0], [PLENTY, 0], [credit, 1]] {
                assert!(taken.check_users(&users(wrong), &GOODS).is_err(), "{wrong:?}");
            }
        }
    }

    #[test]
    fn an_order_that_has_not_ended_is_waited_for() {
        let mut orders = orders();
        let under_way = order::CheckingOut { saga_id: Bytes::new(), lane: 0, sequence: 0, undoing: false };
        orders.get_mut("2").unwrap().status = Some(order::Status::CheckingOut(under_way));
        assert_eq!(Taken::by(&orders, 1).unwrap_err().to_string(), "order 2 is still checking out");
    }
}

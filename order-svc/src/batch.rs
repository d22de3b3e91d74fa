//! `batch_init`: many orders at once, for load tests.

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use service_kit::params::{MAX_AMOUNT, MAX_BATCH_ROWS, whole_number};
use service_kit::problem::Problem;

use crate::order::{Line, Order};
use crate::store::{encode, order_key};

/// Lines of every order.
const LINES: u64 = 2;

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    orders: u64,
    items: u64,
    users: u64,
    item_price: u64,
}

impl Batch {
    /// Reads the path parameters; 422 for what cannot be.
    pub fn new(orders: &str, items: &str, users: &str, item_price: &str) -> Result<Self, Problem> {
        let orders = whole_number("n", orders, 0, MAX_BATCH_ROWS)?;
        // Orders need somebody who pays and something to buy.
        let least = u64::from(orders > 0);
        Ok(Self {
            orders,
            items: whole_number("n_items", items, least, MAX_AMOUNT)?,
            users: whole_number("n_users", users, least, MAX_AMOUNT)?,
            item_price: whole_number("item_price", item_price, 0, MAX_AMOUNT / LINES)?,
        })
    }

    /// The orders `0 … n-1`, each of a random user with two random items.
    pub fn rows(self, mut random: SmallRng) -> impl Iterator<Item = (String, Bytes)> + Send {
        (0..self.orders).map(move |number| {
            let mut order = Order::new(random.random_range(0..self.users).to_string());
            for _ in 0..LINES {
                let item_id = random.random_range(0..self.items).to_string();
                order.lines.push(Line { item_id, quantity: 1, price: self.item_price });
            }
            order.total_cost = LINES * self.item_price;
            (order_key(&number.to_string()), encode(&order))
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::order::Status;
    use crate::store::decode;

    #[test]
    fn orders_are_as_the_contract_says() {
        let rows: Vec<_> = Batch::new("50", "3", "2", "7").unwrap().rows(SmallRng::seed_from_u64(1)).collect();
        assert_eq!(rows.len(), 50);
        assert_eq!(rows[49].0, "order:49");
        for (_, value) in rows {
            let order = decode(&value).unwrap();
            assert_eq!((order.lines.len(), order.total_cost, order.status), (2, 14, Status::Open));
            assert!(order.user_id.parse::<u64>().unwrap() < 2);
            assert!(order.lines.iter().all(|line| line.quantity == 1 && line.item_id.parse::<u64>().unwrap() < 3));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Batch::new("0", "0", "0", "0").is_ok());
        assert!(Batch::new("1", "0", "1", "1").is_err());
        assert!(Batch::new("1", "1", "0", "1").is_err());
        assert!(Batch::new("1", "1", "1", "9007199254740991").is_err(), "the total would be too large");
        assert!(Batch::new("-1", "1", "1", "1").is_err());
    }
}

//! What the load does, and what must lie in the stores for it.

use anyhow::ensure;
use bytes::Bytes;
use clap::ValueEnum;
use proto::Wire as _;
use proto::shop::{Order, OrderLine};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use stack::Shop;

/// Price of every item.
pub const ITEM_PRICE: u64 = 1;
/// Pieces of each item and credit of each user: more than any run can take.
pub const PLENTY: u64 = 1_000_000_000;
/// How often the scenario `long` reserves and charges.
const LONG_TIMES: u64 = 5;
/// Lines of an order, at most: a third of the orders each have one, two and three. Those of `batch_init` have two.
const MAX_LINES: u64 = 3;
/// The orders of every run are the same.
const SEED: u64 = 6;
/// Items of the scenario `hot-100`.
const HOT_ITEMS: u64 = 100;

/// What the load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Checks fresh orders out: one to three lines each, over all items and users; all succeed
    Checkout,
    /// Creates an order, adds two items, checks it out, finds it; all succeed
    Mix,
    /// Checks fresh orders out; half of the users have no credit, so their stock is given back
    Refuse,
    /// Checks fresh orders out that all want the same item
    FlashSale,
    /// Checks fresh orders out that all draw from 100 items
    #[value(name = "hot-100")]
    #[serde(rename = "hot-100")]
    Hot100,
    /// Checks fresh orders out by a saga of ten steps, which reserves and charges five times; all succeed
    Long,
}

/// What was written into the stores before the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goods {
    /// Items `0 … items-1`, each with [`PLENTY`] pieces.
    pub items: u64,
    /// Users `0 … users-1`.
    pub users: u64,
    /// Users below this number have [`PLENTY`] of credit, the others none.
    pub rich: u64,
    /// Orders `0 … orders-1`; none for a scenario that creates its own.
    pub orders: u64,
}

impl Goods {
    /// Credit that the user began with.
    pub fn credit(&self, user: u64) -> u64 {
        if user < self.rich { PLENTY } else { 0 }
    }

    /// Orders of one and of three lines, to take the place of two thirds of those that `batch_init` has made.
    pub fn varied_orders(self) -> impl Iterator<Item = (String, Bytes)> + Send {
        let mut random = SmallRng::seed_from_u64(SEED);
        let others = (0..self.orders).map(|number| (number, 1 + number % MAX_LINES)).filter(|(_, lines)| *lines != 2);
        others.map(move |(number, lines)| {
            let mut order = Order::new(random.random_range(0..self.users).to_string());
            let mut line = || {
                let item_id = random.random_range(0..self.items).to_string();
                OrderLine { item_id, quantity: 1, price: ITEM_PRICE }
            };
            order.lines = (0..lines).map(|_| line()).collect();
            order.total_cost = lines * ITEM_PRICE;
            (format!("order:{number}"), order.encode())
        })
    }

    /// Writes all of it by `batch_init`.
    pub async fn load(&self, shop: &Shop) -> anyhow::Result<()> {
        let Self { items, users, rich, orders } = self;
        let mut paths = vec![format!("/stock/batch_init/{items}/{PLENTY}/{ITEM_PRICE}")];
        if rich < users {
            paths.push(format!("/payment/batch_init/{users}/0"));
        }
        paths.push(format!("/payment/batch_init/{rich}/{PLENTY}"));
        paths.push(format!("/orders/batch_init/{orders}/{items}/{users}/{ITEM_PRICE}"));
        for path in paths {
            let answer = shop.post(&path).await?;
            ensure!(answer.is_success(), "POST {path}: {} {}", answer.status, answer.text());
        }
        Ok(())
    }
}

impl Scenario {
    /// What it needs, of this size at most.
    pub fn goods(self, items: u64, orders: u64) -> Goods {
        match self {
            Self::Checkout | Self::Long => Goods { items, users: items, rich: items, orders },
            Self::Mix => Goods { items, users: items, rich: items, orders: 0 },
            Self::Refuse => Goods { items, users: 2 * items, rich: items, orders },
            Self::FlashSale => Goods { items: 1, users: items, rich: items, orders },
            Self::Hot100 => Goods { items: HOT_ITEMS.min(items), users: items, rich: items, orders },
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Mix => "mix",
            Self::Refuse => "refuse",
            Self::FlashSale => "flash-sale",
            Self::Hot100 => "hot-100",
            Self::Long => "long",
        }
    }

    /// How often a paid order was reserved and charged.
    pub fn times(self) -> u64 {
        if self == Self::Long { LONG_TIMES } else { 1 }
    }

    /// The folder of its definitions, in the repository; those of the product for all but one.
    pub fn definitions(self) -> &'static str {
        if self == Self::Long { "crates/bench/definitions" } else { "definitions" }
    }

    /// Settings that its definition needs.
    pub fn settings(self) -> Vec<(String, String)> {
        if self != Self::Long {
            return Vec::new();
        }
        let steps = (1..=LONG_TIMES).map(|n| format!("reserve-{n}=lines,charge-{n}=total"));
        let inputs = steps.collect::<Vec<_>>().join(",");
        vec![("CHECKOUT_DEFINITION".to_owned(), "long".to_owned()), ("CHECKOUT_INPUTS".to_owned(), inputs)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_users_of_refuse_have_nothing() {
        let goods = Scenario::Refuse.goods(10, 100);
        let poor = (0..goods.users).filter(|user| goods.credit(*user) == 0).count();
        assert_eq!((goods.users, poor), (20, 10));
    }

    #[test]
    fn orders_have_one_to_three_lines() {
        let orders: Vec<(String, Order)> = Scenario::Checkout
            .goods(10, 6)
            .varied_orders()
            .map(|(key, bytes)| (key, Order::decode(&bytes).expect("an order")))
            .collect();
        let lines: Vec<(&str, usize, u64)> =
            orders.iter().map(|(key, order)| (key.as_str(), order.lines.len(), order.total_cost)).collect();
        assert_eq!(lines, [("order:0", 1, 1), ("order:2", 3, 3), ("order:3", 1, 1), ("order:5", 3, 3)]);
    }

    #[test]
    fn the_long_definition_has_the_steps_that_get_inputs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/definitions/long.yaml");
        let text = std::fs::read_to_string(path).expect("the definition");
        let named: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- name: ")).collect();
        let settings = Scenario::Long.settings();
        let inputs: Vec<&str> = settings[1].1.split(',').filter_map(|input| input.split('=').next()).collect();
        assert_eq!((named, inputs.len()), (inputs.clone(), 2 * LONG_TIMES as usize));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            let value = scenario.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(value.as_deref(), Some(scenario.name()));
            assert_eq!(serde_json::to_value(scenario).ok(), Some(scenario.name().into()));
        }
    }
}

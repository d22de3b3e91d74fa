//! The shop's public routes as functions, for tests and tools.

use anyhow::Context;
use serde::Deserialize;

use crate::http::{Answer, Http};

/// A client of one gateway.
#[derive(Clone, Debug)]
pub struct Shop {
    http: Http,
    gateway_url: String,
}

/// Stock of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Item {
    /// How many there are.
    pub stock: u64,
    /// What one costs.
    pub price: u64,
}

/// One customer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Its id.
    pub user_id: String,
    /// What is left to spend.
    pub credit: u64,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Order {
    /// Its id.
    pub order_id: String,
    /// Whether it is paid.
    pub paid: bool,
    /// Item and quantity of each line, in the order they were added.
    pub items: Vec<(String, u64)>,
    /// Who pays.
    pub user_id: String,
    /// What it costs.
    pub total_cost: u64,
    /// `open`, `checking_out`, `undoing` or `paid`.
    pub status: String,
    /// The saga that is or was the current one.
    #[serde(default)]
    pub saga_id: Option<String>,
    /// The last attempts to check it out.
    #[serde(default)]
    pub attempts: Vec<serde_json::Value>,
}

impl Shop {
    /// A client of the gateway at `gateway_url`, for example `http://127.0.0.1:8000`.
    pub fn new(gateway_url: impl Into<String>) -> Self {
        Self { http: Http::default(), gateway_url: gateway_url.into() }
    }

    /// GET of any path.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.http.get(&format!("{}{path}", self.gateway_url)).await
    }

    /// POST to any path.
    pub async fn post(&self, path: &str) -> anyhow::Result<Answer> {
        self.http.post(&format!("{}{path}", self.gateway_url)).await
    }

    /// POST to any path, with an `Idempotency-Key`.
    pub async fn post_with_key(&self, path: &str, key: &str) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.gateway_url);
        self.http.send_with(hyper::Method::POST, &url, &[("Idempotency-Key", key)]).await
    }

    /// A new item with this price and stock.
    pub async fn create_item(&self, price: u64, stock: u64) -> anyhow::Result<String> {
        let id = self.create(&format!("/stock/item/create/{price}"), "item_id").await?;
        if stock > 0 {
            self.must_post(&format!("/stock/add/{id}/{stock}")).await?;
        }
        Ok(id)
    }

    /// A new user with this credit.
    pub async fn create_user(&self, credit: u64) -> anyhow::Result<String> {
        let id = self.create("/payment/create_user", "user_id").await?;
        if credit > 0 {
            self.must_post(&format!("/payment/add_funds/{id}/{credit}")).await?;
        }
        Ok(id)
    }

    /// A new order of this user with these lines.
    pub async fn create_order(&self, user_id: &str, lines: &[(&str, u64)]) -> anyhow::Result<String> {
        let id = self.create(&format!("/orders/create/{user_id}"), "order_id").await?;
        for (item_id, quantity) in lines {
            self.must_post(&format!("/orders/addItem/{id}/{item_id}/{quantity}")).await?;
        }
        Ok(id)
    }

    /// Adds a line, whatever the answer.
    pub async fn add_item(&self, order_id: &str, item_id: &str, quantity: u64) -> anyhow::Result<Answer> {
        self.post(&format!("/orders/addItem/{order_id}/{item_id}/{quantity}")).await
    }

    /// Checks the order out, whatever the answer.
    pub async fn checkout(&self, order_id: &str) -> anyhow::Result<Answer> {
        self.post(&format!("/orders/checkout/{order_id}")).await
    }

    /// An item that exists.
    pub async fn find_item(&self, item_id: &str) -> anyhow::Result<Item> {
        self.find(&format!("/stock/find/{item_id}")).await
    }

    /// A user that exists.
    pub async fn find_user(&self, user_id: &str) -> anyhow::Result<User> {
        self.find(&format!("/payment/find_user/{user_id}")).await
    }

    /// An order that exists.
    pub async fn find_order(&self, order_id: &str) -> anyhow::Result<Order> {
        self.find(&format!("/orders/find/{order_id}")).await
    }

    /// Replaces items, users and orders by `count` of each, with ids `0 … count-1`.
    pub async fn batch_init(&self, count: u64, stock: u64, price: u64, credit: u64) -> anyhow::Result<()> {
        self.must_post(&format!("/stock/batch_init/{count}/{stock}/{price}")).await?;
        self.must_post(&format!("/payment/batch_init/{count}/{credit}")).await?;
        self.must_post(&format!("/orders/batch_init/{count}/{count}/{count}/{price}")).await?;
        Ok(())
    }

    async fn must_post(&self, path: &str) -> anyhow::Result<Answer> {
        let answer = self.post(path).await?;
        anyhow::ensure!(answer.is_success(), "POST {path} is answered {}: {}", answer.status, answer.text());
        Ok(answer)
    }

    async fn create(&self, path: &str, key: &str) -> anyhow::Result<String> {
        let answer = self.must_post(path).await?.json()?;
        let id = answer.get(key).and_then(|id| id.as_str());
        Ok(id.with_context(|| format!("POST {path} is answered without {key}: {answer}"))?.to_owned())
    }

    async fn find<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.get(path).await?;
        anyhow::ensure!(answer.is_success(), "GET {path} is answered {}: {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).with_context(|| format!("GET {path} is answered {}", answer.text()))
    }
}

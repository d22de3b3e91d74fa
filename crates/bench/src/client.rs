//! One HTTP connection to the gateway, and one checkout over it as a scenario does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::scenario::{Goods, Scenario};
use crate::tally::Ended;

/// The checkouts that have not been begun yet; each order is checked out once.
pub struct Orders {
    scenario: Scenario,
    goods: Goods,
    /// Most checkouts; a scenario with prepared orders has no more of them.
    count: u64,
    next: AtomicU64,
}

/// A checkout that nobody has begun yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    number: u64,
}

impl Orders {
    /// At most `count` checkouts on what was loaded.
    pub fn new(scenario: Scenario, goods: Goods, count: u64) -> Self {
        Self { scenario, goods, count, next: AtomicU64::new(0) }
    }

    /// How often a paid one was reserved and charged.
    pub fn times(&self) -> u64 {
        self.scenario.times()
    }

    /// Checkouts that were handed out.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.count)
    }

    /// Prepared orders that were handed out: ids below this number.
    pub fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.goods.orders)
    }

    /// The next one; `None` when all are used up.
    pub fn take(&self) -> Option<Fresh> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.count).then_some(Fresh { number })
    }
}

/// One keep-alive connection.
pub struct Client {
    authority: Arc<str>,
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(authority: &Arc<str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&**authority).await.with_context(|| format!("connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("start HTTP")?;
        tokio::spawn(connection);
        Ok(Self { authority: Arc::clone(authority), sender })
    }

    /// Whether another request can be sent.
    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Runs one checkout, with what the scenario does around it; says which order it was and how that ended.
    pub async fn run(&mut self, orders: &Orders, fresh: Fresh) -> (String, Ended) {
        match orders.scenario {
            Scenario::Mix => self.mix(&orders.goods, fresh).await,
            Scenario::Checkout | Scenario::Refuse | Scenario::FlashSale | Scenario::Hot100 | Scenario::Long => {
                let order = fresh.number.to_string();
                let ended = self.checkout(&order).await;
                (order, ended)
            }
        }
    }

    async fn checkout(&mut self, order: &str) -> Ended {
        let answer = self.call(Method::POST, &format!("/orders/checkout/{order}")).await;
        Ended::from_status(answer.ok().map(|(status, _)| status))
    }

    /// Create, add twice, check out, find. What fails before the checkout counts as unknown; the order's name is empty
    /// when it was never told.
    async fn mix(&mut self, goods: &Goods, fresh: Fresh) -> (String, Ended) {
        let Ok(order) = self.create_order(goods, fresh).await else { return (String::new(), Ended::Unknown(None)) };
        for line in 0..2 {
            let item = (fresh.number * 2 + line) % goods.items;
            match self.call(Method::POST, &format!("/orders/addItem/{order}/{item}/1")).await {
                Ok((200, _)) => {}
                Ok((429, _)) => return (order, Ended::Shed),
                _ => return (order, Ended::Unknown(None)),
            }
        }
        let ended = self.checkout(&order).await;
        let found = self.call(Method::GET, &format!("/orders/find/{order}")).await;
        let is_found = found.is_ok_and(|(status, _)| status == 200);
        (order, if is_found { ended } else { Ended::Unknown(None) })
    }

    async fn create_order(&mut self, goods: &Goods, fresh: Fresh) -> anyhow::Result<String> {
        let user = fresh.number % goods.users;
        let (status, body) = self.call(Method::POST, &format!("/orders/create/{user}")).await?;
        ensure!(status == 200, "an order is created with {status}");
        let body: serde_json::Value = serde_json::from_slice(&body).context("read the new order")?;
        Ok(body["order_id"].as_str().context("a new order has an id")?.to_owned())
    }

    async fn call(&mut self, method: Method, path: &str) -> anyhow::Result<(u16, Bytes)> {
        self.sender.ready().await?;
        let request =
            http::Request::builder().method(method).uri(path).header("host", &*self.authority).body(Empty::new())?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_handed_out_once() {
        let goods = Scenario::Checkout.goods(10, 3);
        let orders = Orders::new(Scenario::Checkout, goods, 3);
        let taken: Vec<u64> = std::iter::from_fn(|| orders.take()).map(|fresh| fresh.number).collect();
        assert_eq!((taken, orders.taken()), (vec![0, 1, 2], 3));
    }
}

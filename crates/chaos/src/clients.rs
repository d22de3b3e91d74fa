//! The load: clients that check fresh orders out, ask again where they were told nothing, and write down every answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use stack::{Shop, never_connected};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::audit::{PassedOver, Told};

/// Items, users and the price of an item, as `batch_init` makes them.
pub const ITEMS: u64 = 200;
/// See [`ITEMS`].
pub const USERS: u64 = 1_000;
/// See [`ITEMS`].
pub const PRICE: u64 = 2;
/// Pieces of an item and credit of a user at first: more than a campaign takes.
const PLENTY: u64 = 1_000_000;
/// Every so many items is scarce, every so many users is poor: their checkouts are refused, sooner or later.
const SCARCE_OF: u64 = 16;
/// See [`SCARCE_OF`].
const POOR_OF: u64 = 10;
/// Pieces of a scarce item.
const SCARCE_PIECES: u64 = 40;
/// Credit of a poor user: less than one order costs.
const POOR_CREDIT: u64 = 3;
/// How often a client asks again for an order about which it was told nothing.
const TRIES: u32 = 4;
/// Pause before it asks again.
const PAUSE: Duration = Duration::from_millis(200);
/// Load counts as carried when of the last so many milliseconds' answers …
const CALM_WINDOW_MS: u64 = 5_000;
/// … nine of ten came within this time after the request.
const CALM_MS: u64 = 1_000;
/// Every so many checkouts is asked for twice at once.
const DOUBLE_OF: u64 = 10;

/// Items, users and `orders` orders, some of which cannot be paid.
pub async fn set_up(shop: &Shop, orders: u64) -> anyhow::Result<()> {
    let mut paths = vec![
        format!("/stock/batch_init/{ITEMS}/{PLENTY}/{PRICE}"),
        format!("/payment/batch_init/{USERS}/{PLENTY}"),
        format!("/orders/batch_init/{orders}/{ITEMS}/{USERS}/{PRICE}"),
    ];
    let taken = (PLENTY - SCARCE_PIECES, PLENTY - POOR_CREDIT);
    paths.extend(
        (0..ITEMS).step_by(usize::try_from(SCARCE_OF)?).map(|item| format!("/stock/subtract/{item}/{}", taken.0)),
    );
    paths.extend((0..USERS).step_by(usize::try_from(POOR_OF)?).map(|user| format!("/payment/pay/{user}/{}", taken.1)));
    for path in paths {
        let answer = shop.post(&path).await?;
        ensure!(answer.is_success(), "POST {path}: {} {}", answer.status, answer.text());
    }
    Ok(())
}

/// Whether this order is asked for by two clients at once: one may go on when the other was refused.
pub(crate) fn asks_twice(order: u64) -> bool {
    order.is_multiple_of(DOUBLE_OF)
}

/// What all clients share.
pub struct Crowd {
    /// One for each gateway, by its name.
    shops: Vec<(String, Shop)>,
    began: Instant,
    next_order: AtomicU64,
    orders: u64,
    stop: AtomicBool,
    history: Mutex<Vec<Told>>,
    passed_over: Mutex<Vec<PassedOver>>,
}

impl Crowd {
    /// Clients of these gateways, name and URL of each, for orders `0 … orders-1`.
    pub fn new(gateways: Vec<(String, String)>, orders: u64, began: Instant) -> Arc<Self> {
        let shops = gateways.into_iter().map(|(name, url)| (name, Shop::new(url))).collect();
        let (next_order, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (history, passed_over) = Default::default();
        Arc::new(Self { shops, began, next_order, orders, stop, history, passed_over })
    }

    /// A client comes at every beat, whatever the others were told, as long as there are not too many. Runs until
    /// [`stop`](Self::stop), or until the orders are used up; then until the last client has gone.
    pub async fn run(self: &Arc<Self>, rate_per_s: u32, at_once: u32) -> anyhow::Result<()> {
        let mut beat = tokio::time::interval(Duration::from_secs(1) / rate_per_s.max(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let places = Arc::new(Semaphore::new(at_once as usize));
        while !self.stop.load(Ordering::Relaxed) {
            beat.tick().await;
            let place = Arc::clone(&places).acquire_owned().await?;
            let order = self.next_order.fetch_add(1, Ordering::Relaxed);
            if order >= self.orders {
                break;
            }
            let client = Arc::clone(self);
            tokio::spawn(async move {
                client.check_out(order).await;
                drop(place);
            });
        }
        places.acquire_many(at_once).await.context("wait for the last client")?.forget();
        Ok(())
    }

    /// No more clients come.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Orders that may have been checked out: numbers below this.
    pub fn taken(&self) -> u64 {
        self.next_order.load(Ordering::Relaxed).min(self.orders)
    }

    /// What was told so far.
    pub fn history(&self) -> Vec<Told> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gateways that took no connection.
    pub(crate) fn passed_over(&self) -> Vec<PassedOver> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The history without so many of the first answers.
    pub(crate) fn history_since(&self, skipped: usize) -> Vec<Told> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.get(skipped..).unwrap_or_default().to_vec()
    }

    /// Whether the system keeps up with the load.
    pub fn is_calm(&self) -> bool {
        is_calm(&self.history.lock().unwrap_or_else(PoisonError::into_inner), self.now_ms())
    }

    /// Whether every order has been taken.
    pub fn ran_dry(&self) -> bool {
        self.next_order.load(Ordering::Relaxed) >= self.orders
    }

    async fn check_out(&self, order: u64) {
        if asks_twice(order) {
            tokio::join!(self.insist(order, 0), self.insist(order, 1));
        } else {
            self.insist(order, 0).await;
        }
    }

    /// Asks until it is told something that holds, a few times; so many gateways after the one whose turn it is.
    async fn insist(&self, order: u64, after: u32) {
        for attempt in after..after + TRIES {
            let status = self.checkout(order, attempt).await;
            if matches!(status, Some(200 | 400..=428 | 430..=499)) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn checkout(&self, order: u64, attempt: u32) -> Option<u16> {
        let sent_ms = self.now_ms();
        let status = self.ask(order, attempt).await;
        let told = Told { order, sent_ms, done_ms: self.now_ms(), status };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        status
    }

    /// What a balancer in front of the gateways would do: they are asked in turns, and one that takes no connection is passed over.
    async fn ask(&self, order: u64, attempt: u32) -> Option<u16> {
        let (all, turn) = (self.shops.len(), order + u64::from(attempt));
        let first = usize::try_from(turn % all.max(1) as u64).unwrap_or_default();
        for (gateway, shop) in self.shops.iter().cycle().skip(first).take(all) {
            let sent_ms = self.now_ms();
            match shop.checkout(&order.to_string()).await {
                Ok(answer) => return Some(answer.status),
                Err(error) if never_connected(&error) => {
                    let passed_over = PassedOver { gateway: gateway.clone(), sent_ms, refused_ms: self.now_ms() };
                    self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).push(passed_over);
                }
                Err(_) => return None,
            }
        }
        None
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The history is in the order of the answers.
fn is_calm(history: &[Told], now_ms: u64) -> bool {
    let since_ms = now_ms.saturating_sub(CALM_WINDOW_MS);
    let recent = &history[history.partition_point(|told| told.done_ms < since_ms)..];
    let soon = recent.iter().filter(|told| told.done_ms - told.sent_ms <= CALM_MS).count();
    !recent.is_empty() && soon * 10 >= recent.len() * 9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_calm_when_nine_of_ten_are_answered_soon() {
        let told = |done_ms, took_ms| Told { order: 0, sent_ms: done_ms - took_ms, done_ms, status: Some(200) };
        let with_late =
            |late| (0..20).map(|at| told(7_000 + at, if at < late { 1_001 } else { 100 })).collect::<Vec<_>>();
        assert!(is_calm(&with_late(2), 10_000) && !is_calm(&with_late(3), 10_000));
        let early = [vec![told(4_999, 4_000); 9], with_late(0)].concat();
        assert!(is_calm(&early, 10_000), "what was answered long ago does not count");
        assert!(!is_calm(&early, 20_000) && !is_calm(&[], 0), "no answer is no good answer");
    }
}

//! The drill of every fault test: two hundred checkouts, a fault in the middle, and then everything must agree.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _};
use stack::Shop;
use tokio::sync::watch;

use crate::wait::until;

/// Checkouts of one drill.
pub const CHECKOUTS: usize = 200;
/// Checkouts that are under way at a time.
const AT_A_TIME: usize = 32;
/// The fault comes after this many answers.
const FAULT_AFTER: usize = 40;
/// Checkouts from here on wait for the fault.
const HELD_BACK_FROM: usize = 100;
/// Pause between two looks at the sums.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Time a request may take: the gateway's deadline and a little more.
const PATIENCE: Duration = Duration::from_secs(40);

/// One order and what its checkout must do when it is decided.
struct Case {
    order: String,
    user: String,
    item: String,
    quantity: u64,
    price: u64,
}

/// Everything a drill set up, to be compared afterwards.
struct Goods {
    cases: Vec<Case>,
    stock: BTreeMap<String, u64>,
    credit: BTreeMap<String, u64>,
}

/// Runs the checkouts with a fault in their middle, and checks that within `settle` after `heal` every order is decided
/// and all sums agree with the answers. The last checkouts are sent only after `strike`, so that the fault cannot come
/// too late.
pub async fn drill(
    shop: &Shop,
    settle: Duration,
    strike: impl AsyncFnOnce() -> anyhow::Result<()>,
    heal: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let goods = set_up(shop).await?;
    let (answered, mut answers_seen) = watch::channel(0_usize);
    let (struck, _) = watch::channel(false);
    let checkouts = stream::iter(goods.cases.iter().enumerate())
        .map(async |(n, case)| {
            if n >= HELD_BACK_FROM {
                struck.subscribe().wait_for(|struck| *struck).await.ok();
            }
            // A broken connection is an answer too: it says nothing.
            let status = match tokio::time::timeout(PATIENCE, shop.checkout(&case.order)).await {
                Ok(Ok(answer)) => Some(answer.status),
                _ => None,
            };
            answered.send_modify(|count| *count += 1);
            status
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>();
    let fault = async {
        answers_seen.wait_for(|count| *count >= FAULT_AFTER).await.context("wait for answers")?;
        let result = strike().await;
        struck.send_replace(true);
        result?;
        heal().await?;
        anyhow::Ok(Instant::now())
    };
    let (answers, healed) = tokio::join!(checkouts, fault);
    let patience = settle.saturating_sub(healed?.elapsed());
    let successes = answers.iter().filter(|answer| **answer == Some(200)).count();
    ensure!(successes > 0, "no checkout succeeded: the drill shows nothing");
    agree(shop, &goods, &answers, patience).await
}

/// Answers hold whenever somebody looks. The sums agree in the end: a request that nobody waits for any more may begin its
/// saga after every other order is decided, as a service that was stopped finds it when it goes on.
async fn agree(shop: &Shop, goods: &Goods, answers: &[Option<u16>], patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        let paid = settled(shop, goods, patience).await?;
        hold(goods, &paid, answers)?;
        match sums(shop, goods, &paid).await {
            Err(_) if Instant::now() < end => tokio::time::sleep(LOOK_INTERVAL).await,
            outcome => return outcome,
        }
    }
}

/// Five of eight orders succeed, one is out of stock, one lacks credit, one has an unknown user.
async fn set_up(shop: &Shop) -> anyhow::Result<Goods> {
    let plenty = shop.create_item(3, 10_000).await?;
    let scarce = shop.create_item(3, 1).await?;
    let cases = try_join_all((0..CHECKOUTS).map(async |n| {
        let (item, quantity, credit) = match n % 8 {
            5 => (&scarce, 2, 100),
            6 => (&plenty, 2, 5),
            _ => (&plenty, 1 + n as u64 % 3, 100),
        };
        let user = if n % 8 == 7 { format!("nobody-{n}") } else { shop.create_user(credit).await? };
        let order = shop.create_order(&user, &[(item, quantity)]).await?;
        anyhow::Ok((Case { order, user, item: item.clone(), quantity, price: 3 }, credit))
    }))
    .await?;
    let credit = cases
        .iter()
        .filter(|(case, _)| !case.user.starts_with("nobody"))
        .map(|(case, credit)| (case.user.clone(), *credit))
        .collect();
    let stock = BTreeMap::from([(plenty, 10_000), (scarce, 1)]);
    Ok(Goods { cases: cases.into_iter().map(|(case, _)| case).collect(), stock, credit })
}

/// Whether each order is paid, once none is under way any more.
async fn settled(shop: &Shop, goods: &Goods, patience: Duration) -> anyhow::Result<Vec<bool>> {
    until("every order is decided", patience, async || {
        let orders = try_join_all(goods.cases.iter().map(|case| shop.find_order(&case.order))).await.ok()?;
        let decided = orders.iter().all(|order| order.status == "open" || order.status == "paid");
        decided.then(|| orders.iter().map(|order| order.paid).collect())
    })
    .await
}

fn hold(goods: &Goods, paid: &[bool], answers: &[Option<u16>]) -> anyhow::Result<()> {
    for ((case, paid), answer) in goods.cases.iter().zip(paid).zip(answers) {
        match answer {
            Some(200) => ensure!(*paid, "order {} was answered 200 and is not paid", case.order),
            Some(status @ 400..=499) => ensure!(!paid, "order {} was answered {status} and is paid", case.order),
            Some(_) | None => {}
        }
    }
    Ok(())
}

async fn sums(shop: &Shop, goods: &Goods, paid: &[bool]) -> anyhow::Result<()> {
    let mut stock = goods.stock.clone();
    let mut credit = goods.credit.clone();
    for (case, paid) in goods.cases.iter().zip(paid) {
        if *paid {
            *stock.get_mut(&case.item).context("an item of the drill")? -= case.quantity;
            *credit.get_mut(&case.user).context("a paid order of an unknown user")? -= case.quantity * case.price;
        }
    }
    for (item, expected) in &stock {
        let found = shop.find_item(item).await?.stock;
        ensure!(found == *expected, "item {item}: {found} there, {expected} expected");
    }
    for (user, expected) in &credit {
        let found = shop.find_user(user).await?.credit;
        ensure!(found == *expected, "user {user}: {found} left, {expected} expected");
    }
    Ok(())
}

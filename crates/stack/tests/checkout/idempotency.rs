//! `Idempotency-Key`: the same key and request, the same answer, one effect.

use std::sync::Arc;

use anyhow::ensure;
use futures::future::try_join_all;
use stack::Answer;

use crate::World;

/// Sends the same request twice; the second answer is the first one, replayed.
async fn twice(world: &World, path: &str, key: &str) -> anyhow::Result<Answer> {
    let first = world.shop.post_with_key(path, key).await?;
    let second = world.shop.post_with_key(path, key).await?;
    ensure!(first.header("idempotent-replayed").is_none(), "{path}: the first answer is no replay");
    ensure!(second.header("idempotent-replayed") == Some("true"), "{path}: the second answer is not marked");
    ensure!(
        (first.status, &first.body) == (second.status, &second.body),
        "{path}: {} {}, then {} {}",
        first.status,
        first.text(),
        second.status,
        second.text()
    );
    Ok(first)
}

/// Everything that creates or moves something, sent twice.
pub async fn every_post_has_one_effect_per_key(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = twice(&world, "/stock/item/create/3", "item").await?.json()?["item_id"].clone();
    let user = twice(&world, "/payment/create_user", "user").await?.json()?["user_id"].clone();
    let (item, user) = (item.as_str().unwrap_or_default(), user.as_str().unwrap_or_default());
    let order = twice(&world, &format!("/orders/create/{user}"), "order").await?.json()?["order_id"].clone();
    let order = order.as_str().unwrap_or_default();
    for path in [
        format!("/stock/add/{item}/10"),
        format!("/stock/subtract/{item}/2"),
        format!("/payment/add_funds/{user}/20"),
        format!("/payment/pay/{user}/5"),
        format!("/orders/addItem/{order}/{item}/2"),
    ] {
        let answer = twice(&world, &path, "k-1").await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
    }
    ensure!(shop.find_item(item).await?.stock == 8);
    ensure!(shop.find_user(user).await?.credit == 15);
    ensure!(shop.find_order(order).await?.items == [(item.to_owned(), 2)]);
    let refused = twice(&world, &format!("/payment/pay/{user}/16"), "k-2").await?;
    shop.post(&format!("/payment/add_funds/{user}/100")).await?;
    let again = shop.post_with_key(&format!("/payment/pay/{user}/16"), "k-2").await?;
    ensure!((refused.status, again.status) == (402, 402), "a refusal stays one: {}, {}", refused.status, again.status);
    ensure!(again.header("idempotent-replayed") == Some("true"));
    ensure!(shop.find_user(user).await?.credit == 115);
    Ok(())
}

/// Batches that come again write nothing over what has changed since. A part of the scenario of `batch_init`, as all batches
/// write the same ids.
pub async fn batches_are_written_once_per_key(world: &World) -> anyhow::Result<()> {
    let shop = &world.shop;
    let batches = ["/stock/batch_init/20/1000/7", "/payment/batch_init/20/10000", "/orders/batch_init/20/20/20/7"];
    for batch in batches {
        ensure!(twice(world, batch, "batch").await?.status == 200, "{batch}");
    }
    let order = shop.find_order("19").await?;
    let item = &order.items[0].0;
    ensure!(shop.checkout("19").await?.status == 200);
    for batch in batches {
        ensure!(shop.post_with_key(batch, "batch").await?.header("idempotent-replayed") == Some("true"), "{batch}");
    }
    ensure!(shop.find_order("19").await?.paid);
    ensure!(shop.find_item(item).await?.stock < 1_000);
    ensure!(shop.find_user(&order.user_id).await?.credit == 9_986);
    Ok(())
}

/// A refused checkout stays refused for its key, although the order could be paid by now; another key is a new try.
pub async fn a_checkout_with_a_key_keeps_its_answer(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(5, 10).await?;
    let user = shop.create_user(3).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    let path = format!("/orders/checkout/{order}");
    ensure!(twice(&world, &path, "first").await?.status == 402);
    shop.post(&format!("/payment/add_funds/{user}/10")).await?;
    ensure!(shop.post_with_key(&path, "first").await?.status == 402, "also when it would be 200 by now");
    ensure!(shop.find_order(&order).await?.attempts.len() == 1, "no other saga was started");
    ensure!(twice(&world, &path, "second").await?.status == 200);
    ensure!(shop.find_item(&item).await?.stock == 9);
    ensure!(shop.find_user(&user).await?.credit == 8);
    ensure!(shop.post_with_key(&path, "first").await?.status == 402, "the first answer never flips");
    let nothing = shop.create_order(&user, &[]).await?;
    ensure!(twice(&world, &format!("/orders/checkout/{nothing}"), "first").await?.status == 200);
    ensure!(twice(&world, "/orders/checkout/no-such-order", "first").await?.status == 404);
    Ok(())
}

/// Fifty requests with one key at the same time.
pub async fn many_at_once_have_one_effect(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let user = shop.create_user(100).await?;
    let path = format!("/payment/pay/{user}/7");
    let answers = try_join_all((0..50).map(|_| shop.post_with_key(&path, "at-once"))).await?;
    ensure!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    ensure!(shop.find_user(&user).await?.credit == 93);
    let item = shop.create_item(7, 50).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    let path = format!("/orders/checkout/{order}");
    let answers = try_join_all((0..50).map(|_| shop.post_with_key(&path, "at-once"))).await?;
    ensure!(answers.iter().all(|answer| answer.status == 200));
    ensure!(shop.find_user(&user).await?.credit == 86);
    Ok(())
}

/// More checkouts than fit into one window of the starter, each with a key of its own.
pub async fn many_keys_at_once_are_many_checkouts(world: Arc<World>) -> anyhow::Result<()> {
    const CHECKOUTS: u64 = 150;
    let shop = &world.shop;
    let user = shop.create_user(CHECKOUTS).await?;
    let item = shop.create_item(1, CHECKOUTS).await?;
    let mut requests = Vec::new();
    for number in 0..CHECKOUTS {
        let order = shop.create_order(&user, &[(&item, 1)]).await?;
        requests.push((format!("/orders/checkout/{order}"), format!("own-{number}")));
    }
    let answers = try_join_all(requests.iter().map(|(path, key)| shop.post_with_key(path, key))).await?;
    ensure!(answers.iter().all(|answer| answer.status == 200));
    ensure!((shop.find_user(&user).await?.credit, shop.find_item(&item).await?.stock) == (0, 0));
    Ok(())
}

/// Another request with the same key, and what is no key.
pub async fn keys_that_cannot_be_used_are_refused(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let user = shop.create_user(0).await?;
    let path = format!("/payment/add_funds/{user}/5");
    ensure!(shop.post_with_key(&path, "mine").await?.status == 200);
    let other = shop.post_with_key(&format!("{path}?comment=other"), "mine").await?;
    ensure!(other.status == 422, "{}: {}", other.status, other.text());
    ensure!(other.json()?["type"] == "/problems/idempotency-key-reused");
    for nonsense in ["", "two words", &"x".repeat(256)] {
        ensure!(shop.post_with_key(&path, nonsense).await?.status == 400, "{nonsense:?}");
    }
    ensure!(shop.find_user(&user).await?.credit == 5);
    Ok(())
}

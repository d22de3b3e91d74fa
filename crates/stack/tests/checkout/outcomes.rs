//! One checkout at a time: paid, refused, undone.

use std::sync::Arc;

use anyhow::ensure;

use crate::{World, idempotency};

/// 200 means paid: stock and credit are taken once.
pub async fn paid_order_takes_stock_and_credit(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 10).await?;
    let user = shop.create_user(50).await?;
    let order = shop.create_order(&user, &[(&item, 4)]).await?;
    ensure!(shop.find_order(&order).await?.total_cost == 12);

    let answer = shop.checkout(&order).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let paid = shop.find_order(&order).await?;
    ensure!(paid.paid && paid.status == "paid" && paid.saga_id.is_some(), "{paid:?}");
    ensure!(shop.find_item(&item).await?.stock == 6);
    ensure!(shop.find_user(&user).await?.credit == 38);

    // Again: the same answer, no second effect.
    ensure!(shop.checkout(&order).await?.status == 200);
    ensure!(shop.find_item(&item).await?.stock == 6);
    ensure!(shop.find_user(&user).await?.credit == 38);
    Ok(())
}

/// The first step refuses: nothing was done, the order is open again.
pub async fn out_of_stock_takes_nothing(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 2).await?;
    let user = shop.create_user(50).await?;
    let order = shop.create_order(&user, &[(&item, 3)]).await?;
    let answer = shop.checkout(&order).await?;
    ensure!(answer.status == 409, "{}: {}", answer.status, answer.text());
    let open = shop.find_order(&order).await?;
    ensure!(!open.paid && open.status == "open" && open.attempts.len() == 1, "{open:?}");
    ensure!(shop.find_item(&item).await?.stock == 2);
    ensure!(shop.find_user(&user).await?.credit == 50);
    Ok(())
}

/// The second step refuses: the first is undone before the answer.
pub async fn too_little_credit_gives_the_stock_back(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(30, 5).await?;
    let user = shop.create_user(59).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    let answer = shop.checkout(&order).await?;
    ensure!(answer.status == 402, "{}: {}", answer.status, answer.text());
    ensure!(shop.find_item(&item).await?.stock == 5);
    ensure!(shop.find_user(&user).await?.credit == 59);
    Ok(())
}

/// A user nobody has heard of is refused at checkout; an unknown item when it is added.
pub async fn unknown_user_and_item_are_refused(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 5).await?;
    let order = shop.create_order("nobody", &[(&item, 1)]).await?;
    let answer = shop.checkout(&order).await?;
    ensure!(answer.status == 404, "{}: {}", answer.status, answer.text());
    ensure!(shop.find_item(&item).await?.stock == 5);
    ensure!(shop.add_item(&order, "nothing", 1).await?.status == 404);
    Ok(())
}

/// After a refusal the order can be edited, and a new checkout is a new saga.
pub async fn refused_order_can_be_edited_and_checked_out_again(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 1).await?;
    let user = shop.create_user(50).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    ensure!(shop.checkout(&order).await?.status == 409);
    let first = shop.find_order(&order).await?;
    ensure!(shop.add_item(&order, &item, 1).await?.status == 200);
    ensure!(shop.post(&format!("/stock/add/{item}/2")).await?.status == 200);
    let answer = shop.checkout(&order).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let paid = shop.find_order(&order).await?;
    ensure!(paid.saga_id != first.saga_id, "{paid:?}");
    ensure!(paid.attempts.len() == 2, "{paid:?}");
    ensure!(shop.find_item(&item).await?.stock == 0);
    ensure!(shop.find_user(&user).await?.credit == 41);
    ensure!(shop.add_item(&order, &item, 1).await?.status == 409);
    Ok(())
}

/// Two lines with the same item are both listed and added up at checkout.
pub async fn same_item_twice_adds_up(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(2, 5).await?;
    let user = shop.create_user(100).await?;
    let order = shop.create_order(&user, &[(&item, 3), (&item, 3)]).await?;
    let found = shop.find_order(&order).await?;
    ensure!(found.items == vec![(item.clone(), 3), (item.clone(), 3)] && found.total_cost == 12, "{found:?}");
    ensure!(shop.checkout(&order).await?.status == 409, "six are wanted, five are there");
    ensure!(shop.find_item(&item).await?.stock == 5);
    ensure!(shop.post(&format!("/stock/add/{item}/1")).await?.status == 200);
    ensure!(shop.checkout(&order).await?.status == 200);
    ensure!(shop.find_item(&item).await?.stock == 0);
    ensure!(shop.find_user(&user).await?.credit == 88);
    Ok(())
}

/// An order without lines checks out for nothing.
pub async fn empty_order_is_paid_for_nothing(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let user = shop.create_user(5).await?;
    let order = shop.create_order(&user, &[]).await?;
    ensure!(shop.checkout(&order).await?.status == 200);
    ensure!(shop.find_order(&order).await?.paid);
    ensure!(shop.find_user(&user).await?.credit == 5);
    Ok(())
}

/// Ids 0 … n-1 are there afterwards, fresh, whatever they were before; with a key only once.
pub async fn batch_init_replaces_what_was_there(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    for _ in 0..2 {
        shop.batch_init(20, 1_000, 7, 10_000).await?;
        let order = shop.find_order("19").await?;
        ensure!(!order.paid && order.total_cost == 14 && order.items.len() == 2, "{order:?}");
        ensure!(order.items.iter().all(|(id, quantity)| *quantity == 1 && id.parse::<u64>().is_ok_and(|id| id < 20)));
        let item = shop.find_item("19").await?;
        ensure!((item.stock, item.price) == (1_000, 7), "{item:?}");
        ensure!(shop.find_user("19").await?.credit == 10_000);
        ensure!(shop.checkout("19").await?.status == 200);
        ensure!(shop.find_user(&order.user_id).await?.credit == 9_986);
    }
    idempotency::batches_are_written_once_per_key(&world).await
}

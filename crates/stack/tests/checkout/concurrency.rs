//! Many at once.

use std::sync::Arc;

use anyhow::ensure;
use futures::future::try_join_all;

use crate::World;

/// Checkouts of the scarce item.
const RUSH: usize = 1_000;
/// Pieces of the scarce item.
const SCARCE: u64 = 100;

/// Twenty checkouts of one order at the same time: one saga, one effect, one answer.
pub async fn many_checkouts_of_one_order_have_one_effect(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(5, 100).await?;
    let user = shop.create_user(100).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    let answers = try_join_all((0..20).map(|_| shop.checkout(&order))).await?;
    for answer in answers {
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    }
    ensure!(shop.find_item(&item).await?.stock == 98);
    ensure!(shop.find_user(&user).await?.credit == 90);
    ensure!(shop.find_order(&order).await?.attempts.len() == 1);

    let poor = shop.create_user(9).await?;
    let order = shop.create_order(&poor, &[(&item, 2)]).await?;
    let answers = try_join_all((0..20).map(|_| shop.checkout(&order))).await?;
    ensure!(answers.iter().all(|answer| answer.status == 402));
    ensure!(shop.find_item(&item).await?.stock == 98);
    ensure!(shop.find_user(&poor).await?.credit == 9);
    Ok(())
}

/// A thousand customers with one credit each want an item of which there are a hundred.
pub async fn scarce_item_is_sold_exactly_as_often_as_it_is_there(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(1, SCARCE).await?;
    let other = shop.create_item(1, 5).await?;
    let bystander = shop.create_user(1).await?;
    let customers = try_join_all((0..RUSH).map(async |_| {
        let user = shop.create_user(1).await?;
        let order = shop.create_order(&user, &[(&item, 1)]).await?;
        anyhow::Ok((user, order))
    }))
    .await?;
    let answers = try_join_all(customers.iter().map(|(_, order)| shop.checkout(order))).await?;
    let paid = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 409).count();
    ensure!((paid, refused) == (100, RUSH - 100), "{paid} paid, {refused} out of stock");

    ensure!(shop.find_item(&item).await?.stock == 0);
    ensure!(shop.find_item(&other).await?.stock == 5);
    ensure!(shop.find_user(&bystander).await?.credit == 1);
    try_join_all(customers.iter().zip(&answers).map(async |((user, order), answer)| {
        let is_paid = answer.status == 200;
        let order = shop.find_order(order).await?;
        let credit = shop.find_user(user).await?.credit;
        ensure!(order.paid == is_paid, "answered {}, but {order:?}", answer.status);
        ensure!(credit == u64::from(!is_paid), "answered {}, but credit is {credit}", answer.status);
        Ok(())
    }))
    .await?;
    Ok(())
}

/// Lines that are added while a checkout runs are refused, or were there before it began: the total says which.
pub async fn edits_during_a_checkout_count_wholly_or_not_at_all(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    for _ in 0..10 {
        let item = shop.create_item(1, 100).await?;
        let user = shop.create_user(100).await?;
        let order = shop.create_order(&user, &[(&item, 1)]).await?;
        let edits = try_join_all((0..8).map(|_| shop.add_item(&order, &item, 1)));
        let (answer, edits) = tokio::join!(shop.checkout(&order), edits);
        let answer = answer?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        let added = edits?.iter().filter(|edit| edit.status == 200).count() as u64;
        let found = shop.find_order(&order).await?;
        ensure!(found.items.len() as u64 == 1 + added && found.total_cost == 1 + added, "{added} added: {found:?}");
        ensure!(shop.find_item(&item).await?.stock == 99 - added);
        ensure!(shop.find_user(&user).await?.credit == 99 - added);
    }
    Ok(())
}

//! Every refusal of the public contract, and nonsense everywhere.

use std::sync::Arc;

use anyhow::ensure;
use futures::future::try_join_all;

use crate::World;

/// Whole numbers that are none, or lie outside of 0 … 2^53 − 1.
const NO_NUMBERS: [&str; 8] = ["-1", "1.5", "abc", "9007199254740992", "99999999999999999999999", "%20", "0x10", "1e3"];

/// Ids that nothing can have.
const NO_IDS: [&str; 5] = ["no-such-thing", "%00", "%2e%2e%2fetc", "%F0%9F%92%A5", "%FF"];

/// Largest amount of the contract.
const MAX: u64 = (1 << 53) - 1;

/// Each route that can be refused, once.
pub async fn every_refusal_of_the_contract(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 5).await?;
    let user = shop.create_user(7).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    let posts = [
        (format!("/orders/addItem/none/{item}/1"), 404),
        (format!("/orders/addItem/{order}/none/1"), 404),
        (format!("/orders/addItem/{order}/{item}/0"), 422),
        (format!("/orders/addItem/{order}/{item}/-1"), 422),
        ("/orders/checkout/none".to_owned(), 404),
        ("/stock/add/none/1".to_owned(), 404),
        ("/stock/subtract/none/1".to_owned(), 404),
        (format!("/stock/subtract/{item}/6"), 409),
        ("/payment/add_funds/none/1".to_owned(), 404),
        ("/payment/pay/none/1".to_owned(), 404),
        (format!("/payment/pay/{user}/8"), 402),
        ("/orders/no/such/route".to_owned(), 404),
        ("/".to_owned(), 404),
    ];
    for (path, status) in posts {
        let answer = shop.post(&path).await?;
        ensure!(answer.status == status, "POST {path}: {} instead of {status}: {}", answer.status, answer.text());
    }
    for (path, status) in [
        ("/orders/find/none", 404),
        ("/stock/find/none", 404),
        ("/payment/find_user/none", 404),
        ("/orders/checkout/x", 405),
    ] {
        let answer = shop.get(path).await?;
        ensure!(answer.status == status, "GET {path}: {} instead of {status}: {}", answer.status, answer.text());
    }
    ensure!(shop.find_item(&item).await?.stock == 5);
    ensure!(shop.find_user(&user).await?.credit == 7);
    ensure!(shop.find_order(&order).await?.items.len() == 1);
    Ok(())
}

/// A parameter that is no number is a 422, an id that nothing has a 404; never a 5xx, never an effect.
pub async fn nonsense_in_every_parameter(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 5).await?;
    let user = shop.create_user(7).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    for number in NO_NUMBERS {
        for path in [
            format!("/orders/addItem/{order}/{item}/{number}"),
            format!("/orders/batch_init/{number}/1/1/1"),
            format!("/orders/batch_init/1/{number}/1/1"),
            format!("/orders/batch_init/1/1/{number}/1"),
            format!("/orders/batch_init/1/1/1/{number}"),
            format!("/stock/item/create/{number}"),
            format!("/stock/add/{item}/{number}"),
            format!("/stock/subtract/{item}/{number}"),
            format!("/stock/batch_init/{number}/1/1"),
            format!("/stock/batch_init/1/{number}/1"),
            format!("/stock/batch_init/1/1/{number}"),
            format!("/payment/add_funds/{user}/{number}"),
            format!("/payment/pay/{user}/{number}"),
            format!("/payment/batch_init/{number}/1"),
            format!("/payment/batch_init/1/{number}"),
        ] {
            let answer = shop.post(&path).await?;
            ensure!(answer.status == 422, "POST {path}: {} instead of 422: {}", answer.status, answer.text());
        }
    }
    for id in NO_IDS {
        for path in [
            format!("/orders/addItem/{id}/{item}/1"),
            format!("/orders/addItem/{order}/{id}/1"),
            format!("/orders/checkout/{id}"),
            format!("/stock/add/{id}/1"),
            format!("/stock/subtract/{id}/1"),
            format!("/payment/add_funds/{id}/1"),
            format!("/payment/pay/{id}/1"),
        ] {
            let answer = shop.post(&path).await?;
            ensure!(answer.status == 404, "POST {path}: {} instead of 404: {}", answer.status, answer.text());
        }
        for path in [format!("/orders/find/{id}"), format!("/stock/find/{id}"), format!("/payment/find_user/{id}")] {
            let answer = shop.get(&path).await?;
            ensure!(answer.status == 404, "GET {path}: {} instead of 404: {}", answer.status, answer.text());
        }
    }
    ensure!(shop.find_item(&item).await?.stock == 5);
    ensure!(shop.find_user(&user).await?.credit == 7);
    ensure!(shop.find_order(&order).await?.items.len() == 1);
    Ok(())
}

/// Sums above 2^53 − 1 are refused and change nothing; the largest amounts themselves are fine.
pub async fn overflow_is_refused(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(MAX, MAX).await?;
    let user = shop.create_user(MAX).await?;
    let order = shop.create_order(&user, &[(&item, 1)]).await?;
    for path in [
        format!("/stock/add/{item}/1"),
        format!("/payment/add_funds/{user}/1"),
        format!("/orders/addItem/{order}/{item}/1"),
        format!("/orders/addItem/{order}/{item}/{MAX}"),
    ] {
        let answer = shop.post(&path).await?;
        ensure!(answer.status == 422, "POST {path}: {} instead of 422: {}", answer.status, answer.text());
    }
    ensure!(shop.checkout(&order).await?.status == 200);
    ensure!(shop.find_item(&item).await?.stock == MAX - 1);
    ensure!(shop.find_user(&user).await?.credit == 0);
    Ok(())
}

/// Errors are `application/problem+json` with a stable type, a sentence and the saga where there is one.
pub async fn problems_are_problem_json(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(3, 1).await?;
    let user = shop.create_user(7).await?;
    let order = shop.create_order(&user, &[(&item, 2)]).await?;
    let refused = shop.checkout(&order).await?;
    let problem = refused.json()?;
    ensure!(refused.header("content-type") == Some("application/problem+json"), "{refused:?}");
    ensure!(problem["type"] == "/problems/out-of-stock" && problem["status"] == 409, "{problem}");
    ensure!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    ensure!(problem["saga_id"].as_str() == shop.find_order(&order).await?.saga_id.as_deref(), "{problem}");
    for path in ["/stock/find/none", "/orders/find/none", "/nowhere"] {
        let answer = shop.get(path).await?;
        let problem = answer.json()?;
        ensure!(answer.header("content-type") == Some("application/problem+json"), "{path}: {answer:?}");
        ensure!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/")), "{path}: {problem}");
    }
    Ok(())
}

/// An order has at most a thousand lines.
pub async fn too_many_lines_are_refused(world: Arc<World>) -> anyhow::Result<()> {
    let shop = &world.shop;
    let item = shop.create_item(1, 5_000).await?;
    let user = shop.create_user(5_000).await?;
    let order = shop.create_order(&user, &[]).await?;
    let answers = try_join_all((0..1_001).map(|_| shop.add_item(&order, &item, 1))).await?;
    let refused: Vec<u16> = answers.iter().map(|answer| answer.status).filter(|status| *status != 200).collect();
    ensure!(refused == [422], "{refused:?}");
    ensure!(shop.checkout(&order).await?.status == 200);
    ensure!(shop.find_item(&item).await?.stock == 4_000);
    ensure!(shop.find_user(&user).await?.credit == 4_000);
    Ok(())
}

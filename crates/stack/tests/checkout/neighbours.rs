//! Two stacks on one machine.

use std::sync::Arc;

use anyhow::ensure;
use stack::{Progress, Shop, Stack, StackOptions};

use crate::World;

/// A second stack, with fewer lanes, runs beside the first; neither sees the other's data.
pub async fn second_stack_runs_beside_the_first(world: Arc<World>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut options = StackOptions::new(dir.path())?;
    options.partitions = 10;
    let neighbour = Stack::start(options, &Progress::Silent).await?;
    let shops = [world.shop.clone(), Shop::new(neighbour.gateway_url())];
    let mut items = Vec::new();
    for shop in &shops {
        let item = shop.create_item(2, 5).await?;
        let user = shop.create_user(10).await?;
        let order = shop.create_order(&user, &[(&item, 2)]).await?;
        let answer = shop.checkout(&order).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        items.push(item);
    }
    for (shop, foreign) in shops.iter().zip(items.iter().rev()) {
        ensure!(shop.get(&format!("/stock/find/{foreign}")).await?.status == 404);
    }
    neighbour.stop().await?;
    Ok(())
}

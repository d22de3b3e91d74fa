//! The rules of the stock, for REST and sagas alike: pure functions over items.

use std::collections::BTreeMap;

use saga_core::record::Refusal;
use service_kit::params::MAX_AMOUNT;

/// Refusal code: fewer pieces than asked for.
pub const OUT_OF_STOCK: &str = "out-of-stock";
/// Refusal code: no such item.
pub const ITEM_NOT_FOUND: &str = "item-not-found";

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Pieces at hand.
    pub stock: u64,
    /// Price of one piece.
    pub price: u64,
}

/// Why an item stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There would be more than [`MAX_AMOUNT`] pieces.
    TooMany,
    /// There are fewer pieces than asked for.
    OutOfStock,
}

/// Puts pieces in.
pub fn add(item: Item, amount: u64) -> Result<Item, Refused> {
    let stock = item.stock.checked_add(amount).filter(|stock| *stock <= MAX_AMOUNT).ok_or(Refused::TooMany)?;
    Ok(Item { stock, ..item })
}

/// Takes pieces out.
pub fn subtract(item: Item, amount: u64) -> Result<Item, Refused> {
    let stock = item.stock.checked_sub(amount).ok_or(Refused::OutOfStock)?;
    Ok(Item { stock, ..item })
}

/// Puts reserved pieces back. It may not be refused, so the sum may go above [`MAX_AMOUNT`] when somebody has filled the
/// stock up in between; `None` if even the number ends.
pub fn put_back(item: Item, amount: u64) -> Option<Item> {
    let stock = item.stock.checked_add(amount)?;
    Some(Item { stock, ..item })
}

/// What lines ask for by item: the same item in several lines adds up. `None` is more than any stock can be.
pub fn add_up<'a>(lines: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<&'a str, Option<u64>> {
    let mut wanted: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for (item_id, quantity) in lines {
        let sum = wanted.entry(item_id).or_insert(Some(0));
        *sum = sum.and_then(|sum| sum.checked_add(quantity));
    }
    wanted
}

/// Takes one item's share of a reservation out of it, or says why the whole reservation is refused.
pub fn reserve(item_id: &str, item: Option<Item>, wanted: Option<u64>) -> Result<Item, Refusal> {
    let refusal = |code: &str, reason: String| Refusal { code: code.to_owned(), reason };
    let item = item.ok_or_else(|| refusal(ITEM_NOT_FOUND, format!("there is no item {item_id}")))?;
    let taken = wanted.and_then(|wanted| subtract(item, wanted).ok());
    taken.ok_or_else(|| refusal(OUT_OF_STOCK, format!("item {item_id} is out of stock: {} left", item.stock)))
}

#[cfg(test)]
mod tests;

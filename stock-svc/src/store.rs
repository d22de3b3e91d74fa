//! The stock's keys, and items as they are stored.

use bytes::Bytes;
use proto::{DecodeError, Wire, shop};

use crate::decide::Item;

/// The key of an item.
pub fn item_key(item_id: &str) -> String {
    format!("item:{item_id}")
}

/// The item's bytes.
pub fn encode(item: Item) -> Bytes {
    shop::Item::new(item.stock, item.price).encode()
}

/// Reads an item's bytes.
pub fn decode(bytes: &[u8]) -> Result<Item, DecodeError> {
    shop::Item::decode(bytes).map(Item::from)
}

impl From<shop::Item> for Item {
    fn from(stored: shop::Item) -> Self {
        Self { stock: stored.stock, price: stored.price }
    }
}

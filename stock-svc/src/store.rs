//! The stock's keys, and items as they are stored.

use bytes::Bytes;
use proto::{DecodeError, Wire, shop};

use crate::decide::Item;

/// The key of an item.
pub fn item_key(item_id: &str) -> String {
    format!("item:{item_id}")
}

impl Wire for Item {
    fn encode(&self) -> Bytes {
        shop::Item::new(self.stock, self.price).encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let shop::Item { stock, price, .. } = Wire::decode(bytes)?;
        Ok(Self { stock, price })
    }
}

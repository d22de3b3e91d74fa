//! The payment's keys, and users as they are stored.

use bytes::Bytes;
use proto::{DecodeError, Wire, shop};

use crate::decide::User;

/// The key of a user.
pub fn user_key(user_id: &str) -> String {
    format!("user:{user_id}")
}

impl Wire for User {
    fn encode(&self) -> Bytes {
        shop::User::new(self.credit).encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let shop::User { credit, .. } = Wire::decode(bytes)?;
        Ok(Self { credit })
    }
}

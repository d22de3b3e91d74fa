//! The payment's keys, and users as they are stored.

use bytes::Bytes;
use proto::{DecodeError, Wire, shop};

use crate::decide::User;

/// The key of a user.
pub fn user_key(user_id: &str) -> String {
    format!("user:{user_id}")
}

/// The user's bytes.
pub fn encode(user: User) -> Bytes {
    shop::User::new(user.credit).encode()
}

/// Reads a user's bytes.
pub fn decode(bytes: &[u8]) -> Result<User, DecodeError> {
    shop::User::decode(bytes).map(User::from)
}

impl From<shop::User> for User {
    fn from(stored: shop::User) -> Self {
        Self { credit: stored.credit }
    }
}

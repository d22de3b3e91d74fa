//! The contracts on the wire and in the stores: generated types, and fallible conversion to domain types.
//!
//! Deliberately not in it: transport. Generated types do not leave this crate, except the shop's own payloads.

pub mod checkpoint;
mod convert;
mod error;
pub mod idempotency;
pub mod quarantine;
pub mod shop;

use bytes::Bytes;

pub use crate::error::DecodeError;

/// The format that this program writes into field 1 of every record and stored value, and the only one it reads.
pub const FORMAT: u32 = 1;

/// A value that can be written down and read back. Every encoding carries a `format` number.
pub trait Wire: Sized {
    /// The bytes.
    fn encode(&self) -> Bytes;
    /// Reads the bytes back.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// The generated types of the saga protocol.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub(crate) mod saga_v1 {
    include!(concat!(env!("OUT_DIR"), "/saga.v1.rs"));
}

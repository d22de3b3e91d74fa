//! The contracts on the wire and in the stores: generated types, and fallible conversion to domain types.
//!
//! Deliberately not in it: transport. Generated types do not leave this crate, except the shop's own payloads.

use bytes::Bytes;

/// A value that can be written down and read back. Every encoding carries a `format` number.
pub trait Wire: Sized {
    /// The bytes.
    fn encode(&self) -> Bytes;
    /// Reads the bytes back.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Why bytes cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No valid envelope, or a required field is missing or impossible: such a record is quarantined.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which message.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A format or type that this program does not know: the lane halts.
    #[error("{what} has format or type {number}, which this program does not know")]
    UnknownFormat {
        /// Which message.
        what: &'static str,
        /// The number found (0: a type not known to this format).
        number: u32,
    },
}

//! Why bytes cannot be read, and the checks that every message shares.

use prost::Message;

use crate::FORMAT;

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

/// Length of a `format` field on the wire: bytes that are no longer hold nothing else.
const FORMAT_FIELD_BYTES: usize = 2;
/// Wire key of field 1 as a varint.
const FORMAT_KEY: u8 = 0x08;

pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> DecodeError {
    DecodeError::Malformed { what, why: why.into() }
}

/// What an empty `oneof` means: nothing was there, or a type that a newer program writes.
pub(crate) fn unknown_type(what: &'static str, bytes: &[u8]) -> DecodeError {
    if bytes.len() <= FORMAT_FIELD_BYTES {
        malformed(what, "nothing after the format")
    } else {
        DecodeError::UnknownFormat { what, number: 0 }
    }
}

/// An enum number that this program does not know; 0 is "not set".
pub(crate) fn unknown_number(what: &'static str, number: i32) -> DecodeError {
    match number {
        0 => malformed(what, "not set"),
        number => DecodeError::UnknownFormat { what, number: number.unsigned_abs() },
    }
}

/// Checks the format *before* the rest is read: another format may use the field numbers for something else.
pub(crate) fn check_format(what: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
    let Some((&FORMAT_KEY, mut rest)) = bytes.split_first() else {
        return Err(malformed(what, "does not begin with a format"));
    };
    match prost::encoding::decode_varint(&mut rest) {
        Err(cause) => Err(malformed(what, format!("format: {cause}"))),
        Ok(0) => Err(malformed(what, "format is 0")),
        Ok(number) if number == u64::from(FORMAT) => Ok(()),
        Ok(number) => Err(DecodeError::UnknownFormat { what, number: u32::try_from(number).unwrap_or(u32::MAX) }),
    }
}

/// Reads a whole message of our format.
pub(crate) fn parse<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, DecodeError> {
    check_format(what, bytes)?;
    M::decode(bytes).map_err(|cause| malformed(what, cause.to_string()))
}

/// A field that must be there.
pub(crate) fn required<T>(what: &'static str, field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or_else(|| malformed(what, format!("{field} is missing")))
}

/// A text that must not be empty.
pub(crate) fn non_empty(what: &'static str, field: &'static str, text: String) -> Result<String, DecodeError> {
    if text.is_empty() {
        return Err(malformed(what, format!("{field} is missing")));
    }
    Ok(text)
}

/// An offset or position: never negative.
pub(crate) fn position(what: &'static str, field: &'static str, offset: i64) -> Result<i64, DecodeError> {
    if offset < 0 {
        return Err(malformed(what, format!("{field} is negative: {offset}")));
    }
    Ok(offset)
}

//! The record of an `Idempotency-Key`, as it is stored. Make it with `new`, which sets the format.

use bytes::Bytes;
use prost::Message;

use crate::error::{parse, required};
use crate::{DecodeError, FORMAT, Wire};

pub use crate::saga_v1::idempotency_record::Recorded;
pub use crate::saga_v1::{IdempotencyRecord as Record, IdempotentAnswer as Answer};

const RECORD: &str = "idempotency record";

impl Record {
    /// A record of one request.
    pub fn new(fingerprint: u64, hour: u64, recorded: Recorded) -> Self {
        Self { format: FORMAT, fingerprint, hour, recorded: Some(recorded) }
    }
}

impl Wire for Record {
    fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: Self = parse(RECORD, bytes)?;
        required(RECORD, "what is recorded", record.recorded.as_ref())?;
        Ok(record)
    }
}

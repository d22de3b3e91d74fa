//! The envelope of a record that could not be handled (`saga.quarantine`).

use bytes::Bytes;
use prost::Message;
use wire::quarantined::Header;

use crate::error::{non_empty, parse, position};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const QUARANTINED: &str = "quarantined record";

/// The topic of records that could not be handled.
pub const QUARANTINE: &str = "saga.quarantine";

/// A record set aside, byte for byte, with where it came from and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The topic it was read from.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
    /// Why it could not be handled.
    pub reason: String,
    /// Its value.
    pub payload: Bytes,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl Wire for Quarantined {
    fn encode(&self) -> Bytes {
        let headers =
            self.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect();
        wire::Quarantined {
            format: FORMAT,
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            reason: self.reason.clone(),
            payload: self.payload.clone(),
            headers,
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let record: wire::Quarantined = parse(QUARANTINED, bytes)?;
        Ok(Self {
            topic: non_empty(QUARANTINED, "topic", record.topic)?,
            partition: record.partition,
            offset: position(QUARANTINED, "offset", record.offset)?,
            reason: record.reason,
            payload: record.payload,
            headers: record.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        })
    }
}

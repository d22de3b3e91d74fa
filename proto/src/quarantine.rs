//! The envelope of a record that could not be handled (`saga.quarantine`).

use bytes::Bytes;
use prost::Message;
use saga_core::record::brief;
use wire::quarantined::Header as WireHeader;

use crate::error::{non_empty, parse, position};
use crate::{DecodeError, FORMAT, Wire, saga_v1 as wire};

const QUARANTINED: &str = "quarantined record";

/// The topic of records that could not be handled.
pub const QUARANTINE: &str = "saga.quarantine";

/// Longest value that is kept whole, bytes: with its envelope it must fit where the record itself did fit.
const MAX_PAYLOAD_BYTES: usize = 512 << 10;
/// What a header costs beside its name and value, bytes.
const HEADER_FRAME_BYTES: usize = 12;
/// Longest headers that are kept, bytes in all.
const MAX_HEADER_BYTES: usize = 16 << 10;

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
    /// Its value, or the beginning of it.
    pub payload: Bytes,
    /// How long the value was if it was cut; 0 when it is whole.
    pub cut_from_bytes: u64,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl Quarantined {
    /// The envelope of a record. A huge one is cut, so that setting it aside never fails for its size.
    pub fn new(topic: &str, partition: u32, offset: i64, reason: String, payload: &Bytes, headers: &[Header]) -> Self {
        let is_whole = payload.len() <= MAX_PAYLOAD_BYTES;
        let mut room = MAX_HEADER_BYTES;
        let fits = |(name, value): &&Header| {
            let left = room.checked_sub(name.len() + value.len() + HEADER_FRAME_BYTES);
            room = left.unwrap_or(room);
            left.is_some()
        };
        Self {
            topic: brief(topic.to_owned()),
            partition,
            offset,
            reason: brief(reason),
            payload: payload.slice(..payload.len().min(MAX_PAYLOAD_BYTES)),
            cut_from_bytes: if is_whole { 0 } else { payload.len() as u64 },
            headers: headers.iter().filter(fits).cloned().collect(),
        }
    }
}

/// Name and value of a header.
type Header = (String, Bytes);

impl Wire for Quarantined {
    fn encode(&self) -> Bytes {
        let headers =
            self.headers.iter().map(|(name, value)| WireHeader { name: name.clone(), value: value.clone() }).collect();
        wire::Quarantined {
            format: FORMAT,
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            reason: self.reason.clone(),
            payload: self.payload.clone(),
            headers,
            cut_from_bytes: self.cut_from_bytes,
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
            cut_from_bytes: record.cut_from_bytes,
            headers: record.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_record_is_cut_and_says_so() {
        let payload = Bytes::from(vec![7; MAX_PAYLOAD_BYTES + 1]);
        let long = ("long".to_owned(), Bytes::from(vec![0; MAX_HEADER_BYTES]));
        let short = ("short".to_owned(), Bytes::from_static(b"x"));
        // What a panic says may be as long as the record itself.
        let cut = Quarantined::new("t", 1, 2, "why ".repeat(1 << 20), &payload, &[long, short.clone()]);
        assert_eq!((cut.payload.len(), cut.cut_from_bytes), (MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES as u64 + 1));
        assert_eq!(cut.headers, [short]);
        assert!(cut.reason.starts_with("why why") && cut.encode().len() < MAX_PAYLOAD_BYTES + MAX_HEADER_BYTES);
        assert_eq!(Quarantined::decode(&cut.encode()), Ok(cut));
        let whole = Quarantined::new("t", 1, 2, "why".into(), &payload.slice(1..), &[]);
        assert_eq!((whole.payload.len(), whole.cut_from_bytes), (MAX_PAYLOAD_BYTES, 0));
    }
}

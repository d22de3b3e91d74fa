//! What is stored for a key.

use bytes::Bytes;
use proto::{DecodeError, Wire};
use saga_core::ids::SagaId;

use super::key::RequestKey;
use crate::answer::Answer;

/// Most records of one service; some 300 bytes each in Redis.
pub const MAX_RECORDS: u64 = 1_000_000;

/// Records are kept for this many hours after the one in which they were made.
pub(crate) const KEPT_HOURS: u64 = 24;

/// What a key has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The answer.
    Answer(Answer),
    /// A saga, whose end is the answer.
    Saga(SagaId),
}

/// The record of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which request it answers.
    pub fingerprint: u64,
    /// The bucket.
    pub hour: u64,
    /// What it has led to.
    pub recorded: Recorded,
}

impl Record {
    /// The record of this request.
    pub fn new(key: &RequestKey, recorded: Recorded) -> Self {
        Self { fingerprint: key.fingerprint, hour: key.hour, recorded }
    }

    /// Whether its day is over.
    pub(crate) fn has_expired(&self, now_hour: u64) -> bool {
        self.hour.saturating_add(KEPT_HOURS) < now_hour
    }

    pub(crate) fn encode(&self) -> Bytes {
        let recorded = match &self.recorded {
            Recorded::Answer(answer) => proto::idempotency::Recorded::Answer(proto::idempotency::Answer {
                status: u32::from(answer.status),
                content_type: answer.content_type.clone(),
                body: answer.body.clone(),
            }),
            Recorded::Saga(saga) => proto::idempotency::Recorded::Saga(Bytes::copy_from_slice(saga.0.as_bytes())),
        };
        proto::idempotency::Record::new(self.fingerprint, self.hour, recorded).encode()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |why: &str| DecodeError::Malformed { what: "idempotency record", why: why.to_owned() };
        let record = proto::idempotency::Record::decode(bytes)?;
        let recorded = match record.recorded {
            Some(proto::idempotency::Recorded::Answer(answer)) => Recorded::Answer(Answer {
                status: u16::try_from(answer.status).map_err(|_| malformed("the status is too large"))?,
                content_type: answer.content_type,
                body: answer.body,
            }),
            Some(proto::idempotency::Recorded::Saga(saga)) => {
                Recorded::Saga(SagaId(saga[..].try_into().map(uuid::Uuid::from_bytes).map_err(|_| malformed("saga"))?))
            }
            None => return Err(malformed("nothing is recorded")),
        };
        Ok(Self { fingerprint: record.fingerprint, hour: record.hour, recorded })
    }
}

//! The simulated log: topics of as many partitions as there are lanes. What is appended stays, in order, with dense
//! offsets and a log-append time that never goes back.

use std::fmt;

use bytes::Bytes;
use event_stream::Record;
use saga_core::ids::Lane;

use crate::plans::PARTICIPANTS;

/// A topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// `saga.inbox`.
    Inbox,
    /// The commands of a participant.
    Commands(usize),
    /// `order.results`.
    Results,
}

impl Topic {
    /// The topic with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "saga.inbox" => Some(Self::Inbox),
            "order.results" => Some(Self::Results),
            other => {
                let participant = other.strip_suffix(".commands")?;
                PARTICIPANTS.iter().position(|name| *name == participant).map(Self::Commands)
            }
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Inbox => 0,
            Self::Results => 1,
            Self::Commands(participant) => 2 + participant,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox => out.write_str("saga.inbox"),
            Self::Results => out.write_str("order.results"),
            Self::Commands(participant) => write!(out, "{}.commands", PARTICIPANTS[*participant]),
        }
    }
}

/// All topics.
#[derive(Clone, Debug)]
pub struct Log {
    lanes: usize,
    partitions: Vec<Vec<Record>>,
}

impl Log {
    /// Empty topics.
    pub fn new(lanes: usize) -> Self {
        Self { lanes, partitions: vec![Vec::new(); (2 + PARTICIPANTS.len()) * lanes] }
    }

    /// Appends a record and answers its offset.
    pub fn append(&mut self, topic: Topic, lane: Lane, payload: Bytes, now_ms: i64) -> i64 {
        let partition = self.partition_mut(topic, lane);
        let offset = partition.len() as i64;
        let timestamp_ms = partition.last().map_or(now_ms, |last| last.timestamp_ms.max(now_ms));
        partition.push(Record { offset, timestamp_ms, payload, headers: Vec::new() });
        offset
    }

    /// Up to `limit` records from an offset on.
    pub fn read(&self, topic: Topic, lane: Lane, from: i64, limit: usize) -> &[Record] {
        let partition = self.partition(topic, lane);
        let from = usize::try_from(from).unwrap_or(0).min(partition.len());
        &partition[from..partition.len().min(from + limit)]
    }

    /// The whole partition.
    pub fn partition(&self, topic: Topic, lane: Lane) -> &[Record] {
        &self.partitions[topic.index() * self.lanes + lane.0 as usize]
    }

    /// Offset that the next record will get.
    pub fn end(&self, topic: Topic, lane: Lane) -> i64 {
        self.partition(topic, lane).len() as i64
    }

    fn partition_mut(&mut self, topic: Topic, lane: Lane) -> &mut Vec<Record> {
        &mut self.partitions[topic.index() * self.lanes + lane.0 as usize]
    }
}

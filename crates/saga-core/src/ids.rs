//! The names of things: sagas, lanes, starters, ordinals, commands.

use std::fmt;

use uuid::Uuid;

/// One run of a definition: a UUIDv7, chosen once by the starter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(pub Uuid);

impl fmt::Display for SagaId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(out)
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The partition number a saga lives in: the same number on every topic, for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u32);

impl fmt::Display for Lane {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A service that starts sagas: its name and the random id of the store it counts in.
///
/// The store id keeps the starts of a wiped or restored store from being mistaken for old ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Starter {
    /// The service's name; its results travel on `<name>.results`.
    pub name: String,
    /// `store:id` of the starter's store.
    pub store: Uuid,
}

impl fmt::Display for Starter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.name, self.store.simple())
    }
}

/// (starter, lane, sequence): which start this is. Sequences are dense per starter and lane, from 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal {
    /// Who counted.
    pub starter: Starter,
    /// Where the saga lives.
    pub lane: Lane,
    /// The count, from 0, without gaps.
    pub sequence: u64,
}

/// The two things a step can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Do the work.
    Action,
    /// Undo what the action did, or keep it from ever happening.
    Undo,
}

/// What a command is for. It names the intent, never the attempt: a repeated command has the same id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId {
    /// The saga that asks.
    pub saga: SagaId,
    /// The step's name in the saga's definition.
    pub step: String,
    /// Action or undo.
    pub direction: Direction,
}

/// W3C trace context as text; empty strings when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    pub tracestate: String,
}

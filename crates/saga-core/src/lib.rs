//! Decides what a saga does next: definitions, states and the one `step` function, as pure and total functions.
//!
//! Deliberately not in it: async, clocks, randomness, Kafka, Redis, protobuf. Times and ids arrive as arguments,
//! maps are ordered, and effects are returned, never performed.

pub mod definition;
pub mod effect;
pub mod ended;
pub mod ids;
pub mod invariants;
pub mod lane;
pub mod participant;
pub mod record;
pub mod saga;
pub mod starter;
mod step;

pub use step::{CODE_INVALID, CODE_OPERATOR, CODE_TIMED_OUT};

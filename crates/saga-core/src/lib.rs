//! Decides what a saga does next: definitions, states and the one `step` function, as pure and total functions.
//!
//! Deliberately not in it: async, clocks, randomness, Kafka, Redis, protobuf. Times and ids arrive as arguments,
//! maps are ordered, and effects are returned, never performed.

pub mod ended;
pub mod ids;
pub mod participant;
pub mod record;
pub mod starter;

//! What REST routes over a store share: truthful answers, single objects changed by a rule, and `Idempotency-Key`.
//!
//! Deliberately not in it: how sagas run (a record only names one), Kafka, any particular business, and how a port is served (`service-kit`).

mod answer;
mod fill;
pub mod idempotency;
pub mod object;
pub mod problems;
#[cfg(test)]
mod testing;

pub use answer::Answer;
pub use fill::fill;

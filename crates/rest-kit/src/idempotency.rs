//! Gives a repeated request its first answer, recorded in the EXEC that has the effect.
//!
//! A service puts [`IdempotencyKeys::layer`] over its POST routes. A request with the header
//!
//! 1. is answered from its record, if there is one; else
//! 2. runs its transaction as [`Keyed`], which looks again inside the transaction and writes the record there, so that
//!    of two requests at the same time, on two replicas even, one has the effect and both have its answer.
//!
//! A checkout runs in no single transaction: its record names the saga, whose end is the answer. Filling a store
//! takes many: the record comes with the last row, and a request that broke off before writes all of them again.
//!
//! Records are kept for a day, in buckets of an hour, and then deleted by the service; they carry no TTL, as nothing
//! does that correctness depends on. There are at most [`MAX_RECORDS`], then requests with a key are shed with 429.
//!
//! Callers are not authenticated, so a key counts for one method and path, and whoever knows it gets the answer.

mod key;
mod layer;
mod record;
mod sweep;
mod transaction;

pub use key::{Begun, RequestKey};
pub use layer::IdempotencyKeys;
pub use record::{MAX_RECORDS, Record, Recorded};
pub(crate) use transaction::of_record;
pub use transaction::{Keyed, Outcome, recorded};

//! Runs many small optimistic transactions as few Redis EXECs: the only crate that names the Redis client.
//!
//! A service makes one [`Store`] per Redis. Its Kafka lane loops take a [`Queue`] each, its REST handlers share one,
//! and all of them hand in a [`Transaction`]: the keys to read, and a function from their values to what is written and
//! an outcome. One task, the committer, alone owns a private connection and runs what has arrived as one transaction:
//!
//! ```text
//! WATCH keys… ; MGET keys…                       one round trip
//! apply the functions in order over an overlay   (plan.rs, pure)
//! MULTI ; MSET changed… ; UNLINK gone… ; EXEC    one round trip
//! ```
//!
//! What a caller may rely on:
//!
//! - `Ok(outcome)`: the writes are in the store, exactly once, and the outcome was computed from the values before them.
//! - Every error but [`CommitError::OutcomeUnknown`]: nothing was written and nothing will be.
//! - Transactions of one queue take effect in the order in which they were handed in.
//!
//! Deliberately not in it: which keys mean what.

mod args;
mod bulk;
mod check;
mod committer;
mod connection;
mod error;
mod events;
mod memory;
mod offline;
mod password;
mod plan;
mod queue;
mod reader;
mod spans;
mod store;
mod transaction;
mod trust;
mod turn;
mod unknown;
mod watch;

pub use args::{RedisArgs, Settings};
pub use error::{CheckError, CommitError, ConnectError};
pub use memory::Memory;
pub use offline::{Batch, Offline};
pub use password::Password;
pub use queue::Queue;
pub use store::{STORE_ID_KEY, Store};
pub use transaction::{Transaction, Unread, View};

//! What a service needs to take part in sagas: it writes its rule as a pure function ([`Business`]), this crate asks
//! the floor and the step record first, commits effect, record and positions in one EXEC, and answers afterwards.
//!
//! Deliberately not in it: any particular business.

mod business;
mod events;
mod hop;
pub mod host;
mod plan;
mod progress;
mod runner;
mod values;

pub use crate::business::{Business, Decision, Fault, UndoOutcome};
pub use crate::plan::{
    Answer, Chunk, Entry, Executed, MAX_CHUNK_RECORDS, Note, Verdict, Work, execute, lane_key, repeat,
};
pub use crate::progress::{Progress, Task, repeat_keys};
pub use crate::runner::Participant;
pub use crate::values::{Values, read, unreadable};

//! The pure half of a starter: the lane value that counts sequences and remembers which sagas are pending.

use crate::ended::EndedSequences;
use crate::record::Start;

/// What a starter stores per lane, in the key `starter:<lane>`.
///
/// The pending sagas are the sequences below `next_sequence` that are not in `ended`; each has a key
/// `pending:<lane>:<sequence>` with its whole `Start` (see [`PendingStart`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StarterLane {
    /// The sequence that the next start gets.
    pub next_sequence: u64,
    /// Next offset of the results topic.
    pub results_next: i64,
    /// Sagas of this lane whose result has been applied.
    pub ended: EndedSequences,
}

impl StarterLane {
    /// Takes the next sequence.
    pub fn allocate(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// The sequences that have been started and have not ended, ascending.
    pub fn pending(&self) -> impl Iterator<Item = u64> + '_ {
        self.ended.open_below(self.next_sequence)
    }
}

/// What a starter stores per pending saga, in the key `pending:<lane>:<sequence>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingStart {
    /// The whole start, so that it can be sent again.
    pub start: Start,
    /// The starter's own name for what the saga is about (an order id): the result does not carry it.
    pub subject: String,
}

#[cfg(test)]
mod tests;

//! Where one lane of a participant stands: what has been fetched, what is to be repeated or executed next, which answers
//! are acknowledged. Pure: the runner brings records and outcomes and carries the tasks out, and so does the simulation.

use std::collections::VecDeque;

use event_stream::HaltReason;
use saga_core::ids::Lane;
use saga_core::participant::ParticipantLane;

use crate::business::Fault;
use crate::plan::{Chunk, Entry, Executed, MAX_CHUNK_INPUT_BYTES, MAX_CHUNK_RECORDS, Work, repeat};
use crate::values::Values;

/// One lane from load to revocation or fault. `T` is what the runner carries from a record to its answer.
#[derive(Debug)]
pub struct Progress<T> {
    lane: Lane,
    /// As loaded: floors for the repetition.
    loaded: ParticipantLane,
    /// Next offset that will be fetched.
    fetched: i64,
    /// Next offset to execute.
    next: i64,
    /// Everything below is acknowledged.
    replied: i64,
    /// What the store knows of `replied`.
    stored_replied: i64,
    waiting: VecDeque<(Entry, T)>,
    /// A record that this program cannot read comes after those that wait.
    halt: Option<HaltReason>,
    /// Records per transaction: halved when one panics, doubled when one has passed.
    chunk_limit: usize,
    /// The record that panics although it is alone, and how often it has.
    panics_alone: Option<(i64, u32)>,
    /// Step records of ended sagas are left that no chunk has deleted.
    has_to_forget: bool,
}

/// What is to be done with the oldest records that wait.
#[derive(Debug)]
pub enum Task<T> {
    /// They lie below *next*: answer them from their step records alone.
    Repeat {
        /// The records.
        entries: Vec<Entry>,
        /// One for each.
        carried: Vec<T>,
    },
    /// Execute them in one transaction.
    Execute {
        /// The records, and where the lane must stand for them.
        chunk: Chunk,
        /// One for each.
        carried: Vec<T>,
    },
}

impl<T> Progress<T> {
    /// Goes on from what the store knows; a lane of which it knows nothing begins at `fetched`. Fetching begins at
    /// *replied*, so that answers which may have been lost are given again.
    pub fn new(lane: Lane, stored: Option<ParticipantLane>, fetched: i64) -> Self {
        let loaded =
            stored.unwrap_or_else(|| ParticipantLane { next: fetched, replied: fetched, ..Default::default() });
        Self {
            lane,
            fetched,
            next: loaded.next,
            replied: loaded.replied,
            stored_replied: loaded.replied,
            waiting: VecDeque::new(),
            halt: None,
            chunk_limit: MAX_CHUNK_RECORDS,
            panics_alone: None,
            has_to_forget: loaded.has_to_forget(),
            loaded,
        }
    }

    /// The lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Next offset to execute.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Next offset that will be fetched.
    pub fn fetched(&self) -> i64 {
        self.fetched
    }

    /// Everything below is acknowledged.
    pub fn replied(&self) -> i64 {
        self.replied
    }

    /// Puts a record behind those that wait. What was fetched before is passed over; a gap halts the lane.
    pub fn take_in(&mut self, offset: i64, payload: &[u8], carry: impl FnOnce(&Entry) -> T) -> Result<(), HaltReason> {
        if offset > self.fetched {
            return Err(HaltReason::Corrupt(format!("the log goes on at {offset} instead of {}", self.fetched)));
        }
        if offset < self.fetched || self.halt.is_some() {
            return Ok(());
        }
        self.fetched = offset + 1;
        match Entry::decode_guarded(self.lane, offset, payload) {
            Ok(entry) => {
                let carried = carry(&entry);
                self.waiting.push_back((entry, carried));
            }
            Err(reason) => self.halt = Some(reason),
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Why the lane halts, once nothing waits any more.
    pub fn take_halt(&mut self) -> Option<HaltReason> {
        self.is_idle().then(|| self.halt.take()).flatten()
    }

    /// Takes the oldest records that can be handled together.
    pub fn next_task(&mut self) -> Option<Task<T>> {
        let (first, _) = self.waiting.front()?;
        if first.offset < self.next {
            let limited = self.waiting.iter().take(MAX_CHUNK_RECORDS);
            let count = limited.take_while(|(entry, _)| entry.offset < self.next).count();
            let (entries, carried) = self.waiting.drain(..count).unzip();
            return Some(Task::Repeat { entries, carried });
        }
        let mut input_bytes = 0;
        let fits = |entry: &Entry| {
            input_bytes += entry.input_bytes();
            input_bytes <= MAX_CHUNK_INPUT_BYTES
        };
        let limited = self.waiting.iter().take(self.chunk_limit).map(|(entry, _)| entry);
        let count = limited.map(fits).take_while(|fits| *fits).count().max(1);
        let (entries, carried): (Vec<_>, Vec<_>) = self.waiting.drain(..count).unzip();
        let chunk = Chunk { lane: self.lane, first: self.next, entries, replied: self.replied };
        Some(Task::Execute { chunk, carried })
    }

    /// Answers records below *next* once more; `values` holds their step records (see [`repeat_keys`]).
    pub fn repeat(&self, entries: &[Entry], values: &mut dyn Values) -> Result<Executed, Fault> {
        repeat(&self.loaded, entries, values)
    }

    /// The EXEC of a chunk is known to have happened. Its answers may be sent from now on, and not before.
    pub fn executed(&mut self, chunk: &Chunk, executed: &Executed) {
        self.next = executed.next;
        self.stored_replied = self.stored_replied.max(chunk.replied);
        self.has_to_forget = executed.has_to_forget;
        self.chunk_limit = (self.chunk_limit * 2).min(MAX_CHUNK_RECORDS);
    }

    /// The chunk panics: it is to be tried again, in halves as long as it holds more than one record. Says how often
    /// a record that is alone in its chunk has panicked by now; 0 if it is not alone.
    pub fn panicked(&mut self, chunk: Chunk, carried: Vec<T>) -> u32 {
        let tries = match chunk.entries.as_slice() {
            [entry] => {
                let before =
                    self.panics_alone.filter(|(offset, _)| *offset == entry.offset).map_or(0, |(_, tries)| tries);
                self.panics_alone = Some((entry.offset, before.saturating_add(1)));
                before.saturating_add(1)
            }
            _ => 0,
        };
        self.chunk_limit = (chunk.entries.len() / 2).max(1);
        let behind = std::mem::take(&mut self.waiting);
        self.waiting = chunk.entries.into_iter().zip(carried).chain(behind).collect();
        tries
    }

    /// The record that waits longest, with what is carried for it.
    pub fn first(&self) -> Option<(&Entry, &T)> {
        self.waiting.front().map(|(entry, carried)| (entry, carried))
    }

    /// The record that waits longest lies in the quarantine: it is passed over.
    pub fn set_aside(&mut self, why: String) {
        if let Some((entry, _)) = self.waiting.front_mut() {
            entry.work = Work::Poison { why };
        }
    }

    /// All answers to commands below `end` are acknowledged.
    pub fn acknowledged(&mut self, end: i64) {
        self.replied = self.replied.max(end);
    }

    /// The chunk without records that tells the store of `replied` and deletes what may be forgotten; none if there is
    /// nothing of either.
    pub fn chunk_without_records(&self) -> Option<Chunk> {
        (self.replied > self.stored_replied || self.has_to_forget).then(|| Chunk {
            lane: self.lane,
            first: self.next,
            entries: Vec::new(),
            replied: self.replied,
        })
    }
}

/// The keys of the step records that [`Progress::repeat`] reads.
pub fn repeat_keys(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| match &entry.work {
            Work::Command { record_key, .. } => Some(record_key.clone()),
            Work::Floor(_) | Work::Unusable { .. } | Work::Poison { .. } => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::Wire as _;
    use saga_core::ended::EndedSequences;
    use saga_core::ids::{CommandId, Direction, Ordinal, SagaId, Starter, TraceContext};
    use saga_core::record::{Command, CommandRecord};
    use uuid::Uuid;

    use super::*;

    fn executed(next: i64) -> Executed {
        Executed { next, ..Executed::default() }
    }

    /// A lane that has fetched garbage at these offsets: records without an answer are enough here.
    fn lane(stored: Option<ParticipantLane>, fetched: i64, count: i64) -> Progress<()> {
        let mut progress = Progress::new(Lane(3), stored, fetched);
        (fetched..fetched + count).for_each(|offset| progress.take_in(offset, b"\xff", |_| ()).unwrap());
        progress
    }

    fn offsets(entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| entry.offset).collect()
    }

    #[test]
    fn what_is_executed_is_repeated_and_the_rest_executed() {
        let stored = ParticipantLane { next: 7, replied: 5, ..ParticipantLane::default() };
        let mut progress = lane(Some(stored), 5, 4);
        let Some(Task::Repeat { entries, .. }) = progress.next_task() else { panic!("not repeated") };
        assert_eq!(offsets(&entries), [5, 6]);
        let Some(Task::Execute { chunk, .. }) = progress.next_task() else { panic!("not executed") };
        assert_eq!((chunk.first, chunk.replied, offsets(&chunk.entries)), (7, 5, vec![7, 8]));
        assert!(progress.next_task().is_none());
    }

    /// What a WATCH costs grows with the square of the keys, and the input names them.
    #[test]
    fn long_inputs_do_not_share_a_transaction() {
        let command = |offset: i64, input_bytes: usize| {
            let starter = Starter { name: "order".to_owned(), store: Uuid::nil() };
            let command = Command {
                id: CommandId { saga: SagaId(Uuid::nil()), step: "s".to_owned(), direction: Direction::Action },
                ordinal: Ordinal { starter, lane: Lane(3), sequence: offset.unsigned_abs() },
                operation: "reserve".to_owned(),
                input: vec![7; input_bytes].into(),
                uses: BTreeMap::new(),
                may_refuse: true,
                trace: TraceContext::default(),
            };
            CommandRecord::Command(command).encode()
        };
        let mut progress: Progress<()> = Progress::new(Lane(3), None, 0);
        let (small, half) = (MAX_CHUNK_INPUT_BYTES / 64, MAX_CHUNK_INPUT_BYTES / 2);
        let inputs = std::iter::repeat_n(small, 64).chain([half, half, 1, 3 * half, 1]);
        for (offset, input_bytes) in (0..).zip(inputs) {
            progress.take_in(offset, &command(offset, input_bytes), |_| ()).unwrap();
        }
        let mut lengths = Vec::new();
        while let Some(Task::Execute { chunk, .. }) = progress.next_task() {
            lengths.push(chunk.entries.len());
            progress.executed(&chunk, &executed(chunk.first + chunk.entries.len() as i64));
        }
        assert_eq!(lengths, [64, 2, 1, 1, 1], "a window of short ones stays one chunk, a long one goes alone");
    }

    #[test]
    fn a_record_twice_is_taken_once_and_a_gap_halts() {
        let mut progress = lane(None, 0, 2);
        progress.take_in(1, b"\xff", |_| ()).unwrap();
        assert_eq!(progress.fetched(), 2);
        assert!(matches!(progress.take_in(3, b"\xff", |_| ()), Err(HaltReason::Corrupt(_))));
    }

    #[test]
    fn a_chunk_that_panics_comes_again_in_halves() {
        let mut progress = lane(None, 0, 5);
        let Some(Task::Execute { chunk, carried }) = progress.next_task() else { panic!("not executed") };
        progress.panicked(chunk, carried);
        for expected in [vec![0, 1], vec![2, 3, 4]] {
            let Some(Task::Execute { chunk, .. }) = progress.next_task() else { panic!("not executed") };
            assert_eq!(offsets(&chunk.entries), expected);
            progress.executed(&chunk, &executed(chunk.first + expected.len() as i64));
        }
    }

    #[test]
    fn a_record_that_panics_alone_is_counted_and_passed_over() {
        let mut progress = lane(None, 0, 3);
        let panic = |progress: &mut Progress<()>| {
            let Some(Task::Execute { chunk, carried }) = progress.next_task() else { panic!("not executed") };
            progress.panicked(chunk, carried)
        };
        assert_eq!(panic(&mut progress), 0, "three records");
        assert_eq!([panic(&mut progress), panic(&mut progress), panic(&mut progress)], [1, 2, 3]);
        assert_eq!(progress.first().map(|(entry, ())| entry.offset), Some(0));
        progress.set_aside("boom".to_owned());
        let Some(Task::Execute { chunk, .. }) = progress.next_task() else { panic!("not executed") };
        assert_eq!(chunk.entries, [Entry { offset: 0, work: Work::Poison { why: "boom".to_owned() } }]);
        progress.executed(&chunk, &executed(1));
        // The count is that record's.
        assert_eq!(panic(&mut progress), 0, "two records again");
        assert_eq!(panic(&mut progress), 1);
    }

    #[test]
    fn replied_is_written_once() {
        let mut progress = lane(None, 0, 1);
        let Some(Task::Execute { chunk, .. }) = progress.next_task() else { panic!("not executed") };
        progress.executed(&chunk, &executed(1));
        assert!(progress.chunk_without_records().is_none());
        progress.acknowledged(1);
        let chunk = progress.chunk_without_records().unwrap();
        assert_eq!((chunk.first, chunk.replied, chunk.entries.len()), (1, 1, 0));
        progress.executed(&chunk, &executed(1));
        assert!(progress.chunk_without_records().is_none());
    }

    #[test]
    fn a_silent_lane_forgets_on() {
        let starter = Starter { name: "order".to_owned(), store: Uuid::nil() };
        let mut stored = ParticipantLane { next: 4, replied: 4, ..ParticipantLane::default() };
        stored.floors.insert(starter, EndedSequences::new(9, []));
        let mut progress = lane(Some(stored), 4, 0);
        let chunk = progress.chunk_without_records().unwrap();
        assert_eq!((chunk.first, chunk.entries.len()), (4, 0));
        progress.executed(&chunk, &Executed { has_to_forget: true, ..executed(4) });
        assert!(progress.chunk_without_records().is_some());
        progress.executed(&chunk, &executed(4));
        assert!(progress.chunk_without_records().is_none());
    }
}

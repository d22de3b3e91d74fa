//! The spans of one transaction: one for each recorded trace that it works for.

use telemetry::context::{self, ExecSpan, RedisServer, TransactionSpan};

use crate::error::CommitError;
use crate::transaction::{Entry, Transaction};

/// Most spans of one transaction: as many sagas as a window or a lane's chunk holds.
const MAX_SPANS: usize = 64;

/// What one transaction shows in the traces of those who wait for it. Empty, and for nothing, when no trace is
/// recorded.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    parts: Vec<TransactionSpan>,
    /// EXECs that it was part of.
    execs: u32,
}

impl Spans {
    /// It is handed in: for the traces that it names, else for the one that is current.
    pub(crate) fn begin(transaction: &impl Transaction, server: &RedisServer) -> Self {
        if !context::is_exporting() {
            return Self::default();
        }
        let (mut parts, mut names_any) = (Vec::new(), false);
        transaction.traces(&mut |trace| {
            names_any = true;
            if parts.len() < MAX_SPANS {
                parts.extend(TransactionSpan::begin(server, trace));
            }
        });
        if !names_any {
            parts.extend(TransactionSpan::begin(server, &context::current()));
        }
        Self { parts, execs: 0 }
    }

    pub(crate) fn done(self) {
        self.parts.into_iter().for_each(|part| part.done(self.execs));
    }

    pub(crate) fn failed(self, error: &CommitError) {
        self.parts.into_iter().for_each(|part| part.failed(self.execs, error.word()));
    }
}

/// An EXEC with these transactions is about to be sent.
pub(crate) fn exec(server: &RedisServer, commands: usize, batch: &mut [Entry]) -> ExecSpan {
    batch.iter_mut().for_each(|entry| entry.spans.execs += 1);
    let parts = batch.iter().flat_map(|entry| &entry.spans.parts);
    ExecSpan::begin(server, commands, batch.len(), parts)
}

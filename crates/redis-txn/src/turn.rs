//! Taking turns when replicas fight over the same keys: advice for speed, never for safety.

use std::time::{Duration, Instant};

use redis::Value;
use telemetry::metrics::REDIS_TURNS;

use crate::connection::{Failure, Private, first_error, pipeline, string};

/// How long a turn lasts if its owner does not end it: several batches' worth.
const TURN_MS: u64 = 50;

/// How long one waits for somebody else's turn to end before going on without: a little more than a turn.
const TURN_PATIENCE: Duration = Duration::from_millis(60);

/// Pause between two attempts to get the turn, shortest and longest: a part of a batch, so that a turn that has ended is
/// soon somebody else's.
const TURN_PAUSE_US: std::ops::Range<u64> = 500..1_500;

/// So many batches go on taking turns: the fight is seldom over with one of them.
const TURNS_IN_A_ROW: u32 = 16;

/// The committer's part in it.
pub(crate) struct Turn {
    /// Nil EXECs in a row after which a turn is taken; 0 for never.
    after_nils: u32,
    key: Option<String>,
    left: u32,
    ends_at: Option<Instant>,
}

impl Turn {
    pub(crate) fn new(after_nils: u32) -> Self {
        Self { after_nils, key: None, left: 0, ends_at: None }
    }

    /// A nil EXEC, the so-manieth in a row.
    pub(crate) fn conflicted(&mut self, nils_in_a_row: u32) {
        if self.after_nils > 0 && nils_in_a_row >= self.after_nils {
            self.left = TURNS_IN_A_ROW;
        }
    }

    /// An EXEC happened; it has ended the turn, if there was one.
    pub(crate) fn committed(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.ends_at = None;
    }

    /// Whether a turn should be taken before the next WATCH.
    pub(crate) fn is_due(&self) -> bool {
        self.left > 0 && self.held().is_none()
    }

    /// The key to unlink in the EXEC: only while the turn is ours, a later one belongs to somebody else.
    pub(crate) fn held(&self) -> Option<&str> {
        self.ends_at.filter(|end| Instant::now() < *end).and(self.key.as_deref())
    }

    /// Asks for the turn until it is had or patience is at its end.
    pub(crate) async fn take(&mut self, connection: &mut Private, process: &str) -> Result<(), Failure> {
        let give_up = Instant::now() + TURN_PATIENCE;
        let key = match &mut self.key {
            Some(key) => key,
            none => none.insert(turn_key(connection).await?),
        };
        loop {
            let ends_at = Instant::now() + Duration::from_millis(TURN_MS);
            let mut commands = pipeline();
            commands.cmd("SET").arg(&*key).arg(process).arg("NX").arg("PX").arg(TURN_MS);
            let replies = connection.ask(&commands).await?;
            first_error(&replies)?;
            if matches!(replies.first(), Some(Value::Okay)) {
                self.ends_at = Some(ends_at);
                REDIS_TURNS.add(1, &[("outcome", "got")]);
                return Ok(());
            }
            if Instant::now() >= give_up {
                REDIS_TURNS.add(1, &[("outcome", "passed")]);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_micros(rand::random_range(TURN_PAUSE_US))).await;
        }
    }
}

/// All processes of a store must ask for the same key, so it carries the store's id.
async fn turn_key(connection: &mut Private) -> Result<String, Failure> {
    let mut commands = pipeline();
    commands.cmd("GET").arg(crate::store::STORE_ID_KEY);
    let mut replies = connection.ask(&commands).await?;
    first_error(&replies)?;
    let id = replies.pop().and_then(string).unwrap_or_default();
    Ok(format!("turn:{}", String::from_utf8_lossy(&id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_due_after_so_many_conflicts_or_never() {
        for (after_nils, due) in [(0, [false; 4]), (1, [true; 4]), (2, [false, true, true, true])] {
            let mut turn = Turn::new(after_nils);
            let seen = [1, 2, 3, 4].map(|nils| {
                turn.conflicted(nils);
                turn.is_due()
            });
            assert_eq!(seen, due, "after {after_nils}");
        }
    }
}

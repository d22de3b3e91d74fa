//! Results that make the code panic: each is tried alone, and after the last try it is set aside.
//!
//! The saga of such a result stays pending and its subject as it is, until the result comes again out of the quarantine.

use event_stream::{HaltReason, LaneFault, Record};
use redis_txn::CommitError;
use saga_core::ids::Lane;
use service_kit::panics::MAX_TRIES;

use crate::business::Business;
use crate::events;
use crate::results::ResultsRunner;

/// Why a batch of results was not applied.
pub(crate) enum Failure {
    /// One of its records makes the code panic; nothing was written.
    Panicked(String),
    /// The run of the lane ends.
    Fault(LaneFault),
}

impl From<LaneFault> for Failure {
    fn from(fault: LaneFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Panicked(why) => Self::Panicked(why),
            CommitError::WrongType(key) => {
                Self::Fault(HaltReason::Corrupt(format!("key {key} holds another type of value")).into())
            }
            error => Self::Fault(LaneFault::Restart(error.to_string())),
        }
    }
}

impl From<Failure> for LaneFault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(why) => Self::Restart(format!("panicked: {why}")),
            Failure::Fault(fault) => fault,
        }
    }
}

impl<B: Business> ResultsRunner<B> {
    /// Applies records that begin at `position`, each in an EXEC of its own, because one of them makes the code panic;
    /// answers the position after them.
    pub(crate) async fn apply_each(&self, lane: Lane, mut position: i64, records: &[Record]) -> Result<i64, LaneFault> {
        for record in records {
            let mut tries = 0;
            position = loop {
                match self.apply_chunk(lane, position, std::slice::from_ref(record)).await {
                    Ok(next) => break next,
                    Err(Failure::Fault(fault)) => return Err(fault),
                    Err(Failure::Panicked(why)) => {
                        tries += 1;
                        if tries >= MAX_TRIES {
                            break self.pass_over(lane, position, record, &why).await?;
                        }
                    }
                }
            };
        }
        Ok(position)
    }

    async fn pass_over(&self, lane: Lane, position: i64, record: &Record, why: &str) -> Result<i64, LaneFault> {
        events::result_poison(lane, record.offset, why);
        let reason = format!("made the program panic {MAX_TRIES} times: {why}");
        self.send_aside(vec![self.quarantined(lane, record, reason)]).await?;
        self.move_to(lane, position, record.offset + 1).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_type_halts_the_lane_and_a_store_that_is_away_does_not() {
        let halts = Failure::from(CommitError::WrongType("starter:3".to_owned()));
        assert!(
            matches!(&halts, Failure::Fault(LaneFault::Halt(HaltReason::Corrupt(why))) if why.contains("starter:3"))
        );
        let waits = Failure::from(CommitError::Unavailable("away".to_owned()));
        assert!(matches!(waits, Failure::Fault(LaneFault::Restart(_))));
    }
}

//! Answers of a REST route whose transaction has no outcome: the same in every participating service.

use redis_txn::CommitError;
use service_kit::problem::Problem;

/// When a client that was turned away should come again, seconds.
const RETRY_AFTER_S: u32 = 1;

/// A transaction has no outcome.
pub fn not_committed(error: &CommitError) -> Problem {
    match error {
        CommitError::OutcomeUnknown => {
            let detail = "outcome unknown: the store went away in the middle, it may or may not have happened";
            Problem::new(503, "outcome-unknown", detail)
        }
        CommitError::Full | CommitError::Conflict { .. } => {
            let detail = format!("{error}; nothing was changed, try again");
            Problem::new(429, "busy", detail).with_retry_after_s(RETRY_AFTER_S)
        }
        CommitError::Unavailable(_) | CommitError::Closed => {
            Problem::new(503, "store-unavailable", format!("{error}; nothing was changed"))
                .with_retry_after_s(RETRY_AFTER_S)
        }
        CommitError::Panicked(_) | CommitError::WrongType(_) => {
            tracing::error!(%error, "transaction failed");
            Problem::new(500, "internal", "the request failed, nothing was changed")
        }
    }
}

/// A bulk write broke off.
pub fn not_written(error: &CommitError) -> Problem {
    tracing::warn!(%error, "bulk write broke off");
    Problem::new(503, "outcome-unknown", format!("{error}; some of the rows may be written"))
}

/// A stored value cannot be read.
pub fn unreadable(why: &str) -> Problem {
    tracing::error!(why, "stored value cannot be read");
    Problem::new(500, "internal", "what is stored cannot be read, nothing was changed")
}

/// A sum would be above 2^53 − 1.
pub fn too_large(what: &str) -> Problem {
    Problem::new(422, "amount-too-large", format!("{what} would be above 2^53 - 1; nothing was changed"))
}

/// `batch_init` was switched off.
pub fn batch_init_off() -> Problem {
    Problem::new(403, "batch-init-off", "batch_init is switched off (BATCH_INIT=on switches it on)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_nothing_says_so() {
        let status = |error: CommitError| {
            let problem = not_committed(&error);
            (problem.status, problem.detail.contains("nothing was changed"))
        };
        assert_eq!(status(CommitError::OutcomeUnknown), (503, false));
        assert_eq!(status(CommitError::Unavailable("refused".to_owned())), (503, true));
        assert_eq!(status(CommitError::Full), (429, true));
        assert_eq!(status(CommitError::Conflict { attempts: 9 }), (429, true));
        assert_eq!(status(CommitError::Panicked("oh".to_owned())), (500, true));
    }
}

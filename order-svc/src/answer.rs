//! What clients are told: 2xx is committed, 4xx will never commit, undecided says so.

use rest_kit::idempotency::Begun;
use rest_kit::{Answer, problems};
use saga_core::ids::SagaId;
use saga_core::record::UndoCause;
use service_kit::params::not_found;
use service_kit::problem::Problem;
use starter::{Shed, StartError};

use crate::decide::{EditRefusal, MAX_LINES};
use crate::order::Verdict;

/// What a shed client may wait before it tries again: the queues turn over many times in a second.
const RETRY_AFTER_S: u32 = 1;

/// The order is paid.
pub const PAID: &str = "the order is paid, its stock and credit are taken\n";

/// There is no such order.
pub fn no_order(order_id: &str) -> Problem {
    not_found("order", order_id)
}

/// The saga has ended.
pub fn ended(saga: SagaId, verdict: &Verdict) -> Result<Answer, Problem> {
    match verdict {
        Verdict::Paid => Ok(Answer::text(PAID)),
        Verdict::Undone { cause, code, reason } => Err(of_saga(saga, refused(*cause, code, reason))),
    }
}

fn refused(cause: UndoCause, code: &str, reason: &str) -> Problem {
    let (status, kind) = match (cause, code) {
        (UndoCause::TimedOut, _) => (409, "checkout-timed-out"),
        (UndoCause::Operator, _) => (409, "checkout-cancelled"),
        (UndoCause::Invalid, _) => (409, "checkout-invalid"),
        (UndoCause::Refused, "out-of-stock") => (409, "out-of-stock"),
        (UndoCause::Refused, "insufficient-credit") => (402, "insufficient-credit"),
        (UndoCause::Refused, "item-not-found") => (404, "item-not-found"),
        (UndoCause::Refused, "user-not-found") => (404, "user-not-found"),
        (UndoCause::Refused, _) => (409, "checkout-refused"),
    };
    let detail = if reason.is_empty() { "the checkout was refused, nothing was taken" } else { reason };
    Problem::new(status, kind, detail)
}

/// What started an undo, in one word.
pub fn cause_word(cause: UndoCause) -> &'static str {
    match cause {
        UndoCause::Refused => "refused",
        UndoCause::TimedOut => "timed_out",
        UndoCause::Invalid => "invalid",
        UndoCause::Operator => "cancelled",
    }
}

/// Nobody knows yet; the saga, if there is one, goes on. Where none is known, none may have begun.
pub fn undecided(order_id: &str, saga: Option<SagaId>) -> Problem {
    let detail = match saga {
        Some(_) => "the checkout is not decided yet and goes on; read the order to learn how it ends",
        None => "the checkout is not decided: if it has begun it goes on, and the order tells how it ends",
    };
    let problem = Problem::new(504, "checkout-undecided", detail).with_location(format!("/orders/find/{order_id}"));
    match saga {
        Some(saga) => of_saga(saga, problem),
        None => problem,
    }
}

/// The same where another replica can be asked, which the gateway does: nobody is told at once what waiting would decide.
pub fn undecided_here(order_id: &str, saga: Option<SagaId>) -> Problem {
    Problem { status: 503, ..undecided(order_id, saga) }.with_retry_after_s(RETRY_AFTER_S)
}

/// That a request was not taken says nothing about what another with its key has begun before: "nothing was changed" would not be
/// true.
pub fn of_repeated(problem: Problem, order_id: &str, begun: Begun) -> Problem {
    let saga = match begun {
        Begun::Nothing => return problem,
        Begun::Saga(saga) => Some(saga),
        Begun::Unknown => None,
    };
    match problem.status {
        // Whoever is full wants to be left alone.
        429 => undecided(order_id, saga),
        503 => undecided_here(order_id, saga),
        _ => problem,
    }
}

/// The request was not taken.
pub fn shed(shed: Shed) -> Problem {
    busy(&shed)
}

fn busy(why: &impl std::fmt::Display) -> Problem {
    Problem::new(429, "busy", format!("{why}; nothing was changed, try again")).with_retry_after_s(RETRY_AFTER_S)
}

/// The saga may not have been started.
pub fn not_started(error: &StartError) -> Problem {
    match error {
        StartError::NoLane => {
            Problem::new(503, "not-ready", format!("{error}; nothing was changed")).with_retry_after_s(RETRY_AFTER_S)
        }
        StartError::Full => busy(error),
        StartError::Commit(error) => problems::not_committed(error),
        StartError::Corrupt(why) => problems::unreadable(why),
    }
}

/// The order cannot be edited.
pub fn edit_refused(refusal: EditRefusal) -> Problem {
    match refusal {
        EditRefusal::CheckingOut(saga) => {
            of_saga(saga, Problem::new(409, "order-not-open", "the order is being checked out"))
        }
        EditRefusal::Paid => Problem::new(409, "order-not-open", "the order is paid"),
        EditRefusal::TooManyLines => {
            Problem::new(422, "too-many-lines", format!("an order has at most {MAX_LINES} lines"))
        }
        EditRefusal::TooLarge => {
            Problem::new(422, "amount-too-large", "the order's total or an item's quantity would be above 2^53 - 1")
        }
    }
}

fn of_saga(saga: SagaId, problem: Problem) -> Problem {
    problem.with_saga(saga.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status() {
        let table = [
            (UndoCause::Refused, "out-of-stock", 409, "out-of-stock"),
            (UndoCause::Refused, "insufficient-credit", 402, "insufficient-credit"),
            (UndoCause::Refused, "item-not-found", 404, "item-not-found"),
            (UndoCause::Refused, "user-not-found", 404, "user-not-found"),
            (UndoCause::Refused, "something-new", 409, "checkout-refused"),
            (UndoCause::TimedOut, "timed-out", 409, "checkout-timed-out"),
            (UndoCause::Invalid, "invalid", 409, "checkout-invalid"),
            (UndoCause::Operator, "operator", 409, "checkout-cancelled"),
        ];
        let saga = SagaId(uuid::Uuid::from_u128(7));
        for (cause, code, status, kind) in table {
            let verdict = Verdict::Undone { cause, code: code.into(), reason: "because".into() };
            let problem = ended(saga, &verdict).unwrap_err();
            assert_eq!((problem.status, problem.kind), (status, kind));
            assert_eq!(problem.detail, "because");
            assert_eq!(problem.saga_id, Some(saga.to_string()));
        }
        assert!(ended(saga, &Verdict::Paid).is_ok());
    }

    #[test]
    fn what_is_undecided_is_never_a_refusal() {
        assert_eq!(undecided("7", None).status, 504);
        assert_eq!(undecided("7", None).location.as_deref(), Some("/orders/find/7"));
        assert_eq!(not_started(&StartError::Commit(redis_txn::CommitError::OutcomeUnknown)).status, 503);
        assert_eq!(not_started(&StartError::NoLane).status, 503);
        let saga = SagaId(uuid::Uuid::nil());
        let not_taken = || [shed(Shed::Queue), not_started(&StartError::NoLane)];
        for (begun, known) in [(Begun::Saga(saga), Some(saga.to_string())), (Begun::Unknown, None)] {
            for (problem, status) in not_taken().into_iter().zip([504, 503]) {
                let told = of_repeated(problem, "o", begun);
                assert_eq!((told.status, told.kind, &told.saga_id), (status, "checkout-undecided", &known));
                assert!(told.location.is_some());
            }
            assert_eq!(of_repeated(no_order("o"), "o", begun).status, 404);
        }
        assert_eq!(not_taken().map(|problem| of_repeated(problem, "o", Begun::Nothing).status), [429, 503]);
        assert_eq!(shed(Shed::Queue).retry_after_s, Some(1));
        let full = not_started(&StartError::Full);
        assert_eq!((full.status, full.retry_after_s), (429, Some(1)), "overload is no error of the server");
    }
}

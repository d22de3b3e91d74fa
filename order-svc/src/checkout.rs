//! One request to check out: it starts a saga or joins one, waits for the end, and falls back to reading the order.

use std::time::Duration;

use rest_kit::idempotency::Begun;
use rest_kit::{Answer, problems};
use saga_core::ids::{SagaId, TraceContext};
use service_kit::problem::Problem;
use starter::{Heard, Starter, Waiter};
use telemetry::context;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answer;
use crate::decide::verdict;
use crate::poll::{Poller, Told};
use crate::starting::{CheckoutRequest, Checkouts, Decided};

/// What a request to check out needs.
#[derive(Clone)]
pub struct Checkout {
    /// Starts sagas.
    pub starter: Starter<Checkouts>,
    /// Reads orders.
    pub poller: Poller,
    /// How long a request waits for the end of its saga.
    pub wait: Duration,
    /// Cancelled shortly before the connections of a drain are cut: who still waits is told where to look.
    pub drain_ends: CancellationToken,
}

impl Checkout {
    /// The answer for one order; `Ok` is a 200, or what was recorded for the request's key.
    pub async fn run(&self, request: CheckoutRequest, trace: TraceContext) -> Result<Answer, Problem> {
        let order_id = request.order_id.clone();
        let begun = request.key.as_ref().map_or(Begun::Nothing, |key| key.begun);
        let told = self.ask(request, trace).await;
        told.map_err(|problem| answer::of_repeated(problem, &order_id, begun))
    }

    async fn ask(&self, request: CheckoutRequest, trace: TraceContext) -> Result<Answer, Problem> {
        let offered = SagaId(Uuid::now_v7());
        let order_id = request.order_id.clone();
        let mut waiter = self.starter.start(offered, request, trace).map_err(answer::shed)?;
        let decided = timeout(self.wait, self.decided(&order_id, &mut waiter));
        let answer = match self.drain_ends.run_until_cancelled(decided).await {
            Some(Ok(decided)) => decided,
            Some(Err(_)) => Err(answer::undecided(&order_id, waiter.at_work())),
            None => Err(answer::undecided_here(&order_id, waiter.at_work())),
        };
        if let Some(saga) = waiter.at_work() {
            context::note_saga(saga);
        }
        answer
    }

    async fn decided(&self, order_id: &str, waiter: &mut Waiter<Decided>) -> Result<Answer, Problem> {
        loop {
            match waiter.heard().await {
                Heard::Ended(result) => return answer::ended(result.saga, &verdict(&result.outcome)),
                Heard::Answered(Decided::Paid(_)) => return Ok(Answer::text(answer::PAID)),
                Heard::Answered(Decided::Recorded(answer)) => return Ok(answer),
                Heard::Answered(Decided::NoOrder) => return Err(answer::no_order(order_id)),
                Heard::Answered(Decided::Unreadable(why)) => return Err(problems::unreadable(&why)),
                Heard::Failed(error) => return Err(answer::not_started(&error)),
                Heard::Joins(saga) if waiter.join(saga) => continue,
                Heard::Joins(_) | Heard::Elsewhere => {}
            }
            // Its end will not be told to this process, or has been told already.
            let saga = waiter.saga();
            return match self.poller.read(order_id, saga).await {
                Told::Ended(verdict) => answer::ended(saga, &verdict),
                Told::Unknown => Err(answer::undecided(order_id, Some(saga))),
            };
        }
    }
}

//! Which sagas get a span that tells how they ended, recorded or not: the unusual ones are found all the same.

use saga_core::ids::SagaId;
use saga_core::record::{InboxEvent, InboxRecord, SagaOutcome, SagaResult};
use saga_core::saga::AttentionCause;
use telemetry::context::{self, Summary};

use crate::fold::Times;
use crate::lane_core::LaneCore;

/// Which sagas are summarised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Summaries {
    /// None.
    Off,
    /// Those that did not complete, took long or need a person.
    Unusual,
    /// All.
    All,
}

/// When a saga is summarised.
#[derive(Clone, Copy, Debug)]
pub struct SummaryRule {
    /// Which ones.
    pub which: Summaries,
    /// A saga that took longer, in log time, is slow.
    pub slow_ms: i64,
}

impl SummaryRule {
    /// Whether a saga that ended so, after so long, is summarised.
    pub fn wants(&self, outcome: &SagaOutcome, took_ms: i64) -> bool {
        match self.which {
            Summaries::Off => false,
            Summaries::Unusual => *outcome != SagaOutcome::Completed || took_ms > self.slow_ms,
            Summaries::All => true,
        }
    }
}

impl LaneCore {
    /// A saga has ended. Also when the log is folded again after a takeover: whoever folded it first may have died before
    /// he could tell, so a saga may be told of twice, and never not at all.
    pub(crate) fn summarise_end(&self, result: &SagaResult, times: &Times, record: &InboxRecord) {
        let started_ms = times.started_ms.unwrap_or(record.time_ms);
        if !self.summaries.wants(&result.outcome, record.time_ms.saturating_sub(started_ms)) {
            return;
        }
        let definition = match (&times.definition, &record.event) {
            (Some(definition), _) => definition.id.name.as_str(),
            // It ended as it started.
            (None, InboxEvent::Start(start)) => start.definition.as_str(),
            (None, _) => "",
        };
        let reason = match &result.outcome {
            SagaOutcome::Completed => "",
            SagaOutcome::Undone { refusal, .. } => refusal.code.as_str(),
        };
        context::summarise(&Summary {
            saga: result.saga,
            definition,
            lane: self.lane.0,
            outcome: context::outcome_word(&result.outcome),
            reason,
            started_ms,
            ended_ms: record.time_ms,
            trace: &result.trace,
        });
    }

    /// A saga has begun to need a person; it has not ended.
    pub(crate) fn summarise_stuck(&self, saga: SagaId, cause: AttentionCause, now_ms: i64) {
        let Some(saga) = self.state.saga(saga).filter(|_| self.summaries.which != Summaries::Off) else {
            return;
        };
        let reason = match cause {
            AttentionCause::Unanswered => "unanswered",
            AttentionCause::Stale => "stale",
            AttentionCause::RefusedRetriable => "refused-retriable",
            AttentionCause::CancelledWithoutUndo => "cancelled-without-undo",
            AttentionCause::SetAside => "set-aside",
        };
        context::summarise(&Summary {
            saga: saga.id,
            definition: &saga.definition.id.name,
            lane: self.lane.0,
            outcome: "stuck",
            reason,
            started_ms: saga.started_ms,
            ended_ms: now_ms,
            trace: &saga.trace,
        });
    }
}

#[cfg(test)]
mod tests {
    use saga_core::record::{Refusal, UndoCause};

    use super::*;

    #[test]
    fn the_unusual_ones_are_summarised() {
        let refusal = Refusal { code: "out-of-stock".to_owned(), reason: String::new() };
        let refused = SagaOutcome::Undone { cause: UndoCause::Refused, step: None, refusal };
        let wants =
            |which, outcome: &SagaOutcome, took_ms| SummaryRule { which, slow_ms: 2_000 }.wants(outcome, took_ms);
        for (which, quick, slow, undone) in [
            (Summaries::Off, false, false, false),
            (Summaries::Unusual, false, true, true),
            (Summaries::All, true, true, true),
        ] {
            let found = (
                wants(which, &SagaOutcome::Completed, 2_000),
                wants(which, &SagaOutcome::Completed, 2_001),
                wants(which, &refused, 1),
            );
            assert_eq!(found, (quick, slow, undone), "{which:?}");
        }
    }
}

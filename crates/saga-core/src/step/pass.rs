//! A record that cannot be folded: it is passed over, and the saga that it is about is shown to a person.
//!
//! This is no part of the fold: whoever passes a record over writes a checkpoint behind it before the next record is
//! folded, so that nobody ever folds it.

use super::At;
use super::start::invalid;
use crate::effect::Effect;
use crate::ids::SagaId;
use crate::lane::LaneState;
use crate::record::{DeadlineKind, InboxEvent, UndoCause};
use crate::saga::{AttentionCause, Saga};

impl LaneState {
    /// Moves past the record at `offset`. `event` is what it says, if that can be read: an open saga that it is about
    /// needs attention from now on, and a start ends as refused, because every sequence must end.
    pub fn pass_over(&mut self, offset: i64, time_ms: i64, event: Option<&InboxEvent>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if offset < self.next_offset {
            return effects;
        }
        self.next_offset = offset.saturating_add(1);
        self.time_ms = time_ms;
        let at = At { offset, time_ms };
        match event {
            Some(InboxEvent::Start(start)) => {
                if self.check_ordinal(start, &mut effects).is_ok() {
                    let refusal = invalid("the record that starts it cannot be handled and was set aside");
                    self.refuse(start, UndoCause::Invalid, refusal, &mut effects);
                }
            }
            Some(InboxEvent::Reply(reply)) => self.mark(reply.id.saga, Some(&reply.id.step), at, &mut effects),
            Some(InboxEvent::Timer(timer)) => match &timer.kind {
                DeadlineKind::StepTimeout(step) | DeadlineKind::StepRetry(step) => {
                    self.mark(timer.saga, Some(step), at, &mut effects);
                }
                DeadlineKind::Saga => self.mark(timer.saga, None, at, &mut effects),
            },
            Some(InboxEvent::Operator { saga, .. }) => self.mark(*saga, None, at, &mut effects),
            Some(InboxEvent::Activate { .. } | InboxEvent::FoldVersion(_)) | None => {}
        }
        effects
    }

    /// A saga that is not open cannot be marked, and misses nothing.
    fn mark(&mut self, saga: SagaId, step: Option<&str>, at: At, effects: &mut Vec<Effect>) {
        let _not_open = self.turn(saga, at, effects, |turn| {
            let named = step.and_then(|name| turn.saga().definition.step_index(name));
            let step = named.or_else(|| awaited(turn.saga())).unwrap_or_default();
            turn.need_attention(step, AttentionCause::SetAside);
            Ok(())
        });
    }
}

/// The first step of which an answer is awaited.
fn awaited(saga: &Saga) -> Option<usize> {
    (0..saga.steps.len()).find(|step| saga.awaits(*step).is_some())
}

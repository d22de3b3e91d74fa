//! A record that cannot be folded: it is passed over, and the saga that it is about is shown to a person.
//!
//! This is no part of the fold: whoever passes a record over writes a checkpoint behind it before the next record is
//! folded. Until then nobody has been told anything that depends on it, so another owner, whose program may be able to
//! fold it, does no harm by doing so.

use super::At;
use crate::effect::Effect;
use crate::ids::SagaId;
use crate::lane::LaneState;
use crate::record::{DeadlineKind, InboxEvent};
use crate::saga::{AttentionCause, Saga};

impl LaneState {
    /// Moves past the record at `offset`. `event` is what it says, if that can be read: an open saga that it is about
    /// needs attention from now on.
    ///
    /// A start is not refused: an owner before this one may have folded it and sent its commands. Its saga is pending for
    /// its starter until the record is put back; then the same commands are asked again, under the same ids.
    pub fn pass_over(&mut self, offset: i64, time_ms: i64, event: Option<&InboxEvent>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if offset < self.next_offset {
            return effects;
        }
        self.next_offset = offset.saturating_add(1);
        self.time_ms = time_ms;
        let at = At { offset, time_ms };
        match event {
            Some(InboxEvent::Reply(reply)) => self.mark(reply.id.saga, Some(&reply.id.step), at, &mut effects),
            Some(InboxEvent::Timer(timer)) => match &timer.kind {
                DeadlineKind::StepTimeout(step) | DeadlineKind::StepRetry(step) => {
                    self.mark(timer.saga, Some(step), at, &mut effects);
                }
                DeadlineKind::Saga => self.mark(timer.saga, None, at, &mut effects),
            },
            Some(InboxEvent::Operator { saga, .. }) => self.mark(*saga, None, at, &mut effects),
            Some(InboxEvent::Start(_) | InboxEvent::Activate { .. } | InboxEvent::FoldVersion(_)) | None => {}
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

//! What a live loop appends on its own account: timers, activations, re-sends, floors. Only a loop that has reached
//! the log's end does any of this.

use std::time::{Duration, Instant};

use saga_core::ids::TraceContext;
use telemetry::{context, metrics};

use crate::decide::earliest;
use crate::lane_core::LaneCore;

/// A timer record that has not been read back after this time is appended again.
pub(crate) const TIMER_RETRY: Duration = Duration::from_secs(10);
/// Timer records of one lane on their way at once.
pub(crate) const MAX_TIMERS: usize = 1_024;
/// An activation that has not been read back after this time is appended again.
pub(crate) const ACTIVATION_RETRY: Duration = Duration::from_secs(10);
/// Activations of one lane on their way at once.
pub(crate) const MAX_ACTIVATIONS: usize = 64;
/// Time between two looks at deadlines that have passed: many pass together, and one record each is appended.
const TIMER_PAUSE: Duration = Duration::from_millis(50);
/// Time between two looks at definitions that the lane does not know yet.
const ACTIVATION_PAUSE: Duration = Duration::from_secs(1);

impl LaneCore {
    /// Queues everything that is due now.
    pub fn queue_due(&mut self, now: Instant) {
        self.queue_timers(now);
        self.queue_activations(now);
        self.queue_resends(now);
        self.queue_floors(now);
    }

    /// When something will be due, if no event comes before.
    pub fn next_due(&self) -> Option<Instant> {
        let timers =
            self.state.next_deadline().map(|deadline| self.clock.when(deadline).max(self.timers_checked + TIMER_PAUSE));
        let has_open = !self.state.sagas().is_empty();
        let resends = has_open.then(|| self.resends.next_scan());
        // One count more when the last saga has ended: then nothing is shown that is gone.
        let ages = (has_open || self.ages.shows_any()).then(|| self.ages.next());
        earliest([timers, self.activations_next, resends, self.floors.alone_at(), self.checkpoints.due_at(), ages])
    }

    /// Nothing happens to a saga here: the record does, once it has been read back.
    fn queue_timers(&mut self, now: Instant) {
        let log_now = self.clock.estimate_ms(now);
        if self.state.next_deadline().is_none_or(|deadline| deadline > log_now)
            || now < self.timers_checked + TIMER_PAUSE
        {
            return;
        }
        self.timers_checked = now;
        let mut appended = 0;
        for timer in self.state.due(log_now).take(MAX_TIMERS) {
            if self.timers.admit(timer, now) {
                // A start that waits for its definition is no saga yet.
                let parked = || self.state.parked().get(&timer.saga).map(|parked| &parked.start.trace);
                let trace = self.state.saga(timer.saga).map(|saga| &saga.trace).or_else(parked);
                self.emitter.timer(timer.clone(), trace.unwrap_or(&TraceContext::default()));
                appended += 1;
            }
        }
        if appended > 0 {
            metrics::INBOX_APPENDED.add(appended, &[("kind", "timer")]);
        }
    }

    fn queue_activations(&mut self, now: Instant) {
        if self.activations_next.is_none_or(|next| now < next) {
            return;
        }
        self.activations_next = None;
        let definitions = self.definitions.clone();
        for definition in definitions.iter() {
            let active = self.state.definitions().active(&definition.id.name);
            if let Some(active) = active.filter(|active| active.id.version >= definition.id.version) {
                if active.id == definition.id && active.hash != definition.hash {
                    metrics::FOLD_ALARMS.add(1, &[("alarm", "definition-conflict")]);
                    let (lane, definition) = (self.lane.0, definition.id.to_string());
                    tracing::error!(
                        lane,
                        definition,
                        alarm = "definition-conflict",
                        "the lane knows another text under this version; a changed text needs a higher one"
                    );
                }
                continue;
            }
            self.activations_next = Some(now + ACTIVATION_PAUSE);
            let text = definition.text.to_string();
            if self.activations.admit(&text, now) {
                self.emitter.activation(text);
                metrics::INBOX_APPENDED.add(1, &[("kind", "activate")]);
            }
        }
    }

    fn queue_resends(&mut self, now: Instant) {
        if now < self.resends.next_scan() {
            return;
        }
        let asked = self.state.sagas().iter().filter(|(_, saga)| !saga.is_held());
        let open = asked.map(|(id, saga)| (*id, saga.changed_by));
        let due = self.resends.scan(open, now);
        if let Some(first) = due.first() {
            // One line for all of them: what keeps one waiting often keeps many.
            let _scope = self.state.saga(*first).and_then(|saga| context::scope(&saga.trace));
            let (lane, sagas) = (self.lane.0, due.len());
            tracing::warn!(lane, sagas, saga.id = %first, "nobody answers, commands sent again");
        }
        for saga in due {
            metrics::SAGAS_RESENT.add(1, &[]);
            self.queue_commands(self.state.awaited_of(saga));
        }
    }

    fn queue_floors(&mut self, now: Instant) {
        let rides = !self.emitter.is_empty() && self.floors.may_ride(now);
        let alone = self.floors.alone_at().is_some_and(|at| at <= now);
        if !(rides || alone) {
            return;
        }
        let participants = self.state.definitions().participants();
        for floor in self.floors.take(now) {
            self.emitter.floor(participants.iter().cloned(), floor);
        }
    }
}

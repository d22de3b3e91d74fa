//! Records that cannot be folded: bytes that are no envelope, and records that make the code panic.
//!
//! A record that panics is tried again from the last checkpoint, because the panic may have left the state half changed; from
//! then on alone, over a copy of the state, so that no further try costs the lane another look at its log.
//! After the last try it is set aside: it lies in the quarantine, the state moves past it, and no further record is
//! folded before a checkpoint lies behind it, so that nobody, a later program least of all, folds it after all.
//!
//! A record that lay in the log before this process owned the lane may have been folded, and acted on, by an owner whose
//! program can: to pass it over would forget what was done. There the lane halts, unless an operator lets it pass that record over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_stream::{Lane, Record};
use proto::{DecodeError, Wire};
use saga_core::ids::TraceContext;
use saga_core::record::{InboxEvent, InboxRecord};
use service_kit::panics::{MAX_TRIES, caught};
use telemetry::metrics;

use crate::emit::{Doubtful, INBOX};
use crate::fold::{Mode, Times};
use crate::lane_core::LaneCore;

/// Looks at every record before it is folded. Only tests have one: a service is made without.
pub type Probe = Arc<dyn Fn(&InboxRecord) + Send + Sync>;

/// The records that have made the lanes of this process panic, one for each lane: a lane cannot pass one by.
#[derive(Debug, Default)]
pub struct Suspects {
    lanes: Mutex<BTreeMap<Lane, Suspect>>,
}

#[derive(Clone, Debug)]
struct Suspect {
    offset: i64,
    tries: u32,
    why: String,
}

impl Suspects {
    /// The record at `offset` has panicked; says for the how manieth time.
    pub fn panicked(&self, lane: Lane, offset: i64, why: String) -> u32 {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lanes.get(&lane).filter(|suspect| suspect.offset == offset).map_or(0, |suspect| suspect.tries);
        let tries = before.saturating_add(1);
        lanes.insert(lane, Suspect { offset, tries, why });
        tries
    }

    /// The record that has panicked, and why if it is not to be tried again. Forgets one that lies before `next`.
    pub fn of(&self, lane: Lane, next: i64) -> Option<(i64, Option<String>)> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.get(&lane).is_some_and(|suspect| suspect.offset < next) {
            lanes.remove(&lane);
        }
        let suspect = lanes.get(&lane)?;
        Some((suspect.offset, (suspect.tries >= MAX_TRIES).then(|| suspect.why.clone())))
    }
}

impl LaneCore {
    /// The record at this offset is set aside instead of being folded; `why` is what it did.
    pub fn shun(&mut self, offset: i64, why: String) {
        self.shunned = Some((offset, why));
    }

    /// Has the record at this offset tried alone before it is folded: it has panicked before.
    pub fn suspect(&mut self, offset: i64) {
        self.suspect = Some((offset, None));
    }

    /// The suspect has panicked again, tried alone: it waits, and all behind it, while the state is as if it had not come.
    pub fn take_panic(&mut self) -> Option<(i64, String)> {
        let (offset, why) = self.suspect.as_mut()?;
        Some((*offset, why.take()?))
    }

    pub(crate) fn panics_alone(&mut self, record: &Record) -> bool {
        let is_suspect = self.suspect.as_ref().is_some_and(|(offset, _)| *offset == record.offset);
        if !is_suspect || self.shunned(record.offset).is_some() {
            return false;
        }
        let tried = caught(|| {
            let Ok(event) = InboxEvent::decode(&record.payload) else { return };
            let record = InboxRecord { offset: record.offset, time_ms: record.timestamp_ms, event };
            if let Some(probe) = &self.probe {
                probe(&record);
            }
            drop(self.state.clone().step(&record));
        });
        self.suspect = tried.err().map(|why| (record.offset, Some(why)));
        self.suspect.is_some()
    }

    /// Has every record looked at before it is folded.
    pub fn set_probe(&mut self, probe: Option<Probe>) {
        self.probe = probe;
    }

    /// Whether a record was set aside behind which no checkpoint lies: until then nothing is folded.
    pub fn owes_checkpoint(&self) -> bool {
        self.owed_checkpoint.is_some()
    }

    pub(crate) fn shunned(&self, offset: i64) -> Option<&str> {
        self.shunned.as_ref().filter(|(shunned, _)| *shunned == offset).map(|(_, why)| why.as_str())
    }

    /// Bytes that are no envelope say nothing about any saga: they are set aside, and the lane goes on.
    pub(crate) fn set_aside_malformed(&mut self, record: &Record, error: &DecodeError) {
        self.set_aside(record, "malformed", error.to_string());
        self.state.pass_over(record.offset, record.timestamp_ms, None);
    }

    /// What the record is about is shown to a person, if that much of it can be handled.
    pub(crate) fn set_aside_poison(&mut self, record: &Record, now: Instant) {
        let why = self.shunned(record.offset).unwrap_or_default();
        let reason = format!("made the program panic {MAX_TRIES} times: {why}");
        self.set_aside(record, "poison", reason);
        let (offset, time_ms) = (record.offset, record.timestamp_ms);
        let event = caught(|| InboxEvent::decode(&record.payload)).ok().and_then(Result::ok);
        let before = self.state.clone();
        let Ok(effects) = caught(|| self.state.pass_over(offset, time_ms, event.as_ref())) else {
            // Even marking its saga panics: then it is as if nobody could read it.
            self.state = before;
            self.state.pass_over(offset, time_ms, None);
            return;
        };
        let Some(event) = event else { return };
        self.hold_back_own(&event, now);
        let record_in = InboxRecord { offset, time_ms, event };
        let times = Times::before(&before, &record_in);
        for effect in effects {
            self.queue_effect(effect, Mode::Live, &TraceContext::default(), &times, &record_in);
        }
    }

    /// A record that contradicts what the lane knows. It was folded and has changed nothing but its alarm; it is kept for
    /// whoever looks into that.
    pub(crate) fn set_aside_impossible(&mut self, record: &Record, why: &str) {
        metrics::QUARANTINED.add(1, &[("topic", INBOX)]);
        self.emitter.set_aside(record, format!("impossible: {why}"));
    }

    /// News for a topic that is not there.
    pub(crate) fn set_aside_news(&mut self, news: Doubtful, why: String) {
        let alarm = "no-results-topic";
        metrics::FOLD_ALARMS.add(1, &[("alarm", alarm)]);
        metrics::QUARANTINED.add(1, &[("topic", INBOX)]);
        tracing::error!(lane = self.lane.0, offset = news.cause, alarm, detail = %why, "result set aside");
        self.emitter.has_nowhere_to_go(news, why);
    }

    /// What this loop appends itself is due again at once: it comes again, but not as fast as it can.
    fn hold_back_own(&mut self, event: &InboxEvent, now: Instant) {
        match event {
            InboxEvent::Timer(timer) => drop(self.timers.admit(timer, now)),
            InboxEvent::Activate { text } => drop(self.activations.admit(text, now)),
            InboxEvent::Start(_) | InboxEvent::Reply(_) | InboxEvent::Operator { .. } | InboxEvent::FoldVersion(_) => {}
        }
    }

    /// No checkpoint is written before the record lies in the quarantine; until then, whoever comes to it sets it aside
    /// once more, under the same name.
    fn set_aside(&mut self, record: &Record, alarm: &'static str, reason: String) {
        metrics::FOLD_ALARMS.add(1, &[("alarm", alarm)]);
        metrics::QUARANTINED.add(1, &[("topic", INBOX)]);
        let (lane, offset) = (self.lane.0, record.offset);
        tracing::error!(lane, offset, alarm, detail = %reason, "inbox record set aside");
        self.emitter.set_aside(record, reason);
    }
}

#[cfg(test)]
mod tests;

//! A small world around one lane: participants, messages on their way, and noise from a tape.
//!
//! Messages are lost, doubled and overtaken, starts come late and twice, participants fail and refuse, timers come
//! early, late, twice and for nobody, operators act. When the tape is used up the noise stops, and then every saga
//! must end. The balance of each step counts what was really done: it is the harm that the rules must prevent.

use std::collections::BTreeMap;

use bytes::Bytes;
use saga_core::definition::Definition;
use saga_core::effect::{Alarm, Effect, Step};
use saga_core::ids::{CommandId, Direction, SagaId};
use saga_core::invariants;
use saga_core::lane::LaneState;
use saga_core::participant::{Admission, ParticipantLane, StepRecord, admit};
use saga_core::record::{
    Command, DeadlineKind, InboxEvent, InboxRecord, OperatorAct, Outcome, Reply, ResultRecord, SagaOutcome, SagaResult,
    Start, Timer,
};
use saga_core::saga::AttentionCause;

use crate::rig::{LANE, refusal, saga_id, start};

/// Rounds without noise after which every saga must have ended. Each round delivers all and fires what is due.
const QUIET_ROUNDS: usize = 2_000;

/// Random choices, made before the world starts; no more choices means no more noise.
pub(crate) struct Tape {
    choices: std::vec::IntoIter<u16>,
}

impl Tape {
    pub(crate) fn new(choices: Vec<u16>) -> Self {
        Self { choices: choices.into_iter() }
    }

    /// A number below `count`; none when the tape is used up.
    fn pick(&mut self, count: usize) -> Option<usize> {
        let choice = self.choices.next()?;
        Some(usize::from(choice) % count.max(1))
    }

    /// True about once in `count`; never when the tape is used up.
    fn once_in(&mut self, count: usize) -> bool {
        self.pick(count) == Some(0)
    }
}

/// What lies between the lane and the others.
#[derive(Clone, Debug)]
enum Message {
    Start(Start),
    Command(Command),
    Reply(Reply),
}

pub(crate) struct World {
    tape: Tape,
    definition: Definition,
    pub(crate) state: LaneState,
    pub(crate) log: Vec<(InboxRecord, Step)>,
    now_ms: i64,
    under_way: Vec<Message>,
    old_timers: Vec<Timer>,
    participant: ParticipantLane,
    records: BTreeMap<SagaId, BTreeMap<String, StepRecord>>,
    /// Actions done minus actions reversed.
    balance: BTreeMap<CommandId, i32>,
    pub(crate) results: BTreeMap<SagaId, SagaResult>,
    sagas: u64,
}

impl World {
    /// A lane that knows the definition, and a starter that starts this many sagas at some time.
    pub(crate) fn new(text: &str, sagas: u64, choices: Vec<u16>) -> Self {
        let definition = Definition::parse("random", text).expect("the plan is right");
        let mut world = Self {
            tape: Tape::new(choices),
            state: LaneState::new(LANE),
            log: Vec::new(),
            now_ms: 1_000,
            under_way: Vec::new(),
            old_timers: Vec::new(),
            participant: ParticipantLane::default(),
            records: BTreeMap::new(),
            balance: BTreeMap::new(),
            results: BTreeMap::new(),
            sagas,
            definition,
        };
        let activation = InboxEvent::Activate { text: text.to_owned() };
        // Some starts come before the definition is known.
        if world.tape.once_in(2) {
            world.fold(activation);
            world.start_all();
        } else {
            world.start_all();
            while world.tape.once_in(2) {
                world.noise();
            }
            world.fold(activation);
        }
        world
    }

    /// Lets noise happen until the tape is used up, then calm until every saga has ended.
    pub(crate) fn run(&mut self) {
        while self.tape.choices.len() > 0 {
            self.noise();
        }
        // Whatever was lost with the noise is sent again, as the starter does from its store.
        self.start_all();
        for _ in 0..QUIET_ROUNDS {
            self.deliver_all();
            if self.results.len() as u64 == self.sagas {
                break;
            }
            self.now_ms = self.state.next_deadline().unwrap_or(self.now_ms).max(self.now_ms);
            self.fire_due();
        }
        self.deliver_all();
        self.check_ends();
    }

    fn start_all(&mut self) {
        for sequence in 0..self.sagas {
            let message = self.start_of(sequence);
            self.under_way.push(message);
        }
    }

    fn start_of(&self, sequence: u64) -> Message {
        let steps: Vec<String> = self.definition.steps.iter().map(|plan| plan.name.clone()).collect();
        Message::Start(start(sequence, &self.definition.id.name, &steps))
    }

    /// One thing happens.
    fn noise(&mut self) {
        let Some(kind) = self.tape.pick(16) else { return };
        match kind {
            0..=7 => self.deliver_one(),
            8 => self.now_ms += 1 + i64::try_from(self.tape.pick(800).unwrap_or(0)).expect("small"),
            9 => self.fire_due(),
            10 => self.fire_strange(),
            11 => {
                let sequence = self.tape.pick(usize::try_from(self.sagas).expect("small")).unwrap_or(0);
                let message = self.start_of(sequence as u64);
                self.under_way.push(message);
            }
            12 => {
                for floor in self.state.floors() {
                    self.participant.raise_floor(&floor);
                }
                self.forget();
            }
            13 if self.tape.once_in(6) => {
                let saga = self.some_saga();
                let act = if self.tape.once_in(2) { OperatorAct::Undo } else { OperatorAct::Retry };
                self.fold(InboxEvent::Operator { saga, act });
            }
            14 => {
                // A takeover: everything that is awaited is sent again.
                let effects = self.state.awaited();
                self.perform(effects);
            }
            _ => {
                // Lost. Recorded replies are repeated, commands and starts come again: any single message may go.
                if let Some(index) = self.tape.pick(self.under_way.len())
                    && index < self.under_way.len()
                {
                    self.under_way.swap_remove(index);
                }
            }
        }
    }

    fn some_saga(&mut self) -> SagaId {
        let sequence = self.tape.pick(usize::try_from(self.sagas).expect("small") + 1).unwrap_or(0);
        saga_id(sequence as u64)
    }

    fn deliver_one(&mut self) {
        let Some(index) = self.tape.pick(self.under_way.len()) else { return };
        if index >= self.under_way.len() {
            return;
        }
        let message =
            if self.tape.once_in(5) { self.under_way[index].clone() } else { self.under_way.swap_remove(index) };
        self.deliver(message);
    }

    fn deliver_all(&mut self) {
        while let Some(message) = self.under_way.pop() {
            self.deliver(message);
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Start(start) => self.fold(InboxEvent::Start(start)),
            Message::Reply(reply) => self.fold(InboxEvent::Reply(reply)),
            Message::Command(command) => {
                let outcome = self.execute(&command);
                let reply = Reply { id: command.id, ordinal: command.ordinal, outcome };
                self.under_way.push(Message::Reply(reply));
            }
        }
    }

    /// What a participant does: floor, step record, business rule, in this order.
    fn execute(&mut self, command: &Command) -> Outcome {
        if self.participant.has_ended(&command.ordinal) {
            return Outcome::Stale;
        }
        if self.tape.once_in(6) {
            return Outcome::Failed { reason: "the store was away".to_owned() };
        }
        let step = command.id.step.clone();
        let done = CommandId { direction: Direction::Action, ..command.id.clone() };
        let records = self.records.entry(command.id.saga).or_default();
        let (record, outcome) = match admit(records.get(&step), command.id.direction) {
            Admission::Decide => {
                if self.tape.once_in(7) {
                    if !command.may_refuse {
                        return Outcome::Failed { reason: "not now".to_owned() };
                    }
                    let refusal = refusal(&format!("no-{step}"));
                    (StepRecord::Refused(refusal.clone()), Outcome::Refused(refusal))
                } else {
                    let output = Bytes::from(format!("{}-{step}-{}", command.id.saga, self.log.len()));
                    *self.balance.entry(done).or_default() += 1;
                    (StepRecord::Applied { output: output.clone(), undo: Bytes::new() }, Outcome::Applied { output })
                }
            }
            Admission::RepeatApplied { output } => return Outcome::Applied { output },
            Admission::RepeatRefused(refusal) => return Outcome::Refused(refusal),
            Admission::AnswerCancelled => return Outcome::Cancelled,
            Admission::RepeatUndone => return Outcome::Undone,
            Admission::RecordCancelled => (StepRecord::Cancelled, Outcome::Undone),
            Admission::RecordUndone => (StepRecord::Undone, Outcome::Undone),
            Admission::Reverse { .. } => {
                *self.balance.entry(done).or_default() -= 1;
                (StepRecord::Undone, Outcome::Undone)
            }
        };
        self.records.entry(command.id.saga).or_default().insert(step, record);
        outcome
    }

    /// Drops the records of ended sagas, once they have been compared with how the saga ended.
    fn forget(&mut self) {
        let ended: Vec<SagaId> = (0..self.sagas)
            .filter(|sequence| self.participant.has_ended(&crate::rig::ordinal(*sequence)))
            .map(saga_id)
            .collect();
        for saga in ended {
            self.check_end(saga);
            self.records.remove(&saga);
        }
    }

    fn fire_due(&mut self) {
        let due: Vec<Timer> = self.state.due(self.now_ms).cloned().collect();
        for timer in due {
            self.old_timers.push(timer.clone());
            self.fold(InboxEvent::Timer(timer));
        }
    }

    /// A timer that is early, an old one again, or one that nobody armed.
    fn fire_strange(&mut self) {
        let timer = match self.tape.pick(3) {
            Some(0) => self.old_timers.last().cloned(),
            Some(1) => self.state.due(i64::MAX).next().cloned(),
            _ => {
                let step = self.definition.steps[0].name.clone();
                let armed_by = i64::try_from(self.tape.pick(self.log.len()).unwrap_or(0)).expect("small");
                let saga = self.some_saga();
                Some(Timer { saga, kind: DeadlineKind::StepTimeout(step), armed_by })
            }
        };
        if let Some(timer) = timer {
            self.fold(InboxEvent::Timer(timer));
        }
    }

    fn fold(&mut self, event: InboxEvent) {
        // Quarantined records leave gaps in what the fold sees.
        let gap = i64::from(self.tape.once_in(9));
        let offset = self.log.last().map_or(0, |(record, _)| record.offset + 1) + gap;
        let record = InboxRecord { offset, time_ms: self.now_ms, event };
        let before = self.state.clone();
        let step = self.state.step(&record);
        assert_eq!(invariants::check_lane(&self.state), [], "after {record:?}");
        assert_eq!(invariants::check_growth(&before, &self.state), [], "after {record:?}");
        self.perform(step.effects.clone());
        self.log.push((record, step));
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Command { command, .. } => self.under_way.push(Message::Command(command)),
                Effect::Result { record: ResultRecord::Undoing(notice), .. } => {
                    assert!(!self.results.contains_key(&notice.saga), "told to be undoing after its end");
                }
                Effect::Result { record: ResultRecord::Ended(result), .. } => {
                    let other = self.results.insert(result.saga, result);
                    assert!(other.is_none(), "a saga ended twice: {other:?}");
                }
                // Silence is part of the noise; everything else says that a rule is broken.
                Effect::Alarm(Alarm::NeedsAttention { cause: AttentionCause::Unanswered, .. }) => {}
                Effect::Alarm(alarm) => panic!("alarm: {alarm}"),
            }
        }
    }

    fn check_ends(&self) {
        let open: Vec<_> = self.state.sagas().values().collect();
        assert!(open.is_empty(), "still open: {open:?}");
        assert_eq!(self.results.len() as u64, self.sagas, "not every start ended");
        let floors = self.state.floors();
        assert!(floors.iter().all(|floor| floor.ended.below() == self.sagas && floor.ended.above().next().is_none()));
        assert_eq!(self.state.next_deadline(), None);
        for saga in self.results.keys() {
            self.check_end(*saga);
        }
    }

    /// All or nothing, by what the participant has recorded and by what was really done.
    fn check_end(&self, saga: SagaId) {
        let Some(result) = self.results.get(&saga) else { panic!("{saga} is below the floor without a result") };
        let no_records = BTreeMap::new();
        let records = self.records.get(&saga).unwrap_or(&no_records);
        if self.records.contains_key(&saga) {
            assert_eq!(invariants::check_end(saga, &self.definition, &result.outcome, records), []);
        }
        let expected = i32::from(result.outcome == SagaOutcome::Completed);
        for plan in &self.definition.steps {
            let id = CommandId { saga, step: plan.name.clone(), direction: Direction::Action };
            let done = self.balance.get(&id).copied().unwrap_or(0);
            assert_eq!(done, expected, "{saga} {}: {:?}", plan.name, result.outcome);
        }
    }
}

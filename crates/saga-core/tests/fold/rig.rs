//! A lane that is driven by lines of text: `event -> what comes of it`.
//!
//! Every line is folded with all invariants checked before and after, and the state is rebuilt from its own parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use saga_core::effect::{Effect, Step};
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::invariants;
use saga_core::lane::{LaneState, TRIAL_FOLD_VERSION};
use saga_core::record::{
    DeadlineKind, InboxEvent, InboxRecord, OperatorAct, Outcome, Refusal, Reply, ResultRecord, SagaOutcome, SagaResult,
    Start, Timer,
};
use uuid::Uuid;

pub(crate) const LANE: Lane = Lane(7);
const FIRST_TIME_MS: i64 = 1_000_000;

pub(crate) fn starter() -> Starter {
    Starter { name: "order".to_owned(), store: Uuid::from_u128(1) }
}

pub(crate) fn ordinal(sequence: u64) -> Ordinal {
    Ordinal { starter: starter(), lane: LANE, sequence }
}

/// The saga that the scripts and the world start with this sequence.
pub(crate) fn saga_id(sequence: u64) -> SagaId {
    SagaId(Uuid::from_u128(0x100 + u128::from(sequence)))
}

pub(crate) fn start(sequence: u64, definition: &str, steps: &[String]) -> Start {
    Start {
        saga: saga_id(sequence),
        ordinal: ordinal(sequence),
        definition: definition.to_owned(),
        inputs: steps.iter().map(|step| (step.clone(), Bytes::from(format!("in-{step}")))).collect(),
        results_topic: "order.results".to_owned(),
        trace: TraceContext { traceparent: format!("trace-{sequence}"), tracestate: String::new() },
    }
}

/// The version of the fold that a newer program would know, in tests that play one.
pub(crate) const NEWER: u32 = TRIAL_FOLD_VERSION;

/// A lane and where its log stands.
pub(crate) struct Rig {
    pub(crate) state: LaneState,
    pub(crate) log: Vec<InboxRecord>,
    now_ms: i64,
    texts: BTreeMap<String, Vec<String>>,
    /// What is told of, when a script names none.
    sequence: u64,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            state: LaneState::new(LANE),
            log: Vec::new(),
            now_ms: FIRST_TIME_MS,
            texts: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A lane that knows a definition, and the script's answers checked line by line.
    pub(crate) fn run(definition: &str, script: &str) -> Self {
        let mut rig = Self::new();
        rig.know(definition);
        let step = rig.fold(InboxEvent::Activate { text: definition.to_owned() });
        assert_eq!(step, Step::default(), "activation");
        rig.play(script);
        rig
    }

    pub(crate) fn know(&mut self, text: &str) {
        let definition = saga_core::definition::Definition::parse("test", text).expect("a definition");
        let steps = definition.steps.iter().map(|plan| plan.name.clone()).collect();
        self.texts.insert(definition.id.name.clone(), steps);
    }

    pub(crate) fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (event, expected) = line.split_once("->").unwrap_or((line, ""));
            let words: Vec<&str> = event.split_whitespace().collect();
            let came = self.line(&words);
            assert_eq!(came, expected.trim(), "after `{}`", event.trim());
        }
    }

    /// Folds one event, with every check there is.
    pub(crate) fn fold(&mut self, event: InboxEvent) -> Step {
        let offset = self.log.last().map_or(0, |record| record.offset + 1);
        let record = InboxRecord { offset, time_ms: self.now_ms, event };
        let before = self.state.clone();
        let step = self.state.step(&record);
        self.log.push(record);
        self.check(&before);
        step
    }

    fn check(&self, before: &LaneState) {
        assert_eq!(invariants::check_lane(&self.state), []);
        assert_eq!(invariants::check_growth(before, &self.state), []);
        let sagas = self.state.sagas().values().cloned();
        let definitions = self.state.definitions().iter().cloned();
        let rebuilt =
            LaneState::restore_supporting(NEWER, self.state.head(), definitions, sagas).expect("a sound state");
        assert_eq!(rebuilt, self.state);
    }

    fn line(&mut self, words: &[&str]) -> String {
        match words {
            [wait] if wait.starts_with('+') => {
                self.now_ms += wait[1..].parse::<i64>().expect("milliseconds");
                String::new()
            }
            ["saga", sequence] => {
                self.sequence = sequence.parse().expect("a sequence");
                String::new()
            }
            ["due"] => {
                let due: Vec<Timer> = self.state.due(self.now_ms).cloned().collect();
                let steps: Vec<String> = due.into_iter().map(|timer| self.tell(InboxEvent::Timer(timer))).collect();
                steps.join(", ")
            }
            ["awaited"] => describe_all(&self.state.awaited_of(saga_id(self.sequence))),
            ["attention"] => {
                let saga = self.state.saga(saga_id(self.sequence)).expect("an open saga");
                saga.attention.map_or("none".to_owned(), |attention| format!("{:?}", attention.cause))
            }
            ["again"] => describe_all(&self.state.awaited()),
            ["lost", rest @ ..] => {
                let event = (!rest.is_empty()).then(|| self.event(rest));
                describe_all(&self.pass_over(event))
            }
            _ => {
                let event = self.event(words);
                self.tell(event)
            }
        }
    }

    /// A record that cannot be folded, with every check there is.
    fn pass_over(&mut self, event: Option<InboxEvent>) -> Vec<Effect> {
        let before = self.state.clone();
        let effects = self.state.pass_over(before.next_offset(), self.now_ms, event.as_ref());
        let event = event.unwrap_or(InboxEvent::FoldVersion(0));
        self.log.push(InboxRecord { offset: before.next_offset(), time_ms: self.now_ms, event });
        self.check(&before);
        effects
    }

    fn event(&self, words: &[&str]) -> InboxEvent {
        let saga = saga_id(self.sequence);
        match words {
            ["start", definition] => {
                let steps = self.texts.get(*definition).cloned().unwrap_or_default();
                InboxEvent::Start(start(self.sequence, definition, &steps))
            }
            ["timer", "saga", armed_by] => self.timer(DeadlineKind::Saga, armed_by),
            ["timer", "timeout", step, armed_by] => self.timer(DeadlineKind::StepTimeout((*step).to_owned()), armed_by),
            ["timer", "retry", step, armed_by] => self.timer(DeadlineKind::StepRetry((*step).to_owned()), armed_by),
            ["operator", "undo"] => InboxEvent::Operator { saga, act: OperatorAct::Undo },
            ["operator", "retry"] => InboxEvent::Operator { saga, act: OperatorAct::Retry },
            ["version", version] => InboxEvent::FoldVersion(version.parse().expect("a version")),
            [verb, step, rest @ ..] => self.reply(verb, step, rest.first().copied().unwrap_or("")),
            _ => panic!("no event: {words:?}"),
        }
    }

    fn timer(&self, kind: DeadlineKind, armed_by: &str) -> InboxEvent {
        let armed_by = armed_by.parse().expect("an offset");
        InboxEvent::Timer(Timer { saga: saga_id(self.sequence), kind, armed_by })
    }

    fn reply(&self, verb: &str, step: &str, word: &str) -> InboxEvent {
        let (direction, outcome) = match verb {
            "applied" => (Direction::Action, Outcome::Applied { output: Bytes::copy_from_slice(word.as_bytes()) }),
            "refused" => (Direction::Action, Outcome::Refused(refusal(word))),
            "failed" => (Direction::Action, Outcome::Failed { reason: "down".to_owned() }),
            "cancelled" => (Direction::Action, Outcome::Cancelled),
            "stale" => (Direction::Action, Outcome::Stale),
            "misanswered" => (Direction::Action, Outcome::Undone),
            "undone" => (Direction::Undo, Outcome::Undone),
            "undo-failed" => (Direction::Undo, Outcome::Failed { reason: "down".to_owned() }),
            "undo-refused" => (Direction::Undo, Outcome::Refused(refusal(word))),
            "undo-stale" => (Direction::Undo, Outcome::Stale),
            _ => panic!("no verb: {verb}"),
        };
        let saga = saga_id(self.sequence);
        let id = CommandId { saga, step: step.to_owned(), direction };
        InboxEvent::Reply(Reply { id, ordinal: ordinal(self.sequence), outcome })
    }

    pub(crate) fn tell(&mut self, event: InboxEvent) -> String {
        let step = self.fold(event);
        let mut text = describe_all(&step.effects);
        if let Some(ignored) = step.ignored {
            assert!(
                step.effects.iter().all(|effect| matches!(effect, Effect::Alarm(_))),
                "an ignored record did something: {step:?}"
            );
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}({ignored:?})").expect("a string");
        }
        text
    }
}

pub(crate) fn refusal(code: &str) -> Refusal {
    Refusal { code: code.to_owned(), reason: "because".to_owned() }
}

fn describe_all(effects: &[Effect]) -> String {
    effects.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// One effect as the scripts write it.
fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Command { command, .. } => {
            let verb = match command.id.direction {
                Direction::Action => "do",
                Direction::Undo => "undo",
            };
            let uses: Vec<String> = command
                .uses
                .iter()
                .map(|(step, output)| format!("{step}={}", String::from_utf8_lossy(output)))
                .collect();
            let uses = if uses.is_empty() { String::new() } else { format!(" with {}", uses.join(" ")) };
            let firm = match (command.id.direction, command.may_refuse) {
                (Direction::Action, false) => "!",
                (Direction::Action, true) | (Direction::Undo, false) => "",
                (Direction::Undo, true) => panic!("an undo may not refuse"),
            };
            assert_eq!(command.input, Bytes::from(format!("in-{}", command.id.step)));
            format!("{verb} {}{firm}{uses}", command.id.step)
        }
        Effect::Result { topic, record } => {
            assert_eq!(topic, "order.results");
            match record {
                ResultRecord::Undoing(_) => "tell undoing".to_owned(),
                ResultRecord::Ended(SagaResult { outcome: SagaOutcome::Completed, .. }) => "completed".to_owned(),
                ResultRecord::Ended(SagaResult { outcome: SagaOutcome::Undone { cause, step, refusal }, .. }) => {
                    let step = step.as_deref().unwrap_or("-");
                    format!("ended {cause:?} {step} {}", refusal.code)
                }
            }
        }
        Effect::Alarm(alarm) => {
            let text = format!("{alarm:?}");
            let name = text.split([' ', '(']).next().unwrap_or_default();
            format!("alarm {name}")
        }
    }
}

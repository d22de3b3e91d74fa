//! Which states of a saga met which events, which points were passed and died at.

use std::collections::BTreeMap;

use saga_core::effect::Ignored;
use saga_core::ids::{Direction, SagaId};
use saga_core::lane::LaneState;
use saga_core::record::{DeadlineKind, InboxEvent, OperatorAct, Outcome, SagaOutcome};
use saga_core::saga::{ActionState, Phase, Saga};

use crate::faults::{Fault, Point};

/// So many seeds meet everything that happens often enough, each at least some ten times.
pub const ENOUGH_SEEDS: u64 = 20_000;
/// So many meet what is rare, too: the rarest pair five times (so one such run in 150 misses it), the others ten to five
/// hundred times.
pub const MANY_SEEDS: u64 = 1_000_000;

/// Where so often nobody died that passed, in the quiet phase or before it, processes cannot die.
const OFTEN: u64 = 100_000;
/// The number of orders that had more sagas than they remember.
pub const FORGETFUL_ORDERS: &str = "orders that have forgotten a saga";

macro_rules! listed {
    ($(#[$meta:meta])* $name:ident { $($variant:ident $text:literal)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Short name.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one with this short name.
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.text() == text)
            }
        }
    };
}

listed! {
    /// Where a saga stands, as far as events make a difference.
    SagaState {
        Unknown "unknown"
        Parked "parked"
        Forward "forward"
        Paused "pausing"
        PivotIssued "pivot-issued"
        AfterPivot "after-pivot"
        Undoing "undoing"
        UndoPaused "undo-pausing"
        Ended "ended"
    }
}

listed! {
    /// What can happen to a saga.
    SagaEvent {
        Start "start"
        Applied "applied"
        Refused "refused"
        Failed "failed"
        Cancelled "cancelled"
        Stale "stale"
        Undone "undone"
        UndoFailed "undo-failed"
        UndoStale "undo-stale"
        Impossible "impossible"
        StepTimeout "step-timeout"
        StepRetry "step-retry"
        SagaTimeout "saga-timeout"
        OldTimer "old-timer"
        EarlyTimer "early-timer"
        OperatorRetry "op-retry"
        OperatorUndo "op-undo"
        Activate "activate"
    }
}

/// Where the saga stands that an event is about.
pub fn state_of(lane: &LaneState, event: &InboxEvent, ended: &BTreeMap<SagaId, SagaOutcome>) -> Option<SagaState> {
    let id = match event {
        InboxEvent::Start(start) => start.saga,
        InboxEvent::Reply(reply) => reply.id.saga,
        InboxEvent::Timer(timer) => timer.saga,
        InboxEvent::Operator { saga, .. } => *saga,
        InboxEvent::Activate { .. } => {
            return Some(if lane.parked().is_empty() { SagaState::Unknown } else { SagaState::Parked });
        }
        InboxEvent::FoldVersion(_) => return None,
    };
    Some(match lane.saga(id) {
        Some(saga) => phase_of(saga),
        None if lane.parked().contains_key(&id) => SagaState::Parked,
        None if ended.contains_key(&id) => SagaState::Ended,
        None => SagaState::Unknown,
    })
}

fn phase_of(saga: &Saga) -> SagaState {
    let pausing = saga.steps.iter().any(|step| step.retry.is_some());
    let pivot = saga.definition.pivot.and_then(|pivot| saga.steps.get(pivot));
    match (&saga.phase, pivot.map(|pivot| &pivot.action)) {
        (Phase::Undoing(_), _) => {
            if pausing {
                SagaState::UndoPaused
            } else {
                SagaState::Undoing
            }
        }
        (Phase::Forward, Some(ActionState::Issued)) => SagaState::PivotIssued,
        (Phase::Forward, Some(ActionState::Applied { .. })) => SagaState::AfterPivot,
        (Phase::Forward, _) => {
            if pausing {
                SagaState::Paused
            } else {
                SagaState::Forward
            }
        }
    }
}

fn event_of(event: &InboxEvent, ignored: Option<Ignored>) -> Option<SagaEvent> {
    Some(match (event, ignored) {
        (_, Some(Ignored::ImpossibleReply | Ignored::Contradiction | Ignored::StartContradicts)) => {
            SagaEvent::Impossible
        }
        (InboxEvent::Start(_), _) => SagaEvent::Start,
        (InboxEvent::Reply(reply), _) => match (&reply.outcome, reply.id.direction) {
            (Outcome::Applied { .. }, _) => SagaEvent::Applied,
            (Outcome::Refused(_), _) => SagaEvent::Refused,
            (Outcome::Cancelled, _) => SagaEvent::Cancelled,
            (Outcome::Undone, _) => SagaEvent::Undone,
            (Outcome::Failed { .. }, Direction::Action) => SagaEvent::Failed,
            (Outcome::Failed { .. }, Direction::Undo) => SagaEvent::UndoFailed,
            (Outcome::Stale, Direction::Action) => SagaEvent::Stale,
            (Outcome::Stale, Direction::Undo) => SagaEvent::UndoStale,
        },
        (InboxEvent::Timer(_), Some(Ignored::TimerEarly)) => SagaEvent::EarlyTimer,
        (InboxEvent::Timer(_), Some(Ignored::TimerNotArmed | Ignored::SagaNotOpen)) => SagaEvent::OldTimer,
        (InboxEvent::Timer(timer), _) => match timer.kind {
            DeadlineKind::StepTimeout(_) => SagaEvent::StepTimeout,
            DeadlineKind::StepRetry(_) => SagaEvent::StepRetry,
            DeadlineKind::Saga => SagaEvent::SagaTimeout,
        },
        (InboxEvent::Operator { act: OperatorAct::Retry, .. }, _) => SagaEvent::OperatorRetry,
        (InboxEvent::Operator { act: OperatorAct::Undo, .. }, _) => SagaEvent::OperatorUndo,
        (InboxEvent::Activate { .. }, _) => SagaEvent::Activate,
        (InboxEvent::FoldVersion(_), _) => return None,
    })
}

/// How often a state meets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// [`ENOUGH_SEEDS`] meet it.
    Common,
    /// It takes [`MANY_SEEDS`].
    Rare,
    /// It cannot be, so meeting it is an error too: of the fold, or of what is said here.
    Never,
}

fn reach(state: SagaState, event: SagaEvent) -> Reach {
    use {SagaEvent as E, SagaState as S};
    match (state, event) {
        // Activations are about no saga; whether starts wait is what makes a difference to them.
        (S::Unknown | S::Parked, E::Activate) => Reach::Common,
        (_, E::Activate) => Reach::Never,
        // Nothing was asked: what answers all the same is forged, or answers a forged start.
        (S::Unknown, E::Refused | E::Failed | E::Stale | E::UndoFailed | E::UndoStale) => Reach::Rare,
        // No deadline is armed.
        (S::Unknown | S::Ended, E::StepTimeout | E::StepRetry | E::SagaTimeout | E::EarlyTimer) => Reach::Never,
        // The only deadline of a parked start is that of the saga, and no command was sent.
        (S::Parked, E::Start | E::SagaTimeout | E::OldTimer | E::EarlyTimer | E::OperatorRetry | E::OperatorUndo) => {
            Reach::Common
        }
        (S::Parked, _) => Reach::Never,
        // Undone and cancelled answer an undo. A saga with an armed retry is *pausing*.
        (S::Forward | S::Paused | S::PivotIssued | S::AfterPivot, E::Cancelled | E::Undone | E::UndoFailed) => {
            Reach::Never
        }
        (S::Forward, E::StepRetry) => Reach::Never,
        // What comes after the point of no return may not refuse.
        (S::AfterPivot, E::Refused) => Reach::Never,
        // A saga that is being undone has no deadline of its own any more, and few undos fail and wait.
        (S::Undoing | S::UndoPaused, E::SagaTimeout) | (S::Undoing, E::StepRetry) => Reach::Never,
        (S::UndoPaused, E::Failed | E::Stale | E::UndoStale | E::EarlyTimer) => Reach::Rare,
        // What has ended is forgotten, so nothing can contradict it.
        (S::Ended, E::Impossible) => Reach::Never,
        // An undo that failed is tried until it succeeds, so its answer is seldom late.
        (S::Ended, E::UndoFailed) => Reach::Rare,
        _ => Reach::Common,
    }
}

/// Counts over any number of seeds.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// State and event.
    pub pairs: BTreeMap<(SagaState, SagaEvent), u64>,
    /// Points passed.
    pub passed: BTreeMap<Point, u64>,
    /// Points at which a process died.
    pub died: BTreeMap<Point, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Named numbers: sagas, commits, fences and the like.
    pub numbers: BTreeMap<String, u64>,
}

impl Coverage {
    /// A state met an event.
    pub fn pair(&mut self, state: Option<SagaState>, event: &InboxEvent, ignored: Option<Ignored>) {
        if let (Some(state), Some(event)) = (state, event_of(event, ignored)) {
            *self.pairs.entry((state, event)).or_default() += 1;
        }
    }

    /// What a run of so many seeds should have met and did not (faults, points, deaths at points, pairs of a state and an
    /// event), and the pairs that it should not have met and did.
    pub fn surprises(&self, seeds: u64) -> Vec<String> {
        let farthest = match seeds {
            ..ENOUGH_SEEDS => None,
            ENOUGH_SEEDS..MANY_SEEDS => Some(Reach::Common),
            MANY_SEEDS.. => Some(Reach::Rare),
        };
        let faults = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|fault| fault.text());
        let points = Point::ALL.iter().filter(|point| !self.passed.contains_key(point)).map(|point| point.text());
        let is_forgetful = self.numbers.get(FORGETFUL_ORDERS).is_some_and(|orders| *orders > 0);
        let orders = (!is_forgetful).then_some(FORGETFUL_ORDERS);
        let unmet = faults.chain(points).chain(orders);
        let unmet = unmet.filter(|_| farthest.is_some()).map(|what| format!("never met: {what}"));
        let is_deadly = |point: &&Point| self.passed.get(point).is_some_and(|passed| *passed >= OFTEN);
        let undied = Point::ALL.iter().filter(is_deadly).filter(|point| !self.died.contains_key(point));
        let undied = undied.map(|point| format!("nobody died: {}", point.text()));
        let pairs = SagaState::ALL.iter().flat_map(|state| SagaEvent::ALL.iter().map(|event| (*state, *event)));
        let pairs = pairs.filter_map(|(state, event)| {
            let (reach, text) = (reach(state, event), format!("{} in state {}", event.text(), state.text()));
            match self.pairs.contains_key(&(state, event)) {
                true if reach == Reach::Never => Some(format!("met, and cannot be: {text}")),
                false if farthest.is_some_and(|farthest| reach <= farthest) => Some(format!("never met: {text}")),
                _ => None,
            }
        });
        unmet.chain(undied).chain(pairs).collect()
    }

    /// Adds to a named number.
    pub fn count(&mut self, name: &str, add: u64) {
        match self.numbers.get_mut(name) {
            Some(number) => *number += add,
            None => {
                self.numbers.insert(name.to_owned(), add);
            }
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *into.entry(key.clone()).or_default() += count;
            }
        }
        sum(&mut self.pairs, &other.pairs);
        sum(&mut self.passed, &other.passed);
        sum(&mut self.died, &other.died);
        sum(&mut self.faults, &other.faults);
        sum(&mut self.numbers, &other.numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_cannot_be_are_told() {
        let all = || SagaState::ALL.iter().flat_map(|state| SagaEvent::ALL.iter().map(|event| (*state, *event)));
        let mut met = Coverage {
            faults: Fault::ALL.iter().map(|fault| (*fault, 1)).collect(),
            passed: Point::ALL.iter().map(|point| (*point, 1)).collect(),
            pairs: all().filter(|pair| reach(pair.0, pair.1) == Reach::Common).map(|pair| (pair, 1)).collect(),
            numbers: BTreeMap::from([(FORGETFUL_ORDERS.to_owned(), 1)]),
            ..Coverage::default()
        };
        assert_eq!(met.surprises(ENOUGH_SEEDS), Vec::<String>::new());
        assert_eq!(met.surprises(MANY_SEEDS).len(), 10);
        met.pairs.insert((SagaState::Ended, SagaEvent::Impossible), 1);
        met.passed.pop_first();
        met.numbers.clear();
        let surprises = |seeds| met.surprises(seeds);
        assert_eq!(surprises(1), ["met, and cannot be: impossible in state ended"]);
        assert_eq!(surprises(ENOUGH_SEEDS).len(), 3);
        met.passed = Point::ALL.iter().map(|point| (*point, OFTEN)).collect();
        met.died = Point::ALL.iter().skip(1).map(|point| (*point, 1)).collect();
        let found = met.surprises(1);
        assert!(found[0] == format!("nobody died: {}", Point::ALL[0].text()) && found.len() == 2, "{found:?}");
    }
}

//! A definition: a named, versioned plan of steps. Data, never code.
//!
//! Identity is name, version and content hash. A saga keeps the text it started with, so the text travels in the
//! record that activates it and in checkpoints; what is parsed from it here is only derived.

mod check;
mod error;
mod hash;
mod shared;
mod yaml;

use std::fmt;
use std::sync::Arc;

pub use self::error::{DefinitionError, Problem};
pub use self::hash::DefinitionHash;

/// Steps of one definition. A step set is one machine word, and plans of people have a handful of steps.
pub const MAX_STEPS: usize = 64;
/// Length of one definition's text. It travels in one record per lane and lies in every checkpoint.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Length of a name: names become parts of topic names and of keys.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest deadline, timeout or pause that a definition may ask for: one week. Longer ones are typing errors.
pub const MAX_DURATION_MS: u64 = 7 * 24 * 3_600_000;
/// Timeout of a step whose definition names none: well above the usual answer, well below a client's patience.
pub const DEFAULT_STEP_TIMEOUT_MS: u64 = 5_000;
/// First pause after a failed attempt when the definition names none.
pub const DEFAULT_BACKOFF: Backoff = Backoff { first_ms: 100, max_ms: 10_000 };

/// Position of a step in [`Definition::steps`]. States name steps by it, records by name.
pub type StepIndex = usize;

/// Name and version; within one lane they stand for one text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionId {
    /// The definition's name.
    pub name: String,
    /// Its version; a lane takes only higher ones.
    pub version: u32,
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} v{}", self.name, self.version)
    }
}

/// A plan that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Name and version.
    pub id: DefinitionId,
    /// Hash of `text`.
    pub hash: DefinitionHash,
    /// The YAML text that all of this was read from.
    pub text: Arc<str>,
    /// Time that a saga has, from its start, before its undo begins.
    pub deadline_ms: u64,
    /// The steps, in the order of the text.
    pub steps: Vec<StepPlan>,
    /// The point of no return, when there is one.
    pub pivot: Option<StepIndex>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Unique in the definition.
    pub name: String,
    /// Who executes it; its commands travel on `<participant>.commands`.
    pub participant: Arc<str>,
    /// What the participant is to do, in its own words.
    pub operation: String,
    /// Whether it can be undone, and whether it may refuse.
    pub kind: StepKind,
    /// Steps that must be applied before this one is issued: the ones that the text names.
    pub after: StepSet,
    /// Steps whose outputs travel with this one's commands; all are ancestors.
    pub uses: StepSet,
    /// All steps that come before this one, directly or not.
    pub ancestors: StepSet,
    /// All steps that come after this one, directly or not.
    pub descendants: StepSet,
    /// Time for an answer.
    pub timeout_ms: u64,
    /// What happens when the answer is late.
    pub on_timeout: OnTimeout,
    /// Pauses after failed attempts.
    pub backoff: Backoff,
    /// Line of the step's participant in the text, for messages.
    pub participant_line: u64,
}

/// What a step is in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Can be undone; may refuse.
    Compensable,
    /// The point of no return: once issued, only its own refusal starts the undo.
    Pivot,
    /// Comes after the pivot: may be retried for ever, may not refuse.
    Retriable,
}

/// What to do with a step whose answer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// Start the undo of every issued step.
    Undo,
    /// Send the same command again and wait on.
    Wait,
}

/// Pauses between attempts of one command: doubling from the first to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Pause after the first failed attempt.
    pub first_ms: u64,
    /// Longest pause.
    pub max_ms: u64,
}

/// A set of steps of one definition.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StepSet(u64);

impl Definition {
    /// Reads and checks a text. `file_name` is only for messages.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, DefinitionError> {
        let raw = yaml::read(file_name, text)?;
        check::check(file_name, text, &raw)
    }

    /// The step with this name.
    pub fn step_index(&self, name: &str) -> Option<StepIndex> {
        self.steps.iter().position(|plan| plan.name == name)
    }

    /// Refuses a definition that names a participant which is not in the list.
    pub fn check_participants(&self, file_name: &str, known: &[&str]) -> Result<(), DefinitionError> {
        match self.steps.iter().find(|plan| !known.contains(&plan.participant.as_ref())) {
            None => Ok(()),
            Some(plan) => Err(DefinitionError {
                file: file_name.to_owned(),
                line: plan.participant_line,
                problem: Problem::UnknownParticipant {
                    step: plan.name.clone(),
                    participant: plan.participant.to_string(),
                },
            }),
        }
    }
}

impl StepPlan {
    /// Whether a business "no" to this step's action may be answered and recorded.
    pub fn may_refuse(&self) -> bool {
        self.kind != StepKind::Retriable
    }
}

impl Backoff {
    /// The pause after this many failed attempts (from 1).
    pub fn pause_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(63);
        self.first_ms.saturating_mul(1 << doublings).min(self.max_ms)
    }
}

impl StepSet {
    /// The set without steps.
    pub const EMPTY: Self = Self(0);

    /// Adds a step; positions that no definition can have are left out.
    pub fn insert(&mut self, step: StepIndex) {
        self.0 |= Self::bit(step);
    }

    /// Whether the step is in the set.
    pub fn contains(self, step: StepIndex) -> bool {
        self.0 & Self::bit(step) != 0
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no step is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The steps, ascending.
    pub fn iter(self) -> impl Iterator<Item = StepIndex> {
        (0..MAX_STEPS).filter(move |step| self.contains(*step))
    }

    fn bit(step: StepIndex) -> u64 {
        if step < MAX_STEPS { 1 << step } else { 0 }
    }
}

impl FromIterator<StepIndex> for StepSet {
    fn from_iter<I: IntoIterator<Item = StepIndex>>(steps: I) -> Self {
        let mut set = Self::EMPTY;
        for step in steps {
            set.insert(step);
        }
        set
    }
}

impl fmt::Debug for StepSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;

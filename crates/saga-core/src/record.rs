//! What travels: the records of the inbox, of the command topics and of the results topics.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ended::EndedSequences;
use crate::ids::{CommandId, Ordinal, SagaId, Starter, TraceContext};

/// Most bytes of the inputs of one start, together. A command carries one of them and every output that its step uses: with
/// this, [`MAX_OUTPUT_BYTES`] and as many steps as there may be, it still fits into one record.
pub const MAX_INPUTS_BYTES: usize = 256 * 1024;
/// Most bytes of the output of one step.
pub const MAX_OUTPUT_BYTES: usize = 8 * 1024;
/// Most bytes of a text for people, such as why something was refused, in a record.
pub const MAX_TEXT_BYTES: usize = 4 * 1024;

/// The text, or as much of it as may travel.
pub fn brief(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
}

/// Asks the orchestrator to run one saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The saga's id, chosen by the starter.
    pub saga: SagaId,
    /// Which start of this starter and lane it is.
    pub ordinal: Ordinal,
    /// Name of the definition to run; the lane's active version of it is taken.
    pub definition: String,
    /// One opaque input per step, by step name; at most [`MAX_INPUTS_BYTES`].
    pub inputs: BTreeMap<String, Bytes>,
    /// Topic that carries the result home (`order.results`).
    pub results_topic: String,
    /// The trace that the whole saga belongs to.
    pub trace: TraceContext,
}

/// Asks a participant for one step's action or undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The intent; the same in every attempt.
    pub id: CommandId,
    /// The saga's ordinal: names the step record and is compared with the floor.
    pub ordinal: Ordinal,
    /// What the participant is to do, in its own words (`reserve`).
    pub operation: String,
    /// The step's opaque input; an undo carries the input of its action.
    pub input: Bytes,
    /// Outputs of the steps named in `uses`, by step name.
    pub uses: BTreeMap<String, Bytes>,
    /// Whether a business "no" may be answered and recorded. When false, it is answered `Failed`.
    pub may_refuse: bool,
    /// The saga's trace.
    pub trace: TraceContext,
}

/// A business "no": final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable machine word (`out-of-stock`).
    pub code: String,
    /// A sentence for people.
    pub reason: String,
}

impl Refusal {
    /// The same in as many bytes as may travel.
    pub fn brief(self) -> Self {
        Self { code: brief(self.code), reason: brief(self.reason) }
    }
}

/// What a participant answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The action is done. The output is for later steps that `uses` this one.
    Applied {
        /// Opaque to the orchestrator; at most [`MAX_OUTPUT_BYTES`].
        output: Bytes,
    },
    /// The action will never be done; recorded.
    Refused(Refusal),
    /// The undo is done, or there was nothing to undo and never will be.
    Undone,
    /// An action that arrived after its undo: it will never be done.
    Cancelled,
    /// Undecided; nothing is recorded. The same command will be asked again.
    Failed {
        /// A sentence for people.
        reason: String,
    },
    /// The saga lies below the floor: it has ended, nothing was done.
    Stale,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The command that is answered.
    pub id: CommandId,
    /// The saga's ordinal, copied from the command.
    pub ordinal: Ordinal,
    /// The answer.
    pub outcome: Outcome,
}

/// Which deadline a timer record stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadlineKind {
    /// The step's answer is overdue.
    StepTimeout(String),
    /// The step's command is to be sent again after a technical failure.
    StepRetry(String),
    /// The whole saga is overdue.
    Saga,
}

/// A deadline that has passed, in log time. Counts only while the saga still has the deadline that `armed_by` armed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// The saga whose deadline it is.
    pub saga: SagaId,
    /// Which deadline.
    pub kind: DeadlineKind,
    /// Offset of the inbox record that armed the deadline.
    pub armed_by: i64,
}

/// What an operator may ask for a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAct {
    /// Send what is awaited again, now.
    Retry,
    /// Start the undo, unless a pivot has been issued.
    Undo,
}

/// Everything that can change a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboxEvent {
    /// A starter asks for a saga.
    Start(Start),
    /// A participant answers.
    Reply(Reply),
    /// A deadline has passed.
    Timer(Timer),
    /// An operator acts on a saga.
    Operator {
        /// The saga acted on.
        saga: SagaId,
        /// What to do.
        act: OperatorAct,
    },
    /// A definition becomes the lane's active one; the whole text travels.
    Activate {
        /// The definition's YAML text.
        text: String,
    },
    /// The lane's fold behaves like this version from here on.
    FoldVersion(u32),
}

/// One record of `saga.inbox`, as the fold sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRecord {
    /// Offset in the lane's partition.
    pub offset: i64,
    /// Log-append time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What happened.
    pub event: InboxEvent,
}

/// Says which sagas of a starter and lane have ended, so that participants may forget their step records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Whose sequences these are.
    pub starter: Starter,
    /// Everything that has ended.
    pub ended: EndedSequences,
}

/// One record of a participant's command topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandRecord {
    /// Work to do.
    Command(Command),
    /// Permission to forget.
    Floor(Floor),
}

/// Why a saga was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndoCause {
    /// A step refused.
    Refused,
    /// A deadline passed.
    TimedOut,
    /// The start could not be run (unknown step input, invalid definition …).
    Invalid,
    /// An operator asked for it.
    Operator,
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SagaOutcome {
    /// Every step is applied.
    Completed,
    /// Every step that was issued has been undone.
    Undone {
        /// What started the undo.
        cause: UndoCause,
        /// The step that refused or was late, when there is one.
        step: Option<String>,
        /// The refusal, or a code and sentence of our own (`timed-out`, `invalid`, `operator`).
        refusal: Refusal,
    },
}

/// The terminal outcome of a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaResult {
    /// The saga that ended.
    pub saga: SagaId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// How it ended.
    pub outcome: SagaOutcome,
    /// The saga's trace.
    pub trace: TraceContext,
}

/// Tells a starter that a saga is being undone and that this takes a while. It ends nothing: the result follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoNotice {
    /// The saga that has turned round.
    pub saga: SagaId,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// The saga's trace.
    pub trace: TraceContext,
}

/// One record of a results topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultRecord {
    /// A saga has ended.
    Ended(SagaResult),
    /// A saga is being undone.
    Undoing(UndoNotice),
}

impl ResultRecord {
    /// The saga it is about.
    pub fn saga(&self) -> SagaId {
        match self {
            Self::Ended(result) => result.saga,
            Self::Undoing(notice) => notice.saga,
        }
    }

    /// The saga's ordinal.
    pub fn ordinal(&self) -> &Ordinal {
        match self {
            Self::Ended(result) => &result.ordinal,
            Self::Undoing(notice) => &notice.ordinal,
        }
    }

    /// The saga's trace.
    pub fn trace(&self) -> &TraceContext {
        match self {
            Self::Ended(result) => &result.trace,
            Self::Undoing(notice) => &notice.trace,
        }
    }
}

/// The topic that tells a starter about its sagas.
pub fn results_topic(starter_name: &str) -> String {
    format!("{starter_name}.results")
}

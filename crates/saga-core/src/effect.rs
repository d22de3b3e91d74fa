//! What the fold asks the shell to do, and what it chose to ignore.

use std::sync::Arc;

use crate::definition::DefinitionId;
use crate::ids::{Direction, Ordinal, SagaId};
use crate::record::{Command, ResultRecord};
use crate::saga::AttentionCause;

/// What one record led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be performed, in this order.
    pub effects: Vec<Effect>,
    /// Why the record changed the course of no saga, if so. Then no command and no result comes of it.
    pub ignored: Option<Ignored>,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a command to `<participant>.commands`, in the lane's partition.
    Command {
        /// The participant.
        participant: Arc<str>,
        /// The command.
        command: Command,
    },
    /// Tell the starter how a saga ended, or that it is being undone.
    Result {
        /// The results topic that the start named.
        topic: String,
        /// What to tell.
        record: ResultRecord,
    },
    /// Tell a person. Has no effect on any saga.
    Alarm(Alarm),
}

/// Something that must not happen, or that a person must know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// A start carries an ordinal that another open saga holds: the starter's store was copied or has lost its tail.
    #[error("ordinal {}:{} is held by saga {holder}, not by {saga}", ordinal.starter, ordinal.sequence)]
    OrdinalHeld {
        /// The ordinal.
        ordinal: Ordinal,
        /// The saga that holds it.
        holder: SagaId,
        /// The saga that claims it.
        saga: SagaId,
    },
    /// A start carries the id of an open saga and another ordinal. It is not answered: a result under this id would be
    /// taken for the open saga's.
    #[error("saga {saga} is open, a start claims its id for ordinal {}:{}", ordinal.starter, ordinal.sequence)]
    SagaIdReused {
        /// The id.
        saga: SagaId,
        /// The ordinal of the second start.
        ordinal: Ordinal,
    },
    /// A start lies in another lane than its ordinal says.
    #[error("start of saga {saga} belongs to lane {}", ordinal.lane)]
    WrongLane {
        /// The saga.
        saga: SagaId,
        /// Its ordinal.
        ordinal: Ordinal,
    },
    /// A limit of the lane is reached; the start ended as refused.
    #[error("start of saga {saga} refused, the lane is at its limit: {limit}")]
    LaneFull {
        /// The saga.
        saga: SagaId,
        /// Which limit.
        limit: &'static str,
    },
    /// An answer that contradicts what is known of the step: its participant has forgotten what it acknowledged.
    #[error("saga {saga}, step {step}, {direction:?}: {answered} contradicts {known}")]
    Contradiction {
        /// The saga.
        saga: SagaId,
        /// The step.
        step: String,
        /// The command that was answered.
        direction: Direction,
        /// What was known.
        known: &'static str,
        /// What was answered.
        answered: &'static str,
    },
    /// An answer that no command can have: never sent, unknown step, another ordinal, an outcome of the other
    /// direction.
    #[error("saga {saga}, step {step}: impossible reply, {why}")]
    ImpossibleReply {
        /// The saga.
        saga: SagaId,
        /// The step that the reply names.
        step: String,
        /// What is impossible.
        why: &'static str,
    },
    /// A saga has begun to need attention.
    #[error("saga {saga}, step {step} needs attention: {cause:?}")]
    NeedsAttention {
        /// The saga.
        saga: SagaId,
        /// The step.
        step: String,
        /// What is wrong.
        cause: AttentionCause,
    },
    /// An activation whose text is no definition.
    #[error("activation ignored: {0}")]
    DefinitionInvalid(String),
    /// Two texts with one name and version.
    #[error("definition {0} is known with another text")]
    DefinitionConflict(DefinitionId),
    /// A fold version that this program does not know. The lane must halt on this process; nothing was changed.
    #[error("fold version {0} is not known to this program")]
    UnknownFoldVersion(u32),
}

/// Why a record led to nothing. Closed: a new reason is a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// The record lies before the next one: it was folded already.
    AlreadyFolded,
    /// A second start of a saga that is open or parked.
    DuplicateStart,
    /// A start whose sequence has ended.
    StartOfEnded,
    /// A start that contradicts an open one (alarmed): ordinal held, id reused or wrong lane.
    StartContradicts,
    /// The saga is not open in this lane: it has ended, or it never started.
    SagaNotOpen,
    /// A *stale* answer for a saga that is not open, which is what stale means.
    StaleOfEnded,
    /// A *stale* answer for an open saga (alarmed).
    StaleOfOpen,
    /// The same answer again.
    DuplicateReply,
    /// An action's answer after the undo began: it is kept as knowledge and changes nothing.
    LateReply,
    /// A failure of an earlier attempt, after the answer.
    LateFailure,
    /// An answer that contradicts an earlier one (alarmed).
    Contradiction,
    /// An answer that no command can have (alarmed).
    ImpossibleReply,
    /// A timer of a deadline that the saga no longer has.
    TimerNotArmed,
    /// A timer whose time has not come in log time: the shell must send it again later.
    TimerEarly,
    /// The deadline passed, but the pivot is issued and nothing is undone.
    PivotIssued,
    /// An operator's undo of a saga that is being undone.
    AlreadyUndoing,
    /// An operator's act on a parked start that cannot be retried.
    StartParked,
    /// An activation whose version is not above the lane's.
    DefinitionNotNewer,
    /// An activation that cannot be used (alarmed).
    DefinitionInvalid,
    /// The lane knows as many definitions as it may (alarmed).
    TooManyDefinitions,
    /// A fold version that is not above the lane's.
    FoldVersionNotNewer,
    /// A fold version that this program does not know (alarmed): the lane must halt.
    FoldVersionUnknown,
}

//! Why a text is no definition, with file and line.

/// A definition that cannot be used, and where it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct DefinitionError {
    /// The file's name, as given.
    pub file: String,
    /// Line in the file, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not YAML, an unknown or missing field, or a value of the wrong type.
    #[error("{0}")]
    Yaml(String),
    /// The text is longer than a record should carry.
    #[error("the text has {bytes} bytes, the limit is {limit}")]
    TextTooLong {
        /// Length found.
        bytes: usize,
        /// Length allowed.
        limit: usize,
    },
    /// A name that cannot become part of a topic name or of a key.
    #[error("`{0}` is no name: 1 to 64 of a-z, 0-9 and `-`, beginning with a letter")]
    BadName(String),
    /// A number outside its bounds.
    #[error("`{field}` is {value}, it must be from {min} to {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value found.
        value: u64,
        /// Lowest value allowed.
        min: u64,
        /// Highest value allowed.
        max: u64,
    },
    /// The first pause is longer than the longest one.
    #[error("`first_ms` ({first_ms}) is above `max_ms` ({max_ms})")]
    BackoffShrinks {
        /// First pause.
        first_ms: u64,
        /// Longest pause.
        max_ms: u64,
    },
    /// A plan without steps.
    #[error("a definition needs at least one step")]
    NoSteps,
    /// More steps than a state can hold.
    #[error("{count} steps, the limit is {limit}")]
    TooManySteps {
        /// Steps found.
        count: usize,
        /// Steps allowed.
        limit: usize,
    },
    /// Two steps with one name.
    #[error("step `{0}` is defined twice")]
    DuplicateStep(String),
    /// `after` or `uses` names no step of this definition.
    #[error("step `{step}` names `{named}` in `{field}`, which is no step of this definition")]
    UnknownStep {
        /// The step that names it.
        step: String,
        /// `after` or `uses`.
        field: &'static str,
        /// The name.
        named: String,
    },
    /// A step comes after itself.
    #[error("step `{0}` comes after itself")]
    Cycle(String),
    /// `uses` names a step that may not have answered yet.
    #[error("step `{step}` uses `{named}`, which does not come before it")]
    UsesNotBefore {
        /// The step that uses.
        step: String,
        /// The step used.
        named: String,
    },
    /// Two points of no return.
    #[error("`{second}` is a second pivot, `{first}` is one already")]
    SecondPivot {
        /// The pivot above it.
        first: String,
        /// The one too many.
        second: String,
    },
    /// A step that may refuse could run beside or after the point of no return.
    #[error("compensable step `{step}` does not come before the pivot `{pivot}`")]
    CompensableNotBeforePivot {
        /// The step.
        step: String,
        /// The pivot.
        pivot: String,
    },
    /// A step that may not refuse could run before the point of no return.
    #[error("retriable step `{step}` does not come after the pivot `{pivot}`")]
    RetriableNotAfterPivot {
        /// The step.
        step: String,
        /// The pivot.
        pivot: String,
    },
    /// Without a pivot every step must be compensable.
    #[error("retriable step `{0}` needs a pivot before it")]
    RetriableWithoutPivot(String),
    /// Once a pivot is issued, a timeout starts no undo.
    #[error("step `{0}` is no compensable one, so its `on_timeout` must be `wait`")]
    UndoAfterPivot(String),
    /// Nobody executes the step.
    #[error("step `{step}` is for participant `{participant}`, which is not known")]
    UnknownParticipant {
        /// The step.
        step: String,
        /// The participant.
        participant: String,
    },
}

//! The shape of the text, with the line of everything that a later check may complain about.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::error::{DefinitionError, Problem};
use super::{MAX_TEXT_BYTES, OnTimeout, StepKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDefinition {
    pub(super) name: Spanned<String>,
    pub(super) version: Spanned<u64>,
    pub(super) deadline_ms: Spanned<u64>,
    pub(super) steps: Spanned<Vec<RawStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    pub(super) name: Spanned<String>,
    pub(super) participant: Spanned<String>,
    pub(super) operation: Option<Spanned<String>>,
    pub(super) kind: Option<StepKind>,
    #[serde(default)]
    pub(super) after: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) uses: Vec<Spanned<String>>,
    pub(super) timeout_ms: Option<Spanned<u64>>,
    pub(super) on_timeout: Option<Spanned<OnTimeout>>,
    pub(super) backoff: Option<RawBackoff>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackoff {
    pub(super) first_ms: Spanned<u64>,
    pub(super) max_ms: Spanned<u64>,
}

/// Reads the text into its shape.
pub(super) fn read(file_name: &str, text: &str) -> Result<RawDefinition, DefinitionError> {
    let error = |line, problem| DefinitionError { file: file_name.to_owned(), line, problem };
    if text.len() > MAX_TEXT_BYTES {
        let bytes = text.len();
        let limit = MAX_TEXT_BYTES;
        return Err(error(1, Problem::TextTooLong { bytes, limit }));
    }
    serde_saphyr::from_str(text).map_err(|cause| {
        let line = cause.location().map_or(1, |location| location.line().max(1));
        // The location and a picture of the text are for terminals; here the line is a field of its own.
        error(line, Problem::Yaml(first_line(&cause.without_snippet().to_string())))
    })
}

/// The line that a value stands on.
pub(super) fn line<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line().max(1)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

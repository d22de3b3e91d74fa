//! One parsed definition for each text in a process: every lane meets the same few, in records and in checkpoints.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Definition, DefinitionError};

/// Most texts kept in mind; a process runs a handful.
const MAX_KEPT: usize = 256;

/// Says only what reading the text again would say: a text has one meaning.
static KEPT: RwLock<BTreeMap<Arc<str>, Arc<Definition>>> = RwLock::new(BTreeMap::new());

impl Definition {
    /// The same as [`parse`](Self::parse), with one copy for all who read the same text at the same time.
    pub fn parse_shared(file_name: &str, text: &str) -> Result<Arc<Self>, DefinitionError> {
        if let Some(known) = KEPT.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Ok(known.clone());
        }
        let read = Arc::new(Self::parse(file_name, text)?);
        let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        Ok(kept.entry(read.text.clone()).or_insert(read).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: usize) -> String {
        let step = "{ name: a, participant: stock, operation: take, on_timeout: wait }";
        format!("name: shared\nversion: {version}\ndeadline_ms: 1000\nsteps:\n  - {step}\n")
    }

    #[test]
    fn one_text_is_one_definition_and_never_too_many_are_kept() {
        let first = Definition::parse_shared("one", &text(1)).expect("is right");
        let again = Definition::parse_shared("two", &text(1)).expect("is right");
        assert!(Arc::ptr_eq(&first, &again) && *first == Definition::parse("one", &text(1)).expect("is right"));
        for version in 1..2 * MAX_KEPT {
            let read = Definition::parse_shared("one", &text(version)).expect("is right");
            assert_eq!((read.id.version as usize, &*read.text), (version, text(version).as_str()));
            assert!(KEPT.read().expect("nobody panics").len() <= MAX_KEPT);
        }
    }

    #[test]
    fn a_mistake_names_the_file_it_is_in_each_time() {
        for file in ["one.yaml", "two.yaml"] {
            let error = Definition::parse_shared(file, "name: shared").expect_err("has no steps");
            assert_eq!(error.file, file);
        }
    }
}

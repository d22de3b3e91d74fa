//! A definition becomes the lane's active one, and the starts that waited for it run.

use super::{At, Verdict};
use crate::definition::Definition;
use crate::effect::{Alarm, Effect, Ignored};
use crate::ids::SagaId;
use crate::lane::{LaneState, MAX_DEFINITIONS};

impl LaneState {
    pub(super) fn activate(&mut self, text: &str, at: At, effects: &mut Vec<Effect>) -> Verdict {
        let definition = match Definition::parse_shared("activation", text) {
            Ok(definition) => definition,
            Err(error) => {
                effects.push(Effect::Alarm(Alarm::DefinitionInvalid(error.to_string())));
                return Err(Ignored::DefinitionInvalid);
            }
        };
        self.check_newer(&definition, effects)?;
        self.definitions.insert(definition.clone());
        self.marks.definitions_changed();
        for id in self.waiting_for(&definition.id.name) {
            if let Some(parked) = self.parked.remove(&id) {
                self.deadlines.remove(&parked.timer());
                self.run(&parked.start, &definition, at, effects);
            }
        }
        Ok(())
    }

    fn check_newer(&self, definition: &Definition, effects: &mut Vec<Effect>) -> Verdict {
        let active = self.definitions.active(&definition.id.name);
        if active.is_some_and(|active| definition.id.version <= active.id.version) {
            let known = self.definitions.get(&definition.id);
            if known.is_some_and(|known| known.hash != definition.hash) {
                effects.push(Effect::Alarm(Alarm::DefinitionConflict(definition.id.clone())));
            }
            return Err(Ignored::DefinitionNotNewer);
        }
        // A version that nobody runs makes room for the one that follows it.
        let replaces = active.is_some_and(|active| self.definitions.open_sagas(&active.id) == 0);
        if !replaces && self.definitions.len() >= MAX_DEFINITIONS {
            let error = format!("{}: the lane knows {MAX_DEFINITIONS} definitions", definition.id);
            effects.push(Effect::Alarm(Alarm::DefinitionInvalid(error)));
            return Err(Ignored::TooManyDefinitions);
        }
        Ok(())
    }

    /// The parked starts of a definition, in the order in which they came.
    fn waiting_for(&self, name: &str) -> Vec<SagaId> {
        let mut waiting: Vec<(i64, SagaId)> = self
            .parked
            .values()
            .filter(|parked| parked.start.definition == name)
            .map(|parked| (parked.deadline.armed_by, parked.start.saga))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, saga)| saga).collect()
    }
}

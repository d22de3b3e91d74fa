//! The definitions that a lane knows: per name the active version, and older ones while open sagas run them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::definition::{Definition, DefinitionId};

/// Definitions by name and version. The highest version of a name is the active one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionTable {
    known: BTreeMap<DefinitionId, Known>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    definition: Arc<Definition>,
    /// Open sagas that run it.
    open_sagas: usize,
}

impl DefinitionTable {
    /// The version that a new start of this name takes.
    pub fn active(&self, name: &str) -> Option<&Arc<Definition>> {
        // The highest version sorts last among those of the name.
        let range = Self::first_id(name)..=Self::last_id(name);
        self.known.range(range).next_back().map(|(_, known)| &known.definition)
    }

    /// One version, active or still in use.
    pub fn get(&self, id: &DefinitionId) -> Option<&Arc<Definition>> {
        self.known.get(id).map(|known| &known.definition)
    }

    /// All versions known, by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> + '_ {
        self.known.values().map(|known| &known.definition)
    }

    /// How many versions are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Open sagas that run this version.
    pub fn open_sagas(&self, id: &DefinitionId) -> usize {
        self.known.get(id).map_or(0, |known| known.open_sagas)
    }

    /// Every participant of a known definition: those who are told floors.
    pub fn participants(&self) -> BTreeSet<Arc<str>> {
        self.iter().flat_map(|definition| definition.steps.iter().map(|plan| plan.participant.clone())).collect()
    }

    /// Takes a version in and drops the ones of the same name that nobody runs any more.
    pub(crate) fn insert(&mut self, definition: Arc<Definition>) {
        let open_sagas = self.open_sagas(&definition.id);
        let name = definition.id.name.clone();
        self.known.insert(definition.id.clone(), Known { definition, open_sagas });
        self.drop_unused(&name);
    }

    /// Puts a version back that a checkpoint holds; the sagas that run it are counted as they are put back.
    pub(crate) fn restore(&mut self, definition: Arc<Definition>) {
        let open_sagas = 0;
        self.known.insert(definition.id.clone(), Known { definition, open_sagas });
    }

    /// Counts a saga that starts with this version.
    pub(crate) fn saga_opened(&mut self, id: &DefinitionId) {
        if let Some(known) = self.known.get_mut(id) {
            known.open_sagas += 1;
        }
    }

    /// Counts a saga that has ended; true if its version is forgotten by that.
    pub(crate) fn saga_ended(&mut self, id: &DefinitionId) -> bool {
        match self.known.get_mut(id) {
            Some(known) if known.open_sagas > 1 => {
                known.open_sagas -= 1;
                false
            }
            Some(known) => {
                known.open_sagas = 0;
                self.drop_unused(&id.name)
            }
            None => false,
        }
    }

    fn drop_unused(&mut self, name: &str) -> bool {
        let Some(active) = self.active(name).map(|definition| definition.id.clone()) else {
            return false;
        };
        let before = self.known.len();
        self.known.retain(|id, known| id.name != name || *id == active || known.open_sagas > 0);
        self.known.len() < before
    }

    fn first_id(name: &str) -> DefinitionId {
        DefinitionId { name: name.to_owned(), version: 0 }
    }

    fn last_id(name: &str) -> DefinitionId {
        DefinitionId { name: name.to_owned(), version: u32::MAX }
    }
}

//! The folder of definitions: read and checked at start, so that a mistake ends the process before it owns a lane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use saga_core::definition::Definition;
use service_kit::process::BadConfiguration;

/// What is to be active: by name, the highest version in the folder.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    wanted: BTreeMap<String, Arc<Definition>>,
}

impl Definitions {
    /// Reads every `*.yaml` file of the folder. Each must be right, and name only `participants`.
    pub fn load(folder: &Path, participants: &[String]) -> Result<Self, BadConfiguration> {
        let known: Vec<&str> = participants.iter().map(String::as_str).collect();
        let mut definitions = Self::default();
        for path in yaml_files(folder)? {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|cause| BadConfiguration(format!("{file}: {cause}")))?;
            let definition = Definition::parse(&file, &text).map_err(|cause| BadConfiguration(cause.to_string()))?;
            definition.check_participants(&file, &known).map_err(|cause| BadConfiguration(cause.to_string()))?;
            definitions.add(&file, definition)?;
        }
        if definitions.wanted.is_empty() {
            return Err(BadConfiguration(format!("no definition (*.yaml) in {}", folder.display())));
        }
        Ok(definitions)
    }

    /// These, as if they had been read from a folder: of each name the highest version is wanted.
    pub fn of(definitions: impl IntoIterator<Item = Arc<Definition>>) -> Self {
        let mut wanted: BTreeMap<String, Arc<Definition>> = BTreeMap::new();
        for definition in definitions {
            let name = definition.id.name.clone();
            if wanted.get(&name).is_none_or(|other| other.id.version < definition.id.version) {
                wanted.insert(name, definition);
            }
        }
        Self { wanted }
    }

    /// The definitions that every lane is to know, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.wanted.values()
    }

    fn add(&mut self, file: &str, definition: Definition) -> Result<(), BadConfiguration> {
        match self.wanted.get(&definition.id.name) {
            Some(other) if other.id.version == definition.id.version => {
                Err(BadConfiguration(format!("{file}: {} is defined twice in this folder", definition.id)))
            }
            Some(other) if other.id.version > definition.id.version => Ok(()),
            Some(_) | None => {
                self.wanted.insert(definition.id.name.clone(), Arc::new(definition));
                Ok(())
            }
        }
    }
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, BadConfiguration> {
    let unreadable = |cause: std::io::Error| BadConfiguration(format!("{}: {cause}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(version: u32, participant: &str) -> String {
        format!(
            "name: buy\nversion: {version}\ndeadline_ms: 1000\nsteps:\n  - name: reserve\n    participant: {participant}\n"
        )
    }

    fn load(files: &[(&str, String)]) -> Result<Definitions, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let root = format!("{}/", folder.path().display());
        Definitions::load(folder.path(), &["stock".to_owned()]).map_err(|error| error.0.replace(&root, ""))
    }

    #[test]
    fn the_highest_version_of_a_name_is_wanted() {
        let files = [("b.yaml", plan(1, "stock")), ("a.yaml", plan(2, "stock")), ("notes.txt", "no".to_owned())];
        let versions: Vec<u32> = load(&files).unwrap().iter().map(|definition| definition.id.version).collect();
        assert_eq!(versions, [2]);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let unknown = load(&[("a.yaml", plan(1, "bank"))]).unwrap_err();
        assert!(unknown.starts_with("a.yaml:6: ") && unknown.contains("bank"), "{unknown}");
        let broken = load(&[("a.yaml", "name: buy\nversion: many\n".to_owned())]).unwrap_err();
        assert!(broken.starts_with("a.yaml:2: "), "{broken}");
        let twice = load(&[("a.yaml", plan(1, "stock")), ("b.yaml", plan(1, "stock"))]).unwrap_err();
        assert_eq!(twice, "b.yaml: buy v1 is defined twice in this folder");
        assert!(load(&[]).unwrap_err().starts_with("no definition"));
    }
}

//! The members of the workspace and what they depend on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::Table;

/// One member of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What it depends on, of every kind and for every target.
    pub dependencies: Vec<Dependency>,
}

/// One dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the package that is meant, also when it is renamed.
    pub name: String,
    /// What needs it.
    pub kind: Kind,
}

/// What needs a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The crate itself.
    Normal,
    /// Its tests.
    Dev,
    /// Its build script.
    Build,
}

const TABLES: [(&str, Kind); 3] =
    [("dependencies", Kind::Normal), ("dev-dependencies", Kind::Dev), ("build-dependencies", Kind::Build)];

/// Reads the manifests of all members.
pub fn read_workspace(root: &Path) -> anyhow::Result<Vec<Package>> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let members = workspace.get("workspace").and_then(|table| table.get("members")).and_then(|list| list.as_array());
    members
        .context("the root manifest lists no members")?
        .iter()
        .map(|member| {
            let folder = root.join(member.as_str().context("a member is no text")?);
            package(&read(&folder.join("Cargo.toml"))?, folder)
        })
        .collect()
}

/// The package that a manifest describes.
pub fn package(manifest: &Table, folder: PathBuf) -> anyhow::Result<Package> {
    let name = manifest.get("package").and_then(|table| table.get("name")).and_then(|name| name.as_str());
    let name = name.with_context(|| format!("no package name in {}", folder.display()))?.to_owned();
    let mut dependencies = dependencies_of(manifest);
    let targets = manifest.get("target").and_then(|table| table.as_table());
    for target in targets.into_iter().flat_map(|targets| targets.values()).filter_map(|target| target.as_table()) {
        dependencies.extend(dependencies_of(target));
    }
    Ok(Package { name, folder, dependencies })
}

fn dependencies_of(table: &Table) -> Vec<Dependency> {
    let mut found = Vec::new();
    for (key, kind) in TABLES {
        let entries = table.get(key).and_then(|entries| entries.as_table());
        for (name, value) in entries.into_iter().flatten() {
            let meant = value.get("package").and_then(|package| package.as_str()).unwrap_or(name);
            found.push(Dependency { name: meant.to_owned(), kind });
        }
    }
    found
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse().with_context(|| format!("parse {}", path.display()))
}

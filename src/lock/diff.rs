//! What changed between two locks, by name: for summaries.

use std::collections::{BTreeMap, BTreeSet};

use uv_normalize::PackageName;

use super::Lock;

/// One name's change. Versions are as the locks write them, ascending.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    pub name: String,
    /// Empty: the name is new.
    pub was: Vec<String>,
    /// Empty: the name is gone.
    pub is: Vec<String>,
}

/// The names whose versions differ, sorted.
pub fn diff(old: Option<&Lock>, new: &Lock) -> Vec<Change> {
    let (was, is) = (old.map(versions).unwrap_or_default(), versions(new));
    let names: BTreeSet<&PackageName> = was.keys().chain(is.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| was.get(name) != is.get(name))
        .map(|name| Change {
            name: name.to_string(),
            was: was.get(name).cloned().unwrap_or_default(),
            is: is.get(name).cloned().unwrap_or_default(),
        })
        .collect()
}

fn versions(lock: &Lock) -> BTreeMap<&PackageName, Vec<String>> {
    let mut versions: BTreeMap<&PackageName, Vec<String>> = BTreeMap::new();
    for package in &lock.packages {
        let version = package
            .version
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        versions.entry(&package.name).or_default().push(version);
    }
    versions
}

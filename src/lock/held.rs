//! What is worth remembering of a lock that held: the same text asked the same again by the same program needs no reading.
//!
//! The key is all that the judgement depends on: the lock's bytes, what is wanted, and who judges. Nothing is remembered of locks that
//! were refused or had to change.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use uv_pep508::MarkerTree;

use super::Lock;
use super::satisfies::Wanted;
use crate::digest::Hasher;

/// What a command tells of a lock that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub packages: usize,
    pub python: Option<String>,
}

impl Held {
    pub fn of(lock: &Lock) -> Self {
        Self {
            packages: lock.packages.len(),
            python: lock.mlrails.python.map(|python| python.to_string()),
        }
    }
}

/// The key under which a command may remember that a lock of this `text` holds for `wanted`.
pub fn key(text: &[u8], wanted: &Wanted) -> String {
    let mut asked = program();
    let mut line = |what: &str, value: &dyn std::fmt::Display| {
        // A value with a line end of its own cannot pass for two: its length stands before it.
        let value = value.to_string();
        let _ = writeln!(asked, "{what} {} {value}", value.len());
    };
    if let Some(specifiers) = &wanted.requires_python {
        line("requires-python", specifiers);
    }
    for marker in &wanted.environments {
        line("environment", &shown(*marker));
    }
    for extra in &wanted.extras {
        line("extra", extra);
    }
    for group in &wanted.groups {
        line("group", group);
    }
    for group in &wanted.default_groups {
        line("default-group", group);
    }
    for (scope, requirement) in &wanted.requirements {
        line("scope", &format!("{scope:?}"));
        line("requires", requirement);
    }
    for option in &wanted.options {
        line("option", option);
    }
    let mut hasher = Hasher::new();
    hasher.update(asked.as_bytes());
    hasher.update(text);
    hasher.finish().hex()
}

fn shown(marker: MarkerTree) -> String {
    marker
        .try_to_string()
        .unwrap_or_else(|| format!("{}", marker.is_true()))
}

/// This very binary: another build may judge otherwise.
fn program() -> String {
    let file = std::env::current_exe().and_then(|path| path.metadata()).ok();
    let file = file.map(|file| (file.size(), file.mtime(), file.mtime_nsec()));
    format!("{} {file:?}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_otherwise_has_another_key() {
        let wanted = |options: &[&str], requires: &[&str]| Wanted {
            options: options.iter().map(ToString::to_string).collect(),
            requirements: requires
                .iter()
                .map(|text| (crate::lock::reach::Scope::Project, text.parse().unwrap()))
                .collect(),
            ..Wanted::default()
        };
        let plain = key(b"text", &wanted(&["a"], &["x"]));
        assert_eq!(key(b"text", &wanted(&["a"], &["x"])), plain);
        for other in [
            key(b"other", &wanted(&["a"], &["x"])),
            key(b"text", &wanted(&["b"], &["x"])),
            key(b"text", &wanted(&["a", "b"], &["x"])),
            key(b"text", &wanted(&["a\noption 1 b"], &["x"])),
            key(b"text", &wanted(&["a"], &["x>1"])),
            key(b"text", &wanted(&["a"], &["x; sys_platform == 'linux'"])),
        ] {
            assert_ne!(other, plain);
        }
    }
}

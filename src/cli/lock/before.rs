//! What was chosen before: by the lock that is there, or by other tools' files.

use std::path::Path;

use super::Args;
use crate::cli::{Failure, Session};
use crate::lock::{Lock, Source};
use crate::project::{Manifest, reading};
use crate::resolve::Preferences;

/// What was chosen before: the lock, then what other tools' files pin.
pub(super) fn preferences(
    manifest: &Manifest,
    old: Option<&Lock>,
    args: &Args,
    session: &Session,
) -> Result<Preferences, Failure> {
    if args.upgrade {
        return Ok(Preferences::default());
    }
    let mut preferences = match old {
        Some(old) => Preferences::from_lock(old, &args.upgrade_package),
        None => Preferences::default(),
    };
    if !args.upgrade_package.is_empty() {
        return Ok(preferences);
    }
    for name in other_locks(&manifest.root) {
        // A link that leads out of the project, a pipe: as wrong here as anywhere.
        if let Some(source) = reading::text(&manifest.root, Path::new(&name), reading::RECORD_LIMIT)?
            && let Err(why) = preferences.add_text(&name, &source.text)
        {
            let line = format!("{name} is not understood, so its versions are not preferred: {why}");
            session.printer().warn(&line);
        }
    }
    Ok(preferences)
}

fn other_locks(root: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            name == "uv.lock"
                || name == "poetry.lock"
                || (name.starts_with("requirements") && name.ends_with(".txt"))
        })
        .collect();
    found.sort();
    found
}

/// Import names of versions that did not move are known already; what a folder or a repository holds is not told by its version.
pub(super) fn keep_imports(old: &Lock, new: &mut Lock) {
    for package in &mut new.packages {
        let known = old
            .packages
            .iter()
            .find(|known| known.name == package.name && known.version == package.version)
            .filter(|known| match &package.source {
                Source::Files { .. } => true,
                Source::Archive(_) | Source::Vcs { .. } => known.source == package.source,
                Source::Directory { .. } => false,
            });
        if let Some(known) = known.filter(|_| package.imports.is_empty()) {
            package.imports = known.imports.clone();
            package.built = known.built.clone();
        }
    }
}

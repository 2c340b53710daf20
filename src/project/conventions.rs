//! Where things are in a project: the package, its phases, sql/*.sql, .python-version.
//!
//! Source: docs/decisions/conventions.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uv_normalize::PackageName;

use super::mistake::{Mistake, Rule};
use super::place::SourceText;
use super::reading;
use super::source::graph::Phase;
use super::source::is_identifier;

/// The package's import name: `my-churn` -> `my_churn`.
pub fn module_name(name: &PackageName) -> String {
    name.as_dist_info_name().into_owned()
}

/// The package's folder, relative to `root`: `src/churn`, or `churn`. Where `may_be_file`, a module `churn.py` in either place will do.
pub fn package(root: &Path, module: &str, may_be_file: bool, mistakes: &mut Vec<Mistake>) -> Option<PathBuf> {
    let candidates = [Path::new("src").join(module), PathBuf::from(module)];
    let mut found = Vec::new();
    for candidate in &candidates {
        match folder(root, candidate) {
            Ok(true) => found.push(candidate.clone()),
            Ok(false) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let files = candidates.each_ref().map(|path| path.with_extension("py"));
    if found.is_empty() && may_be_file {
        for file in &files {
            match reading::locate(root, file) {
                Ok(Some(_)) => return Some(file.clone()),
                Ok(None) => {}
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    match found.as_slice() {
        [] => {
            let files = files.iter().filter(|_| may_be_file);
            let rule = Rule::NoPackage {
                module: module.to_owned(),
                looked: candidates
                    .iter()
                    .map(|path| format!("{}/", path.display()))
                    .chain(files.map(|path| path.display().to_string()))
                    .collect(),
                others: others(root),
            };
            mistakes.push(Mistake::new(rule));
            None
        }
        [one] => Some(one.clone()),
        [first, second, ..] => {
            let rule = Rule::TwoPackages {
                first: first.display().to_string(),
                second: second.display().to_string(),
            };
            mistakes.push(Mistake::new(rule));
            Some(first.clone())
        }
    }
}

/// Folders with a phase in them that could be the package under another name: all of src/, and of the project's folder itself.
fn others(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for parent in ["src", ""] {
        let Ok(entries) = std::fs::read_dir(root.join(parent)) else {
            continue;
        };
        for entry in entries.flatten() {
            let relative = Path::new(parent).join(entry.file_name());
            let has_phase = || {
                Phase::MODULES.iter().any(|(_, phase)| {
                    let inside = entry.path().join(phase);
                    inside.with_extension("py").is_file() || inside.join("__init__.py").is_file()
                })
            };
            let is_module = entry.file_name().to_str().is_some_and(is_identifier);
            if is_module && folder(root, &relative).unwrap_or(false) && has_phase() {
                found.push(relative.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Whether `relative` is a folder of the project, and not a link to somewhere else.
fn folder(root: &Path, relative: &Path) -> Result<bool, Mistake> {
    let path = root.join(relative);
    let Ok(status) = std::fs::symlink_metadata(&path) else {
        return Ok(false);
    };
    if status.is_symlink() || path.canonicalize().is_ok_and(|real| !real.starts_with(root)) {
        return Err(Mistake::new(Rule::Symlink {
            path: relative.to_path_buf(),
            why: "and the package must be a folder".to_owned(),
        }));
    }
    Ok(status.is_dir())
}

/// Notes phases that are both `data.py` and `data/`: Python would import the folder and ignore the file.
pub fn phases(root: &Path, package: &Path, mistakes: &mut Vec<Mistake>) {
    for (_, phase) in Phase::MODULES {
        let file = root.join(package).join(format!("{phase}.py"));
        let folder = root.join(package).join(phase);
        let has_python = || {
            std::fs::read_dir(&folder).is_ok_and(|entries| {
                entries.flatten().any(|entry| {
                    entry
                        .path()
                        .extension()
                        .is_some_and(|extension| extension == "py")
                })
            })
        };
        if file.symlink_metadata().is_ok() && folder.is_dir() && has_python() {
            let rule = Rule::PhaseTwice {
                phase: phase.to_owned(),
            };
            mistakes.push(Mistake::new(rule));
        }
    }
}

/// The queries: name and text of each sql/*.sql.
pub fn queries(root: &Path, mistakes: &mut Vec<Mistake>) -> Vec<(String, Arc<SourceText>)> {
    let Ok(entries) = std::fs::read_dir(root.join("sql")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".sql")) else {
            continue;
        };
        let relative = Path::new("sql").join(&name);
        if !is_identifier(stem) {
            let what = format!(
                "`{}` names no node: a query's file is named like a function",
                relative.display()
            );
            mistakes.push(Mistake::new(Rule::InvalidValue { what }));
            continue;
        }
        match reading::text(root, &relative, reading::TEXT_LIMIT) {
            Ok(Some(source)) => found.push((stem.to_owned(), source)),
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    found
}

/// The first line of .python-version that says something: `3.11`, `3.11.7`, `cpython-3.12`.
pub fn python_version(root: &Path, mistakes: &mut Vec<Mistake>) -> Option<String> {
    let source = match reading::text(root, Path::new(".python-version"), 64 << 10) {
        Ok(source) => source?,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let line = source
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let version = line
        .trim_start_matches("cpython-")
        .trim_start_matches("python")
        .trim_start_matches('-');
    let is_version = version.starts_with("3.")
        && version
            .split('.')
            .all(|part| !part.is_empty() && part.len() < 4 && part.bytes().all(|b| b.is_ascii_digit()));
    if !is_version {
        let at = source.text.find(line).unwrap_or(0);
        let what = format!("`{}` is not a version of Python 3", line.escape_debug());
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(source.place(at..at + line.len())));
        return None;
    }
    Some(version.to_owned())
}

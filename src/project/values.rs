//! What the trained values name: read from their bytes, which are never loaded.
//!
//! Takes files.json and the names of values. Gives the modules that loading them imports, with the file that needs each. It is read
//! before anything ships, so that a class that nobody can import is found here and not at the first request.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::record::FilesRecord;
use super::source::pickle::{self, GlobalProblem, PickleError};
use crate::regular::{self, Irregular};

/// The modules behind values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Modules of the project's package.
    pub own: BTreeSet<String>,
    /// Modules of others, with the first file that needs each: `artifacts/model.joblib`.
    pub others: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    #[error("{file} cannot be opened")]
    Open { file: String, source: io::Error },
    #[error("{file} is refused")]
    Pickle { file: String, source: PickleError },
    #[error("{file} cannot be served: {}", list(problems))]
    Names {
        file: String,
        problems: Vec<GlobalProblem>,
    },
}

fn list(problems: &[GlobalProblem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Reads `wanted` values of the project at `root`, which are files of its folder `values`. `own` are the project's modules; `provided` says whether a locked distribution has
/// a module, as far as the lock knows. A value that files.json does not list is left to whoever ships it.
pub fn needs(
    root: &Path,
    values: &str,
    files: &FilesRecord,
    wanted: &[String],
    own: &BTreeSet<String>,
    provided: &dyn Fn(&str) -> Option<bool>,
) -> Result<Needs, ValueError> {
    let mut needs = Needs::default();
    for record in wanted.iter().filter_map(|name| files.values.get(name)) {
        let shown = shown(values, &record.file);
        let mut need = |module: &str| {
            needs
                .others
                .entry(module.to_owned())
                .or_insert_with(|| shown.clone());
        };
        match record.format.as_str() {
            "json" | "file" => continue,
            "pickle" | "pickle-file" => {}
            // A framework's own file, and joblib's, needs the framework to be read.
            framework => match framework.split_once('.') {
                // `xgboost.XGBClassifier`: an estimator's class is scikit-learn's as well.
                Some((framework, _)) => {
                    need(framework);
                    need("sklearn");
                }
                None => need(framework),
            },
        }
        if !is_pickled(&record.format) {
            continue;
        }
        let file = || shown.clone();
        let located = regular::locate(root, Path::new(&shown));
        if let (Ok(None), Some(modules)) = (&located, &record.modules) {
            // It may be in an image that was made before: what it names was written down when it was trained.
            for module in modules {
                if own.contains(module) {
                    needs.own.insert(module.clone());
                } else if !pickle::is_standard(module, provided(module)) {
                    need(module);
                }
            }
            continue;
        }
        let opened = located.and_then(|path| match path {
            Some(path) => regular::open(&path),
            None => Err(Irregular::Io(std::io::ErrorKind::NotFound.into())),
        });
        let opened = opened.map_err(|irregular| ValueError::Open {
            file: file(),
            source: irregular.into(),
        })?;
        let facts = match record.format.as_str() {
            "skops" => pickle::inspect_skops(&opened),
            _ => pickle::inspect(&opened),
        };
        let facts = facts.map_err(|source| ValueError::Pickle { file: file(), source })?;
        let problems = pickle::check_globals(&facts, own, provided);
        if !problems.is_empty() {
            return Err(ValueError::Names {
                file: file(),
                problems,
            });
        }
        for module in facts.modules() {
            if own.contains(module) {
                needs.own.insert(module.to_owned());
            } else if !pickle::is_standard(module, provided(module)) {
                need(module);
            }
        }
    }
    Ok(needs)
}

/// Where a value is, for people: relative to the project's folder.
pub fn shown(values: &str, file: &str) -> String {
    match values {
        "" => file.to_owned(),
        folder => format!("{folder}/{file}"),
    }
}

/// Writes into `files` what their values, in the folder `values` of `root`, name. One that cannot be read stays without: whoever ships it says why.
pub fn note_modules(root: &Path, values: &str, files: &mut FilesRecord) {
    for record in files
        .values
        .values_mut()
        .filter(|record| is_pickled(&record.format))
    {
        let path = root.join(values).join(&record.file);
        let facts = regular::open(&path)
            .ok()
            .and_then(|file| match record.format.as_str() {
                "skops" => pickle::inspect_skops(&file).ok(),
                _ => pickle::inspect(&file).ok(),
            });
        record.modules = facts.map(|facts| facts.modules().into_iter().map(str::to_owned).collect());
    }
}

/// Whether a value of this format names what it is made of.
fn is_pickled(format: &str) -> bool {
    matches!(format, "joblib" | "pickle" | "pickle-file" | "skops" | "torch")
}

//! The proof: what was saved, loaded in a fresh process that sees only what serving reaches, answers golden rows as training did.
//!
//! Distributions outside of the serving half's closure are hidden. A module whose absence makes the replay fail is added and the
//! replay begins again, in another process; what was added is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::python::Interpreter;
use super::schedule::{Pool, Saved, Versions};
use super::worker::{Failed, Stop};
use super::{RunError, Scratch};
use crate::project::Project;
use crate::project::record::{FilesRecord, RunRecord};
use crate::project::source::cut::Request;
use crate::project::source::stdlib::is_standard;
use crate::reporter::Reporter;

/// More distributions than this that reading the code does not show are not found out one by one.
const MOST_ATTEMPTS: usize = 20;

/// What the rows of a request become a table with.
const TABLES: &str = "pandas";

/// What the replay after training found.
#[derive(Debug, Deserialize)]
pub struct Proof {
    /// The request's columns, as the schema has them.
    pub columns: Vec<Value>,
    pub rows: Vec<Value>,
    pub predictions: Vec<Value>,
    pub response: Value,
    /// Which estimators' methods have a proven fast path, or why not.
    #[serde(default)]
    pub accelerate: Value,
    pub versions: Versions,
    /// Modules of distributions that the replay loaded from source: top-level package to the rest of their names.
    #[serde(default)]
    pub loaded: BTreeMap<String, String>,
    /// Third-party modules that the values' pickles name, and what makes a table of the request.
    #[serde(default)]
    pub pickled: BTreeSet<String>,
    /// Modules that only the replay showed to be needed.
    #[serde(default)]
    pub added: Vec<String>,
}

/// What a replay without training found.
#[derive(Debug, Deserialize)]
pub struct Again {
    pub rows: usize,
    pub versions: Versions,
}

/// Proves the values that are files of `folder`.
pub fn prove(
    project: &Project,
    (python, scratch): (&Interpreter, &Scratch),
    saved: &BTreeMap<String, Saved>,
    folder: &Path,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Proof, RunError> {
    let named = saved.values().flat_map(|value| value.modules.iter());
    let (own, pickled): (BTreeSet<String>, BTreeSet<String>) = named
        .filter(|module| !is_standard(module, None))
        .cloned()
        .partition(|module| project.sources.is_own(module));
    let mut allow = reached(project, &own);
    allow.extend(pickled.iter().cloned());
    allow.extend(formats(saved.values().map(|value| value.format.as_str())));
    let command =
        json!({ "do": "replay", "files": saved, "folder": folder, "everything": sees_everything(project) });
    let (mut proof, added): (Proof, _) = attempts(command, allow, |command| {
        one(python, scratch, command, reporter, stop)
    })?;
    proof.pickled = pickled;
    if matches!(project.cut.request, Request::Table(_)) {
        proof.pickled.insert(TABLES.to_owned());
    }
    proof.added = added;
    Ok(proof)
}

/// Replays what `run` recorded with the values in artifacts/.
pub fn again(
    project: &Project,
    python: &Interpreter,
    scratch: &Scratch,
    run: &RunRecord,
    files: &FilesRecord,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Again, RunError> {
    let mut allow = reached(project, &BTreeSet::new());
    let recorded = run.serving.get("modules").and_then(Value::as_array);
    let recorded = recorded.into_iter().flatten().filter_map(Value::as_str);
    allow.extend(recorded.map(str::to_owned));
    allow.extend(formats(files.values.values().map(|value| value.format.as_str())));
    let command = json!({
        "do": "replay",
        "files": files.values,
        "folder": project.root().join(project.values_folder()),
        "everything": sees_everything(project),
        "recorded": { "columns": run.request.get("columns"), "golden": run.golden },
    });
    let (again, _) = attempts(command, allow, |command| {
        one(python, scratch, command, reporter, stop)
    })?;
    Ok(again)
}

/// Whether nothing is hidden: what MLflow loads may import all that it was logged with.
fn sees_everything(project: &Project) -> bool {
    project.model().is_some_and(|model| model.flavour.is_whole())
}

/// The modules that values of these formats are read with.
fn formats<'a>(formats: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for format in formats.filter(|format| !["json", "pickle", "pickle-file", "file"].contains(format)) {
        let (framework, class) = format.split_once('.').unwrap_or((format, ""));
        modules.insert(framework.to_owned());
        if !class.is_empty() {
            // An estimator's class is scikit-learn's as well.
            modules.insert("sklearn".to_owned());
        }
    }
    modules
}

/// Third-party modules that the serving half is seen to need.
fn reached(project: &Project, own: &BTreeSet<String>) -> BTreeSet<String> {
    let own: Vec<String> = own.iter().cloned().collect();
    let closure = project.closure(&own);
    let mut modules: BTreeSet<String> = closure
        .imports
        .iter()
        .map(|import| import.module.clone())
        .collect();
    if matches!(project.cut.request, Request::Table(_)) {
        modules.insert(TABLES.to_owned());
    }
    modules
}

/// One replay in a process of its own.
fn one<T: DeserializeOwned>(
    python: &Interpreter,
    scratch: &Scratch,
    command: &Value,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Result<T, Box<Failed>>, RunError> {
    Pool::new(python, scratch, reporter, stop).ask(command)
}

/// Replays until it works or fails for another reason than a hidden module; gives what had to be added.
fn attempts<T>(
    mut command: Value,
    mut allow: BTreeSet<String>,
    mut replay: impl FnMut(&Value) -> Result<Result<T, Box<Failed>>, RunError>,
) -> Result<(T, Vec<String>), RunError> {
    let mut added: Vec<String> = Vec::new();
    let mut first: Option<Box<Failed>> = None;
    for _ in 0..MOST_ATTEMPTS {
        command["allow"] = json!(allow);
        let failed = match replay(&command)? {
            Ok(found) => return Ok((found, added)),
            Err(failed) => failed,
        };
        let missing = failed
            .missing_module
            .clone()
            .filter(|module| failed.hidden.contains(module));
        let more: Vec<String> = match missing {
            Some(module) => vec![module],
            // Something else went wrong after an import failed quietly: once, all of them are given back.
            None if first.is_none() => failed.hidden.clone(),
            None => Vec::new(),
        };
        let new: Vec<String> = more
            .into_iter()
            .filter(|module| allow.insert(module.clone()))
            .collect();
        if new.is_empty() {
            return Err(told(first.unwrap_or(failed)));
        }
        if failed.missing_module.is_none() {
            first.get_or_insert(failed);
        }
        added.extend(new);
    }
    Err(told(first.unwrap_or_default()))
}

fn told(failed: Box<Failed>) -> RunError {
    match failed.kind.as_str() {
        "skew" => RunError::Skew { failed },
        "not_reloaded" => RunError::NotReloaded { failed },
        _ => RunError::Replay { failed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: &str, missing: Option<&str>, hidden: &[&str]) -> Box<Failed> {
        Box::new(Failed {
            kind: kind.to_owned(),
            missing_module: missing.map(str::to_owned),
            hidden: hidden.iter().map(|module| (*module).to_owned()).collect(),
            ..Failed::default()
        })
    }

    /// The replay as a function of what is allowed.
    fn run(replay: impl Fn(&[&str]) -> Result<(), Box<Failed>>) -> Result<Vec<String>, RunError> {
        attempts(json!({}), BTreeSet::new(), |command| {
            let allow: Vec<&str> = command["allow"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            Ok(replay(&allow))
        })
        .map(|((), added)| added)
    }

    #[test]
    fn only_what_makes_the_replay_fail_is_added() {
        let quiet = run(|_| Ok(()));
        assert_eq!(quiet.unwrap(), Vec::<String>::new());
        let needed = run(|allow| match allow {
            [] => Err(failed(
                "raised",
                Some("scipy.sparse"),
                &["psutil", "scipy.sparse"],
            )),
            _ => Ok(()),
        });
        assert_eq!(needed.unwrap(), ["scipy.sparse"]);
        let swallowed = run(|allow| match allow {
            [] => Err(failed("skew", None, &["fast_math"])),
            _ => Ok(()),
        });
        assert_eq!(swallowed.unwrap(), ["fast_math"]);
    }

    #[test]
    fn a_failure_of_its_own_is_told_as_it_first_was() {
        let skew = run(|_| Err(failed("skew", None, &["numexpr"])));
        assert!(matches!(skew, Err(RunError::Skew { failed }) if failed.hidden == ["numexpr"]));
        let absent = run(|_| Err(failed("raised", Some("never_installed"), &[])));
        assert!(matches!(absent, Err(RunError::Replay { .. })));
    }
}

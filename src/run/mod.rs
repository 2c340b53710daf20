//! `run`: trains in the project's own environment, proves that the serving half answers alike, and writes artifacts/.
//!
//! Takes a [`Project`] and what to override. [`plan`] says what Python does, [`schedule`] lets worker processes do it, [`golden`] has the
//! result replayed in a fresh process, [`folder`] puts new artifacts in the old ones' place at once. Nothing in artifacts/ changes
//! unless all of it succeeded. It must not know images, locks or terminals.

mod folder;
mod golden;
mod model;
mod plan;
mod python;
mod record;
mod schedule;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use crate::project::record::{FilesRecord, RunRecord, ValueRecord};
use crate::project::settings::Overrides;
use crate::project::source::graph::Half;
use crate::project::{Mistakes, Project};
use crate::project::{mlflow, values};
use crate::reporter::Reporter;

pub use folder::{Scratch, run_folder};
pub use worker::{Failed, Stop};

/// What is asked of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only these nodes, and what they need. None: all targets.
    pub wanted: Vec<String>,
    pub overrides: Overrides,
    /// Worker processes at a time, at least one.
    pub jobs: usize,
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// In the order in which they finished.
    pub nodes: Vec<NodeOutcome>,
    /// Frozen values as they are in artifacts/ now; empty when only some nodes ran, which replaces nothing.
    pub values: BTreeMap<String, ValueRecord>,
    pub golden: Golden,
    pub seconds: f64,
    /// Only the nodes that were asked for ran, and artifacts/ is as it was.
    pub partial: bool,
}

/// One node that ran.
#[derive(Debug, Clone, Serialize)]
pub struct NodeOutcome {
    pub name: String,
    pub phase: String,
    pub seconds: f64,
    /// Megabytes of memory at the node's worst moment, its inputs included.
    pub peak_mb: f64,
    /// What came out, in a few words: `DataFrame 7,000 × 21`.
    pub value: String,
}

/// What was proven with golden rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Golden {
    pub rows: usize,
    /// Where the rows come from: a node's name, `examples() in serve.py`, a file; empty when there are none.
    pub source: String,
    /// Columns of the request.
    pub columns: usize,
    /// Modules that serving needed and that reading its code did not show.
    pub modules: Vec<String>,
}

/// Why a run failed. artifacts/ is untouched in every case.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the project has mistakes")]
    Mistakes(Mistakes),
    #[error("{} does not exist: the project has no environment", python.display())]
    NoEnvironment { python: PathBuf },
    #[error("the worker process {} cannot be started", python.display())]
    Start { python: PathBuf, source: std::io::Error },
    /// A worker died without a word: killed by the kernel for its memory, or by a library.
    #[error("the worker process that ran `{node}` ended without an answer ({status})")]
    Died { node: String, status: String },
    /// A node raised, or gave something that cannot be used.
    #[error("`{node}` failed: {failed}")]
    Node { node: String, failed: Box<Failed> },
    /// Saving what was learned failed.
    #[error("a frozen value cannot be saved: {failed}")]
    Freeze { failed: Box<Failed> },
    #[error("golden rows cannot be taken: {failed}")]
    Golden { failed: Box<Failed> },
    /// Loading or replaying in the fresh process failed.
    #[error("the serving half cannot be replayed: {failed}")]
    Replay { failed: Box<Failed> },
    /// The serving half answers differently from training.
    #[error("{failed}")]
    Skew { failed: Box<Failed> },
    #[error("{failed}")]
    NotReloaded { failed: Box<Failed> },
    #[error("`{node}` needs a value for `:{parameter}`")]
    NoValue { node: String, parameter: String },
    #[error("{what}")]
    NothingToReplay { what: String },
    #[error("cannot {action} {}", path.display())]
    Files {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("stopped")]
    Stopped,
}

impl From<Mistakes> for RunError {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

/// Trains. `stop` ends it from another thread.
pub fn run(
    project: &Project,
    options: &Options,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Outcome, RunError> {
    if let Some(model) = project.model() {
        return model::record(project, model, options, reporter, stop);
    }
    let began = Instant::now();
    let training = project.resolve(Half::Training, &options.overrides)?;
    let serving = project.resolve(Half::Serving, &options.overrides)?;
    agree(project, &training, &serving)?;
    let scratch = Scratch::new(project.root())?;
    let planned = plan::training(project, options, &training, &serving, &scratch)?;
    let python = python::Interpreter::of(project, &scratch)?;
    planned.document.write(&scratch)?;
    let mut pool = schedule::Pool::new(&python, &scratch, reporter, stop);
    let ran = pool.run(&planned.document, options.jobs.max(1))?;
    let partial = !options.wanted.is_empty();
    let mut outcome = Outcome {
        nodes: ran.outcomes(&planned.document),
        values: BTreeMap::new(),
        golden: Golden::default(),
        seconds: 0.0,
        partial,
    };
    if !partial {
        let saved = pool.freeze()?;
        let rows = pool.golden(&ran.read_by_frozen)?;
        let training_versions = pool.versions(&ran.modules)?;
        drop(pool);
        let staged = scratch.path().join("artifacts");
        let proof = golden::prove(project, (&python, &scratch), &saved, &staged, reporter, stop)?;
        let mut files = record::files(&saved);
        values::note_modules(scratch.path(), "artifacts", &mut files);
        let document = record::run(
            project,
            options,
            &planned,
            &training,
            &ran,
            &proof,
            training_versions,
        )?;
        folder::publish(project.root(), &scratch, &document, &files)?;
        outcome.golden = Golden {
            rows: proof.rows.len(),
            source: rows.source,
            columns: proof.columns.len(),
            modules: proof.added.clone(),
        };
        outcome.values = files.values;
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    Ok(outcome)
}

/// What `run --replay` proved.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    pub rows: usize,
    pub python: String,
    pub seconds: f64,
}

/// Replays the recorded golden rows with the artifacts as they are, and records with which versions that was proven.
pub fn replay(
    project: &Project,
    overrides: &Overrides,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Replayed, RunError> {
    let began = Instant::now();
    let recorded = |run: &&RunRecord| project.model().is_none() || mlflow::is_recorded(run);
    let Some(run) = project.run.as_ref().filter(recorded) else {
        let what = format!("there is nothing to replay: {} is missing", project.run_file());
        return Err(RunError::NothingToReplay { what });
    };
    let files = project.trained().map_err(Mistakes::from)?.unwrap_or_default();
    let rows = run.golden.get("rows").and_then(serde_json::Value::as_array);
    if rows.is_none_or(Vec::is_empty) {
        let what = format!(
            "there is nothing to replay: {} holds no golden rows",
            project.run_file()
        );
        return Err(RunError::NothingToReplay { what });
    }
    missing(project, &files)?;
    let serving = project.resolve(Half::Serving, overrides)?;
    let scratch = Scratch::new(project.root())?;
    let document = plan::serving_only(project, &serving, &scratch)?;
    let python = python::Interpreter::of(project, &scratch)?;
    document.write(&scratch)?;
    let again = golden::again(project, &python, &scratch, run, &files, reporter, stop)?;
    let mut record: RunRecord = run.clone();
    record.prove(again.versions.python.clone(), again.versions.distributions);
    folder::rewrite(project.root(), project.run_file(), &scratch, &record)?;
    Ok(Replayed {
        rows: again.rows,
        python: again.versions.python,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Both halves must give shared nodes the same settings: anything else is skew by configuration.
fn agree(
    project: &Project,
    training: &crate::project::settings::Resolved,
    serving: &crate::project::settings::Resolved,
) -> Result<(), RunError> {
    let shared = &project.cut.recomputed;
    let found = crate::project::settings::differences(&project.graph, shared, training, serving);
    Ok(Mistakes::check(found)?)
}

fn missing(project: &Project, files: &FilesRecord) -> Result<(), RunError> {
    let folder = project.root().join(project.values_folder());
    for id in &project.cut.frozen {
        let name = &project.graph.node(*id).name;
        let there = files
            .values
            .get(name)
            .is_some_and(|value| folder.join(&value.file).is_file());
        if !there {
            let what = format!("there is nothing to replay with: there is no value of `{name}`");
            return Err(RunError::NothingToReplay { what });
        }
    }
    Ok(())
}

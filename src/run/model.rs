//! `run` of a model that MLflow saved: nothing is trained. Its example's rows are answered in the project's environment, where only what
//! an image would have is visible, and the answers are recorded beside the model.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::golden::{self, Proof};
use super::python::Interpreter;
use super::schedule::Saved;
use super::{Golden, Options, Outcome, RunError, Scratch, Stop, folder, plan};
use crate::project::mlflow::{self, Example, Model};
use crate::project::record::{RunRecord, SCHEMA};
use crate::project::source::graph::Half;
use crate::project::{Mistakes, Project, values};
use crate::reporter::Reporter;

/// Answers the example and records it.
pub(super) fn record(
    project: &Project,
    model: &Model,
    options: &Options,
    reporter: &dyn Reporter,
    stop: &Stop,
) -> Result<Outcome, RunError> {
    let began = Instant::now();
    if let Some(node) = options.wanted.first() {
        let what = format!("there is no node `{node}` to run: the model was trained where MLflow saved it");
        return Err(RunError::NothingToReplay { what });
    }
    let mut files = project.trained().map_err(Mistakes::from)?.unwrap_or_default();
    let key = mlflow::key(model, &files);
    let serving = project.resolve(Half::Serving, &options.overrides)?;
    let scratch = Scratch::new(project.root())?;
    let mut document = plan::serving_only(project, &serving, &scratch)?;
    // Its signature is the contract, whatever the example's rows happen to make it read.
    document.golden.whole = true;
    let python = Interpreter::of(project, &scratch)?;
    document.write(&scratch)?;
    scratch.write(
        Path::new("golden.json"),
        golden_rows(model).to_string().as_bytes(),
    )?;
    values::note_modules(project.root(), project.values_folder(), &mut files);
    let saved = files.values.iter().map(|(name, value)| {
        let value = value.clone();
        let saved = Saved {
            file: value.file,
            format: value.format,
            sha256: value.sha256,
            size: value.size,
            modules: value.modules.unwrap_or_default(),
        };
        (name.clone(), saved)
    });
    let values_at = project.root().join(project.values_folder());
    let proof = golden::prove(
        project,
        (&python, &scratch),
        &saved.collect(),
        &values_at,
        reporter,
        stop,
    )?;
    let outcome = Outcome {
        nodes: Vec::new(),
        values: files.values.clone(),
        golden: Golden {
            rows: proof.rows.len(),
            source: match &model.example {
                Example::Rows { file, .. } => file.clone(),
                Example::None | Example::Unusable { .. } => String::new(),
            },
            columns: proof.columns.len(),
            modules: proof.added.clone(),
        },
        seconds: began.elapsed().as_secs_f64(),
        partial: false,
    };
    let record = model.record(key, found(project, proof));
    folder::rewrite(project.root(), project.run_file(), &scratch, &record)?;
    Ok(outcome)
}

/// What golden.py leaves of a training run, made of the example.
fn golden_rows(model: &Model) -> Value {
    let rows = model.example.rows();
    json!({
        "rows": if rows.is_empty() { Value::Null } else { json!(rows) },
        "columns": model.signature.columns,
        "predictions": null,
        "expected": {},
        "batches": (0..rows.len()).map(|at| [at]).collect::<Vec<_>>(),
    })
}

fn found(project: &Project, proof: Proof) -> RunRecord {
    let modules: Vec<&String> = proof.pickled.iter().chain(&proof.added).collect();
    let own = |top: &str| project.sources.is_own(top);
    let loaded = proof.loaded.iter().filter(|(top, _)| !own(top));
    RunRecord {
        schema: SCHEMA,
        python: proof.versions.python.clone(),
        versions: proof.versions.distributions.clone(),
        response: proof.response.clone(),
        golden: json!({ "rows": proof.rows, "predictions": proof.predictions }),
        accelerate: proof.accelerate.clone(),
        serving: json!({ "modules": modules, "loaded": loaded.collect::<std::collections::BTreeMap<_, _>>() }),
        ..RunRecord::default()
    }
}

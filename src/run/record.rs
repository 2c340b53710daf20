//! What run.json and files.json say of a run that succeeded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::golden::Proof;
use super::plan::Planned;
use super::schedule::{Ran, Saved, Versions};
use super::{Options, RunError};
use crate::project::Project;
use crate::project::record::{FilesRecord, NodeRecord, RunRecord, SCHEMA, ValueRecord};
use crate::project::settings::{Resolved, SettingValue};

/// files.json.
pub fn files(saved: &BTreeMap<String, Saved>) -> FilesRecord {
    let values = saved.iter().map(|(name, value)| {
        let Saved {
            file,
            format,
            sha256,
            size,
            ..
        } = value.clone();
        let record = ValueRecord {
            file,
            format,
            sha256,
            size,
            modules: None,
        };
        (name.clone(), record)
    });
    FilesRecord {
        schema: SCHEMA,
        values: values.collect(),
    }
}

/// run.json.
pub fn run(
    project: &Project,
    options: &Options,
    planned: &Planned,
    settings: &Resolved,
    ran: &Ran,
    proof: &Proof,
    training: Versions,
) -> Result<RunRecord, RunError> {
    let keys = project.keys(settings)?;
    let mut nodes = BTreeMap::new();
    for (at, step) in planned.training.steps.iter().enumerate() {
        let node = project.graph.node(step.node);
        let report = ran.reports.get(&at);
        let record = NodeRecord {
            phase: node.phase.name().to_owned(),
            key: keys.get(&node.name).cloned().unwrap_or_default(),
            settings: settings
                .of(step.node)
                .iter()
                .map(|(name, given)| (name.clone(), given.value.record()))
                .collect(),
            inputs: step
                .inputs
                .iter()
                .map(|(_, input)| project.graph.node(*input).name.clone())
                .collect(),
            seconds: report.map_or(0.0, |report| report.seconds),
            peak_mb: report.map_or(0.0, |report| report.peak_mb),
        };
        nodes.insert(node.name.clone(), record);
    }
    if project.graph.plain().is_some() {
        let node = project.graph.node(project.cut.predict);
        let record = NodeRecord {
            phase: node.phase.name().to_owned(),
            key: keys.get(&node.name).cloned().unwrap_or_default(),
            ..NodeRecord::default()
        };
        nodes.insert(node.name.clone(), record);
    }
    let mut versions = training.distributions;
    versions.extend(proof.versions.distributions.clone());
    let serving = &planned.document.serving;
    let modules: BTreeSet<&String> = proof.pickled.iter().chain(&proof.added).collect();
    let own = |top: &str| project.sources.is_own(top);
    let loaded: BTreeMap<&String, &String> = proof.loaded.iter().filter(|(top, _)| !own(top)).collect();
    Ok(RunRecord {
        schema: SCHEMA,
        mlrails: env!("CARGO_PKG_VERSION").to_owned(),
        python: training.python,
        nodes,
        versions,
        environment: options.overrides.environment.clone(),
        set: overridden(project, settings),
        request: json!({
            "node": serving.node,
            "kind": serving.request,
            "columns": proof.columns,
        }),
        response: proof.response.clone(),
        golden: json!({ "rows": proof.rows, "predictions": proof.predictions }),
        accelerate: proof.accelerate.clone(),
        serving: json!({ "modules": modules, "loaded": loaded }),
        replayed: Vec::new(),
    })
}

/// Settings that came from the command line or the process's environment, by their full names.
fn overridden(project: &Project, settings: &Resolved) -> Vec<(String, String)> {
    let mut set = Vec::new();
    for id in project.graph.ids() {
        for (name, given) in settings.of(id) {
            if given.from != "--set" && !given.from.starts_with("MLRAILS_SET_") {
                continue;
            }
            let text = match &given.value {
                SettingValue::Json(Value::String(text)) => text.clone(),
                SettingValue::Json(value) => value.to_string(),
                SettingValue::Source(_) | SettingValue::Missing => continue,
            };
            set.push((format!("{}.{name}", project.graph.node(id).name), text));
        }
    }
    set
}

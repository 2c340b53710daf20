//! The served form of a project: an app in plain Python, made from the project's graph, and the runtime that runs it.
//!
//! [`app`] takes a [`Project`] that was trained and gives an [`App`], which is data; [`render`] turns that into files for `/app`;
//! [`runtime::FILES`] is the package for site-packages. What ships beside them (the project's package, its artifacts) is `layers`'
//! affair. It must not know images.

pub mod openapi;
mod python;
pub mod render;
pub mod runtime;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::project::Project;
use crate::project::record::{FilesRecord, ValueRecord};
use crate::project::settings::{Resolved, SettingValue};
use crate::project::source::cut::Request;
use crate::project::source::graph::{Given, Half, Node, NodeId};

/// What is served, as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// The project's name as people write it: `churn`. It is the model's name in the wire contracts.
    pub name: String,
    pub version: Option<String>,
    /// The package's import name.
    pub module: String,
    /// What runs on each request, inputs before users; `predict` is the last.
    pub steps: Vec<Step>,
    /// Trained values, by name.
    pub frozen: Vec<FrozenValue>,
    /// What a request's rows become.
    pub supplied: Supplied,
    /// The request's schema, as run.json has it.
    pub request: Value,
    /// The answer's schema, as run.json has it.
    pub response: Value,
    /// The OpenAPI document. Without one, `/openapi.json` is not there.
    pub openapi: Option<Value>,
    /// Distribution to version, as training saw them.
    pub versions: BTreeMap<String, String>,
    pub python: String,
    /// Distribution to version, as the lock has them, of what the pipeline itself needs: neither the server nor a cluster's client. Processes
    /// that are not of the image are compared with it. Empty where nothing was locked.
    pub locked: BTreeMap<String, String>,
    /// The fast paths that training proved, as run.json has them; null where `[serve] accelerate` forbids them.
    pub accelerate: Value,
    /// Whether a request's rows belong together (`[golden] group`): it is scored by itself, whole.
    pub alone: bool,
    /// Shown by `/metadata`.
    pub labels: BTreeMap<String, String>,
}

/// One node that runs on each request.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    /// Dotted.
    pub module: String,
    pub function: String,
    /// Parameter, and where its value comes from; in the order of the parameters.
    pub inputs: Vec<(String, Input)>,
    /// Settings that have a value. A default that only Python can evaluate is left to the function.
    pub settings: Vec<(String, Value)>,
}

/// Where a step's argument comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The value of an earlier step, or the table that the request became.
    Node(String),
    /// A trained value.
    Frozen(String),
    /// The request's records.
    Request,
}

/// What the runtime makes of a request's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supplied {
    /// A DataFrame, in place of this data node.
    Table(String),
    /// Records, of this class of the project's when serve.py annotates one.
    Records(Option<RowType>),
}

/// A class that records are made of: `def customers(request: list[Customer])`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowType {
    pub module: String,
    pub name: String,
}

/// A trained value's file in artifacts/.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FrozenValue {
    pub name: String,
    pub file: String,
    pub format: String,
    pub sha256: String,
    pub size: u64,
}

/// Why a project cannot be served yet.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("{project} was never run: artifacts/run.json is missing")]
    NeverRun { project: String },
    #[error("artifacts/run.json has no schema of the request")]
    NoSchema,
    #[error("artifacts/files.json has no trained value `{value}`")]
    MissingValue { value: String },
}

/// What serving `project` takes. `settings` are those of the serving half, `files` what training left, `openapi` its document.
pub fn app(
    project: &Project,
    settings: &Resolved,
    files: &FilesRecord,
    openapi: Option<Value>,
) -> Result<App, ServingError> {
    let name = project.manifest.pyproject.display_name.clone();
    let Some(run) = &project.run else {
        return Err(ServingError::NeverRun { project: name });
    };
    if !run.request.get("columns").is_some_and(Value::is_array) {
        return Err(ServingError::NoSchema);
    }
    let frozen: Result<Vec<FrozenValue>, ServingError> = project
        .cut
        .frozen
        .iter()
        .map(|id| frozen_value(&project.graph.node(*id).name, files))
        .collect();
    let steps = project.cut.recomputed.iter();
    Ok(App {
        version: project
            .manifest
            .pyproject
            .version
            .as_ref()
            .map(ToString::to_string),
        module: project.module.clone(),
        steps: steps.map(|id| step(project, *id, settings)).collect(),
        frozen: frozen?,
        supplied: supplied(project),
        request: run.request.clone(),
        response: run.response.clone(),
        openapi,
        versions: run.versions.clone(),
        python: run.python.clone(),
        locked: BTreeMap::new(),
        alone: project.manifest.config.golden.group.is_some(),
        accelerate: match project.manifest.config.serve.accelerate {
            Some(false) => Value::Null,
            _ => run.accelerate.clone(),
        },
        labels: BTreeMap::new(),
        name,
    })
}

fn frozen_value(name: &str, files: &FilesRecord) -> Result<FrozenValue, ServingError> {
    let Some(record) = files.values.get(name) else {
        return Err(ServingError::MissingValue {
            value: name.to_owned(),
        });
    };
    let ValueRecord {
        file,
        format,
        sha256,
        size,
        ..
    } = record.clone();
    Ok(FrozenValue {
        name: name.to_owned(),
        file,
        format,
        sha256,
        size,
    })
}

fn step(project: &Project, id: NodeId, settings: &Resolved) -> Step {
    let node = project.graph.node(id);
    let input = |parameter: &String| match project.graph.given(id, parameter, Half::Serving) {
        Some(Given::Node(given)) if project.cut.frozen.contains(&given) => {
            Input::Frozen(project.graph.node(given).name.clone())
        }
        Some(Given::Node(given)) => Input::Node(project.graph.node(given).name.clone()),
        // The cut was made, so a parameter that names no node is the request.
        Some(Given::Request) | None => Input::Request,
    };
    let set = settings
        .of(id)
        .iter()
        .filter_map(|(name, given)| match &given.value {
            SettingValue::Json(value) => Some((name.clone(), value.clone())),
            SettingValue::Source(_) | SettingValue::Missing => None,
        });
    Step {
        name: node.name.clone(),
        module: node.module.clone(),
        function: node.function.clone(),
        inputs: node
            .inputs
            .iter()
            .map(|given| (given.parameter.clone(), input(&given.parameter)))
            .collect(),
        settings: set.collect(),
    }
}

fn supplied(project: &Project) -> Supplied {
    match &project.cut.request {
        Request::Table(id) => Supplied::Table(project.graph.node(*id).name.clone()),
        Request::Functions(takers) => {
            let first = takers.first().map(|id| project.graph.node(*id));
            Supplied::Records(first.and_then(row_type))
        }
    }
}

fn row_type(node: &Node) -> Option<RowType> {
    node.request_class().map(|name| RowType {
        module: node.module.clone(),
        name: name.to_owned(),
    })
}

impl App {
    /// One made-up record: from the schema's examples, else from its statistics. Never a row of the data.
    pub fn example(&self) -> Map<String, Value> {
        let columns = self.request.get("columns").and_then(Value::as_array);
        columns
            .into_iter()
            .flatten()
            .filter_map(|column| {
                let name = column.get("name")?.as_str()?;
                Some((name.to_owned(), example(column)))
            })
            .collect()
    }
}

fn example(column: &Value) -> Value {
    let known = |key: &str| column.get(key).filter(|value| !value.is_null()).cloned();
    if let Some(example) = known("example") {
        return example;
    }
    if let Some(first) = known("categories").and_then(|all| all.get(0).cloned()) {
        return first;
    }
    let mean = known("mean").or_else(|| known("minimum"));
    match column.get("type").and_then(Value::as_str) {
        Some("boolean") => json!(true),
        Some("integer") => json!(mean.and_then(|mean| mean.as_f64()).map_or(0.0, f64::round) as i64),
        Some("number") => mean.unwrap_or(json!(0.0)),
        Some("string") => json!("text"),
        Some("datetime") => json!("2024-01-01T00:00:00"),
        _ => Value::Null,
    }
}

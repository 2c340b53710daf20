//! What Python is to do, as one JSON document: the training steps, the serving half, where values go.
//!
//! Takes the project's graph and resolved settings. The document is all that the worker package knows; templates/worker reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Options, RunError, Scratch};
use crate::project::Project;
use crate::project::config::GoldenRows;
use crate::project::settings::{Resolved, SettingValue};
use crate::project::source::cut::{Request, TrainingPlan};
use crate::project::source::graph::{Given, Half, NodeId, Phase};
use crate::project::source::schema::Column;

/// The document and what it was made from.
#[derive(Debug)]
pub struct Planned {
    pub document: Plan,
    pub training: TrainingPlan,
}

/// plan.json. Numbers name training nodes by their place in `nodes`.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub root: PathBuf,
    /// The folder on sys.path: `src`, or the project's own.
    pub source: PathBuf,
    pub scratch: PathBuf,
    pub spool: PathBuf,
    pub staging: PathBuf,
    pub data_url: Option<String>,
    pub nodes: Vec<Node>,
    /// The training data that golden rows are rows of.
    pub table: Option<usize>,
    pub predict: Option<usize>,
    pub frozen: Vec<usize>,
    pub serving: Serving,
    pub golden: GoldenOptions,
    /// `examples` of serve.py.
    pub examples: Option<Function>,
    /// Whether the replay looks for fast paths.
    pub accelerate: bool,
}

#[derive(Debug, Serialize)]
pub struct Node {
    pub id: usize,
    pub name: String,
    pub phase: Phase,
    pub module: String,
    pub function: String,
    /// A query's text.
    pub query: Option<String>,
    pub inputs: Vec<(String, usize)>,
    /// Values, and references that only the worker resolves. What only Python can evaluate is left to the function.
    pub settings: Map<String, Value>,
}

#[derive(Debug, Serialize)]
pub struct Function {
    pub name: String,
    pub module: String,
    pub function: String,
}

/// The serving half.
#[derive(Debug, Serialize)]
pub struct Serving {
    /// `table` or `records`.
    pub request: &'static str,
    /// What the request stands for: the data node's name, or that of the function that takes it.
    pub node: String,
    /// The class of a record, as serve.py annotates it.
    pub row: Option<Row>,
    pub steps: Vec<ServingStep>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub module: String,
    pub name: String,
}

#[derive(Debug, Serialize)]
pub struct ServingStep {
    pub name: String,
    pub module: String,
    pub function: String,
    pub inputs: Vec<(String, Source)>,
    pub settings: Map<String, Value>,
    /// The same node in training, whose value the replay is compared with.
    pub training: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Node(String),
    Frozen(String),
    Request(bool),
}

#[derive(Debug, Default, Serialize)]
pub struct GoldenOptions {
    pub rows: Option<u32>,
    pub file: Option<String>,
    pub group: Option<String>,
    pub redact: Vec<String>,
    /// The columns are given: all of them belong to a request, whichever are read.
    pub whole: bool,
    /// What a plain function's type hint says of its rows.
    pub columns: Vec<Column>,
}

impl Plan {
    pub fn write(&self, scratch: &Scratch) -> Result<(), RunError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        scratch.write(Path::new("plan.json"), &text)
    }
}

/// The plan of a training run.
pub fn training(
    project: &Project,
    options: &Options,
    settings: &Resolved,
    serving: &Resolved,
    scratch: &Scratch,
) -> Result<Planned, RunError> {
    let training = project.training_plan(&options.wanted)?;
    let places: BTreeMap<NodeId, usize> = training
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| (step.node, at))
        .collect();
    let mut document = empty(project, settings, scratch);
    for (id, step) in training.steps.iter().enumerate() {
        let node = project.graph.node(step.node);
        if let Some(parameter) = unset(settings, step.node) {
            return Err(RunError::NoValue {
                node: node.name.clone(),
                parameter,
            });
        }
        let inputs = step
            .inputs
            .iter()
            .filter_map(|(parameter, input)| Some((parameter.clone(), *places.get(input)?)));
        document.nodes.push(Node {
            id,
            name: node.name.clone(),
            phase: node.phase,
            module: node.module.clone(),
            function: node.function.clone(),
            query: (node.phase == Phase::Sql).then(|| node.place.text().to_owned()),
            inputs: inputs.collect(),
            settings: values(settings, step.node),
        });
    }
    document.serving = half(project, serving, &places);
    document.table = table(project).and_then(|id| places.get(&id).copied());
    document.predict = training.predict.and_then(|id| places.get(&id).copied());
    document.frozen = project
        .cut
        .frozen
        .iter()
        .filter_map(|id| places.get(id).copied())
        .collect();
    Ok(Planned { document, training })
}

/// The plan of a replay: nothing is trained.
pub fn serving_only(project: &Project, settings: &Resolved, scratch: &Scratch) -> Result<Plan, RunError> {
    let mut document = empty(project, settings, scratch);
    document.serving = half(project, settings, &BTreeMap::new());
    Ok(document)
}

fn empty(project: &Project, settings: &Resolved, scratch: &Scratch) -> Plan {
    let config = &project.manifest.config.golden;
    let (rows, file) = match &config.rows {
        Some(GoldenRows::Count(count)) => (Some(*count), None),
        Some(GoldenRows::File(file)) => (None, Some(file.clone())),
        None => (None, None),
    };
    Plan {
        root: project.root().to_path_buf(),
        source: project.source_folder(),
        scratch: scratch.path().to_path_buf(),
        spool: scratch.path().join("spool"),
        staging: scratch.path().join("artifacts"),
        data_url: settings.data_url.clone(),
        nodes: Vec::new(),
        table: None,
        predict: None,
        frozen: Vec::new(),
        serving: Serving {
            request: "table",
            node: String::new(),
            row: None,
            steps: Vec::new(),
        },
        golden: GoldenOptions {
            rows,
            file,
            group: config.group.as_ref().map(|group| group.value.clone()),
            redact: config.redact.iter().map(|column| column.value.clone()).collect(),
            whole: project.graph.plain().is_some(),
            columns: project
                .graph
                .plain()
                .map(|entry| entry.columns.clone())
                .unwrap_or_default(),
        },
        examples: examples(project),
        accelerate: project.manifest.config.serve.accelerate.unwrap_or(true),
    }
}

fn examples(project: &Project) -> Option<Function> {
    let place = project.graph.examples.as_ref()?;
    let module = project
        .sources
        .iter()
        .find(|module| module.path() == place.file())?;
    Some(Function {
        name: "examples".to_owned(),
        module: module.name.clone(),
        function: "examples".to_owned(),
    })
}

/// The data node that golden rows are rows of: the supplied one, or the one that a function of serve.py stands in for.
fn table(project: &Project) -> Option<NodeId> {
    match &project.cut.request {
        Request::Table(id) => Some(*id),
        Request::Functions(takers) => takers.iter().find_map(|id| project.graph.shadowed_by(*id)),
    }
}

fn half(project: &Project, settings: &Resolved, places: &BTreeMap<NodeId, usize>) -> Serving {
    let graph = &project.graph;
    let (request, subject, row) = match &project.cut.request {
        Request::Table(id) => ("table", *id, None),
        Request::Functions(takers) => {
            let taker = takers.first().copied().unwrap_or(project.cut.predict);
            let node = graph.node(taker);
            let row = node.request_class().map(|name| Row {
                module: node.module.clone(),
                name: name.to_owned(),
            });
            ("records", taker, row)
        }
    };
    let steps = project.cut.recomputed.iter().map(|id| {
        let node = graph.node(*id);
        let source = |parameter: &String| match graph.given(*id, parameter, Half::Serving) {
            Some(Given::Node(given)) if given == subject && request == "table" => Source::Request(true),
            Some(Given::Node(given)) if project.cut.frozen.contains(&given) => {
                Source::Frozen(graph.node(given).name.clone())
            }
            Some(Given::Node(given)) => Source::Node(graph.node(given).name.clone()),
            Some(Given::Request) | None => Source::Request(true),
        };
        let inputs = node
            .inputs
            .iter()
            .map(|input| (input.parameter.clone(), source(&input.parameter)));
        ServingStep {
            name: node.name.clone(),
            module: node.module.clone(),
            function: node.function.clone(),
            inputs: inputs.collect(),
            settings: values(settings, *id),
            training: places.get(id).copied(),
        }
    });
    Serving {
        request,
        node: graph.node(subject).name.clone(),
        row,
        steps: steps.collect(),
    }
}

fn values(settings: &Resolved, id: NodeId) -> Map<String, Value> {
    let set = settings
        .of(id)
        .iter()
        .filter_map(|(name, given)| match &given.value {
            SettingValue::Json(value) => Some((name.clone(), value.clone())),
            SettingValue::Source(_) | SettingValue::Missing => None,
        });
    set.collect()
}

fn unset(settings: &Resolved, id: NodeId) -> Option<String> {
    let missing = settings
        .of(id)
        .iter()
        .find(|(_, given)| given.value == SettingValue::Missing);
    missing.map(|(name, _)| name.clone())
}

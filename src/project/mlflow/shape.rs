//! A model as a project: the same graph, cut and record that a package with phases has.
//!
//! The request's rows are a data node, the model is a frozen one, and what answers is a function of the serving runtime. Where `run` has
//! recorded answers, golden rows are those; before, they are the example's rows without answers, which must be answered all the same.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::flavour::{FILE, WHOLE};
use super::{Example, Model, RECORD, Shape};
use crate::digest::{Digest, Hasher};
use crate::project::config::Config;
use crate::project::files::{self as listing, Files, Limits};
use crate::project::mistake::{Mistake, Rule};
use crate::project::record::{self, FilesRecord, NodeRecord, RunRecord, SCHEMA, ValueRecord};
use crate::project::settings::SettingsFiles;
use crate::project::source::Sources;
use crate::project::source::cut::{Cut, Request};
use crate::project::source::graph::{Default as SettingDefault, Graph, Input, Node, NodeId, Phase, Setting};
use crate::project::{Manifest, Project, conventions, reading};
use crate::regular;

/// The module of the runtime that holds what answers.
const FLAVOURS: &str = "mlrails_runtime.flavours";
/// The frozen value's name.
const MODEL: &str = "model";
/// What beside MLmodel is no part of the model: notes for people and tools, and what this tool writes.
const NOT_MODEL: [&str; 14] = [
    "conda.yaml",
    "python_env.yaml",
    "requirements.txt",
    "input_example.json",
    "serving_input_example.json",
    "registered_model_meta",
    "environment_variables.txt",
    "pylock.toml",
    "mlrails.sum",
    "mlrails.toml",
    "pyproject.toml",
    RECORD,
    ".gitignore",
    "dist",
];

/// The whole project that `manifest`, which has a model, is.
pub fn load(manifest: Manifest, mistakes: &mut Vec<Mistake>) -> Option<Project> {
    let model = manifest.model.as_deref()?;
    let root = manifest.root.clone();
    let module = conventions::module_name(&manifest.pyproject.name);
    let (package, files, sources) = code(&root, model, mistakes);
    let (graph, cut) = graph(model);
    let run = match record::run_at(&root, RECORD) {
        Ok(Some(run)) => Some(run),
        Ok(None) => Some(unrecorded(model, &manifest)),
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    };
    Some(Project {
        module,
        package,
        files,
        sources,
        graph,
        cut,
        settings: SettingsFiles::default(),
        run,
        manifest,
    })
}

/// The modules that were saved with the model: each top-level one is importable where the model is loaded.
fn code(root: &Path, model: &Model, mistakes: &mut Vec<Mistake>) -> (PathBuf, Files, Sources) {
    let Some(folder) = &model.flavour.code else {
        return (PathBuf::new(), Files::default(), Sources::default());
    };
    let limits = Limits::default();
    let mut files = listing::list(root, folder, Path::new(""), None, limits, mistakes);
    let mut texts = Vec::new();
    for file in &mut files.found {
        let is_python = file.path.extension().is_some_and(|extension| extension == "py");
        let Some((name, is_package)) = is_python.then(|| module_of(&file.path)).flatten() else {
            continue;
        };
        match reading::text(root, &folder.join(&file.path), reading::PYTHON_LIMIT) {
            Ok(Some(source)) => texts.push((name.clone(), is_package, source)),
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
        file.module = Some(name);
    }
    let sources = Sources::parse_all(texts, mistakes);
    if model.flavour.is_whole() {
        // They ship with the folder, where MLflow looks for them.
        files.found.clear();
    }
    (folder.clone(), files, sources)
}

/// `mylib/maths.py` is `mylib.maths`, `mylib/__init__.py` is `mylib`.
fn module_of(path: &Path) -> Option<(String, bool)> {
    use crate::project::source::{is_identifier, module_name};
    let mut parts = path.iter();
    let first = parts.next()?.to_str()?;
    let rest: PathBuf = parts.collect();
    if rest.as_os_str().is_empty() {
        let stem = first.strip_suffix(".py")?;
        return is_identifier(stem).then(|| (stem.to_owned(), false));
    }
    is_identifier(first).then(|| module_name(first, &rest)).flatten()
}

fn graph(model: &Model) -> (Graph, Cut) {
    let place = &model.signature.place;
    let of_model = &model.flavour.place;
    let node =
        |name: &str, phase: Phase, function: &str, inputs: &[&str], settings: Vec<(&str, Value)>| Node {
            name: name.to_owned(),
            phase,
            module: match phase {
                Phase::Serve => FLAVOURS.to_owned(),
                _ => String::new(),
            },
            function: function.to_owned(),
            place: if phase == Phase::Train {
                of_model.clone()
            } else {
                place.clone()
            },
            inputs: inputs
                .iter()
                .map(|parameter| Input {
                    parameter: (*parameter).to_owned(),
                    annotation: None,
                    is_request: *parameter == "request",
                    place: place.clone(),
                })
                .collect(),
            settings: settings
                .into_iter()
                .map(|(name, value)| Setting {
                    name: name.to_owned(),
                    default: SettingDefault::Literal(value),
                    place: place.clone(),
                })
                .collect(),
            docstring: None,
            returns: None,
            is_async: false,
            unnamed_parameters: None,
        };
    let rows = match &model.signature.shape {
        Shape::Table => node("rows", Phase::Data, "", &[], vec![]),
        Shape::Array { dtype, flat } => {
            let settings = vec![("dtype", json!(dtype)), ("flat", json!(flat))];
            node("rows", Phase::Serve, "array", &["request"], settings)
        }
        Shape::Values => node("rows", Phase::Serve, "values", &["request"], vec![]),
        Shape::Records => node("rows", Phase::Serve, "records", &["request"], vec![]),
        Shape::Unnamed => node("rows", Phase::Serve, "unnamed", &["request"], vec![]),
    };
    let is_table = model.signature.shape == Shape::Table;
    let trained = node(MODEL, Phase::Train, "", &[], vec![]);
    let method = model.flavour.method.iter();
    let method = method.map(|method| ("method", json!(method))).collect();
    let answers = node(
        "predict",
        Phase::Serve,
        model.flavour.function,
        &[MODEL, "rows"],
        method,
    );
    let graph = Graph::of_nodes(vec![rows, trained, answers], NodeId(2));
    let cut = Cut {
        frozen: vec![NodeId(1)],
        recomputed: match is_table {
            true => vec![NodeId(2)],
            false => vec![NodeId(0), NodeId(2)],
        },
        request: match is_table {
            true => Request::Table(NodeId(0)),
            false => Request::Functions(vec![NodeId(0)]),
        },
        predict: NodeId(2),
    };
    (graph, cut)
}

/// What is known of the model before `run` asked it: everything but its answers.
fn unrecorded(model: &Model, manifest: &Manifest) -> RunRecord {
    let golden = match &model.example {
        Example::Rows { rows, .. } => json!({ "rows": rows, "predictions": [] }),
        Example::None | Example::Unusable { .. } => json!({ "rows": [], "predictions": [] }),
    };
    // What was pinned when it was logged is what it was trained with.
    let pinned = manifest.pyproject.dependencies.iter().filter_map(|declared| {
        let text = declared.requirement.to_string();
        let (_, version) = text.split_once("==")?;
        let is_exact = version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".+!-_".contains(c));
        is_exact.then(|| (declared.requirement.name.to_string(), version.to_owned()))
    });
    RunRecord {
        schema: SCHEMA,
        mlrails: env!("CARGO_PKG_VERSION").to_owned(),
        python: model.python.clone().unwrap_or_default(),
        nodes: BTreeMap::from([(MODEL.to_owned(), node_record(String::new()))]),
        versions: pinned.collect(),
        request: request(model),
        response: model.signature.response.clone(),
        golden,
        ..RunRecord::default()
    }
}

/// Whether `run` wrote it.
pub fn is_recorded(run: &RunRecord) -> bool {
    run.nodes.get(MODEL).is_some_and(|node| !node.key.is_empty())
}

fn request(model: &Model) -> Value {
    let kind = if model.signature.shape == Shape::Table {
        "table"
    } else {
        "records"
    };
    json!({ "node": "rows", "kind": kind, "columns": model.signature.columns })
}

fn node_record(key: String) -> NodeRecord {
    NodeRecord {
        phase: Phase::Train.name().to_owned(),
        key,
        ..NodeRecord::default()
    }
}

impl Model {
    /// What `run` found, as a record: `key` is the model's, the rest what answering took and gave.
    pub fn record(&self, key: String, found: RunRecord) -> RunRecord {
        RunRecord {
            schema: SCHEMA,
            mlrails: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: BTreeMap::from([(MODEL.to_owned(), node_record(key))]),
            request: request(self),
            response: match self.signature.response.get("items") {
                Some(items) if items.as_object().is_some_and(|items| !items.is_empty()) => {
                    self.signature.response.clone()
                }
                _ => found.response.clone(),
            },
            ..found
        }
    }
}

/// The model's files as frozen values, with their hashes. `limits` of a package hold for a folder that MLflow loads whole.
pub fn files(root: &Path, model: &Model, config: &Config) -> Result<FilesRecord, Mistake> {
    let mut values = BTreeMap::new();
    let flavour = &model.flavour;
    let main = flavour.file.to_string_lossy().into_owned();
    values.insert(MODEL.to_owned(), value(root, &main, &flavour.format)?);
    if flavour.format == WHOLE {
        let mut mistakes = Vec::new();
        let listed = listing::list(
            root,
            Path::new(""),
            Path::new(""),
            None,
            Limits::default(),
            &mut mistakes,
        );
        if let Some(mistake) = mistakes.into_iter().next() {
            return Err(mistake);
        }
        let golden = match &config.golden.rows {
            Some(crate::project::config::GoldenRows::File(file)) => file.as_str(),
            _ => "",
        };
        for file in listed.found {
            let first = file
                .path
                .iter()
                .next()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let name = file.path.to_string_lossy().into_owned();
            if NOT_MODEL.contains(&first) || name == FILE || name == golden {
                continue;
            }
            let is_pickle = [".pkl", ".pickle", ".joblib"]
                .iter()
                .any(|ending| name.ends_with(ending));
            // Both are files that MLflow opens; what a pickle names is read before it ships.
            let format = if is_pickle { "pickle-file" } else { "file" };
            values.insert(format!("{MODEL}/{name}"), value(root, &name, format)?);
        }
    }
    Ok(FilesRecord {
        schema: SCHEMA,
        values,
    })
}

fn value(root: &Path, file: &str, format: &str) -> Result<ValueRecord, Mistake> {
    let unreadable = |reason: String| {
        Mistake::new(Rule::Unreadable {
            path: file.into(),
            reason,
        })
    };
    let path =
        reading::locate(root, Path::new(file))?.ok_or_else(|| unreadable("it is not there".to_owned()))?;
    let mut opened = regular::open(&path).map_err(|error| unreadable(error.to_string()))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match opened.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) => return Err(unreadable(error.to_string())),
        }
    }
    Ok(ValueRecord {
        file: file.to_owned(),
        format: format.to_owned(),
        sha256: hasher.finish().hex(),
        size,
        modules: None,
    })
}

/// Identifies the model: its files, and what MLmodel says of how it is asked.
pub fn key(model: &Model, files: &FilesRecord) -> String {
    let mut text = format!("{}\n", model.source.text);
    for (name, value) in &files.values {
        text.push_str(&format!("{name} {} {}\n", value.format, value.sha256));
    }
    format!("mlflow:1:{}", Digest::of(text.as_bytes()).hex())
}

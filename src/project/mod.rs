//! What a project is: facts, no decisions, and no Python run to find them.
//!
//! [`read`] takes a folder and gives its [`Manifest`]: what pyproject.toml and mlrails.toml say. [`load`] reads the whole
//! [`Project`]: its package, graph, settings and records. Both gather every [`Mistake`] before they refuse.

pub mod config;
pub mod conventions;
mod document;
pub mod files;
mod groups;
pub mod judgement;
pub mod mistake;
pub mod mlflow;
pub mod place;
pub mod pyproject;
pub mod reading;
pub mod record;
pub mod settings;
pub mod source;
pub mod uv;
pub mod values;

use std::path::{Path, PathBuf};

use config::Config;
pub use document::Placed;
use document::Table;
use files::{Files, Limits};
pub use mistake::{Mistake, Mistakes, Rule};
pub use place::{Place, SourceText};
pub use pyproject::{Declared, Pyproject};
use record::{FilesRecord, RunRecord};
use settings::{Overrides, Resolved, SettingsFiles};
use source::Sources;
use source::cut::{Cut, Request, TrainingPlan};
use source::graph::{Graph, Half, Phase};

/// What the project's own files say of it, without its code.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Absolute, without links.
    pub root: PathBuf,
    pub pyproject: Pyproject,
    pub config: Config,
    /// .python-version: `3.11` or `3.11.7`.
    pub python_version: Option<String>,
    /// What MLmodel says, where the folder is a model that MLflow saved. `pyproject` is then made of it.
    pub model: Option<Box<mlflow::Model>>,
}

impl Manifest {
    /// The project's own folder `name` (`dist`, `.venv`), there or not, once it is known that writing to it writes inside the project.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Mistakes> {
        let relative = Path::new(name);
        let real = reading::folder(&self.root, relative)?;
        Ok(real.unwrap_or_else(|| self.root.join(relative)))
    }
}

/// A whole project: what it says, what it is made of, what was trained.
#[derive(Debug)]
pub struct Project {
    pub manifest: Manifest,
    /// The package's import name: `churn`.
    pub module: String,
    /// Its folder, relative to the project's: `src/churn`.
    pub package: PathBuf,
    pub files: Files,
    pub sources: Sources,
    pub graph: Graph,
    pub cut: Cut,
    pub settings: SettingsFiles,
    /// artifacts/run.json, if there was a run.
    pub run: Option<RunRecord>,
}

impl Project {
    pub fn root(&self) -> &Path {
        &self.manifest.root
    }

    /// The model that MLflow saved, where the project is one.
    pub fn model(&self) -> Option<&mlflow::Model> {
        self.manifest.model.as_deref()
    }

    /// The folder on Python's path: `src`, the project's own, or that of the modules that were saved with a model.
    pub fn source_folder(&self) -> PathBuf {
        let package = self.root().join(&self.package);
        match self.model() {
            Some(_) => package,
            None => package
                .parent()
                .map_or_else(|| self.root().to_path_buf(), Path::to_path_buf),
        }
    }

    /// The trained values and their hashes: those of files.json, or the files of a model. `None` before the first run.
    pub fn trained(&self) -> Result<Option<FilesRecord>, Mistake> {
        match self.model() {
            Some(model) => mlflow::files(self.root(), model, &self.manifest.config).map(Some),
            None => record::files(self.root()),
        }
    }

    /// Names of the values that serving needs, of those in `files`: the frozen nodes, and what a model's folder is made of.
    pub fn frozen(&self, files: &FilesRecord) -> Vec<String> {
        match self.model() {
            Some(_) => files.values.keys().cloned().collect(),
            None => self
                .cut
                .frozen
                .iter()
                .map(|id| self.graph.node(*id).name.clone())
                .collect(),
        }
    }

    /// The folder that trained values are files of, relative to the project's; empty for a model.
    pub fn values_folder(&self) -> &'static str {
        match self.model() {
            Some(_) => "",
            None => "artifacts",
        }
    }

    /// Where what `run` found is recorded, relative to the project's folder.
    pub fn run_file(&self) -> &'static str {
        match self.model() {
            Some(_) => mlflow::RECORD,
            None => record::RUN,
        }
    }

    /// The settings of one half.
    pub fn resolve(&self, half: Half, overrides: &Overrides) -> Result<Resolved, Mistakes> {
        let data_url = self
            .manifest
            .config
            .data
            .url
            .as_ref()
            .map(|url| url.value.as_str());
        self.settings.resolve(&self.graph, half, data_url, overrides)
    }

    /// What a training run does, for all targets or for the nodes that are named.
    pub fn training_plan(&self, wanted: &[String]) -> Result<TrainingPlan, Mistakes> {
        let mut mistakes = Vec::new();
        let mut ids = Vec::new();
        for name in wanted {
            match self
                .graph
                .training_node(name)
                .or_else(|| self.graph.serve_node(name))
            {
                Some(id) => ids.push(id),
                None => {
                    let rule = Rule::UnknownNode {
                        name: name.clone(),
                        known: self.graph.names(),
                    };
                    mistakes.push(Mistake::new(rule));
                }
            }
        }
        let plan = self.graph.training_plan(&ids, &mut mistakes);
        Mistakes::check(mistakes)?;
        Ok(plan)
    }

    /// Whether the request is known to be a table, or only assumed to be: no run has recorded it.
    pub fn table_is_assumed(&self) -> bool {
        matches!(self.cut.request, Request::Table(_))
            && self.run.is_none()
            && self.model().is_none()
            && self.graph.plain().is_none()
    }
}

/// Reads what the project in `folder` says of itself. Its code is not looked at.
pub fn read(folder: &Path) -> Result<Manifest, Mistakes> {
    let mut mistakes = Vec::new();
    let manifest = manifest(folder, &mut mistakes);
    match manifest {
        Some(manifest) if mistakes.is_empty() => Ok(manifest),
        _ => Err(refused(mistakes, folder)),
    }
}

/// Reads the whole project in `folder`.
pub fn load(folder: &Path) -> Result<Project, Mistakes> {
    let mut mistakes = Vec::new();
    let project = whole(folder, &mut mistakes);
    match project {
        Some(project) if mistakes.is_empty() => Ok(project),
        _ => Err(refused(mistakes, folder)),
    }
}

fn refused(mut mistakes: Vec<Mistake>, folder: &Path) -> Mistakes {
    if mistakes.is_empty() {
        let path = folder.to_path_buf();
        mistakes.push(Mistake::new(Rule::NotAProject { path }));
    }
    match Mistakes::check(mistakes) {
        Err(mistakes) => mistakes,
        Ok(()) => Mistake::new(Rule::NotAProject {
            path: folder.to_path_buf(),
        })
        .into(),
    }
}

fn manifest(folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Manifest> {
    let root = match folder.canonicalize() {
        Ok(root) => root,
        Err(error) => {
            mistakes.push(Mistake::new(Rule::Unreadable {
                path: folder.to_path_buf(),
                reason: error.to_string(),
            }));
            return None;
        }
    };
    let mut text = |name: &str| match reading::text(&root, Path::new(name), reading::TEXT_LIMIT) {
        Ok(source) => source,
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    };
    let pyproject_source = text("pyproject.toml");
    let config_source = text("mlrails.toml");
    let python_version = conventions::python_version(&root, mistakes);
    // Read although pyproject.toml may be unusable, so that one run names the mistakes of both.
    let own_config = config_source.as_ref().and_then(|source| {
        let document = document::parse(source, mistakes)?;
        Some(config::read(&Table::root(source, &document), "", &root, mistakes))
    });
    if mlflow::is_here(&root) {
        return of_model(
            root,
            pyproject_source.as_ref(),
            own_config,
            python_version,
            mistakes,
        );
    }
    let Some(source) = pyproject_source else {
        if mistakes.is_empty() {
            let path = folder.to_path_buf();
            mistakes.push(Mistake::new(Rule::NotAProject { path }));
        }
        return None;
    };
    let document = document::parse(&source, mistakes)?;
    let table = Table::root(&source, &document);
    let pyproject = pyproject::read(&table, &root, mistakes);
    let embedded = table
        .table("tool", "[tool]", &mut Vec::new())
        .filter(|tool| tool.value("mlrails").is_some())
        .and_then(|tool| tool.table("mlrails", "[tool.mlrails]", mistakes));
    let config = match (embedded, config_source) {
        (Some(embedded), Some(_)) => {
            mistakes.push(Mistake::new(Rule::ConfiguredTwice).at(embedded.place().clone()));
            own_config
        }
        (Some(embedded), None) => Some(config::read(&embedded, "tool.mlrails.", &root, mistakes)),
        (None, _) => own_config,
    };
    Some(Manifest {
        root,
        pyproject: pyproject?,
        config: config.unwrap_or_default(),
        python_version,
        model: None,
    })
}

/// The manifest of a model that MLflow saved. A pyproject.toml beside it says what MLmodel does not: a name, a version.
fn of_model(
    root: PathBuf,
    pyproject: Option<&std::sync::Arc<SourceText>>,
    config: Option<Config>,
    python_version: Option<String>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Manifest> {
    let document = pyproject.map(|source| document::parse(source, mistakes));
    let mut embedded = None;
    let mut written = None;
    if let Some((source, document)) = pyproject.zip(document.as_ref()) {
        let table = Table::root(source, document.as_ref()?);
        written = Some(pyproject::read(&table, &root, mistakes)?);
        embedded = table
            .table("tool", "[tool]", &mut Vec::new())
            .filter(|tool| tool.value("mlrails").is_some())
            .and_then(|tool| tool.table("mlrails", "[tool.mlrails]", mistakes))
            .map(|table| {
                if config.is_some() {
                    mistakes.push(Mistake::new(Rule::ConfiguredTwice).at(table.place().clone()));
                }
                config::read(&table, "tool.mlrails.", &root, mistakes)
            });
    }
    let config = config.or(embedded).unwrap_or_default();
    if let Some(entry) = &config.serve.entry {
        mistakes.push(Mistake::new(Rule::EntryAndModel).at(entry.place.clone()));
    }
    let (model, pyproject) = mlflow::read(&root, &config, written, mistakes)?;
    Some(Manifest {
        root,
        pyproject,
        config,
        python_version,
        model: Some(Box::new(model)),
    })
}

fn whole(folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Project> {
    let manifest = manifest(folder, mistakes)?;
    if manifest.model.is_some() {
        return mlflow::load(manifest, mistakes);
    }
    let root = &manifest.root;
    let entry = manifest.config.serve.entry.as_ref();
    let module = match entry {
        Some(entry) => entry
            .value
            .split(['.', ':'])
            .next()
            .unwrap_or_default()
            .to_owned(),
        None => conventions::module_name(&manifest.pyproject.name),
    };
    let before = mistakes.len();
    for name in ["config", "sql", "artifacts"] {
        if let Err(mistake) = reading::folder(root, Path::new(name)) {
            mistakes.push(mistake);
        }
    }
    if mistakes.len() > before {
        return None;
    }
    let settings = settings::read(root, mistakes);
    let queries = conventions::queries(root, mistakes);
    let run = record::run(root).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    if let Err(mistake) = record::files(root) {
        mistakes.push(mistake);
    }
    let package = conventions::package(root, &module, entry.is_some(), mistakes)?;
    conventions::phases(root, &package, mistakes);
    let before = mistakes.len();
    let files = match package.extension() {
        // A module that is no package: `score.py`.
        Some(_) => files::module(root, &package, &module, mistakes),
        None => files::list(
            root,
            &package,
            Path::new(&module),
            Some(&module),
            Limits::default(),
            mistakes,
        ),
    };
    let sources = sources(root, &package, &module, &files, mistakes);
    let whole_package = mistakes.len() == before;
    let graph = source::graph::find(&sources, &queries, entry, mistakes);
    // With a module missing, what it defines would be reported missing too.
    if !whole_package {
        return None;
    }
    let has_file = |dotted: &str| {
        // A compiled module: `churn/_fast.cpython-311-x86_64-linux-gnu.so`.
        let stem = format!("{}.", dotted.replace('.', "/"));
        files
            .found
            .iter()
            .any(|file| file.path.to_string_lossy().starts_with(&stem))
    };
    source::imports::unknown_modules(&sources, has_file, mistakes);
    settings.check(&graph, mistakes);
    // What is wrong with an entry was told where it was looked for.
    if graph.predict.is_none() && entry.is_none() {
        mistakes.push(no_predict(&graph, &sources, &module));
    }
    mistakes.extend(unknown_request(&graph, &manifest.config));
    graph.check(mistakes);
    let table = run
        .as_ref()
        .and_then(|run| Some(run.request.get("kind")?.as_str()? == "table"));
    // Both halves meet the same nodes: what is wrong with one is told once.
    let mut of_serving = Vec::new();
    let cut = graph.cut(table, &mut of_serving);
    let met: Vec<_> = of_serving
        .into_iter()
        .filter(|mistake| !mistakes.contains(mistake))
        .collect();
    mistakes.extend(met);
    Some(Project {
        manifest,
        module,
        package,
        files,
        sources,
        graph,
        cut: cut?,
        settings,
        run,
    })
}

fn sources(root: &Path, package: &Path, module: &str, files: &Files, mistakes: &mut Vec<Mistake>) -> Sources {
    let mut texts = Vec::new();
    for file in &files.found {
        let Some(name) = &file.module else {
            continue;
        };
        let inner = file.path.strip_prefix(module).unwrap_or(&file.path);
        let path = match package.extension() {
            Some(_) => package.to_path_buf(),
            None => package.join(inner),
        };
        match reading::text(root, &path, reading::PYTHON_LIMIT) {
            Ok(Some(source)) => {
                let is_package = inner.file_name().is_some_and(|name| name == "__init__.py");
                texts.push((name.clone(), is_package, source));
            }
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Sources::parse(module, texts, mistakes)
}

/// A plain function of whose request neither rows nor a type hint speak.
fn unknown_request(graph: &Graph, config: &Config) -> Option<Mistake> {
    let entry = graph.plain()?;
    let has_rows =
        entry.examples.is_some() || matches!(config.golden.rows, Some(config::GoldenRows::File(_)));
    if has_rows || !entry.columns.is_empty() {
        return None;
    }
    let place = entry.parameter.clone()?;
    let rule = Rule::NothingSaysRequest {
        entry: format!("{}:{}", entry.module, entry.function),
        parameter: place.text()[place.range()].to_owned(),
    };
    Some(Mistake::new(rule).at(place))
}

fn no_predict(graph: &Graph, sources: &Sources, module: &str) -> Mistake {
    let known = graph
        .nodes
        .iter()
        .filter(|node| node.phase == Phase::Serve)
        .map(|node| node.name.clone())
        .collect();
    let mistake = Mistake::new(Rule::PredictMissing { known });
    match sources.get(&format!("{module}.serve")) {
        Some(serve) => mistake.at(serve.source.place(0..0)),
        None => mistake,
    }
}

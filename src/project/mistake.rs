//! What can be wrong with a project: one closed set of rules, each with its facts and its place.
//!
//! Facts only: advice and excerpts are made in `cli/diagnostics/project.rs`. Reading goes on after a mistake, so that one
//! run names them all.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::place::Place;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    #[serde(flatten)]
    pub rule: Box<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Other places that belong to it, with what stands there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<(Place, String)>,
}

impl Mistake {
    pub fn new(rule: Rule) -> Self {
        Self {
            rule: Box::new(rule),
            place: None,
            related: Vec::new(),
        }
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn with(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(formatter, "{place}: {}", self.rule),
            None => self.rule.fmt(formatter),
        }
    }
}

/// How many mistakes are told; the rest are counted. A generated file can hold a million.
const MOST: usize = 100;

/// All mistakes of one project, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `Ok(())` when there are none.
    pub fn check(mut found: Vec<Mistake>) -> Result<(), Self> {
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|mistake| {
            let place = mistake.place.as_ref();
            place.map(|place| (place.file().to_path_buf(), place.range().start))
        });
        found.dedup();
        let count = found.len().saturating_sub(MOST);
        if count > 0 {
            found.truncate(MOST);
            found.push(Mistake::new(Rule::More { count }));
        }
        Err(Self(found))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.0.iter()
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// The rules, each with its facts. The name in JSON is the variant's in kebab-case.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Rule {
    // Files
    #[error("`{path}` is not a project: it has no pyproject.toml, and no MLmodel of MLflow's")]
    NotAProject { path: PathBuf },
    #[error("cannot read `{path}`: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("`{path}` is {size} bytes; at most {limit} are read")]
    TooLarge { path: PathBuf, size: u64, limit: u64 },
    #[error("`{path}` is {kind}, not a file")]
    NotAFile { path: PathBuf, kind: String },
    #[error("`{path}` is {kind}, not a folder")]
    NotAFolder { path: PathBuf, kind: String },
    #[error("`{path}` is a symbolic link {why}")]
    Symlink { path: PathBuf, why: String },
    #[error("`{path}` lies outside the project")]
    OutsideProject { path: String },
    #[error("`{path}` has a name that the image format reserves")]
    ReservedFileName { path: PathBuf },
    #[error("`{path}` has a name that is not UTF-8, or holds a control character or a backslash")]
    FileName { path: String },
    #[error("the package has more than {limit} files")]
    TooManyFiles { limit: usize },
    #[error("`{path}` lies deeper than {limit} folders")]
    TooDeep { path: PathBuf, limit: usize },
    #[error("the file is not UTF-8")]
    NotUtf8,
    #[error("the file holds a NUL byte")]
    NulByte,

    // TOML
    #[error("{message}")]
    Toml { message: String },
    #[error("brackets nest deeper than {limit}")]
    TomlTooDeep { limit: usize },
    #[error("`{key}` is not a key of {table}")]
    UnknownKey {
        key: String,
        table: String,
        known: Vec<String>,
    },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType {
        key: String,
        expected: String,
        found: String,
    },
    #[error("{what}")]
    InvalidValue { what: String },
    #[error("{table} lacks `{key}`")]
    MissingKey { table: String, key: String },
    #[error("`{table}` lists more than {limit} entries")]
    TooMany { table: String, limit: usize },

    // YAML
    #[error("{message}")]
    Yaml { message: String },
    #[error("it has more than {limit} {what}")]
    YamlLimit { what: String, limit: usize },

    // A model of MLflow's
    #[error("the model has no signature: nothing says what a request brings")]
    NoSignature,
    #[error("the model cannot be served: {why}")]
    NoFlavour { why: String },
    #[error("{input} of the model's signature {why}")]
    UnservedType { input: String, why: String },
    #[error("`{path}`, which `{key}` names, is not in the model's folder")]
    ModelFile { path: String, key: String },
    #[error("`{option}` is an option of pip's, and this file is read for its requirements")]
    RequirementOption { option: String },
    #[error("[serve] entry names a function, and the folder is a model of MLflow's")]
    EntryAndModel,

    // pyproject.toml and mlrails.toml
    #[error("`{name}` is not a project name")]
    ProjectName { name: String },
    #[error("the project is configured twice: in mlrails.toml and in [tool.mlrails] of pyproject.toml")]
    ConfiguredTwice,
    #[error("dependency groups include each other: {}", cycle.join(" → "))]
    GroupCycle { cycle: Vec<String> },
    #[error("there is no dependency group `{name}`")]
    UnknownGroup { name: String, known: Vec<String> },
    #[error("dependency group `{name}` is written twice: `{first}` and `{second}` are one name")]
    DuplicateGroup {
        name: String,
        first: String,
        second: String,
    },

    // The convention
    #[error("there is no package `{module}`: neither {} exists", looked.join(" nor "))]
    NoPackage {
        module: String,
        looked: Vec<String>,
        /// Folders that look like the package, under another name.
        others: Vec<String>,
    },
    #[error("there are two packages: {first} and {second}")]
    TwoPackages { first: String, second: String },
    #[error("the phase `{phase}` is both a file and a folder")]
    PhaseTwice { phase: String },
    #[error("[serve] entry `{entry}` cannot answer: {why}")]
    Entry { entry: String, why: EntryFault },
    #[error("nothing says what `{parameter}` of `{entry}` brings")]
    NothingSaysRequest { entry: String, parameter: String },

    // Source
    #[error("{message}")]
    Syntax { message: String },
    #[error("an expression nests deeper than {limit}, more than Python itself compiles")]
    SourceTooDeep { limit: usize },

    // The graph
    #[error("two nodes are called `{name}`")]
    DuplicateNode { name: String },
    #[error("a node may not be called `request`: the name is the request's own")]
    RequestNode,
    #[error("`{node}` takes `request`, which only functions of serve.py may")]
    RequestOutsideServe { node: String },
    #[error("nothing is called `{parameter}`, which `{node}` takes")]
    UnknownParameter {
        node: String,
        parameter: String,
        known: Vec<String>,
    },
    #[error("`{node}` takes {kind} parameters, which name no node")]
    VariableParameters { node: String, kind: String },
    #[error("there is no node `{name}`")]
    UnknownNode { name: String, known: Vec<String> },
    #[error("nodes need each other: {}", cycle.join(" ← "))]
    Cycle { cycle: Vec<String> },
    #[error("there is no `predict` in serve.py")]
    PredictMissing { known: Vec<String> },
    #[error("`{node}` is read while serving, and nothing supplies it: {}", path.join(" ← "))]
    NotSupplied {
        node: String,
        path: Vec<String>,
        why: NotSupplied,
    },
    #[error("`predict` needs no node of train.py and no `request`: there is nothing to serve")]
    NothingServed,

    // Settings
    #[error("`{node}` is given {training} for `{setting}` in training and {serving} in serving")]
    SettingDiffers {
        node: String,
        setting: String,
        training: String,
        serving: String,
    },
    #[error("`{setting}` of `{node}` is {expected}, and is given {found}")]
    SettingType {
        node: String,
        setting: String,
        expected: String,
        found: String,
    },
    #[error("`{name}` names no setting")]
    UnknownSetting { name: String, known: Vec<String> },
    #[error("`:{parameter}` of the query `{node}` has no value")]
    QueryParameter { node: String, parameter: String },
    #[error("there is no environment `{name}`: config/{name}.toml does not exist")]
    UnknownEnvironment { name: String, known: Vec<String> },

    // Imports and data
    #[error("`{module}` is imported, and no declared dependency provides it")]
    UndeclaredImport { module: String, known: Vec<String> },
    #[error("`{module}` is imported, and is no module of the project")]
    UnknownModule { module: String, known: Vec<String> },
    #[error("`{path}` is opened while serving and does not ship")]
    DataNotShipped { path: String },

    #[error("and {count} mistakes more")]
    More { count: usize },

    // Freshness
    #[error("`{node}` was trained from other code or settings: {why}")]
    Stale { node: String, why: String },
    #[error("{file} cannot be understood: {reason}")]
    RunRecord { file: String, reason: String },
}

/// Why what `[serve] entry` names is no function that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum EntryFault {
    #[error("the package has no such module")]
    NoModule { known: Vec<String> },
    #[error("the module has no such function")]
    Nothing { known: Vec<String> },
    #[error("it is a class, not a function")]
    Class,
    #[error("it is not defined as a function there")]
    Value,
    #[error("it takes {kind} parameters, which cannot be given by name")]
    Unnamed { kind: &'static str },
    #[error("{}", parameters_fault(.parameters))]
    Parameters { parameters: Vec<String> },
    #[error("`{parameter}: {kind}` is one row or less, and it is given all rows of a batch")]
    OneRow { parameter: String, kind: String },
    #[error("a parameter called `request` is given records, and this one wants {kind}")]
    RequestIsRecords { kind: String },
}

fn parameters_fault(parameters: &[String]) -> String {
    match parameters {
        [] => "it takes no parameter without a default, so nothing of a request reaches it".to_owned(),
        several => format!(
            "it takes {} without defaults, and a request's rows are one parameter",
            several
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    }
}

/// Why a data node that serving reads has no supplier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum NotSupplied {
    /// Several data nodes are read, and a request is one table.
    Several { others: Vec<String> },
    /// A function of serve.py already takes the request.
    RequestTaken { by: String },
    /// It is annotated as, or was recorded as, something else than a table.
    NotATable { kind: String },
}

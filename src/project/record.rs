//! What a training run wrote down: `artifacts/run.json` and `artifacts/files.json`, as data.
//!
//! Written by `run`, read by everything that ships what it made. Unknown keys pass: a newer mlrails may have written them.

mod sound;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mistake::{Mistake, Rule};
use super::reading;

/// `artifacts/run.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub schema: u32,
    pub mlrails: String,
    /// `3.11.7`.
    pub python: String,
    pub nodes: BTreeMap<String, NodeRecord>,
    /// Distribution to version, of what was installed.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// What the settings were overridden with, so that freshness is judged under the same ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    #[serde(default)]
    pub request: Value,
    #[serde(default)]
    pub response: Value,
    #[serde(default)]
    pub golden: Value,
    /// Which methods of which frozen estimators a fast path was proven for, and why not for others: {value: {method: {kept, ..}}}.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub accelerate: Value,
    #[serde(default)]
    pub serving: Value,
    /// Where else golden rows were replayed and answered the same: `run --replay`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<Proven>,
}

/// An environment in which golden rows were answered as in training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Proven {
    pub python: String,
    pub versions: BTreeMap<String, String>,
}

impl RunRecord {
    /// Notes another environment in which golden rows were answered the same.
    pub fn prove(&mut self, python: String, versions: BTreeMap<String, String>) {
        let proven = Proven { python, versions };
        if !self.replayed.contains(&proven) {
            self.replayed.push(proven);
        }
    }

    /// Whether golden rows were answered the same under Python 3.`minor` with each of `versions`; a distribution that a record does not
    /// name is not held against it. Gives the first that differs from training otherwise: name, trained with, now.
    pub fn proven_with(
        &self,
        minor: u8,
        versions: &BTreeMap<String, String>,
    ) -> Result<(), (String, String, String)> {
        let differs = |python: &str, recorded: &BTreeMap<String, String>| {
            let recorded_minor = python.split('.').nth(1).and_then(|part| part.parse().ok());
            if recorded_minor != Some(minor) {
                return Some(("python".to_owned(), python.to_owned(), format!("3.{minor}")));
            }
            versions.iter().find_map(|(name, now)| {
                let then = recorded.get(name).filter(|then| *then != now)?;
                Some((name.clone(), then.clone(), now.clone()))
            })
        };
        let trained = differs(&self.python, &self.versions);
        let replayed = self
            .replayed
            .iter()
            .any(|proven| differs(&proven.python, &proven.versions).is_none());
        match trained {
            Some(difference) if !replayed => Err(difference),
            _ => Ok(()),
        }
    }
}

/// One node of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub phase: String,
    /// `1:<hex>`, see `source::keys`.
    pub key: String,
    #[serde(default)]
    pub settings: serde_json::Map<String, Value>,
    #[serde(default)]
    pub inputs: Vec<String>,
    #[serde(default)]
    pub seconds: f64,
    #[serde(default)]
    pub peak_mb: f64,
}

/// `artifacts/files.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FilesRecord {
    pub schema: u32,
    pub values: BTreeMap<String, ValueRecord>,
}

/// One frozen value's file in artifacts/.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueRecord {
    pub file: String,
    /// `joblib`, `json`, or a framework's own.
    pub format: String,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Dotted modules that loading it imports, where its format names any: what an image needs is known without the value. Older
    /// records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<String>>,
}

/// Where a run is recorded.
pub const RUN: &str = "artifacts/run.json";

/// The newest form of both files that is understood.
pub const SCHEMA: u32 = 1;

/// `artifacts/run.json` of the project at `root`; `None` before the first run.
pub fn run(root: &Path) -> Result<Option<RunRecord>, Mistake> {
    run_at(root, RUN)
}

/// The same record in another file.
pub fn run_at(root: &Path, file: &str) -> Result<Option<RunRecord>, Mistake> {
    let record: Option<RunRecord> = read(root, file)?;
    match record {
        Some(record) if record.schema > SCHEMA => Err(newer(file, record.schema, &record.mlrails)),
        Some(record) => match sound::fault(&record) {
            Some(reason) => Err(Mistake::new(Rule::RunRecord {
                file: file.to_owned(),
                reason,
            })),
            None => Ok(Some(record)),
        },
        None => Ok(None),
    }
}

/// `artifacts/files.json` of the project at `root`; names in it are checked to stay in artifacts/.
pub fn files(root: &Path) -> Result<Option<FilesRecord>, Mistake> {
    let record: Option<FilesRecord> = read(root, "artifacts/files.json")?;
    let Some(record) = record else {
        return Ok(None);
    };
    if record.schema > SCHEMA {
        return Err(newer("artifacts/files.json", record.schema, "a newer version"));
    }
    for value in record.values.values() {
        let plain = Path::new(&value.file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || value.file.is_empty() || value.file.contains(['\0', '\n', '\\']) {
            return Err(Mistake::new(Rule::OutsideProject {
                path: value.file.escape_debug().to_string(),
            }));
        }
    }
    Ok(Some(record))
}

fn newer(file: &str, schema: u32, writer: &str) -> Mistake {
    Mistake::new(Rule::RunRecord {
        file: file.to_owned(),
        reason: format!(
            "it has form {schema}, written by mlrails {writer}; this mlrails reads form {SCHEMA}"
        ),
    })
}

fn read<T: serde::de::DeserializeOwned>(root: &Path, relative: &str) -> Result<Option<T>, Mistake> {
    let Some(source) = reading::text(root, Path::new(relative), reading::RECORD_LIMIT)? else {
        return Ok(None);
    };
    // serde_json refuses more than 128 levels by itself.
    serde_json::from_str(&source.text).map(Some).map_err(|error| {
        let offset = byte_offset(&source.text, error.line(), error.column());
        let reason = error.to_string();
        let file = relative.to_owned();
        Mistake::new(Rule::RunRecord { file, reason }).at(source.place(offset..offset + 1))
    })
}

fn byte_offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    start + column.saturating_sub(1)
}

//! A model that MLflow saved, as a project: the folder with the file MLmodel.
//!
//! [`read`] takes the folder and gives its [`Model`], which is facts; `shape` makes the same [`Project`](super::Project) of it that a
//! package with phases would be, so that nothing behind it knows of MLflow. No pickle is loaded, and no file of the folder is opened that
//! lies outside of it. Source: MLflow's "MLflow Model" documentation and `mlflow/models/model.py`.

mod environment;
mod example;
pub mod flavour;
mod shape;
mod signature;
mod yaml;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};

use super::config::{Config, GoldenRows};
use super::document::Placed;
use super::mistake::{Mistake, Rule};
use super::place::{Place, SourceText};
use super::pyproject::{Declared, Pyproject};
use super::reading;
use super::uv::Uv;
use crate::python::requirement;
use environment::Environment;
pub use flavour::Flavour;
pub use shape::{files, is_recorded, key, load};
pub use signature::{Shape, Signature};
use yaml::Yaml;

/// What `run` writes beside the model: as artifacts/run.json, but the folder `artifacts` may be the model's own.
pub const RECORD: &str = "mlrails.run.json";
/// The largest MLmodel. Real ones are a few KB, with a signature of thousands of columns a few hundred.
const LIMIT: u64 = 4 << 20;

/// What MLmodel says.
#[derive(Debug, Clone)]
pub struct Model {
    pub source: Arc<SourceText>,
    pub flavour: Flavour,
    pub signature: Signature,
    pub example: Example,
    /// The version of MLflow that saved it.
    pub mlflow: Option<String>,
    /// `3.11.7`
    pub python: Option<String>,
}

/// Rows that golden rows are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    None,
    Rows {
        file: String,
        rows: Vec<Value>,
    },
    /// The file is there, and its rows are none of the signature's.
    Unusable {
        file: String,
        why: String,
    },
}

impl Example {
    pub fn rows(&self) -> &[Value] {
        match self {
            Self::Rows { rows, .. } => rows,
            Self::None | Self::Unusable { .. } => &[],
        }
    }
}

/// Whether `root` holds a model; a link or a folder of that name is looked at when it is read.
pub fn is_here(root: &Path) -> bool {
    root.join(flavour::FILE).symlink_metadata().is_ok()
}

/// Reads the model at `root`, and what stands for its pyproject.toml; one that is there says name, version and, if it declares any,
/// dependencies.
pub fn read(
    root: &Path,
    config: &Config,
    pyproject: Option<Pyproject>,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Model, Pyproject)> {
    let source = match reading::text(root, Path::new(flavour::FILE), LIMIT) {
        Ok(source) => source?,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let file = match yaml::parse(&source) {
        Ok(file) => file,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let flavour = flavour::choose(root, &file, mistakes);
    let hinted = file.get("is_signature_from_type_hint").and_then(Yaml::text) == Some("true");
    let signature = match file.map_at("signature", mistakes) {
        Some(found) => signature::read(found, hinted, mistakes),
        None => {
            if file.get("signature").is_none() {
                mistakes.push(Mistake::new(Rule::NoSignature).at(source.place(0..0)));
            }
            None
        }
    };
    let environment = environment::read(root, mistakes);
    for column in &config.golden.redact {
        let what = "[golden] redact cannot withhold rows of an input example: leave the example out of the model, or \
                    name a file of made-up rows in [golden] rows"
            .to_owned();
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(column.place.clone()));
    }
    let flavours = file.get("flavors");
    let version_of = flavours
        .and_then(|flavours| flavours.get("python_function"))
        .and_then(|pyfunc| pyfunc.get("python_version"));
    let python = version_of
        .and_then(|found| {
            Some(Placed {
                value: found.text()?.to_owned(),
                place: found.place.clone(),
            })
        })
        .or_else(|| environment.python.clone());
    let flavour = flavour?;
    let mlflow = file.get("mlflow_version").and_then(Yaml::text).map(str::to_owned);
    let signature = signature?;
    let example = example_rows(root, &file, &signature, config, mistakes);
    let pyproject = stand_in(root, &file, pyproject, environment, python.as_ref(), mistakes)?;
    let pyproject = with_needs(pyproject, &flavour, &signature, mlflow.as_deref(), config);
    let model = Model {
        source,
        flavour,
        signature,
        example,
        mlflow,
        python: python.map(|python| python.value),
    };
    Some((model, pyproject))
}

/// Rows of the file that `[golden] rows` names, else of the model's input example.
fn example_rows(
    root: &Path,
    file: &Yaml,
    signature: &Signature,
    config: &Config,
    mistakes: &mut Vec<Mistake>,
) -> Example {
    let info = file.map_at("saved_input_example_info", mistakes);
    let saved = info.and_then(|info| info.get("artifact_path"));
    let (path, most, place) = match (&config.golden.rows, saved) {
        (Some(GoldenRows::File(path)), _) => (path.clone(), example::MOST, None),
        (rows, Some(saved)) => {
            let most = match rows {
                Some(GoldenRows::Count(count)) => *count as usize,
                _ => example::MOST,
            };
            let Some(path) = saved.text() else {
                mistakes.push(saved.wrong_type("artifact_path", "a path"));
                return Example::None;
            };
            (path.to_owned(), most, Some(&saved.place))
        }
        (_, None) => return Example::None,
    };
    let unusable = |why: &str| Example::Unusable {
        file: path.clone(),
        why: why.to_owned(),
    };
    match reading::text(root, Path::new(&path), reading::RECORD_LIMIT) {
        Ok(Some(source)) => match example::records(&source.text, signature, most) {
            Ok(rows) => Example::Rows { file: path, rows },
            Err(why) => unusable(&why),
        },
        Ok(None) => unusable("the file is not there"),
        Err(mistake) => {
            mistakes.push(match place {
                Some(place) if mistake.place.is_none() => mistake.at(place.clone()),
                _ => mistake,
            });
            Example::None
        }
    }
}

/// What pyproject.toml would say of the model, had it one.
fn stand_in(
    root: &Path,
    file: &Yaml,
    written: Option<Pyproject>,
    environment: Environment,
    python: Option<&Placed<String>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Pyproject> {
    let requires = python.and_then(|python| {
        let minor: Vec<&str> = python.value.split('.').take(2).collect();
        let parsed = VersionSpecifiers::from_str(&format!("=={}.*", minor.join(".")));
        match parsed {
            Ok(parsed) if minor.len() == 2 => Some((parsed, python.place.clone())),
            _ => {
                let what = format!("`{}` is not a version of Python 3", python.value.escape_debug());
                mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(python.place.clone()));
                None
            }
        }
    });
    let (requires_python, requires_python_place) = requires.unzip();
    if let Some(mut written) = written {
        if written.dependencies.is_empty() {
            written.dependencies = environment.dependencies;
            written.uv.constraints.extend(environment.constraints);
        }
        if written.requires_python.is_none() {
            written.requires_python = requires_python;
            written.requires_python_place = requires_python_place;
        }
        return Some(written);
    }
    let name = name(root, file);
    Some(Pyproject {
        source: file.place.source().clone(),
        name: PackageName::from_str(&name).ok()?,
        display_name: name,
        version: file
            .get("utc_time_created")
            .and_then(Yaml::text)
            .and_then(created),
        description: None,
        requires_python,
        requires_python_place,
        dependencies: environment.dependencies,
        extras: Vec::new(),
        groups: Vec::new(),
        build_system: None,
        uv: Uv {
            constraints: environment.constraints,
            ..Uv::default()
        },
    })
}

/// The folder's name, unless it is one that MLflow gives every model: then that of the folder it was logged to, else `model`.
fn name(root: &Path, file: &Yaml) -> String {
    let logged = file.get("artifact_path").and_then(Yaml::text).map(PathBuf::from);
    let candidates = [
        Some(root.to_path_buf()),
        root.parent().map(Path::to_path_buf),
        logged,
    ];
    let names = candidates
        .iter()
        .flatten()
        .filter_map(|path| path.file_name()?.to_str());
    let told = names.map(plain_name).find(|name| !is_given(name));
    told.unwrap_or_else(|| "model".to_owned())
}

/// Letters, digits and dashes: what a project may be called (PEP 508).
fn plain_name(name: &str) -> String {
    let kept: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let parts: Vec<&str> = kept.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// `artifacts`, `model`, and MLflow's identifiers (`m-7000…`, a run's 32 digits) say nothing of what a model is about; nor does a
/// name that begins with a digit make a module.
fn is_given(name: &str) -> bool {
    let id = name.strip_prefix("m-").unwrap_or(name);
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let generic = ["", "artifacts", "model", "models", "data", "tmp"].contains(&name);
    generic || is_id || !name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// `2026-11-30 18:25:38.085337` as the version `2026.11.30.182538`: newer models are higher versions.
fn created(text: &str) -> Option<Version> {
    let (day, time) = text.split_once([' ', 'T'])?;
    let digits: String = time.chars().take(8).filter(char::is_ascii_digit).collect();
    let parts: Vec<&str> = day.split('-').chain([digits.as_str()]).collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.len() <= 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(is_number) {
        return None;
    }
    Version::from_str(&parts.join(".")).ok()
}

/// What answering takes, instead of what logging took: the framework, and MLflow's small distribution where only MLflow can load.
fn with_needs(
    mut pyproject: Pyproject,
    flavour: &Flavour,
    signature: &Signature,
    mlflow: Option<&str>,
    config: &Config,
) -> Pyproject {
    let is_kept = |name: &str| config.dependencies.keep.iter().any(|kept| kept.value == name);
    let mut needed: Vec<(String, &Place)> = Vec::new();
    let dependencies = &mut pyproject.dependencies;
    if flavour.is_whole() {
        let skinny = PackageName::from_str("mlflow-skinny").ok();
        for declared in dependencies.iter_mut() {
            // The same code without the tracking server, its database and its plots.
            if declared.requirement.name.as_str() == "mlflow"
                && declared.requirement.extras.is_empty()
                && !is_kept("mlflow")
                && let Some(skinny) = &skinny
            {
                declared.requirement.name = skinny.clone();
            }
        }
        let exactly = mlflow.map(|version| format!("=={version}")).unwrap_or_default();
        if !dependencies
            .iter()
            .any(|one| one.requirement.name.as_str().starts_with("mlflow"))
        {
            needed.push((format!("mlflow-skinny{exactly}"), &flavour.place));
        }
        needed.push(("numpy".to_owned(), &flavour.place));
        needed.push(("pandas".to_owned(), &flavour.place));
    } else {
        // Logged with every model, and imported by none of these loaders.
        dependencies.retain(|one| {
            let name = one.requirement.name.as_str();
            !matches!(name, "mlflow" | "mlflow-skinny") || is_kept(name)
        });
    }
    // MLflow writes both where the small one was installed, and they are the same files.
    if dependencies
        .iter()
        .any(|one| one.requirement.name.as_str() == "xgboost-cpu")
    {
        dependencies.retain(|one| one.requirement.name.as_str() != "xgboost" || is_kept("xgboost"));
    }
    match signature.shape {
        Shape::Table | Shape::Unnamed => needed.push(("pandas".to_owned(), &signature.place)),
        Shape::Array { .. } => needed.push(("numpy".to_owned(), &signature.place)),
        Shape::Values | Shape::Records => {}
    }
    for (text, place) in needed {
        let Ok(requirement) = requirement::parse(&text) else {
            continue;
        };
        if !dependencies
            .iter()
            .any(|one| one.requirement.name == requirement.name)
        {
            dependencies.push(Declared {
                requirement,
                place: place.clone(),
            });
        }
    }
    pyproject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_after_what_says_something() {
        let file = |text: &str| yaml::parse(&SourceText::new("MLmodel", text)).unwrap();
        let none = file("flavors: {}");
        let called = |path: &str| name(Path::new(path), &none);
        assert_eq!(called("/home/a/churn_model"), "churn-model");
        assert_eq!(
            called("/a/mlruns/0/models/m-7000f54854cd44f98fa854e37ef770a2/artifacts"),
            "model"
        );
        assert_eq!(
            called("/a/mlruns/0/fd47ea9a9528468fab9a9eaa25d0069a/artifacts/fraud"),
            "fraud"
        );
        assert_eq!(called("/a/b/Größe 2"), "gr-e-2");
        assert_eq!(called("/a/churn/model"), "churn");
        let logged = file("artifact_path: nets/price");
        assert_eq!(name(Path::new("/0/artifacts/model"), &logged), "price");
    }

    #[test]
    fn a_time_is_a_version() {
        let version = created("2026-11-30 18:25:38.085337").unwrap();
        assert_eq!(version.to_string(), "2026.11.30.182538");
        assert!(created("yesterday").is_none() && created("2026-11-30").is_none());
        assert!(created("99999999999999999999-1-1 1").is_none());
    }
}

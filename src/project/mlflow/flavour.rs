//! Which of a model's flavours answers, from which file, and with what.
//!
//! A model that a framework saved is loaded by the framework itself, as MLflow's own loader of that flavour does: no MLflow in the image.
//! What only MLflow can load (a `PythonModel`, a flavour that is not known here) keeps its folder whole. docs/decisions/mlflow.md says
//! why. Source: `_load_pyfunc` of `mlflow/sklearn`, `mlflow/xgboost`, `mlflow/lightgbm`.

use std::path::{Component, Path, PathBuf};

use super::yaml::Yaml;
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::Place;
use crate::project::reading;

/// The file that says what a model is.
pub const FILE: &str = "MLmodel";
/// The format of a model that only MLflow loads.
pub const WHOLE: &str = "mlflow";

#[derive(Debug, Clone, PartialEq)]
pub struct Flavour {
    /// `sklearn`, `xgboost`, `lightgbm`, or `pyfunc`.
    pub name: &'static str,
    /// What is loaded, below the model's folder.
    pub file: PathBuf,
    /// How, as files.json has it.
    pub format: String,
    /// The function of `mlrails_runtime.flavours` that answers.
    pub function: &'static str,
    /// The method of the model, where it is not `predict`.
    pub method: Option<String>,
    /// The folder of modules that were saved with the model.
    pub code: Option<PathBuf>,
    pub place: Place,
}

impl Flavour {
    /// Whether MLflow itself answers.
    pub fn is_whole(&self) -> bool {
        self.format == WHOLE
    }
}

/// Loaders of MLflow's that need a Java machine, or are no Python.
const FOREIGN: [&str; 5] = [
    "mlflow.spark",
    "mlflow.h2o",
    "mlflow.johnsnowlabs",
    "mlflow.mleap",
    "mlflow.crate",
];
/// What `pyfunc_predict_fn` may name, of what answers a row at a time.
const METHODS: [&str; 4] = [
    "predict",
    "predict_proba",
    "predict_log_proba",
    "predict_joint_log_proba",
];
/// XGBoost's own classes with scikit-learn's interface.
const XGBOOST: [&str; 5] = [
    "XGBClassifier",
    "XGBRFClassifier",
    "XGBRFRegressor",
    "XGBRanker",
    "XGBRegressor",
];

/// Chooses. `None` with a mistake where nothing can answer.
pub fn choose(root: &Path, model: &Yaml, mistakes: &mut Vec<Mistake>) -> Option<Flavour> {
    let flavours = model.map_at("flavors", mistakes);
    let pyfunc = flavours.and_then(|flavours| flavours.map_at("python_function", mistakes));
    let Some((flavours, pyfunc)) = flavours.zip(pyfunc) else {
        let place = flavours.unwrap_or(model).place.clone();
        let rule = Rule::NoFlavour {
            why: "it has no flavour `python_function`, by which any model answers rows".to_owned(),
        };
        mistakes.push(Mistake::new(rule).at(place));
        return None;
    };
    let before = mistakes.len();
    let loader = pyfunc.text_at("loader_module", mistakes).unwrap_or_default();
    if let Some(foreign) = FOREIGN.iter().find(|foreign| loader.starts_with(**foreign)) {
        let rule = Rule::NoFlavour {
            why: format!("its loader `{foreign}` needs more than a Python to run"),
        };
        mistakes.push(Mistake::new(rule).at(pyfunc.place.clone()));
        return None;
    }
    let found = match loader {
        "mlflow.sklearn" => flavours
            .map_at("sklearn", mistakes)
            .and_then(|own| sklearn(own, pyfunc, mistakes)),
        "mlflow.xgboost" => flavours
            .map_at("xgboost", mistakes)
            .and_then(|own| xgboost(own, mistakes)),
        "mlflow.lightgbm" => flavours
            .map_at("lightgbm", mistakes)
            .and_then(|own| lightgbm(own, mistakes)),
        _ => None,
    };
    let (name, file, format, function) = match found {
        Some(found) => found,
        None if mistakes.len() > before => return None,
        None => ("pyfunc", None, WHOLE.to_owned(), "pyfunc"),
    };
    let method = pyfunc.text_at("predict_fn", mistakes);
    if let Some(method) = method.filter(|method| !METHODS.contains(method) && name == "sklearn") {
        let what = format!(
            "the model answers with `{method}`, and only {} answer rows",
            METHODS.join(", ")
        );
        let place = pyfunc
            .get("predict_fn")
            .map_or(&pyfunc.place, |found| &found.place);
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place.clone()));
    }
    let file = match file {
        Some(file) => inside(root, file, "the model's file", mistakes).map(|path| (path, file.place.clone())),
        None => Some((PathBuf::from(FILE), pyfunc.place.clone())),
    };
    let code = pyfunc.get("code").and_then(|code| folder(root, code, mistakes));
    // What else MLflow opens by a path of MLmodel's.
    if name == "pyfunc" {
        for key in ["python_model", "data", "model_path"] {
            if let Some(path) = pyfunc.get(key) {
                plain(path, key, mistakes);
            }
        }
        if let Some(path) = pyfunc.get("python_model") {
            inside(root, path, "python_model", mistakes);
        }
        for path in artifacts(pyfunc) {
            plain(path, "an artifact's path", mistakes);
        }
    }
    let (file, place) = file?;
    (mistakes.len() == before).then(|| Flavour {
        name,
        file,
        format,
        function,
        method: method.filter(|method| *method != "predict").map(str::to_owned),
        code,
        place,
    })
}

fn artifacts(pyfunc: &Yaml) -> Vec<&Yaml> {
    let entries = match pyfunc.get("artifacts").map(|artifacts| &artifacts.kind) {
        Some(super::yaml::Kind::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries
        .iter()
        .filter_map(|(_, entry)| entry.get("path"))
        .collect()
}

type Found<'a> = (&'static str, Option<&'a Yaml>, String, &'static str);

fn sklearn<'a>(own: &'a Yaml, pyfunc: &'a Yaml, mistakes: &mut Vec<Mistake>) -> Option<Found<'a>> {
    let file = own.get("pickled_model").or_else(|| pyfunc.get("model_path"));
    let format = pickled(own, "pickle", mistakes)?;
    named("sklearn", file, own, mistakes)?;
    Some(("sklearn", file, format, "estimator"))
}

fn xgboost<'a>(own: &'a Yaml, mistakes: &mut Vec<Mistake>) -> Option<Found<'a>> {
    let file = own.get("data");
    named("xgboost", file, own, mistakes)?;
    let class = own
        .text_at("model_class", mistakes)
        .unwrap_or("xgboost.core.Booster");
    let last = class.rsplit('.').next().unwrap_or(class);
    match last {
        "Booster" => Some(("xgboost", file, "xgboost".to_owned(), "xgboost_booster")),
        known if XGBOOST.contains(&known) && class.starts_with("xgboost.") => {
            Some(("xgboost", file, format!("xgboost.{known}"), "estimator"))
        }
        // A class of somebody's own: MLflow knows how to find it.
        _ => None,
    }
}

fn lightgbm<'a>(own: &'a Yaml, mistakes: &mut Vec<Mistake>) -> Option<Found<'a>> {
    let file = own.get("data");
    named("lightgbm", file, own, mistakes)?;
    let class = own
        .text_at("model_class", mistakes)
        .unwrap_or("lightgbm.basic.Booster");
    if class.rsplit('.').next() == Some("Booster") {
        return Some(("lightgbm", file, "lightgbm".to_owned(), "estimator"));
    }
    let format = pickled(own, "cloudpickle", mistakes)?;
    Some(("lightgbm", file, format, "estimator"))
}

/// `serialization_format` as files.json has it. What cloudpickle writes, pickle reads.
fn pickled(own: &Yaml, default: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
    match own.text_at("serialization_format", mistakes).unwrap_or(default) {
        "pickle" | "cloudpickle" => Some("pickle".to_owned()),
        "skops" => Some("skops".to_owned()),
        other => {
            let what = format!(
                "`serialization_format` is `{}`, and pickle, cloudpickle and skops are known",
                other.escape_debug()
            );
            let place = own
                .get("serialization_format")
                .map_or(&own.place, |found| &found.place);
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place.clone()));
            None
        }
    }
}

fn named(flavour: &str, file: Option<&Yaml>, own: &Yaml, mistakes: &mut Vec<Mistake>) -> Option<()> {
    if file.is_none() {
        let rule = Rule::NoFlavour {
            why: format!("its flavour `{flavour}` names no file of the model"),
        };
        mistakes.push(Mistake::new(rule).at(own.place.clone()));
    }
    file.map(|_| ())
}

/// The path that `value` is, once it is known to stay inside by its words.
fn plain(value: &Yaml, key: &str, mistakes: &mut Vec<Mistake>) -> Option<PathBuf> {
    let Some(text) = value.text() else {
        mistakes.push(value.wrong_type(key, "a path"));
        return None;
    };
    let path = PathBuf::from(text);
    let stays = !text.is_empty()
        && !text.contains(['\0', '\n', '\\'])
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays {
        let rule = Rule::OutsideProject {
            path: text.escape_debug().to_string(),
        };
        mistakes.push(Mistake::new(rule).at(value.place.clone()));
        return None;
    }
    Some(
        path.components()
            .filter(|part| *part != Component::CurDir)
            .collect(),
    )
}

/// The same, once a regular file is there, and not through a link that leads out.
fn inside(root: &Path, value: &Yaml, key: &str, mistakes: &mut Vec<Mistake>) -> Option<PathBuf> {
    let path = plain(value, key, mistakes)?;
    match reading::locate(root, &path) {
        Ok(Some(_)) => Some(path),
        Ok(None) => {
            let rule = Rule::ModelFile {
                path: path.display().to_string(),
                key: key.to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(value.place.clone()));
            None
        }
        Err(mistake) => {
            mistakes.push(mistake.at(value.place.clone()));
            None
        }
    }
}

fn folder(root: &Path, value: &Yaml, mistakes: &mut Vec<Mistake>) -> Option<PathBuf> {
    let path = plain(value, "code", mistakes)?;
    match reading::folder(root, &path) {
        Ok(Some(_)) => Some(path),
        Ok(None) => {
            let rule = Rule::ModelFile {
                path: path.display().to_string(),
                key: "code".to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(value.place.clone()));
            None
        }
        Err(mistake) => {
            mistakes.push(mistake.at(value.place.clone()));
            None
        }
    }
}

//! The app as files: `app.py`, which is straight-line Python that a person can read and take away, and the facts it needs.
//!
//! Takes an [`App`]. Gives files for `/app`: `app.py`, `service.json`, `openapi.json`. The same app gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::python::{free, literal};
use super::{App, Input, Step, Supplied};
use crate::project::settings::SettingValue;

/// The form of service.json that the runtime reads.
const SCHEMA: u32 = 1;
const WIDTH: usize = 100;

/// The app's files, by path relative to `/app`. `artifacts` is the folder of the trained values, relative to that or absolute.
pub fn files(app: &App, artifacts: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    files.insert("app.py".to_owned(), app_py(app).into_bytes());
    files.insert("service.json".to_owned(), pretty(&service_json(app, artifacts)));
    if let Some(openapi) = &app.openapi {
        files.insert("openapi.json".to_owned(), pretty(openapi));
    }
    files
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into_bytes()
}

/// What the runtime reads: schema, files, an example, what `/metadata` may tell. Golden rows stay in run.json.
pub fn service_json(app: &App, artifacts: &str) -> Value {
    let (kind, row) = match &app.supplied {
        Supplied::Table(_) => ("table", None),
        Supplied::Records(row) => ("records", row.as_ref()),
    };
    let mut request = app.request.clone();
    if let Value::Object(fields) = &mut request {
        // The source decides; a record of an older shape of serve.py would not fit the app.
        fields.insert("kind".to_owned(), json!(kind));
    }
    json!({
        "schema": SCHEMA,
        "name": app.name,
        "version": app.version,
        "module": app.module,
        "artifacts": artifacts,
        "frozen": app.frozen,
        "request": request,
        "row": row,
        "response": app.response,
        "example": app.example(),
        "accelerate": app.accelerate,
        "alone": app.alone,
        "python": app.python,
        "versions": app.versions,
        "locked": app.locked,
        "labels": app.labels,
    })
}

/// The pipeline as Python: imports, then one call per step in order.
pub fn app_py(app: &App) -> String {
    let mut taken: BTreeSet<String> = app.steps.iter().map(|step| step.name.clone()).collect();
    let subject = match &app.supplied {
        Supplied::Table(node) => {
            taken.insert(node.clone());
            node.clone()
        }
        Supplied::Records(_) => free("request", &mut taken),
    };
    let frozen = free("frozen", &mut taken);
    let secrets = app
        .steps
        .iter()
        .any(|step| step.settings.iter().any(|(_, value)| is_reference(value)));
    let secret = if secrets {
        free("secret", &mut taken)
    } else {
        String::new()
    };
    let modules = modules(app, &mut taken);

    let mut text = String::new();
    let version = app
        .version
        .as_deref()
        .map(|version| format!(" {version}"))
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "\"\"\"The serving half of {}{version}, as straight Python.",
        app.name
    );
    text.push_str(
        "\nmlrails wrote this file from the project's source and its last training run. On each batch of requests the runtime\n\
         calls `pipeline` with the trained values and the rows; nothing else happens here.\n\"\"\"\n\n",
    );
    for (module, alias) in &modules {
        text.push_str(&import(module, alias));
    }
    if secrets {
        let renamed = if secret == "secret" {
            String::new()
        } else {
            format!(" as {secret}")
        };
        let _ = writeln!(text, "\nfrom mlrails_runtime.settings import secret{renamed}");
    }
    let _ = writeln!(text, "\n\ndef pipeline({frozen}, {subject}):");
    text.push_str("    \"\"\"Answers, one per row.\n\n");
    let names: Vec<&str> = app.frozen.iter().map(|value| value.name.as_str()).collect();
    let values = if names.is_empty() {
        "nothing was trained".to_owned()
    } else {
        format!("what training learned, by name: {}", names.join(", "))
    };
    let _ = writeln!(text, "    {frozen}: {values}.");
    let rows = match &app.supplied {
        Supplied::Table(_) => "the rows of the requests, a DataFrame with the columns and dtypes of training",
        Supplied::Records(Some(_)) => "the records of the requests, as the project's own class",
        Supplied::Records(None) => "the records of the requests, each a dict",
    };
    let _ = writeln!(text, "    {subject}: {rows}.\n    \"\"\"");
    let scope = Scope {
        modules: &modules,
        frozen: &frozen,
        subject: &subject,
        secret: &secret,
    };
    for (at, step) in app.steps.iter().enumerate() {
        let target = if at + 1 == app.steps.len() {
            "return ".to_owned()
        } else {
            format!("{} = ", step.name)
        };
        text.push_str(&scope.call(&target, step));
    }
    text
}

/// Each module of the steps, in order of first use, with the name it gets: its last part, unless that is taken.
fn modules(app: &App, taken: &mut BTreeSet<String>) -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    for step in &app.steps {
        if modules.contains_key(&step.module) {
            continue;
        }
        let last = step.module.rsplit('.').next().unwrap_or(&step.module);
        let wanted = if taken.contains(last) {
            step.module.replace('.', "_")
        } else {
            last.to_owned()
        };
        let alias = free(&wanted, taken);
        modules.insert(step.module.clone(), alias);
    }
    modules
}

fn import(module: &str, alias: &str) -> String {
    match module.rsplit_once('.') {
        Some((parent, last)) if last == alias => format!("from {parent} import {last}\n"),
        Some((parent, last)) => format!("from {parent} import {last} as {alias}\n"),
        None if module == alias => format!("import {module}\n"),
        None => format!("import {module} as {alias}\n"),
    }
}

/// What the function's names mean.
struct Scope<'a> {
    modules: &'a BTreeMap<String, String>,
    frozen: &'a str,
    subject: &'a str,
    secret: &'a str,
}

impl Scope<'_> {
    fn call(&self, target: &str, step: &Step) -> String {
        let inputs = step.inputs.iter().map(|(parameter, input)| match input {
            Input::Node(name) => format!("{parameter}={name}"),
            Input::Frozen(name) => format!("{parameter}={}[{}]", self.frozen, literal(&json!(name))),
            Input::Request => format!("{parameter}={}", self.subject),
        });
        let settings = step.settings.iter().map(|(name, value)| {
            let value_text = literal(value);
            if is_reference(value) {
                format!("{name}={}({value_text})", self.secret)
            } else {
                format!("{name}={value_text}")
            }
        });
        let arguments: Vec<String> = inputs.chain(settings).collect();
        let module = self
            .modules
            .get(&step.module)
            .map_or(step.module.as_str(), String::as_str);
        let head = format!("    {target}{module}.{}(", step.function);
        let line = format!("{head}{})\n", arguments.join(", "));
        if line.len() <= WIDTH {
            return line;
        }
        let mut text = format!("{head}\n");
        for argument in arguments {
            let _ = writeln!(text, "        {argument},");
        }
        text.push_str("    )\n");
        text
    }
}

/// `env:NAME` or `file:PATH`: read where it runs, so that no image holds the secret.
fn is_reference(value: &Value) -> bool {
    SettingValue::Json(value.clone()).is_reference()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::{FrozenValue, RowType};

    fn step(name: &str, module: &str, inputs: &[(&str, Input)], settings: &[(&str, Value)]) -> Step {
        Step {
            name: name.to_owned(),
            module: module.to_owned(),
            function: name.to_owned(),
            inputs: inputs
                .iter()
                .map(|(name, input)| ((*name).to_owned(), input.clone()))
                .collect(),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        }
    }

    fn node(name: &str) -> Input {
        Input::Node(name.to_owned())
    }

    fn frozen(name: &str) -> Input {
        Input::Frozen(name.to_owned())
    }

    fn app(supplied: Supplied, steps: Vec<Step>) -> App {
        App {
            name: "churn".to_owned(),
            version: Some("0.1.0".to_owned()),
            module: "churn".to_owned(),
            steps,
            frozen: ["model", "spend_stats"]
                .map(|name| FrozenValue {
                    name: name.to_owned(),
                    file: format!("{name}.joblib"),
                    format: "joblib".to_owned(),
                    sha256: "00".repeat(32),
                    size: 3,
                })
                .to_vec(),
            supplied,
            request: json!({"node": "customers", "kind": "table", "columns": [
                {"name": "age", "type": "integer", "mean": 44.4},
                {"name": "plan", "type": "string", "categories": ["basic", "pro"]},
                {"name": "spend", "type": "number", "mean": 3.5, "example": 7.25},
            ]}),
            response: json!({"kind": "list", "items": {"type": "number"}}),
            openapi: None,
            accelerate: Value::Null,
            alone: false,
            versions: BTreeMap::new(),
            python: "3.11.7".to_owned(),
            locked: [("pandas".to_owned(), "2.3.3".to_owned())].into(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn the_pipeline_reads_as_a_person_would_write_it() {
        let steps = vec![
            step(
                "spend_z",
                "churn.features",
                &[
                    ("customers", node("customers")),
                    ("spend_stats", frozen("spend_stats")),
                ],
                &[("clip", json!(3.0))],
            ),
            step(
                "predict",
                "churn.serve",
                &[("model", frozen("model")), ("spend_z", node("spend_z"))],
                &[],
            ),
        ];
        let expected = r#""""The serving half of churn 0.1.0, as straight Python.

mlrails wrote this file from the project's source and its last training run. On each batch of requests the runtime
calls `pipeline` with the trained values and the rows; nothing else happens here.
"""

from churn import features
from churn import serve


def pipeline(frozen, customers):
    """Answers, one per row.

    frozen: what training learned, by name: model, spend_stats.
    customers: the rows of the requests, a DataFrame with the columns and dtypes of training.
    """
    spend_z = features.spend_z(customers=customers, spend_stats=frozen["spend_stats"], clip=3.0)
    return serve.predict(model=frozen["model"], spend_z=spend_z)
"#;
        assert_eq!(
            app_py(&app(Supplied::Table("customers".to_owned()), steps)),
            expected
        );
    }

    #[test]
    fn names_of_the_project_win_over_ours() {
        let steps = vec![
            step(
                "frozen",
                "churn.serve",
                &[("request", Input::Request)],
                &[("token", json!("env:TOKEN"))],
            ),
            step(
                "serve",
                "churn.features.numbers",
                &[("frozen", node("frozen"))],
                &[],
            ),
            step(
                "predict",
                "churn.serve",
                &[("serve", node("serve")), ("model", frozen("model"))],
                &[],
            ),
        ];
        let text = app_py(&app(Supplied::Records(None), steps));
        let code = text
            .split("\"\"\"")
            .enumerate()
            .filter(|(at, _)| at % 2 == 0)
            .map(|(_, part)| part);
        let expected = r#"

from churn.features import numbers
from churn import serve as churn_serve

from mlrails_runtime.settings import secret


def pipeline(frozen_, request):
    
    frozen = churn_serve.frozen(request=request, token=secret("env:TOKEN"))
    serve = numbers.serve(frozen=frozen)
    return churn_serve.predict(serve=serve, model=frozen_["model"])
"#;
        assert_eq!(code.collect::<String>(), expected);
    }

    #[test]
    fn a_long_call_is_wrapped() {
        let inputs: Vec<(String, Input)> = (0..12)
            .map(|at| (format!("feature_{at}"), node(&format!("feature_{at}"))))
            .collect();
        let mut steps = vec![step("predict", "churn.serve", &[], &[])];
        steps[0].inputs = inputs;
        let text = app_py(&app(Supplied::Table("customers".to_owned()), steps));
        assert!(
            text.contains("serve.predict(\n        feature_0=feature_0,\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn service_json_says_what_the_source_says_and_makes_an_example_up() {
        let row = RowType {
            module: "churn.serve".to_owned(),
            name: "Customer".to_owned(),
        };
        let service = service_json(&app(Supplied::Records(Some(row)), Vec::new()), "artifacts");
        assert_eq!(service["request"]["kind"], "records");
        assert_eq!(
            service["row"],
            json!({"module": "churn.serve", "name": "Customer"})
        );
        assert_eq!(
            service["example"],
            json!({"age": 44, "plan": "basic", "spend": 7.25})
        );
        assert_eq!(service["frozen"][0]["file"], "model.joblib");
    }
}

//! What is served equals what training answered: golden rows of a project per framework, over every contract and encoding.

use std::path::{Path, PathBuf};
use std::process::Command;

use mlrails::project::record;

use crate::serving::Server;
use crate::support::driver::{Mlrails, copy_of, repository};
use crate::support::store::{amount, covered};

/// `fixture`, trained in `environment` of tests/store.
fn trained(fixture: &str, environment: &Path) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = copy_of(&format!("fixtures/{fixture}"), home.path());
    std::os::unix::fs::symlink(environment, root.join(".venv")).unwrap();
    Mlrails::new(home.path())
        .project(&root)
        .args(["run"])
        .run()
        .expect(0);
    (home, root)
}

/// The same, served from there, and where its project lies.
fn served(fixture: &str, environment: &Path) -> (Server, PathBuf) {
    let (home, root) = trained(fixture, environment);
    let settings = [("AIP_PREDICT_ROUTE", "/vertex")];
    (Server::of_project(home, &root, &["--no-reload"], &settings), root)
}

/// What `script` of tests/ says of the server and the project, run by `environment`'s Python.
#[track_caller]
fn said_by(script: &str, environment: &Path, server: &Server, root: &Path) -> String {
    let output = Command::new(environment.join("bin/python"))
        .arg(repository("tests").join(script))
        .arg(format!("127.0.0.1:{}", server.port))
        .arg(root)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Trains `fixture` in `environment` of tests/store, serves it, and lets `contracts.py` compare. `formats`: how the frozen values are
/// kept.
#[track_caller]
fn check(fixture: &str, environment: &str, needs: &str, formats: &[(&str, &str)]) {
    let package = format!("{environment}/lib/python3.11/site-packages/{needs}");
    if !covered(&format!("{fixture} over every contract"), &[&package]) {
        return;
    }
    let environment = repository("tests/store").join(environment);
    let (server, root) = served(fixture, &environment);
    let files = record::files(&root).unwrap().unwrap();
    let kept: Vec<(&str, &str)> = files
        .values
        .iter()
        .map(|(name, value)| (name.as_str(), value.format.as_str()))
        .collect();
    assert_eq!(kept, formats);
    let said = said_by("contracts.py", &environment, &server, &root);
    let compared: Vec<&str> = said.lines().collect();
    assert_eq!(compared.len(), 21, "{said}");
    assert_eq!(compared[0], "one record: 100");
    assert!(compared[1..].iter().all(|line| line.ends_with(": 300")), "{said}");
}

/// The runtime's own tests of what only frameworks can tell, in an environment that has them.
#[track_caller]
fn parts(class: &str, environment: &str, needs: &str) {
    let package = format!("{environment}/lib/python3.11/site-packages/{needs}");
    if !covered(&format!("frozen values of {class}"), &[&package]) {
        return;
    }
    let output = Command::new(repository("tests/store").join(environment).join("bin/python"))
        .args(["-m", "unittest", &format!("tests.test_frameworks.{class}")])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository("templates/runtime"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("\nOK\n"), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

#[test]
fn frozen_boosters_and_graphs_are_equal_when_they_are_loaded() {
    parts("Boosters", "venv-models", "xgboost");
    parts("Graphs", "venv-models", "onnx");
}

#[test]
fn frozen_tensors_are_equal_when_they_are_loaded() {
    parts("Tensors", "venv-torch", "pyarrow");
}

#[test]
fn scikit_learn_answers_as_in_training() {
    check(
        "churn",
        "venv-models",
        "sklearn",
        &[("model", "joblib"), ("spend_stats", "json")],
    );
}

#[test]
fn xgboost_answers_as_in_training() {
    check(
        "xgboost_booster",
        "venv-models",
        "xgboost",
        &[("district_values", "json"), ("model", "xgboost")],
    );
}

#[test]
fn lightgbm_answers_as_in_training() {
    check(
        "lightgbm_booster",
        "venv-models",
        "lightgbm",
        &[("district_values", "json"), ("model", "lightgbm")],
    );
}

#[test]
fn onnx_answers_as_in_training() {
    check(
        "onnx_model",
        "venv-models",
        "onnxruntime",
        &[("district_values", "json"), ("graph", "onnx"), ("scales", "json")],
    );
}

#[test]
fn torch_answers_as_in_training() {
    check(
        "torch_state_dict",
        "venv-torch",
        "pyarrow",
        &[
            ("district_values", "json"),
            ("scales", "json"),
            ("weights", "torch"),
        ],
    );
}

#[test]
fn clients_that_others_wrote_are_answered() {
    let needs = [
        "venv-models/lib/python3.11/site-packages/xgboost",
        "venv-clients/lib/python3.11/site-packages/tritonclient",
        "venv-clients/lib/python3.11/site-packages/mlflow",
    ];
    if !covered("Triton's and MLflow's own clients", &needs) {
        return;
    }
    let (server, root) = served("xgboost_booster", &repository("tests/store/venv-models"));
    let said = said_by(
        "clients.py",
        &repository("tests/store/venv-clients"),
        &server,
        &root,
    );
    assert_eq!(said.lines().count(), 10, "{said}");
    assert!(
        said.contains("Triton, bytes, together: 73\n") && said.ends_with("MLflow, an array: 100\n"),
        "{said}"
    );
}

/// Schemathesis against a fixture's server: what it says, and whether it found nothing.
fn fuzzed(server: &Server, root: &Path, examples: u32) -> (bool, String) {
    let output = Command::new(repository("tests/store/venv-schemathesis/bin/python"))
        .arg(repository("tests/fuzz.py"))
        .arg(format!("127.0.0.1:{}", server.port))
        .arg(root)
        .arg(examples.to_string())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

const FUZZING: [&str; 2] = [
    "venv-models/lib/python3.11/site-packages/xgboost",
    "venv-schemathesis/lib/python3.11/site-packages/schemathesis",
];

#[test]
fn made_up_requests_are_answered_as_the_openapi_document_says() {
    if !covered("requests that schemathesis makes up", &FUZZING) {
        return;
    }
    for fixture in ["churn", "xgboost_booster"] {
        let (server, root) = served(fixture, &repository("tests/store/venv-models"));
        // With `make test-long` more than 10,000 requests of both.
        let (passed, said) = fuzzed(&server, &root, amount(10, 1000));
        assert!(passed, "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn an_answer_of_another_type_than_the_document_says_is_found() {
    if !covered("a wrong type that schemathesis finds", &FUZZING) {
        return;
    }
    let (home, root) = trained("xgboost_booster", &repository("tests/store/venv-models"));
    let path = root.join("src/homes/serve.py");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("-> list[float]"));
    std::fs::write(&path, text.replace("-> list[float]", "-> list[str]")).unwrap();
    let server = Server::of_project(home, &root, &["--no-reload"], &[]);
    let (passed, said) = fuzzed(&server, &root, 1);
    assert!(!passed && said.contains("Response violates schema"), "{said}");
}

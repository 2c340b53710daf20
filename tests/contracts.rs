//! What is served equals what training answered: golden rows of a project per framework, over every contract and encoding.

use std::process::Command;

use mlrails::project::record;

use crate::serving::Server;
use crate::support::driver::{Mlrails, copy_of, repository};
use crate::support::store::covered;

/// Trains `fixture` in `environment` of tests/store, serves it, and lets `contracts.py` compare. `formats`: how the frozen values are
/// kept.
#[track_caller]
fn check(fixture: &str, environment: &str, needs: &str, formats: &[(&str, &str)]) {
    let package = format!("{environment}/lib/python3.11/site-packages/{needs}");
    if !covered(&format!("{fixture} over every contract"), &[&package]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = copy_of(&format!("fixtures/{fixture}"), home.path());
    let venv = repository("tests/store").join(environment);
    std::os::unix::fs::symlink(&venv, root.join(".venv")).unwrap();
    Mlrails::new(home.path())
        .project(&root)
        .args(["run"])
        .run()
        .expect(0);
    let files = record::files(&root).unwrap().unwrap();
    let kept: Vec<(&str, &str)> = files
        .values
        .iter()
        .map(|(name, value)| (name.as_str(), value.format.as_str()))
        .collect();
    assert_eq!(kept, formats);
    let server = Server::of_project(home, &root, &["--no-reload"], &[("AIP_PREDICT_ROUTE", "/vertex")]);
    let output = Command::new(venv.join("bin/python"))
        .arg(repository("tests/contracts.py"))
        .arg(format!("127.0.0.1:{}", server.port))
        .arg(&root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
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

//! `mlrails wheel`: the served pipeline as a library.

use std::path::{Path, PathBuf};
use std::process::Command;

use mlrails::digest::Digest;
use mlrails::python::wheel;

use crate::support::driver::repository;
use crate::support::peers::succeeds;
use crate::support::road::{Road, road};
use crate::support::store::covered;

const NAME: &str = "churn-0.1.0-py3-none-any.whl";

/// A copy of the example project with its wheel.
fn built(road: &Road, into: &Path) -> (PathBuf, PathBuf) {
    let project = road.copy(into);
    let outcome = road.on(&project, &["wheel"]).run().expect(0);
    let path = project.join("dist").join(NAME);
    assert_eq!(Path::new(outcome.stdout.trim()), path);
    (project, path)
}

#[test]
fn the_wheel_is_one_that_is_admitted_and_the_same_everywhere() {
    let Some(road) = road("the wheel of the example project", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let (project, path) = built(road, scratch.path());
    let bytes = std::fs::read(&path).unwrap();
    let admitted = wheel::validate(NAME, Digest::of(&bytes), &bytes[..]).unwrap();
    let names: Vec<&str> = admitted.entries.iter().map(|entry| entry.name.as_str()).collect();
    for present in [
        "churn/serve.py",
        "churn/features.py",
        "churn/_mlrails/__init__.py",
        "churn/_mlrails/artifacts/model.joblib",
        "churn/_mlrails/artifacts/run.json",
        "churn/_mlrails/__main__.py",
        "churn/_mlrails/runtime/engines/maker.py",
    ] {
        assert!(names.contains(&present), "{present}: {names:?}");
    }
    for absent in ["churn/train.py", "churn/data.py"] {
        assert!(!names.contains(&absent), "{absent} only trains");
    }
    let entry = admitted.entry("churn-0.1.0.dist-info/METADATA").unwrap();
    let metadata = String::from_utf8(admitted.read(&bytes[..], entry).unwrap()).unwrap();
    let requires = |name: &str| metadata.contains(&format!("\nRequires-Dist: {name}"));
    for name in ["pandas", "scikit-learn", "msgspec"] {
        assert!(requires(name), "{name}: {metadata}");
    }
    for name in ["matplotlib", "mlflow", "jupyterlab", "pytest", "granian"] {
        assert!(!requires(name), "{name}: {metadata}");
    }
    // What workers of a cluster are compared with: the pipeline's own, without the server's.
    let entry = admitted.entry("churn/_mlrails/service.json").unwrap();
    let service: serde_json::Value =
        serde_json::from_slice(&admitted.read(&bytes[..], entry).unwrap()).unwrap();
    let locked = service["locked"].as_object().unwrap();
    for (name, is_there) in [
        ("pandas", true),
        ("msgspec", true),
        ("granian", false),
        ("click", false),
    ] {
        assert_eq!(locked.contains_key(name), is_there, "{name}: {locked:?}");
    }
    let elsewhere = scratch.path().join("elsewhere");
    let again = road
        .on(&project, &["wheel", "--output", elsewhere.to_str().unwrap()])
        .env("TZ", "Asia/Kathmandu")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .run()
        .expect(0);
    assert_eq!(std::fs::read(again.stdout.trim()).unwrap(), bytes);
}

/// Installed by pip beside what it requires, it answers the golden rows as training did.
const PREDICT: &str = r#"
import json, sys
from churn import Model
golden = json.load(open(sys.argv[1]))["golden"]
model = Model()
together = model.predict(golden["rows"])
assert len(together) == len(golden["predictions"]) >= 20
pairs = zip(together, golden["predictions"])
assert all(abs(now - then) <= 1e-9 for now, then in pairs), together
assert abs(model.predict(golden["rows"][0])[0] - golden["predictions"][0]) <= 1e-9
import pandas
frame = pandas.DataFrame(golden["rows"])
assert all(abs(now - then) <= 1e-9 for now, then in zip(model.predict(frame), golden["predictions"]))
try:
    model.predict([{**golden["rows"][0], "tenure_months": "long"}])
except ValueError as refused:
    assert "tenure_months" in str(refused) and "row 0" in str(refused), refused
else:
    raise AssertionError("a row that does not fit was answered")
print("answered")
"#;

#[test]
fn pip_installs_it_and_it_answers_as_training_did() {
    if !covered(
        "the wheel in an environment",
        &["venv-pip/bin/python", "venv-3.11/bin/python"],
    ) {
        return;
    }
    let Some(road) = road("the wheel in an environment", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let (project, path) = built(road, scratch.path());
    let installed = scratch.path().join("installed");
    succeeds(
        Command::new(repository("tests/store/venv-pip/bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "-q",
                "--no-index",
                "--no-deps",
                "--target",
            ])
            .args([&installed, &path]),
    );
    let said = succeeds(
        Command::new(repository("tests/store/venv-3.11/bin/python"))
            .args(["-c", PREDICT])
            .arg(project.join("artifacts/run.json"))
            .env("PYTHONPATH", &installed)
            .current_dir(scratch.path()),
    );
    assert_eq!(said.trim(), "answered");
}

#[test]
fn what_other_code_trained_is_refused_as_for_an_image() {
    let Some(road) = road("a wheel of stale artifacts", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let train = project.join("src/churn/train.py");
    let text = std::fs::read_to_string(&train).unwrap();
    std::fs::write(&train, text.replace("max_iter=1000", "max_iter=50")).unwrap();
    road.on(&project, &["wheel"])
        .run()
        .expect(1)
        .says(&["stale", "`model`", "--allow-stale"]);
    assert!(!project.join("dist").exists());
    road.on(&project, &["wheel", "--allow-stale"]).run().expect(0);
    let model = project.join("artifacts/model.joblib");
    let mut bytes = std::fs::read(&model).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    road.on(&project, &["wheel", "--allow-stale"])
        .run()
        .expect(1)
        .says(&["model.joblib"]);
}

#[test]
fn a_bundle_pins_everything_with_hashes() {
    if !covered("pip on a bundle", &["venv-pip/bin/python", "wheels/"]) {
        return;
    }
    let Some(road) = road("pip on a bundle", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let outcome = road.on(&project, &["wheel", "--bundle"]).run().expect(0);
    let folder = scratch.path().join("bundle");
    succeeds(
        Command::new(repository("tests/store/venv-pip/bin/python"))
            .args(["-m", "zipfile", "-e", outcome.stdout.trim()])
            .arg(&folder),
    );
    // pip checks every hash of what it downloads; it need not install it to do that.
    succeeds(
        Command::new(repository("tests/store/venv-pip/bin/python"))
            .args([
                "-m",
                "pip",
                "download",
                "-q",
                "--no-index",
                "--no-deps",
                "--require-hashes",
            ])
            .args(["--only-binary", ":all:", "--find-links"])
            .arg(repository("tests/store/wheels"))
            .args(["-d", "got", "-r", "requirements.txt"])
            .current_dir(&folder),
    );
    let got: Vec<String> = std::fs::read_dir(folder.join("got"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(got.iter().any(|name| name == NAME), "{got:?}");
    assert!(got.iter().any(|name| name.starts_with("pandas-")), "{got:?}");
}

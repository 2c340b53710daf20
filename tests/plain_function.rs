//! `[serve] entry`: plain functions as projects, from records, columns, a table and an array, and what is wrong with those that cannot be.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::models::Served;
use crate::support::driver::{Mlrails, Outcome, copy_of, repository};
use crate::support::road::{read_json, road};
use crate::support::store::covered;

/// A project whose whole code is one module, `score.py`, with `entry` = `score:predict`.
fn single(folder: &Path, dependencies: &str, code: &str) -> PathBuf {
    let project = folder.join("single");
    fs::create_dir_all(&project).unwrap();
    let pyproject = format!(
        "[project]\nname = \"single\"\nversion = \"1.0\"\nrequires-python = \"==3.11.*\"\ndependencies = [{dependencies}]\n\n\
         [tool.mlrails.serve]\nentry = \"score:predict\"\n"
    );
    fs::write(project.join("pyproject.toml"), pyproject).unwrap();
    fs::write(project.join("score.py"), code).unwrap();
    project
}

fn environment(project: &Path) {
    std::os::unix::fs::symlink(repository("tests/store/venv-3.11"), project.join(".venv")).unwrap();
}

fn mlrails(project: &Path, words: &[&str]) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    Mlrails::new(home.path()).project(project).args(words).run()
}

fn has_environment(what: &str) -> bool {
    covered(what, &["venv-3.11/bin/python"])
}

#[test]
fn a_function_of_columns_answers_every_contract() {
    if !has_environment("a plain function, served") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/plain_function", scratch.path());
    environment(&project);
    mlrails(&project, &["image"]).expect(1).says(&[
        "nothing is recorded of `plain_function.score:score` yet",
        "nothing is trained",
    ]);
    let said = mlrails(&project, &["run"]).expect(0).stdout;
    assert!(
        said.starts_with(
            "nothing to train: `plain_function.score:score` is a function\n2 rows of examples() in score.py"
        ),
        "{said}"
    );
    let record = read_json(&project.join("artifacts/run.json"));
    assert_eq!(record["golden"]["predictions"], json!([7.5, 0.5]));
    let served = Served::start(&project, scratch.path());
    let rows = json!([{"kind": "box", "pieces": 2}, {"kind": "bag", "pieces": 4}]);
    let answers = json!({"predictions": [5.0, 2.0]});
    assert_eq!(served.post("/predict", &rows), answers);
    assert_eq!(
        served.post("/v1/models/plain-function:predict", &json!({ "instances": rows })),
        answers
    );
    assert_eq!(
        served.post("/invocations", &json!({ "dataframe_records": rows })),
        answers
    );
    let tensors = json!({"inputs": [
        {"name": "kind", "datatype": "BYTES", "shape": [2], "data": ["box", "bag"]},
        {"name": "pieces", "datatype": "INT64", "shape": [2], "data": [2, 4]},
    ]});
    let answer = served.post("/v2/models/plain-function/infer", &tensors);
    assert_eq!(answer["outputs"][0]["data"], json!([5.0, 2.0]));
    let openapi = served.get("/openapi.json").json();
    assert_eq!(
        openapi["info"]["description"],
        "A function that answers, without phases"
    );
    let record = &openapi["components"]["schemas"]["Record"];
    assert_eq!(record["required"], json!(["kind", "pieces"]));
    drop(served);
    // What answers differently now is told before it ships.
    let code = project.join("src/plain_function/score.py");
    let text = fs::read_to_string(&code).unwrap();
    fs::write(&code, text.replace("scale * WEIGHTS", "2 * scale * WEIGHTS")).unwrap();
    mlrails(&project, &["run", "--replay"]).expect(1).says(&["score"]);
}

#[test]
fn a_type_hint_is_schema_enough() {
    if !has_environment("a plain function with a type hint") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/plain_function_typed", scratch.path());
    environment(&project);
    let said = mlrails(&project, &["run"]).expect(0).stdout;
    assert!(said.contains("no golden rows"), "{said}");
    let columns = read_json(&project.join("artifacts/run.json"))["request"]["columns"].clone();
    let told: Vec<(&str, &str, bool, bool)> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            let text = |key: &str| column[key].as_str().unwrap();
            let is = |key: &str| column[key].as_bool().unwrap();
            (text("name"), text("type"), is("required"), is("nullable"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("name", "string", true, false),
            ("age", "integer", true, true),
            ("tone", "string", false, false)
        ]
    );
    let served = Served::start(&project, scratch.path());
    let answer = served.post(
        "/predict",
        &json!([{"name": "Ada", "age": null}, {"name": "Bo", "age": 3, "tone": "warm"}]),
    );
    assert_eq!(answer["predictions"], json!(["plain Ada None!", "warm Bo 3!"]));
}

#[test]
fn rows_come_as_the_function_wants_them() {
    if !has_environment("plain functions of all kinds") {
        return;
    }
    let examples = "\n\ndef examples():\n    return [{'a': 1, 'b': 2.5}, {'a': 3, 'b': 0.5}]\n";
    let cases = [
        (
            "",
            "def predict(rows):\n    return [row['a'] * row['b'] for row in rows]\n",
            json!([2.5, 1.5]),
        ),
        (
            "",
            "def predict(request, by: float = 2.0):\n    return [row['a'] * by for row in request]\n",
            json!([2.0, 6.0]),
        ),
        (
            "\"pandas\"",
            "import pandas as pd\n\ndef predict(table: pd.DataFrame):\n    return table['a'] * table['b']\n",
            json!([2.5, 1.5]),
        ),
        (
            "\"numpy\"",
            "import numpy as np\n\ndef predict(x: np.ndarray):\n    return x.sum(axis=1)\n",
            json!([3.5, 3.5]),
        ),
        (
            "",
            "async def predict(rows):\n    return [row['a'] + 1 for row in rows]\n",
            json!([2, 4]),
        ),
    ];
    for (dependencies, code, expected) in cases {
        let scratch = tempfile::tempdir().unwrap();
        let project = single(scratch.path(), dependencies, &format!("{code}{examples}"));
        environment(&project);
        mlrails(&project, &["run"]).expect(0);
        let record = read_json(&project.join("artifacts/run.json"));
        assert_eq!(record["golden"]["predictions"], expected, "{code}");
    }
}

#[test]
fn the_road_of_a_plain_function() {
    let Some(road) = road("the road of a plain function", &["venv-3.11/bin/python"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/plain_function", scratch.path());
    let on = |words: &[&str]| road.on(&project, words).run();
    on(&["lock", "--platform", "linux/amd64", "--python", "3.11"]).expect(0);
    on(&["sync"]).expect(0);
    on(&["run"]).expect(0);
    on(&["image", "--no-bytecode", "--verify"])
        .expect(0)
        .says(&["2 golden rows are answered by the image as in training"]);
    let wheel = on(&["wheel"]).expect(0).stdout;
    assert!(
        wheel.trim().ends_with("plain_function-0.3.0-py3-none-any.whl"),
        "{wheel}"
    );
}

#[test]
fn a_module_by_itself_is_a_project_and_no_wheel() {
    let scratch = tempfile::tempdir().unwrap();
    let code = "def predict(rows):\n    return [row['a'] for row in rows]\n\n\ndef examples():\n    return [{'a': 1}]\n";
    let project = single(scratch.path(), "", code);
    let said = mlrails(&project, &["check"]).expect(0).stdout;
    assert!(
        said.starts_with("single 1.0 in score.py\n  serve     predict\n"),
        "{said}"
    );
    let graph = mlrails(&project, &["graph"]).expect(0).stdout;
    assert!(graph.contains("predict  answers  score.py:1"), "{graph}");
    mlrails(&project, &["wheel"]).expect(1).says(&[
        "score.py is a module by itself",
        "move it to src/score/__init__.py",
    ]);
}

#[test]
fn what_is_wrong_with_an_entry_is_told_where_it_is() {
    let refused = |code: &str, expected: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        let project = single(scratch.path(), "", code);
        mlrails(&project, &["check"]).expect(1).says(expected);
    };
    refused(
        "def other(rows):\n    return rows\n",
        &[
            "the module has no such function",
            "pyproject.toml:8:9",
            "there are: other",
        ],
    );
    refused(
        "from json import loads as predict\n",
        &["it is not defined as a function there", "score.py:1:1", "wrap it"],
    );
    refused(
        "predict = lambda rows: rows\n",
        &["it is not defined as a function there", "score.py:1:1"],
    );
    refused(
        "def predict():\n    return []\n",
        &["it takes no parameter without a default", "score.py:1:5"],
    );
    refused(
        "def predict(a, b):\n    return []\n",
        &["it takes `a` and `b` without defaults", "score.py:1:16"],
    );
    refused(
        "def predict(*rows):\n    return []\n",
        &["it takes variable (*args) parameters", "score.py:1:5"],
    );
    refused(
        "def predict(rows, /):\n    return []\n",
        &["it takes positional-only parameters", "score.py:1:5"],
    );
    refused(
        "def predict(age: float):\n    return age\n",
        &["`age: float` is one row or less", "list[float]"],
    );
    refused(
        "from dataclasses import dataclass\n\n@dataclass\nclass Row:\n    a: int\n\ndef predict(row: Row):\n    return 1\n",
        &["`row: Row` is one row or less", "rows: list[Row]"],
    );
    refused(
        "import pandas\n\ndef predict(request: pandas.DataFrame):\n    return []\n",
        &["wants a DataFrame", "such as `rows`"],
    );
    refused("def predict(rows:\n", &["score.py:"]);
    let scratch = tempfile::tempdir().unwrap();
    let project = single(scratch.path(), "", "");
    fs::remove_file(project.join("score.py")).unwrap();
    mlrails(&project, &["check"]).expect(1).says(&[
        "there is no package `score`: neither src/score/ nor score/ nor src/score.py nor score.py exists",
    ]);
}

#[test]
fn the_schema_of_a_function_without_examples_needs_no_run_to_be_judged() {
    let scratch = tempfile::tempdir().unwrap();
    let project = single(scratch.path(), "", "def predict(rows):\n    return rows\n");
    fs::write(project.join("own.json"), "[{\"a\": 1}]").unwrap();
    mlrails(&project, &["check"])
        .expect(1)
        .says(&["nothing says what `rows` of `score:predict` brings"]);
    let pyproject = project.join("pyproject.toml");
    let text = fs::read_to_string(&pyproject).unwrap();
    fs::write(
        &pyproject,
        text + "\n[tool.mlrails.golden]\nrows = \"own.json\"\n",
    )
    .unwrap();
    let told: Value = {
        let outcome = mlrails(&project, &["--format", "json", "check"]).expect(0);
        outcome.json()
    };
    assert_eq!(told["cut"]["predict"], "predict");
}

//! Models that MLflow saved, as projects: answers are MLflow's own, hostile folders are refused, and the whole road is walked.
//!
//! The folders fixtures/mlflow_* were saved by MLflow 3.17.2 and are as it wrote them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::serving::{Answer, free_port};
use crate::support::driver::{Mlrails, Outcome, copy_of, repository};
use crate::support::road::{read_json, road};
use crate::support::store::covered;

/// MLflow itself, with the frameworks of the fixtures and what the serving runtime imports.
const PEER: &str = "venv-mlflow";

/// `mlrails serve` of a project, from when it is ready until the end of the test.
pub(crate) struct Served {
    child: Child,
    port: u16,
}

impl Served {
    pub(crate) fn start(project: &Path, home: &Path) -> Self {
        let port = free_port();
        let mut child = Mlrails::new(home)
            .project(project)
            .args(["serve", "--no-reload", "--port", &port.to_string()])
            .into_command()
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "the server ended:\n{seen}"
            );
            seen.push_str(&line);
            if line.starts_with("info: ready") {
                break;
            }
        }
        // What it says afterwards is read, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, port }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        Answer::read(&mut stream)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", path, "application/json", &body.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        let answer = self.ask("GET", path, "application/json", "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(process) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// A copy of a fixture with the peer's environment as its own.
fn with_environment(fixture: &str, into: &Path, environment: &str) -> PathBuf {
    let project = copy_of(fixture, into);
    std::os::unix::fs::symlink(repository("tests/store").join(environment), project.join(".venv")).unwrap();
    project
}

/// Numbers equal within 1e-9, everything else exactly.
#[track_caller]
pub(crate) fn assert_same(one: &Value, other: &Value, what: &str) {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len(), "{what}");
            for (one, other) in one.iter().zip(other) {
                assert_same(one, other, what);
            }
        }
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!(
                (one - other).abs() <= 1e-9 * one.abs().max(1.0),
                "{what}: {one} and {other}"
            );
        }
        _ => assert_eq!(one, other, "{what}"),
    }
}

/// Asks MLflow: folder by folder, rows that the model has not seen and what `mlflow.pyfunc` answers for them.
const ASK: &str = r#"
import json, sys, warnings
warnings.filterwarnings("ignore")
import mlflow.pyfunc, numpy, pandas
random = numpy.random.default_rng(7)
told = {}
for folder in sys.argv[1:]:
    model = mlflow.pyfunc.load_model(folder)
    table = pandas.DataFrame({
        "age": random.integers(18, 80, 40).astype("int64"),
        "spend": random.normal(50, 20, 40),
        "region": random.choice(["north", "south", "west", "moon"], 40),
    })
    schema = model.metadata.signature.inputs
    if schema.is_tensor_spec():
        data = table[["age", "spend"]].to_numpy(dtype="float64")
        rows = data.tolist()
    else:
        data = table[schema.input_names()]
        if schema.input_types()[0].name == "double":
            data = data.astype({"age": "float64"})
        rows = json.loads(data.to_json(orient="records", double_precision=15))
        data = pandas.DataFrame(rows).astype(data.dtypes.to_dict())
    answers = model.predict(data)
    told[folder] = {"rows": rows, "predictions": numpy.asarray(answers).tolist()}
print(json.dumps(told))
"#;

#[test]
fn answers_are_those_of_mlflow() {
    let python = format!("{PEER}/bin/python");
    if !covered("models of MLflow against MLflow", &[&python]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let names = [
        "mlflow_lightgbm",
        "mlflow_pyfunc",
        "mlflow_skops",
        "mlflow_sklearn",
        "mlflow_xgboost",
        "mlflow_xgboost_estimator",
    ];
    let folders: Vec<PathBuf> = names
        .iter()
        .map(|name| with_environment(&format!("fixtures/{name}"), scratch.path(), PEER))
        .collect();
    let output = Command::new(repository("tests/store").join(&python))
        .args(["-c", ASK])
        .args(&folders)
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .env("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (folder, name) in folders.iter().zip(names) {
        let told = &told[folder.to_str().unwrap()];
        let (rows, expected) = (&told["rows"], &told["predictions"]);
        let served = Served::start(folder, scratch.path());
        let answer = served.post(
            "/v1/models/NAME:predict"
                .replace("NAME", &name.replace('_', "-"))
                .as_str(),
            &json!({ "instances": rows }),
        );
        assert_same(&answer["predictions"], expected, name);
        let answer = match rows[0].is_array() {
            true => served.post("/invocations", &json!({ "inputs": rows })),
            false => served.post("/invocations", &json!({ "dataframe_records": rows })),
        };
        assert_same(&answer["predictions"], expected, name);
    }
}

#[test]
fn every_contract_speaks_of_the_signature() {
    if !covered("a model of MLflow, served", &["venv-3.11/bin/python"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let project = with_environment("fixtures/mlflow_sklearn", scratch.path(), "venv-3.11");
    let served = Served::start(&project, scratch.path());
    let rows = json!([{"age": 70, "spend": 23.18, "region": "north"}, {"age": 34, "spend": 69.79, "region": "south"}]);
    let own = served.post("/predict", &rows);
    let first = &own["predictions"][0];
    assert!(
        first[0].as_f64().unwrap() + first[1].as_f64().unwrap() - 1.0 < 1e-9,
        "{own}"
    );
    let split = json!({"dataframe_split": {"columns": ["region", "age", "spend"], "data": [["north", 70, 23.18], ["south", 34, 69.79]]}});
    assert_eq!(served.post("/invocations", &split), own);
    let instances = json!({ "instances": rows });
    assert_eq!(served.post("/v1/models/mlflow-sklearn:predict", &instances), own);
    let tensors = json!({"inputs": [
        {"name": "age", "datatype": "INT64", "shape": [2], "data": [70, 34]},
        {"name": "spend", "datatype": "FP64", "shape": [2], "data": [23.18, 69.79]},
        {"name": "region", "datatype": "BYTES", "shape": [2], "data": ["north", "south"]},
    ]});
    let answer = served.post("/v2/models/mlflow-sklearn/infer", &tensors);
    assert_eq!(answer["model_name"], "mlflow-sklearn");
    assert_eq!(answer["outputs"][0]["shape"][0], 2, "{answer}");
    let model = served.get("/v2/models/mlflow-sklearn").json();
    let inputs = json!([
        {"name": "age", "datatype": "INT64", "shape": [-1]},
        {"name": "spend", "datatype": "FP64", "shape": [-1]},
        {"name": "region", "datatype": "BYTES", "shape": [-1]},
    ]);
    assert_eq!(model["inputs"], inputs);
    let openapi = served.get("/openapi.json").json();
    let schemas = &openapi["components"]["schemas"];
    assert_eq!(schemas["Record"]["required"], json!(["age", "spend", "region"]));
    assert_eq!(schemas["Record"]["properties"]["age"]["type"], "integer");
    let items = &schemas["Predictions"]["properties"]["predictions"]["items"];
    assert_eq!(items["type"], "array", "{items}");
    assert!(served.get("/docs").body.contains("<html"));
    let csv = served.ask(
        "POST",
        "/predict",
        "text/csv",
        "age,spend,region\n70,23.18,north\n",
    );
    assert_eq!((csv.status, &csv.json()["predictions"][0]), (200, first));
    // What the signature does not allow is told by column.
    let wrong = served.ask(
        "POST",
        "/predict",
        "application/json",
        "{\"age\": 1.5, \"spend\": null}",
    );
    let errors = wrong.json()["errors"].clone();
    let named: Vec<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["column"].as_str().unwrap())
        .collect();
    assert_eq!((wrong.status, named), (422, vec!["age", "spend", "region"]));
}

#[test]
fn a_model_whose_example_it_cannot_answer_never_gets_ready() {
    if !covered("a model of MLflow that fails", &["venv-3.11/bin/python"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let project = with_environment("fixtures/mlflow_sklearn", scratch.path(), "venv-3.11");
    let example = project.join("input_example.json");
    // The row fits the signature, and the encoder was never fitted for it.
    let mlmodel = fs::read_to_string(project.join("MLmodel")).unwrap();
    fs::write(
        project.join("MLmodel"),
        mlmodel.replace("\"name\": \"region\"", "\"name\": \"land\""),
    )
    .unwrap();
    fs::write(
        &example,
        r#"{"columns": ["age", "spend", "land"], "data": [[1, 2.0, "x"]]}"#,
    )
    .unwrap();
    let outcome = Mlrails::new(scratch.path()).project(&project).args(["run"]).run();
    outcome.expect(1).says(&["region"]);
    assert!(!project.join("mlrails.run.json").exists());
    let outcome = Mlrails::new(scratch.path())
        .project(&project)
        .args(["serve", "--no-reload", "--port", &free_port().to_string()])
        .run();
    outcome.expect(1).says(&["region"]);
}

#[test]
fn run_records_what_the_model_answers_and_a_changed_model_is_told() {
    if !covered("run of a model of MLflow", &["venv-3.11/bin/python"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let project = with_environment("fixtures/mlflow_sklearn", scratch.path(), "venv-3.11");
    let mlrails = |words: &[&str]| Mlrails::new(scratch.path()).project(&project).args(words).run();
    let said = mlrails(&["run"]).expect(0).stdout;
    assert!(
        said.starts_with("nothing to train: the model is as MLflow saved it\n5 rows of input_example.json"),
        "{said}"
    );
    let record = read_json(&project.join("mlrails.run.json"));
    assert_eq!(record["golden"]["rows"].as_array().unwrap().len(), 5);
    assert_eq!(record["golden"]["predictions"].as_array().unwrap().len(), 5);
    assert_eq!(record["response"]["items"]["type"], "array");
    mlrails(&["run", "--replay"]).expect(0);
    mlrails(&["run", "model"])
        .expect(1)
        .says(&["there is no node `model` to run"]);
    let mlmodel = project.join("MLmodel");
    let text = fs::read_to_string(&mlmodel).unwrap();
    fs::write(
        &mlmodel,
        text.replace("predict_fn: predict_proba", "predict_fn: predict"),
    )
    .unwrap();
    mlrails(&["check"])
        .expect(0)
        .says(&["the recorded answers are stale"]);
    mlrails(&["lock", "--help"]).expect(0);
    mlrails(&["image"])
        .expect(1)
        .says(&["the recorded answers are stale", "`mlrails run` records"]);
}

#[test]
fn the_road_of_a_saved_model() {
    let Some(road) = road("the road of a model of MLflow", &["venv-3.11/bin/python"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/mlflow_sklearn", scratch.path());
    let on = |words: &[&str]| road.on(&project, words).run();
    on(&["lock"]).expect(0);
    let lock = fs::read_to_string(project.join("pylock.toml")).unwrap();
    assert!(
        lock.contains("name = \"scikit-learn\"") && !lock.contains("name = \"mlflow"),
        "MLflow is not locked"
    );
    on(&["sync"]).expect(0);
    let built = on(&["image", "--no-bytecode", "--verify", "--explain"]).expect(0);
    let built = built.says(&[
        "5 rows of the model's example are answered by the image, alike alone and together",
        "model.pkl imports sklearn",
    ]);
    on(&["run"]).expect(0);
    let again = on(&["image", "--no-bytecode", "--verify"]).expect(0);
    let again = again.says(&["5 golden rows are answered by the image as in training"]);
    assert_ne!(built.stdout, again.stdout, "the record is part of the image");
    let layout = project.join("dist/mlflow-sklearn");
    let told = on(&["--format", "json", "inspect", layout.to_str().unwrap()])
        .expect(0)
        .json();
    let contents = told.to_string();
    assert!(
        contents.contains("scikit-learn") && !contents.contains("mlflow-skinny"),
        "{contents}"
    );
    let wheel = on(&["wheel"]).expect(0).stdout;
    assert!(wheel.contains("mlflow_sklearn-2026"), "{wheel}");
}

#[test]
fn a_python_model_needs_the_small_mlflow_and_nothing_that_tracks() {
    let Some(road) = road("the lock of a PythonModel", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/mlflow_pyfunc", scratch.path());
    road.on(&project, &["lock"]).run().expect(0);
    let lock = fs::read_to_string(project.join("pylock.toml")).unwrap();
    let has = |name: &str| lock.contains(&format!("name = \"{name}\""));
    assert!(has("mlflow-skinny") && has("cloudpickle") && has("pandas"));
    assert!(!has("mlflow") && !has("flask") && !has("matplotlib") && !has("scikit-learn"));
}

fn check(project: &Path) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    Mlrails::new(home.path()).project(project).args(["check"]).run()
}

#[test]
fn hostile_models_are_refused_with_file_and_rule() {
    let signature = "signature:\n  inputs: '[{\"type\": \"double\", \"name\": \"a\"}]'\n";
    let model = |path: &str| {
        format!(
            "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: {path}\n  sklearn:\n    pickled_model: {path}\n{signature}"
        )
    };
    let inputs = |text: &str| model("model.pkl").replace("[{\"type\": \"double\", \"name\": \"a\"}]", text);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..9 {
        bomb.push_str(&format!(
            "a{at}: &a{at} [{}]\n",
            vec![format!("*a{}", at - 1); 10].join(", ")
        ));
    }
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("bad YAML", b"flavors: [".to_vec(), "MLmodel:1:"),
        ("a NUL", b"flavors:\0 x".to_vec(), "the file holds a NUL byte"),
        ("no UTF-8", b"flavors: \xff".to_vec(), "the file is not UTF-8"),
        ("empty", Vec::new(), "the file is empty"),
        ("a list", b"- a\n".to_vec(), "no flavour `python_function`"),
        ("aliases", bomb.into_bytes(), "more than 20000 values"),
        (
            "nesting",
            format!("a: {}", "[".repeat(200_000)).into_bytes(),
            "more than 32 levels of nesting",
        ),
        ("huge", vec![b'#'; 5 << 20], "at most 4194304 are read"),
        (
            "a path outside",
            model("../../etc/passwd").into_bytes(),
            "`../../etc/passwd` lies outside the project",
        ),
        (
            "an absolute path",
            model("/etc/passwd").into_bytes(),
            "`/etc/passwd` lies outside the project",
        ),
        ("a link outside", model("link.pkl").into_bytes(), "link.pkl"),
        ("a FIFO", model("fifo").into_bytes(), "`fifo` is a FIFO"),
        ("a folder", model("folder").into_bytes(), "`folder` is a folder"),
        (
            "a missing file",
            model("gone.pkl").into_bytes(),
            "`gone.pkl`, which `the model's file` names, is not in",
        ),
        (
            "a list for a path",
            model("[a, b]").into_bytes(),
            "must be a path, not a list",
        ),
        (
            "flavours as text",
            b"flavors: sklearn\n".to_vec(),
            "`flavors` must be a mapping, not a text",
        ),
        (
            "Spark",
            b"flavors:\n  python_function:\n    loader_module: mlflow.spark\n".to_vec(),
            "needs more than a Python",
        ),
        (
            "bytes",
            inputs("[{\"type\": \"binary\", \"name\": \"a\"}]").into_bytes(),
            "`a` of the model's signature is binary",
        ),
        (
            "an image",
            inputs(
                "[{\"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"uint8\", \"shape\": [-1, 28, 28]}}]",
            )
            .into_bytes(),
            "has the shape [-1, 28, 28]",
        ),
        (
            "no rows",
            inputs("[{\"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"float64\", \"shape\": [2, 2]}}]")
                .into_bytes(),
            "whose first dimension does not count rows",
        ),
        (
            "twice",
            inputs("[{\"type\": \"long\", \"name\": \"a\"}, {\"type\": \"long\", \"name\": \"a\"}]")
                .into_bytes(),
            "`a` of the model's signature is there twice",
        ),
        (
            "no JSON",
            inputs("[{").into_bytes(),
            "`inputs` of the signature cannot be understood",
        ),
        (
            "deep JSON",
            inputs(&"[".repeat(100_000)).into_bytes(),
            "`inputs` of the signature cannot be understood",
        ),
        (
            "an unknown type",
            inputs("[{\"type\": \"quaternion\", \"name\": \"a\"}]").into_bytes(),
            "is of the type `quaternion`",
        ),
        (
            "no column",
            inputs("[]").into_bytes(),
            "the model has no signature",
        ),
        (
            "code outside",
            model("model.pkl")
                .replace("model_path: model.pkl", "model_path: model.pkl\n    code: ../..")
                .into_bytes(),
            "`../..` lies outside the project",
        ),
        (
            "a method",
            model("model.pkl")
                .replace(
                    "model_path: model.pkl",
                    "model_path: model.pkl\n    predict_fn: __reduce__",
                )
                .into_bytes(),
            "the model answers with `__reduce__`",
        ),
    ];
    let scratch = tempfile::tempdir().unwrap();
    for (name, text, expected) in cases {
        let folder = scratch.path().join(name.replace(' ', "_"));
        fs::create_dir_all(folder.join("folder")).unwrap();
        fs::write(folder.join("MLmodel"), text).unwrap();
        fs::write(folder.join("model.pkl"), b"\x80\x04N.").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link.pkl")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.join("fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        let outcome = check(&folder).expect(1);
        assert!(outcome.stderr.contains(expected), "{name}:\n{}", outcome.stderr);
        assert!(outcome.stderr.contains("MLmodel"), "{name}:\n{}", outcome.stderr);
    }
}

#[test]
fn requirements_are_read_as_pip_reads_them_and_options_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/mlflow_skops", scratch.path());
    let requirements = project.join("requirements.txt");
    let requires = |text: &str| {
        fs::write(&requirements, text).unwrap();
        let said = check(&project).expect(0).stdout;
        let line = said
            .lines()
            .find(|line| line.contains("requires"))
            .unwrap()
            .to_owned();
        line.trim_start().trim_start_matches("requires").trim().to_owned()
    };
    fs::write(project.join("more.txt"), "numpy<3\n").unwrap();
    fs::write(project.join("constraints.txt"), "scipy==1.17.1\n").unwrap();
    let text = "# made by hand\nmlflow==3.17.2\nscikit-learn==1.9.1 # pinned\n-r more.txt\n-c constraints.txt\n\
                skops==0.16.0 \\\n    --hash=sha256:00\ncolorama ; sys_platform == 'win32'\n";
    assert_eq!(
        requires(text),
        "scikit-learn==1.9.1, numpy<3, skops==0.16.0, colorama ; sys_platform == 'win32'"
    );
    // Without it, conda.yaml says the same in its own words.
    fs::remove_file(&requirements).unwrap();
    let said = check(&project).expect(0).stdout;
    assert!(
        said.contains("requires  numpy==2.4.6, pandas==2.3.3, scikit-learn==1.9.1"),
        "{said}"
    );
    let refused = |text: &str, expected: &[&str]| {
        fs::write(&requirements, text).unwrap();
        check(&project).expect(1).says(expected);
    };
    refused(
        "--extra-index-url https://u:p@h.example/simple\n",
        &[
            "`--extra-index-url` is an option of pip's",
            "requirements.txt:1:1",
        ],
    );
    refused(
        "-r ../up.txt\n",
        &["lies outside the project", "requirements.txt:1:1"],
    );
    refused(
        "-r gone.txt\n",
        &["`gone.txt`, which `-r` names, is not in the model's folder"],
    );
    refused("-r requirements.txt\n", &["name each other more than 4 deep"]);
    refused("numpy ==\n", &["requirements.txt:1:1"]);
}

#[test]
fn golden_rows_come_from_the_example_or_it_is_told_why_not() {
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/mlflow_sklearn", scratch.path());
    let example = project.join("input_example.json");
    let golden = |text: &str| {
        fs::write(&example, text).unwrap();
        let outcome = check(&project).expect(0);
        let line = outcome
            .stdout
            .lines()
            .find(|line| line.contains("golden"))
            .unwrap()
            .trim()
            .to_owned();
        (line, outcome.stderr)
    };
    let (line, _) = golden(r#"[{"age": 1, "spend": 2.5, "region": "north", "more": NaN}]"#);
    assert!(
        line.starts_with("golden    1 rows of input_example.json"),
        "{line}"
    );
    let (line, _) = golden(r#"{"age": [1, 2], "spend": [2.5, 1], "region": ["a", "b"]}"#);
    assert!(line.starts_with("golden    2 rows"), "{line}");
    for (text, why) in [
        (
            r#"{"columns": ["age", "spend"], "data": [[1, 2.5]]}"#,
            "row 0: `region` is missing, and the signature requires it",
        ),
        (
            r#"{"columns": ["age"], "data": [[1, 2.5]]}"#,
            "not as long as `columns`",
        ),
        (
            r#"[{"age": 1.5, "spend": 2, "region": "a"}]"#,
            "row 0: `age` is not what the signature says",
        ),
        ("[]", "it has no rows"),
        ("{", "EOF"),
        ("7", "neither a frame, a list of rows nor a record"),
    ] {
        let (line, said) = golden(text);
        assert!(line.contains(why), "{text}: {line}");
        assert!(
            said.contains("no golden rows") && said.contains("[golden] rows"),
            "{said}"
        );
    }
    fs::remove_file(&example).unwrap();
    let said = check(&project).expect(0).stderr;
    assert!(said.contains("the file is not there"), "{said}");
    fs::write(project.join("mlrails.toml"), "[golden]\nrows = \"own.json\"\n").unwrap();
    fs::write(
        project.join("own.json"),
        r#"[{"age": 1, "spend": 2, "region": "a"}]"#,
    )
    .unwrap();
    let said = check(&project).expect(0).stdout;
    assert!(said.contains("1 rows of own.json"), "{said}");
}

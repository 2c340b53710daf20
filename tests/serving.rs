//! The served pipeline over the wire: a small trained project, rendered, run by a real interpreter and asked as clients do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use mlrails::project::settings::Overrides;
use mlrails::project::source::graph::Half;
use mlrails::project::{self, record};
use mlrails::serving::{self, render, runtime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::driver::{Mlrails, repository};
use crate::support::store::covered;

/// The interpreter that `make setup` gives what a project's environment has; `None` where setup has not run.
pub(crate) fn environment() -> Option<PathBuf> {
    covered("the served pipeline", &["venv-3.11/bin/python"]).then(|| repository("tests/store/venv-3.11"))
}

const SERVE: &str = "
def predict(doubled, rows) -> list[float]:
    for gate in rows['gate'].dropna():
        open(gate).read()
    if (rows['amount'] == -1).any():
        raise ValueError('an inner detail')
    return doubled.tolist()
";

/// A trained project in `folder`, as `run` leaves one.
pub(crate) fn tiny(folder: &Path, environment: &Path) -> PathBuf {
    let root = folder.join("tiny");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "pyproject.toml",
        "[project]\nname = \"tiny\"\nversion = \"1.2\"\nrequires-python = \">=3.10\"\ndependencies = [\"pandas\"]\n",
    );
    write("src/tiny/__init__.py", "");
    write(
        "src/tiny/data.py",
        "def rows(path: str = 'rows.csv'):\n    import pandas\n    return pandas.read_csv(path)\n",
    );
    write(
        "src/tiny/features.py",
        "def doubled(rows, offset, factor: float = 2.0):\n    return rows['amount'] * factor + offset['value']\n",
    );
    write(
        "src/tiny/train.py",
        "def offset(rows):\n    return {'value': 1.0}\n",
    );
    write("src/tiny/serve.py", SERVE);
    let offset = "{\"value\": 1.0}\n";
    write("artifacts/offset.json", offset);
    let files = json!({"schema": 1, "values": {"offset": {
        "file": "offset.json", "format": "json", "sha256": format!("{:x}", Sha256::digest(offset)), "size": offset.len(),
    }}});
    write("artifacts/files.json", &files.to_string());
    let run = json!({
        "schema": 1, "mlrails": "0.1.0", "python": "3.11.7", "nodes": {}, "versions": {"pandas": "2"},
        "request": {"node": "rows", "kind": "table", "columns": [
            {"name": "amount", "type": "number", "dtype": "float64", "required": true, "nullable": false, "mean": 5.5},
            {"name": "gate", "type": "string", "dtype": "object", "required": false, "nullable": true},
        ]},
        "response": {"kind": "list", "items": {"type": "number"}},
        "golden": {"rows": [{"amount": 424242.0, "gate": null}, {"amount": 2.0}], "predictions": [848_485.0, 5.0]},
    });
    write("artifacts/run.json", &run.to_string());
    std::os::unix::fs::symlink(environment, root.join(".venv")).unwrap();
    root
}

/// What the image holds in /app and site-packages, laid out in `folder`.
pub(crate) fn app(root: &Path, folder: &Path) {
    let project = project::load(root).unwrap();
    let settings = project.resolve(Half::Serving, &Overrides::default()).unwrap();
    let files = record::files(root).unwrap().unwrap();
    let openapi = json!({"openapi": "3.1.0"});
    let app = serving::app(&project, &settings, &files, Some(openapi)).unwrap();
    let runtime = runtime::FILES
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    let all: BTreeMap<String, Vec<u8>> = render::files(&app, "artifacts")
        .into_iter()
        .chain(runtime)
        .collect();
    for (path, content) in all {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(root.join(from), folder.join(to)).unwrap();
    link("src/tiny", "tiny");
    link("artifacts", "artifacts");
}

/// A verb of the runtime, as the image starts it: no HOME, nothing of this machine's settings.
pub(crate) fn runtime_command(environment: &Path, folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command
        .args(["-m", "mlrails_runtime"])
        .args(words)
        .env_clear()
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// A running server; killed when the test ends.
pub(crate) struct Server {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts with `settings` in the environment and waits until `workers` of them said that they are ready.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Some(Self::start_in(&environment()?, settings))
    }

    pub(crate) fn start_in(environment: &Path, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = tiny(folder.path(), environment);
        let at = folder.path().join("app");
        app(&root, &at);
        let port = free_port();
        let mut command = runtime_command(environment, &at, &["serve"]);
        command
            .env("MLRAILS_HOST", "127.0.0.1")
            .env("MLRAILS_PORT", port.to_string())
            .env("MLRAILS_WORKERS", "1")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            stderr,
            port,
            _folder: folder,
        };
        server.until("\"message\": \"ready\"");
        server
    }

    /// `mlrails serve` of the project at `root`, which lies in `folder`; it is ready.
    pub(crate) fn of_project(
        folder: tempfile::TempDir,
        root: &Path,
        words: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let mut command = Mlrails::new(folder.path())
            .project(root)
            .args(["serve", "--port", &port.to_string()])
            .args(words)
            .into_command();
        command.envs(settings.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            stderr,
            port,
            _folder: folder,
        };
        server.until("info: ready");
        server
    }

    /// Reads log lines until one contains `wanted`.
    #[track_caller]
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            let count = self.stderr.read_line(&mut line).unwrap();
            assert!(count > 0, "the server ended without saying {wanted}:\n{seen}");
            seen.push_str(&line);
            if line.contains(wanted) {
                return line;
            }
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Whatever bytes, and all that is answered until the other side closes.
    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses early may close while we still write.
        let _ = stream.write_all(bytes);
        Answer::read(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(crate) fn terminate(&self) {
        let process = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
            let _ = self.child.wait();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer, because not all of the request was read, takes nothing from it.
        let _ = stream.read_to_end(&mut bytes);
        Self::of(bytes)
    }

    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Self {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|word| word.parse().ok())
                .unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A port that no other test of this process was given. Servers listen with SO_REUSEPORT: two on one port would answer in turns.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

#[test]
fn the_runtime_s_parts_do_what_their_own_tests_say() {
    let Some(environment) = environment() else { return };
    let folder = repository("templates/runtime");
    let output = Command::new(environment.join("bin/python"))
        .args(["-m", "unittest", "discover", "-s", "tests"])
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran "), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

#[test]
fn one_service_answers_every_contract() {
    let Some(server) = Server::start(&[("AIP_PREDICT_ROUTE", "/vertex"), ("AIP_HEALTH_ROUTE", "/alive")])
    else {
        return;
    };
    let rows = json!([{"amount": 1}, {"amount": 2.5, "gate": null, "ignored": {}}]);
    let predictions = json!({"predictions": [3.0, 6.0]});
    let check =
        |path: &str, body: Value| assert_eq!(server.post(path, &body).json(), predictions, "{path} {body}");
    check("/predict", rows.clone());
    check(
        "/predict",
        json!({"columns": ["gate", "amount"], "data": [[null, 1], [null, 2.5]]}),
    );
    check("/v1/models/tiny:predict", json!({"instances": rows}));
    check(
        "/v1/models/tiny:predict",
        json!({"instances": [[1, null], [2.5, null]]}),
    );
    check("/vertex", json!({"instances": rows, "parameters": {}}));
    check("/invocations", json!({"dataframe_records": rows}));
    check(
        "/invocations",
        json!({"dataframe_split": {"columns": ["amount"], "data": [[1], [2.5]], "index": [0, 1]}}),
    );
    check(
        "/invocations",
        json!({"inputs": {"amount": [1, 2.5]}, "params": {}}),
    );
    let one = server.post("/predict", &json!({"amount": 1}));
    assert_eq!((one.status, one.json()), (200, json!({"predictions": [3.0]})));
    let csv = [
        ("content-type", "text/csv; charset=utf-8"),
        ("accept", "text/csv"),
    ];
    let answer = server.ask("POST", "/predict", &csv, b"gate,amount\n,1\n,2.5\n");
    assert_eq!(answer.body, "prediction\n3.0\n6.0\n");

    let infer = json!({"id": "a", "inputs": [{"name": "amount", "shape": [2, 1], "datatype": "FP64", "data": [[1], [2.5]]}]});
    let expected = json!({"model_name": "tiny", "model_version": "1.2", "id": "a", "outputs": [
        {"name": "predictions", "datatype": "FP64", "shape": [2], "data": [3.0, 6.0]}]});
    for path in ["/v2/models/tiny/infer", "/v2/models/tiny/versions/1.2/infer"] {
        assert_eq!(server.post(path, &infer).json(), expected);
    }
    let model = server.get("/v2/models/tiny").json();
    assert_eq!(
        model["inputs"][1],
        json!({"name": "gate", "datatype": "BYTES", "shape": [-1]})
    );

    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/alive",
        "/ping",
        "/health",
        "/version",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/tiny/ready",
        "/v1/models",
        "/v1/models/tiny",
        "/execution-parameters",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/openapi.json").json(), json!({"openapi": "3.1.0"}));
    let metadata = server.get("/metadata");
    assert_eq!(metadata.json()["example"], json!({"amount": 5.5, "gate": "text"}));
    let docs = server.get("/docs");
    assert!(
        docs.head.contains("content-security-policy: default-src 'none'"),
        "{}",
        docs.head
    );
    assert!(docs.body.contains("\"name\": \"tiny\""), "{}", docs.body);
    for public in [&metadata, &docs] {
        assert!(
            !public.body.contains("424242"),
            "a golden row is nobody's business: {public:?}"
        );
    }
    let metrics = server.get("/metrics").body;
    for line in [
        "mlrails_requests_total{route=\"/predict\",status=\"200\"} 4",
        "mlrails_requests_total{route=\"/v2\",status=\"200\"} 2",
        "mlrails_in_flight_requests 0",
        "mlrails_queue_requests 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_told_of_the_inside() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let answer = server.post(
        "/predict",
        &json!([{"amount": 1}, {"amount": "x", "gate": 5}, {}]),
    );
    assert_eq!(answer.status, 422);
    assert!(
        answer.head.contains("content-type: application/problem+json"),
        "{}",
        answer.head
    );
    let mut problem = answer.json();
    assert!(problem["request_id"].is_string());
    problem["request_id"].take();
    let error = |row: u8, column: &str, rule: &str, message: &str| json!({"row": row, "column": column, "rule": rule, "message": message});
    let expected = json!({
        "type": "urn:mlrails:invalid-rows", "title": "Rows do not fit the schema", "status": 422,
        "detail": "3 values do not fit the schema", "request_id": null,
        "errors": [
            error(1, "amount", "type", "expected a number, got a string"),
            error(1, "gate", "type", "expected a string, got a number"),
            error(2, "amount", "required", "the column is missing"),
        ],
    });
    assert_eq!(problem, expected);

    let check = |media: &str, body: &[u8], status: u16| {
        let answer = server.ask("POST", "/predict", &[("content-type", media)], body);
        assert_eq!(
            answer.status,
            status,
            "{media} {:?}: {answer:?}",
            &body[..body.len().min(30)]
        );
    };
    check("application/json", &b"[".repeat(100_000), 400);
    check("application/json", b"[{\"amount\": NaN}]", 400);
    check("application/json", b"", 400);
    check("application/json", b"5", 422);
    check("application/x-pickle", b"\x80\x04.", 415);
    check("application/x-www-form-urlencoded", b"amount=1", 415);
    check("application/json; charset=latin-1", b"{}", 415);
    check("text/csv", b"\xff\xfe", 400);
    assert_eq!(server.get("/predict").status, 405);
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.post("/invocations", &json!([1])).status, 400);
    // What MLflow's own client makes of a missing value; the column that must have one says so.
    let invoke = |body: &str| {
        server.ask(
            "POST",
            "/invocations",
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    };
    let answer = invoke("{\"dataframe_records\": [{\"amount\": 1, \"gate\": NaN}]}");
    assert_eq!(answer.json(), json!({"predictions": [3.0]}));
    for wrong in [
        "{\"dataframe_records\": [{\"amount\": NaN}]}",
        "{\"dataframe_records\": [{\"amount\": Infinity, \"gate\": NaN}]}",
        "{\"dataframe_records\": [{\"amount\": 1, \"gate\": NaN}}",
        &format!("{}NaN", "[".repeat(100_000)),
    ] {
        assert_eq!(invoke(wrong).status, 400, "{}", &wrong[..wrong.len().min(60)]);
    }
    assert_eq!(
        server
            .post("/v2/models/tiny/infer", &json!({"inputs": []}))
            .status,
        400
    );
    assert_eq!(server.post("/v2/models/other/infer", &json!({})).status, 404);

    let id = [("content-type", "application/json"), ("x-request-id", "my-id")];
    let failed = server.ask("POST", "/predict", &id, b"{\"amount\": -1}");
    assert_eq!(failed.status, 500);
    assert!(failed.head.contains("x-request-id: my-id"), "{}", failed.head);
    assert!(
        !failed.body.contains("inner detail") && !failed.body.contains("Traceback"),
        "{}",
        failed.body
    );
    let logged = server.until("the pipeline raised");
    assert!(
        logged.contains("\"request_id\": \"my-id\"") && logged.contains("an inner detail"),
        "{logged}"
    );
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
}

#[test]
fn requests_have_limits() {
    let settings = [
        ("MLRAILS_MAX_BODY", "64KiB"),
        ("MLRAILS_HEADER_TIMEOUT", "1"),
        ("MLRAILS_BODY_TIMEOUT", "1"),
    ];
    let Some(server) = Server::start(&settings) else {
        return;
    };
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let check = |rest: &[u8], status: u16, what: &str| {
        let answer = server.send(&[head.as_bytes(), rest].concat());
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    };
    check(
        b"content-length: 100000000\r\n\r\n{",
        413,
        "a declared length over the cap",
    );
    let piece = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
    let flood = [
        b"transfer-encoding: chunked\r\n\r\n".as_slice(),
        &piece.repeat(64),
    ]
    .concat();
    check(&flood, 413, "chunks over the cap");
    check(
        b"transfer-encoding: chunked\r\n\r\n2\r\n[]\r\nzz\r\n",
        400,
        "a broken chunk",
    );
    check(b"content-length: 5\r\n\r\n{", 408, "a body that does not come");
    check(
        b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        400,
        "two lengths",
    );
    let long = format!("x-long: {}\r\n\r\n", "a".repeat(200_000));
    check(long.as_bytes(), 431, "a long header");
    let many: String = (0..400).map(|at| format!("x-{at}: a\r\n")).collect();
    check(format!("{many}\r\n").as_bytes(), 431, "many headers");
    // Never a complete head: closed without an answer.
    check(b"x-half: ", 0, "a dripping client");
    // Both lengths: the chunks count, and what follows on the connection is never read as a request (RFC 9112, section 6.3).
    let smuggled = "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = server.send([head, smuggled].concat().as_bytes());
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    assert_eq!(answer.body, "{\"predictions\":[]}");
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
}

/// A named pipe: a request whose row names it is scored until the test opens it.
pub(crate) fn gate(folder: &Path) -> PathBuf {
    let path = folder.join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    path
}

/// Sends a request that stays in `predict` until the gate is opened. Opening for writing waits until it is read.
pub(crate) fn held(server: &Server, gate: &Path) -> TcpStream {
    let body = json!({"amount": 1, "gate": gate}).to_string();
    let mut stream = server.connect();
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    stream
}

#[test]
fn sigterm_lets_accepted_requests_finish() {
    let Some(mut server) = Server::start(&[("MLRAILS_DRAIN", "3")]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gate = gate(folder.path());
    let mut stream = held(&server, &gate);
    // The writer's end opens when predict has opened the other: the request was accepted.
    let writer = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    server.terminate();
    let mut ready = server.get("/readyz");
    while ready.status == 200 {
        ready = server.get("/readyz");
    }
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (503, "{\"status\":\"draining\"}")
    );
    assert_eq!(server.get("/livez").status, 200);
    drop(writer);
    let answer = Answer::read(&mut stream);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"predictions": [3.0]}))
    );
    server.until("stopped");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_full_queue_is_answered_503_and_health_still_answers() {
    let Some(server) = Server::start(&[("MLRAILS_QUEUE", "1")]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gate = gate(folder.path());
    let mut stream = held(&server, &gate);
    let writer = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    let refused = server.post("/predict", &json!({"amount": 1}));
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert_eq!(server.get("/readyz").status, 200);
    drop(writer);
    assert_eq!(Answer::read(&mut stream).status, 200);
}

#[test]
fn a_model_that_answers_differently_never_becomes_ready() {
    let Some(environment) = environment() else { return };
    let break_it = |what: &str, from: &str, to: &str, said: &str| {
        let folder = tempfile::tempdir().unwrap();
        let root = tiny(folder.path(), &environment);
        let at = folder.path().join("app");
        app(&root, &at);
        let path = root.join("artifacts").join(what);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        for verb in ["serve", "verify"] {
            let output = runtime_command(&environment, &at, &[verb])
                .env("MLRAILS_PORT", free_port().to_string())
                .env("MLRAILS_WORKERS", "2")
                .output()
                .unwrap();
            let all = [output.stdout, output.stderr].concat();
            let all = String::from_utf8_lossy(&all);
            assert_eq!(output.status.code(), Some(1), "{verb}: {all}");
            assert!(all.contains(said), "{verb}: {all}");
        }
    };
    break_it("run.json", "848485", "848486", "848486");
    break_it("offset.json", "1.0", "1.5", "sha256 differs");
}

#[test]
fn batch_scores_files_and_names_rejected_rows() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = tiny(folder.path(), &environment);
    let at = folder.path().join("app");
    app(&root, &at);
    let run = |words: &[&str]| {
        let output = runtime_command(&environment, &at, words).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let rows: String = (0..100).map(|at| format!("{at},r{at}\n")).collect();
    std::fs::write(file("rows.csv"), format!("amount,id\n{rows}")).unwrap();
    let (code, said) = run(&[
        "batch",
        "--input",
        &file("rows.csv"),
        "--output",
        &file("out.csv"),
        "--chunk",
        "7",
    ]);
    assert_eq!(code, 0, "{said}");
    let scored = std::fs::read_to_string(file("out.csv")).unwrap();
    assert_eq!(scored.lines().count(), 101);
    assert!(
        scored.starts_with("amount,id,prediction\n0,r0,1.0\n1,r1,3.0\n") || scored.contains("\n1.0,r1,3.0\n"),
        "{scored}"
    );

    std::fs::write(
        file("rows.jsonl"),
        "{\"amount\": 1}\n{\"amount\": \"x\"}\n\n{bad\n{\"amount\": 2, \"id\": 7}\n",
    )
    .unwrap();
    let to = [
        "batch",
        "--input",
        &file("rows.jsonl"),
        "--output",
        &file("out.jsonl"),
    ];
    let (code, said) = run(&to);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("row 2: column amount: expected a number, got a string"),
        "{said}"
    );
    assert!(!Path::new(&file("out.jsonl")).exists() && !Path::new(&file("out.jsonl.part")).exists());
    let (code, said) = run(&[to.as_slice(), &["--on-error", "skip"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"scored\": 2, \"rejected\": 2"), "{said}");
    let scored = std::fs::read_to_string(file("out.jsonl")).unwrap();
    assert_eq!(
        scored,
        "{\"amount\":1,\"prediction\":3.0}\n{\"amount\":2,\"id\":7,\"prediction\":5.0}\n"
    );
}

#[test]
fn serve_runs_the_project_and_starts_again_when_a_file_changes() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = tiny(folder.path(), &environment);
    let mut server = Server::of_project(folder, &root, &["--set", "doubled.factor=3"], &[]);
    assert_eq!(
        server.post("/predict", &json!({"amount": 1})).json(),
        json!({"predictions": [4.0]})
    );
    let changed = SERVE.replace("doubled.tolist()", "[value * 10 for value in doubled]");
    std::fs::write(root.join("src/tiny/serve.py"), changed).unwrap();
    server.until("a file changed");
    server.until("info: ready");
    assert_eq!(
        server.post("/predict", &json!({"amount": 1})).json(),
        json!({"predictions": [40.0]})
    );
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

/// All processes below `pid`, as far down as they go.
pub(crate) fn below(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut pending = vec![pid];
    while let Some(pid) = pending.pop() {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|word| word.parse().ok());
            pending.extend(children.inspect(|child| found.push(*child)));
        }
    }
    found
}

#[test]
fn serve_ends_by_ctrl_c_and_takes_its_server_along() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = tiny(folder.path(), &environment);
    let mut server = Server::of_project(folder, &root, &["--workers", "2"], &[]);
    let port = server.port;
    server.until("info: ready");
    let processes = below(server.child.id());
    assert!(processes.len() >= 2, "{processes:?}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(server.wait().code(), Some(130));
    for process in processes {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
        assert!(
            state.is_none_or(|state| state == 'Z' || state == 'X'),
            "{process} lives on: {status}"
        );
    }
    std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn serve_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let root = tiny(folder.path(), Path::new("/nowhere"));
    let serve = || {
        Mlrails::new(folder.path())
            .project(&root)
            .args(["serve", "--no-reload"])
    };
    serve()
        .run()
        .expect(1)
        .says(&[".venv/bin/python is missing", "mlrails sync"]);
    let Some(environment) = environment() else { return };
    std::fs::remove_file(root.join(".venv")).unwrap();
    std::os::unix::fs::symlink(&environment, root.join(".venv")).unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    Mlrails::new(folder.path())
        .project(&root)
        .args(["serve", "--port", &port])
        .run()
        .expect(1)
        .says(&["cannot listen on 127.0.0.1", "--port"]);
    std::fs::remove_file(root.join("artifacts/run.json")).unwrap();
    serve()
        .run()
        .expect(1)
        .says(&["tiny was never run", "mlrails run"]);
}

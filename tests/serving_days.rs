//! The served pipeline on bad days and behind closed doors: load, crashes, tokens, collectors, bodies in Arrow and Parquet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::serving::{Answer, Server, app, below, environment, free_port, gate, held, runtime_command, tiny};
use crate::support::driver::repository;
use crate::support::store::covered;

const JSON: (&str, &str) = ("content-type", "application/json");

/// A sample's value in `/metrics`.
#[track_caller]
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").body;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} is not in\n{text}"))
}

#[test]
fn batch_takes_columns_urls_and_queries_where_the_project_brings_what_they_need() {
    if !covered(
        "batch over Parquet, Arrow, URLs and queries",
        &["venv-arrow/lib/python3.11/site-packages/sqlalchemy"],
    ) {
        return;
    }
    let parts = Command::new(repository("tests/store/venv-arrow/bin/python"))
        .args(["-m", "unittest"])
        .args(
            [
                "columnar_formats",
                "inputs_that_break_off_are_refused",
                "urls_go_through_fsspec",
                "a_query_is_an_input",
            ]
            .map(|test| format!("tests.test_batch.Batch.test_{test}")),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository("templates/runtime"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&parts.stderr);
    assert!(
        parts.status.success() && said.contains("Ran 4 tests") && !said.contains("skipped"),
        "{said}"
    );
}

#[test]
fn a_disk_that_gets_full_under_a_batch_ends_it_with_three() {
    let parts = ["root", "venv-arrow/lib/python3.11/site-packages/pyarrow"];
    if !covered("batch on a full disk", &parts) {
        return;
    }
    let output = Command::new(repository("tests/store/venv-arrow/bin/python"))
        .args(["-m", "unittest", "-k", "a_full_d", "tests.test_batch"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository("templates/runtime"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("Ran 3 tests") && !said.contains("skipped"),
        "{said}"
    );
}

/// What SageMaker's batch transform does: asks whether the model is up and what it may send, cuts a file of JSON lines into mini-batches of
/// that size, posts them side by side, and puts the answers' lines together.
#[test]
fn a_batch_transform_gets_a_line_for_each_of_its_lines() {
    let transform = [("SAGEMAKER_BATCH", "true"), ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "20")];
    let Some(server) = Server::start(&transform) else {
        return;
    };
    assert_eq!(server.get("/ping").status, 200);
    let limits = server.get("/execution-parameters").json();
    assert_eq!(
        limits,
        json!({"MaxConcurrentTransforms": 5, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 20})
    );
    let lines = [
        ("content-type", "application/jsonlines"),
        ("accept", "application/jsonlines"),
    ];
    // 36 MB: two mini-batches, each above what a request may be otherwise.
    let pad = "x".repeat(2000);
    let line = |at: usize| format!("{{\"amount\": {at}, \"pad\": \"{pad}\"}}\n");
    let batches: Vec<String> = (0..2)
        .map(|half| (0..9_000).map(|at| line(half * 9_000 + at)).collect())
        .collect();
    assert!(
        batches
            .iter()
            .all(|batch| (17 << 20..20 << 20).contains(&batch.len()))
    );
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = batches
            .iter()
            .map(|batch| scope.spawn(|| server.ask("POST", "/invocations", &lines, batch.as_bytes())))
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let whole: String = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.head);
            assert!(
                answer.head.contains("content-type: application/jsonlines"),
                "{}",
                answer.head
            );
            answer.body.as_str()
        })
        .collect();
    let expected: String = (0..18_000)
        .map(|at| format!("{{\"prediction\":{}.0}}\n", at * 2 + 1))
        .collect();
    assert!(whole == expected, "{}", &whole[..200]);

    let Some(plain) = Server::start(&[]) else { return };
    assert_eq!(
        plain
            .ask("POST", "/invocations", &lines, batches[0].as_bytes())
            .status,
        413
    );
    let check = |accept: &str, body: &str, status: u16, expected: &str| {
        let headers = [("content-type", "application/jsonlines"), ("accept", accept)];
        let answer = plain.ask("POST", "/invocations", &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(expected), "{answer:?}");
    };
    let two = "{\"amount\": 1}\r\n\n{\"amount\": 2, \"gate\": NaN}";
    check(
        "application/jsonlines",
        two,
        200,
        "{\"prediction\":3.0}\n{\"prediction\":5.0}\n",
    );
    check(
        "application/x-ndjson;q=0.9, text/html",
        two,
        200,
        "{\"prediction\":3.0}\n",
    );
    check("*/*", two, 200, "{\"predictions\":[3.0,5.0]}");
    check("application/jsonlines", "", 200, "");
    check("application/jsonlines", "{\"amount\": 1}\n{bad", 400, "line 2: ");
    check(
        "application/jsonlines",
        "{\"amount\": 1}\n{\"amount\": \"x\"}\n",
        400,
        "\"row\":1,\"column\":\"amount\"",
    );
    check("application/jsonlines", &"[".repeat(100_000), 400, "line 1: ");
    check("application/jsonlines", "[1]\n", 400, "expected an object");
    // What came in another form is answered in lines as well where they are asked for.
    let headers = [JSON, ("accept", "application/jsonlines")];
    let answer = plain.ask(
        "POST",
        "/invocations",
        &headers,
        b"{\"instances\": [{\"amount\": 1}]}",
    );
    assert_eq!(answer.body, "{\"prediction\":3.0}\n");
}

#[test]
fn arrow_and_parquet_are_taken_where_pyarrow_is() {
    let Some(plain) = Server::start(&[]) else { return };
    for media in [
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    ] {
        let refused = plain.ask("POST", "/predict", &[("content-type", media)], b"");
        assert_eq!(refused.status, 415, "{refused:?}");
    }
    if !covered("Arrow and Parquet bodies", &["venv-arrow/bin/python"]) {
        return;
    }
    let environment = repository("tests/store/venv-arrow");
    let parts = Command::new(environment.join("bin/python"))
        .args(["-m", "unittest", "tests.test_encodings"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository("templates/runtime"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&parts.stderr);
    assert!(parts.status.success() && !said.contains("skipped"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let write = "import pyarrow, pyarrow.parquet
table = pyarrow.table({'gate': pyarrow.array([None, None], pyarrow.string()), 'amount': [1.0, 2.5]})
with pyarrow.ipc.new_stream('rows.arrow', table.schema) as out: out.write_table(table)
pyarrow.parquet.write_table(table, 'rows.parquet')";
    let made = Command::new(environment.join("bin/python"))
        .args(["-c", write])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(made.success());
    let server = Server::start_in(&environment, &[]);
    for (file, media) in [
        ("rows.arrow", "application/vnd.apache.arrow.stream"),
        ("rows.parquet", "application/vnd.apache.parquet"),
    ] {
        let body = std::fs::read(folder.path().join(file)).unwrap();
        let answer = server.ask(
            "POST",
            "/predict",
            &[("content-type", media), ("accept", "application/json")],
            &body,
        );
        assert_eq!(answer.json(), json!({"predictions": [3.0, 6.0]}));
        let accept = "text/html, text/csv;q=0.5, application/json;q=0.1";
        let answer = server.ask(
            "POST",
            "/predict",
            &[("content-type", media), ("accept", accept)],
            &body,
        );
        assert_eq!(answer.body, "prediction\n3.0\n6.0\n");
        let cut = server.ask(
            "POST",
            "/predict",
            &[("content-type", media)],
            &body[..body.len() / 2],
        );
        assert_eq!(cut.status, 400, "{cut:?}");
    }
}

#[test]
fn tensors_come_and_go_in_bytes() {
    let Some(server) = Server::start(&[]) else { return };
    let head = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [
            {"name": "amount", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
            {"name": "gate", "shape": [2], "datatype": "BYTES", "data": [null, null]},
        ],
    })
    .to_string();
    let tensor: Vec<u8> = [1.0_f32, 2.5]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let body = [head.as_bytes(), &tensor].concat();
    let length = head.len().to_string();
    let headers = [
        ("content-type", "application/octet-stream"),
        ("inference-header-content-length", length.as_str()),
    ];
    let request = |length: &str, body: &[u8]| {
        let headers = [headers[0], ("inference-header-content-length", length)];
        server.ask("POST", "/v2/models/tiny/infer", &headers, body).status
    };
    let mut stream = server.connect();
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let start = format!(
        "POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[start.as_bytes(), &body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    let (head, body) = (
        String::from_utf8(answer[..end].to_vec()).unwrap(),
        &answer[end + 4..],
    );
    let at = head.split("inference-header-content-length: ").nth(1).unwrap();
    let at: usize = at.lines().next().unwrap().parse().unwrap();
    let document: Value = serde_json::from_slice(&body[..at]).unwrap();
    let output = json!([{"name": "predictions", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}]);
    assert_eq!(document["outputs"], output);
    let expected: Vec<u8> = [3.0_f64, 6.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(&body[at..], expected);

    let unhashable = json!({"inputs": [{"name": "amount", "shape": [1], "datatype": {}, "data": [1]}]});
    assert_eq!(server.post("/v2/models/tiny/infer", &unhashable).status, 400);
    for wrong in ["0", "-1", "x", "999999", "1e2"] {
        assert_eq!(
            request(wrong, &[start.as_bytes(), &tensor].concat()),
            400,
            "{wrong}"
        );
    }
    let sent = &[&body[..0], length.as_bytes()].concat();
    assert_eq!(request(&length, sent), 400);
}

#[test]
fn a_token_is_needed_by_all_but_probes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let Some(server) = Server::start(&[("MLRAILS_TOKEN_FILE", file.to_str().unwrap())]) else {
        return;
    };
    let probes = [
        "/livez",
        "/readyz",
        "/healthz",
        "/ping",
        "/health",
        "/v2/health/ready",
        "/v2/models/tiny/ready",
        "/v1/models/tiny",
    ];
    for probe in probes {
        assert_eq!(server.get(probe).status, 200, "{probe}");
    }
    for closed in [
        "/docs",
        "/metadata",
        "/metrics",
        "/openapi.json",
        "/v2/models/tiny",
        "/nothing",
    ] {
        let refused = server.get(closed);
        assert_eq!(refused.status, 401, "{closed}");
        assert!(
            refused.head.contains("www-authenticate: bearer"),
            "{}",
            refused.head
        );
    }
    for path in [
        "/predict",
        "/invocations",
        "/v1/models/tiny:predict",
        "/v2/models/tiny/infer",
    ] {
        assert_eq!(server.post(path, &json!([{"amount": 1}])).status, 401, "{path}");
    }
    for token in ["one", "two"] {
        let token = format!("Bearer {token}");
        let answer = server.ask(
            "POST",
            "/predict",
            &[JSON, ("authorization", &token)],
            b"{\"amount\": 1}",
        );
        assert_eq!(answer.status, 200);
    }
    let Some(environment) = environment() else { return };
    let root = tiny(folder.path(), &environment);
    let at = folder.path().join("app");
    app(&root, &at);
    let output = runtime_command(&environment, &at, &["serve"])
        .env("MLRAILS_TOKEN_FILE", "/nowhere/token")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("MLRAILS_TOKEN_FILE cannot be used"), "{said}");
}

#[test]
fn a_name_that_is_no_column_s_is_told_where_an_optional_column_is_left_out() {
    let Some(server) = Server::start(&[]) else { return };
    let check = |path: &str, body: Value, told: Option<&str>| {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let header = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("x-mlrails-ignored: "));
        assert_eq!(header, told, "{path} {body}");
    };
    check("/predict", json!({"amount": 1, "gatte": "x"}), Some("gatte"));
    check(
        "/predict",
        json!([{"amount": 1, "gate": null}, {"amount": 1, "g,ö": 1}]),
        Some("g%2c%c3%b6"),
    );
    check("/predict", json!({"amount": 1, "gate": null, "more": 1}), None);
    check("/predict", json!({"amount": 1}), None);
    check(
        "/predict",
        json!({"columns": ["amount", "gats"], "data": [[1, null]]}),
        Some("gats"),
    );
    check(
        "/v1/models/tiny:predict",
        json!({"instances": [{"amount": 1, "gatte": 1}]}),
        Some("gatte"),
    );
    check(
        "/invocations",
        json!({"dataframe_records": [{"amount": 1.0, "b": 1, "a": 1}]}),
        Some("a, b"),
    );
    let tensor = |name: &str| json!({"name": name, "shape": [1], "datatype": "FP64", "data": [1]});
    check(
        "/v2/models/tiny/infer",
        json!({"inputs": [tensor("amount"), tensor("x")]}),
        Some("x"),
    );
    assert!((metric(&server, "mlrails_ignored_fields_total") - 6.0).abs() < 0.1);
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let Some(mut server) = Server::start(&[("MLRAILS_WORKERS", "2")]) else {
        return;
    };
    server.until("\"message\": \"ready\"");
    let workers = below(server.child.id());
    let killed = rustix::process::Pid::from_raw(workers[0].cast_signed()).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    server.until("\"message\": \"ready\"");
    for _ in 0..20 {
        assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
    }
    assert!((metric(&server, "mlrails_worker_restarts_total") - 1.0).abs() < 0.1);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

/// As many open files as 1,000 connections take, in this process too.
fn allow_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit
        .maximum
        .map_or(Some(8192), |most| Some(most.min(8192)))
        .max(limit.current);
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Sockets that the server's processes hold: the connections that were accepted, and a few more.
fn sockets(server: &Server) -> usize {
    let held = |pid: &u32| {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        all.filter(|one| {
            std::fs::read_link(one.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        })
        .count()
    };
    below(server.child.id()).iter().map(held).sum()
}

/// Of 1,000 requests on connections that were accepted before SIGTERM none is lost, whether they had come whole or in part; `least`:
/// bytes of the smallest part.
fn none_is_lost(drain: &str, least: usize) {
    let Some(mut server) = Server::start(&[("MLRAILS_DRAIN", drain)]) else {
        return;
    };
    allow_files();
    let folder = tempfile::tempdir().unwrap();
    let gate = gate(folder.path());
    let first = held(&server, &gate);
    let writer = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    let before = sockets(&server);
    let body = "{\"amount\": 1}";
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let request = format!("{head}\r\n{body}");
    let cuts = [
        request.len(),
        request.len() - 5,
        head.len() + 2,
        head.len() - 20,
        1,
        least,
    ];
    let mut streams: Vec<(TcpStream, usize)> = (0..1000)
        .map(|at| {
            let mut stream = server.connect();
            let cut = cuts[at % cuts.len()];
            stream.write_all(&request.as_bytes()[..cut]).unwrap();
            (stream, cut)
        })
        .collect();
    while sockets(&server) < before + streams.len() {}
    server.terminate();
    if drain == "0" {
        // Nobody is let in any more: what follows comes after the end of the drain.
        while TcpStream::connect(("127.0.0.1", server.port)).is_ok() {}
    } else {
        while server.get("/readyz").status == 200 {}
    }
    for (stream, cut) in &mut streams {
        stream.write_all(&request.as_bytes()[*cut..]).unwrap();
    }
    drop(writer);
    for (at, (mut stream, cut)) in std::iter::once((first, 0)).chain(streams).enumerate() {
        let answer = Answer::read(&mut stream);
        assert_eq!(
            answer.status, 200,
            "request {at}, of which {cut} bytes had come: {answer:?}"
        );
        assert_eq!(answer.json(), json!({"predictions": [3.0]}));
    }
    server.until("stopped");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn sigterm_under_load_loses_no_request() {
    none_is_lost("3", 0);
}

#[test]
fn what_was_accepted_is_answered_even_without_a_pause() {
    // Of what had not begun to come when the listening ended there is no request that could be lost.
    none_is_lost("0", 1);
}

#[test]
fn overload_is_answered_503_in_flat_memory() {
    let Some(server) = Server::start(&[("MLRAILS_QUEUE", "2"), ("MLRAILS_BODY_MEMORY", "1MiB")]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gate = gate(folder.path());
    let mut first = held(&server, &gate);
    let writer = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    let mut second = held(&server, &gate);
    while metric(&server, "mlrails_queue_requests") < 2.0 {}
    let body = format!("[{}]", vec!["{\"amount\": 1}"; 2000].join(","));
    let before = metric(&server, "process_resident_memory_bytes");
    for _ in 0..500 {
        let refused = server.ask("POST", "/predict", &[JSON], body.as_bytes());
        assert_eq!(refused.status, 503);
        assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    }
    let grown = metric(&server, "process_resident_memory_bytes") - before;
    assert!(grown < 16e6, "{grown} bytes more than before");
    drop(writer);
    assert_eq!(Answer::read(&mut first).status, 200);
    // The second opens the gate when the first is done; opening it for writing waits for that.
    drop(std::fs::OpenOptions::new().write(true).open(&gate).unwrap());
    assert_eq!(Answer::read(&mut second).status, 200);

    // A body that has come for the most part takes the memory that there is for bodies.
    let mut large = server.connect();
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
    large
        .write_all(format!("{head}content-length: 1000002\r\n\r\n[").as_bytes())
        .unwrap();
    large.write_all(&vec![b' '; 1_000_000]).unwrap();
    while metric(&server, "mlrails_body_bytes") < 1_000_001.0 {}
    let refused = server.ask("POST", "/predict", &[JSON], &vec![b' '; 60_000]);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("memory"), "{}", refused.body);
    large.write_all(b"]").unwrap();
    assert_eq!(Answer::read(&mut large).status, 200);
    assert!(metric(&server, "mlrails_body_bytes").abs() < 0.1);
}

#[test]
fn spans_go_where_otel_says() {
    let collector = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", collector.local_addr().unwrap());
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
        ("MLRAILS_ACCESS_LOG", "1"),
    ];
    let Some(mut server) = Server::start(&settings) else {
        return;
    };
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = server.ask(
        "POST",
        "/predict",
        &[JSON, ("traceparent", parent)],
        b"[{\"amount\": 1}]",
    );
    assert_eq!(answer.status, 200);
    assert!(
        server
            .until("\"message\": \"request\"")
            .contains("\"trace_id\": \"0af7651916cd43dd8448eb211c80319c\"")
    );
    let (head, document) = collected(collector.accept().unwrap().0);
    assert!(
        head.starts_with("post /v1/traces http/1.1") && head.contains("x-key: a b"),
        "{head}"
    );
    let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
        .as_array()
        .unwrap();
    let names: Vec<&Value> = spans.iter().map(|span| &span["name"]).collect();
    assert_eq!(names, ["POST /predict", "predict"]);
    assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
    assert_eq!(spans[1]["traceId"], "0af7651916cd43dd8448eb211c80319c");
    // A collector that went away holds nobody up.
    drop(collector);
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
}

/// One request to a collector, answered.
fn collected(stream: TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    reader
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        .unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

#[test]
fn ctrl_c_during_the_start_is_no_crash() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = tiny(folder.path(), &environment);
    let at = folder.path().join("app");
    app(&root, &at);
    // Loading lasts until the gate is opened, which is never.
    let gate = gate(folder.path());
    let path = root.join("src/tiny/serve.py");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("open({gate:?}).read()\n{text}")).unwrap();
    let mut child = runtime_command(&environment, &at, &["serve"])
        .env("MLRAILS_PORT", free_port().to_string())
        .env("MLRAILS_WORKERS", "1")
        .process_group(0)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("listening") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    // The worker is there, and in the middle of loading.
    let writer = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
    // A terminal interrupts all of its processes at once: the worker may be gone before the parent has heard of it.
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    drop(writer);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(
        !said.contains("Unexpected") && !said.contains("Traceback"),
        "{said}"
    );
}

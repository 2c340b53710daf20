//! The server against who means it ill: raw bytes on sockets, values of wrong kinds in every field, bodies that grow when they are read.
//! Whatever is sent, no answer is a 500, nothing hangs, and memory stays where it was.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serving::{Answer, Server, below};

const INFER: &str = "/v2/models/tiny/infer";
const INSTANCES: &str = "/v1/models/tiny:predict";

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The largest memory that one of the server's processes has had, in MiB.
fn most_memory(server: &Server) -> u64 {
    let peak = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    below(server.child.id()).iter().map(peak).max().unwrap_or(0) / 1024
}

#[test]
fn framing_that_two_readers_would_understand_differently() {
    let Some(server) = Server::start(&[]) else { return };
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let check = |rest: &str, status: u16| {
        let answer = server.send(format!("{head}{rest}").as_bytes());
        assert_eq!(
            answer.status,
            status,
            "{:?}: {answer:?}",
            &rest[..rest.len().min(80)]
        );
    };
    check("content-length: 2\r\n\r\n[]", 200);
    check("content-length: 2\r\ncontent-length: 2\r\n\r\n[]", 200);
    for length in ["2, 2", "+2", "-1", "0x2", "", "99999999999999999999999"] {
        check(&format!("content-length: {length}\r\n\r\n[]"), 400);
    }
    check("content-length: 9223372036854775808\r\n\r\n[]", 413);
    check("\r\n", 400);
    for coding in ["chunked, identity", "xchunked", "gzip, chunked"] {
        check(
            &format!("transfer-encoding: {coding}\r\n\r\n2\r\n[]\r\n0\r\n\r\n"),
            400,
        );
    }
    check("transfer-encoding : chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", 400);
    for chunks in [
        "zz\r\n[]\r\n0\r\n\r\n",
        "-2\r\n[]\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n[]\r\n0\r\n\r\n",
        "2\n[]\n0\n\n",
        "2\r\n[]x0\r\n\r\n",
        &format!("2;{}\r\n[]\r\n0\r\n\r\n", "a".repeat(200_000)),
        &format!("2\r\n[]\r\n0\r\n{}\r\n", "x: a\r\n".repeat(5000)),
    ] {
        check(&format!("transfer-encoding: chunked\r\n\r\n{chunks}"), 400);
    }
    // Bytes one by one are slow to send, and right.
    let drops = "1\r\n \r\n".repeat(20_000);
    check(
        &format!("transfer-encoding: chunked\r\n\r\n{drops}2\r\n[]\r\n0\r\n\r\n"),
        200,
    );
    for line in ["x: b\r\n c", "x: b\0c", "x\0: b", "x: b\rc", "x"] {
        check(&format!("{line}\r\ncontent-length: 2\r\n\r\n[]"), 400);
    }
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\ncontent-length: 2\r\n\r\n[]";
    check(upgrade, 200);
    for start in [
        "\u{16}\u{3}\u{1}",
        "GET /livez\r\n\r\n",
        "GET /livez HTTP/3.0\r\nhost: x\r\n\r\n",
    ] {
        assert_eq!(server.send(start.as_bytes()).status, 400, "{start:?}");
    }
    // Bytes that are no text, wherever a header is read.
    let bytes = b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\naccept: \xff\r\n\
        x-request-id: \xff\r\ntraceparent: \xff\r\nauthorization: \xff\r\ncontent-length: 2\r\n\r\n[]";
    assert_eq!(server.send(bytes).status, 200);
}

#[test]
fn methods_paths_and_versions() {
    let Some(server) = Server::start(&[]) else { return };
    for (method, path, status) in [
        ("HEAD", "/livez", 200),
        ("HEAD", "/predict", 405),
        ("OPTIONS", "/predict", 405),
        ("OPTIONS", "*", 404),
        ("PUT", "/predict", 405),
        ("DELETE", "/livez", 405),
        ("TRACE", "/livez", 405),
        ("CONNECT", "x:1", 404),
        ("get", "/livez", 405),
        ("POST", "/livez", 405),
        ("POST", "//predict", 404),
        ("POST", "/predict/", 404),
        ("POST", "/./predict", 404),
        ("POST", "/docs/../predict", 404),
        ("POST", "/%2e/predict", 404),
        ("POST", "/predict%00", 404),
        ("POST", "/predict;a=b", 404),
        ("POST", "/PREDICT", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
        ("POST", "/v2/models//infer", 404),
        ("POST", "/v2/models/tiny/versions//infer", 404),
        ("POST", "/predict?x=1", 200),
    ] {
        let headers = "content-type: application/json\r\n";
        let answer = server.send(&request(method, path, headers, b"[]"));
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        if method == "HEAD" {
            assert_eq!(answer.body, "");
        }
        if status == 405 {
            assert!(answer.head.contains("\r\nallow: "), "{}", answer.head);
        }
    }
    let old = server
        .send(b"POST /predict HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]");
    assert_eq!((old.status, old.body.as_str()), (200, "{\"predictions\":[]}"));
}

#[test]
fn a_connection_goes_on_after_what_was_refused() {
    let Some(server) = Server::start(&[]) else { return };
    let post = |media: &str, body: &str| {
        format!(
            "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let last = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = |bytes: &str| {
        let answer = server.send(bytes.as_bytes());
        format!("{}{}", answer.head, answer.body.to_lowercase())
            .matches("http/1.1 ")
            .count()
    };
    let json = "application/json";
    for refused in [
        post(json, "5"),
        post(json, "{"),
        post("application/x-pickle", "x"),
        post(json, "[{\"amount\": -1}]"),
    ] {
        assert_eq!(answers(&format!("{refused}{last}")), 2, "{refused}");
    }
    assert_eq!(answers(&format!("{}{last}", post(json, "[]").repeat(200))), 201);
    // What was not read is not read as a request either.
    let unread = post("application/x-pickle", &last.repeat(5000));
    assert_eq!(answers(&unread), 1);
    let both = "POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(answers(&format!("{both}{last}")), 1);

    let expect = "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n";
    let waits = server.send(format!("{expect}content-length: 2\r\n\r\n[]").as_bytes());
    assert_eq!(waits.status, 100);
    assert!(waits.body.starts_with("HTTP/1.1 200 "), "{}", waits.body);
    let large = server.send(format!("{expect}content-length: 99999999\r\n\r\n").as_bytes());
    assert_eq!(large.status, 413, "nobody is told to send it");
}

#[test]
fn wrong_values_in_every_field_are_refused() {
    let Some(server) = Server::start(&[]) else { return };
    let check = |path: &str, body: &Value, status: u16| {
        let answer = server.post(path, body);
        assert_eq!(
            answer.status,
            status,
            "{path} {}: {answer:?}",
            &body.to_string()[..body.to_string().len().min(200)]
        );
    };
    let tensor = |changes: Value| {
        let mut tensor = json!({"name": "amount", "shape": [1], "datatype": "FP64", "data": [1]});
        tensor
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        json!({"inputs": [tensor]})
    };
    for changes in [
        json!({"name": null}),
        json!({"name": 5}),
        json!({"name": "other"}),
        json!({"shape": null}),
        json!({"shape": "1"}),
        json!({"shape": [-1]}),
        json!({"shape": [1.0]}),
        json!({"shape": [true]}),
        json!({"shape": [[1]]}),
        json!({"shape": [0], "data": [1]}),
        json!({"shape": [2]}),
        json!({"datatype": null}),
        json!({"datatype": 5}),
        json!({"datatype": "fp64"}),
        json!({"data": null}),
        json!({"data": "1"}),
        json!({"data": {}}),
        json!({"data": [{}]}),
        json!({"data": [[1], 2], "shape": [2]}),
        json!({"data": ["x"]}),
        json!({"data": [null]}),
        json!({"parameters": {"binary_data_size": -1}}),
        json!({"parameters": {"binary_data_size": "8"}}),
        json!({"parameters": {"binary_data_size": true}}),
    ] {
        check(INFER, &tensor(changes), 400);
    }
    check(INFER, &tensor(json!({"shape": [1_u64 << 62, 1_u64 << 62]})), 413);
    check(INFER, &tensor(json!({"shape": vec![i64::MAX; 2000]})), 413);
    for inputs in [json!(null), json!({}), json!([null]), json!("x"), json!([])] {
        check(INFER, &json!({"inputs": inputs}), 400);
    }
    let with = |key: &str, value: Value| {
        let mut body = tensor(json!({}));
        body[key] = value;
        body
    };
    check(INFER, &with("outputs", json!([{"name": "nothing"}])), 400);
    for (key, value) in [
        ("id", json!(5)),
        ("outputs", json!("x")),
        ("outputs", json!([null])),
        ("parameters", json!("x")),
    ] {
        check(INFER, &with(key, value), 200);
    }
    for instances in [
        json!(null),
        json!("x"),
        json!(5),
        json!({}),
        json!([null]),
        json!([[]]),
        json!([1]),
        json!([[1, null], {}]),
    ] {
        check(INSTANCES, &json!({"instances": instances}), 422);
    }
    for body in [
        json!({"dataframe_split": null}),
        json!({"dataframe_split": {"columns": null, "data": []}}),
        json!({"dataframe_split": {"columns": [1], "data": [[1]]}}),
        json!({"dataframe_split": {"columns": ["amount", "amount"], "data": [[1, 1]]}}),
        json!({"dataframe_split": {"columns": ["amount"], "data": "x"}}),
        json!({"dataframe_split": {"columns": ["amount"], "data": ["x"]}}),
        json!({"dataframe_records": {}}),
        json!({"inputs": null}),
        json!({"inputs": {"amount": 1}}),
        json!({"inputs": {"amount": [1], "gate": []}}),
        json!({"inputs": {"amount": [[1]]}}),
        json!({"inputs": [], "instances": []}),
        json!([]),
    ] {
        check("/invocations", &body, 400);
    }
    let raw = |path: &str, headers: &str, body: &[u8], status: u16| {
        let answer = server.send(&request("POST", path, headers, body));
        assert_eq!(answer.status, status, "{path} {headers}{answer:?}");
    };
    let json = "content-type: application/json\r\n";
    raw(INFER, json, b"{\"id\": \"\\ud800\", \"x\": NaN, \"inputs\": [{\"name\": \"amount\", \"shape\": [1], \"datatype\": \"FP64\", \"data\": [1]}]}", 400);
    raw(
        INFER,
        json,
        b"{\"inputs\": [{\"name\": \"amount\", \"shape\": [NaN], \"datatype\": \"FP64\", \"data\": [1]}]}",
        400,
    );
    raw(INFER, json, b"{\"inputs\": [{\"name\": \"amount\", \"shape\": [1], \"datatype\": \"FP64\", \"data\": [Infinity]}]}", 400);
    let digits = format!("[{{\"amount\": {}}}]", "1".repeat(5000));
    raw("/predict", json, digits.as_bytes(), 400);
    raw(
        "/invocations",
        json,
        format!("{{\"dataframe_records\": {digits}, \"x\": NaN}}").as_bytes(),
        400,
    );
    let ends = format!("inference-header-content-length: {}\r\n", "1".repeat(5000));
    raw(INFER, &ends, b"{}", 400);
    for accept in [
        "*/*;q=0",
        "text/html",
        "application/json;q=nan",
        ",,,",
        ";q=1",
        "*",
    ] {
        raw("/predict", &format!("{json}accept: {accept}\r\n"), b"[]", 200);
    }
    for media in [
        "application/json;charset",
        "application/json; charset=utf-16",
        "application/json, text/csv",
        ";",
        "multipart/form-data",
    ] {
        raw("/predict", &format!("content-type: {media}\r\n"), b"[]", 415);
    }
    raw(
        "/predict",
        &format!("{json}content-encoding: gzip\r\n"),
        b"[]",
        415,
    );
    for (csv, status) in [
        ("amount\n\0\n", 422),
        ("amount\n\"1", 400),
        ("amount;gate\n1;\n", 422),
        ("amount\n1,2\n", 422),
        ("amount\ninf\n", 422),
        ("\n\n", 400),
    ] {
        raw("/predict", "content-type: text/csv\r\n", csv.as_bytes(), status);
    }
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
}

#[test]
fn bodies_that_grow_when_they_are_read_take_no_memory() {
    let Some(server) = Server::start(&[]) else { return };
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
    let before = most_memory(&server);
    let check = |path: &str, headers: &str, body: &[u8], status: u16| {
        let answer = server.send(&request("POST", path, headers, body));
        assert_eq!(
            answer.status,
            status,
            "{path} {}: {answer:?}",
            String::from_utf8_lossy(&body[..body.len().min(40)])
        );
        assert!(
            answer.body.len() < 64 << 10,
            "{} bytes of answer",
            answer.body.len()
        );
    };
    let json = "content-type: application/json\r\n";
    let list = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
    // A few bytes each, and most of a hundred as values or as errors.
    check("/predict", json, list("{}", 5_000_000).as_bytes(), 413);
    check("/predict", json, list("{}", 2_000_000).as_bytes(), 422);
    check(
        "/predict",
        json,
        list("{\"amount\":\"\"}", 1_000_000).as_bytes(),
        422,
    );
    check(
        "/predict",
        json,
        format!("{{\"columns\":[],\"data\":{}}}", list("[]", 2_000_000)).as_bytes(),
        422,
    );
    check(
        INSTANCES,
        json,
        format!("{{\"instances\":{}}}", list("null", 2_000_000)).as_bytes(),
        422,
    );
    check(
        "/invocations",
        json,
        format!("{{\"inputs\":{}}}", list("{}", 2_000_000)).as_bytes(),
        400,
    );
    check(
        "/predict",
        "content-type: text/csv\r\n",
        format!("amount,gate\n{}", ",\n".repeat(3_000_000)).as_bytes(),
        413,
    );
    let binary = |name: &str, kind: &str, count: usize, width: usize| {
        let head = json!({"inputs": [{"name": name, "shape": [count], "datatype": kind, "parameters": {"binary_data_size": count * width}}]}).to_string();
        let headers = format!("inference-header-content-length: {}\r\n", head.len());
        (headers, [head.as_bytes(), &vec![0; count * width]].concat())
    };
    for (name, kind, count, width, status) in [
        ("amount", "BOOL", 12_000_000, 1, 413),
        ("gate", "UINT8", 2_000_000, 1, 400),
        ("gate", "BYTES", 1_500_000, 4, 400),
    ] {
        let (headers, body) = binary(name, kind, count, width);
        check(INFER, &headers, &body, status);
    }
    check("/predict", json, "[".repeat(10_000_000).as_bytes(), 400);
    check(
        "/predict",
        json,
        format!("{{\"amount\":1{}}}", ",\"\":1".repeat(2_000_000)).as_bytes(),
        200,
    );
    let grown = most_memory(&server) - before;
    assert!(grown < 1024, "{grown} MiB more than before");
    assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
}

#[test]
fn an_address_in_a_row_is_a_text() {
    let Some(server) = Server::start(&[]) else { return };
    let bait = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    bait.set_nonblocking(true).unwrap();
    let url = format!("http://{}/x", bait.local_addr().unwrap());
    for (path, body, status) in [
        ("/predict", json!({"amount": url}), 422),
        ("/predict", json!({"amount": 1, "more": url}), 200),
        (
            INFER,
            json!({"inputs": [{"name": "amount", "shape": [1], "datatype": "BYTES", "data": [url]}]}),
            400,
        ),
        ("/invocations", json!({"inputs": {"amount": [url]}}), 400),
    ] {
        assert_eq!(server.post(path, &body).status, status);
    }
    assert!(
        bait.accept()
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    );
}

/// What a client has heard so far; `None` while the connection is open and silent.
fn heard(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock && bytes.is_empty() => None,
        // Closed, or an answer before that.
        _ => Some(bytes),
    }
}

#[test]
fn clients_that_drip_are_closed_and_the_others_are_answered() {
    let settings = [("MLRAILS_HEADER_TIMEOUT", "2"), ("MLRAILS_BODY_TIMEOUT", "2")];
    let Some(server) = Server::start(&settings) else {
        return;
    };
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let starts = [
        format!("{head}x-slow: "),
        format!("{head}content-length: 100000\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n"),
        // Silent: neither a byte of a request, nor one of the next.
        String::new(),
        "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
    ];
    let drops = ["a", " ", "1\r\n \r\n", "", ""];
    let mut dripping: Vec<(usize, TcpStream)> = (0..300)
        .map(|at| {
            let kind = at % starts.len();
            let mut stream = server.connect();
            stream.write_all(starts[kind].as_bytes()).unwrap();
            if kind == 4 {
                let mut answer = [0; 512];
                assert!(stream.read(&mut answer).unwrap() > 0);
            }
            stream.set_nonblocking(true).unwrap();
            (kind, stream)
        })
        .collect();
    let begun = Instant::now();
    while !dripping.is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{} are still open",
            dripping.len()
        );
        assert_eq!(server.post("/predict", &json!({"amount": 1})).status, 200);
        dripping.retain_mut(|(kind, stream)| {
            let _ = stream.write_all(drops[*kind].as_bytes());
            let Some(said) = heard(stream) else { return true };
            let status = Answer::of(said).status;
            let expected = if matches!(kind, 1 | 2) { 408 } else { 0 };
            assert_eq!(status, expected, "{:?}", starts[*kind]);
            false
        });
    }
}

//! A package index on loopback (PEP 691 and 503): made wheels, `.metadata`, ranges, ETags, and an edit for every answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use mlrails::digest::Digest;

use super::wheels::{Member, row, zip};

/// What is asked: method, path, and the headers that matter to tests, by lower-case name.
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.into(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Edit = Box<dyn Fn(&Asked, Answer) -> Answer + Send + Sync>;

/// A file: its project, its content, and its METADATA where it has one.
type Held = (String, Vec<u8>, Option<Vec<u8>>);

/// How an index behaves. The default is a good modern one without ETags.
#[derive(Default)]
pub struct Shelf {
    pub files: BTreeMap<String, Held>,
    pub html: bool,
    /// Pages say that each file has its `.metadata`.
    pub metadata: bool,
    pub without_ranges: bool,
    pub etag: bool,
    pub edit: Option<Edit>,
}

impl Shelf {
    /// Adds a pure wheel of `name` with these METADATA lines besides name and version.
    pub fn wheel(self, name: &str, version: &str, lines: &[&str]) -> Self {
        self.wheel_tagged(name, version, "py3-none-any", lines)
    }

    pub fn wheel_tagged(mut self, name: &str, version: &str, tags: &str, lines: &[&str]) -> Self {
        let stem = format!("{}-{version}", name.replace('-', "_"));
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{}\n",
            lines.iter().map(|line| format!("{line}\n")).collect::<String>()
        );
        let module = format!("{}/__init__.py", name.replace('-', "_"));
        let about = format!("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tags}\n");
        let mut record = String::new();
        let mut members = Vec::new();
        for (path, content) in [
            (module, String::new()),
            (format!("{stem}.dist-info/METADATA"), metadata.clone()),
            (format!("{stem}.dist-info/WHEEL"), about),
        ] {
            record.push_str(&row(&path, content.as_bytes()));
            members.push(Member::deflated(&path, content.as_bytes()));
        }
        let path = format!("{stem}.dist-info/RECORD");
        record.push_str(&format!("{path},,\n"));
        members.push(Member::stored(&path, record.as_bytes()));
        let file = format!("{stem}-{tags}.whl");
        self.files.insert(
            file,
            (name.to_owned(), zip(&members), Some(metadata.into_bytes())),
        );
        self
    }

    /// Adds a file of `name` with any content: an sdist, or something that calls itself a wheel.
    pub fn file(mut self, name: &str, file: &str, content: Vec<u8>) -> Self {
        self.files
            .insert(file.to_owned(), (name.to_owned(), content, None));
        self
    }

    /// Every answer passes through `edit` before it is sent.
    pub fn edit(mut self, edit: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static) -> Self {
        self.edit = Some(Box::new(edit));
        self
    }

    pub fn serve(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, shelf) = (asked.clone(), Arc::new(self));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, shelf) = (log.clone(), shelf.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    let mut line = String::new();
                    if reader.read_line(&mut line).is_err() {
                        return;
                    }
                    let mut headers = BTreeMap::new();
                    let mut header = String::new();
                    while reader.read_line(&mut header).is_ok_and(|count| count > 2) {
                        if let Some((name, value)) = header.split_once(':') {
                            headers.insert(name.to_lowercase(), value.trim().to_owned());
                        }
                        header.clear();
                    }
                    let request = Asked {
                        path: line.split(' ').nth(1).unwrap_or_default().to_owned(),
                        headers,
                    };
                    log.lock().unwrap().push(request.path.clone());
                    let mut answer = shelf.answer(&request);
                    if let Some(edit) = &shelf.edit {
                        answer = edit(&request, answer);
                    }
                    let mut head = format!(
                        "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n",
                        answer.status,
                        answer.body.len()
                    );
                    for (name, value) in &answer.headers {
                        head.push_str(&format!("{name}: {value}\r\n"));
                    }
                    let _ = stream
                        .write_all(format!("{head}\r\n").as_bytes())
                        .and_then(|()| stream.write_all(&answer.body));
                });
            }
        });
        Server { url, asked }
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if let Some(name) = asked.path.strip_prefix("/simple/") {
            return self.page(name.trim_end_matches('/'), asked);
        }
        let Some(file) = asked.path.strip_prefix("/files/") else {
            return Answer::new(404, "text/plain", "");
        };
        if let Some(file) = file.strip_suffix(".metadata") {
            return match self.files.get(file) {
                Some((_, _, Some(metadata))) => {
                    Answer::new(200, "application/octet-stream", metadata.clone())
                }
                _ => Answer::new(404, "text/plain", ""),
            };
        }
        let Some((_, content, _)) = self.files.get(file) else {
            return Answer::new(404, "text/plain", "");
        };
        let range = asked.headers.get("range").and_then(|range| {
            let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
            let last = content.len() - 1;
            match start {
                "" => Some((content.len().saturating_sub(end.parse().ok()?), last)),
                _ => Some((start.parse().ok()?, end.parse().unwrap_or(last).min(last))),
            }
        });
        match range {
            Some((start, end)) if !self.without_ranges => {
                let place = format!("bytes {start}-{end}/{}", content.len());
                Answer::new(206, "application/octet-stream", &content[start..=end])
                    .header("Content-Range", &place)
            }
            _ => Answer::new(200, "application/octet-stream", content.clone()),
        }
    }

    fn page(&self, name: &str, asked: &Asked) -> Answer {
        let files: Vec<_> = self.files.iter().filter(|(_, (of, ..))| of == name).collect();
        if files.is_empty() {
            return Answer::new(404, "text/plain", "");
        }
        let (kind, body) = if self.html {
            let anchors: String = files
                .iter()
                .map(|(file, (_, content, _))| {
                    format!(
                        "<a href=\"/files/{file}#sha256={}\">{file}</a>\n",
                        Digest::of(content).hex()
                    )
                })
                .collect();
            (
                "text/html",
                format!("<html><title>Links for {name}</title>{anchors}</html>"),
            )
        } else {
            let listed: Vec<serde_json::Value> = files
                .iter()
                .map(|(file, (_, content, metadata))| {
                    let mut entry = serde_json::json!({
                        "filename": file, "url": format!("/files/{file}"), "size": content.len(),
                        "hashes": { "sha256": Digest::of(content).hex() }, "upload-time": "2024-03-24T00:00:00Z",
                    });
                    if let (true, Some(metadata)) = (self.metadata, metadata) {
                        entry["core-metadata"] = serde_json::json!({ "sha256": Digest::of(metadata).hex() });
                    }
                    entry
                })
                .collect();
            let page = serde_json::json!({ "meta": { "api-version": "1.1" }, "name": name, "files": listed });
            ("application/vnd.pypi.simple.v1+json", page.to_string())
        };
        let tag = format!("\"{}\"", Digest::of(body.as_bytes()).hex());
        if !self.etag {
            return Answer::new(200, kind, body);
        }
        let answer = match asked.headers.get("if-none-match") {
            Some(known) if *known == tag => Answer::new(304, kind, ""),
            _ => Answer::new(200, kind, body),
        };
        answer.header("ETag", &tag).header("Cache-Control", "no-cache")
    }
}

/// A served shelf; lives until the test process ends.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn index(&self) -> String {
        format!("{}/simple/", self.url)
    }

    /// The paths asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

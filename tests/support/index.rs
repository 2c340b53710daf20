//! A package index on loopback (PEP 691 and 503): made wheels, `.metadata`, ranges, ETags, and an edit for every answer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use mlrails::digest::Digest;

use super::wheels::{Member, row, zip};

/// What is asked: method, path, and the headers that matter to tests, by lower-case name.
pub struct Asked {
    /// Without scheme and host, where a proxy was asked.
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub fault: Fault,
}

/// How an answer goes wrong on its way.
#[derive(Clone, Copy, Default)]
pub enum Fault {
    #[default]
    None,
    /// The connection is reset after as many bytes as this says of the whole length.
    Reset(fn(usize) -> usize),
    /// The connection ends properly, too early.
    End(fn(usize) -> usize),
    /// Nothing more comes after as many bytes, until the client leaves.
    Hang(fn(usize) -> usize),
    /// A byte comes now and then.
    Drip,
}

impl Answer {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.into(),
            fault: Fault::None,
        }
    }

    pub fn fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
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

    pub fn wheel_tagged(self, name: &str, version: &str, tags: &str, lines: &[&str]) -> Self {
        self.wheel_with(name, version, tags, lines, &[])
    }

    /// A wheel with more files: paths and contents.
    pub fn wheel_with(
        mut self,
        name: &str,
        version: &str,
        tags: &str,
        lines: &[&str],
        more: &[(&str, Vec<u8>)],
    ) -> Self {
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
        for (path, content) in more {
            record.push_str(&row(path, content));
            members.push(Member::deflated(path, content));
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

    /// Writes all files into `folder`.
    pub fn write(&self, folder: &std::path::Path) {
        std::fs::create_dir_all(folder).unwrap();
        for (file, (_, content, _)) in &self.files {
            std::fs::write(folder.join(file), content).unwrap();
        }
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
                    let mut stream = stream;
                    let Some(text) = head(&mut stream) else { return };
                    let mut lines = text.lines();
                    let line = lines.next().unwrap_or_default();
                    let target = line.split(' ').nth(1).unwrap_or_default();
                    let request = Asked {
                        path: local(target),
                        headers: lines
                            .filter_map(|header| header.split_once(':'))
                            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                            .collect(),
                    };
                    log.lock().unwrap().push(target.to_owned());
                    let mut answer = shelf.answer(&request);
                    if let Some(edit) = &shelf.edit {
                        answer = edit(&request, answer);
                    }
                    let mut bytes = format!(
                        "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n",
                        answer.status,
                        answer.body.len()
                    )
                    .into_bytes();
                    for (name, value) in &answer.headers {
                        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                    }
                    bytes.extend_from_slice(b"\r\n");
                    bytes.extend_from_slice(&answer.body);
                    let _ = send(stream, &bytes, answer.fault);
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
            Some((start, _)) if !self.without_ranges && start >= content.len() => {
                Answer::new(416, "text/plain", "")
            }
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

/// A request's head, but for its very last byte: closing a connection with that unread resets it.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).ok()
}

/// The path of a request's target, which names a host when it is sent to a proxy.
fn local(target: &str) -> String {
    let path = target
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    path.unwrap_or(target).to_owned()
}

fn send(mut stream: TcpStream, bytes: &[u8], fault: Fault) -> std::io::Result<()> {
    let mut last = [0];
    match fault {
        Fault::Reset(count) => stream.write_all(&bytes[..count(bytes.len())]),
        Fault::None => {
            stream.read_exact(&mut last)?;
            stream.write_all(bytes)
        }
        Fault::End(count) => {
            stream.read_exact(&mut last)?;
            stream.write_all(&bytes[..count(bytes.len())])
        }
        Fault::Hang(count) => {
            stream.read_exact(&mut last)?;
            stream.write_all(&bytes[..count(bytes.len())])?;
            stream.read(&mut last).map(|_| ())
        }
        Fault::Drip => {
            stream.read_exact(&mut last)?;
            stream.set_read_timeout(Some(std::time::Duration::from_millis(5)))?;
            for byte in bytes {
                stream.write_all(&[*byte])?;
                // The client sends nothing more: this waits, or sees that it left.
                if stream.read(&mut last).is_ok() {
                    break;
                }
            }
            Ok(())
        }
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

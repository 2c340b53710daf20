//! What `tests/setup` puts beside the tests: real wheels, a slice of Debian's archive, Python peers. And what is said where
//! it did not run.
//!
//! Gives: [`covered`], which every test of the real parts asks first; a package index over the wheels, on loopback; a
//! folder of the suite's own for large things.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mlrails::digest::Digest;
use serde_json::json;

use super::driver::repository;

/// Whether all of `parts` are here. Where not, the line that names what is not covered is written past the test harness, so
/// that it is seen of tests that pass; with `MLRAILS_PEERS=required` the test fails instead. A part is a path below
/// tests/store (it has a `/`), a program, or `root`.
pub fn covered(what: &str, parts: &[&str]) -> bool {
    let missing: Vec<&str> = parts.iter().copied().filter(|part| !is_here(part)).collect();
    if missing.is_empty() {
        return true;
    }
    let line = format!("not covered: {what} (missing: {})", missing.join(", "));
    assert!(
        std::env::var_os("MLRAILS_PEERS").is_none_or(|value| value != "required"),
        "{line}; run `tests/setup`"
    );
    let _ = writeln!(std::io::stderr(), "{line}");
    // `make test` prints the file after the last test.
    let listed = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-covered"));
    let _ = listed.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    false
}

/// How many cases of something expensive are tried: a sample, or with `make test-long` many.
pub fn amount(sample: u32, many: u32) -> u32 {
    match std::env::var_os("MLRAILS_LONG") {
        None => sample,
        Some(_) => many,
    }
}

/// Whether the suite runs as root.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn is_here(part: &str) -> bool {
    if part == "root" {
        return is_root();
    }
    if part.contains('/') {
        return repository("tests/store").join(part).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(part).is_file())
}

/// A folder for what several tests share, below target/: removed by the next run, whenever this one ended.
pub fn shared_folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let owner = file
            .to_string_lossy()
            .strip_prefix(&format!("{name}-"))
            .map(str::to_owned);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = root.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    folder
}

/// An index of the simple API (PEP 503 and 691) over a folder of wheels, with byte ranges and no separate metadata.
#[derive(Debug)]
pub struct WheelIndex {
    /// Its base, `http://127.0.0.1:PORT/simple/`.
    pub url: String,
}

struct Shelf {
    folder: PathBuf,
    /// Normalised project name → its files.
    files: HashMap<String, Vec<String>>,
    digests: Mutex<HashMap<String, Digest>>,
}

impl WheelIndex {
    /// Serves until the test process ends.
    pub fn start(folder: &Path) -> Self {
        let mut files: HashMap<String, Vec<String>> = HashMap::new();
        for entry in std::fs::read_dir(folder).expect("the wheels are there").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".whl") {
                let name = file.split('-').next().unwrap_or_default();
                let name = name.to_lowercase().replace(['_', '.'], "-");
                files.entry(name).or_default().push(file);
            }
        }
        let shelf = Arc::new(Shelf {
            folder: folder.to_owned(),
            files,
            digests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let url = format!("http://{}/simple/", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = shelf.clone();
                std::thread::spawn(move || {
                    let _ = shelf.answer(stream);
                });
            }
        });
        Self { url }
    }
}

/// One request as far as an index cares.
#[derive(Default)]
struct Asked {
    head_only: bool,
    path: String,
    json: bool,
    range: Option<String>,
}

impl Asked {
    /// None at the end of the connection.
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.split(' ');
        let mut asked = Self {
            head_only: words.next()? == "HEAD",
            path: words.next()?.to_owned(),
            ..Self::default()
        };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else {
                return Some(asked);
            };
            match name.to_lowercase().as_str() {
                "accept" => asked.json = value.contains("simple.v1+json"),
                "range" => asked.range = value.trim().strip_prefix("bytes=").map(str::to_owned),
                _ => {}
            }
        }
    }
}

impl Shelf {
    /// Answers every request of one connection: pip and uv keep theirs open.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(asked) = Asked::read(&mut reader) {
            let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
            match parts.as_slice() {
                ["simple", name] if self.files.contains_key(*name) => {
                    let (kind, body) = self.page(name, asked.json);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes())?;
                    if !asked.head_only {
                        stream.write_all(body.as_bytes())?;
                    }
                }
                ["files", name] if self.folder.join(name).is_file() => {
                    self.file(name, &asked, &mut stream)?
                }
                _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
            }
        }
        Ok(())
    }

    fn page(&self, name: &str, as_json: bool) -> (&'static str, String) {
        let files = self.files[name].iter().map(|file| (file, self.digest(file)));
        if as_json {
            let files: Vec<_> = files
                .map(|(file, digest)| {
                    let size = std::fs::metadata(self.folder.join(file)).map_or(0, |about| about.len());
                    json!({ "filename": file, "url": format!("/files/{file}"), "hashes": { "sha256": digest.hex() },
                            "size": size, "upload-time": "2026-01-01T00:00:00Z" })
                })
                .collect();
            let page =
                json!({ "meta": { "api-version": "1.1" }, "name": name, "files": files, "versions": [] });
            return ("application/vnd.pypi.simple.v1+json", page.to_string());
        }
        let mut page = String::from("<!DOCTYPE html><html><body>");
        for (file, digest) in files {
            let _ = write!(
                page,
                "<a href=\"/files/{file}#sha256={}\">{file}</a>",
                digest.hex()
            );
        }
        ("text/html", page + "</body></html>")
    }

    fn digest(&self, file: &str) -> Digest {
        if let Some(known) = self.digests.lock().expect("no panic").get(file) {
            return *known;
        }
        let digest = Digest::of(&std::fs::read(self.folder.join(file)).expect("the wheel is there"));
        self.digests
            .lock()
            .expect("no panic")
            .insert(file.to_owned(), digest);
        digest
    }

    fn file(&self, name: &str, asked: &Asked, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut file = std::fs::File::open(self.folder.join(name))?;
        let size = file.metadata()?.len();
        let range = asked.range.as_deref().and_then(|text| text.split_once('-'));
        let (from, to) = match range {
            Some(("", last)) => (size.saturating_sub(last.parse().unwrap_or(0)), size),
            Some((from, "")) => (from.parse().unwrap_or(0), size),
            Some((from, to)) => (
                from.parse().unwrap_or(0),
                size.min(to.parse().unwrap_or(size) + 1),
            ),
            None => (0, size),
        };
        let status = match range {
            Some(_) => format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}",
                to.saturating_sub(1)
            ),
            None => "200 OK".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n",
            to - from
        );
        stream.write_all(head.as_bytes())?;
        if !asked.head_only {
            file.seek(SeekFrom::Start(from))?;
            std::io::copy(&mut file.take(to - from), stream)?;
        }
        Ok(())
    }
}

//! A lock's text, written: one value per line where a diff should show one change per line.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use toml::{Table, Value};
use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use crate::lock::{File, Location, Lock, Package, Settings, Source};

/// The lock as TOML text (PEP 751).
pub(super) fn text(lock: &Lock) -> String {
    Writer::default().lock(lock)
}

#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    fn lock(mut self, lock: &Lock) -> String {
        self.pair("lock-version", "1.0");
        self.pair("created-by", &lock.created_by);
        if let Some(specifiers) = &lock.requires_python {
            self.pair("requires-python", &specifiers.to_string());
        }
        self.list("environments", lock.environments.iter().map(marker_text));
        self.list("extras", lock.extras.iter().map(ToString::to_string));
        self.list(
            "dependency-groups",
            lock.dependency_groups.iter().map(ToString::to_string),
        );
        self.list(
            "default-groups",
            lock.default_groups.iter().map(ToString::to_string),
        );
        if lock.packages.is_empty() {
            self.text.push_str("packages = []\n");
        }
        for package in &lock.packages {
            self.package(package, lock);
        }
        self.settings(&lock.mlrails);
        self.text
    }

    fn package(&mut self, package: &Package, lock: &Lock) {
        self.text.push_str("\n[[packages]]\n");
        self.pair("name", package.name.as_str());
        if let Some(version) = &package.version {
            self.pair("version", &version.to_string());
        }
        if !package.marker.is_true() {
            self.pair("marker", &marker_text(&package.marker));
        }
        if let Some(specifiers) = &package.requires_python {
            self.pair("requires-python", &specifiers.to_string());
        }
        self.dependencies(package, lock);
        if let Some(index) = &package.index {
            self.pair("index", index);
        }
        match &package.source {
            Source::Files { sdist, wheels } => {
                if let Some(sdist) = sdist {
                    let _ = writeln!(self.text, "sdist = {}", inline_file(sdist));
                }
                if !wheels.is_empty() {
                    self.text.push_str("wheels = [\n");
                    for wheel in wheels {
                        let _ = writeln!(self.text, "    {},", inline_file(wheel));
                    }
                    self.text.push_str("]\n");
                }
            }
            Source::Archive(archive) => {
                let _ = writeln!(self.text, "archive = {}", inline_file(archive));
            }
            Source::Vcs {
                kind,
                url,
                commit,
                subdirectory,
            } => {
                let _ = write!(
                    self.text,
                    "vcs = {{ type = {}, url = {}, commit-id = {}",
                    quoted(kind),
                    quoted(url.as_str()),
                    quoted(commit)
                );
                if let Some(subdirectory) = subdirectory {
                    let _ = write!(self.text, ", subdirectory = {}", quoted(subdirectory));
                }
                self.text.push_str(" }\n");
            }
            Source::Directory { path, editable } => {
                let _ = writeln!(
                    self.text,
                    "directory = {{ path = {}{} }}",
                    quoted(&path.to_string_lossy()),
                    if *editable { ", editable = true" } else { "" }
                );
            }
        }
        let nothing = package.requires.is_empty() && package.extras.is_empty() && package.imports.is_empty();
        if nothing && package.fork.is_true() && package.built.is_none() {
            return;
        }
        self.text.push_str("\n[packages.tool.mlrails]\n");
        if !package.fork.is_true() {
            self.pair("fork", &marker_text(&package.fork));
        }
        self.list("requires", package.requires.iter().map(ToString::to_string));
        self.list("extras", package.extras.iter().map(ToString::to_string));
        self.list("imports", package.imports.iter().cloned());
        match &package.built {
            None => {}
            Some(with) if with.is_empty() => self.text.push_str("built = []\n"),
            Some(with) => self.list("built", with.iter().cloned()),
        }
    }

    /// PEP 751's `dependencies`: informational, and no more than names an entry beyond doubt.
    fn dependencies(&mut self, package: &Package, lock: &Lock) {
        let names: BTreeSet<&PackageName> = package.requires.iter().map(|requires| &requires.name).collect();
        let mut shown = Vec::new();
        for name in names {
            let entries: Vec<&Package> = lock.packages_named(name).collect();
            for entry in &entries {
                match (&entry.version, entries.len()) {
                    (Some(version), 2..) => shown.push(format!(
                        "{{ name = {}, version = {} }}",
                        quoted(name.as_str()),
                        quoted(&version.to_string())
                    )),
                    _ => shown.push(format!("{{ name = {} }}", quoted(name.as_str()))),
                }
            }
        }
        if !shown.is_empty() {
            let _ = writeln!(self.text, "dependencies = [{}]", shown.join(", "));
        }
    }

    fn settings(&mut self, settings: &Settings) {
        self.text.push_str("\n[tool.mlrails]\n");
        if let Some(python) = &settings.python {
            self.pair("python", &python.to_string());
        }
        self.list("platforms", settings.platforms.iter().map(ToString::to_string));
        self.list("forks", settings.forks.iter().map(marker_text));
        self.list("inputs", settings.inputs.iter().cloned());
        if let Some(base) = &settings.base {
            let mut nested = Table::new();
            nested.insert("base".to_owned(), Value::Table(base.clone()));
            let mut mlrails = Table::new();
            mlrails.insert("mlrails".to_owned(), Value::Table(nested));
            let mut tool = Table::new();
            tool.insert("tool".to_owned(), Value::Table(mlrails));
            let _ = write!(self.text, "\n{tool}");
        }
    }

    fn pair(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.text, "{key} = {}", quoted(value));
    }

    /// A list of strings; nothing if it is empty.
    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        let values: Vec<String> = values.map(|value| quoted(&value)).collect();
        match values.len() {
            0 => {}
            1 => {
                let _ = writeln!(self.text, "{key} = [{}]", values[0]);
            }
            _ => {
                let _ = writeln!(self.text, "{key} = [");
                for value in values {
                    let _ = writeln!(self.text, "    {value},");
                }
                self.text.push_str("]\n");
            }
        }
    }
}

fn marker_text(marker: &MarkerTree) -> String {
    marker
        .try_to_string()
        // A marker that is always true has no text of its own.
        .unwrap_or_else(|| "python_version >= '0'".to_owned())
}

fn inline_file(file: &File) -> String {
    let mut text = String::from("{ ");
    let from_location = match &file.location {
        Location::Url(url) => crate::python::file_name_of(url),
        Location::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
    };
    if from_location.as_deref() != Some(file.name.as_str()) {
        let _ = write!(text, "name = {}, ", quoted(&file.name));
    }
    if let Some(time) = &file.upload_time {
        let _ = write!(text, "upload-time = {time}, ");
    }
    match &file.location {
        Location::Url(url) => {
            let _ = write!(text, "url = {}, ", quoted(url.as_str()));
        }
        Location::Path(path) => {
            let _ = write!(text, "path = {}, ", quoted(&path.to_string_lossy()));
        }
    }
    if let Some(size) = file.size {
        let _ = write!(text, "size = {size}, ");
    }
    let _ = write!(text, "hashes = {{ sha256 = {} }} }}", quoted(&file.digest.hex()));
    text
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' || byte == b' ';
    if text.bytes().all(plain) {
        quoted.push_str(text);
        quoted.push('"');
        return quoted;
    }
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

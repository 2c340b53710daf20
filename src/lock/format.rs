//! `pylock.toml` read and written (PEP 751).
//!
//! Reading refuses what could install something else than was locked: a missing hash, two kinds of source, a path
//! that leaves the lock's folder, a file name that is not the package's. Keys it does not know are ignored, as the PEP
//! asks. Writing is deterministic: the same lock gives the same bytes, and reading them gives the same lock.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use toml::{Table, Value};
use uv_distribution_filename::{SourceDistFilename, WheelFilename};
use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::{File, Location, Lock, Package, Settings, Source};
use crate::digest::Digest;
use crate::python::requirement;
use crate::regular::{self, Irregular};
use crate::whole;

/// The largest lock that is read; one with 2,000 packages and all their wheels is 20 MB.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("cannot read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
    #[error("{path} is larger than {LARGEST} bytes")]
    TooLarge { path: String },
    #[error("{path} is not TOML: {reason}")]
    Syntax { path: String, reason: String },
    #[error("{path}: {rule}")]
    Refused { path: String, rule: String },
}

/// What is wrong with the text, before it is known which file it came from.
#[derive(Debug)]
enum Fault {
    Syntax(String),
    Rule(String),
}

fn refuse<T>(rule: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Rule(rule.into()))
}

impl Lock {
    /// Reads the lock at `path`. `Ok(None)` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let shown = path.display().to_string();
        let text = match regular::text_beside(path, LARGEST) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(Irregular::TooLarge { .. }) => return Err(LockError::TooLarge { path: shown }),
            Err(Irregular::Io(source)) => return Err(LockError::Read { path: shown, source }),
            Err(irregular) => {
                return Err(LockError::Refused {
                    path: shown,
                    rule: irregular.to_string(),
                });
            }
        };
        Self::parse(&text, &shown).map(Some)
    }

    /// Parses a lock's text; `path` names it in errors.
    pub fn parse(text: &str, path: &str) -> Result<Self, LockError> {
        parse(text).map_err(|fault| match fault {
            Fault::Syntax(reason) => LockError::Syntax {
                path: path.to_owned(),
                reason,
            },
            Fault::Rule(rule) => LockError::Refused {
                path: path.to_owned(),
                rule,
            },
        })
    }

    /// Writes the lock to `path`, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        use std::io::Write as _;
        whole::write(path, 0o644, |file| {
            file.write_all(self.to_toml().as_bytes())?;
            // A lock is not remade by itself as the cache's objects are: it must be on the disk before it has its name.
            file.sync_all()
        })
        .map_err(|source| LockError::Write {
            path: path.display().to_string(),
            source,
        })
    }

    /// The lock as TOML text.
    pub fn to_toml(&self) -> String {
        Writer::default().lock(self)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawLock {
    lock_version: String,
    created_by: String,
    requires_python: Option<String>,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    extras: Vec<String>,
    #[serde(default)]
    dependency_groups: Vec<String>,
    #[serde(default)]
    default_groups: Vec<String>,
    packages: Vec<RawPackage>,
    tool: Option<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawPackage {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    requires_python: Option<String>,
    index: Option<String>,
    vcs: Option<RawVcs>,
    directory: Option<RawDirectory>,
    archive: Option<RawFile>,
    sdist: Option<RawFile>,
    wheels: Option<Vec<RawFile>>,
    tool: Option<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawVcs {
    r#type: String,
    url: String,
    commit_id: String,
    subdirectory: Option<String>,
}

#[derive(Deserialize)]
struct RawDirectory {
    path: String,
    #[serde(default)]
    editable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawFile {
    name: Option<String>,
    upload_time: Option<Value>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    hashes: Table,
}

/// `[packages.tool.mlrails]`.
#[derive(Deserialize, Default)]
struct RawOurs {
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default)]
    extras: Vec<String>,
    #[serde(default)]
    imports: Vec<String>,
    fork: Option<String>,
}

/// `[tool.mlrails]`.
#[derive(Deserialize, Default)]
struct RawSettings {
    python: Option<String>,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    forks: Vec<String>,
    #[serde(default)]
    inputs: Vec<String>,
    base: Option<Table>,
}

fn parse(text: &str) -> Result<Lock, Fault> {
    let raw: RawLock = toml::from_str(text).map_err(|error| Fault::Syntax(one_line(&error.to_string())))?;
    if raw.lock_version.split('.').next() != Some("1") {
        return refuse(format!(
            "lock-version `{}` is not 1.0, the only one there is",
            raw.lock_version.chars().take(40).collect::<String>()
        ));
    }
    let ours: RawSettings = ours(raw.tool.as_ref(), "tool.mlrails")?;
    let packages = raw
        .packages
        .into_iter()
        .map(package)
        .collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    for package in &packages {
        if !seen.insert((&package.name, &package.version, package.marker)) {
            return refuse(format!("{} is listed twice", package.label()));
        }
    }
    Ok(Lock {
        created_by: raw.created_by,
        requires_python: raw
            .requires_python
            .map(|text| field("requires-python", &text))
            .transpose()?,
        environments: markers("environments", &raw.environments)?,
        extras: fields("extras", &raw.extras)?,
        dependency_groups: fields("dependency-groups", &raw.dependency_groups)?,
        default_groups: fields("default-groups", &raw.default_groups)?,
        packages,
        mlrails: Settings {
            python: ours
                .python
                .map(|text| field("tool.mlrails.python", &text))
                .transpose()?,
            platforms: fields("tool.mlrails.platforms", &ours.platforms)?,
            forks: markers("tool.mlrails.forks", &ours.forks)?,
            inputs: ours.inputs,
            base: ours.base,
        },
    })
}

fn package(raw: RawPackage) -> Result<Package, Fault> {
    let name: PackageName = field("packages.name", &raw.name)?;
    let version = raw
        .version
        .map(|text| field(&format!("version of {name}"), &text))
        .transpose()?;
    let ours: RawOurs = ours(raw.tool.as_ref(), &format!("packages.tool.mlrails of {name}"))?;
    let kinds = [
        raw.vcs.is_some(),
        raw.directory.is_some(),
        raw.archive.is_some(),
        raw.sdist.is_some() || raw.wheels.as_ref().is_some_and(|wheels| !wheels.is_empty()),
    ];
    match kinds.iter().filter(|there| **there).count() {
        1 => {}
        0 => return refuse(format!("{name} has no wheel, sdist, archive, vcs or directory")),
        _ => return refuse(format!("{name} has more than one kind of source")),
    }
    let source = if let Some(vcs) = raw.vcs {
        Source::Vcs {
            kind: vcs.r#type,
            url: web_url(&name, &vcs.url)?,
            commit: vcs.commit_id,
            subdirectory: vcs.subdirectory,
        }
    } else if let Some(directory) = raw.directory {
        Source::Directory {
            path: inside(&name, &directory.path)?,
            editable: directory.editable,
        }
    } else if let Some(archive) = raw.archive {
        Source::Archive(file(&name, archive)?)
    } else {
        let sdist = raw.sdist.map(|raw| file(&name, raw)).transpose()?;
        let wheels = raw
            .wheels
            .unwrap_or_default()
            .into_iter()
            .map(|raw| file(&name, raw))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(sdist) = &sdist {
            let parsed = SourceDistFilename::parsed_normalized_filename(&sdist.name)
                .map_err(|error| Fault::Rule(format!("sdist of {name}: {error}")))?;
            same(
                &name,
                version.as_ref(),
                &sdist.name,
                &parsed.name,
                &parsed.version,
            )?;
        }
        for wheel in &wheels {
            let parsed = WheelFilename::from_str(&wheel.name)
                .map_err(|error| Fault::Rule(format!("wheel of {name}: {error}")))?;
            same(
                &name,
                version.as_ref(),
                &wheel.name,
                &parsed.name,
                &parsed.version,
            )?;
        }
        Source::Files { sdist, wheels }
    };
    Ok(Package {
        marker: raw
            .marker
            .map_or(Ok(MarkerTree::TRUE), |text| marker("marker", &text))?,
        requires_python: raw
            .requires_python
            .map(|text| field(&format!("requires-python of {name}"), &text))
            .transpose()?,
        requires: ours
            .requires
            .iter()
            .map(|text| requirement::parse(text).map_err(|error| Fault::Rule(error.to_string())))
            .collect::<Result<_, _>>()?,
        extras: fields(&format!("extras of {name}"), &ours.extras)?,
        fork: ours
            .fork
            .map_or(Ok(MarkerTree::TRUE), |text| marker("fork", &text))?,
        index: raw.index,
        source,
        imports: ours.imports,
        name,
        version,
    })
}

/// Refuses a file whose name speaks of another package or version than the entry it stands in.
fn same(
    name: &PackageName,
    version: Option<&uv_pep440::Version>,
    file: &str,
    file_name: &PackageName,
    file_version: &uv_pep440::Version,
) -> Result<(), Fault> {
    if file_name != name {
        return refuse(format!("{file} is not a file of {name}"));
    }
    // A wheel may leave out the local part or write the version another way; another version it may not be.
    match version {
        Some(version) if version != file_version && version.clone().without_local() != *file_version => {
            refuse(format!("{file} is not {name} {version}"))
        }
        _ => Ok(()),
    }
}

fn file(package: &PackageName, raw: RawFile) -> Result<File, Fault> {
    let location = match (raw.path, raw.url) {
        (Some(path), _) => Location::Path(inside(package, &path)?),
        (None, Some(url)) => Location::Url(web_url(package, &url)?),
        (None, None) => return refuse(format!("a file of {package} has neither url nor path")),
    };
    let from_location = match &location {
        Location::Url(url) => crate::python::file_name_of(url),
        Location::Path(path) => path.file_name().and_then(|name| name.to_str()).map(str::to_owned),
    };
    let Some(name) = raw.name.or(from_location) else {
        return refuse(format!("a file of {package} has no usable name"));
    };
    if !crate::python::is_plain_file_name(&name) {
        return refuse(format!("a file of {package} has an unusable name: {name:?}"));
    }
    let digest = match raw.hashes.get("sha256") {
        Some(Value::String(hex)) => {
            Digest::from_hex(hex).map_err(|error| Fault::Rule(format!("hash of {name}: {error}")))?
        }
        Some(_) => return refuse(format!("hash of {name}: it is not text")),
        None => return refuse(format!("{name} has no sha256 hash")),
    };
    let upload_time = match raw.upload_time {
        Some(Value::Datetime(time)) => time.to_string().parse().ok(),
        Some(Value::String(time)) => time.parse().ok(),
        _ => None,
    };
    Ok(File {
        name,
        location,
        size: raw.size,
        upload_time,
        digest,
    })
}

fn web_url(package: &PackageName, text: &str) -> Result<url::Url, Fault> {
    let url = url::Url::parse(text)
        .map_err(|error| Fault::Rule(format!("a URL of {package} is invalid: {error}")))?;
    match url.scheme() {
        "https" | "http" | "file" | "git+https" | "git+ssh" | "ssh" => Ok(url),
        other => refuse(format!("a URL of {package} has the scheme `{other}`")),
    }
}

/// A path inside the lock's folder: relative, without `..`.
fn inside(package: &PackageName, text: &str) -> Result<PathBuf, Fault> {
    let path = Path::new(text);
    let mut parts = path.components();
    let plain = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if text.is_empty() || !plain || text.contains(['\\', '\0']) {
        return refuse(format!(
            "a path of {package} leaves the lock's folder: {:?}",
            text.chars().take(160).collect::<String>()
        ));
    }
    Ok(path.to_owned())
}

fn ours<T: serde::de::DeserializeOwned + Default>(tool: Option<&Table>, what: &str) -> Result<T, Fault> {
    match tool.and_then(|tool| tool.get("mlrails")) {
        None => Ok(T::default()),
        Some(value) => value.clone().try_into().map_err(|error: toml::de::Error| {
            Fault::Rule(format!("{what}: {}", one_line(&error.to_string())))
        }),
    }
}

fn field<T: FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Fault> {
    text.parse()
        .map_err(|error: T::Err| Fault::Rule(format!("{what} is invalid: {}", one_line(&error.to_string()))))
}

fn fields<T: FromStr<Err: std::fmt::Display>>(what: &str, texts: &[String]) -> Result<Vec<T>, Fault> {
    texts.iter().map(|text| field(what, text)).collect()
}

fn marker(what: &str, text: &str) -> Result<MarkerTree, Fault> {
    requirement::parse_marker(text).map_err(|error| Fault::Rule(format!("{what}: {error}")))
}

fn markers(what: &str, texts: &[String]) -> Result<Vec<MarkerTree>, Fault> {
    texts.iter().map(|text| marker(what, text)).collect()
}

fn one_line(text: &str) -> String {
    let line: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('|'))
        .collect();
    line.join("; ").chars().take(300).collect()
}

/// Builds the text. One value per line where a diff should show one change per line.
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
        if nothing && package.fork.is_true() {
            return;
        }
        self.text.push_str("\n[packages.tool.mlrails]\n");
        if !package.fork.is_true() {
            self.pair("fork", &marker_text(&package.fork));
        }
        self.list("requires", package.requires.iter().map(ToString::to_string));
        self.list("extras", package.extras.iter().map(ToString::to_string));
        self.list("imports", package.imports.iter().cloned());
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    fn text(package: &str) -> String {
        format!("lock-version = \"1.0\"\ncreated-by = \"t\"\n\n[[packages]]\n{package}\n").replace("SHA", SHA)
    }

    fn refusal(package: &str) -> String {
        Lock::parse(&text(package), "pylock.toml")
            .unwrap_err()
            .to_string()
    }

    const WHEEL: &str =
        r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#;

    #[test]
    fn round_trips() {
        let source = text(&format!(
            "name = \"a\"\nversion = \"1.0\"\nmarker = \"sys_platform == 'linux' or 'dev' in dependency_groups\"\n\
             requires-python = \">=3.8\"\nindex = \"https://h.example/simple\"\n\
             sdist = {{ name = \"a-1.0.tar.gz\", upload-time = 2024-03-24T00:00:00.5Z, path = \"./w/x.tar.gz\", size = 3, hashes = {{ sha256 = \"SHA\" }} }}\n\
             {WHEEL}\n[packages.tool.mlrails]\nrequires = [\"b[x] >=1 ; extra == 'y'\"]\nimports = [\"a\"]\n\
             [tool.mlrails]\npython = \"3.11\"\nplatforms = [\"linux/amd64\"]\ninputs = [\"a\", \"b \\\"c\\\"\"]\n\
             [tool.mlrails.base]\nname = \"bookworm\"\n[[tool.mlrails.base.packages]]\nname = \"libc6\"\n"
        ));
        let lock = Lock::parse(&source, "x").unwrap();
        let written = lock.to_toml();
        let again = Lock::parse(&written, "x").unwrap();
        assert_eq!(again, lock, "{written}");
        assert_eq!(again.to_toml(), written);
        assert_eq!(lock.packages[0].sdist().unwrap().name, "a-1.0.tar.gz");
        assert_eq!(
            lock.mlrails.base.unwrap()["packages"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn what_could_install_something_else_is_refused() {
        let head = "name = \"a\"\nversion = \"1.0\"\n";
        for (package, rule) in [
            (
                r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = {} }]"#,
                "no sha256",
            ),
            (
                r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = { md5 = "00" } }]"#,
                "no sha256",
            ),
            (
                r#"wheels = [{ url = "https://h.example/b-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "not a file of a",
            ),
            (
                r#"wheels = [{ url = "https://h.example/a-2.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "is not a 1.0",
            ),
            (
                r#"wheels = [{ url = "https://h.example/..%252fa-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "no usable name",
            ),
            (
                r#"wheels = [{ path = "../a-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "leaves the lock's folder",
            ),
            (
                r#"sdist = { path = "/a-1.0.tar.gz", hashes = { sha256 = "SHA" } }"#,
                "leaves the lock's folder",
            ),
            ("directory = { path = \"..\" }", "leaves the lock's folder"),
            ("", "has no wheel"),
            (
                "directory = { path = \"a\" }\nvcs = { type = \"git\", url = \"https://h.example/\", commit-id = \"0\" }",
                "more than one kind",
            ),
        ] {
            let message = refusal(&format!("{head}{package}"));
            assert!(message.contains(rule), "{package}\n{message}");
        }
        let twice = format!("{head}{WHEEL}\n[[packages]]\n{head}{WHEEL}");
        assert!(refusal(&twice).contains("listed twice"));
        assert!(refusal(&format!("name = \"../a\"\n{WHEEL}")).contains("packages.name is invalid"));
        let bare = "lock-version = \"1.0\"\ncreated-by = \"t\"\n";
        assert!(
            Lock::parse(bare, "x")
                .unwrap_err()
                .to_string()
                .contains("packages")
        );
        let newer = "lock-version = \"2.0\"\ncreated-by = \"t\"\npackages = []\n";
        assert!(Lock::parse(newer, "x").unwrap_err().to_string().contains("2.0"));
        let nested = format!("a = {}", "[".repeat(100_000));
        assert!(matches!(Lock::parse(&nested, "x"), Err(LockError::Syntax { .. })));
    }
}

//! A lock's text, read (PEP 751).
//!
//! Refused is what could install something else than was locked: a missing hash, two kinds of source, a path that leaves the
//! lock's folder, a file name that is not the package's. Keys it does not know are ignored, as the PEP asks.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Deserialize;
use toml::{Table, Value};
use uv_distribution_filename::{SourceDistFilename, WheelFilename};
use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::lines;
use crate::digest::Digest;
use crate::lock::{File, Location, Lock, Package, Settings, Source};
use crate::python::requirement;

/// What is wrong with the text, before it is known which file it came from.
#[derive(Debug)]
pub(super) enum Fault {
    Syntax(String),
    Rule(String),
}

fn refuse<T>(rule: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Rule(rule.into()))
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

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RawFile {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "moment")]
    pub upload_time: Option<jiff::Timestamp>,
    pub url: Option<String>,
    pub path: Option<String>,
    pub size: Option<u64>,
    #[serde(default)]
    pub hashes: RawHashes,
}

/// Other algorithms than the one that counts are ignored.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(super) struct RawHashes {
    pub sha256: Option<Value>,
}

/// A TOML date and time, or the same as text; anything else says nothing.
fn moment<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Datetime(time) => time.to_string().parse().ok(),
        Value::String(time) => time.parse().ok(),
        _ => None,
    })
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
    built: Option<Vec<String>>,
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

pub(super) fn parse(text: &str) -> Result<Lock, Fault> {
    let raw = raw(text)?;
    if raw.lock_version.split('.').next() != Some("1") {
        return refuse(format!(
            "lock-version `{}` is not 1.0, the only one there is",
            raw.lock_version.chars().take(40).collect::<String>()
        ));
    }
    let ours: RawSettings = ours(raw.tool.as_ref(), "tool.mlrails")?;
    let packages = raw
        .packages
        .into_par_iter()
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

fn raw(text: &str) -> Result<RawLock, Fault> {
    if let Some(lifted) = lines::lift(text)
        && let Ok(mut raw) = toml::from_str::<RawLock>(&lifted.rest)
        && raw.packages.len() == lifted.wheels.len()
    {
        let both =
            |(package, wheels): (&RawPackage, &Option<_>)| package.wheels.is_some() && wheels.is_some();
        if !raw.packages.iter().zip(&lifted.wheels).any(both) {
            for (package, wheels) in raw.packages.iter_mut().zip(lifted.wheels) {
                package.wheels = package.wheels.take().or(wheels);
            }
            return Ok(raw);
        }
    }
    toml::from_str(text).map_err(|error| Fault::Syntax(one_line(&error.to_string())))
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
        built: ours.built,
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
    let digest = match raw.hashes.sha256 {
        Some(Value::String(hex)) => {
            Digest::from_hex(&hex).map_err(|error| Fault::Rule(format!("hash of {name}: {error}")))?
        }
        Some(_) => return refuse(format!("hash of {name}: it is not text")),
        None => return refuse(format!("{name} has no sha256 hash")),
    };
    Ok(File {
        name,
        location,
        size: raw.size,
        upload_time: raw.upload_time,
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

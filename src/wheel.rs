//! The served pipeline as a wheel: the project's package with what training learned, `from churn import Model; Model().predict(rows)`.
//!
//! Takes what the image's code and values layers are made of; gives a tree that a zip is written from, the same bytes for the same
//! project. The generated part is `<package>/_mlrails/`; the project's own files are as they are, but for one line at the end of the
//! package's `__init__.py`. It needs no network and runs no Python.
//!
//! Source: the "Binary distribution format" and "Core metadata" specifications (PEP 427, 566), pip's requirements files for the bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};

use crate::digest::{Digest, Hasher};
use crate::lock::{Package, Source};
use crate::project::files::ShippedFile;
use crate::project::source::Sources;
use crate::project::source::names::{self, Part};
use crate::python::record::{self, Row};
use crate::python::requirement::{Requirement, VersionOrUrl};
use crate::serving::runtime;
use crate::tree::{Node, PLAIN, Tree, TreeError};

/// The folder inside the package that is ours.
const OURS: &str = "_mlrails";
/// What of the runtime a library needs, files and folders: no server.
const RUNTIME: [&str; 15] = [
    "__init__.py",
    "__main__.py",
    "accelerate/",
    "batch/",
    "columns.py",
    "decode.py",
    "engines/",
    "flavours.py",
    "frame.py",
    "problem.py",
    "service.py",
    "settings.py",
    "tables.py",
    "values.py",
    "verify.py",
];
const MODEL: &str = include_str!("../templates/wheel/model.py");
const MAIN: &str = include_str!("../templates/wheel/main.py");
/// The extra that pins what the golden rows were seen with.
pub const EXTRA: &str = "locked";
/// What the decoder is made of.
const DECODER: &str = "msgspec";

/// Everything a wheel is made of.
pub struct Parts<'a> {
    pub name: &'a PackageName,
    /// As people write it.
    pub display_name: &'a str,
    pub version: &'a Version,
    pub summary: Option<&'a str>,
    pub requires_python: Option<&'a VersionSpecifiers>,
    /// The package's import name.
    pub module: &'a str,
    pub sources: &'a Sources,
    /// Files of the package that serving reaches, by path below the application's folder.
    pub shipped: &'a [ShippedFile],
    /// `app.py`, `service.json`, `openapi.json`.
    pub app: &'a BTreeMap<String, Vec<u8>>,
    /// The trained values, by file name below `artifacts/`.
    pub values: &'a Tree,
    /// Where they are in that tree.
    pub values_folder: &'a str,
    /// run.json as it ships: `verify` and each worker of a cluster answer its golden rows.
    pub run: Bytes,
    /// What the project declares.
    pub declared: &'a [Requirement],
    /// The production set, sorted by name.
    pub included: &'a [&'a Package],
}

#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    #[error("{path} defines `Model` already, which the wheel would add")]
    ModelTaken { path: PathBuf },
    #[error("{path} is there already, and the wheel would add it")]
    OursTaken { path: PathBuf },
    #[error("{path} is compiled for one platform, and a wheel of a project is for all")]
    Compiled { path: PathBuf },
    #[error("{path} lies outside of the package, and a wheel holds nothing else")]
    Outside { path: PathBuf },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// `churn-0.1.0-py3-none-any.whl`
pub fn file_name(parts: &Parts<'_>) -> String {
    format!("{}-py3-none-any.whl", stem(parts))
}

fn stem(parts: &Parts<'_>) -> String {
    format!("{}-{}", parts.name.as_dist_info_name(), parts.version)
}

/// The wheel's files, RECORD included.
pub fn tree(parts: &Parts<'_>) -> Result<Tree, WheelError> {
    let mut tree = Tree::new();
    let package = parts.module;
    let ours = format!("{package}/{OURS}");
    let init = format!("{package}/__init__.py");
    refuse_own_model(parts)?;
    let mut has_init = false;
    for file in parts.shipped {
        let path = file.path.to_string_lossy().into_owned();
        if !path.starts_with(&format!("{package}/")) {
            return Err(WheelError::Outside {
                path: file.path.clone(),
            });
        }
        if path.starts_with(&format!("{ours}/")) || path == format!("{ours}.py") {
            return Err(WheelError::OursTaken {
                path: file.path.clone(),
            });
        }
        if [".so", ".pyd", ".dylib"]
            .iter()
            .any(|suffix| path.ends_with(suffix))
        {
            return Err(WheelError::Compiled {
                path: file.path.clone(),
            });
        }
        let mut bytes = std::fs::read(&file.source).map_err(|source| WheelError::Read {
            path: file.path.clone(),
            source,
        })?;
        if path == init {
            has_init = true;
            add_import(&mut bytes, package);
        }
        tree.insert_file(&path, bytes, PLAIN)?;
    }
    if !has_init {
        let mut bytes = Vec::new();
        add_import(&mut bytes, package);
        tree.insert_file(&init, bytes, PLAIN)?;
    }
    for (path, text) in [("__init__.py", MODEL), ("__main__.py", MAIN)] {
        let text = text
            .replace("@PACKAGE@", package)
            .replace("@PROJECT@", parts.display_name);
        tree.insert_file(&format!("{ours}/{path}"), text.into_bytes(), PLAIN)?;
    }
    for (path, bytes) in parts.app {
        let bytes = match path.ends_with(".py") {
            true => vendored(&String::from_utf8_lossy(bytes), package).into_bytes(),
            false => bytes.clone(),
        };
        tree.insert_file(&format!("{ours}/{path}"), bytes, PLAIN)?;
    }
    for (path, text) in runtime::FILES {
        if let Some(name) = path.strip_prefix("mlrails_runtime/").filter(|name| {
            RUNTIME
                .iter()
                .any(|part| name == part || part.ends_with('/') && name.starts_with(part))
        }) {
            let text = vendored(text, package);
            tree.insert_file(&format!("{ours}/runtime/{name}"), text.into_bytes(), PLAIN)?;
        }
    }
    for (path, node) in parts.values.iter() {
        let inner = path
            .strip_prefix(parts.values_folder)
            .and_then(|rest| rest.strip_prefix('/'));
        if let (Some(inner), Node::File { source, .. }) = (inner, node) {
            tree.insert_file(&format!("{ours}/artifacts/{inner}"), source.clone(), PLAIN)?;
        }
    }
    tree.insert_file(&format!("{ours}/artifacts/run.json"), parts.run.clone(), PLAIN)?;
    let info = format!("{}.dist-info", stem(parts));
    tree.insert_file(&format!("{info}/METADATA"), metadata(parts).into_bytes(), PLAIN)?;
    let wheel = format!(
        "Wheel-Version: 1.0\nGenerator: mlrails ({})\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        env!("CARGO_PKG_VERSION")
    );
    tree.insert_file(&format!("{info}/WHEEL"), wheel.into_bytes(), PLAIN)?;
    let record = format!("{info}/RECORD");
    let rows = rows(&tree, &record)?;
    tree.insert_file(&record, record::write(&rows).into_bytes(), PLAIN)?;
    Ok(tree)
}

/// A project whose package has a `Model` of its own keeps it: two of one name would be a surprise for somebody.
fn refuse_own_model(parts: &Parts<'_>) -> Result<(), WheelError> {
    let Some(init) = parts.sources.get(parts.module) else {
        return Ok(());
    };
    let taken = init
        .body()
        .iter()
        .any(|statement| names::uses(init, statement, Part::Whole).binds.contains("Model"));
    match taken {
        true => Err(WheelError::ModelTaken {
            path: init.path().to_owned(),
        }),
        false => Ok(()),
    }
}

fn add_import(init: &mut Vec<u8>, package: &str) {
    if !init.is_empty() && !init.ends_with(b"\n") {
        init.push(b'\n');
    }
    let line = format!("from {package}.{OURS} import Model  # noqa: E402, F401  (added by mlrails wheel)\n");
    init.extend(line.into_bytes());
}

/// The runtime under the package's own name: two wheels in one environment must not share files.
fn vendored(text: &str, package: &str) -> String {
    text.replace("mlrails_runtime", &format!("{package}.{OURS}.runtime"))
}

fn rows(tree: &Tree, record: &str) -> Result<Vec<Row>, WheelError> {
    let mut rows = Vec::new();
    for (path, node) in tree.iter() {
        let Node::File { source, .. } = node else {
            continue;
        };
        let mut hasher = Hasher::new();
        source.pieces(&mut |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        rows.push(Row {
            path: path.to_owned(),
            digest: Some(hasher.finish()),
            size: Some(source.size()),
        });
    }
    rows.push(Row {
        path: record.to_owned(),
        digest: None,
        size: None,
    });
    Ok(rows)
}

/// METADATA: what serving needs as the project declares it, and, as the extra `locked`, the versions that the lock has.
fn metadata(parts: &Parts<'_>) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
        one_line(parts.display_name),
        parts.version
    );
    if let Some(summary) = parts.summary {
        let _ = writeln!(text, "Summary: {}", one_line(summary));
    }
    if let Some(requires) = parts.requires_python {
        let _ = writeln!(text, "Requires-Python: {requires}");
    }
    let reached: BTreeSet<&PackageName> = parts.included.iter().map(|package| &package.name).collect();
    let declared = parts
        .declared
        .iter()
        .filter(|requirement| reached.contains(&requirement.name));
    let mut needed: Vec<String> = declared.map(without_credentials).collect();
    needed.extend(decoder().into_iter().map(str::to_owned));
    needed.sort();
    needed.dedup();
    for requirement in needed {
        let _ = writeln!(text, "Requires-Dist: {requirement}");
    }
    let _ = writeln!(text, "Provides-Extra: {EXTRA}");
    for package in parts.included {
        if let (Some(version), Source::Files { .. }) = (&package.version, &package.source) {
            let _ = writeln!(
                text,
                "Requires-Dist: {}=={version}; extra == \"{EXTRA}\"",
                package.name
            );
        }
    }
    text
}

fn without_credentials(requirement: &Requirement) -> String {
    let mut requirement = requirement.clone();
    if let Some(VersionOrUrl::Url(url)) = &mut requirement.version_or_url {
        // Neither fails on a URL that has a host; one without has no credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    requirement.to_string()
}

/// What the vendored runtime imports, as requirements.
pub fn decoder() -> Vec<&'static str> {
    let requirements = runtime::REQUIREMENTS.iter().copied();
    requirements.filter(|text| text.starts_with(DECODER)).collect()
}

/// A requirements file that installs the wheel beside it with exactly the locked versions: every line with its hashes, which is what
/// makes pip check all of them.
pub fn requirements(parts: &Parts<'_>, wheel: &Digest) -> String {
    let mut text = String::from("# In the folder of this file: pip install --no-deps -r requirements.txt\n");
    let _ = writeln!(text, "./{} --hash=sha256:{}", file_name(parts), wheel.hex());
    for package in parts.included {
        let (Some(version), Source::Files { sdist, wheels }) = (&package.version, &package.source) else {
            continue;
        };
        let _ = write!(text, "{}=={version}", package.name);
        let mut hashes: Vec<String> = wheels.iter().chain(sdist).map(|file| file.digest.hex()).collect();
        hashes.sort();
        hashes.dedup();
        for hash in hashes {
            let _ = write!(text, " \\\n    --hash=sha256:{hash}");
        }
        text.push('\n');
    }
    text
}

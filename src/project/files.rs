//! The files of the package: which there are, which ship, and which are left out and why.
//!
//! Walks folders without following links and without recursion, within limits. What would be wrong in an image is a mistake here: a
//! link that leads out, a FIFO, a name that layers reserve.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mistake::{Mistake, Rule};
use super::reading::locate;
use super::source::module_name;
use crate::regular;

/// What one package may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub files: usize,
    pub depth: usize,
    /// Bytes of all files together, as they claim to be: a sparse file counts in full.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            files: 100_000,
            depth: 64,
            bytes: 64 << 30,
        }
    }
}

/// One file that may ship.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShippedFile {
    /// Where it goes, relative to the application's folder: `churn/regions.csv`.
    pub path: PathBuf,
    /// Where it is; a link's target.
    pub source: PathBuf,
    pub size: u64,
    pub executable: bool,
    /// The module that it is, if it is one that an import can reach.
    pub module: Option<String>,
}

/// One file or folder that does not ship.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Relative to the project's folder.
    pub path: PathBuf,
    pub reason: String,
}

/// What was found in the package's folder, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    pub found: Vec<ShippedFile>,
    pub left_out: Vec<LeftOut>,
}

/// Lists `folder` of the project at `root`; files go to `destination` in the application's folder.
pub fn list(
    root: &Path,
    folder: &Path,
    destination: &Path,
    package: Option<&str>,
    limits: Limits,
    mistakes: &mut Vec<Mistake>,
) -> Files {
    let mut files = Files::default();
    let mut bytes = 0u64;
    let mut pending = vec![(PathBuf::new(), 0usize)];
    while let Some((inner, depth)) = pending.pop() {
        let relative = folder.join(&inner);
        if depth > limits.depth {
            let rule = Rule::TooDeep {
                path: folder.join(inner.components().take(3).collect::<PathBuf>()),
                limit: limits.depth,
            };
            mistakes.push(Mistake::new(rule));
            return files;
        }
        let entries = match std::fs::read_dir(root.join(&relative)) {
            Ok(entries) => entries,
            Err(error) => {
                mistakes.push(unreadable(&relative, &error));
                continue;
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => mistakes.push(unreadable(&relative, &error)),
            }
            if names.len() + files.found.len() > limits.files {
                mistakes.push(Mistake::new(Rule::TooManyFiles { limit: limits.files }));
                return files;
            }
        }
        for name in names {
            let inner = inner.join(&name);
            let path = folder.join(&inner);
            let Some(text) = name
                .to_str()
                .filter(|name| !name.contains(|c: char| c.is_control() || c == '\\'))
            else {
                let path = path.to_string_lossy().escape_debug().to_string();
                mistakes.push(Mistake::new(Rule::FileName { path }));
                continue;
            };
            // OCI image-spec, "Whiteouts": a name that deletes what lies below.
            if text.starts_with(".wh.") {
                mistakes.push(Mistake::new(Rule::ReservedFileName { path }));
                continue;
            }
            if let Some(reason) = left_out(&name) {
                let reason = reason.to_owned();
                files.left_out.push(LeftOut { path, reason });
                continue;
            }
            let status = match std::fs::symlink_metadata(root.join(&path)) {
                Ok(status) => status,
                Err(error) => {
                    mistakes.push(unreadable(&path, &error));
                    continue;
                }
            };
            match status.file_type() {
                kind if kind.is_dir() => pending.push((inner, depth + 1)),
                kind if kind.is_file() || kind.is_symlink() => {
                    let found = file(root, &path, destination.join(&inner), &mut files.left_out);
                    match found {
                        Ok(Some(mut found)) => {
                            bytes = bytes.saturating_add(found.size);
                            if bytes > limits.bytes {
                                let rule = Rule::TooLarge {
                                    path,
                                    size: found.size,
                                    limit: limits.bytes,
                                };
                                mistakes.push(Mistake::new(rule));
                                return files;
                            }
                            if inner.extension().is_some_and(|extension| extension == "py") {
                                found.module = package
                                    .and_then(|package| module_name(package, &inner))
                                    .map(|(name, _)| name);
                            }
                            files.found.push(found);
                        }
                        Ok(None) => {}
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
                kind => {
                    let kind = regular::kind(kind).to_owned();
                    mistakes.push(Mistake::new(Rule::NotAFile { path, kind }));
                }
            }
        }
    }
    files.found.sort_by(|one, other| one.path.cmp(&other.path));
    files.left_out.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// The one file of a project whose code is a module and no package, at `path`; it goes to the application's folder.
pub fn module(root: &Path, path: &Path, module: &str, mistakes: &mut Vec<Mistake>) -> Files {
    let mut files = Files::default();
    let name = PathBuf::from(format!("{module}.py"));
    match file(root, path, name, &mut files.left_out) {
        Ok(found) => files.found.extend(found.map(|found| ShippedFile {
            module: Some(module.to_owned()),
            ..found
        })),
        Err(mistake) => mistakes.push(mistake),
    }
    files
}

/// One file of the project by its path; it goes to the same path in the application's folder. `None` if it is not there, or must not ship.
pub fn one(root: &Path, path: &Path, left: &mut Vec<LeftOut>) -> Result<Option<ShippedFile>, Mistake> {
    if let Some(reason) = path.iter().find_map(left_out) {
        left.push(LeftOut {
            path: path.to_path_buf(),
            reason: reason.to_owned(),
        });
        return Ok(None);
    }
    file(root, path, path.to_path_buf(), left)
}

fn file(
    root: &Path,
    path: &Path,
    destination: PathBuf,
    left: &mut Vec<LeftOut>,
) -> Result<Option<ShippedFile>, Mistake> {
    let Some(source) = locate(root, path)? else {
        return Ok(None);
    };
    // A link may have a harmless name and lead to a secret.
    let target = source.strip_prefix(root).unwrap_or(&source);
    if let Some(reason) = target.iter().find_map(left_out) {
        left.push(LeftOut {
            path: path.to_path_buf(),
            reason: format!("a link to {}: {reason}", target.display()),
        });
        return Ok(None);
    }
    let status = std::fs::metadata(&source).map_err(|error| unreadable(path, &error))?;
    Ok(Some(ShippedFile {
        path: destination,
        source,
        size: status.len(),
        executable: status.mode() & 0o111 != 0,
        module: None,
    }))
}

/// Why a file or folder of this name never ships.
fn left_out(name: &OsStr) -> Option<&'static str> {
    let name = name.to_str()?;
    let secret = [
        ".netrc",
        "_netrc",
        ".pypirc",
        ".npmrc",
        ".htpasswd",
        ".pgpass",
        ".my.cnf",
        ".git-credentials",
        ".aws",
        ".ssh",
        ".gnupg",
        ".kube",
        ".docker",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
    ];
    let history = [".git", ".hg", ".svn", ".bzr"];
    let made = [
        "__pycache__",
        ".venv",
        ".mlrails",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
        ".DS_Store",
    ];
    if secret.contains(&name)
        || name == ".env"
        || name == ".envrc"
        || name.starts_with(".env.")
        || name.ends_with(".p12")
        || name.ends_with(".pfx")
    {
        Some("it usually holds a secret")
    } else if history.contains(&name) || name == ".gitignore" || name == ".gitattributes" {
        Some("it belongs to version control")
    } else if made.contains(&name) || name.ends_with(".pyc") || name.ends_with(".pyo") {
        Some("it is made again where it is needed")
    } else {
        None
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Mistake {
    Mistake::new(Rule::Unreadable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

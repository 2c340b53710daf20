//! Source code as it arrives: an archive or a folder, unpacked where a build may do with it what it likes, or only looked into.
//!
//! Whatever an archive holds, nothing is written outside of the folder it is given; what breaks a rule is refused with the archive, the
//! entry and the rule, by whoever reads it: an archive that is looked into is read by the same rules as one that is unpacked. A folder
//! of the user's is read without following links out of it, and left as it is.
//!
//! Source: the "Source distribution format" specification (PEP 517, 625, 721), which allows a gzip-compressed tar; a zip is what
//! older uploads have.

pub mod folder;
mod tarball;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::python::archive::{self, Member};
use crate::python::wheel::{self, Entry};
use crate::regular::{self, Bounded};

pub use folder::shown;
use folder::{Content, Fault, Filled, SafeFolder};

/// What an archive may unpack to, whatever its size, in bytes.
const FREE: u64 = 256 << 20;
/// It may also grow to this many times its size: text shrinks to a tenth, tables of numbers to a fiftieth.
const RATIO: u64 = 100;
/// And in no case beyond.
const MOST: u64 = 16 << 30;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the source archive {file} is refused: entry `{entry}`: {rule}")]
    Entry {
        file: String,
        entry: String,
        rule: String,
    },
    #[error("the source archive {file} is refused: {rule}")]
    Refused { file: String, rule: String },
    #[error("the source folder {folder} is refused: `{entry}`: {rule}")]
    Folder {
        folder: String,
        entry: String,
        rule: String,
    },
    #[error("cannot read {path}")]
    Read { path: String, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
}

impl SourceError {
    /// Whether it is what was read that is wrong, and not this machine.
    pub fn is_refused(&self) -> bool {
        matches!(
            self,
            Self::Entry { .. } | Self::Refused { .. } | Self::Folder { .. }
        )
    }
}

/// Source code that is there to be built.
#[derive(Debug)]
pub struct Unpacked {
    /// The folder with the project, absolute and real.
    pub root: PathBuf,
    /// Of all of it: equal trees have equal digests.
    pub content: Digest,
}

/// Unpacks the archive `file_name` into the empty folder `into`.
pub fn unpack(file_name: &str, archive: &File, into: &Path) -> Result<Unpacked, SourceError> {
    let filled = read(file_name, archive, |limit| SafeFolder::new(into, limit))?;
    Ok(Unpacked {
        root: real(&into.join(filled.top.unwrap_or_default()))?,
        content: filled.content,
    })
}

/// The texts of an archive that say what it is, as far as it has them.
#[derive(Debug, Default)]
pub struct Texts {
    pub pkg_info: Option<Vec<u8>>,
    pub pyproject: Option<Vec<u8>>,
}

/// Reads all of the archive `file_name` by the rules of [`unpack`], and writes nothing.
pub fn look(file_name: &str, archive: &File) -> Result<Texts, SourceError> {
    let names = ["PKG-INFO", "pyproject.toml"];
    let filled = read(file_name, archive, |limit| SafeFolder::nowhere(limit, &names))?;
    let top = filled.top.unwrap_or_default();
    let mut kept = filled.kept;
    Ok(Texts {
        pkg_info: kept.remove(&format!("{top}/PKG-INFO")),
        pyproject: kept.remove(&format!("{top}/pyproject.toml")),
    })
}

/// What is filled has one folder at its top.
fn read(
    file_name: &str,
    archive: &File,
    folder: impl FnOnce(u64) -> SafeFolder,
) -> Result<Filled, SourceError> {
    let refused = |rule: &str| SourceError::Refused {
        file: file_name.to_owned(),
        rule: rule.to_owned(),
    };
    let size = archive
        .metadata()
        .map_err(|source| SourceError::Read {
            path: file_name.to_owned(),
            source,
        })?
        .len();
    let limit = MOST.min(FREE.saturating_add(size.saturating_mul(RATIO)));
    let mut folder = folder(limit);
    let done = if file_name.ends_with(".tar.gz") || file_name.ends_with(".tgz") {
        gzip(archive, limit, &mut folder)
    } else if file_name.ends_with(".zip") {
        zip(archive, &mut folder)
    } else {
        return Err(refused("it is neither a .tar.gz nor a .zip"));
    };
    let told = |(entry, fault): tarball::Refusal| match (entry, fault) {
        (_, Fault::Write { path, source }) => SourceError::Write { path, source },
        (Some(entry), Fault::Rule(rule)) => SourceError::Entry {
            file: file_name.to_owned(),
            entry: shown(&entry),
            rule,
        },
        (None, Fault::Rule(rule)) => refused(&rule),
        (Some(entry), Fault::Read(error)) => SourceError::Entry {
            file: file_name.to_owned(),
            entry: shown(&entry),
            rule: format!("its content cannot be read: {error}"),
        },
        (None, Fault::Read(error)) => refused(&format!("it cannot be read: {error}")),
    };
    done.map_err(told)?;
    let filled = folder
        .finish()
        .map_err(|(entry, fault)| told((Some(entry), fault)))?;
    match filled.top {
        Some(_) => Ok(filled),
        None => Err(refused("its files are not in one folder of its own")),
    }
}

fn real(path: &Path) -> Result<PathBuf, SourceError> {
    path.canonicalize().map_err(|source| SourceError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn gzip(archive: &File, limit: u64, folder: &mut SafeFolder) -> Result<(), tarball::Refusal> {
    // Every member of the gzip file: readers that stop after the first would see another archive.
    let decoder = flate2::read::MultiGzDecoder::new(BufReader::with_capacity(256 << 10, archive));
    // Headers and padding come to what is unpacked.
    let most = limit.saturating_add(FREE);
    let mut bounded = Bounded::new(decoder, most, "it grows beyond what a source archive may");
    tarball::read(&mut bounded, folder)
}

fn zip(file: &File, folder: &mut SafeFolder) -> Result<(), tarball::Refusal> {
    let rule = |rule: String| (None, Fault::Rule(rule));
    for member in archive::members(file).map_err(|error| rule(error.to_string()))? {
        let refuse = |fault: Fault| (Some(member.name.clone()), fault);
        let (name, is_folder) = match member.name.strip_suffix('/') {
            Some(name) => (name, true),
            None => (member.name.as_str(), false),
        };
        match (member.mode & 0o170_000, is_folder) {
            (0, _) | (0o100_000, false) | (0o040_000, true) => {}
            (0o120_000, _) => return Err(refuse("it is a symbolic link".into())),
            _ => return Err(refuse("it is neither a file nor a folder".into())),
        }
        if is_folder {
            if member.size > 0 {
                return Err(refuse("it is a folder and has content".into()));
            }
            folder.folder(name).map_err(refuse)?;
            continue;
        }
        let bytes = member_content(file, &member).map_err(refuse)?;
        let content = Content {
            size: bytes.len() as u64,
            executable: member.mode & 0o111 != 0,
            // 1980, where the clock of zip files begins: all the same, so that nothing seems newer.
            modified: 315_532_800,
            reader: &mut &bytes[..],
        };
        folder.file(name, content).map_err(refuse)?;
    }
    Ok(())
}

/// One file of a zip is held in memory: these archives are old, and small.
const LARGEST_MEMBER: u64 = 1 << 30;

fn member_content(file: &File, member: &Member) -> Result<Vec<u8>, Fault> {
    if member.size > LARGEST_MEMBER {
        return Err("it is larger than 1 GB".into());
    }
    let entry = Entry {
        name: member.name.clone(),
        method: member.method,
        crc32: member.crc32,
        compressed_size: member.compressed_size,
        size: member.size,
        data_offset: member.data_offset,
        executable: false,
        digest: None,
    };
    let mut bytes = Vec::new();
    wheel::read_entry(file, &entry, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .map_err(|error| Fault::Rule(error.to_string()))?;
    Ok(bytes)
}

/// What a copy of a project leaves out: none of it is source code, and some of it is large or secret.
const LEFT_OUT: [&str; 10] = [
    ".git",
    ".hg",
    ".svn",
    ".venv",
    ".mlrails",
    ".tox",
    ".nox",
    "__pycache__",
    "node_modules",
    ".netrc",
];

/// Copies the folder `from` into the empty folder `into`.
pub fn copy(from: &Path, into: &Path) -> Result<Unpacked, SourceError> {
    let from = real(from)?;
    let mut folder = SafeFolder::new(into, MOST);
    let refuse = |entry: &str, rule: String| SourceError::Folder {
        folder: from.display().to_string(),
        entry: shown(entry),
        rule,
    };
    let told = |entry: &str, fault: Fault| match fault {
        Fault::Rule(rule) => refuse(entry, rule),
        Fault::Read(source) => SourceError::Read {
            path: from.join(entry).display().to_string(),
            source,
        },
        Fault::Write { path, source } => SourceError::Write { path, source },
    };
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let here = from.join(&below);
        let read = |source| SourceError::Read {
            path: here.display().to_string(),
            source,
        };
        for found in fs::read_dir(&here).map_err(read)? {
            let found = found.map_err(read)?;
            let name = found
                .file_name()
                .into_string()
                .map_err(|name| refuse(&name.to_string_lossy(), "its name is not UTF-8".to_owned()))?;
            if LEFT_OUT.contains(&name.as_str()) {
                continue;
            }
            let path = match below.as_str() {
                "" => name,
                below => format!("{below}/{name}"),
            };
            let status = found.metadata().map_err(read)?;
            let done = if status.is_dir() {
                folders.push(path.clone());
                folder.folder(&path)
            } else if status.is_symlink() {
                let target = fs::read_link(found.path()).map_err(read)?;
                folder.link(&path, &target.to_string_lossy())
            } else if status.is_file() {
                let mut file =
                    regular::open(&found.path()).map_err(|irregular| refuse(&path, irregular.to_string()))?;
                let content = Content {
                    size: status.len(),
                    executable: status.permissions().mode() & 0o111 != 0,
                    modified: u64::try_from(status.mtime()).unwrap_or(0),
                    reader: &mut file,
                };
                folder.file(&path, content)
            } else {
                Err(Fault::Rule(format!(
                    "it is {}",
                    regular::kind(status.file_type())
                )))
            };
            done.map_err(|fault| told(&path, fault))?;
        }
    }
    let Filled { content, .. } = folder.finish().map_err(|(entry, fault)| told(&entry, fault))?;
    Ok(Unpacked {
        root: real(into)?,
        content,
    })
}

//! A wheel, validated once: the one type that everything after it trusts.
//!
//! It takes a file name, its digest and random access to its bytes; what comes out has only names that stay inside an
//! installation, a RECORD that lists every file and no other, and scripts that are what they seem. Content is checked
//! when it is read ([`read_entry`], `layers::splice`): CRC, size and RECORD's digest in the one pass that inflates it. The
//! value is plain data, kept in the store under the wheel's digest, so that the second use parses nothing.
//!
//! Sources: the "Binary distribution format" and "Entry points" specifications (PEP 427), hostile archives as they were
//! met: CVE-2026-34591, -1703, -8643, -24049, CVE-2025-54368.

mod content;
pub(super) mod modules;

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uv_distribution_filename::WheelFilename;
use uv_normalize::PackageName;
use uv_pep440::Version;

use super::archive::{self, ArchiveError, Member, Method, ReadAt};
use super::entry_point;
use super::metadata::Metadata;
use super::record::{self, RecordError};
use crate::digest::Digest;
pub use content::{ContentCheck, ContentError, read_entry};
pub use modules::import_names;

/// A validated wheel. Its content is trusted only as far as `entries` can check it while it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wheel {
    pub file_name: String,
    pub name: PackageName,
    pub version: Version,
    /// Of the whole file.
    pub digest: Digest,
    /// Of the file, in bytes.
    pub size: u64,
    /// WHEEL's `Tag` lines.
    pub tags: Vec<String>,
    pub root_is_purelib: bool,
    /// `name-version.dist-info`, as the wheel spells it.
    pub dist_info: String,
    /// `name-version.data`, where there is one.
    pub data: Option<String>,
    /// Its files, in the order of their bytes in the archive. Folders are not listed.
    pub entries: Vec<Entry>,
    /// `[console_scripts]` and `[gui_scripts]`.
    pub scripts: Vec<Script>,
    /// Top-level import names, dotted where the top is a namespace (`google.cloud.storage`); sorted.
    pub imports: Vec<String>,
}

/// One file in a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative, `/`-separated, with no part that is empty, `.` or `..`.
    pub name: String,
    pub method: Method,
    pub crc32: u32,
    pub compressed_size: u64,
    /// Uncompressed, in bytes.
    pub size: u64,
    /// Where its compressed bytes start in the file.
    pub data_offset: u64,
    /// All that is kept of its mode.
    pub executable: bool,
    /// RECORD's digest of the content; RECORD and its signatures have none.
    pub digest: Option<Digest>,
}

/// A command that the wheel brings: `name` calls `attribute` of `module`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub name: String,
    pub module: String,
    /// Dotted.
    pub attribute: String,
}

#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    #[error("the wheel {wheel} is refused: {rule}")]
    Refused { wheel: String, rule: String },
    #[error("the wheel {wheel} is refused: entry `{entry}`: {rule}")]
    Entry {
        wheel: String,
        entry: String,
        rule: String,
    },
    #[error("the wheel {wheel} is refused")]
    Archive { wheel: String, source: ArchiveError },
    #[error("the wheel {wheel} is refused: {file}")]
    Record {
        wheel: String,
        file: String,
        source: RecordError,
    },
}

/// The largest RECORD or METADATA that is read, in bytes.
const LARGEST_METADATA: u64 = 64 << 20;

/// Validates the wheel `file_name`. Its digest is the caller's to have checked: it is only kept.
pub fn validate<S: ReadAt + ?Sized>(
    file_name: &str,
    digest: Digest,
    source: &S,
) -> Result<Wheel, WheelError> {
    let checks = Checks { wheel: file_name };
    let refused = |rule: &str| checks.refused(rule);
    let parsed = WheelFilename::from_str(file_name)
        .ok()
        .filter(|_| super::is_plain_file_name(file_name))
        .ok_or_else(|| refused("its file name is not that of a wheel"))?;
    let archive_error = |source| WheelError::Archive {
        wheel: file_name.to_owned(),
        source,
    };
    let members = archive::members(source).map_err(archive_error)?;
    let size = source
        .length()
        .map_err(|error| archive_error(ArchiveError::Read(error)))?;

    let mut entries = checks.entries(members)?;
    let (dist_info, data) = checks.folders(&entries, &parsed)?;
    let text_of = |name: &str| -> Result<Option<String>, WheelError> {
        let path = format!("{dist_info}/{name}");
        let Some(entry) = entries.iter().find(|entry| entry.name == path) else {
            return Ok(None);
        };
        if entry.size > LARGEST_METADATA {
            return Err(checks.entry(&path, "it is larger than 64 MiB"));
        }
        let mut bytes = Vec::with_capacity(entry.size as usize);
        read_entry(source, entry, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .map_err(|error| checks.entry(&path, &error.to_string()))?;
        // METADATA may be latin-1 in its description; what matters of these files is ASCII.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let needed = |name: &str| text_of(name)?.ok_or_else(|| refused(&format!("it has no {dist_info}/{name}")));

    let about = needed("WHEEL")?;
    let (root_is_purelib, tags) = checks.about(&about)?;
    let metadata = Metadata::parse(needed("METADATA")?.as_bytes())
        .map_err(|error| checks.entry(&format!("{dist_info}/METADATA"), &error.to_string()))?;
    if metadata.name != parsed.name || metadata.version != parsed.version {
        let rule = format!("it is for {} {}", metadata.name, metadata.version);
        return Err(checks.entry(&format!("{dist_info}/METADATA"), &rule));
    }
    let scripts = match text_of("entry_points.txt")? {
        Some(text) => checks.scripts(&format!("{dist_info}/entry_points.txt"), &text)?,
        None => Vec::new(),
    };
    let rows = needed("RECORD")?;
    let rows = record::parse(&rows).map_err(|source| WheelError::Record {
        wheel: file_name.to_owned(),
        file: format!("{dist_info}/RECORD"),
        source,
    })?;
    checks.record(&dist_info, rows, &mut entries)?;

    let imports = import_names(
        entries
            .iter()
            .filter_map(|entry| module_path(&entry.name, &dist_info, data.as_deref())),
    );
    Ok(Wheel {
        file_name: file_name.to_owned(),
        name: parsed.name,
        version: parsed.version,
        digest,
        size,
        tags,
        root_is_purelib,
        dist_info,
        data,
        entries,
        scripts,
        imports,
    })
}

/// Where a wheel's file is below site-packages; `None` if it is not installed there, or is metadata.
fn module_path<'a>(name: &'a str, dist_info: &str, data: Option<&str>) -> Option<&'a str> {
    let first = name.split('/').next()?;
    if first == dist_info {
        return None;
    }
    if Some(first) != data {
        return Some(name);
    }
    let below = &name[first.len() + 1..];
    below
        .strip_prefix("purelib/")
        .or_else(|| below.strip_prefix("platlib/"))
}

/// The wheel's name, for errors, and the rules.
struct Checks<'a> {
    wheel: &'a str,
}

impl Checks<'_> {
    fn refused(&self, rule: &str) -> WheelError {
        WheelError::Refused {
            wheel: archive::shown(self.wheel.as_bytes()),
            rule: rule.to_owned(),
        }
    }

    fn entry(&self, entry: &str, rule: &str) -> WheelError {
        WheelError::Entry {
            wheel: self.wheel.to_owned(),
            entry: archive::shown(entry.as_bytes()),
            rule: rule.to_owned(),
        }
    }

    /// Files with names that can be installed; folders are dropped, and a repeated equal file once.
    fn entries(&self, members: Vec<Member>) -> Result<Vec<Entry>, WheelError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(members.len());
        let mut files = HashSet::with_capacity(members.len());
        for member in members {
            let refuse = |rule| self.entry(&member.name, rule);
            let (name, is_folder) = match member.name.strip_suffix('/') {
                Some(name) => (name, true),
                None => (member.name.as_str(), false),
            };
            check_name(name).map_err(refuse)?;
            // Only the kind and one bit of the mode are looked at: setuid and the like go no further than here.
            match (member.mode & 0o170_000, is_folder) {
                (0, _) | (0o100_000, false) | (0o040_000, true) => {}
                (0o120_000, _) => return Err(refuse("it is a symbolic link")),
                _ => return Err(refuse("it is not a regular file")),
            }
            if is_folder {
                if member.size != 0 {
                    return Err(refuse("it is a folder with content"));
                }
                continue;
            }
            // `archive::members` has compared the two: they are equal.
            if !files.insert(member.name.clone()) {
                continue;
            }
            entries.push(Entry {
                name: member.name,
                method: member.method,
                crc32: member.crc32,
                compressed_size: member.compressed_size,
                size: member.size,
                data_offset: member.data_offset,
                executable: member.mode & 0o111 != 0,
                digest: None,
            });
        }
        for entry in &entries {
            let mut folders = entry.name.match_indices('/');
            if folders.any(|(at, _)| files.contains(&entry.name[..at])) {
                return Err(self.entry(&entry.name, "a folder above it is a file as well"));
            }
        }
        Ok(entries)
    }

    /// The `.dist-info` and `.data` folders, which must be this wheel's.
    fn folders(
        &self,
        entries: &[Entry],
        parsed: &WheelFilename,
    ) -> Result<(String, Option<String>), WheelError> {
        let mut found: HashMap<&str, &str> = HashMap::new();
        for entry in entries {
            let Some((first, _)) = entry.name.split_once('/') else {
                continue;
            };
            for kind in [".dist-info", ".data"] {
                let Some(stem) = first.strip_suffix(kind) else {
                    continue;
                };
                let own = stem.split_once('-').is_some_and(|(name, version)| {
                    PackageName::from_str(name).is_ok_and(|name| name == parsed.name)
                        && Version::from_str(version).is_ok_and(|version| version == parsed.version)
                });
                if !own {
                    // A package may well be called `some.data`; a `.dist-info` is never somebody else's.
                    if kind == ".dist-info" {
                        return Err(
                            self.entry(&entry.name, "it is in the .dist-info folder of something else")
                        );
                    }
                    continue;
                }
                if *found.entry(kind).or_insert(first) != first {
                    return Err(self.entry(&entry.name, "it is in a second folder of metadata"));
                }
                if kind == ".data" {
                    let scheme = entry.name[first.len() + 1..].split_once('/');
                    if !scheme.is_some_and(|(scheme, _)| SCHEMES.contains(&scheme)) {
                        return Err(self.entry(&entry.name, "no installation has a place for it"));
                    }
                }
            }
        }
        let dist_info = found.get(".dist-info");
        let dist_info = dist_info.ok_or_else(|| self.refused("it has no .dist-info folder"))?;
        Ok((
            (*dist_info).to_owned(),
            found.get(".data").map(|name| (*name).to_owned()),
        ))
    }

    /// WHEEL: whether the root is purelib, and the tags.
    fn about(&self, text: &str) -> Result<(bool, Vec<String>), WheelError> {
        let values = |wanted: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim().to_owned())
                .collect()
        };
        let versions = values("Wheel-Version");
        let [version] = &versions[..] else {
            return Err(self.refused("its WHEEL file does not have one Wheel-Version"));
        };
        // "A wheel installer should fail if Wheel-Version has a greater major version."
        if version.split('.').next() != Some("1") {
            return Err(self.refused(&format!("its Wheel-Version {version} is not known")));
        }
        let purelib = values("Root-Is-Purelib");
        let root_is_purelib = match purelib.first().map(|value| value.to_ascii_lowercase()).as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => return Err(self.refused("its WHEEL file does not say whether Root-Is-Purelib")),
        };
        Ok((root_is_purelib, values("Tag")))
    }

    /// `[console_scripts]` and `[gui_scripts]`: each becomes a file of that name, with that import in it.
    fn scripts(&self, file: &str, text: &str) -> Result<Vec<Script>, WheelError> {
        let mut scripts: Vec<Script> = Vec::new();
        let mut section = "";
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim();
                continue;
            }
            if !matches!(section, "console_scripts" | "gui_scripts") {
                continue;
            }
            let refuse = |rule: &str| {
                self.entry(
                    file,
                    &format!("the script `{}` {rule}", archive::shown(line.as_bytes())),
                )
            };
            let (name, value) = line.split_once('=').ok_or_else(|| refuse("has no `=`"))?;
            let (name, value) = (name.trim(), value.trim());
            if !value.contains(':') {
                return Err(refuse("does not name a function"));
            }
            entry_point::check_name(name, true).map_err(refuse)?;
            let (module, attribute) = entry_point::script(value)
                .ok_or_else(|| refuse("is not of the form `name = package.module:function`"))?;
            if scripts.iter().any(|other| other.name == name) {
                return Err(refuse("is there twice"));
            }
            scripts.push(Script {
                name: name.to_owned(),
                module: module.to_owned(),
                attribute: attribute.to_owned(),
            });
        }
        Ok(scripts)
    }

    /// RECORD lists every file and no other; its digests and sizes go to the entries.
    fn record(
        &self,
        dist_info: &str,
        rows: Vec<record::Row>,
        entries: &mut [Entry],
    ) -> Result<(), WheelError> {
        let record_path = format!("{dist_info}/RECORD");
        let mut by_name: HashMap<String, record::Row> = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Err(rule) = check_name(&row.path) {
                let path = archive::shown(row.path.as_bytes());
                return Err(self.entry(&record_path, &format!("the row `{path}`: {rule}")));
            }
            match by_name.get(&row.path) {
                Some(other) if *other != row => {
                    return Err(self.entry(&row.path, "RECORD has it twice, differently"));
                }
                _ => by_name.insert(row.path.clone(), row),
            };
        }
        for entry in entries {
            let unsigned = entry
                .name
                .strip_prefix(&record_path)
                .is_some_and(|rest| matches!(rest, "" | ".jws" | ".p7s"));
            let row = by_name.remove(&entry.name);
            if unsigned {
                continue;
            }
            let row = row.ok_or_else(|| self.entry(&entry.name, "RECORD does not list it"))?;
            let digest = row
                .digest
                .ok_or_else(|| self.entry(&entry.name, "RECORD has no sha256 of it"))?;
            if row.size.is_some_and(|size| size != entry.size) {
                return Err(self.entry(&entry.name, "its size is not what RECORD says"));
            }
            entry.digest = Some(digest);
        }
        // RECORD may list itself and signatures that were taken out again.
        by_name.retain(|name, _| !name.starts_with(&record_path));
        match by_name.into_keys().min() {
            Some(extra) => Err(self.entry(&record_path, &format!("it lists `{extra}`, which is not there"))),
            None => Ok(()),
        }
    }
}

/// The places that a wheel's `.data` folder may speak of (PEP 427).
pub const SCHEMES: [&str; 5] = ["purelib", "platlib", "scripts", "headers", "data"];

/// Why `name` cannot be a file below a folder.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains('\\') {
        return Err("a backslash in a name means another place on Windows");
    }
    if name.starts_with('/') {
        return Err("it is an absolute path");
    }
    if name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic() {
        return Err("it starts with a drive");
    }
    if name.chars().any(char::is_control) {
        return Err("a control character is in its name");
    }
    for part in name.split('/') {
        match part {
            "" => return Err("a part of its name is empty"),
            "." | ".." => return Err("`.` or `..` in a name leads elsewhere"),
            _ if part.len() > 255 => return Err("a part of its name is longer than 255 bytes"),
            _ if part.starts_with(".wh.") => return Err("`.wh.` marks deleted files in a layer"),
            _ => {}
        }
    }
    Ok(())
}

impl Wheel {
    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The whole content of a file of `.dist-info` (`METADATA`), checked; `None` if there is none.
    pub fn metadata_file<S: ReadAt + ?Sized>(
        &self,
        source: &S,
        name: &str,
    ) -> Result<Option<Vec<u8>>, WheelError> {
        let path = format!("{}/{name}", self.dist_info);
        self.entry(&path)
            .map(|entry| self.read(source, entry))
            .transpose()
    }

    /// The whole content of one entry, checked. For small ones.
    pub fn read<S: ReadAt + ?Sized>(&self, source: &S, entry: &Entry) -> Result<Vec<u8>, WheelError> {
        let mut bytes = Vec::new();
        read_entry(source, entry, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .map_err(|error| {
            Checks {
                wheel: &self.file_name,
            }
            .entry(&entry.name, &error.to_string())
        })?;
        Ok(bytes)
    }

    /// Uncompressed, in bytes.
    pub fn expanded_size(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// `name version`, as people read it.
    pub fn label(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

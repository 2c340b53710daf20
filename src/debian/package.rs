//! A `.deb` taken apart: strict about its shape, and nothing of it is trusted to be harmless.
//!
//! It takes the bytes of one package, already verified by digest, and gives its control file, its checksums and its files in
//! memory. It does not decide which of them an image gets. Maintainer scripts are never looked at.
//!
//! Devices, FIFOs and sparse files are refused; set-uid, set-gid and sticky bits of files are dropped; owners are ignored.
//! A path is relative, clean and below the root; what links point to is kept as it is, for inside the image it can only
//! point into the image.
//!
//! Source: deb(5); the `ar` format as dpkg reads it; POSIX ustar and its GNU extensions.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;

use super::archive::XZ_MEMORY_KIB;
use crate::regular::Bounded;

/// The largest control archive, uncompressed, in bytes.
const CONTROL_LIMIT: u64 = 32 << 20;
/// The largest data archive, uncompressed, in bytes; a package of the base has 13 MB.
const DATA_LIMIT: u64 = 4 << 30;
/// Beyond this, a data archive may be this many times larger than the package: xz packs zeros 7,000 to 1.
const DATA_FREE: u64 = 64 << 20;
const DATA_RATIO: u64 = 60;
const MOST_ENTRIES: usize = 200_000;

#[derive(Debug, thiserror::Error)]
#[error("the package {package} is not one that can be used{}: {rule}", entry.as_deref().map(|entry| format!(" (entry `{entry}`)")).unwrap_or_default())]
pub struct PackageError {
    pub package: String,
    pub entry: Option<String>,
    pub rule: String,
}

/// A package in memory.
#[derive(Debug, Clone)]
pub struct Package {
    /// The control file's text.
    pub control: String,
    /// The `md5sums` file's text; scanners read it from `status.d`.
    pub checksums: String,
    /// By clean relative path, `usr/bin/python3.11`.
    pub entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Directory,
    File { content: Bytes, executable: bool },
    Symlink(String),
}

/// Reads the package `name` (for messages). Files for which `wanted` says no are skipped, except that hard links may still
/// refer to them.
pub fn read(name: &str, bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Package, PackageError> {
    let refuse = |entry: Option<&str>, rule: String| PackageError {
        package: name.to_owned(),
        entry: entry.map(|entry| entry.chars().take(200).collect()),
        rule,
    };
    let members = members(bytes).map_err(|rule| refuse(None, rule))?;
    let mut members = members.into_iter();
    match members.next() {
        Some(("debian-binary", b"2.0\n")) => {}
        Some(("debian-binary", _)) => {
            return Err(refuse(Some("debian-binary"), "its format is not 2.0".to_owned()));
        }
        _ => return Err(refuse(None, "its first member is not `debian-binary`".to_owned())),
    }
    let mut part = |stem: &str| -> Result<(String, &[u8]), PackageError> {
        match members.next() {
            Some((member, data)) if member.strip_suffix(suffix(member)) == Some(stem) => {
                Ok((suffix(member).to_owned(), data))
            }
            Some((member, _)) => Err(refuse(Some(member), format!("`{stem}` should be here"))),
            None => Err(refuse(None, format!("`{stem}` is missing"))),
        }
    };
    let (control_form, control) = part("control.tar")?;
    let (data_form, data) = part("data.tar")?;
    // deb(5): members after these may come to exist, and their names begin with an underscore.
    if let Some((member, _)) = members.find(|(member, _)| !member.starts_with('_')) {
        return Err(refuse(Some(member), "it should not be there".to_owned()));
    }

    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    walk(&control_form, control, CONTROL_LIMIT, &mut |path, entry| {
        let key = match path {
            "control" => "control",
            "md5sums" => "md5sums",
            _ => return Ok(()),
        };
        let Raw::File { reader, .. } = entry else {
            return Err("it is not a file".to_owned());
        };
        let mut text = String::new();
        reader
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        texts.insert(key, text);
        Ok(())
    })
    .map_err(|(entry, rule)| refuse(entry.as_deref(), rule))?;
    let control = texts
        .remove("control")
        .ok_or_else(|| refuse(Some("control.tar"), "it holds no control file".to_owned()))?;

    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    // What hard links may refer to though it is not wanted itself.
    let mut skipped: BTreeMap<String, Entry> = BTreeMap::new();
    let limit = DATA_LIMIT.min(DATA_FREE + DATA_RATIO * bytes.len() as u64);
    walk(&data_form, data, limit, &mut |path, raw| {
        if path.is_empty() {
            return Ok(());
        }
        let entry = match raw {
            Raw::Directory => Entry::Directory,
            Raw::Symlink(target) => Entry::Symlink(target),
            Raw::Hardlink(target) => match entries.get(&target).or_else(|| skipped.get(&target)) {
                Some(entry @ Entry::File { .. }) => entry.clone(),
                _ => {
                    return Err(format!(
                        "it is a hard link to `{target:.200}`, which is no file before it"
                    ));
                }
            },
            Raw::File {
                reader,
                size,
                executable,
            } => {
                let mut content = Vec::with_capacity(usize::try_from(size.min(64 << 20)).unwrap_or(0));
                reader
                    .read_to_end(&mut content)
                    .map_err(|error| error.to_string())?;
                Entry::File {
                    content: content.into(),
                    executable,
                }
            }
        };
        let known = entries.get(path).or_else(|| skipped.get(path));
        if known.is_some_and(|known| *known != entry) {
            return Err("it is there twice".to_owned());
        }
        match wanted(path) {
            true => entries.insert(path.to_owned(), entry),
            // Only small files are worth keeping for links; a link to a large unwanted one does not occur.
            false => skipped.insert(path.to_owned(), entry),
        };
        Ok(())
    })
    .map_err(|(entry, rule)| refuse(entry.as_deref(), rule))?;
    // Nothing may lie below something that is not a folder: it would be written through a link.
    for (path, entry) in entries.iter().chain(&skipped) {
        let below = format!("{path}/");
        let inside = |map: &BTreeMap<String, Entry>| {
            map.range(below.clone()..)
                .next()
                .filter(|(other, _)| other.starts_with(&below))
                .map(|(other, _)| other.clone())
        };
        if *entry != Entry::Directory
            && let Some(other) = inside(&entries).or_else(|| inside(&skipped))
        {
            return Err(refuse(Some(&other), format!("`{path}` above it is not a folder")));
        }
    }
    Ok(Package {
        control,
        checksums: texts.remove("md5sums").unwrap_or_default(),
        entries,
    })
}

fn suffix(member: &str) -> &str {
    ["", ".xz", ".zst", ".gz"]
        .into_iter()
        .find(|suffix| !suffix.is_empty() && member.ends_with(suffix))
        .unwrap_or("")
}

/// The members of an `ar` archive: name and bytes, in order. Long-name tables and anything else that a `.deb` has no use
/// for are refused.
fn members(bytes: &[u8]) -> Result<Vec<(&str, &[u8])>, String> {
    let mut rest = bytes
        .strip_prefix(b"!<arch>\n")
        .ok_or("it is not an `ar` archive")?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        if found.len() >= 16 {
            return Err("it has too many members".to_owned());
        }
        let (header, after) = rest.split_at_checked(60).ok_or("a member's header is cut off")?;
        if &header[58..] != b"`\n" {
            return Err("a member's header is broken".to_owned());
        }
        let field = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range])
                .map(str::trim_end)
                .map_err(|_| "a member's header is not ASCII".to_owned())
        };
        let name = field(0..16)?;
        // GNU ar ends names with a slash, dpkg's own writer does not.
        let name = name.strip_suffix('/').unwrap_or(name);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
            return Err(format!("`{}` is not a member's name", name.escape_default()));
        }
        let size = field(48..58)?;
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("the size of the member `{name}` is not a number"));
        }
        let size: usize = size
            .parse()
            .map_err(|_| format!("the size of the member `{name}` is not a number"))?;
        let (data, after) = after
            .split_at_checked(size)
            .ok_or_else(|| format!("the member `{name}` is cut off"))?;
        rest = match (size % 2, after) {
            (1, [b'\n', after @ ..]) => after,
            (1, []) => after,
            (1, _) => return Err(format!("the member `{name}` is not padded")),
            _ => after,
        };
        found.push((name, data));
    }
    Ok(found)
}

/// An entry of a tar as it passes by.
enum Raw<'a> {
    Directory,
    File {
        reader: &'a mut dyn Read,
        size: u64,
        executable: bool,
    },
    Symlink(String),
    Hardlink(String),
}

type Refusal = (Option<String>, String);

/// The largest window of a `.zst`, as a power of two: what it takes to decode is allocated at once.
const ZSTD_WINDOW: u32 = 27;

/// Calls `visit` for each entry of a compressed tar, with its clean path (empty for the root itself).
fn walk(
    form: &str,
    bytes: &[u8],
    limit: u64,
    visit: &mut dyn FnMut(&str, Raw<'_>) -> Result<(), String>,
) -> Result<(), Refusal> {
    let broken = |error: io::Error| (None, format!("it cannot be decompressed or read: {error}"));
    let mut decoder: Box<dyn Read + '_> = match form {
        ".xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY_KIB)),
        ".gz" => Box::new(flate2::read::GzDecoder::new(bytes)),
        ".zst" => {
            let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(broken)?;
            Box::new(decoder)
        }
        _ => Box::new(bytes),
    };
    let mut bounded = Bounded::new(&mut decoder, limit, "it grows beyond what a package may");
    let mut archive = tar::Archive::new(&mut bounded);
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        if count >= MOST_ENTRIES {
            return Err((None, format!("it has more than {MOST_ENTRIES} entries")));
        }
        let mut entry = entry.map_err(broken)?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |rule: &str| (Some(shown.clone()), rule.to_owned());
        let path = clean(&entry.path_bytes()).map_err(refuse)?;
        let kind = entry.header().entry_type();
        // Each size is read once, from one header: PAX and GNU headers that contradict it have no use in a .deb.
        if kind.is_file() && entry.header().entry_size().ok() != Some(entry.size()) {
            return Err(refuse("two headers give it different sizes"));
        }
        let target = || -> Result<String, Refusal> {
            let target = entry
                .link_name_bytes()
                .ok_or_else(|| refuse("it is a link to nothing"))?;
            let target =
                String::from_utf8(target.into_owned()).map_err(|_| refuse("its target is not UTF-8"))?;
            if target.is_empty() || target.len() > 4000 || target.chars().any(char::is_control) {
                return Err(refuse("its target is not a path"));
            }
            Ok(target)
        };
        let raw = match kind {
            tar::EntryType::Directory => Raw::Directory,
            tar::EntryType::Symlink => Raw::Symlink(target()?),
            tar::EntryType::Link => Raw::Hardlink(clean(target()?.as_bytes()).map_err(refuse)?),
            tar::EntryType::Regular => Raw::File {
                size: entry.size(),
                executable: entry.header().mode().unwrap_or(0o644) & 0o111 != 0,
                reader: &mut entry,
            },
            _ => return Err(refuse("it is neither a file, a folder nor a link")),
        };
        visit(&path, raw).map_err(|rule| (Some(shown), rule))?;
    }
    // To the end of the stream: its checksum is in its last bytes, and what follows the tar is bounded too.
    io::copy(&mut bounded, &mut io::sink()).map_err(broken)?;
    Ok(())
}

/// `./usr/bin/x` → `usr/bin/x`; `./` → empty.
fn clean(path: &[u8]) -> Result<String, &'static str> {
    let path = std::str::from_utf8(path).map_err(|_| "its name is not UTF-8")?;
    if path.len() > 4000 {
        return Err("its name is too long");
    }
    if path.chars().any(|letter| letter.is_control() || letter == '\\') {
        return Err("its name holds a control character or a backslash");
    }
    if path.starts_with('/') {
        return Err("its name is absolute");
    }
    let mut parts = Vec::new();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "." if parts.is_empty() => {}
            "" | "." | ".." => return Err("its name leads elsewhere"),
            part if part.starts_with(".wh.") => return Err("its name would delete a file of an image"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

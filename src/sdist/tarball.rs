//! A source archive's tar, read as every reader would read it, or not at all.
//!
//! Takes decompressed bytes, gives entries to a [`SafeFolder`]. Headers that extend the next entry (PAX, GNU long names) are
//! interpreted here and not by the `tar` crate, which only finds where headers are: two readers that disagree on one size or name
//! read different archives [CVE-2025-62518], so whatever could be read in two ways is refused.
//!
//! Sources: POSIX.1-2017 `pax` (ustar and pax interchange formats), GNU tar's manual "Basic Tar Format".

use std::io::{self, Read};

use super::folder::{Content, Fault, SafeFolder, shown};

/// A PAX header or a long name, in bytes. Real ones are a few hundred.
const LARGEST_EXTENSION: u64 = 1 << 20;

/// An entry that is refused by name, or the archive itself where no entry has one yet.
pub type Refusal = (Option<String>, Fault);

/// What extension headers say of the entry behind them.
#[derive(Default)]
struct Said {
    path: Option<String>,
    target: Option<String>,
    size: Option<u64>,
    /// Which kinds of header said it: each may come once.
    kinds: Vec<u8>,
}

/// Reads the archive to its end.
pub fn read(bytes: &mut dyn Read, into: &mut SafeFolder) -> Result<(), Refusal> {
    let broken = |error: io::Error| (None, Fault::Read(error));
    let mut archive = tar::Archive::new(&mut *bytes);
    let mut said = Said::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let header = entry.header().clone();
        let kind = header.entry_type();
        let size = entry.size();
        if let b'x' | b'g' | b'L' | b'K' = kind.as_byte() {
            let text = extension(&mut entry, size).map_err(|fault| (None, fault))?;
            said.take(kind.as_byte(), text).map_err(|fault| (None, fault))?;
            continue;
        }
        let said = std::mem::take(&mut said);
        let name = match said.path {
            Some(path) => path,
            None => String::from_utf8(header.path_bytes().into_owned())
                .map_err(|error| (Some(lossy(error.as_bytes())), "its name is not UTF-8".into()))?,
        };
        let refuse = |fault: Fault| (Some(shown(&name)), fault);
        if said.size.is_some_and(|said| said != size) {
            return Err(refuse(
                "its PAX header and its own give it different sizes".into(),
            ));
        }
        let target = || -> Result<String, Fault> {
            let bytes = header.link_name_bytes().unwrap_or_default().into_owned();
            match &said.target {
                Some(target) => Ok(target.clone()),
                None => String::from_utf8(bytes).map_err(|_| "its target is not UTF-8".into()),
            }
        };
        let plain = name.trim_start_matches("./").trim_end_matches('/');
        let is_folder = kind.is_dir() || (kind.is_file() && name.ends_with('/'));
        // Whether content follows a folder or a link is read in two ways.
        if size > 0 && (is_folder || kind.is_symlink() || kind.is_hard_link()) {
            return Err(refuse("it is a folder or a link, and has content".into()));
        }
        let done = if is_folder {
            // `./`: the archive's own top.
            match plain {
                "" | "." => Ok(()),
                plain => into.folder(plain),
            }
        } else if kind.is_file() {
            into.file(
                plain,
                Content {
                    size,
                    executable: header.mode().unwrap_or(0o644) & 0o111 != 0,
                    modified: header.mtime().unwrap_or(0),
                    reader: &mut entry,
                },
            )
        } else if kind.is_symlink() {
            target().and_then(|target| into.link(plain, &target))
        } else if kind.is_hard_link() {
            target().and_then(|target| into.hard_link(plain, target.trim_start_matches("./")))
        } else {
            Err(what(kind).into())
        };
        done.map_err(refuse)?;
    }
    if !said.kinds.is_empty() {
        return Err((
            None,
            "its last header describes an entry that is not there".into(),
        ));
    }
    // Behind the end there may be padding; a reader that goes on would find more entries in anything else.
    let mut buffer = vec![0; 64 << 10];
    loop {
        match bytes.read(&mut buffer).map_err(broken)? {
            0 => return Ok(()),
            count if buffer[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Err((None, "bytes stand behind its end".into())),
        }
    }
}

fn what(kind: tar::EntryType) -> &'static str {
    match kind.as_byte() {
        b'3' | b'4' => "it is a device",
        b'6' => "it is a FIFO",
        b'S' => "it is a sparse file",
        _ => "it is neither a file, a folder nor a link",
    }
}

fn lossy(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}

fn extension(entry: &mut dyn Read, size: u64) -> Result<Vec<u8>, Fault> {
    if size > LARGEST_EXTENSION {
        return Err("a header that describes an entry is larger than 1 MB".into());
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(Fault::Read)?;
    if text.len() as u64 != size {
        return Err("it is cut off".into());
    }
    Ok(text)
}

impl Said {
    fn take(&mut self, kind: u8, text: Vec<u8>) -> Result<(), Fault> {
        if kind == b'g' {
            return global(&text);
        }
        if self.kinds.contains(&kind) {
            return Err("two headers of one kind describe the same entry".into());
        }
        self.kinds.push(kind);
        match kind {
            b'L' => set(&mut self.path, long_name(text)?),
            b'K' => set(&mut self.target, long_name(text)?),
            _ => {
                for (key, value) in records(&text)? {
                    match key {
                        "path" => set(&mut self.path, value.to_owned())?,
                        "linkpath" => set(&mut self.target, value.to_owned())?,
                        "size" => set(&mut self.size, number(value)?)?,
                        "hdrcharset" | "charset" if value != "ISO-IR 10646 2000 UTF-8" => {
                            return Err("its PAX header is in another character set".into());
                        }
                        key if key.starts_with("GNU.sparse.") => return Err("it is a sparse file".into()),
                        // Times, owners, comments.
                        _ => {}
                    }
                }
                Ok(())
            }
        }
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("its name, target or size is given twice by headers".into()),
    }
}

fn number(text: &str) -> Result<u64, Fault> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| "its PAX size is no number".into()),
        false => Err("its PAX size is no number".into()),
    }
}

/// What holds for all entries that follow. `git archive` puts the commit there, as a comment.
fn global(text: &[u8]) -> Result<(), Fault> {
    for (key, _) in records(text)? {
        if matches!(key, "path" | "linkpath" | "size" | "hdrcharset" | "charset") || key.starts_with("GNU.") {
            return Err(Fault::Rule(format!(
                "a global PAX header sets `{}` of every entry",
                shown(key)
            )));
        }
    }
    Ok(())
}

/// GNU's long name: the name and a NUL.
fn long_name(mut text: Vec<u8>) -> Result<String, Fault> {
    while text.last() == Some(&0) {
        text.pop();
    }
    if text.contains(&0) {
        return Err("a NUL is in its long name".into());
    }
    String::from_utf8(text).map_err(|_| "its long name is not UTF-8".into())
}

/// The records of a PAX header, `<length> <key>=<value>\n` each, where the length counts all of it.
fn records(mut text: &[u8]) -> Result<Vec<(&str, &str)>, Fault> {
    let malformed = || Fault::from("its PAX header is malformed");
    let mut found = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let digits = std::str::from_utf8(&text[..blank]).map_err(|_| malformed())?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let length: usize = digits.parse().map_err(|_| malformed())?;
        let (record, rest) = text.split_at_checked(length).ok_or_else(malformed)?;
        let record = record.get(blank + 1..).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let record = std::str::from_utf8(record)
            .ok()
            .filter(|record| !record.contains('\0'))
            .ok_or_else(malformed)?;
        found.push(record.split_once('=').ok_or_else(malformed)?);
        text = rest;
    }
    Ok(found)
}

//! A folder that is filled with what somebody else wrote: an archive's entries, another folder's files.
//!
//! Takes entries one by one, in any order, and keeps to three rules whatever they say: nothing is written outside of it, nothing is
//! written through a link (links are made last, when nothing is written any more), and what it may hold is bounded. It does not know
//! archive formats.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::{Digest, Hasher};
use crate::python::wheel::check_name;

/// Entries that a source tree may have. The largest on the public index have about 60,000.
const MOST_ENTRIES: usize = 250_000;
/// Folders above a file.
const DEEPEST: usize = 64;
/// A file that is kept in memory, in bytes.
const LARGEST_KEPT: u64 = 16 << 20;
/// A path below the folder, in bytes.
const LONGEST: usize = 3000;

/// What is wrong with an entry, or with this machine.
#[derive(Debug)]
pub enum Fault {
    /// The rule that the entry breaks.
    Rule(String),
    /// Its content cannot be read.
    Read(io::Error),
    Write {
        path: String,
        source: io::Error,
    },
}

impl From<&str> for Fault {
    fn from(rule: &str) -> Self {
        Self::Rule(rule.to_owned())
    }
}

/// A file as it is put into the folder.
pub struct Content<'a> {
    pub reader: &'a mut dyn Read,
    /// In bytes: the reader must have exactly so many.
    pub size: u64,
    pub executable: bool,
    /// Seconds since 1970: builds that follow `make` compare times.
    pub modified: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File { content: Digest, executable: bool },
    Link { target: String },
}

/// The folder while it is filled. Paths are relative and `/`-separated.
pub struct SafeFolder {
    /// Without one, everything is judged and nothing written.
    root: Option<PathBuf>,
    /// Files of these names, one folder below the top, are kept in memory.
    wanted: Vec<String>,
    kept: BTreeMap<String, Vec<u8>>,
    entries: BTreeMap<String, Kind>,
    /// Bytes that may still be written.
    left: u64,
    limit: u64,
}

impl SafeFolder {
    /// Fills the empty folder `root`, which nobody else writes to, with at most `limit` bytes.
    pub fn new(root: &Path, limit: u64) -> Self {
        Self {
            root: Some(root.to_owned()),
            ..Self::nowhere(limit, &[])
        }
    }

    /// Judges as if a folder were filled, and keeps the content of `<top>/<name>` for each of these names.
    pub fn nowhere(limit: u64, wanted: &[&str]) -> Self {
        Self {
            root: None,
            wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
            kept: BTreeMap::new(),
            entries: BTreeMap::new(),
            left: limit,
            limit,
        }
    }

    fn keeps(&self, path: &str, size: u64) -> bool {
        let name = path.split_once('/').map(|(_, rest)| rest);
        size <= LARGEST_KEPT && name.is_some_and(|name| self.wanted.iter().any(|wanted| wanted == name))
    }

    pub fn folder(&mut self, path: &str) -> Result<(), Fault> {
        self.admit(path)?;
        match self.entries.get(path) {
            Some(Kind::Folder) => Ok(()),
            Some(_) => Err("its name is there twice, as a folder and as something else".into()),
            None => self.make_folder(path),
        }
    }

    pub fn file(&mut self, path: &str, content: Content<'_>) -> Result<(), Fault> {
        self.admit(path)?;
        if content.size > self.left {
            return Err(Fault::Rule(format!(
                "with it, the tree grows beyond {} MB",
                self.limit >> 20
            )));
        }
        self.make_parents(path)?;
        let mut kept = self.keeps(path, content.size).then(Vec::new);
        let known = self.entries.get(path);
        let target = self.root.as_ref().map(|root| root.join(path));
        let write = |source| Fault::Write {
            path: path.to_owned(),
            source,
        };
        let mut file = match (known, &target) {
            (None, Some(target)) => Some(
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(if content.executable { 0o755 } else { 0o644 })
                    .open(target)
                    .map_err(write)?,
            ),
            // Some archives hold a file twice. The same twice is harmless; it is compared, not written.
            (None, None) | (Some(Kind::File { .. }), _) => None,
            (Some(_), _) => return Err("its name is there twice, as a file and as something else".into()),
        };
        let mut hasher = Hasher::new();
        let mut rest = content.size;
        let mut buffer = vec![0; (64 << 10).min(content.size.max(1)) as usize];
        while rest > 0 {
            let most = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let count = content.reader.read(&mut buffer[..most]).map_err(Fault::Read)?;
            if count == 0 {
                return Err("it is cut off".into());
            }
            rest -= count as u64;
            hasher.update(&buffer[..count]);
            if let Some(file) = &mut file {
                file.write_all(&buffer[..count]).map_err(write)?;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&buffer[..count]);
            }
        }
        self.left -= content.size;
        let made = Kind::File {
            content: hasher.finish(),
            executable: content.executable,
        };
        if known.is_some_and(|known| *known != made) {
            return Err("its name is there twice, with different content".into());
        }
        if known.is_none() {
            self.entries.insert(path.to_owned(), made);
        }
        if let Some(file) = file {
            stamp(&file, content.modified);
        }
        if let Some(kept) = kept {
            self.kept.insert(path.to_owned(), kept);
        }
        Ok(())
    }

    /// Another name for a file that is there already.
    pub fn hard_link(&mut self, path: &str, target: &str) -> Result<(), Fault> {
        self.admit(path)?;
        check_name(target)
            .map_err(|rule| Fault::Rule(format!("it is a hard link to `{}`: {rule}", shown(target))))?;
        let Some(Kind::File { content, executable }) = self.entries.get(target) else {
            return Err(Fault::Rule(format!(
                "it is a hard link to `{}`, which is no file before it",
                shown(target)
            )));
        };
        let made = Kind::File {
            content: *content,
            executable: *executable,
        };
        self.make_parents(path)?;
        match self.entries.get(path) {
            Some(known) if *known == made => return Ok(()),
            Some(_) => return Err("its name is there twice, with different content".into()),
            None => {}
        }
        if let Some(root) = &self.root {
            fs::hard_link(root.join(target), root.join(path)).map_err(|source| Fault::Write {
                path: path.to_owned(),
                source,
            })?;
        }
        self.entries.insert(path.to_owned(), made);
        Ok(())
    }

    /// A symbolic link. It is made by [`SafeFolder::finish`], if it stays inside.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), Fault> {
        self.admit(path)?;
        if target.is_empty() || target.len() > LONGEST || target.chars().any(char::is_control) {
            return Err("it is a link to what is no path".into());
        }
        self.make_parents(path)?;
        let made = Kind::Link {
            target: target.to_owned(),
        };
        match self.entries.get(path) {
            Some(known) if *known == made => {}
            Some(_) => return Err("its name is there twice, as a link and as something else".into()),
            None => {
                self.entries.insert(path.to_owned(), made);
            }
        }
        Ok(())
    }

    /// Makes the links, and gives what the folder holds by its content: the same tree has the same digest.
    pub fn finish(self) -> Result<Filled, (String, Fault)> {
        let mut hasher = Hasher::new();
        for (path, kind) in &self.entries {
            let line = match kind {
                Kind::Folder => format!("d {path}\n"),
                Kind::File { content, executable } => format!("f {path} {content} {executable}\n"),
                Kind::Link { target } => {
                    self.check_link(path, target)
                        .map_err(|rule| (path.clone(), Fault::Rule(rule)))?;
                    if let Some(root) = &self.root {
                        std::os::unix::fs::symlink(target, root.join(path)).map_err(|source| {
                            let shown = path.clone();
                            (path.clone(), Fault::Write { path: shown, source })
                        })?;
                    }
                    format!("l {path} {target}\n")
                }
            };
            hasher.update(line.as_bytes());
        }
        let tops: Vec<&String> = self.entries.keys().filter(|path| !path.contains('/')).collect();
        let top = match tops[..] {
            [top] if self.entries.get(top) == Some(&Kind::Folder) => Some(top.clone()),
            _ => None,
        };
        Ok(Filled {
            content: hasher.finish(),
            top,
            kept: self.kept,
        })
    }

    /// A link's target, followed as the kernel would follow it, must stay inside at every step. One that passes through another link
    /// is refused: where that leads is only known when it is followed.
    fn check_link(&self, path: &str, target: &str) -> Result<(), String> {
        let outside = || format!("it is a link that leads outside: `{}`", shown(target));
        if target.starts_with('/') {
            return Err(outside());
        }
        let mut at: Vec<&str> = path.split('/').collect();
        at.pop();
        let parts: Vec<&str> = target
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        for (index, part) in parts.iter().enumerate() {
            if *part == ".." {
                at.pop().ok_or_else(outside)?;
                continue;
            }
            at.push(part);
            let here = at.join("/");
            if index + 1 < parts.len() && matches!(self.entries.get(&here), Some(Kind::Link { .. })) {
                return Err(format!("it is a link through another link: `{}`", shown(target)));
            }
        }
        // A link to a link is followed once more, and so may end in a circle.
        let mut seen = vec![path.to_owned()];
        let mut here = at.join("/");
        while let Some(Kind::Link { target }) = self.entries.get(&here) {
            if seen.contains(&here) || seen.len() > 40 {
                return Err("it is a link that leads in circles".to_owned());
            }
            seen.push(here.clone());
            let mut next: Vec<&str> = here.split('/').collect();
            next.pop();
            for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
                match part {
                    ".." => {
                        next.pop();
                    }
                    part => next.push(part),
                }
            }
            here = next.join("/");
        }
        Ok(())
    }

    fn admit(&self, path: &str) -> Result<(), Fault> {
        check_name(path)?;
        if path.len() > LONGEST {
            return Err("its name is too long".into());
        }
        if path.split('/').count() > DEEPEST {
            return Err(Fault::Rule(format!(
                "it lies deeper than {DEEPEST} folders below the top"
            )));
        }
        if self.entries.len() >= MOST_ENTRIES {
            return Err(Fault::Rule(format!(
                "with it, the tree has more than {MOST_ENTRIES} entries"
            )));
        }
        Ok(())
    }

    fn make_parents(&mut self, path: &str) -> Result<(), Fault> {
        for (at, _) in path.match_indices('/') {
            let above = &path[..at];
            match self.entries.get(above) {
                Some(Kind::Folder) => {}
                Some(Kind::Link { .. }) => {
                    return Err(Fault::Rule(format!(
                        "`{}` above it is a link: it would be written through it",
                        shown(above)
                    )));
                }
                Some(Kind::File { .. }) => {
                    return Err(Fault::Rule(format!("`{}` above it is a file", shown(above))));
                }
                None => self.make_folder(above)?,
            }
        }
        Ok(())
    }

    fn make_folder(&mut self, path: &str) -> Result<(), Fault> {
        self.make_parents(path)?;
        if let Some(root) = &self.root {
            fs::create_dir(root.join(path)).map_err(|source| Fault::Write {
                path: path.to_owned(),
                source,
            })?;
        }
        self.entries.insert(path.to_owned(), Kind::Folder);
        Ok(())
    }
}

/// A folder that is filled and checked.
#[derive(Debug)]
pub struct Filled {
    /// Of names, content, links and the right to execute.
    pub content: Digest,
    /// The one folder at the top, if that is all there is.
    pub top: Option<String>,
    /// What was to be kept in memory, by path.
    pub kept: BTreeMap<String, Vec<u8>>,
}

/// A name as it is shown: hostile ones are cut and escaped.
pub fn shown(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(160)
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect();
    if name.chars().count() > 160 {
        text.push('…');
    }
    text
}

/// A time that the filesystem does not take is left as it is.
fn stamp(file: &File, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u32::MAX.into()));
    let _ = file.set_times(FileTimes::new().set_modified(time.min(SystemTime::now())));
}

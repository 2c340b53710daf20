//! A sorted tree of folders, files and symbolic links, and its deterministic forms: tar, zip, folder.
//!
//! Everything that becomes an artifact and is not a wheel's own file passes through here: project code, runtime,
//! artifact values, bytecode, the base's files. The same tree gives the same bytes whatever the machine's clock, umask,
//! user or directory order. It does not know images or Python, and of compression only that a file may come with it.

pub mod tar;
pub mod zip;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::{deflate, regular};

/// Paths are relative, `/`-separated, and sorted; parents are always there and come first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// What is at a path. Modes hold permission bits and the sticky bit only.
#[derive(Debug, Clone)]
pub enum Node {
    Directory { mode: u32 },
    File { source: Source, mode: u32 },
    Symlink { target: String },
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    Bytes(Bytes),
    Packed(Packed),
    /// A file that will not change while the tree is in use; its size in bytes.
    File {
        path: PathBuf,
        size: u64,
    },
}

/// A file's bytes, and the same as a part of a deflate stream: what is encoded beforehand, on all cores or in an earlier build, is
/// only copied when a layer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    pub content: Bytes,
    /// What [`deflate::part`] makes of `content`.
    pub stream: Bytes,
}

impl Packed {
    pub fn new(content: Bytes) -> Self {
        let stream = deflate::part(&content).into();
        Self { content, stream }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("`{path}` cannot be a path in a tree: {why}")]
    Path { path: String, why: &'static str },
    #[error("`{path}` is there already")]
    Occupied { path: String },
    #[error("cannot read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} changed while it was read")]
    Changed { path: String },
    #[error("cannot write {what}")]
    Write { what: String, source: io::Error },
}

/// The mode of folders, and of files that are run.
pub const EXECUTABLE: u32 = 0o755;
/// The mode of other files.
pub const PLAIN: u32 = 0o644;

impl Source {
    /// A file on disk, as large as it is now.
    pub fn file(path: &Path) -> Result<Self, TreeError> {
        let file = regular::open(path).map_err(|irregular| read_error(path)(irregular.into()))?;
        let data = file.metadata().map_err(read_error(path))?;
        Ok(Self::File {
            path: path.to_owned(),
            size: data.len(),
        })
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) | Self::Packed(Packed { content: bytes, .. }) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// Hands the content over in pieces; exactly [`Source::size`] bytes, or an error.
    pub fn pieces(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), TreeError>) -> Result<(), TreeError> {
        let (path, size) = match self {
            Self::Bytes(bytes) | Self::Packed(Packed { content: bytes, .. }) => return take(bytes),
            Self::File { path, size } => (path, *size),
        };
        let changed = || TreeError::Changed {
            path: path.display().to_string(),
        };
        let mut file = regular::open(path).map_err(|irregular| read_error(path)(irregular.into()))?;
        let mut buffer = vec![0; 128 << 10];
        let mut seen = 0;
        loop {
            let count = file.read(&mut buffer).map_err(read_error(path))?;
            if count == 0 {
                break;
            }
            seen += count as u64;
            if seen > size {
                return Err(changed());
            }
            take(&buffer[..count])?;
        }
        if seen == size { Ok(()) } else { Err(changed()) }
    }

    /// The whole content.
    pub fn read(&self) -> Result<Bytes, TreeError> {
        if let Self::Bytes(bytes) | Self::Packed(Packed { content: bytes, .. }) = self {
            return Ok(bytes.clone());
        }
        let mut all = Vec::with_capacity(usize::try_from(self.size()).unwrap_or(0));
        self.pieces(&mut |piece| {
            all.extend(piece);
            Ok(())
        })?;
        Ok(all.into())
    }
}

impl From<Packed> for Source {
    fn from(packed: Packed) -> Self {
        Self::Packed(packed)
    }
}

impl<T: Into<Bytes>> From<T> for Source {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> TreeError + '_ {
    move |source| TreeError::Read {
        path: path.display().to_string(),
        source,
    }
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// A file; folders above it appear with mode 0755. The mode's permission bits are kept, nothing else.
    pub fn insert_file(&mut self, path: &str, source: impl Into<Source>, mode: u32) -> Result<(), TreeError> {
        let source = source.into();
        let mode = mode & 0o777;
        self.insert(path, Node::File { source, mode })
    }

    /// A folder with mode 0755. One that is there already is left alone.
    pub fn insert_dir(&mut self, path: &str) -> Result<(), TreeError> {
        check(path)?;
        match self.nodes.get(path) {
            Some(Node::Directory { .. }) => Ok(()),
            _ => self.insert(path, Node::Directory { mode: EXECUTABLE }),
        }
    }

    /// A folder with a mode of its own (`/tmp`: 01777); replaces that of a folder that is there already.
    pub fn insert_dir_with_mode(&mut self, path: &str, mode: u32) -> Result<(), TreeError> {
        self.insert_dir(path)?;
        let mode = mode & 0o1777;
        self.nodes.insert(path.to_owned(), Node::Directory { mode });
        Ok(())
    }

    /// A symbolic link; `target` is written as it is.
    pub fn insert_symlink(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        if target.is_empty() || target.contains('\0') {
            return Err(TreeError::Path {
                path: path.to_owned(),
                why: "its link points nowhere",
            });
        }
        let target = target.to_owned();
        self.insert(path, Node::Symlink { target })
    }

    /// Removes what is at `path` and everything under it; says whether something was there.
    pub fn remove(&mut self, path: &str) -> bool {
        let before = self.nodes.len();
        let under = format!("{path}/");
        self.nodes
            .retain(|known, _| known != path && !known.starts_with(&under));
        self.nodes.len() < before
    }

    /// Everything of `other`, which may share folders with this tree and nothing else.
    pub fn merge(&mut self, other: Tree) -> Result<(), TreeError> {
        for (path, node) in other.nodes {
            match (&node, self.nodes.get(&path)) {
                (Node::Directory { .. }, Some(Node::Directory { .. })) => {}
                _ => self.insert(&path, node)?,
            }
        }
        Ok(())
    }

    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All nodes, sorted by path: parents before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The bytes of all files together.
    pub fn size(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| match node {
                Node::File { source, .. } => source.size(),
                _ => 0,
            })
            .sum()
    }

    fn insert(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        check(path)?;
        for (at, _) in path.match_indices('/') {
            match self.nodes.entry(path[..at].to_owned()) {
                Slot::Vacant(slot) => {
                    slot.insert(Node::Directory { mode: EXECUTABLE });
                }
                Slot::Occupied(slot) if matches!(slot.get(), Node::Directory { .. }) => {}
                Slot::Occupied(slot) => {
                    return Err(TreeError::Occupied {
                        path: slot.key().clone(),
                    });
                }
            }
        }
        match self.nodes.entry(path.to_owned()) {
            Slot::Vacant(slot) => {
                slot.insert(node);
                Ok(())
            }
            Slot::Occupied(slot) => Err(TreeError::Occupied {
                path: slot.key().clone(),
            }),
        }
    }

    /// Writes the tree as a tar: owner 0:0, every time `mtime` (seconds since 1970).
    pub fn to_tar<W: Write>(&self, writer: W, mtime: u64) -> Result<W, TreeError> {
        let mut writer = writer;
        let fault = |source| TreeError::Write {
            what: "the archive".to_owned(),
            source,
        };
        let mut block = Vec::new();
        for (path, node) in self.iter() {
            block.clear();
            tar::header(&tar::Header::of(path, node, mtime), &mut block);
            writer.write_all(&block).map_err(fault)?;
            if let Node::File { source, .. } = node {
                source.pieces(&mut |piece| writer.write_all(piece).map_err(fault))?;
                writer.write_all(tar::padding(source.size())).map_err(fault)?;
            }
        }
        writer.write_all(&tar::END).map_err(fault)?;
        Ok(writer)
    }

    /// Writes the tree as a zip; see [`zip`].
    pub fn to_zip<W: Write>(&self, writer: W, mtime: u64) -> Result<W, TreeError> {
        zip::write(self, writer, mtime)
    }

    /// Writes the tree into `folder`, which is made where it is missing; nothing that exists is replaced.
    pub fn to_directory(&self, folder: &Path) -> Result<(), TreeError> {
        let fault = |path: &Path| {
            let what = path.display().to_string();
            move |source| TreeError::Write { what, source }
        };
        fs::create_dir_all(folder).map_err(fault(folder))?;
        let mut folders = Vec::new();
        for (relative, node) in self.iter() {
            let path = folder.join(relative);
            match node {
                Node::Directory { mode } => {
                    match fs::create_dir(&path) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                        other => other.map_err(fault(&path))?,
                    }
                    folders.push((path, *mode));
                }
                Node::File { source, mode } => {
                    let mut file = OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .mode(*mode)
                        .open(&path)
                        .map_err(fault(&path))?;
                    source.pieces(&mut |piece| file.write_all(piece).map_err(fault(&path)))?;
                    // The umask took bits away from what was asked for.
                    file.set_permissions(fs::Permissions::from_mode(*mode))
                        .map_err(fault(&path))?;
                }
                Node::Symlink { target } => {
                    std::os::unix::fs::symlink(target, &path).map_err(fault(&path))?;
                }
            }
        }
        // Last, and deepest first: a folder that forbids writing could not be filled.
        for (path, mode) in folders.into_iter().rev() {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(fault(&path))?;
        }
        Ok(())
    }
}

/// Refuses what would mean another place, or a whiteout (OCI image-spec "Whiteouts").
fn check(path: &str) -> Result<(), TreeError> {
    let refuse = |why| {
        Err(TreeError::Path {
            path: path.chars().take(200).collect(),
            why,
        })
    };
    if path.contains('\0') {
        return refuse("it has a NUL in it");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("a part of it is empty"),
            "." | ".." => return refuse("it has `.` or `..` in it"),
            _ if part.starts_with(".wh.") => return refuse("`.wh.` marks deleted files in a layer"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        tree.insert_file("app/run", &b"#!/bin/sh\n"[..], 0o4755).unwrap();
        tree.insert_file(&format!("app/{}/long.txt", "d".repeat(160)), &b"x"[..], PLAIN)
            .unwrap();
        tree.insert_file("app/caf\u{e9}.txt", vec![7; 1000], PLAIN)
            .unwrap();
        tree.insert_dir_with_mode("tmp", 0o1777).unwrap();
        tree.insert_symlink("app/link", &format!("../{}", "t".repeat(150)))
            .unwrap();
        tree
    }

    #[test]
    fn a_tar_is_read_back_as_it_was() {
        let bytes = sample().to_tar(Vec::new(), 7).unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut seen = Vec::new();
        let mut archive = ::tar::Archive::new(&bytes[..]);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 7)
            );
            seen.push((
                entry.path().unwrap().display().to_string(),
                header.mode().unwrap(),
                content.len(),
                entry.link_name().unwrap().map(|link| link.display().to_string()),
            ));
        }
        let long = "d".repeat(160);
        let expected = [
            ("app/".to_owned(), 0o755, 0, None),
            ("app/caf\u{e9}.txt".to_owned(), 0o644, 1000, None),
            (format!("app/{long}/"), 0o755, 0, None),
            (format!("app/{long}/long.txt"), 0o644, 1, None),
            (
                "app/link".to_owned(),
                0o777,
                0,
                Some(format!("../{}", "t".repeat(150))),
            ),
            ("app/run".to_owned(), 0o755, 10, None),
            ("tmp/".to_owned(), 0o1777, 0, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_folder_holds_what_the_tree_says() {
        let target = tempfile::tempdir().unwrap();
        let mut tree = sample();
        tree.insert_dir_with_mode("app", 0o555).unwrap();
        tree.to_directory(target.path()).unwrap();
        let mode = |path: &str| {
            let data = fs::symlink_metadata(target.path().join(path)).unwrap();
            data.permissions().mode() & 0o7777
        };
        assert_eq!(
            (mode("app"), mode("app/run"), mode("tmp")),
            (0o555, 0o755, 0o1777)
        );
        assert!(tree.to_directory(target.path()).is_err(), "nothing is replaced");
    }

    #[test]
    fn paths_that_mean_another_place_are_refused() {
        let mut tree = sample();
        for path in ["", "/etc", "a//b", "a/../b", "./a", "a/", "x/.wh.a", "a\0b"] {
            let error = tree.insert_file(path, &b""[..], PLAIN).unwrap_err();
            assert!(matches!(error, TreeError::Path { .. }), "{path}: {error}");
        }
        for path in ["app", "app/run", "app/run/x", "app/link/x"] {
            let error = tree.insert_file(path, &b""[..], PLAIN).unwrap_err();
            assert!(matches!(error, TreeError::Occupied { .. }), "{path}: {error}");
        }
    }
}

//! The base's layer: Debian's files as a tree, under a key that its packages' hashes give.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use serde::{Deserialize, Serialize};

use super::kept::{KeepError, Kept};
use super::recipe::Form;
use super::{LayerError, MadeLayer, keyed_layer};
use crate::debian::rootfs::{self, LAYOUT};
use crate::debian::{self, BaseFiles, DebianError, Rootfs};
use crate::digest::{Digest, Hasher};
use crate::lock::base::Debian;
use crate::store::Store;
use crate::tree::{Node, Packed, Source, Tree, TreeError};

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("cannot keep the base's files")]
    Keep(#[from] KeepError),
}

/// The store's bucket of bases that were decoded and encoded.
pub(super) const RECORD: &str = "base-1";

/// The base's layer in `form`; made if the store does not have it. Its packages must be in the store.
pub fn layer(files: &BaseFiles<'_>, form: Form) -> Result<MadeLayer, BaseError> {
    let base = files.base;
    let title = format!("Debian {} with Python {}", base.codename, base.python);
    let key = key(base, files.platform)?;
    keyed_layer(files.store, (form.key(key), form), 0, &title, || {
        if let Some(tree) = stored(files.store, &key)? {
            return Ok(tree);
        }
        let tree = tree(&*files.get()?)?;
        keep(files.store, &key, &tree)?;
        Ok(tree)
    })
}

/// A base's tree in the store: what takes long, decoding its packages and compressing their files, is done once.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptBase {
    pub files: Kept,
    /// Of each file, in their order.
    modes: Vec<u32>,
    folders: Vec<(String, u32)>,
    /// Path and target.
    links: Vec<(String, String)>,
}

fn stored(store: &Store, key: &Digest) -> Result<Option<Tree>, BaseError> {
    let Some(kept) = store.record::<KeptBase>(RECORD, &key.to_string()) else {
        return Ok(None);
    };
    let Some(files) = kept.files.load(store).map_err(LayerError::from)? else {
        return Ok(None);
    };
    let mut tree = Tree::new();
    for (path, mode) in &kept.folders {
        tree.insert_dir_with_mode(path, *mode)?;
    }
    for (path, target) in &kept.links {
        tree.insert_symlink(path, target)?;
    }
    for ((path, packed), mode) in files.into_iter().zip(&kept.modes) {
        tree.insert_file(&path, packed, *mode)?;
    }
    Ok(Some(tree))
}

fn keep(store: &Store, key: &Digest, tree: &Tree) -> Result<(), BaseError> {
    let (mut files, mut modes) = (Vec::new(), Vec::new());
    let (mut folders, mut links) = (Vec::new(), Vec::new());
    for (path, node) in tree.iter() {
        match node {
            Node::Directory { mode } => folders.push((path.to_owned(), *mode)),
            Node::Symlink { target } => links.push((path.to_owned(), target.clone())),
            Node::File {
                source: Source::Packed(packed),
                mode,
            } => {
                files.push((path, packed));
                modes.push(*mode);
            }
            // Every file of a base is packed where its tree is made.
            Node::File { .. } => return Ok(()),
        }
    }
    let kept = KeptBase {
        files: Kept::keep(store, files)?,
        modes,
        folders,
        links,
    };
    let kept = store.keep_record(RECORD, &key.to_string(), &kept);
    Ok(kept.map_err(LayerError::from)?)
}

/// What the base's layer follows from: the packages' hashes.
pub fn key(base: &Debian, platform: &str) -> Result<Digest, BaseError> {
    let mut hasher = Hasher::new();
    hasher.update(format!("debian {LAYOUT} {} {}\n", super::recipe::LAYOUT, base.python).as_bytes());
    for deb in debian::debs(base, platform)? {
        hasher.update(deb.digest.bytes());
        // What was asked for by name keeps its programs.
        hasher.update(&[u8::from(deb.asked)]);
    }
    Ok(hasher.finish())
}

fn tree(rootfs: &Rootfs) -> Result<Tree, BaseError> {
    let files: Vec<(&String, Packed, u32)> = rootfs
        .entries
        .par_iter()
        .filter_map(|(path, node)| match node {
            rootfs::Node::File { content, mode } => Some((path, Packed::new(content.clone()), *mode)),
            _ => None,
        })
        .collect();
    let mut tree = Tree::new();
    for (path, node) in &rootfs.entries {
        match node {
            rootfs::Node::Directory { mode } => tree.insert_dir_with_mode(path, *mode)?,
            rootfs::Node::Symlink { target } => tree.insert_symlink(path, target)?,
            rootfs::Node::File { .. } => {}
        }
    }
    for (path, packed, mode) in files {
        tree.insert_file(path, packed, mode)?;
    }
    Ok(tree)
}

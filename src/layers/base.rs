//! The base's layer: Debian's files as a tree, under a key that its packages' hashes give.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::{LayerError, MadeLayer, keyed_layer};
use crate::debian::rootfs::{self, LAYOUT};
use crate::debian::{self, BaseFiles, DebianError, Rootfs};
use crate::digest::{Digest, Hasher};
use crate::lock::base::Debian;
use crate::tree::{Packed, Tree, TreeError};

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Layer(#[from] LayerError),
}

/// The base's layer; made if the store does not have it. Its packages must be in the store.
pub fn layer(files: &BaseFiles<'_>) -> Result<MadeLayer, BaseError> {
    let base = files.base;
    let title = format!("Debian {} with Python {}", base.codename, base.python);
    keyed_layer(files.store, key(base, files.platform)?, 0, &title, || {
        tree(&*files.get()?)
    })
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

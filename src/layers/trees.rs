//! Layers of trees: under a key that somebody gives, or remembered by what is in them.

use super::recipe::{self, Form};
use super::splice::{Threads, splice};
use super::{LAYER_RECORD, LayerError, LayerRecord, MadeLayer, Origin, stored, stored_layer};
use crate::digest::{Digest, Hasher};
use crate::store::Store;
use crate::tree::{Node, Source, Tree};

/// The layer that `key` names in `form`: from the store, else made from the tree that `tree` gives and kept under that key.
pub fn keyed_layer<E: From<LayerError>>(
    store: &Store,
    (key, form): (Digest, Form),
    mtime: u64,
    title: &str,
    tree: impl FnOnce() -> Result<Tree, E>,
) -> Result<MadeLayer, E> {
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    let _guard = store.lock(&format!("layer {key}")).map_err(LayerError::from)?;
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    let record = tree_record(store, &tree()?, form, mtime, title)?;
    store
        .keep_record(LAYER_RECORD, &key.to_string(), &record)
        .map_err(LayerError::from)?;
    Ok(record.into_layer(store, Some(key), Origin::Made))
}

/// A layer that holds `tree`, every time `mtime` (seconds since 1970); `title` says what it is. Its blob is in the store. A tree that is
/// in memory is remembered by its content: it is not compressed twice.
pub fn layer_from_tree(
    store: &Store,
    tree: &Tree,
    form: Form,
    mtime: u64,
    title: &str,
) -> Result<MadeLayer, LayerError> {
    let key = content_key(tree, mtime).map(|key| form.key(key).to_string());
    let known = |key: &String| stored(store, key).filter(|record| record.title == title);
    if let Some(record) = key.as_ref().and_then(known) {
        return Ok(record.into_layer(store, None, Origin::Stored));
    }
    let record = tree_record(store, tree, form, mtime, title)?;
    if let Some(key) = key {
        store.keep_record(LAYER_RECORD, &key, &record)?;
    }
    Ok(record.into_layer(store, None, Origin::Made))
}

/// What identifies a layer of `tree`, if its files are in memory.
fn content_key(tree: &Tree, mtime: u64) -> Option<Digest> {
    let mut hasher = Hasher::new();
    hasher.update(format!("tree {} {mtime}\n", recipe::LAYOUT).as_bytes());
    for (path, node) in tree.iter() {
        let said = match node {
            Node::Directory { mode } => format!("folder {mode:o}"),
            Node::Symlink { target } => format!("link {target}"),
            Node::File {
                source: Source::Bytes(bytes),
                mode,
            } => format!("file {mode:o} {}", Digest::of(bytes)),
            Node::File { .. } => return None,
        };
        // With lengths: a path or a target may hold whatever would otherwise end it.
        hasher.update(format!("{} {path} {} {said}\n", path.len(), said.len()).as_bytes());
    }
    Some(hasher.finish())
}

fn tree_record(
    store: &Store,
    tree: &Tree,
    form: Form,
    mtime: u64,
    title: &str,
) -> Result<LayerRecord, LayerError> {
    let (spliced, writer) = splice(store.writer()?, form, mtime, Threads::Two, |splicer| {
        for (path, node) in tree.iter() {
            match node {
                Node::Directory { mode } => splicer.directory(path, *mode)?,
                Node::File { source, mode } => splicer.source(path, *mode, source)?,
                Node::Symlink { target } => splicer.symlink(path, target)?,
            }
        }
        Ok(())
    })?;
    let (digest, size) = writer.commit()?;
    Ok(LayerRecord {
        digest,
        diff_id: spliced.diff_id,
        size,
        uncompressed_size: spliced.tar_size,
        title: title.to_owned(),
        media_type: form.layer_type(),
        toc: spliced.toc,
    })
}

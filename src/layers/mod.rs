//! Layers: bytes that are finished when made, and made once per recipe, ever.
//!
//! It takes wheels that the store has, and trees; it gives [`oci::Layer`](Layer)s whose blobs are in the store. A layer of
//! wheels has a key, its recipe's; a second build finds the record under that key and reads no wheel. Layers of trees are
//! made each time: their bytes are the project's.

pub mod base;
pub mod bytecode;
pub mod environment;
pub mod group;
pub mod install;
pub mod interpreter;
pub mod kept;
pub mod pipeline;
pub mod recipe;
pub mod reuse;
pub mod splice;
pub mod sums;
pub mod unpack;

mod schedule;
mod trees;
mod wheels;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use trees::{keyed_layer, layer_from_tree};
pub use wheels::{
    Ingredients, Ordered, known_apart, known_wheel, layer_from_wheels, layers_from_wheels, open_wheel,
    refuse_collisions, wheel_file,
};

use crate::digest::Digest;
use crate::oci::image::LayerType;
use crate::oci::{Layer, LayerBytes};
use crate::python::wheel::WheelError;
use crate::store::{Store, StoreError};
use install::InstallError;
use splice::SpliceError;

/// A layer with what is known of its making.
#[derive(Debug, Clone)]
pub struct MadeLayer {
    /// The recipe's key; layers of trees have none.
    pub key: Option<Digest>,
    pub layer: Layer,
    pub origin: Origin,
    /// Of the uncompressed tar, in bytes.
    pub uncompressed_size: u64,
    /// What it holds, in a few words: `numpy 2.1.0`, `click 8.1.7 and 12 more`.
    pub title: String,
}

/// Where a layer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From its contents, now.
    Made,
    /// The store had it.
    Stored,
    /// Of the image `from` that everything stands on; the lock names its digest.
    Base { from: String },
    /// From the image `from`, without its bytes. `vouched`: mlrails.sum has it, so that `from` is not believed in anything.
    Reused { from: String, vouched: bool },
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Wheel(#[from] WheelError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Splice(#[from] SpliceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its download is another step's business.
    #[error("the wheel {wheel} is not in the cache")]
    Missing { wheel: String },
    /// Its bytes in the cache had changed; it was removed from there.
    #[error("the wheel {wheel} was damaged in the cache")]
    Damaged { wheel: String },
    #[error("cannot read the wheel {wheel} from the cache")]
    Read { wheel: String, source: std::io::Error },
}

/// By which an eStargz layer is known.
pub const TOC_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";
const LAYER_RECORD: &str = "layer-1";

/// What the store keeps of a layer that was made.
#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    digest: Digest,
    diff_id: Digest,
    size: u64,
    uncompressed_size: u64,
    title: String,
    #[serde(default, skip_serializing_if = "is_gzip")]
    media_type: LayerType,
    /// Of the table of contents of an eStargz layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    toc: Option<Digest>,
}

fn is_gzip(kind: &LayerType) -> bool {
    *kind == LayerType::Gzip
}

/// The layer that the store has for `key`, if it has one, blob and all.
pub fn stored_layer(store: &Store, key: &Digest) -> Option<MadeLayer> {
    stored(store, &key.to_string()).map(|record| record.into_layer(store, Some(*key), Origin::Stored))
}

fn stored(store: &Store, key: &str) -> Option<LayerRecord> {
    let record: LayerRecord = store.record(LAYER_RECORD, key)?;
    (store.blob_size(&record.digest)? == record.size).then_some(record)
}

/// Removes every layer that was made; what they were made from stays. Gives the bytes that are free now.
pub fn forget_layers(store: &Store) -> Result<u64, StoreError> {
    let mut freed = 0;
    for record in store.records::<LayerRecord>(LAYER_RECORD)? {
        freed += discard(store, &record.digest)?;
    }
    store.forget_bucket(LAYER_RECORD)?;
    Ok(freed)
}

/// Removes all that was made here, so that only downloads stay: layers, bytecode, the base's encoded files, and what was found out of
/// wheels. Gives the bytes that are free now.
pub fn forget_made(store: &Store) -> Result<u64, StoreError> {
    let mut freed = forget_layers(store)?;
    let bytecode = store.records::<kept::Kept>(bytecode::RECORD)?;
    let bases = store.records::<base::KeptBase>(base::RECORD)?;
    for kept in bytecode.iter().chain(bases.iter().map(|base| &base.files)) {
        for digest in kept.blobs() {
            freed += discard(store, &digest)?;
        }
    }
    for bucket in [
        bytecode::RECORD,
        base::RECORD,
        wheels::PROVEN_RECORD,
        wheels::COLLISION_RECORD,
        wheels::WHEEL_RECORD,
    ] {
        store.forget_bucket(bucket)?;
    }
    Ok(freed)
}

fn discard(store: &Store, digest: &Digest) -> Result<u64, StoreError> {
    let size = store.blob_size(digest).unwrap_or_default();
    store.discard(digest)?;
    Ok(size)
}

impl LayerRecord {
    fn into_layer(self, store: &Store, key: Option<Digest>, origin: Origin) -> MadeLayer {
        MadeLayer {
            key,
            layer: Layer {
                media_type: self.media_type,
                digest: self.digest,
                size: self.size,
                diff_id: self.diff_id,
                created_by: format!("mlrails: {}", self.title),
                annotations: annotations(self.toc, self.uncompressed_size),
                bytes: LayerBytes::File(store.blob_path(&self.digest)),
            },
            origin,
            uncompressed_size: self.uncompressed_size,
            title: self.title,
        }
    }
}

/// What a manifest says of an eStargz layer: a snapshotter believes the table of contents that has this digest.
fn annotations(toc: Option<Digest>, uncompressed_size: u64) -> BTreeMap<String, String> {
    let Some(toc) = toc else {
        return BTreeMap::new();
    };
    BTreeMap::from([
        (TOC_ANNOTATION.to_owned(), toc.to_string()),
        (
            "io.containers.estargz.uncompressed-size".to_owned(),
            uncompressed_size.to_string(),
        ),
    ])
}

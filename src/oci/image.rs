//! Layers and images as values: immutable, finished when made.
//!
//! Source: OCI image-spec "Image Manifest", "Image Configuration", "Image Layer Filesystem Changeset".

use std::path::PathBuf;

use bytes::Bytes;

use crate::digest::Digest;

/// A finished layer: what a manifest says of it, what a config says of it, and where its bytes are.
#[derive(Debug, Clone)]
pub struct Layer {
    pub media_type: LayerType,
    /// Of the blob as it travels (compressed).
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// What the history line of the config says.
    pub created_by: String,
    pub bytes: LayerBytes,
}

/// Where a layer's blob can be read.
#[derive(Debug, Clone)]
pub enum LayerBytes {
    /// A file whose content has the layer's digest; readers verify.
    File(PathBuf),
    /// Small layers made on the spot (project code, artifacts' index).
    Memory(Bytes),
    /// Known to be in these repositories (`host/name`) and nowhere on this machine: mounted or left alone by a push, fetched
    /// by any other destination.
    Remote(Vec<String>),
}

/// The compression of a layer. The media type's family (OCI or Docker) is the image's, never the layer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    Tar,
    Gzip,
    Zstd,
}

/// One platform's image: what a config holds, and the layers, lowest first.
#[derive(Debug, Clone)]
pub struct Image {
    pub platform: Platform,
    pub layers: Vec<Layer>,
    /// The serialised config (`application/vnd.oci.image.config.v1+json`).
    pub config: Bytes,
    /// The serialised manifest.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: &'static str,
}

/// An OCI platform, for example `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Image {
    /// The manifest's digest: the image's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

//! Where an image can go: a registry, an OCI layout folder, an archive, an engine. Knows images, not Python.
//!
//! Takes a [`Publishable`] whose layers are finished; each destination is one file with one `publish`. A destination
//! shows the new image whole or the old one unchanged, whenever it is stopped. Layouts and archives need no network, so
//! theirs are plain functions; layers whose bytes are elsewhere are brought here first.

pub mod archive;
pub mod engine;
pub mod layout;
pub mod read;
pub mod registry;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hashing};
use crate::oci::image::ConfigError;
use crate::oci::{Layer, LayerBytes, Publishable};
use crate::registry::RegistryError;
use crate::store::StoreError;

/// What a publication did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of the top document (manifest or index); for an engine, whose names for images are its own, too.
    pub digest: Digest,
    /// Where it is now: a path, a reference, an engine's name for it.
    pub location: String,
    /// Layer bytes that the destination had already.
    pub reused: u64,
    pub reused_layers: usize,
    /// Layer bytes that were written or uploaded.
    pub sent: u64,
    pub sent_layers: usize,
}

/// What `--output PATH` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Layout(PathBuf),
    Archive(PathBuf, archive::Form),
}

impl Output {
    /// `x.docker.tar` is a Docker archive, `x.tar` an OCI archive, everything else a layout folder.
    pub fn of_path(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".docker.tar") {
            Self::Archive(path.to_owned(), archive::Form::Docker)
        } else if name.ends_with(".tar") {
            Self::Archive(path.to_owned(), archive::Form::Oci)
        } else {
            Self::Layout(path.to_owned())
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("cannot read the layer {title}")]
    Read { title: String, source: io::Error },
    /// The bytes on this machine are not the layer's.
    #[error("the layer {title} should be {expected} and its bytes are {actual}")]
    Corrupt {
        title: String,
        expected: Digest,
        actual: Digest,
    },
    /// The layer is in a registry, and was not brought here.
    #[error("the bytes of the layer {title} are not on this machine")]
    Elsewhere { title: String },
    #[error("{path} is not an OCI layout, and is not empty")]
    NotALayout { path: String },
    #[error("{path} is an OCI layout with images that mlrails did not put there")]
    Foreign { path: String },
    #[error("{path} exists and is not a file")]
    NotAFile { path: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

pub(crate) fn fault<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PublishError + 'a {
    move |source| PublishError::Io {
        action,
        path: path.display().to_string(),
        source,
    }
}

/// Copies a layer's bytes to `sink`, verified on the way: digest and size are checked at the end, so a sink must not
/// show what it was given before this has returned.
pub(crate) fn copy_layer(
    layer: &Layer,
    sink: &mut dyn io::Write,
    advance: &dyn Fn(u64),
) -> Result<(), CopyError> {
    let open: Box<dyn Read> = match &layer.bytes {
        LayerBytes::File(path) => Box::new(File::open(path).map_err(CopyError::Read)?),
        LayerBytes::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        LayerBytes::Remote(_) => return Err(CopyError::Elsewhere),
    };
    // One byte more than promised is enough to know that it lies; an endless file must not fill the disk.
    let mut source = Hashing::new(open.take(layer.size.saturating_add(1)));
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = source.read(&mut buffer).map_err(CopyError::Read)?;
        if count == 0 {
            break;
        }
        sink.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        advance(count as u64);
    }
    let (actual, length, _) = source.finish();
    if actual != layer.digest || length != layer.size {
        return Err(CopyError::Corrupt(actual));
    }
    Ok(())
}

/// Why a copy broke; whoever copies knows the names.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
    Corrupt(Digest),
    Elsewhere,
}

impl CopyError {
    pub(crate) fn of(self, layer: &Layer, path: &Path) -> PublishError {
        let title = layer.title();
        match self {
            Self::Read(source) => PublishError::Read { title, source },
            Self::Write(source) => fault("write", path)(source),
            Self::Corrupt(actual) => PublishError::Corrupt {
                title,
                expected: layer.digest,
                actual,
            },
            Self::Elsewhere => PublishError::Elsewhere { title },
        }
    }
}

/// Whether no layer of `image` needs the network to be read.
pub fn is_here(image: &Publishable) -> bool {
    image
        .layers()
        .iter()
        .all(|layer| !matches!(layer.bytes, LayerBytes::Remote(_)))
}

//! Reads images back out of layouts and archives: what `inspect` shows and what is verified.
//!
//! Gives images whose small documents are verified whole and whose layers are there by size; whoever reads a layer
//! verifies its bytes. Somebody else may have made all of it, so everything has a limit and nothing is followed.
//!
//! Source: OCI image-spec "Image Layout Specification".

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::digest::Digest;
use crate::oci::image::{ConfigError, media_type};
use crate::oci::manifest::{Descriptor, LARGEST_CONFIG, LARGEST_MANIFEST, ManifestError};
use crate::oci::{Document, Image, Index, LayerBytes, Publishable};

/// What is wrong with reading an image out of a layout or an archive.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {path}")]
    Io { path: String, source: io::Error },
    #[error("{path} is not an OCI layout")]
    NotALayout { path: String },
    #[error("{path}: {digest} should have {expected} bytes and has {actual}")]
    Size {
        path: String,
        digest: Digest,
        expected: u64,
        actual: u64,
    },
    #[error("{path}: {what} should be {expected} and is {actual}")]
    Digest {
        path: String,
        what: &'static str,
        expected: Digest,
        actual: Digest,
    },
    #[error("{path}: {digest} is refused")]
    Manifest {
        path: String,
        digest: Digest,
        source: ManifestError,
    },
    #[error("{path} is refused")]
    Config { path: String, source: ConfigError },
    #[error("{path}: {rule}")]
    Rule { path: String, rule: &'static str },
}

/// The blobs of a layout or an archive, as [`read`] needs them.
pub(crate) trait Blobs {
    /// For messages.
    fn shown(&self) -> String;
    /// A whole small blob or file by its path inside; `limit` in bytes.
    fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError>;
    /// Where a layer's bytes are; `None` if it is missing or of another size.
    fn layer(&self, path: &str, size: u64) -> Option<LayerBytes>;
}

struct Folder<'a>(&'a Path);

impl Blobs for Folder<'_> {
    fn shown(&self) -> String {
        self.0.display().to_string()
    }

    fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let full = self.0.join(path);
        let fault = |source| ReadError::Io {
            path: full.display().to_string(),
            source,
        };
        // A FIFO or a device would hang or never end.
        if !fs::metadata(&full).map_err(fault)?.is_file() {
            return Err(ReadError::Rule {
                path: full.display().to_string(),
                rule: "it is not a file",
            });
        }
        let mut bytes = Vec::new();
        let file = File::open(&full).map_err(fault)?;
        io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes).map_err(fault)?;
        if bytes.len() as u64 > limit {
            return Err(ReadError::Rule {
                path: full.display().to_string(),
                rule: "it is larger than anything of its kind may be",
            });
        }
        Ok(bytes)
    }

    fn layer(&self, path: &str, size: u64) -> Option<LayerBytes> {
        let path = self.0.join(path);
        let data = fs::symlink_metadata(&path).ok()?;
        (data.is_file() && data.len() == size).then_some(LayerBytes::File(path))
    }
}

/// Reads the images of a layout folder, all platforms; layers are there by size, and verified by whoever reads them.
pub fn read(folder: &Path) -> Result<Publishable, ReadError> {
    read_from(&Folder(folder))
}

pub(crate) fn read_from(blobs: &dyn Blobs) -> Result<Publishable, ReadError> {
    let layout = blobs.small("oci-layout", 4096)?;
    let version: serde_json::Value = serde_json::from_slice(&layout).unwrap_or_default();
    if !version["imageLayoutVersion"]
        .as_str()
        .is_some_and(|version| version.starts_with("1."))
    {
        return Err(ReadError::NotALayout { path: blobs.shown() });
    }
    let document = |descriptor: &Descriptor| -> Result<(Vec<u8>, Document), ReadError> {
        let bytes = blob(blobs, descriptor, "the manifest", LARGEST_MANIFEST)?;
        let parsed =
            Document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| ReadError::Manifest {
                path: blobs.shown(),
                digest: descriptor.digest,
                source,
            })?;
        Ok((bytes, parsed))
    };
    let image = |bytes: Vec<u8>, document: Document| -> Result<Image, ReadError> {
        let Document::Image(manifest) = document else {
            return Err(ReadError::Rule {
                path: blobs.shown(),
                rule: "an index inside an index is not read",
            });
        };
        for (layer, _) in &manifest.layers {
            if blobs
                .layer(&format!("blobs/sha256/{}", layer.digest.hex()), layer.size)
                .is_none()
            {
                return Err(ReadError::Rule {
                    path: format!("{}, {}", blobs.shown(), layer.digest),
                    rule: "the layer is missing or of another size than the manifest says",
                });
            }
        }
        let config = blob(blobs, &manifest.config, "the config", LARGEST_CONFIG)?;
        let place = |layer: &Descriptor| {
            blobs
                .layer(&format!("blobs/sha256/{}", layer.digest.hex()), layer.size)
                .unwrap_or(LayerBytes::Remote(Vec::new()))
        };
        Image::read(bytes.into(), &manifest, config.into(), place).map_err(|source| ReadError::Config {
            path: blobs.shown(),
            source,
        })
    };

    let top = blobs.small("index.json", LARGEST_MANIFEST)?;
    let top = Document::parse(&top, Some(media_type::INDEX)).map_err(|source| ReadError::Manifest {
        path: format!("{}, index.json", blobs.shown()),
        digest: Digest::of(&top),
        source,
    })?;
    let Document::Index(top) = top else {
        return Err(ReadError::NotALayout { path: blobs.shown() });
    };
    let mut entries: Vec<Descriptor> = top.manifests;
    entries.dedup_by_key(|entry| entry.digest);
    let [entry] = &entries[..] else {
        return Err(ReadError::Rule {
            path: blobs.shown(),
            rule: "it does not hold exactly one image",
        });
    };
    match document(entry)? {
        (bytes, Document::Index(index)) => {
            let mut images = Vec::new();
            for (descriptor, _) in index.images() {
                let (bytes, parsed) = document(descriptor)?;
                images.push(image(bytes, parsed)?);
            }
            Ok(Publishable::Index(Index {
                images,
                manifest: bytes.into(),
                media_type: index.family.index(),
            }))
        }
        (bytes, parsed) => Ok(Publishable::Image(image(bytes, parsed)?)),
    }
}

fn blob(
    blobs: &dyn Blobs,
    descriptor: &Descriptor,
    what: &'static str,
    limit: u64,
) -> Result<Vec<u8>, ReadError> {
    let bytes = blobs.small(&format!("blobs/sha256/{}", descriptor.digest.hex()), limit)?;
    let actual = Digest::of(&bytes);
    if actual != descriptor.digest {
        return Err(ReadError::Digest {
            path: blobs.shown(),
            what,
            expected: descriptor.digest,
            actual,
        });
    }
    if bytes.len() as u64 != descriptor.size {
        return Err(ReadError::Size {
            path: blobs.shown(),
            digest: descriptor.digest,
            expected: descriptor.size,
            actual: bytes.len() as u64,
        });
    }
    Ok(bytes)
}

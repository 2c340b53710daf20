//! Bases that registries hold: a reference becomes what a lock keeps, and what a lock keeps becomes layers.
//!
//! It takes a reference, the platforms and the Python that are built for; it gives the digests and the facts that the lock holds,
//! and later the image of one platform, whose layers stay where they are until somebody wants their bytes. Manifests and configs
//! are kept in the store under their digests, so that a second build asks nobody. It decides no default, and prints nothing.

mod facts;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use facts::{Facts, FactsError};

use crate::digest::Digest;
use crate::lock::base;
use crate::oci::image::ConfigError;
use crate::oci::manifest::ManifestError;
use crate::oci::reference::InvalidReference;
use crate::oci::{Document, Image, LayerBytes, Platform, Reference};
use crate::python::target::PythonVersion;
use crate::registry::{Registry, RegistryError};
use crate::reporter::Reporter;
use crate::store::{Store, StoreError};

/// What a base is wanted for.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// As the user wrote it.
    pub reference: &'a str,
    /// OCI names; one at least.
    pub platforms: &'a [&'a str],
    pub python: PythonVersion,
    /// The interpreter's absolute path, where the user says it.
    pub python_path: Option<&'a str>,
    /// `2.36`, or `musl`, where the user says it.
    pub glibc: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum BaseImageError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the base cannot be named so")]
    Reference(#[from] InvalidReference),
    #[error("the base {reference} cannot be read")]
    Manifest {
        reference: String,
        source: ManifestError,
    },
    #[error("the base {reference} cannot be read")]
    Config { reference: String, source: ConfigError },
    #[error("the base {reference} is for {is}, and {wanted} is built")]
    Platform {
        reference: String,
        wanted: String,
        is: String,
    },
    #[error("the lock has no digest of the base {reference} for {wanted}")]
    Unlocked { reference: String, wanted: String },
    #[error("base-python is `{path}`, which is no absolute path")]
    Path { path: String },
    #[error("base-glibc is `{text}`, which is neither a version such as 2.36 nor `musl`")]
    Libc { text: String },
    #[error("the base {reference}: {source}")]
    Facts { reference: String, source: FactsError },
}

/// What the lock keeps of `wanted`: digests for every platform, and where Python and what libc is in it. The image's layers are
/// read, once, where neither the user nor its config says that; all its platforms are taken to be alike.
pub async fn resolve(
    registry: &Registry,
    store: &Store,
    wanted: &Wanted<'_>,
    reporter: &dyn Reporter,
) -> Result<base::Registry, BaseImageError> {
    let reference: Reference = wanted.reference.parse()?;
    if let Some(path) = wanted.python_path
        && !path.starts_with('/')
    {
        return Err(BaseImageError::Path {
            path: path.to_owned(),
        });
    }
    let said = wanted.glibc.map(libc).transpose()?;
    let mut digests = BTreeMap::new();
    let mut first = None;
    for name in wanted.platforms {
        let image = asked(registry, store, &reference, name).await?;
        digests.insert((*name).to_owned(), image.digest());
        first.get_or_insert(image);
    }
    let Some(mut image) = first else {
        return Err(BaseImageError::Unlocked {
            reference: reference.to_string(),
            wanted: "any platform".to_owned(),
        });
    };
    let facts = match (
        wanted.python_path,
        said,
        facts::of_config(&reference, &image, wanted.python),
    ) {
        (Some(path), Some(glibc), _) => Facts {
            python_path: path.to_owned(),
            python: facts::version_said(&image, wanted.python).unwrap_or_else(|| wanted.python.to_string()),
            glibc,
        },
        (path, said, Some(known)) => known.but(path, said),
        (path, said, None) => {
            for layer in &mut image.layers {
                layer.bytes = LayerBytes::File(registry.layer(layer, store, reporter).await?);
            }
            let read = facts::read(&image, wanted.python, path, said);
            read.map_err(|source| BaseImageError::Facts {
                reference: reference.to_string(),
                source,
            })?
        }
    };
    Ok(base::Registry {
        reference: wanted.reference.to_owned(),
        digests,
        python_path: facts.python_path,
        python: facts.python,
        glibc: facts.glibc,
    })
}

/// The locked image for `platform`, an OCI name. Its layers are files where the store has them, and otherwise known to be in the
/// base's own repository.
pub async fn locked(
    registry: &Registry,
    store: &Store,
    base: &base::Registry,
    platform: &str,
) -> Result<Image, BaseImageError> {
    let reference: Reference = base.reference.parse()?;
    let digest = base
        .digests
        .get(platform)
        .ok_or_else(|| BaseImageError::Unlocked {
            reference: base.reference.clone(),
            wanted: platform.to_owned(),
        })?;
    let reference = reference.at(*digest);
    let mut image = match kept(store, &reference, digest)? {
        Some(image) => image,
        None => asked(registry, store, &reference, platform).await?,
    };
    for layer in &mut image.layers {
        if store.blob_size(&layer.digest) == Some(layer.size) {
            layer.bytes = LayerBytes::File(store.blob_path(&layer.digest));
        }
    }
    Ok(image)
}

/// Asks the registry, and keeps the two small documents.
async fn asked(
    registry: &Registry,
    store: &Store,
    reference: &Reference,
    platform: &str,
) -> Result<Image, BaseImageError> {
    let wrong = |is: &Platform| BaseImageError::Platform {
        reference: reference.to_string(),
        wanted: platform.to_owned(),
        is: is.to_string(),
    };
    let wanted: Platform = platform.parse().map_err(|_| BaseImageError::Unlocked {
        reference: reference.to_string(),
        wanted: platform.to_owned(),
    })?;
    let image = registry.image(reference, &wanted).await?;
    if (&image.platform.os, &image.platform.architecture) != (&wanted.os, &wanted.architecture) {
        return Err(wrong(&image.platform));
    }
    store.put(&image.manifest)?;
    store.put(&image.config)?;
    Ok(image)
}

/// The image that the store has the documents of.
fn kept(store: &Store, reference: &Reference, digest: &Digest) -> Result<Option<Image>, BaseImageError> {
    let Some(manifest) = store.read(digest)?.map(Bytes::from) else {
        return Ok(None);
    };
    let shown = || reference.to_string();
    let document = Document::parse(&manifest, None).map_err(|source| BaseImageError::Manifest {
        reference: shown(),
        source,
    })?;
    let Document::Image(parsed) = document else {
        return Ok(None);
    };
    let Some(config) = store.read(&parsed.config.digest)? else {
        return Ok(None);
    };
    let place = |_: &_| LayerBytes::Remote(vec![reference.name()]);
    let image = Image::read(manifest, &parsed, config.into(), place);
    Ok(Some(image.map_err(|source| BaseImageError::Config {
        reference: shown(),
        source,
    })?))
}

/// `2.36`, or none for `musl`.
fn libc(text: &str) -> Result<Option<String>, BaseImageError> {
    let is_version = || {
        let mut parts = text.split('.');
        let numbers = parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        numbers && text.contains('.')
    };
    match text {
        "musl" => Ok(None),
        _ if is_version() => Ok(Some(text.to_owned())),
        _ => Err(BaseImageError::Libc {
            text: text.chars().take(40).collect(),
        }),
    }
}

//! Media types: OCI's and Docker's, two families that are never mixed in one image.
//!
//! Sources: OCI image-spec "Media Types"; Docker "Image Manifest Version 2, Schema 2".

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// Media types of the OCI image-spec, "Media Types".
pub mod media_type {
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// What a client that reads all of them asks for.
    pub const ACCEPTED: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];
}

/// Whose media types an image's documents carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Oci,
    Docker,
}

impl Family {
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => media_type::INDEX,
            Self::Docker => media_type::DOCKER_LIST,
        }
    }

    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media_type::MANIFEST,
            Self::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => media_type::CONFIG,
            Self::Docker => media_type::DOCKER_CONFIG,
        }
    }

    /// `None` for zstd in Docker's family, which has no name for it.
    pub fn layer(self, kind: LayerType) -> Option<&'static str> {
        match (self, kind) {
            (Self::Oci, LayerType::Tar) => Some(media_type::LAYER),
            (Self::Oci, LayerType::Gzip) => Some(media_type::LAYER_GZIP),
            (Self::Oci, LayerType::Zstd) => Some(media_type::LAYER_ZSTD),
            (Self::Docker, LayerType::Tar) => Some(media_type::DOCKER_LAYER),
            (Self::Docker, LayerType::Gzip) => Some(media_type::DOCKER_LAYER_GZIP),
            (Self::Docker, LayerType::Zstd) => None,
        }
    }
}

/// The compression of a layer. The media type's family (OCI or Docker) is the image's, never the layer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerType {
    Tar,
    #[default]
    Gzip,
    Zstd,
}

impl LayerType {
    /// The tar in `blob`.
    pub fn decoded<'a>(self, blob: &'a mut dyn Read) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Tar => Box::new(blob),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(blob)),
            Self::Zstd => Box::new(zstd::Decoder::new(blob)?),
        })
    }

    /// The OCI media type.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Tar => media_type::LAYER,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// Reads a layer's media type. Foreign ("non-distributable") layers are read like any other: their `urls` are never
    /// looked at, so such a layer is there if the registry holds it and is missing if it does not.
    pub fn parse(media_type: &str) -> Option<(Self, Family)> {
        let oci = media_type
            .strip_prefix("application/vnd.oci.image.layer.v1.")
            .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1."));
        if let Some(form) = oci {
            let kind = match form {
                "tar" => Self::Tar,
                "tar+gzip" => Self::Gzip,
                "tar+zstd" => Self::Zstd,
                _ => return None,
            };
            return Some((kind, Family::Oci));
        }
        let form = media_type
            .strip_prefix("application/vnd.docker.image.rootfs.diff.")
            .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff."))?;
        match form {
            "tar" => Some((Self::Tar, Family::Docker)),
            "tar.gzip" => Some((Self::Gzip, Family::Docker)),
            _ => None,
        }
    }
}

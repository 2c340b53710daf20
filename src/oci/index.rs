//! Several platforms' images as one, and what a destination is handed: either.
//!
//! Source: OCI image-spec "Image Index".

use bytes::Bytes;
use serde_json::json;

use super::image::{ConfigError, Image, Layer};
use super::media::Family;
use crate::digest::Digest;

/// Images of several platforms under one digest.
#[derive(Debug, Clone)]
pub struct Index {
    pub images: Vec<Image>,
    /// The serialised index.
    pub manifest: Bytes,
    pub media_type: &'static str,
}

impl Index {
    /// Lists `images` in their order. All of one family, each platform once.
    pub fn new(images: Vec<Image>) -> Result<Self, ConfigError> {
        let family = images.first().map_or(Family::Oci, Image::family);
        if images.iter().any(|image| image.family() != family) {
            return Err(ConfigError::Mixed);
        }
        for (at, image) in images.iter().enumerate() {
            if images[..at]
                .iter()
                .any(|earlier| earlier.platform == image.platform)
            {
                return Err(ConfigError::Twice {
                    platform: image.platform.to_string(),
                });
            }
        }
        let entries: Vec<_> = images
            .iter()
            .map(|image| {
                let mut platform =
                    json!({ "architecture": image.platform.architecture, "os": image.platform.os });
                if let Some(variant) = &image.platform.variant {
                    platform["variant"] = variant.as_str().into();
                }
                json!({
                    "mediaType": image.media_type,
                    "digest": image.digest(),
                    "size": image.manifest.len(),
                    "platform": platform,
                })
            })
            .collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": family.index(), "manifests": entries });
        Ok(Self {
            images,
            manifest: Bytes::from(serde_json::to_vec(&manifest).map_err(ConfigError::Encode)?),
            media_type: family.index(),
        })
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// What destinations take.
#[derive(Debug, Clone)]
pub enum Publishable {
    Image(Image),
    Index(Index),
}

impl Publishable {
    /// One image as itself, several as an index.
    pub fn from_images(mut images: Vec<Image>) -> Result<Self, ConfigError> {
        match images.len() {
            1 => Ok(Self::Image(images.remove(0))),
            _ => Ok(Self::Index(Index::new(images)?)),
        }
    }

    /// The top document's digest: what is published is named by it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.manifest())
    }

    pub fn manifest(&self) -> &Bytes {
        match self {
            Self::Image(image) => &image.manifest,
            Self::Index(index) => &index.manifest,
        }
    }

    pub fn media_type(&self) -> &'static str {
        match self {
            Self::Image(image) => image.media_type,
            Self::Index(index) => index.media_type,
        }
    }

    pub fn images(&self) -> &[Image] {
        match self {
            Self::Image(image) => std::slice::from_ref(image),
            Self::Index(index) => &index.images,
        }
    }

    pub fn images_mut(&mut self) -> &mut [Image] {
        match self {
            Self::Image(image) => std::slice::from_mut(image),
            Self::Index(index) => &mut index.images,
        }
    }

    /// Every layer once, in order of first use: platforms share most of what has no machine code.
    pub fn layers(&self) -> Vec<&Layer> {
        let mut seen = std::collections::HashSet::new();
        self.images()
            .iter()
            .flat_map(|image| &image.layers)
            .filter(|layer| seen.insert(layer.digest))
            .collect()
    }
}

//! Manifests and indexes as they are read: from a registry, a layout, an archive. Everything in here was written by
//! somebody else, so everything has a limit.
//!
//! Sources: OCI image-spec "Content Descriptors", "Image Manifest", "Image Index"; Docker schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::media::{Family, LayerType, media_type};
use super::platform::Platform;
use crate::digest::Digest;

/// The largest manifest or index that is read, in bytes (the distribution-spec's advice for registries).
pub const LARGEST_MANIFEST: u64 = 4 << 20;
/// The largest config that is read, in bytes.
pub const LARGEST_CONFIG: u64 = 8 << 20;
/// The most layers of an image: what overlay filesystems and the Docker daemon take.
pub const MOST_LAYERS: usize = 127;
/// The most entries of an index that are read.
const MOST_ENTRIES: usize = 1000;

/// Points at bytes: what they are, their digest and their size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest's bytes are.
#[derive(Debug, Clone)]
pub enum Document {
    Image(ImageManifest),
    Index(ImageIndex),
}

/// One platform's image: a config and layers, lowest first.
#[derive(Debug, Clone)]
pub struct ImageManifest {
    pub family: Family,
    pub config: Descriptor,
    pub layers: Vec<(Descriptor, LayerType)>,
    pub annotations: BTreeMap<String, String>,
}

/// Several images, by platform.
#[derive(Debug, Clone)]
pub struct ImageIndex {
    pub family: Family,
    pub manifests: Vec<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not JSON of the expected shape")]
    Shape(#[source] serde_json::Error),
    #[error("the manifest is refused: {0}")]
    Rule(String),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Document {
    /// Reads a manifest. `declared` is the media type under which it was served or listed, if any: bytes that say
    /// otherwise of themselves are refused, and so are bytes that could be read as both kinds.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, ManifestError> {
        let rule = |text: &str| ManifestError::Rule(text.to_owned());
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(ManifestError::Rule(format!(
                "it is larger than {LARGEST_MANIFEST} bytes"
            )));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(ManifestError::Shape)?;
        if raw.fs_layers.is_some() || raw.schema_version != 2 {
            return Err(rule(
                "only schema version 2 is read; pull and push it with a newer tool",
            ));
        }
        let declared = declared
            .map(|text| text.split(';').next().unwrap_or_default().trim())
            .filter(|text| media_type::ACCEPTED.contains(text));
        if let (Some(own), Some(declared)) = (raw.media_type.as_deref(), declared)
            && own != declared
        {
            return Err(rule(
                "it says another media type of itself than it was served with",
            ));
        }
        let kind = raw.media_type.as_deref().or(declared);
        let annotations = raw.annotations;
        match (raw.config, raw.layers, raw.manifests) {
            (None, None, Some(manifests)) => {
                let family = match kind {
                    Some(media_type::INDEX) | None => Family::Oci,
                    Some(media_type::DOCKER_LIST) => Family::Docker,
                    Some(_) => return Err(rule("it lists manifests, and its media type is no index's")),
                };
                if manifests.len() > MOST_ENTRIES {
                    return Err(ManifestError::Rule(format!(
                        "an index of {} entries; {MOST_ENTRIES} are the most that are read",
                        manifests.len()
                    )));
                }
                Ok(Self::Index(ImageIndex {
                    family,
                    manifests,
                    annotations,
                }))
            }
            (Some(config), Some(layers), None) => {
                let family = match kind {
                    Some(media_type::MANIFEST) | None => Family::Oci,
                    Some(media_type::DOCKER_MANIFEST) => Family::Docker,
                    Some(_) => return Err(rule("it lists layers, and its media type is no image's")),
                };
                if config.media_type != family.config() {
                    return Err(ManifestError::Rule(format!(
                        "its config is `{}`, which is no image of this kind",
                        config.media_type
                    )));
                }
                if config.size > LARGEST_CONFIG {
                    return Err(rule("its config is too large"));
                }
                if layers.len() > MOST_LAYERS {
                    return Err(ManifestError::Rule(format!(
                        "it has {} layers; {MOST_LAYERS} are the most that engines take",
                        layers.len()
                    )));
                }
                let layers = layers
                    .into_iter()
                    .map(|layer| match LayerType::parse(&layer.media_type) {
                        // Some builders mix the families when they append to a base; reading that harms nobody.
                        Some((kind, _)) => Ok((layer, kind)),
                        None => Err(ManifestError::Rule(format!(
                            "the layer {} is `{}`, which is no layer",
                            layer.digest, layer.media_type
                        ))),
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Self::Image(ImageManifest {
                    family,
                    config,
                    layers,
                    annotations,
                }))
            }
            (_, _, Some(_)) => Err(rule("it is an index and an image at once")),
            _ => Err(rule(
                "it is neither an image (config, layers) nor an index (manifests)",
            )),
        }
    }
}

impl ImageIndex {
    /// The entries that are images: attestations and the like have no platform, or one called `unknown`.
    pub fn images(&self) -> impl Iterator<Item = (&Descriptor, &Platform)> {
        self.manifests.iter().filter_map(|entry| {
            let platform = entry.platform.as_ref()?;
            (platform.os != "unknown").then_some((entry, platform))
        })
    }

    /// The entry for `wanted`: one of exactly that variant first.
    pub fn find(&self, wanted: &Platform) -> Option<&Descriptor> {
        let exact = self.images().find(|(_, platform)| *platform == wanted);
        exact
            .or_else(|| self.images().find(|(_, platform)| platform.serves(wanted)))
            .map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(value: serde_json::Value, declared: Option<&str>, word: &str) {
        let error = Document::parse(value.to_string().as_bytes(), declared).unwrap_err();
        let text = format!(
            "{error} {:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        );
        assert!(text.contains(word), "{text}");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let digest = Digest::of(b"");
        let config = json!({"mediaType": media_type::CONFIG, "digest": digest, "size": 0});
        let both = json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []});
        refused(both.clone(), None, "at once");
        refused(both, Some(media_type::INDEX), "at once");
        let image =
            json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": []});
        refused(image.clone(), Some(media_type::INDEX), "another media type");
        assert!(Document::parse(image.to_string().as_bytes(), Some(media_type::MANIFEST)).is_ok());
        let untyped = json!({"schemaVersion": 2, "config": config, "layers": []});
        refused(untyped.clone(), Some(media_type::INDEX), "no image's");
        assert!(Document::parse(untyped.to_string().as_bytes(), Some("application/json")).is_ok());
        refused(
            json!({"schemaVersion": 1, "fsLayers": []}),
            None,
            "schema version 2",
        );
    }

    #[test]
    fn limits_and_digests_hold() {
        let digest = Digest::of(b"");
        let config = json!({"mediaType": media_type::CONFIG, "digest": digest, "size": 0});
        let layer = json!({"mediaType": media_type::LAYER_GZIP, "digest": digest, "size": 1});
        let many = vec![layer; 10_000];
        refused(
            json!({"schemaVersion": 2, "config": config, "layers": many}),
            None,
            "10000 layers",
        );
        let climbing =
            json!({"mediaType": media_type::LAYER, "digest": "sha256:../../etc/passwd", "size": 1});
        refused(
            json!({"schemaVersion": 2, "config": config, "layers": [climbing]}),
            None,
            "not a sha256 digest",
        );
        let entries = vec![json!({"mediaType": media_type::MANIFEST, "digest": digest, "size": 1}); 1001];
        refused(
            json!({"schemaVersion": 2, "manifests": entries}),
            None,
            "1001 entries",
        );
        let chart =
            json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest, "size": 0});
        refused(
            json!({"schemaVersion": 2, "config": chart, "layers": []}),
            None,
            "no image of this kind",
        );
    }
}

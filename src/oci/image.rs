//! Layers and images as values: immutable, finished when made.
//!
//! Source: OCI image-spec "Image Manifest", "Image Configuration", "Image Layer Filesystem Changeset".

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;

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

/// What a config says besides its platform and its layers' diff_ids.
#[derive(Debug, Clone)]
pub struct Config {
    pub created: jiff::Timestamp,
    /// `NAME=value`
    pub environment: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub user: String,
    pub folder: String,
    /// TCP
    pub ports: Vec<u16>,
    pub stop_signal: String,
    pub labels: BTreeMap<String, String>,
    /// One per layer, lowest first.
    pub history: Vec<History>,
}

/// How a layer came to be, for people.
#[derive(Debug, Clone)]
pub struct History {
    pub created: jiff::Timestamp,
    pub created_by: String,
    /// It made no layer.
    pub empty: bool,
}

impl Image {
    /// Describes `layers` by a config and a manifest with OCI media types. The same values give the same bytes: keys
    /// stand in a fixed order and nothing is added.
    pub fn new(platform: Platform, layers: Vec<Layer>, config: &Config) -> Result<Self, ConfigError> {
        if config.history.iter().filter(|entry| !entry.empty).count() != layers.len() {
            return Err(ConfigError::History);
        }
        if layers.len() > MOST_LAYERS {
            return Err(ConfigError::TooMany { layers: layers.len() });
        }
        let config = config_json(&platform, &layers, config);
        let config = Bytes::from(serde_json::to_vec(&config).map_err(ConfigError::Encode)?);
        let described: Vec<_> = layers
            .iter()
            .map(|layer| {
                json!({ "mediaType": layer.media_type.oci(), "digest": layer.digest, "size": layer.size })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": { "mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len() },
            "layers": described,
        });
        let manifest = Bytes::from(serde_json::to_vec(&manifest).map_err(ConfigError::Encode)?);
        Ok(Self {
            platform,
            layers,
            config,
            manifest,
            media_type: media_type::MANIFEST,
        })
    }

    /// The manifest's digest: the image's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// What overlay filesystems and the Docker daemon take.
pub const MOST_LAYERS: usize = 127;

/// Layers and configuration that cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the history does not have one entry per layer")]
    History,
    #[error("{layers} layers are more than the {MOST_LAYERS} that engines take")]
    TooMany { layers: usize },
    #[error("the image cannot be described")]
    Encode(serde_json::Error),
}

fn config_json(platform: &Platform, layers: &[Layer], config: &Config) -> serde_json::Value {
    let ports: serde_json::Map<_, _> = config
        .ports
        .iter()
        .map(|port| (format!("{port}/tcp"), json!({})))
        .collect();
    let history: Vec<_> = config
        .history
        .iter()
        .map(|entry| {
            let mut line = json!({ "created": entry.created.to_string(), "created_by": entry.created_by });
            if entry.empty {
                line["empty_layer"] = true.into();
            }
            line
        })
        .collect();
    let mut value = json!({
        "created": config.created.to_string(),
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "User": config.user,
            "ExposedPorts": ports,
            "Env": config.environment,
            "Entrypoint": config.entrypoint,
            "Cmd": config.command,
            "WorkingDir": config.folder,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
        },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>() },
        "history": history,
    });
    if let Some(variant) = &platform.variant {
        value["variant"] = variant.as_str().into();
    }
    value
}

/// Media types of the OCI image-spec, "Media Types".
pub mod media_type {
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
}

impl LayerType {
    /// The OCI media type.
    pub fn oci(self) -> &'static str {
        match self {
            Self::Tar => media_type::LAYER,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }
}

/// An OCI platform, for example `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

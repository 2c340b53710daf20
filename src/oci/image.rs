//! Layers and images as values: immutable, finished when made.
//!
//! Source: OCI image-spec "Image Manifest", "Image Configuration", "Image Layer Filesystem Changeset".

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::manifest::{Descriptor, ImageManifest, MOST_LAYERS};
use super::media::Family;
pub use super::media::{LayerType, media_type};
pub use super::platform::Platform;
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
    /// What the manifest says of it besides; Docker's has no place for it.
    pub annotations: BTreeMap<String, String>,
    pub bytes: LayerBytes,
}

impl Layer {
    /// As messages name it.
    pub fn title(&self) -> String {
        match self.created_by.is_empty() {
            true => self.digest.to_string(),
            false => self.created_by.clone(),
        }
    }
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
        Self::in_family(Family::Oci, platform, layers, config)
    }

    /// [`Image::new`] with the media types of `family`: Docker's where the base uses them, since the two never mix.
    pub fn in_family(
        family: Family,
        platform: Platform,
        layers: Vec<Layer>,
        config: &Config,
    ) -> Result<Self, ConfigError> {
        if config.history.iter().filter(|entry| !entry.empty).count() != layers.len() {
            return Err(ConfigError::History);
        }
        let config = config_json(&platform, &layers, config);
        Self::described(family, platform, layers, &config)
    }

    /// This image with more layers on top, each with a line of history; the rest of its config stays as it is.
    pub fn append(&self, layers: Vec<Layer>, created: jiff::Timestamp) -> Result<Self, ConfigError> {
        let mut config: serde_json::Value =
            serde_json::from_slice(&self.config).map_err(ConfigError::Encode)?;
        for layer in &layers {
            let line = json!({ "created": created.to_string(), "created_by": layer.created_by });
            for (list, entry) in [
                (&["history"][..], line),
                (&["rootfs", "diff_ids"], json!(layer.diff_id)),
            ] {
                let found = list
                    .iter()
                    .try_fold(&mut config, |value, key| value.get_mut(*key));
                let list = found.and_then(serde_json::Value::as_array_mut);
                list.ok_or(ConfigError::History)?.push(entry);
            }
        }
        let all = self.layers.iter().cloned().chain(layers).collect();
        Self::described(self.family(), self.platform.clone(), all, &config)
    }

    fn described(
        family: Family,
        platform: Platform,
        layers: Vec<Layer>,
        config: &serde_json::Value,
    ) -> Result<Self, ConfigError> {
        if layers.len() > MOST_LAYERS {
            return Err(ConfigError::TooMany { layers: layers.len() });
        }
        let config = Bytes::from(serde_json::to_vec(config).map_err(ConfigError::Encode)?);
        let described = layers
            .iter()
            .map(|layer| {
                let media_type = family.layer(layer.media_type).ok_or(ConfigError::Mixed)?;
                let mut descriptor =
                    json!({ "mediaType": media_type, "digest": layer.digest, "size": layer.size });
                if family == Family::Oci && !layer.annotations.is_empty() {
                    descriptor["annotations"] = json!(layer.annotations);
                }
                Ok(descriptor)
            })
            .collect::<Result<Vec<_>, ConfigError>>()?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": family.manifest(),
            "config": { "mediaType": family.config(), "digest": Digest::of(&config), "size": config.len() },
            "layers": described,
        });
        let manifest = Bytes::from(serde_json::to_vec(&manifest).map_err(ConfigError::Encode)?);
        Ok(Self {
            platform,
            layers,
            config,
            manifest,
            media_type: family.manifest(),
        })
    }

    /// An image that somebody made: `manifest` are the bytes that `parsed` was read from, `config` those it names.
    /// `place` says where a layer's bytes are. Layer by layer, the manifest and the config must agree.
    pub fn read(
        manifest: Bytes,
        parsed: &ImageManifest,
        config: Bytes,
        place: impl Fn(&Descriptor) -> LayerBytes,
    ) -> Result<Self, ConfigError> {
        let actual = Digest::of(&config);
        if actual != parsed.config.digest || config.len() as u64 != parsed.config.size {
            return Err(ConfigError::NotTheConfig {
                expected: parsed.config.digest,
                actual,
            });
        }
        let read: ReadConfig = serde_json::from_slice(&config).map_err(ConfigError::Encode)?;
        let diff_ids = read.rootfs.diff_ids;
        if diff_ids.len() != parsed.layers.len() {
            return Err(ConfigError::DiffIds {
                diff_ids: diff_ids.len(),
                layers: parsed.layers.len(),
            });
        }
        // History is advisory: where it does not fit the layers, they have no words.
        let mut words = read
            .history
            .unwrap_or_default()
            .into_iter()
            .filter(|line| !line.empty_layer);
        let layers = parsed
            .layers
            .iter()
            .zip(diff_ids)
            .map(|((descriptor, kind), diff_id)| Layer {
                media_type: *kind,
                digest: descriptor.digest,
                size: descriptor.size,
                diff_id,
                created_by: words.next().and_then(|line| line.created_by).unwrap_or_default(),
                annotations: descriptor.annotations.clone(),
                bytes: place(descriptor),
            })
            .collect();
        Ok(Self {
            platform: Platform {
                os: read.os.unwrap_or_else(|| "linux".to_owned()),
                architecture: read.architecture.unwrap_or_default(),
                variant: read.variant.filter(|variant| !variant.is_empty()),
            },
            layers,
            config,
            manifest,
            media_type: parsed.family.manifest(),
        })
    }

    /// The manifest's digest: the image's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The config's digest: the image's name inside an engine.
    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// Whose media types the manifest has.
    pub fn family(&self) -> Family {
        if self.media_type == Family::Docker.manifest() {
            Family::Docker
        } else {
            Family::Oci
        }
    }

    /// The labels in the config; empty where it has none.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let config: Option<ReadConfig> = serde_json::from_slice(&self.config).ok();
        config
            .and_then(|config| config.config?.labels)
            .unwrap_or_default()
    }

    /// How the config says that it is started; empty where it does not.
    pub fn started(&self) -> Started {
        let config: Option<ReadConfig> = serde_json::from_slice(&self.config).ok();
        let launch = config.and_then(|config| config.config);
        launch.map_or_else(Started::default, |launch| Started {
            environment: launch.environment.unwrap_or_default(),
            entrypoint: launch.entrypoint.unwrap_or_default(),
            user: launch.user.unwrap_or_default(),
        })
    }
}

/// What somebody's config says of the process that it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// `NAME=value`
    pub environment: Vec<String>,
    pub entrypoint: Vec<String>,
    pub user: String,
}

/// What is read of a config that somebody else wrote.
#[derive(Deserialize)]
struct ReadConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<ReadLaunch>,
    rootfs: ReadRootfs,
    history: Option<Vec<ReadHistory>>,
}

#[derive(Deserialize)]
struct ReadLaunch {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "Env")]
    environment: Option<Vec<String>>,
    #[serde(rename = "Entrypoint")]
    entrypoint: Option<Vec<String>>,
    #[serde(rename = "User")]
    user: Option<String>,
}

#[derive(Deserialize)]
struct ReadRootfs {
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct ReadHistory {
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

/// Layers and configuration that cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the history does not have one entry per layer")]
    History,
    #[error("{layers} layers are more than the {MOST_LAYERS} that engines take")]
    TooMany { layers: usize },
    #[error("the image's description is not JSON of the expected shape")]
    Encode(#[source] serde_json::Error),
    #[error("OCI and Docker media types do not go into one image (zstd layers are OCI's)")]
    Mixed,
    #[error("{platform} is there twice")]
    Twice { platform: String },
    #[error("the config should be {expected} and is {actual}")]
    NotTheConfig { expected: Digest, actual: Digest },
    #[error("the config has {diff_ids} diff_ids, and the manifest {layers} layers")]
    DiffIds { diff_ids: usize, layers: usize },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Document;

    fn layer(content: &'static [u8]) -> Layer {
        Layer {
            media_type: LayerType::Tar,
            digest: Digest::of(content),
            size: content.len() as u64,
            diff_id: Digest::of(content),
            created_by: "a layer".to_owned(),
            annotations: BTreeMap::new(),
            bytes: LayerBytes::Memory(Bytes::from_static(content)),
        }
    }

    fn config(layers: usize) -> Config {
        let line = History {
            created: jiff::Timestamp::UNIX_EPOCH,
            created_by: "a layer".to_owned(),
            empty: false,
        };
        Config {
            created: jiff::Timestamp::UNIX_EPOCH,
            environment: vec!["A=b".to_owned()],
            entrypoint: vec!["/hello".to_owned()],
            command: Vec::new(),
            user: "65532".to_owned(),
            folder: "/".to_owned(),
            ports: vec![8080],
            stop_signal: "SIGTERM".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            history: vec![line; layers],
        }
    }

    #[test]
    fn appending_is_making_with_more_layers() {
        let platform: Platform = "linux/arm64/v8".parse().unwrap();
        let (one, other) = (layer(b"one"), layer(b"other"));
        let small = Image::new(platform.clone(), vec![one.clone()], &config(1)).unwrap();
        let large = Image::new(platform, vec![one, other.clone()], &config(2)).unwrap();
        let appended = small.append(vec![other], jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(appended.manifest, large.manifest);
        assert_eq!(appended.config, large.config);
        assert_ne!(appended.digest(), small.digest());
    }

    #[test]
    fn what_was_made_is_read_back_and_lies_are_not() {
        let image = Image::new("linux/amd64".parse().unwrap(), vec![layer(b"one")], &config(1)).unwrap();
        let Document::Image(parsed) = Document::parse(&image.manifest, Some(image.media_type)).unwrap()
        else {
            panic!("an image");
        };
        let place = |_: &Descriptor| LayerBytes::Remote(Vec::new());
        let read = Image::read(image.manifest.clone(), &parsed, image.config.clone(), place).unwrap();
        assert_eq!(read.platform, image.platform);
        assert_eq!(read.layers[0].diff_id, image.layers[0].diff_id);
        assert_eq!(read.labels()["k"], "v");
        let other = Image::read(image.manifest.clone(), &parsed, Bytes::from_static(b"{}"), place);
        assert!(matches!(other, Err(ConfigError::NotTheConfig { .. })));
        let mut fewer = parsed.clone();
        fewer.layers.clear();
        let fewer = Image::read(image.manifest.clone(), &fewer, image.config.clone(), place);
        assert!(matches!(fewer, Err(ConfigError::DiffIds { .. })));
    }

    #[test]
    fn the_families_never_mix() {
        let mut zstd = layer(b"one");
        zstd.media_type = LayerType::Zstd;
        let made = Image::in_family(
            Family::Docker,
            "linux/amd64".parse().unwrap(),
            vec![zstd],
            &config(1),
        );
        assert!(matches!(made, Err(ConfigError::Mixed)));
        let docker = Image::in_family(
            Family::Docker,
            "linux/amd64".parse().unwrap(),
            vec![layer(b"1")],
            &config(1),
        )
        .unwrap();
        let text = std::str::from_utf8(&docker.manifest).unwrap();
        assert!(!text.contains("vnd.oci"), "{text}");
    }
}

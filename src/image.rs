//! Layers and a launch become an image: the config and the manifest, byte by byte the same from the same inputs.
//!
//! Takes finished layers (the base's first), how the image is started, and labels; gives an [`oci::Image`]. It knows
//! neither how a layer was made nor where the image will go. Nothing of a base's or an earlier image's config comes
//! along: environment, entrypoint, user and labels are all decided here.

use std::collections::BTreeMap;

use crate::oci::image::{Config, ConfigError, History};
use crate::oci::{Image, Layer, Platform, media::Family};
use crate::plan::Launch;

/// Everything an image is described by, besides its layers.
#[derive(Debug, Clone)]
pub struct Description {
    pub platform: Platform,
    /// Whose media types it has: the base's, since the two never mix.
    pub family: Family,
    pub launch: Launch,
    pub labels: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, else the beginning of time: an image's age is its content's, not its build's.
    pub created: jiff::Timestamp,
}

/// Puts `layers`, lowest first, and `description` together.
pub fn assemble(layers: Vec<Layer>, description: &Description) -> Result<Image, ConfigError> {
    let launch = &description.launch;
    let history = layers
        .iter()
        .map(|layer| History {
            created: description.created,
            created_by: layer.created_by.clone(),
            empty: false,
        })
        .collect();
    let config = Config {
        created: description.created,
        environment: launch
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        entrypoint: launch.entrypoint.clone(),
        command: launch.command.clone(),
        user: launch.user.clone(),
        folder: launch.folder.clone(),
        ports: launch.ports.clone(),
        stop_signal: "SIGTERM".to_owned(),
        labels: description.labels.clone(),
        history,
    };
    Image::in_family(description.family, description.platform.clone(), layers, &config)
}

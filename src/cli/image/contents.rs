//! What an image says of what is in it, beside its layers: the distributions, who needs each, and what was left out.
//!
//! It is a label, so that `inspect` shows it from the config alone. Sizes are those of the lock: a machine that has no wheel
//! writes the same label as one that has them all.

use serde::{Deserialize, Serialize};

use super::decide::Plan;
use crate::digest::Digest;
use crate::oci::Image;

pub const CONTENTS_LABEL: &str = "dev.mlrails.contents";

/// Both lists are sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub distributions: Vec<Distribution>,
    pub left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of the wheel, compressed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of the wheel's bytes.
    pub wheel: Digest,
    /// `src/churn/serve.py:3 imports pandas`, `pandas requires it`.
    pub needed: String,
}

/// Declared, and not reached from what is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    /// What leaving its wheel out saves, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

impl Contents {
    /// What `image` says of itself; nothing where it says nothing that can be read.
    pub fn said_of(image: &Image) -> Self {
        let labels = image.labels();
        let text = labels.get(CONTENTS_LABEL);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    pub fn of(plan: &Plan) -> Self {
        let included = plan.production.included.iter();
        let left_out = plan.production.left_out.iter();
        Self {
            distributions: included
                .map(|one| Distribution {
                    name: one.package.name.to_string(),
                    version: one.package.version.as_ref().map(ToString::to_string),
                    size: one.wheel.size,
                    wheel: one.wheel.digest,
                    needed: one.reason.to_string(),
                })
                .collect(),
            left_out: left_out
                .map(|one| LeftOut {
                    name: one.name.to_string(),
                    size: one.size,
                })
                .collect(),
        }
    }
}

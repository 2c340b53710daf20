//! Layers of an image that is in a registry, reused without their bytes.
//!
//! It takes the manifest and config of an image that mlrails made, and `mlrails.sum`; it gives layers whose bytes are
//! elsewhere. A key in a registry is a claim, not a proof: anyone who could once push there could attach it to a hostile
//! blob. So a claim that `mlrails.sum` contradicts is refused, one that it does not know is reused from the target's own
//! repository only, and an image whose label, manifest and config do not tell the same story is refused whole. It does not
//! know how an image was found, and reads no network.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::recipe::Form;
use super::sums::{Sum, Sums};
use super::{MadeLayer, Origin};
use crate::digest::Digest;
use crate::oci::{Image, Layer, LayerBytes, Reference};
use crate::plan::Launch;

/// The label that lists all layers of an image, lowest first (annotations do not survive Docker manifests).
pub const LABEL: &str = "dev.mlrails.layers";
/// The label with the version of mlrails that made the image.
pub const VERSION_LABEL: &str = "dev.mlrails.version";

/// What an image says of one of its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The recipe's key; none where the layer is made at every build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    pub digest: Digest,
    pub diff_id: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar, in bytes.
    pub uncompressed: u64,
    pub title: String,
}

/// What is said of `layers`, lowest first.
pub fn claims(layers: &[MadeLayer]) -> Vec<Claim> {
    let claim = |made: &MadeLayer| Claim {
        key: made.key,
        digest: made.layer.digest,
        diff_id: made.layer.diff_id,
        size: made.layer.size,
        uncompressed: made.uncompressed_size,
        title: made.title.clone(),
    };
    layers.iter().map(claim).collect()
}

/// The claims of `image`, which tell the same as its manifest and config; none where mlrails did not make it.
pub fn claimed(image: &Image, reference: &str) -> Result<Option<Vec<Claim>>, ReuseError> {
    let labels = image.labels();
    let Some(text) = labels.get(LABEL) else {
        return Ok(None);
    };
    let claims: Vec<Claim> = serde_json::from_str(text).map_err(|source| ReuseError::Label {
        reference: reference.to_owned(),
        source,
    })?;
    if claims.len() != image.layers.len() {
        return Err(ReuseError::Count {
            reference: reference.to_owned(),
            listed: claims.len(),
            there: image.layers.len(),
        });
    }
    for (number, (claim, layer)) in claims.iter().zip(&image.layers).enumerate() {
        let differs = if claim.digest != layer.digest {
            Some(("digest", claim.digest.to_string(), layer.digest.to_string()))
        } else if claim.diff_id != layer.diff_id {
            Some(("diff_id", claim.diff_id.to_string(), layer.diff_id.to_string()))
        } else if claim.size != layer.size {
            Some(("size", claim.size.to_string(), layer.size.to_string()))
        } else {
            None
        };
        if let Some((what, claimed, actual)) = differs {
            return Err(ReuseError::Layer {
                reference: reference.to_owned(),
                number: number + 1,
                what,
                claimed,
                actual,
            });
        }
    }
    Ok(Some(claims))
}

/// How much an image is believed that `mlrails.sum` does not vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is where this build will be pushed: whoever can write there decides what runs anyway.
    Target,
    Other,
}

/// An image that layers can be reused from.
#[derive(Debug)]
pub struct Previous {
    reference: String,
    /// With its registry.
    repository: String,
    standing: Standing,
    claims: BTreeMap<Digest, Claim>,
    /// Of all its layers.
    digests: BTreeSet<Digest>,
    /// Of its eStargz layers, by their digests.
    tables: BTreeMap<Digest, Digest>,
    wheels: BTreeSet<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReuseError {
    #[error("the layers that {reference} lists in its label cannot be read")]
    Label {
        reference: String,
        source: serde_json::Error,
    },
    #[error("{reference} lists {listed} layers in its label, and has {there}")]
    Count {
        reference: String,
        listed: usize,
        there: usize,
    },
    #[error("layer {number} of {reference} should have the {what} {claimed}, and has {actual}")]
    Layer {
        reference: String,
        number: usize,
        what: &'static str,
        claimed: String,
        actual: String,
    },
    #[error("{reference} lists the layer {key} twice")]
    Twice { reference: String, key: Digest },
    #[error("{reference} is not as mlrails made it: {what}")]
    Launch { reference: String, what: String },
    #[error(
        "{reference} has the layer {title} ({key}) with the {what} {claimed}, and mlrails.sum says {vouched}"
    )]
    Contradicted {
        reference: String,
        title: String,
        key: Digest,
        what: &'static str,
        claimed: String,
        vouched: String,
    },
}

impl Previous {
    /// What `image`, read from `reference`, offers; none where mlrails did not make it. `launch` is how the new image will be
    /// started: nothing of the old one's is taken over, but one that is started otherwise was tampered with. `environment`
    /// are the names of all variables that any image of ours may set; `wheels` are those that it says it holds.
    pub fn read(
        image: &Image,
        reference: &Reference,
        standing: Standing,
        (launch, environment): (&Launch, &[String]),
        wheels: BTreeSet<Digest>,
        sums: &Sums,
    ) -> Result<Option<Self>, ReuseError> {
        let shown = reference.to_string();
        let Some(listed) = claimed(image, &shown)? else {
            return Ok(None);
        };
        refuse_launch(image, &shown, launch, environment)?;
        let mut claims = BTreeMap::new();
        for claim in listed {
            let Some(key) = claim.key else { continue };
            contradict(&claim, key, &shown, sums)?;
            if claims.insert(key, claim).is_some() {
                return Err(ReuseError::Twice {
                    reference: shown,
                    key,
                });
            }
        }
        Ok(Some(Self {
            reference: shown,
            repository: reference.name(),
            standing,
            claims,
            digests: image.layers.iter().map(|layer| layer.digest).collect(),
            tables: tables(image),
            wheels,
        }))
    }

    /// Whether it holds all of `wheels`: what is in one image together was found apart when that was made.
    pub fn has_wheels(&self, wheels: &[Digest]) -> bool {
        wheels.iter().all(|wheel| self.wheels.contains(wheel))
    }

    /// The repository, where it holds the blob `digest`.
    pub fn holds(&self, digest: &Digest) -> Option<&str> {
        self.digests.contains(digest).then_some(&self.repository)
    }

    /// Whether it offers the layer `key`.
    pub fn has(&self, key: &Digest) -> bool {
        self.claims.contains_key(key)
    }
}

/// What the manifest says of the tables of contents.
fn tables(image: &Image) -> BTreeMap<Digest, Digest> {
    let said = image.layers.iter().filter_map(|layer| {
        let text = layer.annotations.get(super::TOC_ANNOTATION)?;
        Some((layer.digest, text.parse().ok()?))
    });
    said.collect()
}

/// The layer `key`, which is of `form`, of the first of `images` that has it and may be believed.
pub fn layer(images: &[Previous], key: &Digest, form: Form, sums: &Sums) -> Option<MadeLayer> {
    let vouched = sums.vouched(key);
    let usable = |image: &&Previous| {
        image.claims.contains_key(key) && (vouched.is_some() || image.standing == Standing::Target)
    };
    let first = images.iter().find(usable)?;
    let claim = first.claims.get(key)?;
    let toc = first.tables.get(&claim.digest).copied();
    if form == Form::Lazy && toc.is_none() {
        return None;
    }
    // A layer that is called otherwise gives an image another digest: what mlrails.sum calls it counts.
    let sum = vouched.cloned().unwrap_or_else(|| Sum {
        digest: claim.digest,
        diff_id: claim.diff_id,
        size: claim.size,
        uncompressed_size: claim.uncompressed,
        title: claim.title.clone(),
    });
    let repositories = images.iter().filter(usable).map(|image| image.repository.clone());
    let origin = Origin::Reused {
        from: first.reference.clone(),
        vouched: vouched.is_some(),
    };
    Some(remote(*key, (form, toc), sum, repositories.collect(), origin))
}

/// The layer `key` that `mlrails.sum` vouches for, whose blob was found in `repository` though no image that was read has it.
pub fn found(key: &Digest, form: Form, sums: &Sums, repository: &Reference) -> Option<MadeLayer> {
    let origin = Origin::Reused {
        from: repository.name(),
        vouched: true,
    };
    // Its table's digest is in a manifest that nobody read.
    if form == Form::Lazy {
        return None;
    }
    Some(remote(
        *key,
        (form, None),
        sums.vouched(key)?.clone(),
        vec![repository.name()],
        origin,
    ))
}

fn remote(
    key: Digest,
    (form, toc): (Form, Option<Digest>),
    sum: Sum,
    repositories: Vec<String>,
    origin: Origin,
) -> MadeLayer {
    MadeLayer {
        key: Some(key),
        layer: Layer {
            media_type: form.layer_type(),
            digest: sum.digest,
            size: sum.size,
            diff_id: sum.diff_id,
            created_by: format!("mlrails: {}", sum.title),
            annotations: super::annotations(toc, sum.uncompressed_size),
            bytes: LayerBytes::Remote(repositories),
        },
        origin,
        uncompressed_size: sum.uncompressed_size,
        title: sum.title,
    }
}

/// Refuses an image that sets what no image of ours sets, or, made by this very version, is started otherwise.
fn refuse_launch(
    image: &Image,
    reference: &str,
    launch: &Launch,
    environment: &[String],
) -> Result<(), ReuseError> {
    let refused = |what: String| ReuseError::Launch {
        reference: reference.to_owned(),
        what,
    };
    let started = image.started();
    for variable in &started.environment {
        let name = variable.split('=').next().unwrap_or_default();
        if !environment.iter().any(|known| known == name) {
            return Err(refused(format!("it sets the variable `{}`", name.escape_debug())));
        }
    }
    let is_ours = image.labels().get(VERSION_LABEL).map(String::as_str) == Some(env!("CARGO_PKG_VERSION"));
    if is_ours && started.entrypoint != launch.entrypoint {
        return Err(refused("it has another entrypoint".to_owned()));
    }
    if is_ours && started.user != launch.user {
        return Err(refused("it runs as another user".to_owned()));
    }
    Ok(())
}

/// Refuses what `mlrails.sum` knows to be otherwise.
fn contradict(claim: &Claim, key: Digest, reference: &str, sums: &Sums) -> Result<(), ReuseError> {
    let Some(sum) = sums.vouched(&key) else {
        return Ok(());
    };
    let (what, claimed, vouched) = if claim.digest != sum.digest {
        ("digest", claim.digest.to_string(), sum.digest.to_string())
    } else if claim.diff_id != sum.diff_id {
        ("diff_id", claim.diff_id.to_string(), sum.diff_id.to_string())
    } else if claim.size != sum.size {
        ("size", claim.size.to_string(), sum.size.to_string())
    } else {
        return Ok(());
    };
    Err(ReuseError::Contradicted {
        reference: reference.to_owned(),
        title: sum.title.clone(),
        key,
        what,
        claimed,
        vouched,
    })
}

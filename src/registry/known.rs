//! What a repository is known to hold before anything is pushed to it: what the image there now consists of.
//!
//! One manifest is read where otherwise each blob would be asked for. A registry keeps what a manifest of the same repository
//! names, and refuses a new manifest if it did not.

use std::collections::{BTreeMap, HashSet};

use super::{Registry, RegistryError};
use crate::digest::Digest;
use crate::oci::manifest::ImageManifest;
use crate::oci::{Document, Reference};

/// Blobs and names of one repository. Empty: nothing is known, and everything is asked for.
#[derive(Debug, Clone, Default)]
pub struct Known {
    names: BTreeMap<String, Digest>,
    blobs: HashSet<Digest>,
    /// Those of the blobs that this invocation has brought.
    sent: HashSet<Digest>,
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.blobs.is_empty()
    }

    pub fn has(&self, blob: &Digest) -> bool {
        self.blobs.contains(blob)
    }

    /// A blob was brought there a moment ago.
    pub fn was_sent(&mut self, blob: Digest) {
        self.blobs.insert(blob);
        self.sent.insert(blob);
    }

    /// Whether it is there because it was just brought.
    pub(super) fn is_new(&self, blob: &Digest) -> bool {
        self.sent.contains(blob)
    }

    fn holds(&mut self, manifest: Digest, image: &ImageManifest) {
        self.names.insert(manifest.to_string(), manifest);
        self.blobs.insert(image.config.digest);
        self.blobs
            .extend(image.layers.iter().map(|(layer, _)| layer.digest));
    }

    /// The manifest that `name`, a tag or a digest, is known to name.
    pub(super) fn named(&self, name: &str) -> Option<&Digest> {
        self.names.get(name)
    }
}

impl Registry {
    /// What is in `target`'s repository, as far as the manifest that `target` names now tells; nothing where there is none yet.
    pub async fn known(&self, target: &Reference) -> Result<Known, RegistryError> {
        let mut known = Known::default();
        let pulled = match self.manifest(target).await {
            Ok(pulled) => pulled,
            Err(RegistryError::NotFound { .. }) => return Ok(known),
            Err(error) => return Err(error),
        };
        known
            .names
            .insert(target.tag_or_latest().to_owned(), pulled.digest);
        match &pulled.document {
            Document::Image(image) => known.holds(pulled.digest, image),
            Document::Index(index) => {
                for (entry, _) in index.images() {
                    if let Ok(child) = self.manifest(&target.at(entry.digest)).await
                        && let Document::Image(image) = &child.document
                    {
                        known.holds(child.digest, image);
                    }
                }
            }
        }
        Ok(known)
    }
}

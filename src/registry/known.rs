//! What a repository is known to hold before anything is pushed to it: what the image there now consists of.
//!
//! One manifest is read where otherwise each blob would be asked for. A registry keeps what a manifest of the same repository
//! names, and refuses a new manifest if it did not. What a tag names is not known: it may be another by the time of the push.

use std::collections::HashSet;

use super::{Registry, RegistryError};
use crate::digest::Digest;
use crate::oci::manifest::ImageManifest;
use crate::oci::{Document, Reference};

/// Blobs of one repository. Empty: nothing is known, and everything is asked for.
#[derive(Debug, Clone, Default)]
pub struct Known {
    blobs: HashSet<Digest>,
    /// Those of the blobs that this invocation has brought.
    sent: HashSet<Digest>,
}

impl Known {
    /// Whether anything was read, and not brought by this invocation.
    pub(super) fn is_hearsay(&self) -> bool {
        self.blobs.len() > self.sent.len()
    }

    /// Without what was only read.
    pub(super) fn certain(&self) -> Self {
        Self {
            blobs: self.sent.clone(),
            sent: self.sent.clone(),
        }
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

    fn holds(&mut self, image: &ImageManifest) {
        self.blobs.insert(image.config.digest);
        self.blobs
            .extend(image.layers.iter().map(|(layer, _)| layer.digest));
    }
}

/// Of an index, so many images are read: what is not known is asked for.
const MOST_IMAGES: usize = 8;

impl Registry {
    /// What is in `target`'s repository, as far as the manifest that `target` names now tells; nothing where there is none yet.
    pub async fn known(&self, target: &Reference) -> Result<Known, RegistryError> {
        let mut known = Known::default();
        let pulled = match self.manifest(target).await {
            Ok(pulled) => pulled,
            Err(RegistryError::NotFound { .. }) => return Ok(known),
            Err(error) => return Err(error),
        };
        match &pulled.document {
            Document::Image(image) => known.holds(image),
            Document::Index(index) => {
                let read = index.images().take(MOST_IMAGES).map(|(entry, _)| {
                    let child = target.at(entry.digest);
                    async move { self.manifest(&child).await }
                });
                for child in futures::future::try_join_all(read).await? {
                    if let Document::Image(image) = &child.document {
                        known.holds(image);
                    }
                }
            }
        }
        Ok(known)
    }
}

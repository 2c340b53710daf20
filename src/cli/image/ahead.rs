//! What can be done for a push while the image is still being made: the registry is asked what it has, and layers that are finished
//! are brought there.
//!
//! Nothing of it has to succeed. What was not brought is pushed at the end, and what is wrong with a registry is told then; blobs that
//! no manifest comes to name are collected by the registry.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::previous::Network;
use super::{Failure, Session};
use crate::digest::Digest;
use crate::layers::MadeLayer;
use crate::layers::sums::Sums;
use crate::oci::{LayerBytes, Reference};
use crate::registry::{Known, Registry};

/// Layers on their way at once, to each repository.
const AT_ONCE: usize = 4;

/// The repositories that will be pushed to.
pub struct Ahead<'a> {
    session: &'a Session,
    targets: Vec<Target>,
    /// Whether layers leave before the image is whole.
    sends: bool,
}

struct Target {
    registry: Registry,
    reference: Reference,
    /// None where it could not be asked.
    known: Shared<BoxFuture<'static, Option<Arc<Known>>>>,
    permits: Arc<Semaphore>,
    sent: Mutex<Sent>,
}

#[derive(Default)]
struct Sent {
    begun: BTreeSet<Digest>,
    /// Each answers with the layer if it came across.
    tasks: Vec<JoinHandle<Option<Digest>>>,
}

impl<'a> Ahead<'a> {
    /// Begins to ask what is in the repositories of `names`. `sends`: layers may leave before the image is
    /// whole, since nothing but wheels that overwrite each other's files can refuse it then.
    pub fn new(
        names: &[Reference],
        sends: bool,
        network: &Network<'_>,
        session: &'a Session,
    ) -> Result<Self, Failure> {
        let mut targets: Vec<Target> = Vec::new();
        for name in names {
            if targets
                .iter()
                .any(|target| target.reference.name() == name.name())
            {
                continue;
            }
            let registry = network.registry()?;
            let (asked, reference) = (registry.clone(), name.clone());
            let known = session.spawn(async move { asked.known(&reference).await.ok().map(Arc::new) })?;
            targets.push(Target {
                registry,
                reference: name.clone(),
                // Not known is all that a panic there may lead to.
                known: known.map(|known| known.ok().flatten()).boxed().shared(),
                permits: Arc::new(Semaphore::new(AT_ONCE)),
                sent: Mutex::default(),
            });
        }
        Ok(Self {
            session,
            targets,
            sends,
        })
    }

    /// Nothing is pushed.
    pub fn nowhere(session: &'a Session) -> Self {
        Self {
            session,
            targets: Vec::new(),
            sends: false,
        }
    }

    /// Begins to bring a finished layer to every repository that has not got it; not one that mlrails.sum contradicts.
    pub fn send(&self, made: &MadeLayer, sums: &Sums) {
        let vouched = made.key.and_then(|key| sums.vouched(&key));
        let is_contradicted = vouched.is_some_and(|sum| sum.digest != made.layer.digest);
        if !self.sends || is_contradicted || matches!(made.layer.bytes, LayerBytes::Remote(_)) {
            return;
        }
        for target in &self.targets {
            let mut sent = target.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = made.layer.digest;
            let Ok(store) = self.session.store() else { return };
            if !sent.begun.insert(digest) {
                continue;
            }
            let (registry, reference) = (target.registry.clone(), target.reference.clone());
            let (known, permits) = (target.known.clone(), target.permits.clone());
            let (layer, reporter) = (made.layer.clone(), self.session.reporter());
            let task = self.session.spawn(async move {
                if known.await?.has(&digest) {
                    return None;
                }
                let _permit = permits.acquire().await.ok()?;
                let sent = registry.bring(&reference, &layer, &store, &*reporter).await;
                sent.ok()?.then_some(digest)
            });
            sent.tasks.extend(task);
        }
    }

    /// What the repository of `target` holds, with all that was brought there.
    pub fn known(&self, target: &Reference) -> Result<Known, Failure> {
        let Some(target) = self
            .targets
            .iter()
            .find(|one| one.reference.name() == target.name())
        else {
            return Ok(Known::default());
        };
        let tasks = std::mem::take(&mut target.sent.lock().unwrap_or_else(PoisonError::into_inner).tasks);
        self.session.block_on(async {
            let mut known = match target.known.clone().await {
                Some(known) => Known::clone(&known),
                None => Known::default(),
            };
            for task in tasks {
                if let Ok(Some(digest)) = task.await {
                    known.was_sent(digest);
                }
            }
            known
        })
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        // Where the build has failed, nothing more is to arrive.
        for target in &self.targets {
            let sent = target.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

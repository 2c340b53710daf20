//! The images that layers may be reused from: what the target's tag names now, and what `--cache-from` names.
//!
//! Read only when this machine lacks a layer: manifest and config, never a layer. An image that is not there, not for this
//! platform or not ours is no source; one that was tampered with ends the build.

use std::sync::OnceLock;

use super::contents::Contents;
use super::decide::Plan;
use super::{Args, Failure, Session};
use crate::cli::base;
use crate::digest::Digest;
use crate::layers::MadeLayer;
use crate::layers::recipe::Form;
use crate::layers::reuse::{self, Previous, Standing};
use crate::layers::sums::Sums;
use crate::oci::{Image, Platform, Reference};
use crate::plan::Launch;
use crate::project::Project;
use crate::registry::{Keychain, Registry, RegistryError};

/// The registries of one build: what is read from them first and pushed to them last, with the same tokens.
pub struct Network<'a> {
    args: &'a Args,
    session: &'a Session,
    sources: Vec<(Reference, Standing)>,
    registry: OnceLock<Registry>,
}

impl<'a> Network<'a> {
    /// `names` are the image's own. Nothing is asked yet.
    pub fn new(args: &'a Args, names: &[Reference], session: &'a Session) -> Result<Self, Failure> {
        let mut sources = Vec::new();
        if args.push {
            sources.extend(names.iter().map(|name| (name.clone(), Standing::Target)));
        }
        for text in &args.cache_from {
            let name: Reference = text.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            // Another tag of the repository that is pushed to is as trustworthy as the one that is overwritten.
            let is_target = args.push && names.iter().any(|target| target.name() == name.name());
            let standing = match is_target {
                true => Standing::Target,
                false => Standing::Other,
            };
            sources.push((name, standing));
        }
        if args.no_reuse {
            sources.clear();
        }
        Ok(Self {
            args,
            session,
            sources,
            registry: OnceLock::new(),
        })
    }

    pub fn with_bytecode(&self) -> bool {
        !self.args.no_bytecode
    }

    /// All registries; made when first needed.
    pub fn registry(&self) -> Result<Registry, Failure> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry.clone());
        }
        let client = self.session.client(&self.args.insecure_registries)?;
        let registry = Registry::new(client, Keychain::from_environment());
        Ok(self.registry.get_or_init(|| registry).clone())
    }

    /// The images of `plan`'s platform that layers can be reused from, in the order in which they are preferred.
    pub fn previous(&self, project: &Project, plan: &Plan, sums: &Sums) -> Result<Vec<Previous>, Failure> {
        let mut previous = Vec::new();
        if self.sources.is_empty() || self.session.offline() {
            return Ok(previous);
        }
        let registry = self.registry()?;
        let platform: Platform = plan
            .platform
            .name()
            .parse()
            .map_err(|error| Failure::new(format!("{error}")))?;
        let environment = variables(project)?;
        for (reference, standing) in &self.sources {
            let answer = self.session.block_on(registry.image(reference, &platform))?;
            let Some(image) = self.there(reference, answer)? else {
                continue;
            };
            if (&image.platform.os, &image.platform.architecture) != (&platform.os, &platform.architecture) {
                continue;
            }
            let ours = (&plan.launch, &environment[..]);
            let held = Contents::said_of(&image).distributions;
            let wheels = held.into_iter().map(|one| one.wheel).collect();
            match Previous::read(&image, reference, *standing, ours, wheels, sums)? {
                Some(image) => previous.push(image),
                None => self.session.printer().say(&format!(
                    "nothing is reused from {reference}: mlrails did not make it"
                )),
            }
        }
        Ok(previous)
    }

    /// Those of `keys` that mlrails.sum vouches for and whose blob is in a repository that was asked: layers of images before
    /// the last one.
    pub fn kept<'k>(
        &self,
        keys: impl Iterator<Item = &'k Digest>,
        form: Form,
        sums: &Sums,
    ) -> Result<Vec<(Digest, MadeLayer)>, Failure> {
        let mut layers = Vec::new();
        if self.session.offline() {
            return Ok(layers);
        }
        for key in keys {
            let Some(sum) = sums.vouched(key) else { continue };
            for (reference, _) in &self.sources {
                let asked = self.registry()?;
                let asked = asked.has_blob(reference, sum.digest, sum.size);
                // Whatever is wrong, it is not there to be reused.
                if matches!(self.session.block_on(asked)?, Ok(true))
                    && let Some(layer) = reuse::found(key, form, sums, reference)
                {
                    layers.push((*key, layer));
                    break;
                }
            }
        }
        Ok(layers)
    }

    /// The image, where there is one to reuse. What is wrong with an image is an error; what is wrong with the way there is one
    /// when it is pushed to anyway.
    fn there(
        &self,
        reference: &Reference,
        answer: Result<Image, RegistryError>,
    ) -> Result<Option<Image>, Failure> {
        match answer {
            Ok(image) => Ok(Some(image)),
            Err(RegistryError::NotFound { .. } | RegistryError::NoPlatform { .. }) => {
                self.session.printer().detail(&format!(
                    "nothing is reused from {reference}: it does not exist yet"
                ));
                Ok(None)
            }
            // Some registries answer so where a repository does not exist yet; a push without the right to will say it.
            Err(error @ (RegistryError::Denied { .. } | RegistryError::Http(_))) => {
                self.session
                    .printer()
                    .warn(&format!("nothing is reused from {reference}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The names of all variables that an image of this project may set, whichever buildpacks apply to it.
fn variables(project: &Project) -> Result<Vec<String>, Failure> {
    let additions = base::variables(&project.manifest)?;
    Ok(Launch::serving(&additions).environment.into_keys().collect())
}

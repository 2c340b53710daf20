//! Writing: what is not there yet, blobs first, then manifests, then tags. A tag never names something that is missing.
//!
//! A blob that the repository has stays where it is; one that another repository of the registry is known to have is
//! mounted from there; only the rest travels, several at a time. `upload` knows how one blob gets across.

use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::header;

use super::known::Known;
use super::stream::Content;
use super::upload::{Begun, Blob, Place, upload};
use super::{Registry, RegistryError};
use crate::digest::Digest;
use crate::http::{HttpError, Method, Request, StatusCode};
use crate::oci::manifest::LARGEST_MANIFEST;
use crate::oci::{Layer, LayerBytes, Publishable, Reference};
use crate::reporter::Reporter;
use crate::store::Store;

/// Uploads at once. More of them gain little where one is fast, and cost patience where the line is thin.
const AT_ONCE: usize = 4;

/// What a push did. Configs are among the bytes; they are no layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes that were there already or were mounted.
    pub reused: u64,
    pub reused_layers: usize,
    /// Bytes that were uploaded.
    pub sent: u64,
    pub sent_layers: usize,
}

/// A blob of the image.
struct Part<'a> {
    blob: Blob,
    kind: Kind<'a>,
}

impl<'a> Part<'a> {
    fn of(layer: &'a Layer) -> Self {
        Self {
            blob: Blob {
                title: layer.title(),
                digest: layer.digest,
                size: layer.size,
            },
            kind: Kind::Layer(layer),
        }
    }
}

enum Kind<'a> {
    Layer(&'a Layer),
    Config(&'a bytes::Bytes),
}

enum Done {
    Reused,
    Sent,
}

/// Whether the registry had to judge a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// All of them were there.
    Nothing,
    Manifests,
}

impl Written {
    fn or(self, other: Self) -> Self {
        if self == Self::Nothing { other } else { self }
    }
}

impl Registry {
    /// Puts `image` into `target`'s repository, and each of `tags` on it. Layers whose bytes are in other registries
    /// are brought into `store` first; those that are in the same one never travel. What is `known` to be there is not asked for; where
    /// the registry then says otherwise, everything is.
    pub async fn push(
        &self,
        target: &Reference,
        tags: &[&str],
        image: &Publishable,
        known: &Known,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<Pushed, RegistryError> {
        if target.digest().is_some() {
            return Err(RegistryError::Target {
                reference: target.to_string(),
            });
        }
        within_limits(target, image)?;
        let host = self.host(target)?;
        let place = Place {
            client: self.client(),
            host: &host,
            target,
        };
        let first = self.put(&place, tags, image, known, store, reporter).await;
        let believed = match &first {
            // The registry has compared nothing: that the blobs are there was only read.
            Ok((_, Written::Nothing)) => known.is_hearsay(),
            Err(RegistryError::Push { .. }) => known.is_hearsay(),
            _ => false,
        };
        let outcome = match believed {
            true => {
                self.put(&place, tags, image, &known.certain(), store, reporter)
                    .await
            }
            false => first,
        };
        outcome.map(|(pushed, _)| pushed)
    }

    /// Brings one layer into `target`'s repository, ahead of the image that will have it; whether it had to travel.
    pub async fn bring(
        &self,
        target: &Reference,
        layer: &Layer,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<bool, RegistryError> {
        fits(target, layer)?;
        let host = self.host(target)?;
        let place = Place {
            client: self.client(),
            host: &host,
            target,
        };
        let part = Part::of(layer);
        let (_, done) = self
            .bring_across(&place, part, &Known::default(), store, reporter)
            .await?;
        Ok(matches!(done, Done::Sent))
    }

    async fn put(
        &self,
        place: &Place<'_>,
        tags: &[&str],
        image: &Publishable,
        known: &Known,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<(Pushed, Written), RegistryError> {
        let pushed = futures::stream::iter(parts(image))
            .map(|part| self.bring_across(place, part, known, store, reporter))
            .buffer_unordered(AT_ONCE)
            .try_fold(Pushed::default(), |mut pushed, (part, done)| {
                let layers = usize::from(matches!(part.kind, Kind::Layer(_)));
                match done {
                    Done::Reused => {
                        pushed.reused += part.blob.size;
                        pushed.reused_layers += layers;
                    }
                    Done::Sent => {
                        pushed.sent += part.blob.size;
                        pushed.sent_layers += layers;
                    }
                }
                std::future::ready(Ok(pushed))
            })
            .await?;
        let mut written = Written::Nothing;
        if let Publishable::Index(index) = image {
            for one in &index.images {
                let name = one.digest().to_string();
                written = written.or(manifest(place, &name, one.media_type, &one.manifest).await?);
            }
        }
        let by_digest = image.digest().to_string();
        let names = if tags.is_empty() { &[&by_digest[..]] } else { tags };
        for name in names {
            written = written.or(manifest(place, name, image.media_type(), image.manifest()).await?);
        }
        Ok((pushed, written))
    }

    async fn bring_across<'a>(
        &self,
        place: &Place<'_>,
        part: Part<'a>,
        known: &Known,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<(Part<'a>, Done), RegistryError> {
        match self.across(place, &part, known, store, reporter).await {
            Ok(done) => Ok((part, done)),
            Err(RegistryError::Http(source)) => Err(named(place, &part.blob.title, source)),
            Err(error) => Err(error),
        }
    }

    async fn across(
        &self,
        place: &Place<'_>,
        part: &Part<'_>,
        known: &Known,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<Done, RegistryError> {
        let blob = &part.blob;
        if known.has(&blob.digest) {
            return Ok(if known.is_new(&blob.digest) {
                Done::Sent
            } else {
                Done::Reused
            });
        }
        // A manifest of this very repository names it, or so whoever read that says: the registry keeps what a manifest
        // names, and refuses the new manifest if it did not.
        if let Kind::Layer(layer) = part.kind
            && let LayerBytes::Remote(repositories) = &layer.bytes
            && repositories.contains(&place.target.name())
        {
            return Ok(Done::Reused);
        }
        if place.has(blob).await? {
            return Ok(Done::Reused);
        }
        let mut opened = None;
        let content = match part.kind {
            Kind::Config(bytes) => Content::Memory(bytes.clone()),
            Kind::Layer(layer) => match &layer.bytes {
                LayerBytes::File(path) => Content::File(path.clone()),
                LayerBytes::Memory(bytes) => Content::Memory(bytes.clone()),
                LayerBytes::Remote(repositories) => {
                    for name in repositories {
                        let from = Reference::of_name(name)?;
                        if from.registry() != place.target.registry() || from.name() == place.target.name() {
                            continue;
                        }
                        match place.mount(blob, &from).await {
                            Some(Begun::Done) => return Ok(Done::Reused),
                            Some(Begun::Open(upload)) => opened = Some(upload),
                            None => {}
                        }
                    }
                    Content::File(self.layer(layer, store, reporter).await?)
                }
            },
        };
        upload(place, blob, &content, opened, reporter).await?;
        Ok(Done::Sent)
    }
}

/// Registries that are known to take no larger layer, by their host's ending, in bytes. What is too large is told before
/// anything is sent; what is not here says so itself.
const LARGEST_LAYERS: [(&str, u64); 2] = [("ghcr.io", 10_000_000_000), (".amazonaws.com", 52_000_000_000)];

/// Whether the registry takes a layer of that size, as far as that is known.
fn fits(target: &Reference, layer: &Layer) -> Result<(), RegistryError> {
    let host = target.registry();
    match LARGEST_LAYERS.iter().find(|(ending, _)| host.ends_with(ending)) {
        Some((_, limit)) if layer.size > *limit => Err(RegistryError::TooLarge {
            registry: host.to_owned(),
            title: layer.title(),
            size: layer.size,
            limit: *limit,
        }),
        _ => Ok(()),
    }
}

fn within_limits(target: &Reference, image: &Publishable) -> Result<(), RegistryError> {
    for layer in image.layers() {
        fits(target, layer)?;
    }
    let host = target.registry();
    for one in image.images() {
        if one.manifest.len() as u64 > LARGEST_MANIFEST {
            return Err(RegistryError::TooLarge {
                registry: host.to_owned(),
                title: format!("the manifest of {}", one.platform),
                size: one.manifest.len() as u64,
                limit: LARGEST_MANIFEST,
            });
        }
    }
    Ok(())
}

/// All that an image consists of, each once, the largest first: a large blob that starts last is waited for alone.
fn parts(image: &Publishable) -> Vec<Part<'_>> {
    let layers = image.layers().into_iter().map(Part::of);
    let configs = image.images().iter().map(|one| Part {
        blob: Blob {
            title: format!("the config of {}", one.platform),
            digest: Digest::of(&one.config),
            size: one.config.len() as u64,
        },
        kind: Kind::Config(&one.config),
    });
    let mut parts: Vec<_> = layers.chain(configs).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.blob.size));
    let mut seen = std::collections::HashSet::new();
    parts.retain(|part| seen.insert(part.blob.digest));
    parts
}

/// Puts a manifest under `name`, a digest or a tag, unless it is there: some registries refuse to move a tag, even to
/// where it is.
async fn manifest(
    place: &Place<'_>,
    name: &str,
    media_type: &str,
    bytes: &bytes::Bytes,
) -> Result<Written, RegistryError> {
    let digest = Digest::of(bytes).to_string();
    let url = place
        .host
        .url(place.target.repository(), &format!("manifests/{name}"));
    let scopes = place.scopes();
    let question = Request::new(Method::HEAD, url.clone()).header(header::ACCEPT, media_type);
    let put = Request::new(Method::PUT, url)
        .header(header::CONTENT_TYPE, media_type)
        .body(bytes.clone());
    let title = || format!("the manifest {name}");
    let answer = async {
        let found = place.host.send(question, &scopes).await?;
        if found.status == StatusCode::OK && found.header("docker-content-digest") == Some(&digest) {
            return Ok(Written::Nothing);
        }
        let response = place.host.send(put, &scopes).await?;
        if !response.status.is_success() {
            return Err(place.refused(response).await);
        }
        match response.header("docker-content-digest") {
            Some(said) if said != digest => Err(RegistryError::Mismatch {
                reference: format!("{}:{name}", place.target.name()),
                what: "the manifest",
                expected: digest.clone(),
                actual: said.chars().filter(|c| !c.is_control()).take(80).collect(),
            }),
            _ => Ok(Written::Manifests),
        }
    };
    answer.await.map_err(|error| match error {
        RegistryError::Http(source) => named(place, &title(), source),
        error => error,
    })
}

fn named(place: &Place<'_>, title: &str, source: HttpError) -> RegistryError {
    RegistryError::Push {
        title: title.to_owned(),
        repository: place.target.name(),
        source,
    }
}

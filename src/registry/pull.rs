//! Reading: manifests, configs, and layers into the store. Nothing is believed that does not hash to its name.

use std::path::PathBuf;

use bytes::Bytes;

use super::auth::{Host, Scope};
use super::{Registry, RegistryError};
use crate::digest::Digest;
use crate::fetch::{self, Expected, FetchError};
use crate::http::{HttpError, Request, StatusCode};
use crate::oci::manifest::{Descriptor, LARGEST_MANIFEST};
use crate::oci::media::media_type;
use crate::oci::{Document, Image, Index, Layer, LayerBytes, Platform, Publishable, Reference};
use crate::reporter::Reporter;
use crate::store::Store;

/// A manifest or an index as it was served: its own bytes, and what they say.
#[derive(Debug, Clone)]
pub struct Pulled {
    pub digest: Digest,
    pub bytes: Bytes,
    pub document: Document,
}

impl Registry {
    /// The manifest or index that `reference` names; `NotFound` where there is none.
    pub async fn manifest(&self, reference: &Reference) -> Result<Pulled, RegistryError> {
        let host = self.host(reference)?;
        let url = host.url(
            reference.repository(),
            &format!("manifests/{}", reference.place()),
        );
        let request = Request::get(url).header(reqwest::header::ACCEPT, &media_type::ACCEPTED.join(", "));
        let small = self
            .small(
                &host,
                reference,
                request,
                LARGEST_MANIFEST,
                reference.digest(),
                "the manifest",
            )
            .await?;
        let document = Document::parse(&small.bytes, small.media_type.as_deref()).map_err(|source| {
            RegistryError::Manifest {
                reference: reference.to_string(),
                source,
            }
        })?;
        Ok(Pulled {
            digest: small.digest,
            bytes: small.bytes,
            document,
        })
    }

    /// The image of `reference` for `platform`: manifest and config only. Its layers are known to be in this repository.
    /// A reference to a single image answers with that image, whatever its platform: the caller compares.
    pub async fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, RegistryError> {
        let pulled = self.manifest(reference).await?;
        let Document::Index(index) = &pulled.document else {
            return self.described(reference, pulled).await;
        };
        let entry = index.find(platform).ok_or_else(|| RegistryError::NoPlatform {
            reference: reference.to_string(),
            wanted: platform.to_string(),
            there: index.images().map(|(_, platform)| platform.to_string()).collect(),
        })?;
        let child = self.manifest(&reference.at(entry.digest)).await?;
        self.described(reference, child).await
    }

    /// All that `reference` names: one image, or an index with every platform's.
    pub async fn images(&self, reference: &Reference) -> Result<Publishable, RegistryError> {
        let pulled = self.manifest(reference).await?;
        let Document::Index(index) = &pulled.document else {
            return Ok(Publishable::Image(self.described(reference, pulled).await?));
        };
        let mut images = Vec::new();
        for (entry, _) in index.images() {
            let child = self.manifest(&reference.at(entry.digest)).await?;
            images.push(self.described(reference, child).await?);
        }
        Ok(Publishable::Index(Index {
            images,
            manifest: pulled.bytes.clone(),
            media_type: index.family.index(),
        }))
    }

    async fn described(&self, reference: &Reference, pulled: Pulled) -> Result<Image, RegistryError> {
        let Document::Image(manifest) = &pulled.document else {
            // An index that lists an index could list itself.
            return Err(RegistryError::Nested {
                reference: reference.to_string(),
            });
        };
        let config = self.blob(reference, &manifest.config, "the config").await?;
        let place = |_: &Descriptor| LayerBytes::Remote(vec![reference.name()]);
        Image::read(pulled.bytes.clone(), manifest, config, place).map_err(|source| RegistryError::Config {
            reference: reference.to_string(),
            source,
        })
    }

    /// A small blob, in memory.
    async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        what: &'static str,
    ) -> Result<Bytes, RegistryError> {
        let host = self.host(reference)?;
        let url = host.url(reference.repository(), &format!("blobs/{}", descriptor.digest));
        let small = self
            .small(
                &host,
                reference,
                Request::get(url),
                descriptor.size,
                Some(descriptor.digest),
                what,
            )
            .await?;
        Ok(small.bytes)
    }

    /// Reads a small body of up to `limit` bytes; again where it broke off or was not what was asked for.
    async fn small(
        &self,
        host: &Host,
        reference: &Reference,
        request: Request,
        limit: u64,
        expected: Option<Digest>,
        what: &'static str,
    ) -> Result<Small, RegistryError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match small_once(host, reference, &request, limit, expected, what).await {
                Ok(small) => return Ok(small),
                Err(RegistryError::Http(
                    error @ (HttpError::Truncated { .. } | HttpError::Stalled { .. }),
                )) => RegistryError::Http(error),
                // Once more: a proxy's bad cache entry may be gone, a wrong registry stays wrong.
                Err(error @ RegistryError::Mismatch { .. }) if tries == 1 => error,
                Err(error) => return Err(error),
            };
            if tries >= self.client().options().tries {
                return Err(error);
            }
            self.client().pause(tries, None).await;
        }
    }

    /// Whether the repository of `reference` has the blob, of that size. Nothing of it is read.
    pub async fn has_blob(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
    ) -> Result<bool, RegistryError> {
        let host = self.host(reference)?;
        let url = host.url(reference.repository(), &format!("blobs/{digest}"));
        let request = Request::new(crate::http::Method::HEAD, url);
        let response = host.send(request, &[Scope::pull(reference.repository())]).await?;
        let fits = response.content_length().is_none_or(|length| length == size);
        Ok(response.status == StatusCode::OK && fits)
    }

    /// Makes sure that a layer's bytes are in the store, and answers with their file. A layer that is here already is
    /// answered as it is; its readers verify it.
    pub async fn layer(
        &self,
        layer: &Layer,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<PathBuf, RegistryError> {
        let path = store.blob_path(&layer.digest);
        if store.blob_size(&layer.digest) == Some(layer.size) {
            return Ok(path);
        }
        let LayerBytes::Remote(repositories) = &layer.bytes else {
            return Err(RegistryError::Nowhere {
                title: layer.created_by.clone(),
            });
        };
        let mut failed = RegistryError::Nowhere {
            title: layer.created_by.clone(),
        };
        for name in repositories {
            match self
                .layer_from(&Reference::of_name(name)?, layer, store, reporter)
                .await
            {
                Ok(()) => return Ok(path),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn layer_from(
        &self,
        repository: &Reference,
        layer: &Layer,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<(), RegistryError> {
        let host = self.host(repository)?;
        let scopes = [Scope::pull(repository.repository())];
        let url = host.url(repository.repository(), &format!("blobs/{}", layer.digest));
        let expected = Expected {
            digest: layer.digest,
            size: Some(layer.size),
        };
        let title = match layer.created_by.is_empty() {
            true => layer.digest.to_string(),
            false => layer.created_by.clone(),
        };
        let mut negotiated = false;
        loop {
            let request = Request::get(url.clone()).credentials(host.authorize(&scopes).await?);
            match fetch::blob(self.client(), store, &request, &title, expected, reporter).await {
                Err(FetchError::Http(HttpError::Status { status, .. }))
                    if status == StatusCode::UNAUTHORIZED =>
                {
                    if negotiated {
                        return Err(host.denied(status, repository.repository(), "pull").await);
                    }
                    // The download's answer is gone with its headers: one small request has the challenge again.
                    negotiated = true;
                    let probe = Request::new(crate::http::Method::HEAD, url.clone());
                    let response = self.client().send_any(probe).await?;
                    host.negotiate(&response, &scopes).await?;
                }
                other => return Ok(other?),
            }
        }
    }
}

struct Small {
    bytes: Bytes,
    digest: Digest,
    media_type: Option<String>,
}

async fn small_once(
    host: &Host,
    reference: &Reference,
    request: &Request,
    limit: u64,
    expected: Option<Digest>,
    what: &'static str,
) -> Result<Small, RegistryError> {
    let scopes = [Scope::pull(reference.repository())];
    let response = host.send(request.clone(), &scopes).await?;
    match response.status.as_u16() {
        200 => {}
        404 => {
            return Err(RegistryError::NotFound {
                reference: reference.to_string(),
            });
        }
        401 | 403 => return Err(host.denied(response.status, reference.repository(), "pull").await),
        _ => return Err(response.into_error().await.into()),
    }
    let media_type = response.header("content-type").map(str::to_owned);
    let said = response
        .header("docker-content-digest")
        .and_then(|text| text.parse::<Digest>().ok());
    let bytes = response.bytes(limit).await?;
    let digest = Digest::of(&bytes);
    // What was asked for by digest must be it; what was asked for by tag must at least be what the registry says it is.
    if let Some(expected) = expected.or(said)
        && expected != digest
    {
        return Err(RegistryError::Mismatch {
            reference: reference.to_string(),
            what,
            expected: expected.to_string(),
            actual: digest.to_string(),
        });
    }
    Ok(Small {
        bytes,
        digest,
        media_type,
    })
}

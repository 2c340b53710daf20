//! OCI registries: manifests and configs in, images out; blobs verified on the way.
//!
//! [`Registry`] is one invocation's view of all registries: it holds logins and tokens, each for the registry that they
//! belong to. `auth` decides who is shown what, `pull` reads, `push` writes. It knows images and the store; it does not
//! know what is in a layer, nor why it is wanted.
//!
//! - http only for loopback and for hosts that the user declared insecure; https otherwise.
//! - A blob travels over HTTP/1.1, several at a time: one multiplexed connection is slower for large uploads. (The
//!   client offers no other protocol: its TLS configuration names none.)
//!
//! Source: OCI distribution-spec 1.1.

mod auth;
mod keychain;
mod known;
mod pull;
mod push;
mod stream;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use keychain::{Keychain, KeychainError, Login};
pub use known::Known;
pub use pull::Pulled;
pub use push::Pushed;

use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::http::{Client, HttpError, StatusCode};
use crate::oci::Reference;
use crate::oci::image::ConfigError;
use crate::oci::manifest::ManifestError;
use crate::oci::reference::InvalidReference;
use crate::store::StoreError;

/// All registries, with this invocation's logins. Cheap to clone; clones share tokens.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    keychain: Keychain,
    hosts: Mutex<HashMap<String, Arc<auth::Host>>>,
}

impl Registry {
    pub fn new(client: Client, keychain: Keychain) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                keychain,
                hosts: Mutex::default(),
            }),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// What is known of `reference`'s registry; nothing is sent.
    fn host(&self, reference: &Reference) -> Result<Arc<auth::Host>, RegistryError> {
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(reference.registry()) {
            return Ok(host.clone());
        }
        let host = auth::Host::new(
            reference,
            self.shared.client.clone(),
            self.shared.keychain.clone(),
        )?;
        let host = Arc::new(host);
        hosts.insert(reference.registry().to_owned(), host.clone());
        Ok(host)
    }
}

/// What went wrong between here and a registry. Nothing in here holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keychain(#[from] KeychainError),
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error("{registry} does not let {who} {action} {repository} ({status})")]
    Denied {
        registry: String,
        repository: String,
        action: &'static str,
        status: StatusCode,
        who: Who,
    },
    #[error("{registry} does not speak the registry protocol: {reason}")]
    NotARegistry { registry: String, reason: String },
    #[error("{registry} wants tokens from {realm}, which is refused: {rule}")]
    Realm {
        registry: String,
        realm: String,
        rule: &'static str,
    },
    #[error("{reference} does not exist")]
    NotFound { reference: String },
    #[error("{reference} has no image for {wanted}; it has {}", there.join(", "))]
    NoPlatform {
        reference: String,
        wanted: String,
        there: Vec<String>,
    },
    #[error("{what} of {reference} should be {expected} and is {actual}")]
    Mismatch {
        reference: String,
        what: &'static str,
        expected: String,
        actual: String,
    },
    #[error("{reference} is refused")]
    Manifest {
        reference: String,
        source: ManifestError,
    },
    #[error("{reference} is refused")]
    Config { reference: String, source: ConfigError },
    #[error("{reference} is refused: an index inside an index")]
    Nested { reference: String },
    #[error("the layer {title} is in no registry that is known")]
    Nowhere { title: String },
    #[error("cannot push {title} to {repository}")]
    Push {
        title: String,
        /// With its registry.
        repository: String,
        source: HttpError,
    },
    #[error("cannot push {title} to {repository}: {reason}")]
    Upload {
        title: String,
        repository: String,
        reason: String,
    },
    #[error("the bytes of {title} on this machine are not {expected}")]
    Corrupt { title: String, expected: Digest },
    #[error("cannot read {title}")]
    Read { title: String, source: std::io::Error },
    #[error("{title} has {size} bytes, and {registry} takes {limit} at most")]
    TooLarge {
        registry: String,
        title: String,
        size: u64,
        limit: u64,
    },
    #[error("{reference} names a digest: a push names a tag")]
    Target { reference: String },
}

/// In whose name a registry was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Anonymous,
    /// A login that is configured for it.
    Login,
    /// There is a login, and it was not sent: the registry asked for it to be sent to this other host.
    Withheld {
        realm: String,
    },
}

impl std::fmt::Display for Who {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "an anonymous user",
            Self::Login => "the configured login",
            Self::Withheld { .. } => "anybody without a login",
        })
    }
}

impl RegistryError {
    /// Whether the same command may succeed later without a change: exit code 3.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Http(error) | Self::Fetch(FetchError::Http(error)) | Self::Push { source: error, .. } => {
                error.is_temporary()
            }
            _ => false,
        }
    }
}

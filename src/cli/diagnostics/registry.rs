//! Advice for registries.

use super::Failure;
use crate::http::HttpError;
use crate::registry::{RegistryError, Who};

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let failure = Self::from_error(&error);
        let failure = match error.is_temporary() {
            true => failure.temporary(),
            false => failure,
        };
        match error {
            RegistryError::Http(error) => error.into(),
            RegistryError::Fetch(error) => error.into(),
            RegistryError::Store(error) => error.into(),
            RegistryError::Denied { registry, who, .. } => match who {
                Who::Anonymous => failure.hint(format!(
                    "log in first: `docker login {registry}` or `podman login {registry}`"
                )),
                Who::Login => failure.hint(format!(
                    "the login for {registry} lacks this right, or is too old: `docker login {registry}` renews it"
                )),
                Who::Withheld { realm } => failure
                    .hint(format!(
                        "{registry} wants its login to be sent to {realm}, which is somebody else's for all that is known"
                    ))
                    .hint(format!("if you trust it, `docker login {}` says so", host_of(&realm))),
            },
            RegistryError::Push { source, repository, .. } => match source {
                HttpError::Offline { .. } => failure.hint("run without --offline to push"),
                HttpError::Unreachable { .. } => {
                    let host = repository.split('/').next().unwrap_or_default();
                    failure
                        .hint("check the network and the proxy settings (HTTPS_PROXY, NO_PROXY), then run the same command again")
                        .hint(format!("a registry that speaks plain http needs `--insecure-registry {host}`"))
                }
                _ if failure.code() == 3 => {
                    failure.hint("run the same command again: what has arrived is not sent twice")
                }
                _ => failure,
            },
            RegistryError::Corrupt { .. } => {
                failure.of_cache().hint("`mlrails cache verify` removes what is damaged; it is made again by the next build")
            }
            RegistryError::Mismatch { .. } => {
                failure.hint("the registry or a proxy changes it on the way: do not use it")
            }
            RegistryError::TooLarge { .. } => failure.hint("`[image] max-layer-size` divides a wheel among several layers"),
            RegistryError::Realm { .. } => failure.hint("a registry of your own on plain http needs `--insecure-registry HOST`"),
            _ => failure,
        }
    }
}

fn host_of(origin: &str) -> &str {
    origin.split_once("://").map_or(origin, |(_, host)| host)
}

//! Advice for bases that registries hold.

use super::Failure;
use crate::base_image::{BaseImageError, FactsError};

impl From<BaseImageError> for Failure {
    fn from(error: BaseImageError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            BaseImageError::Registry(error) => error.into(),
            BaseImageError::Store(error) => error.into(),
            BaseImageError::Reference(_) => {
                failure.hint("`[image] base = \"registry.example/python:3.12-slim\"`")
            }
            BaseImageError::Platform { .. } => {
                failure.hint("take a base that is made for all of `[image] platforms`")
            }
            BaseImageError::Unlocked { .. } => failure.hint("`mlrails lock --upgrade-base` locks it"),
            BaseImageError::Facts { source, .. } => match source {
                FactsError::NoPython { .. } => failure.hint(
                    "`[image] python` says which Python serves; `[image] base-python` says where it is",
                ),
                FactsError::NoLibc => failure
                    .hint("`[image] base-glibc` says which it has: a version such as \"2.36\", or \"musl\""),
                FactsError::Corrupt { .. } => failure.hint(
                    "`mlrails cache verify` removes what is damaged; the same command then fetches it again",
                ),
                _ => failure,
            },
            _ => failure,
        }
    }
}

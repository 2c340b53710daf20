//! Advice for what is built for.

use super::{Failure, is_temporary_io};
use crate::targets::TargetError;
use crate::targets::buildpack::BuildpackError;

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            TargetError::Python { .. } => failure.hint("write it like 3.11"),
            TargetError::Unadmitted { .. } => {
                failure.hint("change one of the two: there is one Python for training and serving")
            }
            TargetError::NoPython { .. } => {
                failure.hint("widen requires-python: images have Debian's Python, 3.11 or 3.13")
            }
            TargetError::Platform {
                nearest: Some(name), ..
            } => failure.hint(format!("did you mean {name}?")),
            TargetError::Platform { .. } => failure.hint("use OCI names: linux/amd64, linux/arm64"),
        }
    }
}

impl From<BuildpackError> for Failure {
    fn from(error: BuildpackError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            BuildpackError::Read { source, .. } if is_temporary_io(&source) => failure.temporary(),
            BuildpackError::Read { .. } => failure.hint("[image] buildpacks names a folder of .toml files in the project"),
            BuildpackError::Conflict { .. } => failure
                .hint("a buildpack of the same name in the folder of [image] buildpacks replaces the one that comes with mlrails"),
            BuildpackError::Large { .. } | BuildpackError::Invalid { .. } => failure,
        }
    }
}

//! Advice for what is built for.

use super::Failure;
use crate::targets::TargetError;

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            TargetError::Python { .. } => failure.hint("write it like 3.11"),
            TargetError::Unadmitted { .. } => {
                failure.hint("change one of the two: there is one Python for training and serving")
            }
            TargetError::NoPython { .. } => failure.hint(
                "widen requires-python, or name a base with another Python: `[image] base` and `python`",
            ),
            TargetError::Platform {
                nearest: Some(name), ..
            } => failure.hint(format!("did you mean {name}?")),
            TargetError::Platform { .. } => failure.hint("use OCI names: linux/amd64, linux/arm64"),
        }
    }
}

//! Advice for the replay of golden rows through an image.

use super::{Failure, is_temporary_io};
use crate::layers::unpack::UnpackError;
use crate::verify::VerifyError;

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            VerifyError::Foreign { .. } => failure.hint("verify it on a machine of that architecture"),
            VerifyError::Unpack(UnpackError::Corrupt { .. } | UnpackError::Read { .. }) => failure.of_cache(),
            VerifyError::Folder(ref source) if is_temporary_io(source) => failure.temporary(),
            VerifyError::Differs { .. } => {
                failure.hint("run `mlrails run --replay` to see which node differs; a library's version may have changed")
            }
            VerifyError::Replay { .. } => {
                failure.hint("a module or a file that serving needs may be missing: `mlrails image --explain` says what is in")
            }
            _ => failure,
        }
    }
}

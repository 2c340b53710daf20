//! Advice for wheels, their installation and trees of files.

use super::{Failure, is_temporary_io};
use crate::layers::install::InstallError;
use crate::python::wheel::WheelError;
use crate::tree::TreeError;

const REFUSED: &str = "other installers may accept it, and an image would hold what nobody can check: pin another version, or tell \
                       whoever publishes it";

impl From<WheelError> for Failure {
    fn from(error: WheelError) -> Self {
        Self::from_error(&error).hint(REFUSED)
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            InstallError::Wheel(_)
            | InstallError::Reserved { .. }
            | InstallError::Twice { .. }
            | InstallError::Entry { .. } => failure.hint(REFUSED),
            InstallError::Collision { one, other, .. } => failure.hint(format!(
                "which of the two would win depends on the order: drop {one} or {other}, or pin a version without that file"
            )),
            InstallError::Write { source, .. } if is_temporary_io(source) => {
                failure.temporary().hint("free some space and run it again")
            }
            InstallError::Write { .. } => failure,
        }
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            TreeError::Write { source, .. } | TreeError::Read { source, .. } if is_temporary_io(source) => {
                failure.temporary().hint("free some space and run it again")
            }
            TreeError::Changed { .. } => {
                failure.hint("something writes to it at the same time: wait for that, and run it again")
            }
            _ => failure,
        }
    }
}

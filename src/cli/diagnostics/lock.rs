//! Advice for lock files.

use super::{Failure, is_temporary_io};
use crate::lock::{LockError, SelectError};

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            LockError::Read { source, .. } | LockError::Write { source, .. } if is_temporary_io(source) => {
                failure.temporary()
            }
            LockError::Syntax { .. } | LockError::Refused { .. } => {
                failure.hint("restore the file from version control, or remove it and run `mlrails lock`")
            }
            _ => failure,
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            SelectError::Python { .. } | SelectError::Environment { .. } => failure
                .hint("change requires-python or `environments` in pyproject.toml, then run `mlrails lock`"),
            SelectError::UnknownGroup(_) | SelectError::UnknownExtra(_) => {
                failure.hint("run `mlrails lock` if pyproject.toml has it")
            }
            SelectError::Ambiguous { .. } => {
                failure.hint("run `mlrails lock --upgrade` to write the lock anew")
            }
        }
    }
}

impl From<crate::lock::base::InvalidBase> for Failure {
    fn from(error: crate::lock::base::InvalidBase) -> Self {
        Self::from_error(&error).hint("`mlrails lock --upgrade-base` writes it anew")
    }
}

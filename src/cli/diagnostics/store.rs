//! Advice for the cache.

use super::{FULL, Failure, is_temporary_io};
use crate::store::StoreError;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            StoreError::NoFolder => failure.hint("set MLRAILS_CACHE_DIR to a folder that can be written"),
            StoreError::Io { source, .. } if is_temporary_io(source) => failure.temporary().hint(FULL),
            StoreError::Io { .. } => failure.hint("set MLRAILS_CACHE_DIR to a folder that can be written"),
            StoreError::Mismatch { .. } => failure,
        }
    }
}

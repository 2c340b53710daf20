//! Advice for downloads.

use super::{FULL, Failure, is_temporary_io};
use crate::fetch::FetchError;

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Http(error) => error.into(),
            FetchError::Store(error) => error.into(),
            FetchError::Corrupt { .. } => Self::from_error(&error)
                .hint("the server or a proxy changes it on the way, or the lock is not this server's: do not use it"),
            FetchError::Write { ref source, .. } if is_temporary_io(source) => Self::from_error(&error)
                .temporary()
                .hint(FULL),
            FetchError::Write { .. } => Self::from_error(&error),
        }
    }
}

//! Advice for network errors.

use super::Failure;
use crate::http::HttpError;

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let failure = Self::from_error(&error);
        let failure = if error.is_temporary() {
            failure.temporary()
        } else {
            failure
        };
        match &error {
            HttpError::Offline { .. } => failure.hint("run once without --offline to fill the cache"),
            HttpError::Unreachable { .. } | HttpError::Stalled { .. } => failure
                .hint("check the network and the proxy settings (HTTPS_PROXY, NO_PROXY), then run the same command again"),
            HttpError::Status { status, .. } if status.as_u16() == 401 || status.as_u16() == 403 => {
                failure.hint("check the credentials for this host")
            }
            _ => failure,
        }
    }
}

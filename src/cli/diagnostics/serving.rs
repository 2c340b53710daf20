//! Advice for serving.

use super::{Failure, is_temporary_io};
use crate::serving::ServingError;

impl From<ServingError> for Failure {
    fn from(error: ServingError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            ServingError::NeverRun { .. } => {
                failure.hint("`mlrails run` trains what there is to train, and records what serving needs")
            }
            ServingError::NoSchema | ServingError::MissingValue { .. } => {
                failure.hint("`mlrails run` records what serving needs")
            }
        }
    }
}

impl Failure {
    /// A server that could not be started, told or waited for.
    pub(crate) fn from_serving_io(error: std::io::Error) -> Self {
        let failure = Self::new(format!("cannot run the server: {error}"));
        if is_temporary_io(&error) {
            failure.temporary()
        } else {
            failure
        }
    }
}

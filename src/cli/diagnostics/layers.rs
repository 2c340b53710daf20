//! Advice for layers.

use super::{FULL, Failure, is_temporary_io};
use crate::layers::LayerError;
use crate::layers::environment::EnvironmentError;
use crate::layers::splice::SpliceError;

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Wheel(error) => error.into(),
            LayerError::Install(error) => error.into(),
            LayerError::Splice(error) => error.into(),
            LayerError::Store(error) => error.into(),
            LayerError::Missing { .. } | LayerError::Damaged { .. } => Self::from_error(&error)
                .of_cache()
                .temporary()
                .hint("run it again: what is missing is downloaded anew"),
            LayerError::Read { ref source, .. } => {
                let failure = Self::from_error(&error).hint("`mlrails cache verify` finds what is damaged");
                if is_temporary_io(source) {
                    failure.temporary()
                } else {
                    failure
                }
            }
        }
    }
}

impl From<SpliceError> for Failure {
    fn from(error: SpliceError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            SpliceError::Entry { .. } => {
                failure.hint("its bytes are not what its own RECORD promises: pin another version of it")
            }
            SpliceError::Tree { source, .. } => source.into(),
            SpliceError::Write(source) if is_temporary_io(&source) => failure.temporary().hint(FULL),
            SpliceError::Write(_) => failure,
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::Install(error) => error.into(),
            EnvironmentError::Layer(error) => error.into(),
            EnvironmentError::NotOne { .. } => {
                Self::from_error(&error).hint("move it away: `mlrails sync` makes a new one there")
            }
            EnvironmentError::Io { ref source, .. } if is_temporary_io(source) => Self::from_error(&error)
                .temporary()
                .hint("free some space and run it again"),
            EnvironmentError::Io { .. } => Self::from_error(&error),
        }
    }
}

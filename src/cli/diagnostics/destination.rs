//! Advice for publishing images, and for reading them back.

use super::{Failure, is_temporary_io};
use crate::destination::PublishError;
use crate::destination::engine::EngineError;
use crate::destination::read::ReadError;

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(error) => error.into(),
            PublishError::Engine(error) => error.into(),
            PublishError::Registry(error) => error.into(),
            PublishError::Io { ref source, .. } if is_temporary_io(source) => Self::from_error(&error)
                .temporary()
                .hint("free some space, then run the same command again"),
            PublishError::Corrupt { .. } => Self::from_error(&error)
                .of_cache()
                .hint("`mlrails cache verify` removes what is damaged; it is made again by the next build"),
            PublishError::NotALayout { .. } => Self::from_error(&error)
                .hint("name a folder that does not exist yet, or x.tar for an archive"),
            PublishError::Foreign { .. } => Self::from_error(&error)
                .hint("name another folder: a layout holds one image here, and the others would be dropped"),
            _ => Self::from_error(&error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            EngineError::None { .. } => failure
                .hint("start Docker, or Podman's socket (`systemctl --user start podman.socket`)")
                .hint("or write an archive: `mlrails image --output x.docker.tar`, then `docker load -i x.docker.tar`"),
            EngineError::Unreachable { .. } => {
                failure.temporary().hint("is the engine running, and may you use its socket?")
            }
            EngineError::Address { .. } => failure.hint("for ssh, forward the socket: `ssh -L /tmp/e.sock:/var/run/docker.sock HOST`"),
            EngineError::Load { .. } | EngineError::Empty => failure,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Io { source, .. } if is_temporary_io(source) => Self::from_error(&error).temporary(),
            ReadError::NotALayout { .. } => Self::from_error(&error)
                .hint("a layout is a folder with oci-layout, index.json and blobs/; a reference has a tag or a host"),
            _ => Self::from_error(&error),
        }
    }
}

//! Advice for package indexes.

use std::sync::Arc;

use super::{FULL, Failure, is_temporary_io};
use crate::fetch::FetchError;
use crate::index::IndexError;
use crate::index::git::GitError;
use crate::store::StoreError;

impl From<Arc<IndexError>> for Failure {
    fn from(error: Arc<IndexError>) -> Self {
        if let IndexError::Source { source, .. } = &*error
            && let Some(build) = source.downcast_ref::<crate::build::BuildError>()
        {
            return build.into();
        }
        if let IndexError::Source { source, .. } = &*error
            && source.is::<crate::sdist::SourceError>()
        {
            return Self::from_error(&*error).hint(
                "do not use this version, and tell its index; one with a wheel needs no source archive",
            );
        }
        let failure = Self::from_error(&*error);
        let failure = match error.is_temporary() {
            true => failure.temporary(),
            false => failure,
        };
        match &*error {
            IndexError::Page { source, .. }
            | IndexError::Metadata { source, .. }
            | IndexError::FlatPage { source, .. }
            | IndexError::Fetch {
                source: FetchError::Http(source),
                ..
            } => match source.status() {
                Some(status) if status.as_u16() == 401 || status.as_u16() == 403 => {
                    failure.hint("check the index's credentials: in its URL, in UV_INDEX_<NAME>_USERNAME, or in ~/.netrc")
                }
                _ if matches!(source, crate::http::HttpError::Offline { .. }) => {
                    failure.hint("run once without --offline to fill the cache")
                }
                _ => failure.hint("check the index's address (--index-url) and the network, then run the same command again"),
            },
            IndexError::Fetch {
                source: FetchError::Write { source, .. } | FetchError::Store(StoreError::Io { source, .. }),
                ..
            } if is_temporary_io(source) => failure.temporary().hint(FULL),
            IndexError::BadPage { .. } => {
                failure.hint("check the index's address: it should end in /simple or the like")
            }
            IndexError::Fetch {
                source: FetchError::Corrupt { .. },
                ..
            }
            | IndexError::BadMetadata { .. } => {
                failure.hint("the index or something on the way to it changed the file: do not use it, and tell its owner")
            }
            IndexError::NeedsBuild { .. } => {
                failure.hint("choose a version that has a wheel")
            }
            IndexError::UnknownIndex { known, index, .. } if known.is_empty() => {
                failure.hint(format!("add [[tool.uv.index]] with name = \"{index}\" and its url to pyproject.toml"))
            }
            IndexError::UnknownIndex { known, .. } => {
                failure.hint(format!("the indexes with a name are {}", known.join(", ")))
            }
            IndexError::FindLinks { .. } => {
                failure.hint("a relative place is looked for beside the file that names it")
            }
            IndexError::Config(_) => failure.hint("look at --index-url, PIP_INDEX_URL, [tool.uv] and pip.conf"),
            _ => failure,
        }
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Arc::new(error).into()
    }
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            GitError::Start(_) => failure.hint("packages from repositories need git on this machine"),
            GitError::Failed { .. } => {
                failure.hint("the same with git itself: `git ls-remote URL`; credentials are git's own")
            }
            GitError::Refused { .. } | GitError::Keep { .. } | GitError::Store(_) => failure,
        }
    }
}

//! Python package indexes: which versions a project has, in which files, and what each file's metadata says.
//!
//! The solver and everything above see the trait [`Index`]: an index on the network (`network`), or one in memory. This
//! room owns where indexes are configured, their page formats, the page cache and how metadata is obtained cheaply. It
//! does not choose versions.

pub mod accelerator;
pub mod central;
pub mod config;
pub mod direct;
pub mod download;
mod folder;
pub mod git;
mod html;
pub mod metadata;
pub mod network;
pub mod numpy;
mod once;
pub mod page;
pub mod published;
mod simple;
pub mod source;

use std::sync::Arc;

use uv_normalize::PackageName;

use crate::digest::Digest;
use crate::http::HttpError;
use crate::lock::Source;
use crate::python::metadata::{Metadata, MetadataError};
use crate::store::StoreError;

pub use config::Pin;
pub use direct::{Direct, WithDirect};
pub use network::Network;
pub use page::{FileId, Listed, Page, RawFile};
pub use source::{SourceError, SourceMetadata, SourcePlace, SourceTree, WithSources};

/// Which file's metadata stands for a version: decided by whoever chooses versions.
pub type Pick = Box<dyn FnOnce(&Page) -> Option<FileId> + Send>;

/// Where versions and metadata come from. Methods block; the `request` methods do not, and only say what will be
/// asked for soon.
pub trait Index: Sync {
    /// The project's page: of the first index that has the project. `None` if none has it.
    fn page(&self, name: &PackageName) -> Result<Option<Arc<Page>>, Arc<IndexError>>;

    /// Which indexes the project wants `name` from, and in which environments; the first pin whose marker holds counts.
    fn pins(&self, name: &PackageName) -> &[Pin] {
        let _ = name;
        &[]
    }

    /// What is locked of a page that is a place of the project's own choosing, and not an index's.
    fn source(&self, name: &PackageName, page: &Page) -> Option<&Source> {
        let _ = (name, page);
        None
    }

    /// The project's page, where its pin names the index `pin`.
    fn page_from(&self, name: &PackageName, pin: Option<&str>) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        let _ = pin;
        self.page(name)
    }

    /// The metadata of one file of `page`.
    fn metadata(
        &self,
        name: &PackageName,
        page: &Arc<Page>,
        file: FileId,
    ) -> Result<Arc<Metadata>, Arc<IndexError>>;

    /// The page will be asked for; and then the metadata of the file that `pick` names.
    fn request(&self, name: &PackageName, pick: Option<Pick>) {
        self.request_from(name, None, pick);
    }

    /// The same, of a pinned index.
    fn request_from(&self, name: &PackageName, pin: Option<&str>, pick: Option<Pick>);

    /// The metadata of one file will be asked for.
    fn request_metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId);
}

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("cannot read the page of `{name}`")]
    Page { name: PackageName, source: HttpError },
    #[error("the page of `{name}` at {url} is refused: {rule}")]
    BadPage {
        name: PackageName,
        url: String,
        rule: String,
    },
    #[error("cannot read the metadata of {file}")]
    Metadata { file: String, source: HttpError },
    #[error("the metadata of {file} is refused: {rule}")]
    BadMetadata { file: String, rule: String },
    /// Published metadata that cannot be parsed: the version is passed over.
    #[error("the metadata of {file} cannot be read: {rule}")]
    Unreadable { file: String, rule: String },
    #[error("cannot get {file}")]
    Fetch {
        file: String,
        source: crate::fetch::FetchError,
    },
    /// Its dependencies are only known after a build.
    #[error("{file} has to be built to know what it needs: {reason}")]
    NeedsBuild {
        file: String,
        digest: Digest,
        reason: String,
    },
    /// It was asked by a build.
    #[error("{file} does not say what it needs")]
    Source { file: String, source: SourceError },
    #[error("cannot read the page of files at {url}")]
    FlatPage { url: String, source: HttpError },
    #[error("cannot read {path}")]
    FindLinks { path: String, source: std::io::Error },
    #[error("the index settings are wrong: {0}")]
    Config(String),
    #[error("`{name}` is to come from the index `{index}`, which is not defined")]
    UnknownIndex {
        name: PackageName,
        index: String,
        /// The names that are defined.
        known: Vec<String>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IndexError {
    /// Whether the same command may succeed later without a change.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Page { source, .. } | Self::Metadata { source, .. } | Self::FlatPage { source, .. } => {
                source.is_temporary()
            }
            Self::Fetch {
                source: crate::fetch::FetchError::Http(source),
                ..
            } => source.is_temporary(),
            _ => false,
        }
    }

    fn unreadable(file: &str, error: &MetadataError) -> Self {
        Self::Unreadable {
            file: file.to_owned(),
            rule: error.to_string(),
        }
    }
}

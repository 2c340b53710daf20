//! Packages that come from one place of the project's own choosing: a URL, a file, a folder, a commit.
//!
//! To the solver such a place is an index with one version of one package, pinned where the project's marker holds. So nothing in
//! a solve knows of URLs; what is locked in the end is the place. It fetches nothing: whoever makes a [`Direct`] has read it.
//!
//! Source: PEP 508 (`name @ url`), PEP 751 (`archive`, `vcs`, `directory`).

use std::collections::BTreeMap;
use std::sync::Arc;

use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::config::Pin;
use super::{FileId, Index, IndexError, Page, Pick, RawFile};
use crate::digest::Digest;
use crate::lock::Source;
use crate::python::metadata::Metadata;

/// A package at its place.
#[derive(Debug, Clone)]
pub struct Direct {
    pub name: PackageName,
    /// The place, as messages show it: no credentials.
    pub label: String,
    /// Where the project wants it from there.
    pub marker: MarkerTree,
    /// What it says of itself. Its own requirements name no URLs any more: those are places of their own.
    pub metadata: Arc<Metadata>,
    pub source: Source,
}

impl Direct {
    fn page(&self) -> Page {
        let (name, digest) = match &self.source {
            Source::Archive(file) if file.name.ends_with(".whl") => (file.name.clone(), file.digest),
            // Nobody downloads it by this name: it makes the version one that has source code.
            _ => (
                format!(
                    "{}-{}.tar.gz",
                    self.name.as_dist_info_name(),
                    self.metadata.version
                ),
                Digest::of(self.label.as_bytes()),
            ),
        };
        let file = RawFile {
            name: name.into(),
            sha256: Some(digest),
            // A place that was chosen is not too new.
            upload_time: Some(0),
            ..RawFile::default()
        };
        Page::build(&self.name, &self.label, [file])
    }
}

/// An index with places before it.
pub struct WithDirect<'a> {
    index: &'a dyn Index,
    places: BTreeMap<PackageName, Vec<(Direct, Arc<Page>)>>,
    pins: BTreeMap<PackageName, Vec<Pin>>,
}

impl<'a> WithDirect<'a> {
    pub fn new(index: &'a dyn Index, places: Vec<Direct>) -> Self {
        let mut found = Self {
            index,
            places: BTreeMap::new(),
            pins: BTreeMap::new(),
        };
        for place in places {
            let page = Arc::new(place.page());
            found.pins.entry(place.name.clone()).or_default().push(Pin {
                index: place.label.clone(),
                marker: place.marker,
                only: true,
            });
            let of_name = found.places.entry(place.name.clone()).or_default();
            of_name.push((place, page));
        }
        for (name, pins) in &mut found.pins {
            pins.extend(index.pins(name).iter().cloned());
        }
        found
    }

    fn place(&self, name: &PackageName, label: &str) -> Option<&(Direct, Arc<Page>)> {
        self.places
            .get(name)?
            .iter()
            .find(|(place, _)| place.label == label)
    }
}

impl Index for WithDirect<'_> {
    fn page(&self, name: &PackageName) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        self.index.page(name)
    }

    fn pins(&self, name: &PackageName) -> &[Pin] {
        match self.pins.get(name) {
            Some(pins) => pins,
            None => self.index.pins(name),
        }
    }

    fn page_from(&self, name: &PackageName, pin: Option<&str>) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        match pin.and_then(|label| self.place(name, label)) {
            Some((_, page)) => Ok(Some(page.clone())),
            None => self.index.page_from(name, pin),
        }
    }

    fn metadata(
        &self,
        name: &PackageName,
        page: &Arc<Page>,
        file: FileId,
    ) -> Result<Arc<Metadata>, Arc<IndexError>> {
        match self.place(name, &page.index) {
            Some((place, _)) => Ok(place.metadata.clone()),
            None => self.index.metadata(name, page, file),
        }
    }

    fn source(&self, name: &PackageName, page: &Page) -> Option<&Source> {
        Some(&self.place(name, &page.index)?.0.source)
    }

    fn request_from(&self, name: &PackageName, pin: Option<&str>, pick: Option<Pick>) {
        if pin.is_none_or(|label| self.place(name, label).is_none()) {
            self.index.request_from(name, pin, pick);
        }
    }

    fn request_metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId) {
        if self.place(name, &page.index).is_none() {
            self.index.request_metadata(name, page, file);
        }
    }
}

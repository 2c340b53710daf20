//! What the files of locked packages say of themselves now: their metadata, read from the index again.
//!
//! It takes locked packages and gives metadata by name, version and index; what an index does not have, does not say without a build, or
//! cannot be asked for is left out. It judges nothing.

use std::sync::Arc;

use uv_normalize::PackageName;

use super::{FileId, Index, Page};
use crate::lock::prove::Published;
use crate::lock::{File, Package, Source};

/// The metadata of each of `packages` that comes from an index: of one of its locked wheels, else of its source archive.
pub fn published(index: &dyn Index, packages: &[Package]) -> Published {
    let from_index = |package: &&Package| matches!(package.source, Source::Files { .. });
    let packages: Vec<&Package> = packages.iter().filter(from_index).collect();
    for package in &packages {
        for pin in places(index, &package.name) {
            index.request_from(&package.name, pin, None);
        }
    }
    let listed: Vec<(&Package, Arc<Page>, FileId)> = packages
        .into_iter()
        .filter_map(|package| {
            let (page, file) = listed(index, package)?;
            index.request_metadata(&package.name, &page, file);
            Some((package, page, file))
        })
        .collect();
    listed
        .into_iter()
        .filter_map(|(package, page, file)| {
            let metadata = index.metadata(&package.name, &page, file).ok()?;
            let key = (
                package.name.clone(),
                package.version.clone()?,
                package.index.clone(),
            );
            Some((key, metadata))
        })
        .collect()
}

/// The indexes that may have `name`: those it is pinned to, and the usual ones.
fn places<'a>(index: &'a dyn Index, name: &PackageName) -> impl Iterator<Item = Option<&'a str>> {
    let pins = index.pins(name).iter().map(|pin| Some(pin.index.as_str()));
    pins.chain(std::iter::once(None)).collect::<Vec<_>>().into_iter()
}

/// The page that lists a locked file, by name and content, with the file.
fn listed(index: &dyn Index, package: &Package) -> Option<(Arc<Page>, FileId)> {
    let files: Vec<&File> = package.wheels().iter().chain(package.sdist()).collect();
    places(index, &package.name).find_map(|pin| {
        let page = index.page_from(&package.name, pin).ok().flatten()?;
        let position = page.position(package.version.as_ref()?)?;
        let found = files.iter().find_map(|file| {
            let mut listed = page.files(position);
            listed.find(|one| one.name() == file.name && one.digest() == Some(file.digest))
        })?;
        let id = found.id();
        Some((page, id))
    })
}

//! Locked files into the store, for every command that installs or builds from a lock.

use super::indexes::{IndexArgs, locations};
use super::{Failure, Session, base as locked_base};
use crate::debian::{self, BaseFiles};
use crate::index::Network;
use crate::lock::File;
use crate::project::Manifest;

/// Brings `files` into the store, several at once; those that are there already are not asked for.
pub fn files(manifest: &Manifest, files: &[&File], session: &Session) -> Result<(), Failure> {
    use futures::StreamExt;
    let store = session.store()?;
    let missing: Vec<&File> = files
        .iter()
        .copied()
        .filter(|file| {
            store
                .blob_size(&file.digest)
                .is_none_or(|size| file.size.is_some_and(|wanted| wanted != size))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let locations = locations(manifest, &IndexArgs::default())?;
    let (client, reporter) = (session.client(&[])?, session.reporter());
    session.block_on(async {
        // It belongs to the runtime that is entered here.
        let network = Network::new(client, store, locations, reporter);
        let mut downloads = futures::stream::iter(missing)
            .map(|file| network.download(file, &manifest.root))
            .buffer_unordered(DOWNLOADS);
        while let Some(done) = downloads.next().await {
            done?;
        }
        Ok::<_, Failure>(())
    })?
}

/// Brings the base's packages into the store.
pub fn base(manifest: &Manifest, files: &BaseFiles<'_>, session: &Session) -> Result<(), Failure> {
    let archive = locked_base::archive(manifest)?;
    let (client, reporter) = (session.client(&[])?, session.reporter());
    session.block_on(debian::fetch(
        &client,
        files.store,
        &archive.mirror,
        files.base,
        files.platform,
        &*reporter,
    ))??;
    Ok(())
}

/// Enough to fill a line from one host, few enough that it does not throttle.
const DOWNLOADS: usize = 12;

//! Locked files into the store, for every command that installs or builds from a lock.

use super::indexes::{IndexArgs, locations};
use super::{Failure, Session, base as locked_base};
use crate::debian::{self, BaseFiles};
use crate::index::Network;
use crate::lock::File;
use crate::project::Manifest;

/// Brings `files` into the store, several at once; those that are there already are not asked for.
pub fn files(manifest: &Manifest, files: &[&File], session: &Session) -> Result<(), Failure> {
    arriving(manifest, files, session, &mut |_| true)
}

/// The same, and tells which are there, by their places among `files`, first those that were: each once, until it is answered that nobody
/// wants to know.
pub fn arriving(
    manifest: &Manifest,
    files: &[&File],
    session: &Session,
    arrived: &mut (dyn FnMut(Vec<usize>) -> bool + Send),
) -> Result<(), Failure> {
    use futures::StreamExt;
    let store = session.store()?;
    let is_missing = |index: &usize| {
        let file = files[*index];
        store
            .blob_size(&file.digest)
            .is_none_or(|size| file.size.is_some_and(|wanted| wanted != size))
    };
    let (missing, there): (Vec<usize>, Vec<usize>) = (0..files.len()).partition(is_missing);
    if !arrived(there) || missing.is_empty() {
        return Ok(());
    }
    let locations = locations(manifest, &IndexArgs::default())?;
    let (client, reporter) = (session.client(&[])?, session.reporter());
    session.block_on(async {
        // It belongs to the runtime that is entered here.
        let network = &Network::new(client, store, locations, reporter);
        let mut downloads = futures::stream::iter(missing)
            .map(|index| async move {
                network
                    .download(files[index], &manifest.root)
                    .await
                    .map(|_| index)
            })
            .buffer_unordered(DOWNLOADS);
        while let Some(done) = downloads.next().await {
            if !arrived(vec![done?]) {
                break;
            }
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

//! Files of a lock into the store, verified; and the import names that a lock still misses.

use std::io::Read;

use url::Url;

use super::IndexError;
use super::central;
use super::metadata::Wanted;
use super::network::Network;
use crate::digest::Digest;
use crate::lock::{File, Location, Package};
use crate::python::metadata::LARGEST;

impl Network {
    /// Makes sure that a locked file is in the store. `folder` is the lock's.
    ///
    /// A wheel whose `.metadata` was trusted while locking must hold that very METADATA.
    pub async fn download(&self, file: &File, folder: &std::path::Path) -> Result<(), IndexError> {
        let wanted = wanted(file, folder)?;
        let content = self.shared.local(&wanted).await?;
        let promise: Option<Digest> = self.shared.store.record("metadata-promise", &file.digest.hex());
        let Some(promise) = promise.filter(|_| file.name.ends_with(".whl")) else {
            return Ok(());
        };
        let bad = |rule: String| IndexError::BadMetadata {
            file: file.name.clone(),
            rule,
        };
        let entries = central::open(&content).map_err(|error| bad(error.to_string()))?;
        let entry = central::metadata_entry(&entries).map_err(|rule| bad(rule.to_owned()))?;
        let mut bytes = Vec::new();
        let mut reader = &content;
        std::io::Seek::seek(&mut reader, std::io::SeekFrom::Start(entry.offset))
            .and_then(|_| reader.take(central::span(entry)).read_to_end(&mut bytes))
            .map_err(|error| bad(error.to_string()))?;
        let metadata = central::content(entry, &bytes, LARGEST).map_err(|rule| bad(rule.to_owned()))?;
        if Digest::of(&metadata) != promise {
            return Err(bad(
                "the wheel's METADATA is not the .metadata that the index served".to_owned(),
            ));
        }
        Ok(())
    }

    /// Fills `imports` of the packages that lack them, from the cache or by reading the ends of wheels, all at once.
    /// What cannot be read is left empty: it is filled when the wheel is opened.
    pub async fn fill_imports(&self, packages: &mut [Package], folder: &std::path::Path) {
        let tasks = packages
            .iter()
            .enumerate()
            .filter(|(_, package)| package.imports.is_empty())
            .filter_map(|(at, package)| {
                // One wheel speaks for all: builds of one version differ in libraries, not in names.
                let file = package
                    .wheels()
                    .iter()
                    .min_by_key(|file| file.size.unwrap_or(u64::MAX))?
                    .clone();
                let (network, folder) = (self.clone(), folder.to_owned());
                Some(tokio::spawn(async move {
                    let wanted = wanted(&file, &folder).ok()?;
                    Some((at, network.shared.imports_of(&wanted).await.ok()?))
                }))
            });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            if let Ok(Some((at, names))) = task.await {
                packages[at].imports = names;
            }
        }
    }
}

fn wanted<'a>(file: &'a File, folder: &std::path::Path) -> Result<Wanted<'a>, IndexError> {
    let url = match &file.location {
        Location::Url(url) => url.clone(),
        Location::Path(path) => {
            let absolute =
                std::path::absolute(folder.join(path)).map_err(|source| IndexError::FindLinks {
                    path: path.display().to_string(),
                    source,
                })?;
            Url::from_file_path(absolute)
                .map_err(|()| IndexError::Config(format!("{} is no path", path.display())))?
        }
    };
    Ok(Wanted {
        file: &file.name,
        url,
        digest: file.digest,
        size: file.size,
    })
}

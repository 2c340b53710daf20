//! A file's metadata, by the cheapest way that proves it.
//!
//! 1. the cache, by the file's own digest
//! 2. `.metadata` beside the file (PEP 658), checked against the hash that the page gives
//! 3. the end of the wheel and its METADATA by range requests; the whole wheel from hosts that have no ranges
//! 4. for a source archive: its PKG-INFO where that is final (PEP 643), else a `[project]` table that says the same;
//!    else it needs a build
//!
//! Only the headers that a solve reads are kept.

use std::os::unix::fs::FileExt;

use reqwest::header;
use url::Url;
use uv_normalize::PackageName;

use super::IndexError;
use super::central::{self, Entry};
use super::network::Shared;
use super::page::Listed;
use crate::digest::Digest;
use crate::fetch::{self, Expected};
use crate::http::{HttpError, Redacted};
use crate::python::metadata::{LARGEST, Metadata};
use crate::python::wheel::import_names;
use crate::sdist;

/// The first read from a wheel's end: holds the whole directory of nine wheels in ten.
const TAIL: u64 = 48 << 10;
/// The largest central directory that is read over the network.
const LARGEST_DIRECTORY: u64 = 32 << 20;

/// One file, as the functions here know it.
pub(super) struct Wanted<'a> {
    pub file: &'a str,
    pub url: Url,
    pub digest: Digest,
    pub size: Option<u64>,
}

impl Shared {
    pub(super) async fn metadata_of(
        &self,
        name: &PackageName,
        listed: &Listed<'_>,
        digest: &Digest,
    ) -> Result<Metadata, IndexError> {
        let key = digest.hex();
        if let Some(bytes) = self.store.record_bytes("metadata", &key)
            && let Ok(metadata) = Metadata::parse(&bytes)
        {
            return Ok(metadata);
        }
        let file = listed.name();
        let wanted = Wanted {
            file,
            url: Url::parse(listed.url()).map_err(|error| IndexError::BadMetadata {
                file: file.to_owned(),
                rule: format!("its URL is invalid: {error}"),
            })?,
            digest: *digest,
            size: listed.size(),
        };
        let metadata = match (listed.metadata(), listed.is_wheel()) {
            (Some(hash), _) => self.metadata_beside(&wanted, hash).await?,
            (None, true) => {
                let (entries, bytes) = self.wheel_metadata(&wanted).await?;
                let metadata =
                    Metadata::parse(&bytes).map_err(|error| IndexError::unreadable(file, &error))?;
                self.keep_imports(&wanted.digest, &entries, &metadata);
                metadata
            }
            (None, false) => self.sdist_metadata(&wanted).await?,
        };
        let version = listed
            .wheel()
            .map(|wheel| wheel.version.clone())
            .filter(|version| version.clone().without_local() != metadata.version.clone().without_local());
        if metadata.name != *name || version.is_some() {
            return Err(IndexError::BadMetadata {
                file: file.to_owned(),
                rule: format!("it speaks of {} {}", metadata.name, metadata.version),
            });
        }
        let _ = self
            .store
            .keep_record_bytes("metadata", &key, metadata.to_headers().as_bytes());
        Ok(metadata)
    }

    /// PEP 658: `<file>.metadata`.
    async fn metadata_beside(
        &self,
        wanted: &Wanted<'_>,
        hash: Option<Digest>,
    ) -> Result<Metadata, IndexError> {
        let mut url = wanted.url.clone();
        url.set_path(&format!("{}.metadata", wanted.url.path()));
        let fault = |source| IndexError::Metadata {
            file: wanted.file.to_owned(),
            source,
        };
        let bytes = {
            let _permit = self.limit.acquire().await;
            let request = self.request_to(url);
            self.client.read(request, LARGEST).await.map_err(fault)?.body
        };
        let actual = Digest::of(&bytes);
        if let Some(expected) = hash
            && expected != actual
        {
            return Err(IndexError::BadMetadata {
                file: wanted.file.to_owned(),
                rule: format!("its .metadata should be {expected} and is {actual}"),
            });
        }
        // The wheel's own METADATA has to be the same: compared when the wheel is downloaded.
        let _ = self
            .store
            .keep_record("metadata-promise", &wanted.digest.hex(), &actual);
        Metadata::parse(&bytes).map_err(|error| IndexError::unreadable(wanted.file, &error))
    }

    /// A wheel's entries and its METADATA's bytes.
    pub(super) async fn wheel_metadata(
        &self,
        wanted: &Wanted<'_>,
    ) -> Result<(Vec<Entry>, Vec<u8>), IndexError> {
        let bad = |rule: &str| IndexError::BadMetadata {
            file: wanted.file.to_owned(),
            rule: rule.to_owned(),
        };
        if let Some(tail) = self.tail(wanted).await? {
            let entries = self.remote_entries(wanted, &tail).await?;
            let entry = central::metadata_entry(&entries).map_err(bad)?;
            let end = (entry.offset + central::span(entry)).min(tail.length);
            let bytes = match tail.slice(entry.offset, end) {
                Some(bytes) => bytes.to_vec(),
                None => {
                    if entry.compressed > LARGEST {
                        return Err(bad("its METADATA is too large"));
                    }
                    self.range(wanted, entry.offset, end).await?
                }
            };
            let content = central::content(entry, &bytes, LARGEST).map_err(bad)?;
            return Ok((entries, content));
        }
        let file = self.local(wanted).await?;
        let unreadable = |error: std::io::Error| bad(&error.to_string());
        let entries = central::open(&file).map_err(unreadable)?;
        let entry = central::metadata_entry(&entries).map_err(bad)?;
        let mut bytes = vec![0; usize::try_from(central::span(entry).min(LARGEST)).unwrap_or_default()];
        let count = read_some_at(&file, &mut bytes, entry.offset).map_err(unreadable)?;
        let content = central::content(entry, &bytes[..count], LARGEST).map_err(bad)?;
        Ok((entries, content))
    }

    /// The names that a wheel makes importable: kept from earlier, else from its central directory.
    pub(super) async fn imports_of(&self, wanted: &Wanted<'_>) -> Result<Vec<String>, IndexError> {
        if let Some(names) = self.store.record("imports", &wanted.digest.hex()) {
            return Ok(names);
        }
        let entries = match self.tail(wanted).await? {
            Some(tail) => self.remote_entries(wanted, &tail).await?,
            None => {
                let file = self.local(wanted).await?;
                central::open(&file).map_err(|error| IndexError::BadMetadata {
                    file: wanted.file.to_owned(),
                    rule: error.to_string(),
                })?
            }
        };
        let names = import_names(entries.iter().filter_map(module_path));
        let _ = self.store.keep_record("imports", &wanted.digest.hex(), &names);
        Ok(names)
    }

    fn keep_imports(&self, digest: &Digest, entries: &[Entry], metadata: &Metadata) {
        let names = match metadata.import_names.is_empty() {
            true => import_names(entries.iter().filter_map(module_path)),
            false => metadata.import_names.clone(),
        };
        let _ = self.store.keep_record("imports", &digest.hex(), &names);
    }

    /// The last bytes of a remote wheel; `None` if it is here already, or its host has no ranges.
    async fn tail(&self, wanted: &Wanted<'_>) -> Result<Option<Tail>, IndexError> {
        let here = self.store.blob_size(&wanted.digest).is_some();
        if here || wanted.url.scheme() == "file" || !self.has_ranges(&wanted.url) {
            return Ok(None);
        }
        let range = match wanted.size {
            Some(size) => format!("bytes={}-{}", size.saturating_sub(TAIL), size.saturating_sub(1)),
            None => format!("bytes=-{TAIL}"),
        };
        let Some((bytes, start, length)) = self.ask_range(wanted, &range).await? else {
            return Ok(None);
        };
        if wanted.size.is_some_and(|size| size != length) || start + bytes.len() as u64 != length {
            return Err(IndexError::BadMetadata {
                file: wanted.file.to_owned(),
                rule: "the server sent another range than the one that was asked for".to_owned(),
            });
        }
        Ok(Some(Tail { bytes, start, length }))
    }

    async fn remote_entries(&self, wanted: &Wanted<'_>, tail: &Tail) -> Result<Vec<Entry>, IndexError> {
        let bad = |rule: &str| IndexError::BadMetadata {
            file: wanted.file.to_owned(),
            rule: rule.to_owned(),
        };
        let directory = central::find(&tail.bytes, tail.length).map_err(bad)?;
        let end = directory.offset + directory.size;
        if let Some(bytes) = tail.slice(directory.offset, end) {
            return central::entries(bytes, directory.entries).map_err(bad);
        }
        if directory.size > LARGEST_DIRECTORY {
            return Err(bad("its central directory is too large"));
        }
        let bytes = self.range(wanted, directory.offset, end).await?;
        central::entries(&bytes, directory.entries).map_err(bad)
    }

    /// The bytes from `start` to `end` of a host that is known to have ranges.
    async fn range(&self, wanted: &Wanted<'_>, start: u64, end: u64) -> Result<Vec<u8>, IndexError> {
        let range = format!("bytes={start}-{}", end.saturating_sub(1));
        match self.ask_range(wanted, &range).await? {
            Some((bytes, at, _)) if at == start && bytes.len() as u64 == end - start => Ok(bytes),
            _ => Err(IndexError::BadMetadata {
                file: wanted.file.to_owned(),
                rule: "the server sent another range than the one that was asked for".to_owned(),
            }),
        }
    }

    /// The bytes of a range, where they start, and the whole file's length; `None` if the host has no ranges.
    async fn ask_range(
        &self,
        wanted: &Wanted<'_>,
        range: &str,
    ) -> Result<Option<(Vec<u8>, u64, u64)>, IndexError> {
        let fault = |source| IndexError::Metadata {
            file: wanted.file.to_owned(),
            source,
        };
        let _permit = self.limit.acquire().await;
        let request = self
            .request_to(wanted.url.clone())
            .header(header::RANGE, range)
            .header(header::ACCEPT_ENCODING, "identity");
        // Of a host that has no ranges the whole body is not read here: it is downloaded once, verified, and kept.
        let response = self
            .client
            .read_where(request, LARGEST_DIRECTORY, |status| status.as_u16() == 206)
            .await
            .map_err(fault)?;
        match response.status.as_u16() {
            206 => {}
            200 | 416 | 501 => {
                self.note_without_ranges(&wanted.url);
                return Ok(None);
            }
            _ => return Err(fault(response.error())),
        }
        let place = response.header("content-range").and_then(|text| {
            let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
            let start = range.split_once('-')?.0;
            Some((
                start.trim().parse::<u64>().ok()?,
                length.trim().parse::<u64>().ok()?,
            ))
        });
        let Some((start, length)) = place else {
            return Err(fault(HttpError::Truncated {
                url: Redacted(&wanted.url).to_string(),
                reason: "a 206 without a usable Content-Range".to_owned(),
            }));
        };
        Ok(Some((response.body.to_vec(), start, length)))
    }

    /// The whole file, downloaded and verified.
    pub(super) async fn local(&self, wanted: &Wanted<'_>) -> Result<std::fs::File, IndexError> {
        if wanted.url.scheme() == "file" {
            self.take_local_file(wanted)?;
        } else {
            let expected = Expected {
                digest: wanted.digest,
                size: wanted.size,
            };
            let request = self.request_to(wanted.url.clone());
            fetch::blob(
                &self.client,
                &self.store,
                &request,
                wanted.file,
                expected,
                &*self.reporter,
            )
            .await
            .map_err(|source| IndexError::Fetch {
                file: wanted.file.to_owned(),
                source,
            })?;
        }
        self.store
            .verified(&wanted.digest)?
            .ok_or_else(|| IndexError::BadMetadata {
                file: wanted.file.to_owned(),
                rule: "its copy in the cache is damaged; run the command again".to_owned(),
            })
    }

    /// A file of a `--find-links` folder enters the store like a download.
    fn take_local_file(&self, wanted: &Wanted<'_>) -> Result<(), IndexError> {
        if self.store.blob_size(&wanted.digest).is_some() {
            return Ok(());
        }
        let fault = |source| IndexError::FindLinks {
            path: wanted.url.path().to_owned(),
            source,
        };
        let path = wanted
            .url
            .to_file_path()
            .map_err(|()| fault(std::io::ErrorKind::InvalidInput.into()))?;
        let mut writer = self.store.writer()?;
        let mut file = std::fs::File::open(path).map_err(fault)?;
        std::io::copy(&mut file, &mut writer).map_err(fault)?;
        writer.commit_expected(wanted.file, wanted.digest, wanted.size)?;
        Ok(())
    }

    async fn sdist_metadata(&self, wanted: &Wanted<'_>) -> Result<Metadata, IndexError> {
        let file = self.local(wanted).await?;
        let needs_build = |reason: &str| IndexError::NeedsBuild {
            file: wanted.file.to_owned(),
            digest: wanted.digest,
            reason: reason.to_owned(),
        };
        let name = wanted.file.to_owned();
        let looked = tokio::task::spawn_blocking(move || sdist::look(&name, &file)).await;
        let looked = looked.map_err(|error| needs_build(&error.to_string()))?;
        let found = looked.map_err(|source| {
            // What is refused is kept by nobody.
            if source.is_refused() {
                let _ = self.store.discard(&wanted.digest);
            }
            IndexError::Source {
                file: wanted.file.to_owned(),
                source: Box::new(source),
            }
        })?;
        let pyproject = found.pyproject.and_then(|bytes| String::from_utf8(bytes).ok());
        super::source::final_metadata(found.pkg_info.as_deref(), pyproject.as_deref())
            .map_err(|error| IndexError::unreadable(wanted.file, &error))?
            .ok_or_else(|| {
                needs_build("neither its PKG-INFO nor its pyproject.toml is final about dependencies")
            })
    }
}

/// Where an entry lands below site-packages; `None` if it is metadata, a script or a header.
fn module_path(entry: &Entry) -> Option<&str> {
    let (top, rest) = entry.name.split_once('/').unwrap_or(("", &entry.name));
    if top.ends_with(".dist-info") {
        return None;
    }
    if !top.ends_with(".data") {
        return Some(&entry.name);
    }
    rest.strip_prefix("purelib/")
        .or_else(|| rest.strip_prefix("platlib/"))
}

/// The last bytes of a file.
struct Tail {
    bytes: Vec<u8>,
    start: u64,
    length: u64,
}

impl Tail {
    fn slice(&self, start: u64, end: u64) -> Option<&[u8]> {
        let from = usize::try_from(start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(end.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..to)
    }
}

fn read_some_at(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

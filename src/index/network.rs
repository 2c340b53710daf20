//! Indexes on the network: pages through the cache, each name asked for once, what is wanted soon fetched beside it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use url::Url;
use uv_normalize::PackageName;

use super::config::{Location, Locations};
use super::folder::{flat_document, folder_files, folder_page};
use super::once::OnceMap;
use super::page::{FileId, Listed, Page, RawFile};
use super::{Index, IndexError, Pick, Pin, simple};
use crate::digest::Digest;
use crate::http::{Client, Credentials, HttpError, Redacted, Request};
use crate::python::metadata::Metadata;
use crate::reporter::Reporter;
use crate::store::Store;

/// Requests under way at once. One index host multiplexes them over few connections.
const AT_ONCE: usize = 64;
/// How long a page without any word on caching is taken as it is.
const FRESH_SECONDS: u64 = 600;

/// What an index said of one name, once.
pub type PageAnswer = Result<Option<Arc<Page>>, Arc<IndexError>>;
/// A flat place's files, read once.
type FlatFiles = Arc<OnceCell<Vec<RawFile<'static>>>>;
/// What one file's metadata is, once.
pub type MetadataAnswer = Result<Arc<Metadata>, Arc<IndexError>>;

/// The configured indexes. Cheap to clone; must be used inside a tokio runtime, from a thread that may block.
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub client: Client,
    pub store: Arc<Store>,
    pub locations: Locations,
    pub reporter: Arc<dyn Reporter>,
    runtime: Handle,
    /// By name and the index that the name is pinned to.
    pages: OnceMap<(PackageName, Option<String>), PageAnswer>,
    metadata: OnceMap<Digest, MetadataAnswer>,
    /// The files of each flat place, by its address.
    flat: Mutex<HashMap<Url, FlatFiles>>,
    pub limit: Semaphore,
    /// Hosts that answered a range request with the whole file.
    pub without_ranges: Mutex<HashSet<String>>,
}

impl Network {
    /// Opens the indexes at `locations`. Asks nothing yet. Must be called inside a tokio runtime.
    pub fn new(client: Client, store: Arc<Store>, locations: Locations, reporter: Arc<dyn Reporter>) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                store,
                locations,
                reporter,
                runtime: Handle::current(),
                pages: OnceMap::new(),
                metadata: OnceMap::new(),
                flat: Mutex::default(),
                limit: Semaphore::new(AT_ONCE),
                without_ranges: Mutex::default(),
            }),
        }
    }

    pub fn locations(&self) -> &Locations {
        &self.shared.locations
    }

    fn start_page(&self, name: &PackageName, pin: Option<&str>) -> (PackageName, Option<String>) {
        let key = (name.clone(), pin.map(str::to_owned));
        if self.shared.pages.claim(&key) {
            let (shared, key) = (self.shared.clone(), key.clone());
            self.shared.runtime.spawn(async move {
                let answer = shared
                    .page(&key.0, key.1.as_deref())
                    .await
                    .map(|page| page.map(Arc::new))
                    .map_err(Arc::new);
                shared.pages.fill(&key, answer);
            });
        }
        key
    }

    fn start_metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId) -> Option<Digest> {
        let digest = page.file(file).digest()?;
        if self.shared.metadata.claim(&digest) {
            let (shared, name, page) = (self.shared.clone(), name.clone(), page.clone());
            self.shared.runtime.spawn(async move {
                let listed = page.file(file);
                let answer = shared.metadata_of(&name, &listed, &digest).await;
                shared
                    .metadata
                    .fill(&digest, answer.map(Arc::new).map_err(Arc::new));
            });
        }
        Some(digest)
    }
}

impl Index for Network {
    fn page(&self, name: &PackageName) -> PageAnswer {
        self.page_from(name, None)
    }

    fn pins(&self, name: &PackageName) -> &[Pin] {
        self.shared.locations.pins_of(name)
    }

    fn page_from(&self, name: &PackageName, pin: Option<&str>) -> PageAnswer {
        let key = self.start_page(name, pin);
        self.shared.pages.wait(&key)
    }

    fn metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId) -> MetadataAnswer {
        match self.start_metadata(name, page, file) {
            Some(digest) => self.shared.metadata.wait(&digest),
            None => Err(Arc::new(IndexError::BadMetadata {
                file: page.file(file).name().to_owned(),
                rule: "its index gives no sha256 for it".to_owned(),
            })),
        }
    }

    fn request_from(&self, name: &PackageName, pin: Option<&str>, pick: Option<Pick>) {
        let key = self.start_page(name, pin);
        let Some(pick) = pick else { return };
        let network = self.clone();
        self.shared.runtime.spawn(async move {
            if let Some(Ok(Some(page))) = network.shared.pages.get(&key).await
                && let Some(file) = pick(&page)
            {
                network.start_metadata(&key.0, &page, file);
            }
        });
    }

    fn request_metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId) {
        self.start_metadata(name, page, file);
    }
}

/// What the cache knows of a page beside its content.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Seconds since 1970.
    fetched: u64,
    fresh_seconds: u64,
    etag: Option<String>,
    /// The index does not have the project.
    absent: bool,
}

impl Kept {
    fn is_fresh(&self) -> bool {
        // A page from the future was kept under another clock: it is asked for again.
        let now = now();
        self.fetched <= now && now - self.fetched < self.fresh_seconds
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Shared {
    async fn page(&self, name: &PackageName, pin: Option<&str>) -> Result<Option<Page>, IndexError> {
        let mut own = Vec::new();
        for place in &self.locations.find_links {
            own.extend(files_of(name, &self.flat_files(place).await?));
        }
        let mut found = None;
        // The first index that has the project answers for it alone [torchtriton].
        for location in self.locations.for_package(name, pin)? {
            if let Some(page) = self.index_page(location, name).await? {
                found = Some(page);
                break;
            }
        }
        if own.is_empty() {
            return Ok(found);
        }
        let index = found.as_ref().map(|page| page.index.clone()).unwrap_or_default();
        let listed = found
            .iter()
            .flat_map(|page| page.all_files().map(|file| file.to_raw()));
        Ok(Some(Page::build(name, &index, own.into_iter().chain(listed))))
    }

    async fn index_page(&self, location: &Location, name: &PackageName) -> Result<Option<Page>, IndexError> {
        if location.flat {
            let page = Page::build(
                name,
                &location.label(),
                files_of(name, &self.flat_files(location).await?),
            );
            return Ok((!page.versions().is_empty()).then_some(page));
        }
        if location.url.scheme() == "file" {
            return folder_page(location, name);
        }
        let credentials = self.credentials_for(location);
        let key = page_key(location, name, credentials.as_ref());
        let label = location.label();
        let kept = self.kept_page(&key, &label);
        if let Some((about, page)) = kept.as_ref().map(|(about, page)| (about, page.is_some()))
            && (about.is_fresh() || self.client.options().offline)
        {
            debug_assert_eq!(page, !about.absent);
            return Ok(kept.and_then(|(_, page)| page));
        }
        let url = location
            .url
            .join(&format!("{name}/"))
            .map_err(|error| IndexError::Config(format!("{}: {error}", Redacted(&location.url))))?;
        let mut request = Request::get(url)
            .header(header::ACCEPT, simple::ACCEPT)
            .credentials(credentials);
        if let Some((Kept { etag: Some(etag), .. }, _)) = &kept {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let fault = |source| IndexError::Page {
            name: name.clone(),
            source,
        };
        let response = {
            let _permit = self.limit.acquire().await;
            self.client
                .read_any(request, simple::LARGEST)
                .await
                .map_err(fault)?
        };
        let fresh_seconds = fresh_seconds(response.header("cache-control"));
        let about = |etag: Option<&str>, absent| Kept {
            fetched: now(),
            fresh_seconds,
            etag: etag.map(str::to_owned),
            absent,
        };
        match response.status.as_u16() {
            304 if kept.is_some() => {
                let page = kept.and_then(|(_, page)| page);
                let about = about(response.header("etag"), page.is_none());
                self.keep_page(&key, &about, page.as_ref());
                Ok(page)
            }
            404 | 410 => {
                self.keep_page(&key, &about(None, true), None);
                Ok(None)
            }
            200 => {
                let kind = response.header("content-type").unwrap_or_default().to_owned();
                let about = about(response.header("etag"), false);
                let url = response.url.clone();
                let page = simple::read(name, &label, &url, &kind, &response.body).map_err(|rule| {
                    IndexError::BadPage {
                        name: name.clone(),
                        url: Redacted(&url).to_string(),
                        rule,
                    }
                })?;
                self.keep_page(&key, &about, Some(&page));
                Ok(Some(page))
            }
            _ => Err(fault(response.error())),
        }
    }

    fn kept_page(&self, key: &str, label: &str) -> Option<(Kept, Option<Page>)> {
        let bytes = self.store.record_bytes("pages", key)?;
        let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let about: Kept = serde_json::from_slice(bytes.get(4..4 + length)?).ok()?;
        if about.absent {
            return Some((about, None));
        }
        let page = Page::load(bytes.slice(4 + length..), label)?;
        Some((about, Some(page)))
    }

    /// A cache that cannot be written slows the next run down and breaks nothing.
    fn keep_page(&self, key: &str, about: &Kept, page: Option<&Page>) {
        let head = serde_json::to_vec(about).unwrap_or_default();
        let mut bytes = (head.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&head);
        if let Some(page) = page {
            bytes.extend_from_slice(page.bytes());
        }
        let _ = self.store.keep_record_bytes("pages", key, &bytes);
    }

    /// What may be sent to an index: its own credentials, else what its origin has.
    fn credentials_for(&self, location: &Location) -> Option<Credentials> {
        let own = location.credentials.clone();
        own.or_else(|| self.locations.credentials(&location.url))
    }

    /// All distributions of a flat page or folder.
    async fn flat_files(&self, place: &Location) -> Result<Vec<RawFile<'static>>, IndexError> {
        let cell = {
            let mut known = self.flat.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(place.url.clone()).or_default().clone()
        };
        let files = cell
            .get_or_try_init(|| async {
                match place.url.to_file_path() {
                    Ok(path) if place.url.scheme() == "file" && path.is_dir() => folder_files(&path),
                    Ok(path) if place.url.scheme() == "file" => flat_document(&path),
                    _ => self.flat_page(place).await,
                }
            })
            .await?;
        Ok(files.clone())
    }

    async fn flat_page(&self, place: &Location) -> Result<Vec<RawFile<'static>>, IndexError> {
        let shown = Redacted(&place.url).to_string();
        let fault = |source: HttpError| IndexError::FlatPage {
            url: shown.clone(),
            source,
        };
        let request = Request::get(place.url.clone())
            .header(header::ACCEPT, "text/html")
            .credentials(self.credentials_for(place));
        let response = self
            .client
            .read_any(request, simple::LARGEST)
            .await
            .map_err(fault)?;
        if response.status.as_u16() != 200 {
            return Err(fault(response.error()));
        }
        simple::flat(&response.url, &response.body)
            .map_err(|rule| IndexError::Config(format!("{shown}: {rule}")))
    }

    pub(super) fn note_without_ranges(&self, url: &Url) {
        if let Some(host) = url.host_str() {
            self.without_ranges
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(host.to_owned());
        }
    }

    pub(super) fn has_ranges(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| {
            !self
                .without_ranges
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(host)
        })
    }

    pub(super) fn request_to(&self, url: Url) -> Request {
        let credentials = self.locations.credentials(&url);
        Request::get(url).credentials(credentials)
    }
}

impl Listed<'_> {
    fn to_raw(self) -> RawFile<'static> {
        RawFile {
            name: self.name().to_owned().into(),
            url: self.url().to_owned().into(),
            requires_python: self
                .requires_python()
                .map(|specifiers| specifiers.to_string().into()),
            sha256: self.digest(),
            metadata: self.metadata(),
            size: self.size(),
            upload_time: self.upload_time(),
            yanked: self.yanked().map(|reason| reason.to_owned().into()),
        }
    }
}

/// The files of `name` among those of all projects.
fn files_of(name: &PackageName, all: &[RawFile<'static>]) -> Vec<RawFile<'static>> {
    let page = Page::build(name, "", all.iter().cloned());
    page.all_files().map(Listed::to_raw).collect()
}

/// Pages are kept per index and credentials: a page that one user may see never answers another's request.
fn page_key(location: &Location, name: &PackageName, credentials: Option<&Credentials>) -> String {
    let who = credentials
        .and_then(Credentials::header)
        .map(|header| Digest::of(header.as_bytes()).hex())
        .unwrap_or_default();
    format!("{} {name} {who}", location.url)
}

/// How long an answer is fresh (RFC 9111); indexes that say nothing get ten minutes.
fn fresh_seconds(cache_control: Option<&str>) -> u64 {
    let Some(text) = cache_control else {
        return FRESH_SECONDS;
    };
    let mut seconds = FRESH_SECONDS;
    for directive in text.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-cache") || directive.eq_ignore_ascii_case("no-store") {
            return 0;
        }
        if let Some(age) = directive.strip_prefix("max-age=") {
            seconds = age.trim_matches('"').parse().unwrap_or(0);
        }
    }
    seconds.min(24 * 3600)
}

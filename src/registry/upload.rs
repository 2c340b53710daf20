//! One blob into one repository, through broken lines and odd registries.
//!
//! A blob goes up in one piece: a POST opens an upload, a PUT brings the bytes and the digest. Where that broke, the
//! registry is asked first whether it has the blob (the reply may be all that was lost), then how much of it (the rest
//! follows as a chunk), and a new upload is opened where it does not say. Chunks from the start are for registries
//! that find a blob too large for one request. Tries count only while nothing is gained.
//!
//! Source: OCI distribution-spec 1.1, "Pushing blobs".

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header;

use super::RegistryError;
use super::auth::{Host, Scope};
use super::stream::{Content, Fault, Watch};
use crate::digest::Digest;
use crate::http::{Client, HttpError, Method, Request, Response, StatusCode, Url, is_temporary_status};
use crate::oci::Reference;
use crate::reporter::{Reporter, TaskId, Unit};

/// The size of a chunk where one request is too large: one registry takes none that are larger.
const CHUNK: u64 = 4 << 20;

/// How many stall times a registry may take to digest a blob that it has got: it hashes and copies gigabytes.
const DIGESTING: u32 = 10;

/// What is to be in the registry.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// As messages name it.
    pub(super) title: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Where it is to be.
pub(super) struct Place<'a> {
    pub(super) client: &'a Client,
    pub(super) host: &'a Host,
    pub(super) target: &'a Reference,
}

/// An upload that the registry has opened.
pub(super) struct Opened {
    location: Url,
    /// How much the registry has.
    offset: u64,
    /// The smallest chunk that it takes.
    smallest: u64,
}

/// What a request for a new upload came to.
pub(super) enum Begun {
    /// The blob is there: mounted.
    Done,
    Open(Opened),
}

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Chunks,
}

enum Step {
    Done,
    Moved(Opened),
    Broken(Break),
}

/// Why a step failed, and what it says about the next one.
struct Break {
    error: RegistryError,
    next: Next,
    pause: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Ask what the registry has, and go on.
    Resume,
    /// What was sent does not help; start over.
    Restart,
    /// One request is too large for it.
    Smaller,
    Give,
}

impl Place<'_> {
    pub(super) fn scopes(&self) -> [Scope; 1] {
        [Scope::push(self.target.repository())]
    }

    fn url(&self, rest: &str) -> Url {
        self.host.url(self.target.repository(), rest)
    }

    /// Whether the registry has the blob. An odd answer means that it has not.
    pub(super) async fn has(&self, blob: &Blob) -> Result<bool, RegistryError> {
        let request = Request::new(Method::HEAD, self.url(&format!("blobs/{}", blob.digest)));
        let response = self.host.send(request, &self.scopes()).await?;
        if is_temporary_status(response.status) {
            return Err(response.into_error().await.into());
        }
        let fits = response.content_length().is_none_or(|length| length == blob.size);
        Ok(response.status == StatusCode::OK && fits)
    }

    /// Asks for the blob of another repository of this registry. None where that did not even open an upload.
    pub(super) async fn mount(&self, blob: &Blob, from: &Reference) -> Option<Begun> {
        let mut url = self.url("blobs/uploads/");
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from.repository());
        let scopes = [
            Scope::push(self.target.repository()),
            Scope::pull(from.repository()),
        ];
        let response = self
            .host
            .send(Request::new(Method::POST, url), &scopes)
            .await
            .ok()?;
        self.begun(&response).ok().flatten()
    }

    async fn open(&self) -> Result<Begun, RegistryError> {
        let request = Request::new(Method::POST, self.url("blobs/uploads/"));
        let response = self.host.send(request, &self.scopes()).await?;
        match self.begun(&response)? {
            Some(begun) => Ok(begun),
            None => Err(self.refused(response).await),
        }
    }

    fn begun(&self, response: &Response) -> Result<Option<Begun>, RegistryError> {
        Ok(match response.status.as_u16() {
            201 => Some(Begun::Done),
            200 | 202 | 204 => Some(Begun::Open(Opened {
                location: self.host.location(response)?,
                offset: 0,
                smallest: smallest(response),
            })),
            _ => None,
        })
    }

    pub(super) async fn refused(&self, response: Response) -> RegistryError {
        match response.status.as_u16() {
            401 | 403 => {
                let repository = self.target.repository();
                self.host.denied(response.status, repository, "push to").await
            }
            _ => response.into_error().await.into(),
        }
    }
}

/// Sends `content`; `opened` is an upload that a mount has opened instead.
pub(super) async fn upload(
    place: &Place<'_>,
    blob: &Blob,
    content: &Content,
    opened: Option<Opened>,
    reporter: &dyn Reporter,
) -> Result<(), RegistryError> {
    let task = reporter.start(&format!("pushing {}", blob.title), Unit::Bytes, Some(blob.size));
    let upload = Upload {
        place,
        blob,
        content,
        progress: Progress {
            reporter,
            task,
            told: AtomicU64::new(0),
        },
    };
    let outcome = upload.run(opened).await;
    if outcome.is_ok() {
        upload.progress.tell(blob.size);
    }
    reporter.finish(task);
    outcome
}

struct Upload<'a> {
    place: &'a Place<'a>,
    blob: &'a Blob,
    content: &'a Content,
    progress: Progress<'a>,
}

/// Bytes that are sent twice are shown once.
struct Progress<'a> {
    reporter: &'a dyn Reporter,
    task: TaskId,
    told: AtomicU64,
}

impl Progress<'_> {
    fn tell(&self, position: u64) {
        let told = self.told.fetch_max(position, Ordering::Relaxed);
        if position > told {
            self.reporter.advance(self.task, position - told);
        }
    }
}

impl Upload<'_> {
    async fn run(&self, mut opened: Option<Opened>) -> Result<(), RegistryError> {
        let mut way = Way::Whole;
        let mut is_checked = false;
        let (mut fruitless, mut furthest) = (0, 0);
        loop {
            let now = match opened.take() {
                Some(opened) => opened,
                None => match self.place.open().await? {
                    Begun::Done => return Ok(()),
                    Begun::Open(opened) => opened,
                },
            };
            if !is_checked && (way == Way::Chunks || now.offset > 0) {
                self.content
                    .check(self.blob.digest, self.blob.size)
                    .await
                    .map_err(|fault| self.fault(fault))?;
                is_checked = true;
            }
            let broken = match self.step(&now, way).await? {
                Step::Done => return Ok(()),
                Step::Moved(next) if next.offset > now.offset => {
                    furthest = furthest.max(next.offset);
                    opened = Some(next);
                    continue;
                }
                Step::Moved(_) => Break {
                    error: self.odd("the registry takes chunks and has no more than before"),
                    next: Next::Restart,
                    pause: None,
                },
                Step::Broken(broken) => broken,
            };
            if broken.next == Next::Give {
                return Err(broken.error);
            }
            if self.place.has(self.blob).await? {
                return Ok(());
            }
            match broken.next {
                Next::Resume => opened = self.resume(&now).await?,
                // What chunks could not do, one piece may, and the other way round.
                Next::Smaller => way = Way::Chunks,
                Next::Restart | Next::Give => way = Way::Whole,
            }
            let offset = opened.as_ref().map_or(0, |opened| opened.offset);
            fruitless = if offset > furthest { 0 } else { fruitless + 1 };
            furthest = furthest.max(offset);
            if fruitless >= self.place.client.options().tries {
                return Err(broken.error);
            }
            self.place.client.pause(fruitless.max(1), broken.pause).await;
        }
    }

    async fn step(&self, now: &Opened, way: Way) -> Result<Step, RegistryError> {
        let size = self.blob.size;
        match way {
            Way::Whole if now.offset == 0 => self.put(now, 0..size).await,
            _ if now.offset == size => self.put(now, size..size).await,
            Way::Whole => self.patch(now, now.offset..size).await,
            Way::Chunks => {
                let end = now.offset.saturating_add(CHUNK.max(now.smallest)).min(size);
                self.patch(now, now.offset..end).await
            }
        }
    }

    /// The last request of an upload: the bytes that are still missing, and the digest.
    async fn put(&self, now: &Opened, range: Range<u64>) -> Result<Step, RegistryError> {
        let mut url = now.location.clone();
        // After what the registry put there itself.
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let response = match self.send(Method::PUT, url, range, HeaderRange::Without).await? {
            Ok(response) => response,
            Err(broken) => return Ok(Step::Broken(broken)),
        };
        match response.status.as_u16() {
            201 => Ok(Step::Done),
            200..=299 if self.place.has(self.blob).await? => Ok(Step::Done),
            200..=299 => Ok(Step::Broken(Break {
                error: self.odd("the registry took it and does not have it"),
                next: Next::Restart,
                pause: None,
            })),
            _ => Ok(Step::Broken(self.broken(now, response).await)),
        }
    }

    async fn patch(&self, now: &Opened, range: Range<u64>) -> Result<Step, RegistryError> {
        let end = range.end;
        let sent = self
            .send(Method::PATCH, now.location.clone(), range, HeaderRange::With)
            .await?;
        let response = match sent {
            Ok(response) => response,
            Err(broken) => return Ok(Step::Broken(broken)),
        };
        match response.status.as_u16() {
            // It takes a part for the whole, unless there was only one part.
            201 if self.place.has(self.blob).await? => Ok(Step::Done),
            201 => Ok(Step::Broken(Break {
                error: self.odd("the registry takes a chunk for the whole"),
                next: Next::Restart,
                pause: None,
            })),
            200..=299 => {
                let moved = Opened {
                    location: match response.header("location") {
                        Some(_) => self.place.host.location(&response)?,
                        None => now.location.clone(),
                    },
                    offset: received(&response).unwrap_or(end),
                    smallest: now.smallest,
                };
                Ok(match moved.offset <= end {
                    true => Step::Moved(moved),
                    false => Step::Broken(Break {
                        error: self.odd("the registry has more than was sent"),
                        next: Next::Restart,
                        pause: None,
                    }),
                })
            }
            _ => Ok(Step::Broken(self.broken(now, response).await)),
        }
    }

    /// Asks how much the registry has of an upload. None where it does not say: a new one is opened.
    async fn resume(&self, now: &Opened) -> Result<Option<Opened>, RegistryError> {
        let request = Request::get(now.location.clone());
        let response = self.place.host.send(request, &self.place.scopes()).await?;
        if !response.status.is_success() {
            return Ok(None);
        }
        // `0-0` is one byte by the specification, and none in the reference implementation.
        let offset = received(&response).filter(|offset| (2..=self.blob.size).contains(offset));
        let Some(offset) = offset else { return Ok(None) };
        self.progress
            .reporter
            .note(&format!("going on with {} at byte {offset}", self.blob.title));
        Ok(Some(Opened {
            location: match response.header("location") {
                Some(_) => self.place.host.location(&response)?,
                None => now.location.clone(),
            },
            offset,
            smallest: now.smallest,
        }))
    }

    /// Sends a part of the blob. The outer error is final, the inner one is the line's.
    async fn send(
        &self,
        method: Method,
        url: Url,
        range: Range<u64>,
        header_range: HeaderRange,
    ) -> Result<Result<Response, Break>, RegistryError> {
        let length = range.end - range.start;
        let mut request = Request::new(method, url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, &length.to_string());
        if header_range == HeaderRange::With {
            request = request.header(
                header::CONTENT_RANGE,
                &format!("{}-{}", range.start, range.end - 1),
            );
        }
        let whole = (length == self.blob.size).then_some(self.blob.digest);
        let watch = Arc::new(Watch::default());
        let body = |_: &Url| match length {
            0 => reqwest::Body::from(""),
            _ => self.content.body(range.clone(), whole, &watch),
        };
        let scopes = self.place.scopes();
        let work = self.place.host.send_stream(&request, &scopes, body, &watch.pulse);
        let sent = self.watched(work, &watch, range.end).await;
        if let Some(fault) = watch.take_fault() {
            return Err(self.fault(fault));
        }
        match sent {
            Err(RegistryError::Http(error)) if error.is_temporary() && !is_offline(&error) => {
                Ok(Err(Break {
                    error: error.into(),
                    next: Next::Resume,
                    pause: None,
                }))
            }
            Err(error) => Err(error),
            Ok(response) => Ok(Ok(response)),
        }
    }

    /// Shows how far the body is, and keeps the request alive while the registry digests what it has got.
    async fn watched<F: Future>(&self, work: F, watch: &Watch, end: u64) -> F::Output {
        let patience = self.place.client.options().stall * DIGESTING;
        let mut finished: Option<Instant> = None;
        let mut work = std::pin::pin!(work);
        loop {
            let outcome = tokio::time::timeout(Duration::from_millis(100), &mut work).await;
            let position = watch.position();
            self.progress.tell(position);
            if let Ok(outcome) = outcome {
                return outcome;
            }
            if position == end && finished.get_or_insert_with(Instant::now).elapsed() < patience {
                watch.pulse.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What an answer of 300 and more means for the upload.
    async fn broken(&self, now: &Opened, response: Response) -> Break {
        let status = response.status;
        let pause = response.retry_after();
        let is_own = self.place.host.is_own(&response.url);
        let next = match status.as_u16() {
            // The challenge has been taken up already; what the registry has got may be kept.
            401 if is_own => Next::Resume,
            _ if is_temporary_status(status) => Next::Resume,
            413 if self.blob.size > CHUNK.max(now.smallest) => Next::Smaller,
            404 | 416 => Next::Resume,
            // Nothing of ours is wrong with a blob in one piece: its digest was checked as it left.
            400 | 405 | 411 | 501 if now.offset > 0 => Next::Restart,
            _ => Next::Give,
        };
        let error = match is_own {
            true => self.place.refused(response).await,
            false => response.into_error().await.into(),
        };
        Break { error, next, pause }
    }

    fn odd(&self, reason: &str) -> RegistryError {
        RegistryError::Upload {
            title: self.blob.title.clone(),
            repository: self.place.target.name(),
            reason: reason.to_owned(),
        }
    }

    fn fault(&self, fault: Fault) -> RegistryError {
        let title = self.blob.title.clone();
        match fault {
            Fault::Read(source) => RegistryError::Read { title, source },
            Fault::Corrupt => RegistryError::Corrupt {
                title,
                expected: self.blob.digest,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderRange {
    With,
    Without,
}

fn is_offline(error: &HttpError) -> bool {
    matches!(error, HttpError::Offline { .. })
}

fn smallest(response: &Response) -> u64 {
    let said = response.header("oci-chunk-min-length");
    said.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How many bytes the registry has: `Range: 0-<last>`, with or without a unit.
fn received(response: &Response) -> Option<u64> {
    let text = response.header("range")?.trim();
    let text = text
        .strip_prefix("bytes")
        .unwrap_or(text)
        .trim_start_matches(['=', ' ']);
    let (first, last) = text.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0").then(|| last.checked_add(1)).flatten()
}

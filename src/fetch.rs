//! Downloads one blob of known digest into the store: wheels, .debs, registry layers.
//!
//! It owns the way a broken download goes on: where the server serves ranges, from the byte it broke at; where it
//! does not, from the start. What arrives is hashed on the way and kept only if it is what was promised. It does not
//! know what the blob is, nor where the URL came from.

use std::io::Write;

use reqwest::header;

use crate::digest::Digest;
use crate::http::{Client, HttpError, Redacted, Request, Response, is_temporary_status};
use crate::reporter::{Reporter, Unit};
use crate::store::{BlobWriter, Store, StoreError};

/// A connection that brought this much, in bytes, before it broke does not count as a failed try.
const PROGRESS: u64 = 64 << 10;

/// What the caller knows of a blob before it is here.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub digest: Digest,
    /// In bytes, where it is known; a body that is longer is cut off there and refused.
    pub size: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The right length and still other bytes, after a second download too.
    #[error("{what} from {url} is not what was promised: expected {expected}, got {actual}")]
    Corrupt {
        what: String,
        url: String,
        expected: String,
        actual: String,
    },
    #[error("cannot write {what} to the cache")]
    Write { what: String, source: std::io::Error },
}

/// Makes sure that the blob is in the store, downloading it if it is not. `what` names it in messages and on the bar.
///
/// Two processes that want the same blob at once fetch it once: the second waits for the first. A body of the wrong
/// digest is fetched once more from the start (a proxy may have cut it), then refused.
pub async fn blob(
    client: &Client,
    store: &Store,
    request: &Request,
    what: &str,
    expected: Expected,
    reporter: &dyn Reporter,
) -> Result<(), FetchError> {
    if is_here(store, &expected) {
        return Ok(());
    }
    // A lock taken on the async thread would stall every other download while another process holds it.
    let name = format!("fetch {}", expected.digest);
    let _guard = loop {
        if let Some(guard) = store.try_lock(&name)? {
            break guard;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if is_here(store, &expected) {
            return Ok(());
        }
    };
    if is_here(store, &expected) {
        return Ok(());
    }
    let task = reporter.start(what, Unit::Bytes, expected.size);
    let outcome = download(client, store, request, what, expected, &|count| {
        reporter.advance(task, count)
    })
    .await;
    reporter.finish(task);
    outcome
}

fn is_here(store: &Store, expected: &Expected) -> bool {
    // Presence and size only: whoever reads the blob verifies it.
    store
        .blob_size(&expected.digest)
        .is_some_and(|size| expected.size.is_none_or(|wanted| wanted == size))
}

async fn download(
    client: &Client,
    store: &Store,
    request: &Request,
    what: &str,
    expected: Expected,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<(), FetchError> {
    let mut writer = store.writer()?;
    let mut again = true;
    loop {
        receive(client, request, what, expected, &mut writer, advance).await?;
        match writer.check(what, expected.digest, expected.size) {
            Ok(()) => return Ok(writer.commit().map(|_| ())?),
            Err(_) if again => {
                again = false;
                writer.restart()?;
            }
            Err(StoreError::Mismatch {
                expected,
                expected_size,
                actual,
                actual_size,
                ..
            }) => {
                return Err(FetchError::Corrupt {
                    what: what.to_owned(),
                    url: Redacted(&request.url).to_string(),
                    expected: format!("{expected} ({expected_size} bytes)"),
                    actual: format!("{actual} ({actual_size} bytes)"),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the body to its end, over as many connections as that takes: a connection that made progress before it
/// broke does not count as a try.
async fn receive(
    client: &Client,
    request: &Request,
    what: &str,
    expected: Expected,
    writer: &mut BlobWriter<'_>,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<(), FetchError> {
    let mut fruitless = 0;
    loop {
        let before = writer.length();
        let mut pause = None;
        let error = match open(client, request, before).await {
            Ok(mut response) => {
                if is_temporary_status(response.status) {
                    pause = response.retry_after();
                    Some(response.into_error().await)
                } else if response.status.as_u16() == 416 && before > 0 {
                    // The file ends where we are, before it should: for whoever compares it with what was promised.
                    return Ok(());
                } else if response.status.is_client_error() || response.status.is_server_error() {
                    return Err(response.into_error().await.into());
                } else {
                    // 206 at another offset than asked, and 200 to a range: both start over (RFC 9110 section 14.2).
                    let skip = if continues_at(&response) == Some(before) {
                        before
                    } else {
                        0
                    };
                    if skip != writer.length() {
                        writer.restart()?;
                    }
                    if skip == 0 && response.status.as_u16() == 206 && continues_at(&response) != Some(0) {
                        Some(HttpError::Truncated {
                            url: Redacted(&response.url).to_string(),
                            reason: "the server sent another range than the one that was asked for"
                                .to_owned(),
                        })
                    } else {
                        copy(&mut response, what, expected, writer, advance).await?
                    }
                }
            }
            Err(error) if error.is_temporary() && !matches!(error, HttpError::Offline { .. }) => Some(error),
            Err(error) => return Err(error.into()),
        };
        let short = expected.size.is_some_and(|size| writer.length() < size);
        let error = match error {
            None if short => HttpError::Truncated {
                url: Redacted(&request.url).to_string(),
                reason: format!(
                    "{} of {} bytes",
                    writer.length(),
                    expected.size.unwrap_or_default()
                ),
            },
            None => return Ok(()),
            Some(error) => error,
        };
        // A byte per connection, or a second, is not a download that goes on.
        fruitless = if writer.length() >= before + PROGRESS {
            0
        } else {
            fruitless + 1
        };
        if fruitless >= client.options().tries {
            return Err(error.into());
        }
        client.pause(fruitless.max(1), pause).await;
    }
}

async fn open(client: &Client, request: &Request, offset: u64) -> Result<Response, HttpError> {
    // Compression on the way would make ranges and sizes mean something else.
    let mut request = request.clone().header(header::ACCEPT_ENCODING, "identity");
    if offset > 0 {
        request = request.header(header::RANGE, &format!("bytes={offset}-"));
    }
    client.send_once(&request).await
}

/// The offset at which this answer's body starts: that of a 206's `Content-Range`, else the beginning.
fn continues_at(response: &Response) -> Option<u64> {
    if response.status.as_u16() != 206 {
        return Some(0);
    }
    let range = response.header("content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}

/// Copies the body until its end, or until it breaks (that error is returned inside `Ok`: the caller goes on).
async fn copy(
    response: &mut Response,
    what: &str,
    expected: Expected,
    writer: &mut BlobWriter<'_>,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Option<HttpError>, FetchError> {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if let Some(size) = expected.size
                    && writer.length() + chunk.len() as u64 > size
                {
                    return Err(HttpError::TooLarge {
                        url: Redacted(&response.url).to_string(),
                        limit: size,
                    }
                    .into());
                }
                writer.write_all(&chunk).map_err(|source| FetchError::Write {
                    what: what.to_owned(),
                    source,
                })?;
                advance(chunk.len() as u64);
            }
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(error)),
        }
    }
}

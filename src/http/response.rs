//! An answer, whose body is read in pieces or whole, up to a limit, and never waited for without end.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use url::Url;

use super::{HttpError, Redacted, chain};

/// An answer whose body has not been read.
pub struct Response {
    /// The URL that answered, after redirects.
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub(super) inner: reqwest::Response,
    pub(super) stall: Duration,
    pub(super) tries: u32,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body's length as the server declares it.
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        match tokio::time::timeout(self.stall, self.inner.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(HttpError::Truncated {
                url: Redacted(&self.url).to_string(),
                reason: chain(&error.without_url()),
            }),
            Err(_) => Err(HttpError::Stalled {
                url: Redacted(&self.url).to_string(),
                seconds: self.stall.as_secs(),
            }),
        }
    }

    /// The whole body, after content decoding, refused beyond `limit` bytes: a compressed bomb is stopped here.
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(HttpError::TooLarge {
                    url: Redacted(&self.url).to_string(),
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// How long the server asks us to wait: `Retry-After` in seconds or as an HTTP date (RFC 9110 section 10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header("retry-after")?.trim();
        if let Ok(seconds) = value.parse::<u64>() {
            return Some(Duration::from_secs(seconds));
        }
        let date = jiff::fmt::rfc2822::parse(value).ok()?;
        let until = SystemTime::from(date.timestamp());
        Some(until.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// This answer as an error, with the first words of its body when it is text.
    pub async fn into_error(self) -> HttpError {
        let (url, status, tries) = (Redacted(&self.url).to_string(), self.status, self.tries);
        let is_text = self
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain") || kind.contains("json"));
        let detail = match self.bytes(64 << 10).await {
            Ok(body) if is_text && !body.is_empty() => {
                let text = String::from_utf8_lossy(&body);
                let line: String = text
                    .chars()
                    .map(|character| if character.is_control() { ' ' } else { character })
                    .take(200)
                    .collect();
                format!(": {}", line.trim())
            }
            _ => String::new(),
        };
        HttpError::Status {
            url,
            status,
            tries,
            detail,
        }
    }
}

//! An answer, whose body is read in pieces or whole, up to a limit, and never waited for without end.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use url::Url;

use super::{HttpError, Redacted, SLOWEST, chain};

/// An answer whose body has not been read.
pub struct Response {
    /// The URL that answered, after redirects.
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub(super) inner: reqwest::Response,
    pub(super) pace: Pace,
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

    /// The next piece of the body; `None` at its end. Only the time that is spent waiting here counts against the server.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let stalled = |pace: &Pace, url: &Url| HttpError::Stalled {
            url: Redacted(url).to_string(),
            seconds: pace.stall.as_secs(),
        };
        let started = tokio::time::Instant::now();
        match tokio::time::timeout(self.pace.left(), self.inner.chunk()).await {
            Ok(Ok(Some(chunk))) => match self.pace.came(chunk.len() as u64, started.elapsed()) {
                true => Ok(Some(chunk)),
                false => Err(stalled(&self.pace, &self.url)),
            },
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(HttpError::Truncated {
                url: Redacted(&self.url).to_string(),
                reason: chain(&error.without_url()),
            }),
            Err(_) => Err(stalled(&self.pace, &self.url)),
        }
    }

    /// The whole body, after content decoding, refused beyond `limit` bytes: a compressed bomb is stopped here.
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes, HttpError> {
        // What is said of the length is believed up to a few MB.
        let said = self.inner.content_length().unwrap_or(0).min(limit).min(8 << 20);
        let mut body = BytesMut::with_capacity(said as usize);
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
        retry_after(self.header("retry-after")?)
    }

    /// This answer as an error, with the first words of its body when it is text.
    pub async fn into_error(self) -> HttpError {
        let (url, status, tries) = (Redacted(&self.url).to_string(), self.status, self.tries);
        let kind = self.header("content-type").map(str::to_owned);
        let detail = match self.bytes(64 << 10).await {
            Ok(body) => detail(kind.as_deref(), &body),
            Err(_) => String::new(),
        };
        HttpError::Status {
            url,
            status,
            tries,
            detail,
        }
    }
}

/// `Retry-After` in seconds or as an HTTP date.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let until = SystemTime::from(date.timestamp());
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The first words of an error's body, where it is text.
pub(super) fn detail(content_type: Option<&str>, body: &[u8]) -> String {
    let is_text = content_type.is_some_and(|kind| kind.starts_with("text/plain") || kind.contains("json"));
    if !is_text || body.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(body);
    let line: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(200)
        .collect();
    format!(": {}", line.trim())
}

/// How a body comes in: what came while `waited` passed, since the last time that it was enough.
pub(super) struct Pace {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub fn new(stall: Duration) -> Self {
        Self {
            stall,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long the next piece may take.
    fn left(&self) -> Duration {
        self.stall.saturating_sub(self.waited)
    }

    /// Notes a piece; false if the body is too slow to go on with.
    fn came(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.bytes >= SLOWEST {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
        self.waited < self.stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_has_stalled() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(30 * second);
        let lasted = (0..100).take_while(|_| pace.came(1, second)).count();
        assert_eq!(lasted, 29, "1 B/s is given the stall time");
        let mut pace = Pace::new(30 * second);
        assert!(
            (0..1000).all(|_| pace.came(40, second)),
            "40 B/s is slow and goes on"
        );
        assert!(!pace.came(1, 40 * second) && pace.left() == Duration::ZERO);
    }
}

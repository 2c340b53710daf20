//! Small answers, read whole: a body that breaks off is asked for again like an answer that never came.

use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use url::Url;

use super::response::{detail, retry_after};
use super::{Client, HttpError, Redacted, Request, settled};

/// The most that is read of an answer that is an error.
const ERROR_LIMIT: u64 = 64 << 10;

/// An answer with its body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The URL that answered, after redirects.
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    tries: u32,
}

impl Client {
    /// Sends `request` and reads its whole answer of up to `limit` bytes, trying both again on failures that may pass.
    /// Every final status is an answer.
    pub async fn read_any(&self, request: Request, limit: u64) -> Result<Answer, HttpError> {
        self.read_where(request, limit, |_| true).await
    }

    /// Like [`Client::read_any`]; only bodies of the statuses that `wanted` names are read, others stay empty.
    pub async fn read_where(
        &self,
        request: Request,
        limit: u64,
        wanted: fn(StatusCode) -> bool,
    ) -> Result<Answer, HttpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.read_once(&request, limit, wanted).await;
            let said = outcome
                .as_ref()
                .map(|answer| (answer.status, answer.retry_after()));
            let Some(pause) = self.worth_another(tries, said) else {
                return settled(outcome, tries).map(|answer| Answer { tries, ..answer });
            };
            self.pause(tries, pause).await;
        }
    }

    async fn read_once(
        &self,
        request: &Request,
        limit: u64,
        wanted: fn(StatusCode) -> bool,
    ) -> Result<Answer, HttpError> {
        let response = self.send_once(request).await?;
        let (url, status) = (response.url.clone(), response.status);
        let headers = response.headers.clone();
        let is_error = status.is_client_error() || status.is_server_error();
        let body = match is_error {
            true => response.bytes(ERROR_LIMIT).await.unwrap_or_default(),
            false if wanted(status) => response.bytes(limit).await?,
            false => Bytes::new(),
        };
        Ok(Answer {
            url,
            status,
            headers,
            body,
            tries: 1,
        })
    }

    /// Like [`Client::read_any`]; a status of 400 and more is [`HttpError::Status`].
    pub async fn read(&self, request: Request, limit: u64) -> Result<Answer, HttpError> {
        let answer = self.read_any(request, limit).await?;
        match answer.status.is_client_error() || answer.status.is_server_error() {
            true => Err(answer.error()),
            false => Ok(answer),
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header("retry-after")?)
    }

    /// This answer as an error, with the first words of its body when it is text.
    pub fn error(&self) -> HttpError {
        HttpError::Status {
            url: Redacted(&self.url).to_string(),
            status: self.status,
            tries: self.tries,
            detail: detail(self.header("content-type"), &self.body),
        }
    }
}

//! The HTTP client that every network room uses: retries, redirects, timeouts, redaction, and nothing about what is fetched.
//!
//! It owns the policies that must be the same everywhere: which failures are worth another try, when credentials may
//! travel, how much of a body is read, and how a URL looks in a message. It does not know indexes, registries or caches.
//!
//! - Redirects are followed here and not by reqwest, because credentials must be dropped when the origin changes and a
//!   step from https down to http must be refused.
//! - There is no total timeout: 3 GB over a slow line is legitimate. A response that makes no progress is not, nor one
//!   that drips: a body that brings less than [`SLOWEST`] bytes while it is waited for as long as the stall time has stalled.
//! - TLS trusts the machine's own store (`SSL_CERT_FILE` and `SSL_CERT_DIR` included); proxies come from the environment.

mod origin;
mod read;
mod response;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
pub use reqwest::{Method, StatusCode};
pub use url::Url;

pub use origin::{Credentials, Redacted, is_loopback, same_origin};
pub use read::Answer;
pub use response::Response;

/// The fewest bytes of a body per stall time (30 s) of waiting for it. A slower server is as good as none.
pub const SLOWEST: u64 = 1024;

/// What one invocation decides about the network, once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nothing is sent; every request fails with [`HttpError::Offline`].
    pub offline: bool,
    /// Hosts (`host` or `host:port`) that may receive credentials over plain http, and whose redirects may be http.
    pub insecure_hosts: Vec<String>,
    /// How long a connection or a body may stand still.
    pub stall: Duration,
    /// Tries per request, the first included.
    pub tries: u32,
    /// The first pause between tries; doubled each time, with jitter. Zero in tests.
    pub pause: Duration,
    /// The longest pause, also when a server's `Retry-After` asks for more.
    pub longest_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offline: false,
            insecure_hosts: Vec::new(),
            stall: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// A client; cheap to clone, shares its connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    /// For plain http, which is loopback's: reading the machine's certificates takes longer than a push to it.
    plain: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
}

/// A request before it is sent. Fields are plain: the rooms that send it know what they mean.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub credentials: Option<Credentials>,
    pub body: Bytes,
    pub redirects: Redirects,
}

/// Whether redirects are followed by [`Client::send`] or handed to the caller as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    Follow,
    Return,
}

/// Why a request failed. Every URL in here is already redacted.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{url} is needed, and the network is switched off (--offline)")]
    Offline { url: String },
    #[error("cannot reach {url} ({tries} {}): {reason}", plural(*tries))]
    Unreachable { url: String, tries: u32, reason: String },
    #[error("{url} answered {status} ({tries} {}){detail}", plural(*tries))]
    Status {
        url: String,
        status: StatusCode,
        tries: u32,
        detail: String,
    },
    #[error("{url}: next to no data for {seconds} s")]
    Stalled { url: String, seconds: u64 },
    #[error("{url}: the body ended early: {reason}")]
    Truncated { url: String, reason: String },
    #[error("{url}: the answer is larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("{url} redirects to {to}, which is refused: {rule}")]
    Redirect {
        url: String,
        to: String,
        rule: &'static str,
    },
    #[error("the TLS client could not be set up: {0}")]
    Setup(String),
}

fn plural(tries: u32) -> &'static str {
    if tries == 1 { "try" } else { "tries" }
}

impl HttpError {
    /// Whether the same command may succeed later without a change: exit code 3.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Offline { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. } => true,
            Self::Status { status, .. } => is_temporary_status(*status),
            Self::TooLarge { .. } | Self::Redirect { .. } | Self::Setup(_) => false,
        }
    }

    /// The status, where the server gave one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Statuses after which the same request is worth another try.
pub fn is_temporary_status(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=524
    )
}

impl Request {
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            credentials: None,
            body: Bytes::new(),
            redirects: Redirects::Follow,
        }
    }

    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = redirects;
        self
    }
}

impl Client {
    pub fn new(options: Options) -> Self {
        let (plain, secure) = (OnceLock::new(), OnceLock::new());
        Self {
            shared: Arc::new(Shared {
                options,
                plain,
                secure,
            }),
        }
    }

    fn connections(&self, url: &Url) -> Result<&reqwest::Client, HttpError> {
        let is_plain = url.scheme() == "http";
        let slot = if is_plain {
            &self.shared.plain
        } else {
            &self.shared.secure
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let certificates = if is_plain {
            Vec::new()
        } else {
            rustls_native_certs::load_native_certs().certs
        };
        let client = connections(&self.shared.options, certificates)?;
        Ok(slot.get_or_init(|| client))
    }

    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Whether credentials may be sent to `url`: https, loopback, or a host declared insecure by the user.
    pub fn may_carry_credentials(&self, url: &Url) -> bool {
        url.scheme() == "https" || is_loopback(url) || self.is_declared_insecure(url)
    }

    fn is_declared_insecure(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        self.options()
            .insecure_hosts
            .iter()
            .any(|insecure| insecure == host || *insecure == with_port)
    }

    /// Sends `request`, trying again on failures that may pass, and answers with any final status below 400.
    /// A status of 400 and more is [`HttpError::Status`].
    pub async fn send(&self, request: Request) -> Result<Response, HttpError> {
        let response = self.send_any(request).await?;
        if response.status.is_client_error() || response.status.is_server_error() {
            return Err(response.into_error().await);
        }
        Ok(response)
    }

    /// Like [`Client::send`], but every final status is an answer: for protocols where 404 means something.
    pub async fn send_any(&self, request: Request) -> Result<Response, HttpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.send_once(&request).await;
            let said = outcome
                .as_ref()
                .map(|answer| (answer.status, answer.retry_after()));
            let Some(pause) = self.worth_another(tries, said) else {
                return settled(outcome, tries).map(|response| Response { tries, ..response });
            };
            self.pause(tries, pause).await;
        }
    }

    /// Whether what came of try number `tries` is no final answer, and the pause that its server asks for. `said` is the
    /// answer's status, and that pause.
    fn worth_another(
        &self,
        tries: u32,
        said: Result<(StatusCode, Option<Duration>), &HttpError>,
    ) -> Option<Option<Duration>> {
        let pause = match said {
            Ok((status, pause)) if is_temporary_status(status) => pause,
            Err(error) if error.is_temporary() && !matches!(error, HttpError::Offline { .. }) => None,
            _ => return None,
        };
        (tries < self.options().tries).then_some(pause)
    }

    /// Waits before try number `tries + 1`: what the server asked for, else exponential with jitter; never longer
    /// than the longest pause.
    pub async fn pause(&self, tries: u32, asked: Option<Duration>) {
        let doubled = self.options().pause * 2u32.pow(tries.saturating_sub(1).min(10));
        // Half fixed, half by chance: many clients that failed together must not come back together.
        let jittered = doubled / 2 + doubled.mul_f64(chance() / 2.0);
        let pause = asked.unwrap_or(jittered).min(self.options().longest_pause);
        if !pause.is_zero() && !self.options().pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// One try, redirects included.
    pub async fn send_once(&self, request: &Request) -> Result<Response, HttpError> {
        self.send_with_body(request, |_| request.body.clone().into(), &AtomicU64::new(0))
            .await
    }

    /// One try of a request whose body is made anew for each hop: for streams, which cannot be cloned. `moved` counts
    /// the body's bytes as they leave: as long as it grows, a slow upload is not a stalled one.
    pub async fn send_with_body(
        &self,
        request: &Request,
        body: impl Fn(&Url) -> reqwest::Body,
        moved: &AtomicU64,
    ) -> Result<Response, HttpError> {
        let mut url = request.url.clone();
        let mut method = request.method.clone();
        let mut credentials = request.credentials.clone();
        for _ in 0..=10 {
            if self.options().offline && !is_loopback(&url) {
                return Err(HttpError::Offline {
                    url: Redacted(&url).to_string(),
                });
            }
            let mut builder = self
                .connections(&url)?
                .request(method.clone(), url.clone())
                .headers(request.headers.clone());
            if let Some(value) = credentials.as_ref().and_then(Credentials::header)
                && self.may_carry_credentials(&url)
            {
                builder = builder.header(header::AUTHORIZATION, value);
            }
            if method != Method::GET && method != Method::HEAD {
                builder = builder.body(body(&url));
            }
            let sent = self.while_it_moves(builder.send(), moved).await;
            let answer = match sent {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    return Err(HttpError::Unreachable {
                        url: Redacted(&url).to_string(),
                        tries: 1,
                        reason: chain(&error.without_url()),
                    });
                }
                Err(_) => {
                    return Err(HttpError::Stalled {
                        url: Redacted(&url).to_string(),
                        seconds: self.options().stall.as_secs(),
                    });
                }
            };
            let status = answer.status();
            let location = answer
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let follows = request.redirects == Redirects::Follow
                && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = location.filter(|_| follows) else {
                return Ok(Response {
                    url,
                    status,
                    headers: answer.headers().clone(),
                    inner: answer,
                    pace: response::Pace::new(self.options().stall),
                    tries: 1,
                });
            };
            let next = url.join(&location).map_err(|_| HttpError::Redirect {
                url: Redacted(&url).to_string(),
                to: location.chars().take(120).collect(),
                rule: "it is not a URL",
            })?;
            self.check_redirect(&url, &next)?;
            if !same_origin(&url, &next) {
                credentials = None;
            }
            if status == StatusCode::SEE_OTHER && method != Method::HEAD {
                method = Method::GET;
            }
            url = next;
        }
        Err(HttpError::Redirect {
            url: Redacted(&request.url).to_string(),
            to: Redacted(&url).to_string(),
            rule: "it is the eleventh redirect in a row",
        })
    }

    /// Waits for `work` for as long as `moved` grows at least once per stall time.
    async fn while_it_moves<F: Future>(
        &self,
        work: F,
        moved: &AtomicU64,
    ) -> Result<F::Output, tokio::time::error::Elapsed> {
        let mut work = std::pin::pin!(work);
        loop {
            let before = moved.load(Ordering::Relaxed);
            match tokio::time::timeout(self.options().stall, &mut work).await {
                Err(_) if moved.load(Ordering::Relaxed) != before => {}
                outcome => return outcome,
            }
        }
    }

    fn check_redirect(&self, from: &Url, to: &Url) -> Result<(), HttpError> {
        let refuse = |rule| HttpError::Redirect {
            url: Redacted(from).to_string(),
            to: Redacted(to).to_string(),
            rule,
        };
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" || self.is_declared_insecure(to) => {}
            "http" => return Err(refuse("it would leave https for http")),
            _ => return Err(refuse("only http and https are followed")),
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(refuse("it carries credentials"));
        }
        Ok(())
    }
}

/// The outcome of the last try, which says how many there were.
fn settled<T>(outcome: Result<T, HttpError>, tries: u32) -> Result<T, HttpError> {
    outcome.map_err(|error| match error {
        HttpError::Unreachable { url, reason, .. } => HttpError::Unreachable { url, tries, reason },
        error => error,
    })
}

/// A pool of connections that trusts `certificates`. One that is broken is common in a machine's store and is passed
/// over; a store without any is found out by the first https request.
fn connections(
    options: &Options,
    certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
) -> Result<reqwest::Client, HttpError> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Setup(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("mlrails/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.stall)
        .pool_idle_timeout(Duration::from_secs(20))
        .tcp_nodelay(true)
        .build()
        .map_err(|error| HttpError::Setup(chain(&error)))
}

/// An error and its causes in one line: reqwest's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A number in 0..1, good enough for jitter: the low bits of the clock and of an address.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        let shown = |text: &str| Redacted(&Url::parse(text).unwrap()).to_string();
        assert_eq!(
            shown("https://me:hunter2@a.example/x"),
            "https://****@a.example/x"
        );
        assert_eq!(
            shown("https://a.example/x?X-Amz-Signature=s"),
            "https://a.example/x?…"
        );
    }

    #[test]
    fn credentials_leave_the_url() {
        let url = Url::parse("https://me:a%40b@host.example/simple/").unwrap();
        let (bare, credentials) = Credentials::take_from(&url);
        assert_eq!(bare.as_str(), "https://host.example/simple/");
        assert_eq!(
            credentials,
            Some(Credentials::Basic {
                user: "me".into(),
                password: "a@b".into()
            })
        );
    }

    #[test]
    fn a_downgrade_is_refused() {
        let client = Client::new(Options::default());
        let https = Url::parse("https://a.example/").unwrap();
        let http = Url::parse("http://a.example/").unwrap();
        assert!(client.check_redirect(&https, &http).is_err());
        assert!(client.check_redirect(&http, &https).is_ok());
        assert!(!client.may_carry_credentials(&http));
    }
}

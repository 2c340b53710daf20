//! Whom a request is for: origins, the credentials that stay with one, and URLs shown without secrets.

use std::fmt;

use reqwest::header::HeaderValue;
use url::Url;

/// What proves who asks. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Basic { user: String, password: String },
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(****)")
    }
}

impl Credentials {
    /// The value of an `Authorization` header, marked sensitive. None if it cannot be one (a newline in a password).
    pub fn header(&self) -> Option<HeaderValue> {
        use base64::Engine as _;
        let text = match self {
            Self::Basic { user, password } => {
                let pair = format!("{user}:{password}");
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Splits `https://user:password@host/` into the bare URL and its credentials.
    pub fn take_from(url: &Url) -> (Url, Option<Self>) {
        let mut bare = url.clone();
        if url.username().is_empty() && url.password().is_none() {
            return (bare, None);
        }
        let decode = |text: &str| {
            url::form_urlencoded::parse(format!("v={}", text.replace('+', "%2B")).as_bytes())
                .next()
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        let credentials = Self::Basic {
            user: decode(url.username()),
            password: decode(url.password().unwrap_or_default()),
        };
        // Both fail only for URLs that cannot have a host, which cannot have had credentials either.
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        (bare, Some(credentials))
    }
}

/// A URL as it may be shown: user, password and query values (signed URLs carry secrets there) are blanked.
pub struct Redacted<'a>(pub &'a Url);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if !url.username().is_empty() || url.password().is_some() {
            let _ = url.set_username("****");
            let _ = url.set_password(None);
        }
        let query = url.query().is_some();
        url.set_query(None);
        write!(formatter, "{url}{}", if query { "?…" } else { "" })
    }
}

/// Same scheme, host and port.
pub fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// Whether `url` names this machine: those are reached offline too, and may be plain http.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

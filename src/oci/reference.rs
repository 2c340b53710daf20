//! References: which image, in which registry, under which tag or digest.
//!
//! A name without a host is Docker Hub's, as everybody's tools have it; a first part with a dot, a colon, or `localhost`
//! is a host. [`Reference`]'s `Display` always shows the host, so that no message hides where an image goes.
//!
//! Sources: OCI distribution-spec "Pulling manifests" (names, tags); Docker's reference grammar (hosts, short names).

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// A parsed image reference: `host[:port]/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host with its port, lower case. Docker Hub is `docker.io`.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{text}` is not an image reference: {rule}")]
pub struct InvalidReference {
    text: String,
    rule: &'static str,
}

/// Docker Hub, as references name it.
pub const HUB: &str = "docker.io";

impl Reference {
    /// Host with its port: `localhost:5000`, `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the registry's API is: Docker Hub's is not at the name that references use.
    pub fn api_host(&self) -> &str {
        match self.registry.as_str() {
            HUB => "registry-1.docker.io",
            other => other,
        }
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `host/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag as given; [`Reference::place`] has the default.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a manifest is asked for by: the digest, else the tag, else `latest`.
    pub fn place(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The tag that a push moves.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The same repository by digest.
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            tag: None,
            ..self.clone()
        }
    }

    /// Another repository by its full name (`host/repository`).
    pub fn of_name(name: &str) -> Result<Self, InvalidReference> {
        let reference: Self = name.parse()?;
        match (&reference.tag, &reference.digest) {
            (None, None) => Ok(reference),
            _ => Err(invalid(name, "a repository has no tag and no digest")),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let wrong = |rule| invalid(text, rule);
        if text.contains("://") {
            return Err(wrong("a reference has no scheme; leave `https://` out"));
        }
        if text.contains(char::is_whitespace) {
            return Err(wrong("it holds a blank"));
        }
        let (rest, digest) = match text.split_once('@') {
            // `user:password@host/...` is a mistake worth its own words: the password would be in every log.
            Some((_, digest)) if digest.contains('/') => {
                return Err(InvalidReference {
                    text: "****".to_owned(),
                    rule: "credentials do not belong into a reference",
                });
            }
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| wrong("after `@` comes sha256:<64 hex digits>"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it is a port's.
        let name_starts = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_starts..].find(':') {
            Some(colon) => (
                &rest[..name_starts + colon],
                Some(&rest[name_starts + colon + 1..]),
            ),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(
                "a tag has up to 128 letters, digits, `_`, `.` and `-`, and starts with none of the last two",
            ));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_host(first) => (first.to_ascii_lowercase(), path.to_owned()),
            Some(_) => (HUB.to_owned(), name.to_owned()),
            None => (HUB.to_owned(), format!("library/{name}")),
        };
        let registry = match registry.as_str() {
            "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
            _ => registry,
        };
        let path = match path.contains('/') || registry != HUB {
            true => path,
            false => format!("library/{path}"),
        };
        if !is_authority(&registry) {
            return Err(wrong("the registry is not a host name with an optional port"));
        }
        if name.is_empty() || path.len() > 255 || !path.split('/').all(is_component) {
            return Err(wrong(
                "a repository has parts of lower-case letters and digits, joined by `.`, `_`, `__` or `-`, up to 255 in all",
            ));
        }
        Ok(Self {
            registry,
            repository: path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn invalid(text: &str, rule: &'static str) -> InvalidReference {
    InvalidReference {
        text: text.chars().filter(|c| !c.is_control()).take(120).collect(),
        rule,
    }
}

fn is_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// `host`, `host:port`, `[::1]:port`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                None,
                after.strip_prefix(':').or((!after.is_empty()).then_some("x")),
            ),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let port_is_fine =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    let host_is_fine = host.is_none_or(|host| {
        host.len() <= 253
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            })
    });
    port_is_fine && host_is_fine
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let mut separator = String::new();
    let mut seen = false;
    for character in part.chars() {
        match character {
            'a'..='z' | '0'..='9' => {
                let allowed = matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.chars().all(|c| c == '-');
                if !allowed || (!seen && !separator.is_empty()) {
                    return false;
                }
                separator.clear();
                seen = true;
            }
            '.' | '_' | '-' => separator.push(character),
            _ => return false,
        }
    }
    seen && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 128
        && (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, shown: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(reference.to_string(), shown);
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }

    #[test]
    fn the_host_is_always_shown() {
        check("churn", "docker.io/library/churn");
        check("me/churn:1", "docker.io/me/churn:1");
        check("docker.io/churn", "docker.io/library/churn");
        check("index.docker.io/me/churn", "docker.io/me/churn");
        check("localhost/x", "localhost/x");
        check("localhost:5000/x", "localhost:5000/x");
        check("127.0.0.1:5000/a/b/c:v1.2_3-x", "127.0.0.1:5000/a/b/c:v1.2_3-x");
        check("[::1]:5000/x", "[::1]:5000/x");
        check("Host.Example/x", "host.example/x");
        check(
            &format!("ghcr.example/me/x:1@sha256:{HEX}"),
            &format!("ghcr.example/me/x:1@sha256:{HEX}"),
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for wrong in [
            "",
            "/",
            "x:",
            "x@",
            ":tag",
            "Upper",
            "a//b",
            "../x",
            "host.example/../x",
            "x:-tag",
            "x y",
            "https://h/x",
            "h.example:99999/x",
            "h.example:/x/",
            "x@sha256:../../etc",
            "x@sha512:00",
            "-h.example/x",
            "a/.b",
            "a/b___c",
            "h.example/x\u{0}",
            "[::zz]/x",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong:?}");
        }
        let long = format!("h.example/{}", "a".repeat(256));
        assert!(long.parse::<Reference>().is_err());
        let error = "user:hunter2@h.example/x".parse::<Reference>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

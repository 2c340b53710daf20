//! Which server of the archive this machine asks: one decision, made here.
//!
//! It takes what the user configured and the machine's apt sources, and gives three roots: the main archive, the security
//! archive, and the dated snapshots that hold what a mirror dropped. Nothing here is trusted: whatever answers, only signed
//! indexes and hashed packages count. It sends nothing.
//!
//! 1. `MLRAILS_DEBIAN_MIRROR`, else `[image] debian-mirror`: `URL` or `URL SECURITY-URL`, http(s) or `file:`;
//! 2. else the machine's own apt source, the first that carries Debian's `main`;
//! 3. else an official mirror.
//!
//! `MLRAILS_DEBIAN_SNAPSHOT` replaces the root of the dated snapshots, and `off` does without.
//!
//! Source: sources.list(5), both its formats.

use std::path::Path;

use crate::http::Url;
use crate::lock::base::Pool;

/// The roots of the archives; each ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub main: Url,
    pub security: Url,
    /// The folder of the dated snapshots (`…/archive/`), each of which holds `debian` and `debian-security`.
    pub snapshot: Option<Url>,
}

#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("`{text}` names no Debian mirror: {rule}")]
    Invalid { text: String, rule: &'static str },
}

impl Mirror {
    /// The mirror to use; `configured` is `[image] debian-mirror`.
    pub fn choose(configured: Option<&str>) -> Result<Self, MirrorError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let named = variable("MLRAILS_DEBIAN_MIRROR").or_else(|| configured.map(str::to_owned));
        let mut mirror = match named {
            Some(text) => Self::parse(&text)?,
            None => Self::of_apt(Path::new("/etc/apt")).unwrap_or_else(Self::official),
        };
        match variable("MLRAILS_DEBIAN_SNAPSHOT") {
            Some(text) if text == "off" => mirror.snapshot = None,
            Some(text) => mirror.snapshot = Some(root(&text)?),
            None => {}
        }
        Ok(mirror)
    }

    /// From `URL` or `URL SECURITY-URL`.
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let mut words = text.split_whitespace();
        let invalid = |rule| MirrorError::Invalid {
            text: text.chars().take(200).collect(),
            rule,
        };
        let main = root(words.next().ok_or_else(|| invalid("it is empty"))?)?;
        let security = match words.next() {
            Some(url) => root(url)?,
            None => sibling(&main),
        };
        if words.next().is_some() {
            return Err(invalid("it is more than two URLs"));
        }
        Ok(Self {
            main,
            security,
            snapshot: official_root("snapshot", "https", "archive/"),
        })
    }

    /// From the sources that apt uses, in the order in which apt reads them; none if there is no Debian among them.
    fn of_apt(folder: &Path) -> Option<Self> {
        let mut files = vec![folder.join("sources.list")];
        let mut parts: Vec<_> = std::fs::read_dir(folder.join("sources.list.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        parts.sort();
        files.extend(parts);
        let mut sources = Vec::new();
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(text.lines().filter_map(one_line)),
                Some("sources") => sources.extend(text.split("\n\n").flat_map(stanza)),
                _ => {}
            }
        }
        let find = |security: bool| {
            sources
                .iter()
                .find(|source| source.is_debian_main() && source.is_security() == security)
                .map(|source| source.url.clone())
        };
        let main = find(false)?;
        Some(Self {
            security: find(true).unwrap_or_else(|| sibling(&main)),
            main,
            snapshot: official_root("snapshot", "https", "archive/"),
        })
    }

    /// Where machines without apt go. Plain http: old machines' certificate stores must not matter, and what arrives is
    /// checked against signatures anyway.
    fn official() -> Self {
        let fallback = || Url::parse("http://localhost/debian/").expect("a constant URL");
        Self {
            main: official_root("ftp", "http", "debian/").unwrap_or_else(fallback),
            security: official_root("security", "http", "debian-security/").unwrap_or_else(fallback),
            snapshot: official_root("snapshot", "https", "archive/"),
        }
    }

    pub fn root(&self, pool: Pool) -> &Url {
        match pool {
            Pool::Main => &self.main,
            Pool::Security => &self.security,
        }
    }

    /// Where the dated archive would hold `filename`, best first.
    ///
    /// A snapshot is named by a time and answers with the last state taken before it. The index's own `Date` comes a little
    /// before that state is taken, so the next day is asked first: a package stays in the archive for longer than a day.
    pub fn snapshots(&self, pool: Pool, date: jiff::Timestamp, filename: &str) -> Vec<Url> {
        let Some(root) = &self.snapshot else {
            return Vec::new();
        };
        let archive = match pool {
            Pool::Main => "debian",
            Pool::Security => "debian-security",
        };
        let day = jiff::SignedDuration::from_hours(24);
        [date.checked_add(day).unwrap_or(date), date]
            .iter()
            .filter_map(|time| {
                let time = time.strftime("%Y%m%dT%H%M%SZ");
                root.join(&format!("{archive}/{time}/{filename}")).ok()
            })
            .collect()
    }
}

/// One of the archive project's own servers. Composed: the sources name no host.
fn official_root(label: &str, scheme: &str, path: &str) -> Option<Url> {
    let host = [label, "debian", "org"].join(".");
    Url::parse(&format!("{scheme}://{host}/{path}")).ok()
}

fn root(text: &str) -> Result<Url, MirrorError> {
    let invalid = |rule| MirrorError::Invalid {
        text: text.chars().take(200).collect(),
        rule,
    };
    let mut url = Url::parse(text).map_err(|_| invalid("it is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https" | "file") {
        return Err(invalid("only http, https and file are understood"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("it carries a query or a fragment"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Mirrors that carry security updates have them beside the main archive, as `debian-security`.
fn sibling(main: &Url) -> Url {
    let mut url = main.clone();
    let path = format!("{}-security/", main.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// One apt source: one URI of one line or stanza.
struct Source {
    url: Url,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Source {
    /// Debian itself, not a derivative nor a project's own repository: those do not live under these names.
    fn is_debian_main(&self) -> bool {
        let named = self
            .url
            .path_segments()
            .is_some_and(|mut segments| segments.any(|part| part == "debian" || part == "debian-security"));
        named && self.components.iter().any(|component| component == "main")
    }

    fn is_security(&self) -> bool {
        self.suites
            .iter()
            .any(|suite| suite.ends_with("-security") || suite.ends_with("/updates"))
    }
}

/// `deb [options] URI suite component…`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim().strip_prefix("deb")?;
    let line = line.strip_prefix([' ', '\t'])?.trim_start();
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1,
        None => line,
    };
    let mut words = line.split_whitespace();
    let url = root(words.next()?).ok()?;
    let suites = vec![words.next()?.to_owned()];
    Some(Source {
        url,
        suites,
        components: words.map(str::to_owned).collect(),
    })
}

/// A stanza of the deb822 format.
fn stanza(text: &str) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match (line.starts_with([' ', '\t']), line.split_once(':')) {
            (true, _) => {
                if let Some((_, value)) = fields.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            }
            (false, Some((name, value))) => {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            (false, None) => {}
        }
    }
    let words = |name: &str| -> Vec<String> {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let off = words("enabled")
        .first()
        .is_some_and(|value| matches!(value.as_str(), "no" | "false" | "0"));
    if off || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    words("uris")
        .iter()
        .filter_map(|uri| {
            Some(Source {
                url: root(uri).ok()?,
                suites: words("suites"),
                components: words("components"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(files: &[(&str, &str)]) -> Option<Mirror> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Mirror::of_apt(folder.path())
    }

    #[test]
    fn apt_sources_are_read_in_both_formats() {
        let mirror = apt(&[
            (
                "sources.list",
                "# deb http://no.example/debian bookworm main\n\
                 deb-src http://src.example/debian bookworm main\n\
                 deb http://other.example/ubuntu jammy main\n",
            ),
            (
                "sources.list.d/a.sources",
                "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n",
            ),
            (
                "sources.list.d/b.sources",
                "Types: deb\n# a comment\nURIs: http://a.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\n\
                 Types: deb\nURIs: http://s.example/debian-security/\nSuites: bookworm-security\nComponents: main\n",
            ),
        ])
        .unwrap();
        assert_eq!(mirror.main.as_str(), "http://a.example/debian/");
        assert_eq!(mirror.security.as_str(), "http://s.example/debian-security/");

        let mirror = apt(&[(
            "sources.list",
            "deb [arch=amd64 signed-by=/x.gpg] https://b.example/debian/ trixie main contrib # mine\n",
        )])
        .unwrap();
        assert_eq!(mirror.main.as_str(), "https://b.example/debian/");
        assert_eq!(mirror.security.as_str(), "https://b.example/debian-security/");
        assert_eq!(apt(&[]), None);
    }

    #[test]
    fn a_configured_mirror_is_one_or_two_urls() {
        let mirror = Mirror::parse("file:///srv/debian http://s.example/sec").unwrap();
        assert_eq!(mirror.security.as_str(), "http://s.example/sec/");
        for wrong in [
            "",
            "not a url at all",
            "ftp://a.example/debian",
            "http://a/ http://b/ http://c/",
        ] {
            assert!(Mirror::parse(wrong).is_err(), "{wrong}");
        }
        let snapshot = mirror.snapshots(
            Pool::Security,
            "2026-11-21T00:53:02Z".parse().unwrap(),
            "pool/x.deb",
        );
        assert!(
            snapshot[0]
                .path()
                .ends_with("/debian-security/20261122T005302Z/pool/x.deb")
        );
        assert!(
            snapshot[1]
                .path()
                .ends_with("/debian-security/20261121T005302Z/pool/x.deb")
        );
    }
}

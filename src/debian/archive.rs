//! The archive's signed indexes: which packages exist, by the word of a trusted key.
//!
//! It takes a mirror and a keyring, and gives the packages of a suite for one architecture. It owns the chain of trust: a
//! signature over `InRelease`, SHA-256 and size in it over `Packages`, SHA-256 and size in that over each package. It does not
//! choose among packages.
//!
//! - The codename is compared and the suite is not: when a release becomes `oldstable`, nothing changes here.
//! - A `Date` older than the last one seen is refused: a mirror must not take back security updates. What was seen is kept
//!   in the store, per keyring and suite.
//! - `Valid-Until` in the past is told and not refused: a frozen mirror is a legitimate thing to build from, what it cannot do
//!   is go back.
//!
//! Source: the Debian repository format (wiki: DebianRepository/Format); deb822(5).

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use crate::digest::Digest;
use crate::fetch::{self, Expected, FetchError};
use crate::http::{Client, HttpError, Redacted, Request, Url};
use crate::reporter::Reporter;
use crate::store::{Store, StoreError};

use super::keys::{KeyError, Keyring};

/// The largest `InRelease` that is read, in bytes. Real ones have 35–150 kB.
const RELEASE_LIMIT: u64 = 16 << 20;
/// The largest `Packages`, uncompressed. Debian's has 57 MB.
const PACKAGES_LIMIT: u64 = 1 << 30;
/// The most memory that the xz decoder may take, in KiB. Debian's indexes and packages need 8–64 MiB.
pub(super) const XZ_MEMORY_KIB: u32 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {path}")]
    Read { path: String, source: io::Error },
    #[error("the archive at {url} has no {suite}")]
    NoSuite { url: String, suite: String },
    #[error("{url} is refused")]
    Signature { url: String, source: KeyError },
    #[error("{url} is not an index that can be used: {rule}")]
    Release { url: String, rule: String },
    #[error("{url} was signed for `{found}`, not for `{expected}`")]
    Codename {
        url: String,
        found: String,
        expected: String,
    },
    #[error("{url} is from {found}, and an index from {seen} was seen before: a mirror must not go back")]
    Older {
        url: String,
        found: jiff::Timestamp,
        seen: jiff::Timestamp,
    },
    #[error("the package list of {suite} for {architecture} cannot be used: {rule}")]
    Packages {
        suite: String,
        architecture: String,
        rule: String,
    },
}

/// A suite of a release and where it lives.
#[derive(Debug, Clone)]
pub struct Suite {
    /// The folder below `dists/`, also the codename that its index must carry: `bookworm-security`.
    pub name: String,
    /// The archive's root, with a slash at its end.
    pub root: Url,
}

/// A verified index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub codename: String,
    pub date: jiff::Timestamp,
    pub valid_until: Option<jiff::Timestamp>,
    by_hash: bool,
    files: HashMap<String, (Digest, u64)>,
}

/// A package as an index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// `Pre-Depends` and `Depends`, joined by a comma.
    pub depends: String,
    pub provides: String,
    /// Relative to the archive's root; validated.
    pub filename: String,
    pub size: u64,
    pub digest: Digest,
}

/// Fetches and verifies a suite's index; remembers its date.
pub async fn release(
    client: &Client,
    store: &Store,
    keys: &Keyring,
    suite: &Suite,
    now: i64,
    reporter: &dyn Reporter,
) -> Result<Release, ArchiveError> {
    let url = join(suite, "InRelease")?;
    let shown = Redacted(&url).to_string();
    let Some(bytes) = read(client, &url, RELEASE_LIMIT).await? else {
        return Err(ArchiveError::NoSuite {
            url: Redacted(&suite.root).to_string(),
            suite: suite.name.clone(),
        });
    };
    let text = keys
        .verify(&bytes, now)
        .map_err(|source| ArchiveError::Signature {
            url: shown.clone(),
            source,
        })?;
    let release = Release::parse(&text).map_err(|rule| ArchiveError::Release {
        url: shown.clone(),
        rule,
    })?;
    if release.codename != suite.name {
        return Err(ArchiveError::Codename {
            url: shown,
            found: release.codename,
            expected: suite.name.clone(),
        });
    }
    let key = format!("{} {}", keys.digest(), suite.name);
    // Two runs at once must not overwrite the later date with the earlier one.
    let _guard = store.lock(&format!("debian date {key}"))?;
    let seen: Option<jiff::Timestamp> = store.record("debian-dates", &key);
    match seen {
        Some(seen) if release.date < seen => {
            return Err(ArchiveError::Older {
                url: shown,
                found: release.date,
                seen,
            });
        }
        Some(seen) if release.date == seen => {}
        _ => store.keep_record("debian-dates", &key, &release.date)?,
    }
    if let Some(end) = release.valid_until.filter(|end| end.as_second() < now) {
        reporter.warn(&format!(
            "{shown} was valid until {end}: the mirror is behind, or this machine's clock is ahead"
        ));
    }
    Ok(release)
}

/// The packages of `main` of a suite for `architecture` (those of architecture `all` included).
pub async fn packages(
    client: &Client,
    store: &Store,
    suite: &Suite,
    release: &Release,
    architecture: &str,
    reporter: &dyn Reporter,
) -> Result<Vec<Entry>, ArchiveError> {
    let refuse = |rule: String| ArchiveError::Packages {
        suite: suite.name.clone(),
        architecture: architecture.to_owned(),
        rule,
    };
    let folder = format!("main/binary-{architecture}");
    let found = ["Packages.xz", "Packages.gz", "Packages"]
        .iter()
        .find_map(|name| Some((*name, release.files.get(&format!("{folder}/{name}"))?)));
    let Some((name, (digest, size))) = found else {
        return Err(refuse("the index names none with a SHA-256".to_owned()));
    };
    let what = format!("{} packages of {}", architecture, suite.name);
    let expected = Expected {
        digest: *digest,
        size: Some(*size),
    };
    // By its hash a list cannot be swapped for a newer one between the index's download and its own.
    let plain = join(suite, &format!("{folder}/{name}"))?;
    let fetched = if release.by_hash {
        let by_hash = join(suite, &format!("{folder}/by-hash/SHA256/{}", digest.hex()))?;
        match obtain(client, store, &by_hash, &what, expected, reporter).await {
            Err(error) if is_gone(&error) => obtain(client, store, &plain, &what, expected, reporter).await,
            other => other,
        }
    } else {
        obtain(client, store, &plain, &what, expected, reporter).await
    };
    fetched?;
    let bytes = store
        .read(digest)?
        .ok_or_else(|| refuse("it was damaged in the cache while it was read".to_owned()))?;
    let entries = tokio::task::spawn_blocking(move || match name {
        "Packages.xz" => entries(lzma_rust2::XzReader::new_mem_limit(
            &bytes[..],
            true,
            XZ_MEMORY_KIB,
        )),
        "Packages.gz" => entries(flate2::read::MultiGzDecoder::new(&bytes[..])),
        _ => entries(&bytes[..]),
    })
    .await
    .map_err(|error| refuse(error.to_string()))?;
    entries.map_err(refuse)
}

fn join(suite: &Suite, path: &str) -> Result<Url, ArchiveError> {
    suite
        .root
        .join(&format!("dists/{}/{path}", suite.name))
        .map_err(|error| ArchiveError::Release {
            url: Redacted(&suite.root).to_string(),
            rule: error.to_string(),
        })
}

/// A small file of a mirror; none where there is none.
async fn read(client: &Client, url: &Url, limit: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
    if url.scheme() == "file" {
        let path = url.to_file_path().unwrap_or_default();
        return match std::fs::File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let read = file.take(limit).read_to_end(&mut bytes);
                read.map(|_| Some(bytes)).map_err(|source| ArchiveError::Read {
                    path: path.display().to_string(),
                    source,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ArchiveError::Read {
                path: path.display().to_string(),
                source,
            }),
        };
    }
    // A cache on the way must be asked again: an index of an hour ago names packages that are gone.
    let request = Request::get(url.clone()).header(reqwest::header::CACHE_CONTROL, "max-age=0");
    match client.send(request).await {
        Ok(response) => Ok(Some(response.bytes(limit).await?.to_vec())),
        Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(404 | 410)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Brings a blob of known digest from a mirror into the store.
pub(super) async fn obtain(
    client: &Client,
    store: &Store,
    url: &Url,
    what: &str,
    expected: Expected,
    reporter: &dyn Reporter,
) -> Result<(), ArchiveError> {
    if url.scheme() != "file" {
        return Ok(fetch::blob(
            client,
            store,
            &Request::get(url.clone()),
            what,
            expected,
            reporter,
        )
        .await?);
    }
    if store.blob_size(&expected.digest).is_some() {
        return Ok(());
    }
    let path = url.to_file_path().unwrap_or_default();
    let unreadable = |source| ArchiveError::Read {
        path: path.display().to_string(),
        source,
    };
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    let mut writer = store.writer()?;
    let limit = expected.size.map_or(u64::MAX, |size| size + 1);
    io::copy(&mut file.take(limit), &mut writer).map_err(unreadable)?;
    Ok(writer.commit_expected(what, expected.digest, expected.size)?)
}

/// Whether the mirror says that the file is not there, rather than that it cannot be had now.
pub(super) fn is_gone(error: &ArchiveError) -> bool {
    match error {
        ArchiveError::Fetch(FetchError::Http(error)) | ArchiveError::Http(error) => {
            matches!(
                error.status().map(|status| status.as_u16()),
                Some(403 | 404 | 410)
            )
        }
        ArchiveError::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

impl Release {
    /// Reads the signed text. Only its `SHA256` section counts; MD5 and SHA-1 are as good as nothing.
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields: HashMap<String, &str> = HashMap::new();
        let mut files = HashMap::new();
        let mut section = String::new();
        for line in text.lines() {
            if let Some(row) = line.strip_prefix([' ', '\t']) {
                if section != "sha256" {
                    continue;
                }
                let mut words = row.split_whitespace();
                let (Some(hex), Some(size), Some(path), None) =
                    (words.next(), words.next(), words.next(), words.next())
                else {
                    return Err(format!("a row of SHA256 is not `hash size path`: {row:.80}"));
                };
                let digest = Digest::from_hex(hex).map_err(|error| error.to_string())?;
                let size: u64 = size.parse().map_err(|_| format!("`{size:.40}` is not a size"))?;
                if let Some(other) = files.insert(path.to_owned(), (digest, size))
                    && other != (digest, size)
                {
                    return Err(format!("{path} is named twice with different hashes"));
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(format!("a line is not `Field: value`: {line:.80}"));
            };
            section = name.to_ascii_lowercase();
            if fields.insert(section.clone(), value.trim()).is_some() {
                return Err(format!("the field `{name}` is there twice"));
            }
        }
        if !fields.contains_key("sha256") {
            return Err("it has no SHA256 section".to_owned());
        }
        let field = |name: &str| fields.get(&name.to_ascii_lowercase()).copied();
        let required = |name: &str| field(name).ok_or_else(|| format!("it has no `{name}`"));
        Ok(Self {
            codename: required("Codename")?.to_owned(),
            date: date(required("Date")?)?,
            valid_until: field("Valid-Until").map(date).transpose()?,
            by_hash: field("Acquire-By-Hash") == Some("yes"),
            files,
        })
    }
}

/// `Sat, 21 Nov 2026 00:53:02 UTC`
fn date(text: &str) -> Result<jiff::Timestamp, String> {
    let numeric = match text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT")) {
        Some(rest) => format!("{rest} +0000"),
        None => text.to_owned(),
    };
    jiff::fmt::rfc2822::parse(&numeric)
        .map(|zoned| zoned.timestamp())
        .map_err(|_| format!("`{text:.60}` is not a date"))
}

/// Reads the stanzas of a package list as they come out of a decompressor.
fn entries(source: impl Read) -> Result<Vec<Entry>, String> {
    let mut reader = io::BufReader::with_capacity(256 << 10, source.take(PACKAGES_LIMIT + 1));
    let mut found = Vec::new();
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        line.clear();
        let count = reader
            .read_until(b'\n', &mut line)
            .map_err(|error| format!("it cannot be decompressed: {error}"))?;
        total += count as u64;
        if total > PACKAGES_LIMIT {
            return Err(format!("it is larger than {PACKAGES_LIMIT} bytes"));
        }
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        if line.is_empty() {
            if let Some(entry) = std::mem::take(&mut stanza).finish()? {
                found.push(entry);
            }
            if count == 0 {
                return Ok(found);
            }
            continue;
        }
        stanza.line(&line)?;
    }
}

/// The fields that matter, as they are met.
#[derive(Default)]
struct Stanza {
    fields: [Option<String>; FIELDS.len()],
}

const FIELDS: [&str; 9] = [
    "package",
    "version",
    "architecture",
    "pre-depends",
    "depends",
    "provides",
    "filename",
    "size",
    "sha256",
];

impl Stanza {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        // Continuation lines belong to fields that do not matter here: Depends is always written on one line.
        if matches!(line[0], b' ' | b'\t') {
            return Ok(());
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(format!(
                "a line is not `Field: value`: {:.80}",
                String::from_utf8_lossy(line)
            ));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let Some(index) = FIELDS
            .iter()
            .position(|field| field.as_bytes().eq_ignore_ascii_case(name))
        else {
            return Ok(());
        };
        let value = std::str::from_utf8(value)
            .map_err(|_| format!("the field `{}` is not UTF-8", FIELDS[index]))?
            .trim();
        if self.fields[index].replace(value.to_owned()).is_some() {
            return Err(format!("a package has `{}` twice", FIELDS[index]));
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<Entry>, String> {
        let [
            name,
            version,
            architecture,
            pre_depends,
            depends,
            provides,
            filename,
            size,
            sha256,
        ] = self.fields;
        let Some(name) = name else {
            return Ok(None);
        };
        let required = |value: Option<String>, field: &str| {
            value.ok_or_else(|| format!("the package `{name:.80}` has no {field}"))
        };
        let filename = required(filename, "Filename")?;
        if !is_relative_path(&filename) {
            return Err(format!(
                "the package `{name:.80}` lies outside the archive: {filename:.200}"
            ));
        }
        let size = required(size, "Size")?;
        let sha256 = required(sha256, "SHA256")?;
        let depends = [pre_depends, depends]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ");
        if !is_name(&name) {
            return Err(format!("`{name:.80}` is not a package name"));
        }
        Ok(Some(Entry {
            version: required(version, "Version")?,
            architecture: required(architecture, "Architecture")?,
            depends,
            provides: provides.unwrap_or_default(),
            size: size
                .parse()
                .map_err(|_| format!("the size of `{name}` is not a number"))?,
            digest: Digest::from_hex(&sha256).map_err(|error| error.to_string())?,
            filename,
            name,
        }))
    }
}

/// Debian Policy 5.6.7: lower-case letters, digits, `+-.`; these names become file names.
pub(super) fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.len() < 200
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
}

/// A path that stays below the archive's root, also after a URL library has looked at it.
pub(super) fn is_relative_path(path: &str) -> bool {
    path.len() < 1000
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\\?#%\"<>`{}".contains(&byte))
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.split('/').next().is_some_and(|part| part.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_the_sha256_section_counts() {
        let text = format!(
            "Suite: oldstable\nCodename: bookworm\nDate: Sat, 21 Nov 2026 00:53:02 UTC\nMD5Sum:\n \
             d41d8cd98f00b204e9800998ecf8427e 5 main/binary-amd64/Packages\nSHA256:\n {HEX} 7 main/binary-arm64/Packages"
        );
        let release = Release::parse(&text).unwrap();
        assert_eq!(release.date.to_string(), "2026-11-21T00:53:02Z");
        assert_eq!(release.files.len(), 1);
        assert_eq!(release.files["main/binary-arm64/Packages"].1, 7);

        let refused = |text: &str, rule: &str| {
            let error = Release::parse(text).unwrap_err();
            assert!(error.contains(rule), "{error} is not about: {rule}");
        };
        refused(&text.replace("SHA256:", "SHA1:"), "no SHA256");
        refused(&text.replace("Codename: bookworm\n", ""), "no `Codename`");
        refused(&text.replace("Suite: oldstable", "Codename: evil"), "twice");
        refused(&text.replace("21 Nov", "99 Nov"), "not a date");
        refused(&text.replace(HEX, "e3b0"), "not a sha256");
    }

    #[test]
    fn stanzas_become_entries() {
        let text = format!(
            "Package: a\nIgnored: x\n more\n\nPackage: libc6\nVersion: 2.36-9\nArchitecture: amd64\nPre-Depends: b\n\
             Depends: c (>= 1), d\nFilename: pool/main/g/libc6.deb\nSize: 12\nSHA256: {HEX}\n"
        );
        // The first stanza has no Filename: refused, not skipped, as a list with a hole is not what was signed for.
        assert!(entries(text.as_bytes()).unwrap_err().contains("no Filename"));
        let found = entries(text.split_once("\n\n").unwrap().1.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].depends, "b, c (>= 1), d");
        let outside = text.replace("pool/main", "../..");
        assert!(
            entries(outside.split_once("\n\n").unwrap().1.as_bytes())
                .unwrap_err()
                .contains("outside")
        );
    }

    #[test]
    fn paths_outside_are_none() {
        for good in [
            "pool/main/g/g++-12_1%".trim_end_matches('%'),
            "pool/a~b+c_1:2.deb",
        ] {
            assert!(is_relative_path(good), "{good}");
        }
        for bad in [
            "",
            "/x",
            "a//b",
            "../a",
            "a/..",
            "http://x/y",
            "a\\b",
            "a b",
            "a%2e/b",
            "a?b",
        ] {
            assert!(!is_relative_path(bad), "{bad}");
        }
    }
}

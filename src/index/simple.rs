//! The simple repository API: a project's page in JSON (PEP 691, 700, 714) or HTML (PEP 503, 592, 658).

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use url::Url;
use uv_normalize::PackageName;

use super::html;
use super::page::{Page, RawFile};
use crate::digest::Digest;

/// What is asked for: JSON first, HTML from indexes that have no JSON.
pub const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

/// The largest page that is read, decoded. The largest real ones are 30 MB.
pub const LARGEST: u64 = 128 << 20;

/// Reads a page's body. `url` is where it came from (redirects followed), `index` how the lock names the index.
/// Fails with the rule that it breaks.
pub fn read(
    name: &PackageName,
    index: &str,
    url: &Url,
    content_type: &str,
    body: &[u8],
) -> Result<Page, String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let files = match kind {
        "application/vnd.pypi.simple.v1+json" | "application/json" => json(url, body)?,
        "application/vnd.pypi.simple.v1+html" | "text/html" => html(url, body)?,
        other => {
            return Err(format!(
                "its content type is `{}`, neither JSON nor HTML of the simple API",
                other.chars().take(60).collect::<String>()
            ));
        }
    };
    for file in &files {
        if let Some(rule) = hostile(url, file) {
            return Err(format!(
                "{:?}: {rule}",
                file.name.chars().take(120).collect::<String>()
            ));
        }
    }
    Ok(Page::build(name, index, files))
}

/// Reads a flat page: anchors to files of any project.
pub fn flat(url: &Url, body: &[u8]) -> Result<Vec<RawFile<'static>>, String> {
    let document = html::read(&String::from_utf8_lossy(body));
    let base = document
        .base
        .as_deref()
        .and_then(|base| url.join(base).ok())
        .unwrap_or_else(|| url.clone());
    let files: Vec<RawFile<'static>> = document
        .anchors
        .into_iter()
        .filter_map(|anchor| anchor_file(&base, anchor))
        .collect();
    match files.iter().find_map(|file| hostile(url, file)) {
        Some(rule) => Err(rule.to_owned()),
        None => Ok(files),
    }
}

/// Why a file may not even be listed: a name or URL that no honest index writes.
fn hostile(page: &Url, file: &RawFile<'_>) -> Option<&'static str> {
    let distribution =
        file.name.ends_with(".whl") || file.name.ends_with(".gz") || file.name.ends_with(".zip");
    if distribution
        && file
            .name
            .bytes()
            .any(|byte| matches!(byte, b'/' | b'\\' | b'%') || byte.is_ascii_control())
    {
        return Some("a file name may not hold a path, an escape or a control character");
    }
    let after_scheme = file.url.find("://").map_or("", |at| &file.url[at + 3..]);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("its URL carries credentials, or a host in disguise");
    }
    // Only what is on this machine itself may name what is on this machine.
    let is_local = page.scheme() == "file" && file.url.starts_with("file:///");
    if is_local || file.url.starts_with("http://") || file.url.starts_with("https://") {
        None
    } else {
        Some("its URL is neither http nor https")
    }
}

#[derive(Deserialize)]
struct JsonPage<'a> {
    #[serde(borrow)]
    files: Vec<JsonFile<'a>>,
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "api-version")]
    api_version: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonFile<'a> {
    #[serde(borrow)]
    filename: Text<'a>,
    #[serde(borrow)]
    url: Text<'a>,
    #[serde(borrow, default)]
    hashes: Hashes<'a>,
    #[serde(borrow)]
    requires_python: Option<Text<'a>>,
    size: Option<u64>,
    #[serde(borrow)]
    upload_time: Option<Text<'a>>,
    #[serde(borrow)]
    yanked: Option<FlagOrText<'a>>,
    #[serde(borrow)]
    core_metadata: Option<FlagOrHashes<'a>>,
    #[serde(borrow)]
    dist_info_metadata: Option<FlagOrHashes<'a>>,
    #[serde(borrow, rename = "data-dist-info-metadata")]
    data_dist_info_metadata: Option<FlagOrHashes<'a>>,
}

fn json<'a>(page: &Url, body: &'a [u8]) -> Result<Vec<RawFile<'a>>, String> {
    let parsed: JsonPage<'a> =
        serde_json::from_slice(body).map_err(|error| format!("it is not the JSON of an index: {error}"))?;
    if let Some(version) = parsed.meta.and_then(|meta| meta.api_version)
        && version.0.split('.').next() != Some("1")
    {
        return Err(format!(
            "its api-version is {}",
            version.0.chars().take(20).collect::<String>()
        ));
    }
    let mut absolute = Absolute::new(page);
    Ok(parsed
        .files
        .into_iter()
        .map(|file| {
            let metadata = file
                .core_metadata
                .or(file.dist_info_metadata)
                .or(file.data_dist_info_metadata);
            RawFile {
                name: file.filename.0,
                url: absolute.of(file.url.0),
                requires_python: file.requires_python.map(|text| text.0),
                sha256: file.hashes.sha256.and_then(|text| Digest::from_hex(&text.0).ok()),
                metadata: match metadata {
                    None | Some(FlagOrHashes::Flag(false)) => None,
                    Some(FlagOrHashes::Flag(true)) => Some(None),
                    Some(FlagOrHashes::Hashes(hashes)) => {
                        Some(hashes.sha256.and_then(|text| Digest::from_hex(&text.0).ok()))
                    }
                },
                size: file.size,
                upload_time: file.upload_time.and_then(|text| microseconds(&text.0)),
                yanked: match file.yanked {
                    None | Some(FlagOrText::Flag(false)) => None,
                    Some(FlagOrText::Flag(true)) => Some(Cow::Borrowed("")),
                    Some(FlagOrText::Text(reason)) => Some(reason.0),
                },
            }
        })
        .collect())
}

fn html(page: &Url, body: &[u8]) -> Result<Vec<RawFile<'static>>, String> {
    let text = String::from_utf8_lossy(body);
    let document = html::read(&text);
    let base = document
        .base
        .as_deref()
        .and_then(|base| page.join(base).ok())
        .unwrap_or_else(|| page.clone());
    let files: Vec<RawFile<'static>> = document
        .anchors
        .into_iter()
        .filter_map(|anchor| anchor_file(&base, anchor))
        .collect();
    // A login page or a proxy's notice also comes with status 200: taken for an index, it would say "no such version".
    if files.is_empty() && !document.says_index {
        return Err("it is an HTML page without files that does not call itself an index".to_owned());
    }
    Ok(files)
}

fn anchor_file(base: &Url, anchor: html::Anchor) -> Option<RawFile<'static>> {
    let (href, fragment) = match anchor.href.split_once('#') {
        Some((href, fragment)) => (href.to_owned(), fragment.to_owned()),
        None => (anchor.href, String::new()),
    };
    let mut file = RawFile {
        name: Cow::Owned(anchor.text),
        url: Cow::Owned(base.join(&href).ok()?.to_string()),
        ..RawFile::default()
    };
    if !file.name.contains('.') {
        return None;
    }
    file.sha256 = fragment
        .split('&')
        .find_map(|part| part.strip_prefix("sha256="))
        .and_then(|hex| Digest::from_hex(hex).ok());
    for (name, value) in anchor.data {
        match name.as_str() {
            "data-requires-python" => file.requires_python = Some(value.into()),
            "data-yanked" => file.yanked = Some(value.into()),
            "data-core-metadata" => file.metadata = Some(metadata_hash(&value)),
            "data-dist-info-metadata" => file.metadata = file.metadata.or(Some(metadata_hash(&value))),
            _ => {}
        }
    }
    Some(file)
}

fn metadata_hash(value: &str) -> Option<Digest> {
    Digest::from_hex(value.strip_prefix("sha256=")?).ok()
}

/// Makes the URLs of a page's files absolute. Pages hold thousands that differ in their ends only, so where an end is plain text
/// the rest of it is parsed once.
struct Absolute<'p> {
    page: &'p Url,
    /// What `/` or `../../` comes to.
    known: HashMap<String, Option<String>>,
}

impl<'p> Absolute<'p> {
    fn new(page: &'p Url) -> Self {
        Self {
            page,
            known: HashMap::new(),
        }
    }

    fn of<'a>(&mut self, url: Cow<'a, str>) -> Cow<'a, str> {
        let bare = match url.find('#') {
            Some(at) => Cow::Owned(url[..at].to_owned()),
            None => url,
        };
        if bare.starts_with("https://") || bare.starts_with("http://") {
            return bare;
        }
        let mut end = bare.trim_start_matches("../");
        if end.len() == bare.len() {
            end = end.strip_prefix('/').unwrap_or(end);
        }
        let start = &bare[..bare.len() - end.len()];
        if !start.is_empty() && is_plain(end) {
            if !self.known.contains_key(start) {
                let joined = self.page.join(start).ok().map(|url| url.to_string());
                self.known.insert(start.to_owned(), joined);
            }
            if let Some(Some(known)) = self.known.get(start) {
                return Cow::Owned(format!("{known}{end}"));
            }
        }
        match self.page.join(&bare) {
            Ok(joined) => Cow::Owned(joined.to_string()),
            Err(_) => bare,
        }
    }
}

/// Whether `path` stays as it is when a URL ends with it: no escapes, no query, no segment that is empty or made of dots.
fn is_plain(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+!/".contains(&byte);
    path.bytes().all(is_plain)
        && !path.starts_with(['.', '/'])
        && !path.contains("/.")
        && !path.contains("//")
}

/// RFC 3339 in UTC, as indexes write it, read without a calendar library's generality: pages hold thousands.
fn microseconds(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        bytes.get(range)?.iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let shaped = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes.last() == Some(&b'Z');
    if !shaped {
        return text
            .parse::<jiff::Timestamp>()
            .ok()
            .map(jiff::Timestamp::as_microsecond);
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    let mut fraction = 0;
    if bytes[19] == b'.' {
        let digits = &bytes[20..bytes.len() - 1];
        for at in 0..6 {
            let digit = digits.get(at).copied().unwrap_or(b'0');
            fraction = fraction * 10 + i64::from(digit.checked_sub(b'0')?);
        }
    }
    // Days since 1970 in the proleptic Gregorian calendar, years starting in March so that leap days come last.
    let (shifted_year, shifted_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100
        + shifted_year / 400
        + (shifted_month * 153 + 2) / 5
        + day
        - 1
        - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

/// A string, borrowed from the body where it holds no escape.
#[derive(Debug, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A file's hashes; all but SHA-256 are ignored, since no other proves anything.
#[derive(Debug, Default)]
struct Hashes<'a> {
    sha256: Option<Text<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Hashes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HashesVisitor;
        impl<'de> Visitor<'de> for HashesVisitor {
            type Value = Hashes<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("hashes by algorithm")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut hashes = Hashes::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if key.0 == "sha256" {
                        hashes.sha256 = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(hashes)
            }
        }
        deserializer.deserialize_map(HashesVisitor)
    }
}

#[derive(Debug)]
enum FlagOrText<'a> {
    Flag(bool),
    Text(Text<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for FlagOrText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrTextVisitor;
        impl<'de> Visitor<'de> for FlagOrTextVisitor {
            type Value = FlagOrText<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("true, false or a reason")
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(FlagOrText::Flag(flag))
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(FlagOrText::Text(Text(Cow::Borrowed(text))))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(FlagOrText::Text(Text(Cow::Owned(text.to_owned()))))
            }
        }
        deserializer.deserialize_any(FlagOrTextVisitor)
    }
}

#[derive(Debug)]
enum FlagOrHashes<'a> {
    Flag(bool),
    Hashes(Hashes<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for FlagOrHashes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrHashesVisitor;
        impl<'de> Visitor<'de> for FlagOrHashesVisitor {
            type Value = FlagOrHashes<'de>;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("true, false or hashes")
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(FlagOrHashes::Flag(flag))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Hashes::deserialize(de::value::MapAccessDeserializer::new(map)).map(FlagOrHashes::Hashes)
            }
        }
        deserializer.deserialize_any(FlagOrHashesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, body: &str) -> Result<Vec<String>, String> {
        let name = "a".parse().unwrap();
        let url = Url::parse("https://h.example/simple/a/").unwrap();
        let page = read(&name, "https://h.example/simple", &url, kind, body.as_bytes())?;
        Ok((0..page.versions().len())
            .flat_map(|at| {
                page.files(at)
                    .map(|file| file.url().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect())
    }

    const JSON: &str = "application/vnd.pypi.simple.v1+json; charset=utf-8";

    #[test]
    fn json_and_html_say_the_same() {
        let json = r#"{"meta":{"api-version":"1.1"},"name":"a","files":[{"filename":"a-1-py3-none-any.whl","url":"../../f/a-1-py3-none-any.whl",
            "hashes":{"md5":"0","sha256":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"},"requires-python":"\u003e=3.8","yanked":false,
            "core-metadata":{"sha256":"x"},"size":1,"provenance":null}]}"#;
        let html = "<title>Links for a</title><a href='../../f/a-1-py3-none-any.whl#sha256=00'>a-1-py3-none-any.whl</a>";
        let expected = ["https://h.example/f/a-1-py3-none-any.whl"];
        assert_eq!(check(JSON, json).unwrap(), expected);
        assert_eq!(check("text/html", html).unwrap(), expected);
    }

    #[test]
    fn urls_come_out_as_if_each_were_parsed() {
        let page = Url::parse("https://h.example:8443/root/simple/a/?q=1").unwrap();
        let mut absolute = Absolute::new(&page);
        for written in [
            "../../f/a-1.whl",
            "../../f/b-1.whl",
            "../../../../../f/a-1.whl",
            "/f/a-1+cpu.whl",
            "/f//a.whl",
            "//other.example/a.whl",
            "/f/../a.whl",
            "../../f/./a.whl",
            "../.hidden/a.whl",
            "../..",
            "..",
            "/",
            "",
            "a.whl",
            "./a.whl",
            "/f/a%2fb.whl",
            "../a b.whl",
            "../a?x=/../y",
            "/f\\..\\a.whl",
            "/ä.whl",
            "file:///etc/passwd",
            "../file:///etc",
        ] {
            let expected = page.join(written).unwrap().to_string();
            assert_eq!(absolute.of(written.into()), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_index_page_is_refused() {
        for (kind, body, rule) in [
            (
                "text/html",
                "<h1>Please log in</h1>",
                "does not call itself an index",
            ),
            (JSON, "<h1>Please log in</h1>", "not the JSON"),
            ("text/plain", "a", "content type"),
            (
                JSON,
                r#"{"meta":{"api-version":"2.0"},"files":[]}"#,
                "api-version",
            ),
            (
                JSON,
                r#"{"files":[{"filename":"..%252fa-1.tar.gz","url":"https://h.example/x"}]}"#,
                "may not hold a path",
            ),
            (
                JSON,
                r#"{"files":[{"filename":"a-1.tar.gz","url":"https://good@evil/x"}]}"#,
                "in disguise",
            ),
            (
                JSON,
                r#"{"files":[{"filename":"a-1.tar.gz","url":"file:///etc/passwd"}]}"#,
                "neither http",
            ),
        ] {
            let error = check(kind, body).unwrap_err();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn times_are_read_like_a_calendar_does() {
        for text in [
            "2024-02-29T23:59:59.123456Z",
            "1999-12-31T00:00:00Z",
            "2026-11-23T15:00:00.5Z",
            "1970-01-01T00:00:00Z",
        ] {
            let expected = text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
            assert_eq!(microseconds(text), Some(expected), "{text}");
        }
    }
}

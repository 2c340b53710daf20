//! A project's page on an index: its versions, and each version's files, in the compact form that the cache keeps.
//!
//! A page of boto3 lists 4,000 files and a solve looks at ten of them. So a page is one block of bytes with fixed-size
//! entries sorted by version; only version numbers are parsed when it is loaded, and a file's fields when it is asked for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use uv_distribution_filename::{SourceDistExtension, SourceDistFilename, WheelFilename};
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};

use crate::digest::Digest;
use crate::python::metadata::python_specifiers;

/// What an index says of one project. Versions ascend.
pub struct Page {
    bytes: Bytes,
    versions: Vec<Version>,
    /// Where each version's files start; one more than there are versions.
    starts: Vec<u32>,
    texts: usize,
    parsed: Vec<OnceLock<Parsed>>,
    /// The index that answered, as a lock names it; empty for files of `--find-links`.
    pub index: String,
}

/// What is parsed of a file on demand.
struct Parsed {
    requires_python: Option<VersionSpecifiers>,
    wheel: Option<WheelFilename>,
}

/// One file of a page, by its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A file as the index lists it. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Listed<'a> {
    page: &'a Page,
    entry: &'a [u8],
    id: FileId,
}

/// What goes into a page: a file as read from JSON or HTML.
#[derive(Debug, Clone, Default)]
pub struct RawFile<'a> {
    pub name: Cow<'a, str>,
    /// Absolute.
    pub url: Cow<'a, str>,
    pub requires_python: Option<Cow<'a, str>>,
    pub sha256: Option<Digest>,
    /// `Some(None)`: the file has its metadata beside it, without a hash.
    pub metadata: Option<Option<Digest>>,
    pub size: Option<u64>,
    /// Microseconds since 1970.
    pub upload_time: Option<i64>,
    /// `Some("")`: yanked without a reason.
    pub yanked: Option<Cow<'a, str>>,
}

const ENTRY: usize = 112;
const HAS_HASH: u8 = 1;
const HAS_METADATA: u8 = 2;
const HAS_METADATA_HASH: u8 = 4;
const YANKED: u8 = 8;
const WHEEL: u8 = 16;
const HEADER: usize = 12;
const MAGIC: &[u8; 4] = b"mlp2";

impl Page {
    /// Sorts `files` by version. Files that are neither wheels nor source archives of `name` are left out.
    pub fn build<'a>(name: &PackageName, index: &str, files: impl IntoIterator<Item = RawFile<'a>>) -> Self {
        let mut known: HashMap<String, Option<Version>> = HashMap::new();
        let mut rows: Vec<(Version, bool, RawFile<'a>)> = Vec::new();
        for file in files {
            let Some((is_wheel, version)) = version_of(name, &file.name) else {
                continue;
            };
            let version = match known.get(version.as_ref()) {
                Some(version) => version.clone(),
                None => {
                    let parsed = version.parse::<Version>().ok();
                    known.insert(version.into_owned(), parsed.clone());
                    parsed
                }
            };
            if let Some(version) = version {
                rows.push((version, is_wheel, file));
            }
        }
        rows.sort_by(|one, other| one.0.cmp(&other.0).then_with(|| one.2.name.cmp(&other.2.name)));
        rows.dedup_by(|one, other| one.2.name == other.2.name);
        Self::load(encode(&rows).into(), index)
            .unwrap_or_else(|| unreachable!("a page that was just encoded"))
    }

    /// The block of bytes that [`Page::load`] reads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what [`Page::bytes`] gave; `None` if it is another form or damaged.
    pub fn load(bytes: Bytes, index: &str) -> Option<Self> {
        if bytes.get(..4)? != MAGIC {
            return None;
        }
        let files = u32_at(&bytes, 4)? as usize;
        let count = u32_at(&bytes, 8)? as usize;
        let table = HEADER + files.checked_mul(ENTRY)?;
        let texts = table + count.checked_mul(12)?;
        let mut versions = Vec::with_capacity(count.min(1 << 16));
        let mut starts = Vec::with_capacity(count.min(1 << 16) + 1);
        for row in 0..count {
            let at = table + 12 * row;
            let text = text_at(&bytes, texts, u32_at(&bytes, at)?, u32_at(&bytes, at + 4)?)?;
            versions.push(text.parse().ok()?);
            let start = u32_at(&bytes, at + 8)?;
            if start as usize > files || starts.last().is_some_and(|last| *last > start) {
                return None;
            }
            starts.push(start);
        }
        starts.push(u32::try_from(files).ok()?);
        if bytes.len() < texts {
            return None;
        }
        Some(Self {
            bytes,
            versions,
            starts,
            texts,
            parsed: (0..files).map(|_| OnceLock::new()).collect(),
            index: index.to_owned(),
        })
    }

    /// All versions that have files, ascending.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The position of `version` in [`Page::versions`].
    pub fn position(&self, version: &Version) -> Option<usize> {
        self.versions.binary_search(version).ok()
    }

    /// The files of the version at `position`.
    pub fn files(&self, position: usize) -> impl DoubleEndedIterator<Item = Listed<'_>> + Clone {
        let range: Range<u32> = match (self.starts.get(position), self.starts.get(position + 1)) {
            (Some(start), Some(end)) => *start..*end,
            _ => 0..0,
        };
        range.map(|at| self.file(FileId(at)))
    }

    /// Every file, in the order of versions.
    pub fn all_files(&self) -> impl Iterator<Item = Listed<'_>> {
        (0..self.parsed.len() as u32).map(|at| self.file(FileId(at)))
    }

    pub fn file(&self, id: FileId) -> Listed<'_> {
        let start = HEADER + ENTRY * id.0 as usize;
        Listed {
            page: self,
            entry: &self.bytes[start..start + ENTRY],
            id,
        }
    }
}

impl<'a> Listed<'a> {
    pub fn id(&self) -> FileId {
        self.id
    }

    pub fn name(&self) -> &'a str {
        self.text(0)
    }

    pub fn url(&self) -> &'a str {
        self.text(8)
    }

    pub fn is_wheel(&self) -> bool {
        self.flags() & WHEEL != 0
    }

    /// Why the file was yanked; empty if nobody said.
    pub fn yanked(&self) -> Option<&'a str> {
        (self.flags() & YANKED != 0).then(|| self.text(24))
    }

    /// `None`: the index gives no SHA-256, so the file cannot be locked.
    pub fn digest(&self) -> Option<Digest> {
        (self.flags() & HAS_HASH != 0).then(|| self.digest_at(32))
    }

    /// Whether the index serves the file's METADATA beside it (PEP 658), and its digest where it says.
    pub fn metadata(&self) -> Option<Option<Digest>> {
        let digest = || (self.flags() & HAS_METADATA_HASH != 0).then(|| self.digest_at(64));
        (self.flags() & HAS_METADATA != 0).then(digest)
    }

    pub fn size(&self) -> Option<u64> {
        let size = u64::from_le_bytes(self.entry[96..104].try_into().unwrap_or_default());
        // 2^48 bytes and up stand for "not said"; the flags share the last byte.
        let size = size & ((1 << 48) - 1);
        (size != (1 << 48) - 1).then_some(size)
    }

    /// Microseconds since 1970.
    pub fn upload_time(&self) -> Option<i64> {
        let time = i64::from_le_bytes(self.entry[104..112].try_into().unwrap_or_default());
        (time != i64::MIN).then_some(time)
    }

    pub fn requires_python(&self) -> Option<&'a VersionSpecifiers> {
        self.parsed().requires_python.as_ref()
    }

    /// The parsed name of a wheel; `None` for a source archive, or if the name is invalid.
    pub fn wheel(&self) -> Option<&'a WheelFilename> {
        self.parsed().wheel.as_ref()
    }

    fn parsed(&self) -> &'a Parsed {
        self.page.parsed[self.id.0 as usize].get_or_init(|| {
            let text = self.text(16);
            Parsed {
                requires_python: if text.is_empty() {
                    None
                } else {
                    python_specifiers(text)
                },
                wheel: if self.is_wheel() {
                    self.name().parse().ok()
                } else {
                    None
                },
            }
        })
    }

    fn flags(&self) -> u8 {
        self.entry[103]
    }

    fn digest_at(&self, at: usize) -> Digest {
        Digest::from_bytes(self.entry[at..at + 32].try_into().unwrap_or_default())
    }

    fn text(&self, at: usize) -> &'a str {
        u32_at(self.entry, at)
            .zip(u32_at(self.entry, at + 4))
            .and_then(|(offset, length)| text_at(&self.page.bytes, self.page.texts, offset, length))
            .unwrap_or_default()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn text_at(bytes: &[u8], texts: usize, offset: u32, length: u32) -> Option<&str> {
    let start = texts.checked_add(offset as usize)?;
    std::str::from_utf8(bytes.get(start..start.checked_add(length as usize)?)?).ok()
}

fn encode(rows: &[(Version, bool, RawFile<'_>)]) -> Vec<u8> {
    let mut texts = String::new();
    let mut interned: HashMap<String, (u32, u32)> = HashMap::new();
    let mut place = |text: &str, shared: bool| -> (u32, u32) {
        if text.is_empty() {
            return (0, 0);
        }
        if shared && let Some(place) = interned.get(text) {
            return *place;
        }
        let place = (texts.len() as u32, text.len() as u32);
        texts.push_str(text);
        if shared {
            interned.insert(text.to_owned(), place);
        }
        place
    };
    let mut entries = Vec::with_capacity(rows.len() * ENTRY);
    let mut versions: Vec<(u32, u32, u32)> = Vec::new();
    for (at, (version, is_wheel, file)) in rows.iter().enumerate() {
        if at == 0 || rows[at - 1].0 != *version {
            let (offset, length) = place(&version.to_string(), false);
            versions.push((offset, length, at as u32));
        }
        let mut flags = if *is_wheel { WHEEL } else { 0 };
        for (offset, length) in [
            place(&file.name, false),
            place(&file.url, false),
            place(file.requires_python.as_deref().unwrap_or_default(), true),
            place(file.yanked.as_deref().unwrap_or_default(), true),
        ] {
            entries.extend_from_slice(&offset.to_le_bytes());
            entries.extend_from_slice(&length.to_le_bytes());
        }
        if file.yanked.is_some() {
            flags |= YANKED;
        }
        if file.sha256.is_some() {
            flags |= HAS_HASH;
        }
        match file.metadata {
            Some(Some(_)) => flags |= HAS_METADATA | HAS_METADATA_HASH,
            Some(None) => flags |= HAS_METADATA,
            None => {}
        }
        let empty = [0u8; 32];
        entries.extend_from_slice(file.sha256.as_ref().map_or(&empty[..], |digest| digest.bytes()));
        entries.extend_from_slice(
            file.metadata
                .as_ref()
                .and_then(Option::as_ref)
                .map_or(&empty[..], |digest| digest.bytes()),
        );
        let unknown = (1u64 << 48) - 1;
        let size = file.size.filter(|size| *size < unknown).unwrap_or(unknown);
        entries.extend_from_slice(&(size | u64::from(flags) << 56).to_le_bytes());
        entries.extend_from_slice(&file.upload_time.unwrap_or(i64::MIN).to_le_bytes());
    }
    let mut bytes = Vec::with_capacity(HEADER + entries.len() + versions.len() * 12 + texts.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(versions.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&entries);
    for (offset, length, start) in versions {
        for number in [offset, length, start] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(texts.as_bytes());
    bytes
}

/// Whether `file` is a wheel, and the version in its name; `None` if it is no distribution of `name`.
fn version_of<'f>(name: &PackageName, file: &'f str) -> Option<(bool, Cow<'f, str>)> {
    if let Some(stem) = file.strip_suffix(".whl") {
        let mut parts = stem.splitn(3, '-');
        let (project, version) = (parts.next()?, parts.next()?);
        return (same_name(project, name) && parts.next().is_some())
            .then_some((true, Cow::Borrowed(version)));
    }
    // The common case without an allocation: `name-version.tar.gz`, the version the last part.
    let stem = [".tar.gz", ".tgz", ".zip"]
        .into_iter()
        .find_map(|suffix| file.strip_suffix(suffix));
    if let Some((project, version)) = stem.and_then(|stem| stem.rsplit_once('-'))
        && same_name(project, name)
    {
        return Some((false, Cow::Borrowed(version)));
    }
    let extension = SourceDistExtension::from_path(file).ok()?;
    let parsed = SourceDistFilename::parse(file, extension, name).ok()?;
    Some((false, Cow::Owned(parsed.version.to_string())))
}

/// Whether `written` normalises to `name` (PEP 503), without making the normalised text.
fn same_name(written: &str, name: &PackageName) -> bool {
    let mut expected = name.as_str().bytes();
    let mut last_was_separator = false;
    for byte in written.bytes() {
        if matches!(byte, b'-' | b'_' | b'.') {
            if !last_was_separator && expected.next() != Some(b'-') {
                return false;
            }
            last_was_separator = true;
        } else {
            last_was_separator = false;
            if expected.next() != Some(byte.to_ascii_lowercase()) {
                return false;
            }
        }
    }
    expected.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_trip() {
        let name: PackageName = "foo-bar".parse().unwrap();
        let file = |name: &'static str| RawFile {
            name: Cow::Borrowed(name),
            url: Cow::Owned(format!("https://h.example/{name}")),
            requires_python: Some(">=3.8".into()),
            sha256: Some(Digest::of(name.as_bytes())),
            ..RawFile::default()
        };
        let page = Page::build(
            &name,
            "https://h.example/simple",
            [
                file("foo_bar-1.10-py3-none-any.whl"),
                RawFile {
                    yanked: Some("bad".into()),
                    size: Some(7),
                    upload_time: Some(-5),
                    metadata: Some(Some(Digest::of(b"m"))),
                    ..file("Foo.Bar-1.9.tar.gz")
                },
                file("foo_bar-1.9-py3-none-any.whl"),
                file("foo_bar-1.9-py2.7.egg"),
                file("other-1.9.tar.gz"),
                file("foo_bar-one.tar.gz"),
            ],
        );
        let page = Page::load(page.bytes.clone(), "x").unwrap();
        let versions: Vec<String> = page.versions().iter().map(ToString::to_string).collect();
        assert_eq!(versions, ["1.9", "1.10"]);
        let files: Vec<Listed<'_>> = page.files(0).collect();
        assert_eq!(files.len(), 2);
        let sdist = files[0];
        assert_eq!(
            (sdist.name(), sdist.yanked()),
            ("Foo.Bar-1.9.tar.gz", Some("bad"))
        );
        assert_eq!((sdist.size(), sdist.upload_time()), (Some(7), Some(-5)));
        assert_eq!(sdist.metadata(), Some(Some(Digest::of(b"m"))));
        assert_eq!(
            files[1].digest(),
            Some(Digest::of(b"foo_bar-1.9-py3-none-any.whl"))
        );
        assert_eq!(
            (files[1].size(), files[1].metadata(), files[1].yanked()),
            (None, None, None)
        );
        assert_eq!(files[1].requires_python().unwrap().to_string(), ">=3.8");
        assert!(files[1].is_wheel() && files[1].wheel().is_some());
        for cut in 0..page.bytes().len() {
            // A damaged page is refused or reads as other text; it never panics.
            if let Some(page) = Page::load(page.bytes.slice(..cut), "x") {
                let _ = page.files(0).map(|file| file.name().len()).sum::<usize>();
            }
        }
    }
}

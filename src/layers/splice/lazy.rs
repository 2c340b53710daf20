//! eStargz: a gzip layer that a snapshotter can mount before it is there, and that everybody else reads as any other.
//!
//! Every file's content is a gzip member of its own. Behind the last one stands a table of contents, itself a file of the tar, with
//! each entry's place and digest, and then an empty member whose extra field says where the table begins. What is in the tar before
//! the table is the same as in the other forms. It knows nothing of how an entry's bytes are made.
//!
//! Source: stargz-snapshotter, docs/estargz.md, "eStargz: Standard-Compatible Extensions to Tar.gz Layers".

use serde::Serialize;

use super::{GZIP_HEADER, SpliceError, Splicer};
use crate::digest::{Digest, Hasher};
use crate::tree::tar;

/// Says that nothing of the layer is to be fetched before it is asked for.
const LANDMARK: &str = ".no.prefetch.landmark";
/// What a landmark holds.
const LANDMARK_CONTENT: [u8; 1] = [0x0f];
const TABLE: &str = "stargz.index.json";

/// The table of contents while it grows.
#[derive(Debug, Default)]
pub(super) struct Toc {
    entries: Vec<TocEntry>,
    /// Of the content that is being written.
    content: Option<Hasher>,
}

#[derive(Debug, Serialize)]
struct Table<'a> {
    version: u32,
    entries: &'a [TocEntry],
}

#[derive(Debug, Serialize)]
struct TocEntry {
    /// A folder's ends in a slash.
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(rename = "linkName", skip_serializing_if = "str::is_empty")]
    link_name: String,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of the content's member, in the layer.
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// There is one chunk: the whole.
    #[serde(rename = "chunkDigest", skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Toc {
    pub(super) fn header(&mut self, header: &tar::Header<'_>) {
        let (kind, size, link, slash) = match header.kind {
            tar::Kind::File(size) => ("reg", size, "", ""),
            tar::Kind::Directory => ("dir", 0, "", "/"),
            tar::Kind::Symlink(target) => ("symlink", 0, target, ""),
        };
        let seconds = i64::try_from(header.mtime).ok().filter(|seconds| *seconds > 0);
        let modtime = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        self.entries.push(TocEntry {
            name: format!("{}{slash}", header.path),
            kind,
            size,
            modtime: modtime.map(|time| time.to_string()),
            link_name: link.to_owned(),
            mode: header.mode,
            uid: 0,
            gid: 0,
            offset: 0,
            digest: (kind == "reg").then(|| Digest::of(&[])),
            chunk_digest: None,
        });
    }

    /// Bytes of the tar: of the content, where one is being written.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if let Some(content) = &mut self.content {
            content.update(bytes);
        }
    }
}

impl Splicer<'_> {
    /// The landmark, which comes first.
    pub(super) fn landmark(&mut self) -> Result<(), SpliceError> {
        match self.toc {
            Some(_) => self.file(LANDMARK, 0o644, &LANDMARK_CONTENT),
            None => Ok(()),
        }
    }

    /// A file's content, of `size` bytes, begins: in a member of its own.
    pub(super) fn content_begins(&mut self, size: u64) {
        if size == 0 || self.toc.is_none() {
            return;
        }
        self.end_member();
        let offset = self.begin_member();
        if let Some(toc) = &mut self.toc {
            toc.content = Some(Hasher::new());
            if let Some(entry) = toc.entries.last_mut() {
                entry.offset = offset;
            }
        }
    }

    /// The content has ended.
    pub(super) fn content_ends(&mut self) {
        let Some(toc) = &mut self.toc else { return };
        let Some(content) = toc.content.take() else {
            return;
        };
        let digest = content.finish();
        if let Some(entry) = toc.entries.last_mut() {
            entry.digest = Some(digest);
            entry.chunk_digest = Some(digest);
        }
        self.end_member();
        self.begin_member();
    }

    /// The table and the end of the tar; answers with the table's digest and where its member begins.
    pub(super) fn table(&mut self, toc: &Toc) -> Result<(Digest, u64), SpliceError> {
        let table = Table {
            version: 1,
            entries: &toc.entries,
        };
        let json = serde_json::to_vec(&table).map_err(|error| SpliceError::Write(error.into()))?;
        self.end_member();
        let offset = self.begin_member();
        // Without a table of contents by now: the table does not list itself.
        self.file(TABLE, 0o444, &json)?;
        Ok((Digest::of(&json), offset))
    }

    /// Ends the member that is open (RFC 1952 section 2.3.1).
    pub(super) fn end_member(&mut self) {
        self.encoder.flush(&mut self.gzip);
        self.gzip.end();
        let crc = std::mem::take(&mut self.crc).finalize();
        self.gzip.raw(&crc.to_le_bytes());
        // ISIZE is the size modulo 2^32.
        let size = (self.tar_size - self.member_from) as u32;
        self.gzip.raw(&size.to_le_bytes());
    }

    /// Begins a member; answers with its place in the layer.
    pub(super) fn begin_member(&mut self) -> u64 {
        let offset = self.gzip_sent + self.gzip.len() as u64;
        self.member_from = self.tar_size;
        self.gzip.raw(&GZIP_HEADER);
        offset
    }
}

/// The empty member at the end, 51 bytes, whose extra field `SG` says where the table's member begins.
pub(super) fn footer(table: u64) -> Vec<u8> {
    let extra = format!("{table:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    footer.extend((extra.len() as u16 + 4).to_le_bytes());
    footer.extend(*b"SG");
    footer.extend((extra.len() as u16).to_le_bytes());
    footer.extend(extra.as_bytes());
    // An empty stored block that is the last, and nothing's CRC and size.
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    footer
}

//! Encoded files that the store keeps: what was compressed once is copied into every later layer.
//!
//! It takes files by path with their content and its deflate stream ([`Packed`]), and gives them back as they were. Two blobs hold
//! all of them, one behind the other; a record says where each ends. What they are files of is for the caller's own record to say.

use std::io::{self, Write};
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::{Store, StoreError};
use crate::tree::Packed;

#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write to the cache")]
    Write(#[from] io::Error),
}

/// Where the files are; part of a record of whoever keeps them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    contents: Digest,
    streams: Digest,
    /// Path, and the ends of its content and its stream; it begins where the one before ends.
    files: Vec<(String, usize, usize)>,
}

impl Kept {
    /// Writes the files to the store.
    pub fn keep<'a>(
        store: &Store,
        files: impl IntoIterator<Item = (&'a str, &'a Packed)>,
    ) -> Result<Self, KeepError> {
        let (mut contents, mut streams) = (store.writer()?, store.writer()?);
        let mut ends = Vec::new();
        let (mut content_end, mut stream_end) = (0, 0);
        for (path, packed) in files {
            contents.write_all(&packed.content)?;
            streams.write_all(&packed.stream)?;
            content_end += packed.content.len();
            stream_end += packed.stream.len();
            ends.push((path.to_owned(), content_end, stream_end));
        }
        Ok(Self {
            contents: contents.commit()?.0,
            streams: streams.commit()?.0,
            files: ends,
        })
    }

    /// The files, in the order in which they were kept; nothing if the store has not all of it any more.
    pub fn load(self, store: &Store) -> Result<Option<Vec<(String, Packed)>>, StoreError> {
        let (Some(contents), Some(streams)) = (store.read(&self.contents)?, store.read(&self.streams)?)
        else {
            return Ok(None);
        };
        let (contents, streams) = (Bytes::from(contents), Bytes::from(streams));
        let (mut content_begin, mut stream_begin) = (0, 0);
        let mut files = Vec::with_capacity(self.files.len());
        for (path, content_end, stream_end) in self.files {
            let (content, stream) = (
                slice(&contents, content_begin..content_end),
                slice(&streams, stream_begin..stream_end),
            );
            let (Some(content), Some(stream)) = (content, stream) else {
                return Ok(None);
            };
            files.push((path, Packed { content, stream }));
            (content_begin, stream_begin) = (content_end, stream_end);
        }
        Ok(Some(files))
    }

    /// The blobs that hold them.
    pub fn blobs(&self) -> [Digest; 2] {
        [self.contents, self.streams]
    }
}

fn slice(bytes: &Bytes, range: Range<usize>) -> Option<Bytes> {
    (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
}

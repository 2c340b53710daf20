//! What a wheel's entries hold, compared while it is read with what the archive and RECORD promise.

use super::Entry;
use crate::digest::Hasher;
use crate::python::archive::{Method, ReadAt};

/// Hands an entry's content over in pieces, checking CRC, size and digest on the way: after `Ok`, it was what the wheel's
/// RECORD says. Pieces may have been handed over when an error comes.
pub fn read_entry<S: ReadAt + ?Sized>(
    source: &S,
    entry: &Entry,
    take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), ContentError> {
    let mut check = ContentCheck::new(entry);
    let mut input = vec![0; (64 << 10).min(entry.compressed_size as usize)];
    let mut output = match entry.method {
        Method::Stored => Vec::new(),
        Method::Deflated => vec![0; 128 << 10],
    };
    let mut inflate = flate2::Decompress::new(false);
    let mut at = 0;
    let mut ended = entry.method == Method::Stored;
    while at < entry.compressed_size {
        let count = input.len().min((entry.compressed_size - at) as usize);
        let input = &mut input[..count];
        source
            .read_exact_at(input, entry.data_offset + at)
            .map_err(ContentError::Read)?;
        at += count as u64;
        if entry.method == Method::Stored {
            check.update(input)?;
            take(input).map_err(ContentError::Write)?;
            continue;
        }
        let mut rest = &input[..];
        loop {
            if ended {
                if rest.is_empty() {
                    break;
                }
                return Err(ContentError::Wrong(
                    "bytes stand behind the end of its deflate stream",
                ));
            }
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            let status = inflate
                .decompress(rest, &mut output, flate2::FlushDecompress::None)
                .map_err(|_| ContentError::Wrong(BAD_STREAM))?;
            let taken = (inflate.total_in() - before_in) as usize;
            let made = (inflate.total_out() - before_out) as usize;
            rest = &rest[taken..];
            check.update(&output[..made])?;
            take(&output[..made]).map_err(ContentError::Write)?;
            ended = status == flate2::Status::StreamEnd;
            if !ended && taken == 0 && made == 0 {
                break;
            }
        }
    }
    if !ended {
        return Err(ContentError::Wrong("its deflate stream has no end"));
    }
    check.finish()
}

pub(crate) const BAD_STREAM: &str = "its deflate stream is broken";

/// Compares content with what an entry promises, piece by piece.
pub struct ContentCheck<'a> {
    entry: &'a Entry,
    crc: crc32fast::Hasher,
    sha256: Option<Hasher>,
    size: u64,
}

impl<'a> ContentCheck<'a> {
    pub fn new(entry: &'a Entry) -> Self {
        Self {
            entry,
            crc: crc32fast::Hasher::new(),
            sha256: entry.digest.map(|_| Hasher::new()),
            size: 0,
        }
    }

    /// For a wheel that once was what its RECORD says, whole: its bytes can only have been damaged since, which size and CRC show.
    pub fn of_proven(entry: &'a Entry) -> Self {
        Self {
            sha256: None,
            ..Self::new(entry)
        }
    }

    pub fn entry(&self) -> &'a Entry {
        self.entry
    }

    /// Refuses at once what is longer than it should be.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.size += bytes.len() as u64;
        if self.size > self.entry.size {
            return Err(ContentError::Wrong("it is longer than the archive says"));
        }
        self.crc.update(bytes);
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        Ok(())
    }

    pub fn finish(self) -> Result<(), ContentError> {
        if self.size != self.entry.size {
            return Err(ContentError::Wrong("it is shorter than the archive says"));
        }
        if self.crc.finalize() != self.entry.crc32 {
            return Err(ContentError::Wrong("its CRC is not what the archive says"));
        }
        match self.sha256.map(Hasher::finish) {
            Some(found) if Some(found) != self.entry.digest => {
                Err(ContentError::Wrong("its sha256 is not what RECORD says"))
            }
            _ => Ok(()),
        }
    }
}

/// Why an entry's content is not what was promised.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error("{0}")]
    Wrong(&'static str),
    /// Whoever received the content failed.
    #[error("its content cannot be written")]
    Write(#[source] std::io::Error),
}

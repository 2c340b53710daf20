//! What a wheel's entries hold, compared while it is read with what the archive and RECORD promise.

use super::Entry;
use crate::digest::Hasher;
use crate::inflate::{BadStream, Inflater, Output, PADDING, Pause};
use crate::python::archive::{Method, ReadAt};

/// Hands an entry's content over in pieces, checking CRC, size and digest on the way: after `Ok`, it was what the wheel's
/// RECORD says. Pieces may have been handed over when an error comes.
pub fn read_entry<S: ReadAt + ?Sized>(
    source: &S,
    entry: &Entry,
    take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), ContentError> {
    let mut check = ContentCheck::new(entry);
    let mut hand_over = |bytes: &[u8]| {
        check.update(bytes)?;
        take(bytes).map_err(ContentError::Write)
    };
    let mut input = Vec::new();
    let mut inflater = Inflater::new();
    let mut output = Output::new();
    inflater.begin(&mut output);
    let mut ended = entry.method == Method::Stored;
    let mut at = 0;
    while at < entry.compressed_size {
        let kept = input.len();
        let count = READ.min(entry.compressed_size - at);
        input.resize(kept + count as usize, 0);
        source
            .read_exact_at(&mut input[kept..], entry.data_offset + at)
            .map_err(ContentError::Read)?;
        at += count;
        if entry.method == Method::Stored {
            hand_over(&input)?;
            input.clear();
            continue;
        }
        input.resize(input.len() + PADDING, 0);
        let whole = at == entry.compressed_size;
        ended = loop {
            let pause = inflater
                .run(&mut input, whole, &mut output)
                .map_err(|error| ContentError::Wrong(error.rule()))?;
            hand_over(output.bytes())?;
            output.clear();
            match pause {
                Pause::Output => {}
                Pause::Input => break false,
                Pause::End => break true,
            }
        };
        input.truncate(input.len() - PADDING);
        let used = inflater.position().div_ceil(8);
        if ended && (!whole || used != input.len()) {
            return Err(ContentError::Wrong(
                "bytes stand behind the end of its deflate stream",
            ));
        }
        let used = inflater.position() / 8;
        input.drain(..used);
        inflater.forget(used);
    }
    if !ended {
        return Err(ContentError::Wrong(BadStream::Endless.rule()));
    }
    check.finish()
}

/// How much of an entry is read at once, in bytes.
const READ: u64 = 64 << 10;

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

//! The bytes under a pickle: compression, frames, positions, limits.
//!
//! Gives operands to the machine. Nothing is kept: an array is skipped as it goes by.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use super::PickleError;
use crate::python::archive::ReadAt;

/// The longest operand that ends with a line's end (protocol 0), in bytes.
const LONGEST_LINE: usize = 16 << 20;
/// What a compressed value may expand to, in bytes.
const LARGEST_EXPANDED: u64 = 32 << 30;
/// What an xz or lzma decoder may take, in KiB. `xz -9` takes 65 MB.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// A stretch of something with random access, read from its start to its end.
pub(super) struct Window<'a, S: ?Sized> {
    source: &'a S,
    at: u64,
    end: u64,
}

impl<'a, S: ReadAt + ?Sized> Window<'a, S> {
    pub(super) fn new(source: &'a S, offset: u64, size: u64) -> Self {
        Self {
            source,
            at: offset,
            end: offset.saturating_add(size),
        }
    }
}

impl<S: ReadAt + ?Sized> Read for Window<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.end - self.at).min(buffer.len() as u64) as usize;
        self.source.read_exact_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// One reader that a decoder takes from and that can be asked afterwards whether anything is left.
struct Shared<R>(Rc<RefCell<R>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// A decoder whose end must be its input's end: what follows a compressed stream belongs to nothing.
struct Whole<D, L> {
    decoder: D,
    is_left: L,
}

impl<D: Read, L: FnMut(&mut D) -> io::Result<bool>> Read for Whole<D, L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        if count == 0 && !buffer.is_empty() && (self.is_left)(&mut self.decoder)? {
            let message = "bytes follow the compressed stream";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(count)
    }
}

/// The decompressed bytes with their position.
pub(super) struct Input<'a> {
    reader: Box<dyn BufRead + 'a>,
    position: u64,
    /// Where the frame that is being read ends (protocol 4).
    frame: Option<u64>,
    limit: u64,
}

impl<'a> Input<'a> {
    pub(super) fn plain(window: impl Read + 'a) -> Self {
        Self::over(BufReader::with_capacity(64 << 10, window), u64::MAX)
    }

    fn over(reader: impl BufRead + 'a, limit: u64) -> Self {
        Self {
            reader: Box::new(reader),
            position: 0,
            frame: None,
            limit,
        }
    }

    /// By the first bytes, as joblib tells its compressions apart.
    pub(super) fn open(
        window: impl Read + 'a,
        magic: &[u8],
    ) -> Result<(Self, Option<&'static str>), PickleError> {
        let file = BufReader::with_capacity(64 << 10, window);
        let expanded = |decoder: Box<dyn Read + 'a>| Self::over(BufReader::new(decoder), LARGEST_EXPANDED);
        let refused = [
            (&b"BZ"[..], "bzip2"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"ZF", "the compression of joblib before 0.10"),
        ];
        if let Some((_, name)) = refused.iter().find(|(head, _)| magic.starts_with(head)) {
            return Err(PickleError::Compression(name));
        }
        if magic.starts_with(b"\x1f\x8b") {
            let decoder = flate2::bufread::MultiGzDecoder::new(file);
            return Ok((expanded(Box::new(decoder)), Some("gzip")));
        }
        if magic.starts_with(b"\x78") {
            let decoder = Whole {
                decoder: flate2::bufread::ZlibDecoder::new(file),
                is_left: |decoder: &mut flate2::bufread::ZlibDecoder<BufReader<_>>| {
                    Ok(!decoder.get_mut().fill_buf()?.is_empty())
                },
            };
            return Ok((expanded(Box::new(decoder)), Some("zlib")));
        }
        if magic.starts_with(b"\xfd7zXZ\x00") {
            let decoder = lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB);
            return Ok((expanded(Box::new(decoder)), Some("xz")));
        }
        if magic.starts_with(b"\x5d\x00") {
            let shared = Rc::new(RefCell::new(file));
            let decoder = lzma_rust2::LzmaReader::new_mem_limit(Shared(shared.clone()), XZ_MEMORY_KIB, None)
                .map_err(PickleError::Read)?;
            let decoder = Whole {
                decoder,
                is_left: move |_: &mut _| Ok(!shared.borrow_mut().fill_buf()?.is_empty()),
            };
            return Ok((expanded(Box::new(decoder)), Some("lzma")));
        }
        Ok((Self::over(file, u64::MAX), None))
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn rule(&self, rule: &'static str) -> PickleError {
        PickleError::Rule {
            at: self.position,
            rule,
        }
    }

    fn fault(&self, error: io::Error) -> PickleError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => PickleError::Truncated { at: self.position },
            _ => PickleError::Read(error),
        }
    }

    /// Notes that `count` bytes are taken: they may not cross a frame's end, nor the limit.
    fn advance(&mut self, count: u64) -> Result<(), PickleError> {
        let end = self
            .position
            .checked_add(count)
            .filter(|end| *end <= self.limit)
            .ok_or(PickleError::Limit {
                at: self.position,
                what: "its size",
                limit: self.limit,
            })?;
        match self.frame {
            Some(frame) if end > frame => return Err(self.rule("an opcode crosses the end of its frame")),
            Some(frame) if end == frame => self.frame = None,
            _ => {}
        }
        self.position = end;
        Ok(())
    }

    /// The next byte, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<u8>, PickleError> {
        let first = self.reader.fill_buf().map(|bytes| bytes.first().copied());
        let Some(byte) = first.map_err(|error| self.fault(error))? else {
            return Ok(None);
        };
        self.reader.consume(1);
        self.advance(1)?;
        Ok(Some(byte))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        self.advance(N as u64)?;
        self.reader
            .read_exact(&mut bytes)
            .map_err(|error| self.fault(error))?;
        Ok(bytes)
    }

    /// `count` bytes, which the caller knows to be few.
    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, PickleError> {
        self.advance(count)?;
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut self.reader)
            .take(count)
            .read_to_end(&mut bytes)
            .map_err(|error| self.fault(error))?;
        if (read as u64) < count {
            return Err(PickleError::Truncated { at: self.position });
        }
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), PickleError> {
        self.advance(count)?;
        let mut left = count;
        while left > 0 {
            let there = self.reader.fill_buf().map(<[u8]>::len);
            let there = there.map_err(|error| self.fault(error))?;
            if there == 0 {
                return Err(PickleError::Truncated {
                    at: self.position - left,
                });
            }
            let part = left.min(there as u64);
            self.reader.consume(part as usize);
            left -= part;
        }
        Ok(())
    }

    /// Up to the line's end, which is not part of it.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, PickleError> {
        let mut line = Vec::new();
        loop {
            match self.next()? {
                Some(b'\n') => return Ok(line),
                Some(byte) => line.push(byte),
                None => return Err(PickleError::Truncated { at: self.position }),
            }
            if line.len() > LONGEST_LINE {
                return Err(PickleError::Limit {
                    at: self.position,
                    what: "a line's length",
                    limit: LONGEST_LINE as u64,
                });
            }
        }
    }

    /// A frame of `size` bytes begins (PEP 3154, "Framing").
    pub(super) fn begin_frame(&mut self, size: u64) -> Result<(), PickleError> {
        if self.frame.is_some() {
            return Err(self.rule("a frame begins inside another"));
        }
        if size > 0 {
            let end = self.position.checked_add(size);
            self.frame = Some(end.ok_or_else(|| self.rule("a frame is larger than any file"))?);
        }
        Ok(())
    }

    /// Bytes that are no opcodes may only stand between frames.
    pub(super) fn between_frames(&self) -> Result<(), PickleError> {
        match self.frame {
            Some(_) => Err(self.rule("an array stands inside a frame")),
            None => Ok(()),
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), PickleError> {
        if self.frame.is_some() {
            return Err(self.rule("the pickle ends before its frame does"));
        }
        let at = self.position;
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(PickleError::Trailing { at }),
        }
    }
}

//! Splicing: a wheel's deflate streams become part of a layer's, without being compressed again.
//!
//! A layer is one gzip member with one deflate stream. The stream of a wheel's entry is copied bit for bit but for one:
//! the BFINAL bit of its last block is cleared, so that the layer's stream goes on behind it. To know where that bit is, to
//! hash the tar (the diff_id) and to check CRC, size and RECORD's digest, each entry is inflated once, and nothing is
//! deflated. What stands between entries (tar headers, padding, generated files) is encoded by `deflate`, never by a library.
//! docs/decisions/splice.md has the reasons and figures.
//!
//! It takes entries and bytes in the order of the tar, and gives the layer to a writer, a diff_id and sizes. Memory is a few
//! fixed buffers, whatever the layer's size. It does not know where files are installed.
//!
//! Sources: RFC 1951 (deflate), RFC 1952 (gzip).

mod downstream;
mod lazy;
mod sink;

use std::io::{self, Write};

use crate::deflate::{BitWriter, Encoder};
use crate::digest::Digest;
use crate::inflate::{BadStream, Inflater, Output, PADDING, PIECE, Pause};
use crate::layers::recipe::Form;
use crate::python::archive::{Method, ReadAt};
use crate::python::wheel::{ContentCheck, ContentError, Entry};
use crate::tree::{Packed, tar};
use downstream::Downstream;
use lazy::Toc;

/// What a spliced layer is, besides the bytes that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spliced {
    /// Of the uncompressed tar.
    pub diff_id: Digest,
    /// Of the uncompressed tar, in bytes.
    pub tar_size: u64,
    /// Of the table of contents, in the form that has one.
    pub toc: Option<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    #[error("the wheel {wheel} is refused: entry `{entry}`")]
    Entry {
        wheel: String,
        entry: String,
        source: ContentError,
    },
    #[error("cannot read {path} for a layer")]
    Tree {
        path: String,
        source: crate::tree::TreeError,
    },
    #[error("cannot write a layer")]
    Write(#[source] io::Error),
}

/// gzip's header without name, time or system: nothing of the machine gets in (RFC 1952 section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// On how many threads a layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Where others are made at the same time: what was inflated is hashed where it is, while the processor's cache has it.
    One,
    /// Inflating and checking are the caller's; hashing the tar and writing the layer are another's.
    Two,
}

/// Writes one layer to `out`, in `form`: what `fill` puts into the tar, in that order, with every time `mtime`.
pub fn splice<W: Write + Send>(
    out: W,
    form: Form,
    mtime: u64,
    threads: Threads,
    fill: impl FnOnce(&mut Splicer<'_>) -> Result<(), SpliceError>,
) -> Result<(Spliced, W), SpliceError> {
    let work = |downstream: &mut dyn Downstream| {
        let mut splicer = Splicer::new(form, mtime, downstream);
        splicer.landmark()?;
        fill(&mut splicer)?;
        splicer.finish()
    };
    let ((tar_size, toc), (diff_id, out)) = match threads {
        Threads::One => downstream::here(out, form, work)?,
        Threads::Two => downstream::elsewhere(out, form, work)?,
    };
    let spliced = Spliced {
        diff_id,
        tar_size,
        toc,
    };
    Ok((spliced, out))
}

/// Takes the contents of one layer, in the order of its tar.
pub struct Splicer<'a> {
    mtime: u64,
    downstream: &'a mut dyn Downstream,
    /// The tar's bytes that were not sent yet.
    tar: Output,
    tar_size: u64,
    /// Of the gzip member that is open.
    crc: crc32fast::Hasher,
    /// Where in the tar it began.
    member_from: u64,
    gzip: BitWriter,
    /// How many bytes of the gzip have left.
    gzip_sent: u64,
    toc: Option<Toc>,
    encoder: Encoder,
    inflate: Inflater,
    input: Vec<u8>,
    block: Vec<u8>,
}

impl<'a> Splicer<'a> {
    fn new(form: Form, mtime: u64, downstream: &'a mut dyn Downstream) -> Self {
        let mut gzip = BitWriter::default();
        gzip.raw(&GZIP_HEADER);
        Self {
            mtime,
            downstream,
            tar: Output::new(),
            tar_size: 0,
            crc: crc32fast::Hasher::new(),
            member_from: 0,
            gzip,
            gzip_sent: 0,
            toc: (form == Form::Lazy).then(Toc::default),
            encoder: Encoder::new(),
            inflate: Inflater::new(),
            input: Vec::new(),
            block: Vec::new(),
        }
    }

    /// A folder. `path` is relative, as everywhere here.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), SpliceError> {
        self.header(path, tar::Kind::Directory, mode)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), SpliceError> {
        self.header(path, tar::Kind::Symlink(target), 0o777)
    }

    /// A file whose bytes are at hand.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), SpliceError> {
        self.header(path, tar::Kind::File(bytes.len() as u64), mode)?;
        self.content_begins(bytes.len() as u64);
        self.bytes(bytes)?;
        self.content_ends();
        self.bytes(tar::padding(bytes.len() as u64))
    }

    /// A file from a tree.
    pub fn source(&mut self, path: &str, mode: u32, source: &crate::tree::Source) -> Result<(), SpliceError> {
        self.header(path, tar::Kind::File(source.size()), mode)?;
        self.content_begins(source.size());
        if let crate::tree::Source::Packed(packed) = source {
            self.packed(packed)?;
            self.content_ends();
            return self.bytes(tar::padding(source.size()));
        }
        let mut failed = None;
        let read = source.pieces(&mut |piece| {
            self.bytes(piece).map_err(|error| {
                failed = Some(error);
                crate::tree::TreeError::Changed {
                    path: path.to_owned(),
                }
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        read.map_err(|source| SpliceError::Tree {
            path: path.to_owned(),
            source,
        })?;
        self.content_ends();
        self.bytes(tar::padding(source.size()))
    }

    /// A file that is an entry of the wheel `wheel`, whose bytes are `source`, and held to `check`.
    pub fn entry<S: ReadAt + ?Sized>(
        &mut self,
        path: &str,
        mode: u32,
        wheel: &str,
        source: &S,
        check: ContentCheck<'_>,
    ) -> Result<(), SpliceError> {
        let entry = check.entry();
        self.header(path, tar::Kind::File(entry.size), mode)?;
        self.content_begins(entry.size);
        let copied = match entry.method {
            Method::Stored => self.stored(source, check),
            Method::Deflated => self.deflated(source, check),
        };
        copied.map_err(|error| match error {
            Stop::Content(source) => SpliceError::Entry {
                wheel: wheel.to_owned(),
                entry: entry.name.clone(),
                source,
            },
            Stop::Write(error) => error,
        })?;
        // The entry's CRC was compared with its content: it need not be computed a second time.
        self.crc
            .combine(&crc32fast::Hasher::new_with_initial_len(entry.crc32, entry.size));
        self.content_ends();
        self.bytes(tar::padding(entry.size))
    }

    fn header(&mut self, path: &str, kind: tar::Kind<'_>, mode: u32) -> Result<(), SpliceError> {
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        let header = tar::Header {
            path,
            kind,
            mode,
            mtime: self.mtime,
        };
        tar::header(&header, &mut block);
        if let Some(toc) = &mut self.toc {
            toc.header(&header);
        }
        let outcome = self.bytes(&block);
        self.block = block;
        outcome
    }

    /// Bytes of the tar that are ours to encode.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SpliceError> {
        self.crc.update(bytes);
        self.encoder.write(bytes, &mut self.gzip);
        self.tar_bytes(bytes)?;
        self.send_gzip(PIECE)
    }

    /// Bytes of the tar that were encoded before.
    fn packed(&mut self, packed: &Packed) -> Result<(), SpliceError> {
        self.encoder.flush(&mut self.gzip);
        self.gzip.align();
        self.gzip.raw(&packed.stream);
        self.crc.update(&packed.content);
        self.tar_bytes(&packed.content)?;
        self.send_gzip(PIECE)
    }

    /// Bytes of the tar, on their way to its hash.
    fn tar_bytes(&mut self, mut bytes: &[u8]) -> Result<(), SpliceError> {
        self.tar_size += bytes.len() as u64;
        if let Some(toc) = &mut self.toc {
            toc.bytes(bytes);
        }
        loop {
            bytes = self.tar.push(bytes);
            if self.tar.is_full() {
                self.send_tar()?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    fn send_tar(&mut self) -> Result<(), SpliceError> {
        self.downstream.tar(&mut self.tar).map_err(SpliceError::Write)
    }

    /// Sends the gzip's whole bytes on, if they are at least `least`.
    fn send_gzip(&mut self, least: usize) -> Result<(), SpliceError> {
        if self.gzip.len() < least {
            return Ok(());
        }
        self.gzip_sent += self.gzip.len() as u64;
        self.downstream.gzip(&mut self.gzip).map_err(SpliceError::Write)
    }

    fn stored<S: ReadAt + ?Sized>(&mut self, source: &S, mut check: ContentCheck<'_>) -> Result<(), Stop> {
        let entry = check.entry();
        self.encoder.flush(&mut self.gzip);
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while at < entry.size {
            let count = PIECE.min((entry.size - at) as usize);
            input.resize(count, 0);
            read(source, entry, at, &mut input)?;
            at += count as u64;
            check.update(&input).map_err(Stop::Content)?;
            self.gzip.stored(&input);
            self.tar_bytes(&input).map_err(Stop::Write)?;
            self.send_gzip(PIECE).map_err(Stop::Write)?;
        }
        self.input = input;
        check.finish().map_err(Stop::Content)
    }

    /// Copies an entry's deflate stream, its end cleared.
    fn deflated<S: ReadAt + ?Sized>(&mut self, source: &S, mut check: ContentCheck<'_>) -> Result<(), Stop> {
        let entry = check.entry();
        self.encoder.flush(&mut self.gzip);
        self.gzip.align();
        // Nothing before the entry can be referred to: a distance that reaches there is an error.
        self.inflate.begin(&mut self.tar);
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        let mut unread = entry.compressed_size;
        loop {
            let kept = input.len();
            let count = (PIECE as u64).min(unread);
            input.resize(kept + count as usize + PADDING, 0);
            let from = entry.compressed_size - unread;
            read(source, entry, from, &mut input[kept..kept + count as usize])?;
            unread -= count;
            let ended = self.inflate_all(&mut input, unread == 0, &mut check)?;
            input.truncate(input.len() - PADDING);
            // Of the last byte some bits may belong to what follows; the others stay until what they mean was read.
            let (whole, over) = (self.inflate.position() / 8, self.inflate.position() % 8);
            self.gzip.raw(&input[..whole]);
            if ended {
                if unread > 0 || whole + usize::from(over > 0) != input.len() {
                    return Err(Stop::wrong("bytes stand behind the end of its deflate stream"));
                }
                if over > 0 {
                    self.gzip
                        .put(u32::from(input[whole]) & ((1 << over) - 1), over as u32);
                }
                break;
            }
            input.drain(..whole);
            self.inflate.forget(whole);
            self.send_gzip(PIECE).map_err(Stop::Write)?;
        }
        self.input = input;
        self.send_gzip(PIECE).map_err(Stop::Write)?;
        check.finish().map_err(Stop::Content)
    }

    /// Inflates `input` into the tar; tells whether the stream ended.
    fn inflate_all(
        &mut self,
        input: &mut [u8],
        whole: bool,
        check: &mut ContentCheck<'_>,
    ) -> Result<bool, Stop> {
        loop {
            let before = self.tar.len();
            let pause = self
                .inflate
                .run(input, whole, &mut self.tar)
                .map_err(Stop::stream)?;
            let made = &self.tar.bytes()[before..];
            check.update(made).map_err(Stop::Content)?;
            self.tar_size += made.len() as u64;
            if let Some(toc) = &mut self.toc {
                toc.bytes(made);
            }
            match pause {
                Pause::Output => self.send_tar().map_err(Stop::Write)?,
                Pause::Input => return Ok(false),
                Pause::End => return Ok(true),
            }
        }
    }

    /// Ends the tar and the gzip; answers with the tar's size and the table's digest.
    fn finish(mut self) -> Result<(u64, Option<Digest>), SpliceError> {
        let toc = match self.toc.take() {
            Some(toc) => Some(self.table(&toc)?),
            None => None,
        };
        self.bytes(&tar::END)?;
        self.end_member();
        if let Some((_, offset)) = toc {
            self.gzip.raw(&lazy::footer(offset));
        }
        self.send_tar()?;
        self.send_gzip(0)?;
        Ok((self.tar_size, toc.map(|(digest, _)| digest)))
    }
}

/// Why copying an entry stopped.
enum Stop {
    Content(ContentError),
    Write(SpliceError),
}

impl Stop {
    fn wrong(rule: &'static str) -> Self {
        Self::Content(ContentError::Wrong(rule))
    }

    fn stream(error: BadStream) -> Self {
        Self::wrong(error.rule())
    }
}

fn read<S: ReadAt + ?Sized>(source: &S, entry: &Entry, at: u64, buffer: &mut [u8]) -> Result<(), Stop> {
    source
        .read_exact_at(buffer, entry.data_offset + at)
        .map_err(|error| Stop::Content(ContentError::Read(error)))
}

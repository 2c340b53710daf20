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

mod blocks;
mod lazy;
mod sink;

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::deflate::{BitWriter, Encoder};
use crate::digest::{Digest, Hasher};
use crate::layers::recipe::Form;
use crate::python::archive::{Method, ReadAt};
use crate::python::wheel::{ContentCheck, ContentError, Entry};
use crate::tree::{Packed, tar};
use blocks::Blocks;
use lazy::Toc;
use sink::Sink;

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

/// The size of the buffers that pass between the two threads, and of those that wheels are read with.
const BUFFER: usize = 256 << 10;
/// How many buffers may be on their way.
const DEPTH: usize = 8;

/// gzip's header without name, time or system: nothing of the machine gets in (RFC 1952 section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Writes one layer to `out`, in `form`: what `fill` puts into the tar, in that order, with every time `mtime`.
///
/// Inflating and checking are this thread's; hashing the tar and writing the gzip are another's.
pub fn splice<W: Write + Send>(
    out: W,
    form: Form,
    mtime: u64,
    fill: impl FnOnce(&mut Splicer) -> Result<(), SpliceError>,
) -> Result<(Spliced, W), SpliceError> {
    std::thread::scope(|scope| {
        let (pieces, incoming) = sync_channel(DEPTH);
        let (spent, buffers) = sync_channel(DEPTH + 2);
        let writer = scope.spawn(move || receive(out, form, &incoming, &spent));
        let filled = Splicer::new(form, mtime, pieces, buffers).and_then(|mut splicer| {
            splicer.landmark()?;
            fill(&mut splicer)?;
            splicer.finish()
        });
        // The writer's own error says more than that it is gone.
        let written = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(SpliceError::Write);
        match (filled, written) {
            (Ok((tar_size, toc)), Ok((diff_id, out))) => {
                let spliced = Spliced {
                    diff_id,
                    tar_size,
                    toc,
                };
                Ok((spliced, out))
            }
            (Err(SpliceError::Write(_)), Err(error)) => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    })
}

/// What goes to the writing thread, in order.
enum Piece {
    Tar(Vec<u8>),
    Gzip(Vec<u8>),
}

/// Hashes the tar and writes the layer until the other side is done.
fn receive<W: Write>(
    out: W,
    form: Form,
    incoming: &Receiver<Piece>,
    spent: &SyncSender<Vec<u8>>,
) -> io::Result<(Digest, W)> {
    let mut tar = Hasher::new();
    let mut sink = Sink::new(out, form)?;
    for piece in incoming {
        let mut buffer = match piece {
            Piece::Tar(bytes) => {
                tar.update(&bytes);
                sink.tar(&bytes)?;
                bytes
            }
            Piece::Gzip(bytes) => {
                sink.gzip(&bytes)?;
                bytes
            }
        };
        buffer.clear();
        // Nobody waits for it: an allocation is all that is lost.
        let _: Result<(), TrySendError<_>> = spent.try_send(buffer);
    }
    Ok((tar.finish(), sink.finish()?))
}

/// Takes the contents of one layer, in the order of its tar.
pub struct Splicer {
    mtime: u64,
    pieces: SyncSender<Piece>,
    buffers: Receiver<Vec<u8>>,
    /// The tar's bytes that were not sent yet.
    tar: Vec<u8>,
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
    inflate: Blocks,
    input: Vec<u8>,
    block: Vec<u8>,
}

impl Splicer {
    fn new(
        form: Form,
        mtime: u64,
        pieces: SyncSender<Piece>,
        buffers: Receiver<Vec<u8>>,
    ) -> Result<Self, SpliceError> {
        let mut gzip = BitWriter::default();
        gzip.raw(&GZIP_HEADER);
        Ok(Self {
            mtime,
            pieces,
            buffers,
            tar: Vec::with_capacity(BUFFER),
            tar_size: 0,
            crc: crc32fast::Hasher::new(),
            member_from: 0,
            gzip,
            gzip_sent: 0,
            toc: (form == Form::Lazy).then(Toc::default),
            encoder: Encoder::new(),
            inflate: Blocks::new(),
            input: Vec::new(),
            block: Vec::new(),
        })
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
        self.send_gzip(BUFFER)
    }

    /// Bytes of the tar that were encoded before.
    fn packed(&mut self, packed: &Packed) -> Result<(), SpliceError> {
        self.encoder.flush(&mut self.gzip);
        self.gzip.align();
        self.gzip.raw(&packed.stream);
        self.crc.update(&packed.content);
        self.tar_bytes(&packed.content)?;
        self.send_gzip(BUFFER)
    }

    /// Bytes of the tar, on their way to its hash.
    fn tar_bytes(&mut self, mut bytes: &[u8]) -> Result<(), SpliceError> {
        self.tar_size += bytes.len() as u64;
        if let Some(toc) = &mut self.toc {
            toc.bytes(bytes);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at((BUFFER - self.tar.len()).min(bytes.len()));
            self.tar.extend_from_slice(now);
            bytes = later;
            if self.tar.len() == BUFFER {
                self.send_tar()?;
            }
        }
        Ok(())
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BUFFER))
    }

    fn send_tar(&mut self) -> Result<(), SpliceError> {
        let fresh = self.buffer();
        let full = std::mem::replace(&mut self.tar, fresh);
        self.send(Piece::Tar(full))
    }

    /// Sends the gzip's whole bytes on, if they are at least `least`.
    fn send_gzip(&mut self, least: usize) -> Result<(), SpliceError> {
        if self.gzip.len() < least {
            return Ok(());
        }
        let fresh = self.buffer();
        let full = self.gzip.take(fresh);
        self.gzip_sent += full.len() as u64;
        self.send(Piece::Gzip(full))
    }

    fn send(&self, piece: Piece) -> Result<(), SpliceError> {
        self.pieces
            .send(piece)
            .map_err(|_| SpliceError::Write(io::ErrorKind::BrokenPipe.into()))
    }

    fn stored<S: ReadAt + ?Sized>(&mut self, source: &S, mut check: ContentCheck<'_>) -> Result<(), Stop> {
        let entry = check.entry();
        self.encoder.flush(&mut self.gzip);
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while at < entry.size {
            let count = BUFFER.min((entry.size - at) as usize);
            input.resize(count, 0);
            read(source, entry, at, &mut input)?;
            at += count as u64;
            check.update(&input).map_err(Stop::Content)?;
            self.gzip.stored(&input);
            self.tar_bytes(&input).map_err(Stop::Write)?;
            self.send_gzip(BUFFER).map_err(Stop::Write)?;
        }
        self.input = input;
        check.finish().map_err(Stop::Content)
    }

    /// Copies an entry's deflate stream, its end cleared.
    fn deflated<S: ReadAt + ?Sized>(&mut self, source: &S, mut check: ContentCheck<'_>) -> Result<(), Stop> {
        let entry = check.entry();
        self.encoder.flush(&mut self.gzip);
        self.gzip.align();
        // A fresh state has nothing before the entry: a distance that reaches there is an error.
        self.inflate.reset();
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        // `input[0]` is this byte of the entry's stream; `read_to` bytes of it were read so far.
        let (mut base, mut read_to) = (0u64, 0u64);
        let mut last = LastBlock::default();
        let end_bit = loop {
            if read_to == entry.compressed_size {
                return Err(Stop::wrong("its deflate stream has no end"));
            }
            let kept = input.len();
            let count = BUFFER.min((entry.compressed_size - read_to) as usize);
            input.resize(kept + count, 0);
            read(source, entry, read_to, &mut input[kept..])?;
            read_to += count as u64;
            last.look(&input, base);

            let ended = self.inflate_all(
                &input[kept..],
                read_to - count as u64,
                &mut check,
                &mut |header| {
                    last.next_header = Some(header);
                    last.look(&input, base);
                },
            )?;
            if let Some(bit) = last.bit.take() {
                input[(bit / 8 - base) as usize] &= !(1 << (bit % 8));
            }
            if let Some(end) = ended {
                break end;
            }
            // The last byte stays: the header of a block may start in it and be found only later.
            let keep = input.len() - 1;
            self.gzip.raw(&input[..keep]);
            input.drain(..keep);
            base += keep as u64;
            self.send_gzip(BUFFER).map_err(Stop::Write)?;
        };
        if end_bit.div_ceil(8) != entry.compressed_size {
            return Err(Stop::wrong("bytes stand behind the end of its deflate stream"));
        }
        let whole = (end_bit / 8 - base) as usize;
        self.gzip.raw(&input[..whole]);
        let over = (end_bit % 8) as u32;
        if over > 0 {
            self.gzip.put(u32::from(input[whole]) & ((1 << over) - 1), over);
        }
        self.input = input;
        self.send_gzip(BUFFER).map_err(Stop::Write)?;
        check.finish().map_err(Stop::Content)
    }

    /// Inflates all of `input`, which starts at byte `offset` of the stream; tells `header` where each next block starts
    /// and answers with the bit at which the stream ends, if it does.
    fn inflate_all(
        &mut self,
        mut input: &[u8],
        mut offset: u64,
        check: &mut ContentCheck<'_>,
        header: &mut dyn FnMut(u64),
    ) -> Result<Option<u64>, Stop> {
        loop {
            let filled = self.tar.len();
            let step = self
                .inflate
                .step(input, &mut self.tar, BUFFER)
                .map_err(Stop::wrong)?;
            check.update(&self.tar[filled..]).map_err(Stop::Content)?;
            self.tar_size += (self.tar.len() - filled) as u64;
            if let Some(toc) = &mut self.toc {
                toc.bytes(&self.tar[filled..]);
            }
            let idle = step.taken == 0 && self.tar.len() == filled && step.boundary.is_none();
            input = &input[step.taken..];
            offset += step.taken as u64;
            if self.tar.len() == BUFFER {
                self.send_tar().map_err(Stop::Write)?;
            } else if idle {
                return Ok(None);
            }
            if let Some(boundary) = step.boundary {
                let bit = 8 * offset - u64::from(boundary.unused_bits);
                if boundary.last {
                    return if input.is_empty() {
                        Ok(Some(bit))
                    } else {
                        Err(Stop::wrong("bytes stand behind the end of its deflate stream"))
                    };
                }
                header(bit);
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

/// Finds the header of the stream's last block: every block's header is looked at as soon as its byte is there.
struct LastBlock {
    /// The bit where the next block starts, not looked at yet.
    next_header: Option<u64>,
    /// The BFINAL bit to clear.
    bit: Option<u64>,
}

impl Default for LastBlock {
    fn default() -> Self {
        Self {
            next_header: Some(0),
            bit: None,
        }
    }
}

impl LastBlock {
    fn look(&mut self, input: &[u8], base: u64) {
        if let Some(bit) = self.next_header
            && let Some(byte) = input.get((bit / 8 - base) as usize)
        {
            self.next_header = None;
            if byte >> (bit % 8) & 1 == 1 {
                self.bit = Some(bit);
            }
        }
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
}

fn read<S: ReadAt + ?Sized>(source: &S, entry: &Entry, at: u64, buffer: &mut [u8]) -> Result<(), Stop> {
    source
        .read_exact_at(buffer, entry.data_offset + at)
        .map_err(|error| Stop::Content(ContentError::Read(error)))
}

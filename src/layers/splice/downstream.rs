//! What becomes of a splicer's two streams, the tar and the gzip: one is hashed, the other written, here or on another thread.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::SpliceError;
use super::sink::Sink;
use crate::deflate::BitWriter;
use crate::digest::{Digest, Hasher};
use crate::inflate::Output;
use crate::layers::recipe::Form;

/// How many buffers may be on their way to the other thread.
const DEPTH: usize = 8;

/// Takes both streams, piece by piece.
pub(super) trait Downstream {
    /// Takes what `tar` holds.
    fn tar(&mut self, tar: &mut Output) -> io::Result<()>;
    /// Takes the whole bytes that `gzip` holds.
    fn gzip(&mut self, gzip: &mut BitWriter) -> io::Result<()>;
}

/// What was made of the streams: the tar's digest, and the writer.
type Written<W> = (Digest, W);

/// Hashes and writes on the thread that does the `work`.
pub(super) fn here<W: Write, T>(
    out: W,
    form: Form,
    work: impl FnOnce(&mut dyn Downstream) -> Result<T, SpliceError>,
) -> Result<(T, Written<W>), SpliceError> {
    let mut here = Here {
        tar: Hasher::new(),
        sink: Sink::new(out, form).map_err(SpliceError::Write)?,
        spare: Vec::new(),
    };
    let done = work(&mut here)?;
    let out = here.sink.finish().map_err(SpliceError::Write)?;
    Ok((done, (here.tar.finish(), out)))
}

struct Here<W: Write> {
    tar: Hasher,
    sink: Sink<W>,
    spare: Vec<u8>,
}

impl<W: Write> Downstream for Here<W> {
    fn tar(&mut self, tar: &mut Output) -> io::Result<()> {
        self.tar.update(tar.bytes());
        self.sink.tar(tar.bytes())?;
        tar.clear();
        Ok(())
    }

    fn gzip(&mut self, gzip: &mut BitWriter) -> io::Result<()> {
        let bytes = gzip.take(std::mem::take(&mut self.spare));
        self.sink.gzip(&bytes)?;
        self.spare = bytes;
        Ok(())
    }
}

/// Hashes and writes on a thread of its own, while this one does the `work`.
pub(super) fn elsewhere<W: Write + Send, T>(
    out: W,
    form: Form,
    work: impl FnOnce(&mut dyn Downstream) -> Result<T, SpliceError>,
) -> Result<(T, Written<W>), SpliceError> {
    std::thread::scope(|scope| {
        let (pieces, incoming) = sync_channel(DEPTH);
        let (spent_tar, tars) = sync_channel(DEPTH + 2);
        let (spent_gzip, gzips) = sync_channel(DEPTH + 2);
        let writer = scope.spawn(move || receive(out, form, &incoming, &spent_tar, &spent_gzip));
        // Dropped before the other thread is waited for: that is how it knows of the end.
        let done = work(&mut Elsewhere { pieces, tars, gzips });
        // The writer's own error says more than that it is gone.
        let written = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(SpliceError::Write);
        match (done, written) {
            (Ok(done), Ok(written)) => Ok((done, written)),
            (Err(SpliceError::Write(_)), Err(error)) => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    })
}

/// What goes to the other thread, in order.
enum Piece {
    Tar(Output),
    Gzip(Vec<u8>),
}

struct Elsewhere {
    pieces: SyncSender<Piece>,
    /// Buffers that are done with.
    tars: Receiver<Output>,
    gzips: Receiver<Vec<u8>>,
}

impl Elsewhere {
    fn send(&self, piece: Piece) -> io::Result<()> {
        self.pieces
            .send(piece)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Downstream for Elsewhere {
    fn tar(&mut self, tar: &mut Output) -> io::Result<()> {
        let full = tar.exchange(self.tars.try_recv().unwrap_or_default());
        self.send(Piece::Tar(full))
    }

    fn gzip(&mut self, gzip: &mut BitWriter) -> io::Result<()> {
        let full = gzip.take(self.gzips.try_recv().unwrap_or_default());
        self.send(Piece::Gzip(full))
    }
}

/// Hashes the tar and writes the layer until the other side is done.
fn receive<W: Write>(
    out: W,
    form: Form,
    incoming: &Receiver<Piece>,
    tars: &SyncSender<Output>,
    gzips: &SyncSender<Vec<u8>>,
) -> io::Result<Written<W>> {
    let mut hasher = Hasher::new();
    let mut sink = Sink::new(out, form)?;
    for piece in incoming {
        // Nobody waits for what goes back: an allocation is all that is lost.
        match piece {
            Piece::Tar(tar) => {
                hasher.update(tar.bytes());
                sink.tar(tar.bytes())?;
                let _: Result<(), TrySendError<_>> = tars.try_send(tar);
            }
            Piece::Gzip(bytes) => {
                sink.gzip(&bytes)?;
                let _: Result<(), TrySendError<_>> = gzips.try_send(bytes);
            }
        }
    }
    Ok((hasher.finish(), sink.finish()?))
}

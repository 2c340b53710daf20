//! A blob's bytes as the body of a request: read by a thread as fast as they leave, never held whole.
//!
//! Takes where the bytes are and which of them to send; gives a body and a [`Watch`] on it. A blob that goes out in one
//! piece is hashed on the way, and its last bytes leave only if it is what it should be. It knows no protocol.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::Body;

use crate::digest::{Digest, Hasher};

/// How much is read at once.
const PIECE: u64 = 256 << 10;

/// Where a blob's bytes are on this machine.
#[derive(Debug, Clone)]
pub(super) enum Content {
    File(PathBuf),
    Memory(Bytes),
}

/// What can be seen of a body from outside.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Grows while the request is alive: the client takes a request that does not for a dead one.
    pub(super) pulse: AtomicU64,
    /// The place in the blob up to which it has left.
    position: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

/// What was wrong on this side of the line.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Corrupt,
}

impl Watch {
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Content {
    fn open(&self, range: &Range<u64>) -> io::Result<Box<dyn Read>> {
        let length = range.end.saturating_sub(range.start);
        Ok(match self {
            Self::File(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(range.start))?;
                Box::new(file.take(length))
            }
            Self::Memory(bytes) => {
                let mut cursor = io::Cursor::new(bytes.clone());
                cursor.set_position(range.start);
                Box::new(cursor.take(length))
            }
        })
    }

    /// Reads all of it once: whether it is what it should be. For blobs that do not go out in one piece.
    pub(super) async fn check(&self, digest: Digest, size: u64) -> Result<(), Fault> {
        let content = self.clone();
        let work = move || read(&content, 0..size, Some(digest), |_| true);
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Fault::Read(io::Error::other(error))),
        }
    }

    /// The bytes of `range` as a body; `whole` is the digest that they must have, where they are all of the blob.
    pub(super) fn body(&self, range: Range<u64>, whole: Option<Digest>, watch: &Arc<Watch>) -> Body {
        let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(4);
        let (content, start) = (self.clone(), range.start);
        let (reading, leaving) = (watch.clone(), watch.clone());
        watch.position.store(start, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || {
            let send = |piece| sender.blocking_send(Ok(piece)).is_ok();
            if let Err(fault) = read(&content, range, whole, send) {
                *reading.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                // Breaks the request: a body that just ended would be one of the wrong length.
                let _ = sender.blocking_send(Err(io::ErrorKind::InvalidData.into()));
            }
        });
        let pieces = futures::stream::unfold(receiver, move |mut receiver| {
            let watch = leaving.clone();
            async move {
                let piece = receiver.recv().await?;
                if let Ok(piece) = &piece {
                    watch.pulse.fetch_add(1, Ordering::Relaxed);
                    watch.position.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                Some((piece, receiver))
            }
        });
        Body::wrap_stream(pieces)
    }
}

/// Hands `range` to `send` piece by piece until it answers that nobody listens any more. With `whole`, the last piece
/// is held back until all of them have that digest.
fn read(
    content: &Content,
    range: Range<u64>,
    whole: Option<Digest>,
    mut send: impl FnMut(Bytes) -> bool,
) -> Result<(), Fault> {
    let mut source = content.open(&range).map_err(Fault::Read)?;
    let mut hasher = Hasher::new();
    let mut left = range.end.saturating_sub(range.start);
    while left > 0 {
        let mut piece = vec![0; left.min(PIECE) as usize];
        source
            .read_exact(&mut piece)
            .map_err(|error| match error.kind() {
                // Shorter than it should be.
                io::ErrorKind::UnexpectedEof => Fault::Corrupt,
                _ => Fault::Read(error),
            })?;
        left -= piece.len() as u64;
        if whole.is_some() {
            hasher.update(&piece);
            if left == 0 && whole != Some(hasher.clone().finish()) {
                return Err(Fault::Corrupt);
            }
        }
        if !send(piece.into()) {
            return Ok(());
        }
    }
    Ok(())
}

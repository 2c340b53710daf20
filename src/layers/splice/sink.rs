//! Where a layer's bytes go: as they were spliced, or the tar compressed again.

use std::io::{self, Write};

use crate::layers::recipe::Form;

/// What is written of the two streams that a splicer makes.
pub(super) enum Sink<W: Write> {
    /// The gzip as it is.
    Gzip(W),
    /// The tar, in one zstd frame. Its checksum would say nothing that the layer's digest does not.
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> Sink<W> {
    pub(super) fn new(out: W, form: Form) -> io::Result<Self> {
        Ok(match form {
            Form::Gzip | Form::Lazy => Self::Gzip(out),
            Form::Zstd { level } => Self::Zstd(Box::new(zstd::Encoder::new(out, level)?)),
        })
    }

    pub(super) fn tar(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(_) => Ok(()),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    pub(super) fn gzip(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(_) => Ok(()),
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(out) => Ok(out),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

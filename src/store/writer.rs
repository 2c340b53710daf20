//! Writing one blob: hashed on its way, kept when it is whole.

use std::io::{self, Seek, SeekFrom, Write};

use super::{Store, StoreError, fault};
use crate::digest::{Digest, Hasher};

/// Writes one blob. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter<'store> {
    pub(super) store: &'store Store,
    pub(super) file: tempfile::NamedTempFile,
    pub(super) hasher: Hasher,
    pub(super) length: u64,
}

impl BlobWriter<'_> {
    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Throws away what was written: a server started the body over.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        let path = self.file.path().to_owned();
        let file = self.file.as_file_mut();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(fault("write", &path))?;
        self.hasher = Hasher::new();
        self.length = 0;
        Ok(())
    }

    /// Keeps what was written; answers with its digest and size in bytes.
    pub fn commit(self) -> Result<(Digest, u64), StoreError> {
        let digest = self.hasher.finish();
        self.store.install(self.file, &digest)?;
        Ok((digest, self.length))
    }

    /// Whether what was written is what was promised. `what` names it in the error.
    pub fn check(&self, what: &str, expected: Digest, size: Option<u64>) -> Result<(), StoreError> {
        let actual = self.hasher.clone().finish();
        if actual != expected || size.is_some_and(|size| size != self.length) {
            return Err(StoreError::Mismatch {
                what: what.to_owned(),
                expected,
                expected_size: size.unwrap_or(self.length),
                actual,
                actual_size: self.length,
            });
        }
        Ok(())
    }

    /// Keeps what was written only if it is what was promised. `what` names it in the error.
    pub fn commit_expected(self, what: &str, expected: Digest, size: Option<u64>) -> Result<(), StoreError> {
        self.check(what, expected, size)?;
        self.store.install(self.file, &expected)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.as_file_mut().write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

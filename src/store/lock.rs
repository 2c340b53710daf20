//! Locks between processes, by name. The kernel holds them, so a holder that crashed blocks nobody.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{Store, StoreError, fault};
use crate::digest::Digest;

/// Held by one process at a time; released when dropped, or when the process dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl Store {
    /// Waits until no other process or thread holds `name`, then holds it until the guard is dropped. Blocks the
    /// thread: call it from blocking code.
    pub fn lock(&self, name: &str) -> Result<StoreLock, StoreError> {
        let (path, file) = self.lock_file(name)?;
        file.lock().map_err(fault("lock", &path))?;
        Ok(StoreLock { _file: file })
    }

    /// Holds `name` if nobody else does; `None` if somebody does.
    pub fn try_lock(&self, name: &str) -> Result<Option<StoreLock>, StoreError> {
        let (path, file) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StoreLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(fault("lock", &path)(error)),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), StoreError> {
        let path = self.root.join("locks").join(Digest::of(name.as_bytes()).hex());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o666)
            .open(&path)
            .map_err(fault("open", &path))?;
        Ok((path, file))
    }
}

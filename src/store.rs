//! The content-addressed cache: blobs by SHA-256, small records by key, and kernel locks between processes.
//!
//! It owns the folder's layout and the promises that everyone relies on: an object appears whole or not at all, is
//! hashed whenever it is read, and is never written twice; a crash at any moment leaves nothing to clean by hand. It
//! does not know what a wheel or a layer is.
//!
//! ```text
//! blobs/sha256/ab/<hex>     0444, content equals its name
//! records/<bucket>/<key>    one JSON value, with its own digest in front
//! locks/<name>              empty; locked by the kernel, so a holder that crashed blocks nobody
//! tmp/                      files being written, on the same filesystem as their destination
//! ```
//!
//! Objects need no fsync: a torn one fails its digest and is remade. The folder's layout carries a version, so that a
//! later mlrails with another layout does not misread this one.

mod lock;
mod stamp;
mod upkeep;
mod writer;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use lock::StoreLock;
pub use stamp::Stamp;
pub use upkeep::{Keep, Usage};
pub use writer::BlobWriter;

use crate::digest::{Digest, Hasher};

/// The version of the folder's layout.
const LAYOUT: &str = "v1";

/// An opened cache folder. Cheap to share between threads; processes share it too.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no folder for the cache: neither MLRAILS_CACHE_DIR, XDG_CACHE_HOME nor HOME is set")]
    NoFolder,
    #[error("cannot {action} {path} in the cache")]
    Io {
        action: &'static str,
        path: String,
        source: io::Error,
    },
    #[error("{what} should be {expected} ({expected_size} bytes) and is {actual} ({actual_size} bytes)")]
    Mismatch {
        what: String,
        expected: Digest,
        expected_size: u64,
        actual: Digest,
        actual_size: u64,
    },
}

fn fault<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io {
        action,
        path: path.display().to_string(),
        source,
    }
}

/// Moves a finished temporary file to where it belongs, over whatever is there.
fn place(file: tempfile::NamedTempFile, path: &Path) -> Result<(), StoreError> {
    let temporary = file.into_temp_path();
    fs::rename(&temporary, path).map_err(fault("write", path))
}

impl Store {
    /// `MLRAILS_CACHE_DIR`, else `mlrails` in the user's cache folder.
    pub fn default_folder() -> Result<PathBuf, StoreError> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        variable("MLRAILS_CACHE_DIR")
            .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("mlrails")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/mlrails")))
            .ok_or(StoreError::NoFolder)
    }

    /// Opens the cache at `folder`, making it where it is missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let root = std::path::absolute(folder)
            .map_err(fault("find", folder))?
            .join(LAYOUT);
        for part in ["blobs/sha256", "records", "locks", "tmp"] {
            let path = root.join(part);
            if !path.is_dir() {
                fs::create_dir_all(&path).map_err(fault("make", &path))?;
            }
        }
        upkeep::sweep(&root.join("tmp"));
        Ok(Self { root })
    }

    /// The folder of this layout version.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// Where a blob is or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// The blob's size if it is here. Says nothing of its content: whoever reads it verifies it.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let data = fs::symlink_metadata(self.blob_path(digest)).ok()?;
        data.is_file().then_some(data.len())
    }

    /// A blob's file, verified by hashing all of it; `None` if it is not here. One whose content is wrong is removed
    /// and reported as not here, so that it is made again.
    pub fn verified(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault("open", &path)(error)),
        };
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(fault("read", &path))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        if hasher.finish() != *digest {
            self.discard(digest)?;
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(fault("read", &path))?;
        Ok(Some(file))
    }

    /// A blob's bytes, verified; `None` if it is not here. For small ones.
    pub fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Ok(_) => {
                self.discard(digest)?;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fault("read", &path)(error)),
        }
    }

    /// Removes a blob, if it is here.
    pub fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Keeps `bytes`; answers with their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.writer()?;
        writer
            .write_all(bytes)
            .map_err(fault("write", &self.root.join("tmp")))?;
        Ok(writer.commit()?.0)
    }

    /// A blob to be written piece by piece, hashed on the way.
    pub fn writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        Ok(BlobWriter {
            store: self,
            file: self.temporary()?,
            hasher: Hasher::new(),
            length: 0,
        })
    }

    /// A temporary file on the cache's filesystem; gone when dropped.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let folder = self.root.join("tmp");
        tempfile::Builder::new()
            .prefix("w-")
            .tempfile_in(&folder)
            .map_err(fault("write", &folder))
    }

    /// A temporary folder on the cache's filesystem; gone when dropped.
    pub fn temporary_folder(&self) -> Result<tempfile::TempDir, StoreError> {
        let folder = self.root.join("tmp");
        tempfile::Builder::new()
            .prefix("d-")
            .tempdir_in(&folder)
            .map_err(fault("make", &folder))
    }

    /// Moves a finished temporary file to the blob `digest`, whose content the caller has just hashed.
    fn install(&self, file: tempfile::NamedTempFile, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(fault("make", folder))?;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o444))
            .map_err(fault("write", file.path()))?;
        // Over an equal blob this is harmless: readers keep the file they opened.
        place(file, &path)
    }

    fn record_path(&self, bucket: &str, key: &str) -> PathBuf {
        debug_assert!(
            bucket
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'/')
        );
        // Keys come from outside (URLs, names): only their digest touches the filesystem.
        self.root
            .join("records")
            .join(bucket)
            .join(Digest::of(key.as_bytes()).hex())
    }

    /// The record `key` of `bucket`; `None` if there is none, or it is damaged, or its shape is another version's.
    pub fn record<T: DeserializeOwned>(&self, bucket: &str, key: &str) -> Option<T> {
        serde_json::from_slice(&self.record_bytes(bucket, key)?).ok()
    }

    /// A record's raw bytes, for formats other than JSON.
    pub fn record_bytes(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let mut file = fs::File::open(self.record_path(bucket, key)).ok()?;
        if file.metadata().ok()?.len() < MAPPED {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).ok()?;
            return sealed(bytes.into());
        }
        // SAFETY: nobody writes into a record: one is replaced by a rename and removed by an unlink, and a mapping outlives both.
        let mapped = unsafe { memmap2::Mmap::map(&file) }.ok()?;
        sealed(Bytes::from_owner(mapped))
    }

    /// Keeps a record, replacing an earlier one whole.
    pub fn keep_record<T: Serialize>(&self, bucket: &str, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Io {
            action: "encode",
            path: format!("{bucket}/{key}"),
            source: io::Error::other(error),
        })?;
        self.keep_record_bytes(bucket, key, &bytes)
    }

    /// Keeps a record's raw bytes, replacing an earlier one whole.
    pub fn keep_record_bytes(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.record_path(bucket, key);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(fault("make", folder))?;
        let mut file = self.temporary()?;
        file.write_all(&seal(bytes))
            .and_then(|()| file.write_all(bytes))
            .map_err(fault("write", &path))?;
        place(file, &path)
    }

    /// Forgets a record.
    pub fn forget_record(&self, bucket: &str, key: &str) {
        let _ = fs::remove_file(self.record_path(bucket, key));
    }

    /// The digests of all blobs, sorted. A file whose name is no digest is not a blob.
    pub fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        self.walk("blobs/sha256", &mut |path, _| {
            found.extend(
                path.file_name()
                    .and_then(|name| Digest::from_hex(name.to_str()?).ok()),
            );
        })?;
        found.sort();
        Ok(found)
    }

    /// All sound records of `bucket`, in no order.
    pub fn records<T: DeserializeOwned>(&self, bucket: &str) -> Result<Vec<T>, StoreError> {
        let mut paths = Vec::new();
        let part = format!("records/{bucket}");
        if self.root.join(&part).exists() {
            self.walk(&part, &mut |path, _| paths.push(path.to_owned()))?;
        }
        let sound = |path: &PathBuf| serde_json::from_slice(&sealed(fs::read(path).ok()?.into())?).ok();
        Ok(paths.iter().filter_map(sound).collect())
    }

    /// Forgets all records of `bucket`.
    pub fn forget_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let path = self.root.join("records").join(bucket);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// Records from this size on are mapped: a solve reads a hundred pages of indexes, and copying them is a third of its work.
const MAPPED: u64 = 64 << 10;

/// The head of a record's file: what shows damage. A record is this machine's own note, of no use to whoever would forge it and as large
/// as an index's page, so it is a CRC and a length, five times as fast as a digest.
fn seal(bytes: &[u8]) -> [u8; 8] {
    let mut seal = [0; 8];
    seal[..4].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    seal[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    seal
}

/// What follows the seal at the head of a record's file, if it is whole.
fn sealed(bytes: Bytes) -> Option<Bytes> {
    let (head, content) = bytes.split_first_chunk::<8>()?;
    (seal(content) == *head).then(|| bytes.slice(8..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn what_killed_processes_left_goes_after_a_day() {
        let (_folder, store) = store();
        let (mine, theirs) = (store.temporary().unwrap(), store.root.join("tmp/w-old"));
        let old = File::create(&theirs).unwrap();
        old.set_modified(std::time::SystemTime::now() - 2 * upkeep::ABANDONED)
            .unwrap();
        Store::open(store.root.parent().unwrap()).unwrap();
        assert!(mine.path().exists() && !theirs.exists());
    }

    #[test]
    fn a_damaged_blob_is_not_there() {
        let (_folder, store) = store();
        let digest = store.put(b"twelve bytes").unwrap();
        assert_eq!(store.read(&digest).unwrap().unwrap(), b"twelve bytes");
        let path = store.blob_path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"twelve bytez").unwrap();
        assert!(store.verified(&digest).unwrap().is_none());
        assert!(!path.exists(), "a wrong blob is removed");
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing() {
        let (_folder, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(store.folder().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_promise_that_is_broken_keeps_nothing() {
        let (_folder, store) = store();
        let mut writer = store.writer().unwrap();
        writer.write_all(b"other").unwrap();
        let error = writer
            .commit_expected("x.whl", Digest::of(b"promised"), Some(8))
            .unwrap_err();
        assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
        assert!(store.blob_size(&Digest::of(b"other")).is_none());
    }

    #[test]
    fn records_round_trip_and_damage_is_absence() {
        let (_folder, store) = store();
        store.keep_record("pages", "k", &vec![1, 2, 3]).unwrap();
        assert_eq!(store.record::<Vec<i32>>("pages", "k"), Some(vec![1, 2, 3]));
        let path = store.record_path("pages", "k");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(store.record::<Vec<i32>>("pages", "k"), None);
    }
}

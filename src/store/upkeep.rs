//! The cache as a folder that grows: how much it holds, and what of it goes.
//!
//! What was used last is what the filesystem says: when a file was last read, as far as it records that (most do once a day), and
//! written at the latest. Nothing here is needed for a build to be right: what is gone is downloaded and made again.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Store, StoreError, fault};

/// What a cache folder holds; sizes in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub blobs: u64,
    pub blob_bytes: u64,
    pub records: u64,
    pub record_bytes: u64,
}

/// What stays when the cache is pruned; both may be said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// What was used within this time.
    pub within: Option<Duration>,
    /// What was used last, up to so many bytes.
    pub bytes: Option<u64>,
}

/// A file of the cache, or an unpacked interpreter's folder, which is of no use in parts.
struct Kept {
    path: PathBuf,
    used: SystemTime,
    size: u64,
}

/// How long a temporary file is nobody's: a download of a day has written something since.
pub(super) const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what processes that were killed left in `tmp`. Failing to costs space alone.
pub(super) fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let Ok(status) = entry.metadata() else { continue };
        let age = status.modified().ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            let path = entry.path();
            let _ = match status.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
        }
    }
}

fn used(data: &Metadata) -> SystemTime {
    let written = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    data.accessed().map_or(written, |read| read.max(written))
}

impl Store {
    /// How much the folder holds.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        self.walk("blobs/sha256", &mut |_, data| {
            usage.blobs += 1;
            usage.blob_bytes += data.len();
        })?;
        self.walk("records", &mut |_, data| {
            usage.records += 1;
            usage.record_bytes += data.len();
        })?;
        Ok(usage)
    }

    /// Removes everything that is kept here. Locks stay: somebody may hold one.
    pub fn clean(&self) -> Result<(), StoreError> {
        for part in ["blobs/sha256", "records", "interpreters", "tmp"] {
            let path = self.root.join(part);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(fault("remove", &path)(error));
                }
                _ => {}
            }
            fs::create_dir_all(&path).map_err(fault("make", &path))?;
        }
        Ok(())
    }

    /// Removes all but what `keep` says, the least recently used first; what is unpacked counts as one. Gives how many went, and
    /// their bytes.
    pub fn prune(&self, keep: &Keep) -> Result<(u64, u64), StoreError> {
        let mut all = self.kept()?;
        all.sort_by(|one, other| (one.used, &one.path).cmp(&(other.used, &other.path)));
        let mut held: u64 = all.iter().map(|one| one.size).sum();
        let now = SystemTime::now();
        let (mut gone, mut freed) = (0, 0);
        for one in &all {
            let age = now.duration_since(one.used).unwrap_or_default();
            let is_old = keep.within.is_some_and(|within| age > within);
            let is_too_much = keep.bytes.is_some_and(|bytes| held > bytes);
            if !is_old && !is_too_much {
                continue;
            }
            let removed = match one.path.is_dir() {
                true => fs::remove_dir_all(&one.path),
                false => fs::remove_file(&one.path),
            };
            match removed {
                // Another process may prune as well.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(fault("remove", &one.path)(error));
                }
                _ => {}
            }
            held -= one.size;
            gone += 1;
            freed += one.size;
        }
        Ok((gone, freed))
    }

    fn kept(&self) -> Result<Vec<Kept>, StoreError> {
        let mut all = Vec::new();
        for part in ["blobs/sha256", "records"] {
            self.walk(part, &mut |path, data| {
                all.push(Kept {
                    path: path.to_owned(),
                    used: used(data),
                    size: data.len(),
                });
            })?;
        }
        let interpreters = self.root.join("interpreters");
        for entry in fs::read_dir(interpreters).into_iter().flatten().flatten() {
            let mut one = Kept {
                path: entry.path(),
                used: SystemTime::UNIX_EPOCH,
                size: 0,
            };
            let part = Path::new("interpreters").join(entry.file_name());
            self.walk(part.to_str().unwrap_or_default(), &mut |_, data| {
                one.used = one.used.max(used(data));
                one.size += data.len();
            })?;
            all.push(one);
        }
        Ok(all)
    }

    pub(super) fn walk(&self, part: &str, found: &mut dyn FnMut(&Path, &Metadata)) -> Result<(), StoreError> {
        let mut folders = vec![self.root.join(part)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(fault("read", &folder))? {
                let entry = entry.map_err(fault("read", &folder))?;
                // Another process may remove what was just listed: that is not this one's error.
                let Ok(data) = entry.metadata() else { continue };
                if data.is_dir() {
                    folders.push(entry.path());
                } else {
                    found(&entry.path(), &data);
                }
            }
        }
        Ok(())
    }
}

//! How a file that the cache placed elsewhere is known again without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// What a file placed by hard link looked like when its content was last hashed. A link shares its inode with the
/// cache, so equal size, inode and modification time mean that nobody has written to it since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Stamp {
    size: u64,
    inode: u64,
    device: u64,
    modified_ns: i128,
}

impl Stamp {
    /// The stamp of `path`, itself not followed; `None` if it is not a regular file.
    pub fn of(path: &Path) -> Option<Self> {
        let data = fs::symlink_metadata(path).ok()?;
        data.is_file().then(|| Self {
            size: data.len(),
            inode: data.ino(),
            device: data.dev(),
            modified_ns: i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()),
        })
    }
}

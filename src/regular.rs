//! Opens files that may be hostile: only regular files, only up to a limit, never blocking; inside a folder where one is named.
//!
//! Takes paths where FIFOs, devices, sockets, sparse terabytes, links that lead out or in circles may stand. Gives their content,
//! or what was found instead. Knows nothing of what the files are for.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;

/// What is there instead of a file that is read.
#[derive(Debug, thiserror::Error)]
pub enum Irregular {
    #[error("it lies outside the project")]
    Outside,
    #[error("it is a symbolic link {0}")]
    Link(&'static str),
    #[error("it is {0}, not a file")]
    Kind(&'static str),
    #[error("it is {0}, not a folder")]
    NotAFolder(&'static str),
    #[error("it is {size} bytes; at most {limit} are read")]
    TooLarge { size: u64, limit: u64 },
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl From<Irregular> for io::Error {
    fn from(irregular: Irregular) -> Self {
        match irregular {
            Irregular::Io(error) => error,
            other => Self::new(ErrorKind::InvalidData, other.to_string()),
        }
    }
}

/// The real path of the regular file `relative` in `root`, which must be absolute and without links. A link to a regular file inside
/// of `root` is followed; one that leads out, in circles or nowhere is refused. `None` if nothing is there.
pub fn locate(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Irregular> {
    let Some(real) = real(root, relative)? else {
        return Ok(None);
    };
    is_regular(&std::fs::metadata(&real).map_err(Irregular::Io)?)?;
    Ok(Some(real))
}

/// As [`locate`], for a folder.
pub fn folder(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Irregular> {
    let Some(real) = real(root, relative)? else {
        return Ok(None);
    };
    let status = std::fs::metadata(&real).map_err(Irregular::Io)?;
    match status.is_dir() {
        true => Ok(Some(real)),
        false => Err(Irregular::NotAFolder(kind(status.file_type()))),
    }
}

fn real(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Irregular> {
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(Irregular::Outside);
    }
    let path = root.join(relative);
    let status = match std::fs::symlink_metadata(&path) {
        Ok(status) => status,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            // What would be made there is made where the folder above it is.
            return match relative.parent().filter(|above| !above.as_os_str().is_empty()) {
                Some(above) => real(root, above).map(|_| None),
                None => Ok(None),
            };
        }
        // A link in circles among the folders on the way.
        Err(error) => return Err(circle(error)),
    };
    // The canonical path also answers for links in the folders on the way.
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if is_circle(&error) => return Err(circle(error)),
        Err(_) if status.is_symlink() => return Err(Irregular::Link("that leads nowhere")),
        Err(error) => return Err(Irregular::Io(error)),
    };
    if !real.starts_with(root) {
        return Err(Irregular::Link("that leads out of the project"));
    }
    Ok(Some(real))
}

fn is_circle(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn circle(error: io::Error) -> Irregular {
    match is_circle(&error) {
        true => Irregular::Link("that leads in circles"),
        false => Irregular::Io(error),
    }
}

/// Opens the regular file at `path`.
pub fn open(path: &Path) -> Result<File, Irregular> {
    // A FIFO opened for reading blocks until someone writes, and opening a device may do things: its kind is asked first. The
    // flags close the gap in which it could be replaced.
    is_regular(&std::fs::metadata(path).map_err(Irregular::Io)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(Irregular::Io)?;
    is_regular(&file.metadata().map_err(Irregular::Io)?)?;
    Ok(file)
}

/// The content of the regular file at `path`, if it has at most `limit` bytes.
pub fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Irregular> {
    let file = open(path)?;
    let size = file.metadata().map_err(Irregular::Io)?.len();
    if size > limit {
        return Err(Irregular::TooLarge { size, limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may grow while it is read.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(Irregular::Io)?;
    let size = bytes.len() as u64;
    if size > limit {
        return Err(Irregular::TooLarge { size, limit });
    }
    Ok(bytes)
}

/// The text of the regular file at `path`, if it has at most `limit` bytes.
pub fn text(path: &Path, limit: u64) -> Result<String, Irregular> {
    String::from_utf8(bytes(path, limit)?).map_err(|_| Irregular::NotUtf8)
}

/// The text of the regular file at `path`, which may be a link, but not one that leads out of its folder. `None` if nothing is there.
pub fn text_beside(path: &Path, limit: u64) -> Result<Option<String>, Irregular> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Irregular::Outside);
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let root = match folder.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Irregular::Io(error)),
    };
    match locate(&root, Path::new(name))? {
        Some(real) => text(&real, limit).map(Some),
        None => Ok(None),
    }
}

/// Fails, rather than ends, after a number of bytes: what ends early looks whole to whoever reads it.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    left: u64,
    rule: &'static str,
}

impl<R> Bounded<R> {
    /// At most `most` bytes of `inner`; more are the error `rule`.
    pub fn new(inner: R, most: u64, rule: &'static str) -> Self {
        Self {
            inner,
            left: most,
            rule,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(self.rule))?;
        Ok(count)
    }
}

fn is_regular(status: &Metadata) -> Result<(), Irregular> {
    if status.is_file() {
        return Ok(());
    }
    Err(Irregular::Kind(kind(status.file_type())))
}

/// What a path is, in words.
pub fn kind(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something unknown"
    }
}

//! Opens the project's files: only regular files, only inside the project, only up to a limit, never blocking.
//!
//! Takes paths that may be hostile: FIFOs, devices, sockets, sparse terabytes, links that lead out or in circles. Gives text with
//! its place, or the [`Mistake`] that says what was found instead.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use super::mistake::{Mistake, Rule};
use super::place::SourceText;

/// The largest TOML or SQL file that is read. Real ones are under 100 KB.
pub const TEXT_LIMIT: u64 = 4 << 20;
/// The largest Python file that is read. The largest modules in the wild are generated, and under 3 MB.
pub const PYTHON_LIMIT: u64 = 8 << 20;
/// The largest record (run.json, files.json) that is read: a hundred wide golden rows are a few MB.
pub const RECORD_LIMIT: u64 = 64 << 20;

/// The text of `relative` inside `root`, which must be absolute and without links. `None` if there is no such file.
pub fn text(root: &Path, relative: &Path, limit: u64) -> Result<Option<Arc<SourceText>>, Mistake> {
    let Some(bytes) = bytes(root, relative, limit)? else {
        return Ok(None);
    };
    match String::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => Ok(Some(SourceText::new(relative, text))),
            Some(at) => {
                let source = SourceText::new(relative, text);
                Err(Mistake::new(Rule::NulByte).at(source.place(at..at + 1)))
            }
        },
        Err(error) => {
            // Shown with replacement characters; the place is exact, for all before it is valid.
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = SourceText::new(relative, text);
            Err(Mistake::new(Rule::NotUtf8).at(source.place(at..at + 3)))
        }
    }
}

/// The bytes of `relative` inside `root`. `None` if there is no such file.
pub fn bytes(root: &Path, relative: &Path, limit: u64) -> Result<Option<Vec<u8>>, Mistake> {
    let Some(path) = locate(root, relative)? else {
        return Ok(None);
    };
    let unreadable = |reason: String| {
        Mistake::new(Rule::Unreadable {
            path: relative.to_path_buf(),
            reason,
        })
    };
    // A FIFO opened for reading blocks until someone writes, and opening a device may do things: its kind is asked first. The
    // flags close the gap in which it could be replaced.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file =
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| unreadable(error.to_string()))?;
    let status = rustix::fs::fstat(&file).map_err(|error| unreadable(error.to_string()))?;
    regular(relative, FileType::from_raw_mode(status.st_mode))?;
    let size = u64::try_from(status.st_size).unwrap_or(0);
    let too_large = |size| {
        Mistake::new(Rule::TooLarge {
            path: relative.to_path_buf(),
            size,
            limit,
        })
    };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    File::from(file)
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(Some(bytes))
}

/// The real path of the regular file `relative` in `root`. A link to a regular file inside the project is followed; one that leads
/// out, in circles or nowhere is a mistake. `None` if nothing is there.
pub fn locate(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Mistake> {
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(Mistake::new(Rule::OutsideProject {
            path: relative.display().to_string(),
        }));
    }
    let path = root.join(relative);
    let status = match std::fs::symlink_metadata(&path) {
        Ok(status) => status,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(Mistake::new(Rule::Unreadable {
                path: relative.to_path_buf(),
                reason: error.to_string(),
            }));
        }
    };
    // The canonical path also answers for links in the folders on the way.
    let link = |why: &str| {
        Mistake::new(Rule::Symlink {
            path: relative.to_path_buf(),
            why: why.to_owned(),
        })
    };
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(link("that leads in circles"));
        }
        Err(_) if status.is_symlink() => return Err(link("that leads nowhere")),
        Err(error) => {
            return Err(Mistake::new(Rule::Unreadable {
                path: relative.to_path_buf(),
                reason: error.to_string(),
            }));
        }
    };
    if !real.starts_with(root) {
        return Err(link("that leads out of the project"));
    }
    let status = std::fs::metadata(&real).map_err(|error| {
        Mistake::new(Rule::Unreadable {
            path: relative.to_path_buf(),
            reason: error.to_string(),
        })
    })?;
    use std::os::unix::fs::MetadataExt;
    regular(relative, FileType::from_raw_mode(status.mode()))?;
    Ok(Some(real))
}

fn regular(relative: &Path, kind: FileType) -> Result<(), Mistake> {
    if kind == FileType::RegularFile {
        return Ok(());
    }
    Err(Mistake::new(Rule::NotAFile {
        path: relative.to_path_buf(),
        kind: kind_name(kind).to_owned(),
    }))
}

pub(super) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        _ => "something unknown",
    }
}

//! Opens the project's files: only regular files, only inside the project, only up to a limit, never blocking.
//!
//! Takes paths that may be hostile: FIFOs, devices, sockets, sparse terabytes, links that lead out or in circles. Gives text with
//! its place, or the [`Mistake`] that says what was found instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mistake::{Mistake, Rule};
use super::place::SourceText;
use crate::regular::{self, Irregular};

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
    let read = regular::bytes(&path, limit);
    read.map(Some).map_err(|irregular| mistake(relative, irregular))
}

/// The real path of the regular file `relative` in `root`. A link to a regular file inside the project is followed; one that leads
/// out, in circles or nowhere is a mistake. `None` if nothing is there.
pub fn locate(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Mistake> {
    regular::locate(root, relative).map_err(|irregular| mistake(relative, irregular))
}

/// The real path of the folder `relative` in `root`; `None` if nothing is there. Links are judged as those of files.
pub fn folder(root: &Path, relative: &Path) -> Result<Option<PathBuf>, Mistake> {
    regular::folder(root, relative).map_err(|irregular| mistake(relative, irregular))
}

fn mistake(relative: &Path, irregular: Irregular) -> Mistake {
    let path = relative.to_path_buf();
    Mistake::new(match irregular {
        Irregular::Outside => Rule::OutsideProject {
            path: relative.display().to_string(),
        },
        Irregular::Link(why) => Rule::Symlink {
            path,
            why: why.to_owned(),
        },
        Irregular::Kind(kind) => Rule::NotAFile {
            path,
            kind: kind.to_owned(),
        },
        Irregular::NotAFolder(kind) => Rule::NotAFolder {
            path,
            kind: kind.to_owned(),
        },
        Irregular::TooLarge { size, limit } => Rule::TooLarge { path, size, limit },
        Irregular::NotUtf8 => Rule::NotUtf8,
        Irregular::Io(error) => Rule::Unreadable {
            path,
            reason: error.to_string(),
        },
    })
}

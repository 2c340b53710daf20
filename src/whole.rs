//! Files that appear whole or not at all, and leave nothing behind when the process is stopped at any moment.
//!
//! The file is written without a name (`O_TMPFILE`) where the filesystem can do that: until it is finished, nobody
//! sees it, and the kernel removes it with the process. Elsewhere it is a named temporary beside its destination, which an
//! interrupt removes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::interrupt;

/// Writes `path` through `fill`. An existing file is replaced only when `fill` has succeeded.
pub fn write<E: From<io::Error>>(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match rustix::fs::open(
        folder,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    ) {
        Ok(descriptor) => {
            let mut file = File::from(descriptor);
            fill(&mut file)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            give_name(&file, folder, path)?;
            Ok(())
        }
        Err(_) => {
            let name = format!(
                "{PREFIX}{}-{}",
                std::process::id(),
                NUMBER.fetch_add(1, Ordering::Relaxed)
            );
            let name = folder.join(name);
            let _unfinished = interrupt::Name::register(&name);
            let finish = || -> Result<(), E> {
                let mut file = File::create_new(&name)?;
                fill(&mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                Ok(fs::rename(&name, path)?)
            };
            finish().inspect_err(|_| {
                let _ = fs::remove_file(&name);
            })
        }
    }
}

/// What names of temporaries begin with; a destination that sweeps knows them by it.
pub const PREFIX: &str = ".mlrails-";

/// Tells the temporaries of one process apart.
static NUMBER: AtomicU64 = AtomicU64::new(1 << 16);

/// A link cannot replace a name, a rename can: a short-lived name in between, and only where the name is taken.
fn give_name(file: &File, folder: &Path, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| rustix::fs::linkat(CWD, open.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        Err(rustix::io::Errno::EXIST) => replace(folder, path, |name| Ok(link(name)?)),
        other => Ok(other?),
    }
}

/// Replaces `path` by what `make` creates under a temporary name in `folder`.
pub fn replace(folder: &Path, path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for attempt in 0..64 {
        let name = folder.join(format!("{PREFIX}{}-{attempt}", std::process::id()));
        let _unfinished = interrupt::Name::register(&name);
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {
                return fs::rename(&name, path).inspect_err(|_| {
                    let _ = fs::remove_file(&name);
                });
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

//! Folders of a run: `.mlrails/run/<name>/` while it lasts, and artifacts/, which is exchanged for a finished one at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde::Serialize;

use super::RunError;
use crate::project::record::{self, FilesRecord, RunRecord};

/// Where runs of the project at `root` keep what they are working on.
pub fn run_folder(root: &Path) -> PathBuf {
    root.join(".mlrails/run")
}

/// One run's folder. It goes when this is dropped; what a killed run left goes when the next one starts.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    pub fn new(root: &Path) -> Result<Self, RunError> {
        let parent = run_folder(root);
        fs::create_dir_all(&parent).map_err(|error| failed("make", &parent, error))?;
        sweep(&parent);
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&parent)
            .map_err(|error| failed("make a folder in", &parent, error))?;
        let path = folder.path().join("lock");
        let lock = File::create(&path).map_err(|error| failed("make", &path, error))?;
        let _ = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let spool = folder.path().join("spool");
        fs::create_dir(&spool).map_err(|error| failed("make", &spool, error))?;
        Ok(Self { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, relative: &Path, content: &[u8]) -> Result<(), RunError> {
        let path = self.folder.path().join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed("make", parent, error))?;
        }
        fs::write(&path, content).map_err(|error| failed("write", &path, error))
    }
}

/// Removes folders whose run is over: nobody holds their lock.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        // A folder without a lock may be one that is being made right now.
        if let Ok(lock) = File::open(entry.path().join("lock"))
            && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes the staged folder artifacts/: with both records, and with the files that people keep there.
pub fn publish(root: &Path, scratch: &Scratch, run: &RunRecord, files: &FilesRecord) -> Result<(), RunError> {
    let target = root.join("artifacts");
    let staged = Path::new("artifacts");
    scratch.write(&staged.join("run.json"), &pretty(run))?;
    scratch.write(&staged.join("files.json"), &pretty(files))?;
    let staged = scratch.path().join(staged);
    let old = record::files(root).ok().flatten().unwrap_or_default();
    let ours = |name: &str| {
        name == "run.json" || name == "files.json" || old.values.values().any(|value| value.file == name)
    };
    if let Ok(entries) = fs::read_dir(&target) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            let kept = staged.join(&name);
            if name.to_str().is_some_and(ours) || kept.exists() {
                continue;
            }
            copy(&entry.path(), &kept).map_err(|error| failed("keep", &entry.path(), error))?;
        }
    }
    exchange(&staged, &target).map_err(|error| failed("replace", &target, error))
}

/// Replaces the record `file` (artifacts/run.json) alone.
pub fn rewrite(root: &Path, file: &str, scratch: &Scratch, run: &RunRecord) -> Result<(), RunError> {
    scratch.write(Path::new("run.json"), &pretty(run))?;
    let target = root.join(file);
    fs::rename(scratch.path().join("run.json"), &target).map_err(|error| failed("replace", &target, error))
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Files and folders as they are; links as links.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if kind.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Puts `new` where `target` is, in one step where the filesystem can; `new` is then the old one, and goes with its folder.
fn exchange(new: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        return fs::rename(new, target);
    }
    match rustix::fs::renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            let aside = new.with_file_name("previous");
            fs::rename(target, &aside)?;
            fs::rename(new, target).inspect_err(|_| {
                let _ = fs::rename(&aside, target);
            })
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> RunError {
    RunError::Files {
        action,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_artifacts_take_the_place_of_old_ones_and_keep_what_people_put_there() {
        let root = tempfile::tempdir().unwrap();
        let artifacts = root.path().join("artifacts");
        fs::create_dir_all(artifacts.join("notes")).unwrap();
        fs::write(artifacts.join("notes/why.md"), "because").unwrap();
        fs::write(artifacts.join("old.joblib"), "old").unwrap();
        fs::write(
            artifacts.join("files.json"),
            r#"{"schema":1,"values":{"old":{"file":"old.joblib","format":"joblib","sha256":"","size":3}}}"#,
        )
        .unwrap();
        let scratch = Scratch::new(root.path()).unwrap();
        scratch.write(Path::new("artifacts/model.json"), b"{}").unwrap();
        publish(
            root.path(),
            &scratch,
            &RunRecord::default(),
            &FilesRecord::default(),
        )
        .unwrap();
        let mut names: Vec<_> = fs::read_dir(&artifacts)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["files.json", "model.json", "notes", "run.json"]);
        assert_eq!(
            fs::read_to_string(artifacts.join("notes/why.md")).unwrap(),
            "because"
        );
        drop(scratch);
        assert_eq!(fs::read_dir(run_folder(root.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Scratch::new(root.path()).unwrap();
        let dead = run_folder(root.path()).join("run-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        let other = Scratch::new(root.path()).unwrap();
        assert!(!dead.exists() && living.path().exists() && other.path().exists());
    }
}

//! What must not outlive an interrupted process: programs it started, names of files it had not finished.
//!
//! Whoever makes one registers it for as long as it lasts. [`end`] ends and removes all of them, and lets nobody begin another:
//! the process exits next. Knows nothing of signals; the command line does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished {
    names: BTreeSet::new(),
    programs: BTreeSet::new(),
    groups: BTreeSet::new(),
});

struct Unfinished {
    names: BTreeSet<PathBuf>,
    /// Process ids, until the programs are waited for.
    programs: BTreeSet<i32>,
    /// Process groups, until their leaders are waited for.
    groups: BTreeSet<i32>,
}

fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends programs and removes names. Nothing can be registered, and so nothing begun or finished, after this.
pub fn end() {
    let unfinished = unfinished();
    for program in &unfinished.programs {
        if let Some(program) = Pid::from_raw(*program) {
            let _ = kill_process(program, Signal::KILL);
        }
    }
    for group in &unfinished.groups {
        if let Some(group) = Pid::from_raw(*group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    for name in &unfinished.names {
        let _ = std::fs::remove_file(name);
    }
    // Held until the process is gone.
    std::mem::forget(unfinished);
}

/// A file that has its name and is not finished.
#[derive(Debug)]
pub struct Name(PathBuf);

impl Name {
    /// Call before the file is made.
    pub fn register(path: &Path) -> Self {
        unfinished().names.insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        unfinished().names.remove(&self.0);
    }
}

/// A program that has no business without this process. Killed and waited for when dropped.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts it.
    pub fn start(command: &mut std::process::Command) -> std::io::Result<Self> {
        // Held while it is born: an interrupt must not miss it.
        let mut unfinished = unfinished();
        let child = command.spawn()?;
        unfinished
            .programs
            .extend(child.id().try_into().ok() as Option<i32>);
        Ok(Self(child))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let mut unfinished = unfinished();
        let _ = self.0.wait();
        if let Ok(id) = i32::try_from(self.0.id()) {
            unfinished.programs.remove(&id);
        }
    }
}

/// A program that starts others: it leads a process group of its own, which is killed whole when this is dropped.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    id: Pid,
}

impl Group {
    /// Starts the leader.
    pub fn start(command: &mut std::process::Command) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;
        // Held while it is born: an interrupt must not miss it.
        let mut unfinished = unfinished();
        let leader = command.process_group(0).spawn()?;
        let id = Pid::from_child(&leader);
        unfinished.groups.insert(id.as_raw_nonzero().get());
        Ok(Self { leader, id })
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.leader
    }

    /// The group's number, which is its leader's.
    pub fn id(&self) -> Pid {
        self.id
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut unfinished = unfinished();
        let _ = kill_process_group(self.id, Signal::KILL);
        let _ = self.leader.wait();
        unfinished.groups.remove(&self.id.as_raw_nonzero().get());
    }
}

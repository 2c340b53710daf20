//! A program that is not trusted to end, to fit into memory or to be alone: run to its end, or until it is too much.
//!
//! Takes a command and its limits; keeps all that it prints in a log of bounded size; gives how it ended. When it is over, well or
//! badly, nothing that it started is left: its process group is killed, and so are those of its descendants that left the group. It
//! is no sandbox: what it does to files and to the network is its own business.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, kill_process_group, prlimit,
    set_child_subreaper, waitpid,
};

use crate::interrupt::Group;

/// What one program, with all that it starts, may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub time: Duration,
    /// Resident, of all its processes together, in bytes.
    pub memory: u64,
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The longest builds of the public index take some twenty minutes.
            time: Duration::from_secs(45 * 60),
            memory: (8 << 30).min(machine_memory() / 4 * 3),
            processes: 512,
        }
    }
}

/// This machine's, in bytes; more than any build uses where it does not say.
fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes << 10)
}

/// What was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    Time(Duration),
    /// The limit, in bytes.
    Memory(u64),
    Processes(usize),
}

impl std::fmt::Display for Excess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) => write!(formatter, "it took longer than {} seconds", time.as_secs()),
            Self::Memory(bytes) => write!(formatter, "it used more than {} MB of memory", bytes >> 20),
            Self::Processes(count) => write!(formatter, "it started more than {count} processes"),
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    Ended(ExitStatus),
    Stopped(Excess),
}

/// Names the descendants of one run to those who look for them: in their environment.
const TOKEN: &str = "MLRAILS_BUILD";
/// How often they are looked at.
const TICK: Duration = Duration::from_millis(40);
/// Of what it prints, the first bytes and the last are kept.
const LOG_HEAD: u64 = 16 << 20;
const LOG_TAIL: usize = 256 << 10;

/// One at a time: processes that lost their parent become ours, and would not say whose they were.
static ONE: Mutex<u64> = Mutex::new(0);

/// Runs `command` with `input` on its standard input, and all that it prints in the file `log`.
pub fn run(command: &mut Command, input: &[u8], log: &Path, limits: &Limits) -> io::Result<End> {
    let mut number = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    *number += 1;
    let token = format!("{}-{}", std::process::id(), *number);
    // Without it, what leaves the group and loses its parent is not found.
    let _ = set_child_subreaper(Pid::from_raw(1));
    let (output, pipe) = io::pipe()?;
    command
        .env(TOKEN, &token)
        .stdin(Stdio::piped())
        .stdout(pipe.try_clone()?)
        .stderr(pipe);
    let mut file = File::create(log)?;
    let mut group = Group::start(command)?;
    // The command holds the pipe's writing end: it is let go, so that the pipe ends with those who print.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, finished) = channel();
    std::thread::spawn(move || {
        let _ = sender.send(keep(output, &mut file));
    });
    let mut tree = Tree::new(group.id(), &token);
    tree.limit(limits);
    // It waits for its input: nothing of the build has run before the limits are set.
    if let Some(mut stdin) = group.child().stdin.take() {
        let _ = stdin.write_all(input);
    }
    let end = watch(&mut group, &mut tree, limits);
    tree.kill();
    let status = group.child().wait();
    drop(group);
    let _ = set_child_subreaper(None);
    settled(&finished)?;
    match end {
        Some(excess) => Ok(End::Stopped(excess)),
        None => Ok(End::Ended(status?)),
    }
}

/// Until it ends by itself (`None`), or is too much.
fn watch(group: &mut Group, tree: &mut Tree, limits: &Limits) -> Option<Excess> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if !matches!(group.child().try_wait(), Ok(None)) {
            return None;
        }
        if started.elapsed() > limits.time {
            return Some(Excess::Time(limits.time));
        }
        let looked = Instant::now();
        let (count, resident) = tree.look();
        if count > limits.processes {
            return Some(Excess::Processes(limits.processes));
        }
        // What forks share is counted for each: only where that is too much it is asked how much is its own.
        if resident > limits.memory && tree.proportional() > limits.memory {
            return Some(Excess::Memory(limits.memory));
        }
        // Looking costs more where many processes are; it shall not cost more than a tenth.
        std::thread::sleep(pause.max(looked.elapsed() * 9));
        pause = (pause * 2).min(TICK);
    }
}

/// Who holds the pipe is dead. Should one of them be past killing (in the kernel's hands), its output is not waited for.
fn settled(finished: &Receiver<io::Result<()>>) -> io::Result<()> {
    match finished.recv_timeout(Duration::from_secs(5)) {
        Ok(kept) => kept,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
    }
}

/// Copies what is printed to its end: what is too much is taken and dropped, so that nobody waits for us.
fn keep(mut output: impl Read, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0u64;
    let mut dropped = 0u64;
    let mut tail: VecDeque<u8> = VecDeque::new();
    loop {
        let count = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut piece = &buffer[..count];
        if written < LOG_HEAD {
            let most = usize::try_from(LOG_HEAD - written)
                .unwrap_or(usize::MAX)
                .min(piece.len());
            // A full disk costs the log, not the build.
            let _ = file.write_all(&piece[..most]);
            written += most as u64;
            piece = &piece[most..];
        }
        tail.extend(piece);
        let over = tail.len().saturating_sub(LOG_TAIL);
        tail.drain(..over);
        dropped += over as u64;
    }
    if dropped > 0 {
        let _ = writeln!(file, "\n[{dropped} bytes are left out here]");
    }
    let (one, other) = tail.as_slices();
    let _ = file.write_all(one).and_then(|()| file.write_all(other));
    Ok(())
}

/// The processes of one run: those of its group, their descendants, and those that carry its token.
struct Tree {
    group: Pid,
    token: Vec<u8>,
    /// With when each began: a number is given out again.
    known: HashSet<(i32, u64)>,
}

/// One line of `/proc/<pid>/stat`.
struct Process {
    parent: i32,
    group: i32,
    began: u64,
    resident_pages: u64,
    is_dead: bool,
}

impl Tree {
    fn new(group: Pid, token: &str) -> Self {
        Self {
            group,
            token: format!("{TOKEN}={token}").into_bytes(),
            known: HashSet::new(),
        }
    }

    /// What the kernel itself can watch: no core dumps, and no address space of many times the memory.
    fn limit(&self, limits: &Limits) {
        let exactly = |value| Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        let _ = prlimit(Some(self.group), Resource::Core, exactly(0));
        // Address space is cheap, and compilers and runtimes reserve plenty of it.
        let space = limits.memory.saturating_mul(4).saturating_add(16 << 30);
        let _ = prlimit(Some(self.group), Resource::As, exactly(space));
    }

    /// How many there are, and what they use, in bytes.
    fn look(&mut self) -> (usize, u64) {
        let all = processes();
        let mine = self.members(&all);
        let living = mine.iter().filter(|id| !all[id].is_dead);
        let page = rustix::param::page_size() as u64;
        let pages: u64 = living.clone().map(|id| all[id].resident_pages).sum();
        (living.count(), pages * page)
    }

    fn members(&mut self, all: &HashMap<i32, Process>) -> Vec<i32> {
        let us = i32::try_from(std::process::id()).unwrap_or(0);
        let mut mine: HashSet<i32> = HashSet::new();
        for (id, process) in all {
            let is_orphan = || process.parent == us && carries(*id, &self.token);
            if process.group == self.group.as_raw_nonzero().get()
                || self.known.contains(&(*id, process.began))
                || is_orphan()
            {
                mine.insert(*id);
            }
        }
        // Children of children, however deep.
        loop {
            let more: Vec<i32> = all
                .iter()
                .filter(|(id, process)| mine.contains(&process.parent) && !mine.contains(*id))
                .map(|(id, _)| *id)
                .collect();
            if more.is_empty() {
                break;
            }
            mine.extend(more);
        }
        self.known.extend(mine.iter().map(|id| (*id, all[id].began)));
        mine.into_iter().collect()
    }

    /// Their memory with shared pages divided among those who share, in bytes.
    fn proportional(&mut self) -> u64 {
        let all = processes();
        let of = |id: &i32| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
            Some(kilobytes << 10)
        };
        self.members(&all).iter().filter_map(of).sum()
    }

    /// Kills all of them, until a look finds none that lives.
    fn kill(&mut self) {
        for _ in 0..500 {
            let _ = kill_process_group(self.group, Signal::KILL);
            let all = processes();
            let mut living = false;
            for id in self.members(&all) {
                let Some(process) = Pid::from_raw(id) else {
                    continue;
                };
                if !all[&id].is_dead {
                    living = true;
                    let _ = kill_process(process, Signal::KILL);
                } else if process != self.group {
                    // Orphans are ours to wait for; of others the kernel says that they are not.
                    let _ = waitpid(Some(process), WaitOptions::NOHANG);
                }
            }
            if !living {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn processes() -> HashMap<i32, Process> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let read = fs::read(format!("/proc/{id}/stat")).ok();
        found.extend(read.and_then(|bytes| Some((id, process(&bytes)?))));
    }
    found
}

/// Source: proc_pid_stat(5). The name, in parentheses, may hold any byte.
fn process(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    Some(Process {
        is_dead: matches!(*fields.first()?, "Z" | "X" | "x"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        began: fields.get(19)?.parse().ok()?,
        resident_pages: fields.get(21)?.parse().unwrap_or(0),
    })
}

fn carries(id: i32, token: &[u8]) -> bool {
    fs::read(format!("/proc/{id}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|line| line == token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limits: Limits) -> (End, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let end = run(&mut command, b"input\n", &log, &limits).unwrap();
        (end, fs::read_to_string(log).unwrap())
    }

    #[test]
    fn what_it_reads_prints_and_ends_with() {
        let (end, log) = sh("read line; echo $line; echo error >&2; exit 3", Limits::default());
        assert!(
            matches!(end, End::Ended(status) if status.code() == Some(3)),
            "{end:?}"
        );
        assert_eq!(log, "input\nerror\n");
    }

    #[test]
    fn what_it_leaves_behind_is_killed_outside_of_its_group_too() {
        let token = format!("sleep 10{}", std::process::id());
        let script = format!("setsid {token} & {token} & exit 0");
        let (end, _) = sh(&script, Limits::default());
        assert!(matches!(end, End::Ended(status) if status.success()));
        let left = processes().into_keys().filter(|id| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(&token)
        });
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_is_no_field() {
        let stat = b"7 (a) b (c) S 1 5 5 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 99 1000 12 0 0";
        let found = process(stat).unwrap();
        assert_eq!((found.parent, found.group, found.began), (1, 5, 99));
        assert_eq!(found.resident_pages, 12);
    }
}

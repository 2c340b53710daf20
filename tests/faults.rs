//! A disk that fails, and a process that dies, at the n-th change of a file of a cold build: the next build is none the wiser.
//!
//! `faults.c` stands before libc's functions that change files. How many changes a build makes is counted first; the moments that are
//! tried are spread over them.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::support::driver::Mlrails;
use crate::support::driver::repository;
use crate::support::road::{Road, road};
use crate::support::store::amount;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// `faults.c`, compiled.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&made)
            .arg(repository("tests/faults.c"))
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(compiled.success());
        made
    })
}

/// A cold build, on a cache of its own.
struct Cold<'road> {
    road: &'road Road,
    scratch: tempfile::TempDir,
    project: PathBuf,
}

impl<'road> Cold<'road> {
    fn new(road: &'road Road) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        Self {
            road,
            scratch,
            project,
        }
    }

    fn image(&self) -> Mlrails {
        self.command(&["image", "--no-bytecode"])
    }

    fn command(&self, words: &[&str]) -> Mlrails {
        let cache = self.scratch.path().join("cache");
        self.road.on(&self.project, words).env("MLRAILS_CACHE_DIR", cache)
    }

    /// Builds with the fault at the `at`-th change; `None`: the process dies of it.
    fn fails(&self, at: u64, error: Option<i32>) -> Output {
        let command = self
            .image()
            .env("LD_PRELOAD", shim())
            .env("FAULT_ONLY", "mlrails")
            .env("FAULT_AT", at.to_string())
            .env("FAULT_ERRNO", error.unwrap_or(0).to_string())
            .env("FAULT_COUNT", self.scratch.path().join("count"));
        let mut command = command.into_command();
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// How many changes such a build makes, and the digest of what comes out.
    fn counts(road: &Road) -> &'static (u64, String) {
        static COUNTS: OnceLock<(u64, String)> = OnceLock::new();
        COUNTS.get_or_init(|| {
            let cold = Cold::new(road);
            let output = cold.fails(0, None);
            assert!(output.status.success(), "{}", said(&output));
            let count = std::fs::read_to_string(cold.scratch.path().join("count")).unwrap();
            (count.parse().unwrap(), text(&output.stdout))
        })
    }

    /// Nothing is damaged, and the same image comes out without anything being cleaned by hand.
    fn recovers(&self, digest: &str, moment: &str) {
        self.command(&["cache", "verify"]).run().expect(0);
        let outcome = self.image().run().expect(0);
        assert_eq!(outcome.stdout.trim(), digest, "{moment}");
        let layout = self.project.join("dist/churn");
        for folder in [layout.clone(), layout.join("blobs/sha256"), self.project.clone()] {
            let names = std::fs::read_dir(&folder).unwrap();
            let strays: Vec<_> = names
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().starts_with(".tmp"))
                .collect();
            assert!(strays.is_empty(), "{moment}: {strays:?} in {}", folder.display());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn said(output: &Output) -> String {
    format!("{}: {}", output.status, text(&output.stderr))
}

/// `count` moments of `changes`, none of them the last ones: builds differ by a few changes in what their threads do first.
fn moments(changes: u64, count: u64) -> impl Iterator<Item = u64> {
    let last = changes * 95 / 100;
    (0..count).map(move |at| 1 + (2 * at + 1) * (last - 1) / (2 * count))
}

#[test]
fn a_build_that_is_killed_at_any_change_is_forgotten() {
    let Some(road) = road("builds that are killed at the n-th change of a file", &[]) else {
        return;
    };
    let (changes, digest) = Cold::counts(road);
    let count = u64::from(amount(2, 200));
    let mut killed = 0;
    for at in moments(*changes, count) {
        let cold = Cold::new(road);
        let output = cold.fails(at, None);
        let was_killed = output.status.signal() == Some(9);
        killed += u64::from(was_killed);
        assert!(
            was_killed || text(&output.stdout) == *digest,
            "{at}: {}",
            said(&output)
        );
        cold.recovers(digest, &format!("killed at {at} of {changes}"));
    }
    let _ = writeln!(
        std::io::stderr(),
        "{killed} of {count} builds were killed before their end, of {changes} changes"
    );
    assert!(killed * 4 >= count * 3, "{killed} of {count}");
}

#[test]
fn a_disk_that_fails_at_any_change_is_told() {
    let Some(road) = road("disks that fail at the n-th change of a file", &[]) else {
        return;
    };
    let (changes, digest) = Cold::counts(road);
    let mut told = 0;
    for (error, words) in [(ENOSPC, "No space left on device"), (EIO, "Input/output error")] {
        for at in moments(*changes, u64::from(amount(1, 100))) {
            let cold = Cold::new(road);
            let output = cold.fails(at, Some(error));
            let stderr = text(&output.stderr);
            assert!(!stderr.contains("panicked"), "{at}: {stderr}");
            match output.status.code() {
                // What only makes the next build slower stops none.
                Some(0) => assert_eq!(text(&output.stdout), *digest, "{at}"),
                Some(3) => {
                    told += 1;
                    assert!(stderr.contains(words), "{at}: {stderr}");
                }
                _ => panic!("{at} of {changes}: {}", said(&output)),
            }
            cold.recovers(digest, &format!("error {error} at {at} of {changes}"));
        }
    }
    let _ = writeln!(std::io::stderr(), "{told} builds said so, of {changes} changes");
    assert!(told > 0);
}

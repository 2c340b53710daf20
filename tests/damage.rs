//! A cache whose files were damaged: the next build gives the same image, and nothing has to be cleaned by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::driver::Mlrails;
use crate::support::road::{Road, road};
use crate::support::store::amount;

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit in the middle.
    Flipped,
    /// The second half is gone.
    Truncated,
    Emptied,
    /// As long as before, and nothing in it.
    Zeroed,
}

const ALL: [Damage; 4] = [
    Damage::Flipped,
    Damage::Truncated,
    Damage::Emptied,
    Damage::Zeroed,
];

impl Damage {
    fn done_to(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::Flipped if bytes.is_empty() => {}
            Self::Flipped => bytes[middle] ^= 16,
            Self::Truncated => bytes.truncate(middle),
            Self::Emptied => bytes.clear(),
            Self::Zeroed => bytes.fill(0),
        }
        let mode = fs::metadata(path).unwrap().permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A project with a cache of its own that has everything.
struct Bench {
    road: &'static Road,
    scratch: tempfile::TempDir,
    project: PathBuf,
}

impl Bench {
    fn new(what: &str) -> Option<Self> {
        let road = road(what, &[])?;
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        let bench = Self {
            road,
            scratch,
            project,
        };
        bench.builds("with an empty cache");
        Some(bench)
    }

    fn cache(&self) -> PathBuf {
        self.scratch.path().join("cache/v1")
    }

    fn command(&self, words: &[&str]) -> Mlrails {
        let command = self.road.on(&self.project, words);
        command.env("MLRAILS_CACHE_DIR", self.scratch.path().join("cache"))
    }

    #[track_caller]
    fn builds(&self, after: &str) {
        let _ = fs::remove_dir_all(self.project.join("dist"));
        let outcome = self.command(&["image"]).run();
        assert_eq!(outcome.code, 0, "{after}: {}", outcome.stderr);
        assert_eq!(outcome.stdout.trim(), self.road.digest(), "{after}");
    }

    /// Files below `part` of the cache, in the order of their names.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.cache().join(part)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path),
                }
            }
        }
        found.sort();
        found
    }

    /// The kinds of records there are.
    fn buckets(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.cache().join("records"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn damaged_records_are_made_again() {
    let Some(bench) = Bench::new("damaged records in the cache") else {
        return;
    };
    let buckets = bench.buckets();
    assert!(buckets.len() > 4, "{buckets:?}");
    for (number, bucket) in buckets.iter().enumerate() {
        for damage in ALL.iter().cycle().skip(number).take(amount(1, 4) as usize) {
            for path in bench.files(&format!("records/{bucket}")) {
                damage.done_to(&path);
            }
            bench.builds(&format!("{bucket} {damage:?}"));
        }
    }
}

#[test]
fn damaged_blobs_are_fetched_and_made_again() {
    let Some(bench) = Bench::new("damaged blobs in the cache") else {
        return;
    };
    // All of them, and then by turns, so that what is damaged stands beside what is not.
    for (step, damage) in [
        (1, Damage::Flipped),
        (2, Damage::Truncated),
        (3, Damage::Zeroed),
        (2, Damage::Emptied),
    ] {
        for path in bench.files("blobs/sha256").iter().step_by(step) {
            damage.done_to(path);
        }
        bench.builds(&format!("every blob of {step} {damage:?}"));
    }
    let blobs = bench.files("blobs/sha256");
    for (number, path) in blobs.iter().enumerate().take(amount(0, 1000) as usize) {
        let damage = ALL[number % ALL.len()];
        if path.exists() {
            damage.done_to(path);
            bench.builds(&format!("{} {damage:?}", path.display()));
        }
    }
    // What no build reads may still be there, damaged; whoever looks finds it once.
    bench.command(&["cache", "verify"]).run();
    bench.command(&["cache", "verify"]).run().expect(0);
    bench.builds("checked");
}

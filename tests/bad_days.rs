//! Disks that are full, homes that are missing, caches on another disk, and many builds at once.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::lock::asks_for_a;
use crate::support::driver::{Mlrails, Outcome, copy_of};
use crate::support::index::Shelf;
use crate::support::road::road;
use crate::support::store::{amount, covered, is_root};

/// Runs `command` with files of at most `blocks` × 512 bytes, as a disk that is full.
fn limited(command: Mlrails, blocks: u32) -> Outcome {
    let command = command.into_command();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let output = shell.output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let Some(road) = road("images on a full disk", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let cache = scratch.path().join("cache");
    let command = |words: &[&str]| road.on(&project, words).env("MLRAILS_CACHE_DIR", &cache);
    for blocks in [20_000, 0, 64, 4_000].into_iter().take(amount(2, 4) as usize) {
        let outcome = limited(command(&["image"]), blocks).expect(3).says(&["hint: "]);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("File too large") || outcome.stderr.contains("os error 27"),
            "{}",
            outcome.stderr
        );
        assert!(!project.join("dist/churn/index.json").exists());
        command(&["cache", "verify"]).run().expect(0);
    }
    let outcome = command(&["image"]).run().expect(0);
    assert_eq!(outcome.stdout.trim(), road.digest());
}

#[test]
fn a_lock_that_cannot_be_written_leaves_the_old_one() {
    let server = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("b", "1.0", &[])
        .serve();
    let bench = asks_for_a();
    bench.lock(&server, &[]).expect(0);
    let before = std::fs::read(bench.path("pylock.toml")).unwrap();
    bench.write("dependencies = [\"a\", \"b\"]");
    let command = || bench.command(&["lock", "--index-url", &server.index()]);
    limited(command(), 0).expect(3);
    assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), before);
    let names: Vec<_> = std::fs::read_dir(bench.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    command().run().expect(0);
}

#[test]
fn without_a_home_it_works_or_says_so_in_one_line() {
    let scratch = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/shadow", scratch.path());
    let homeless = |words: &[&str]| {
        let mut command = Mlrails::new(scratch.path())
            .project(&project)
            .args(words)
            .into_command();
        for name in ["HOME", "MLRAILS_CACHE_DIR", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command
    };
    assert!(homeless(&["check"]).output().unwrap().status.success());
    let output = homeless(&["lock"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("MLRAILS_CACHE_DIR") && said.lines().count() <= 3,
        "{said}"
    );
    let output = homeless(&["lock"]).env("HOME", "/proc/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("MLRAILS_CACHE_DIR") && said.lines().count() <= 3,
        "{said}"
    );
}

/// Temporary files are elsewhere than the cache: what moves between them is copied, and appears whole all the same.
#[test]
fn the_cache_and_temporary_files_on_two_disks() {
    let (one, other) = (Path::new("/dev/shm"), Path::new("/tmp"));
    let is_there = |path: &Path| rustix::fs::stat(path).map(|status| status.st_dev).ok();
    if is_there(one).is_none() || is_there(one) == is_there(other) {
        covered("a cache on another disk", &["a second/disk"]);
        return;
    }
    let Some(road) = road("a cache on another disk", &[]) else {
        return;
    };
    for (cache, temporary) in [(one, other), (other, one)]
        .into_iter()
        .take(amount(1, 2) as usize)
    {
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        let cache = tempfile::tempdir_in(cache).unwrap();
        let temporary = tempfile::tempdir_in(temporary).unwrap();
        let image = road
            .on(&project, &["image"])
            .env("MLRAILS_CACHE_DIR", cache.path())
            .env("TMPDIR", temporary.path());
        assert_eq!(image.run().expect(0).stdout.trim(), road.digest());
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[test]
fn many_builds_at_once_on_one_cache() {
    let Some(road) = road("many builds at once", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let cache = scratch.path().join("cache");
    let builds: Vec<_> = (0..amount(3, 64))
        .map(|number| {
            let folder = scratch.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let project = road.copy(&folder);
            let mut command = road
                .on(&project, &["image"])
                .env("MLRAILS_CACHE_DIR", &cache)
                .into_command();
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), road.digest());
    }
    let verified = Mlrails::new(scratch.path()).args(["cache", "verify"]);
    verified.env("MLRAILS_CACHE_DIR", &cache).run().expect(0);
}

/// A home that cannot be written to: the cache is elsewhere, or one line says so.
#[test]
fn a_home_that_is_read_only() {
    if !is_root() {
        covered("a read-only home, as another user", &["root"]);
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        scratch.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o555),
    )
    .unwrap();
    let project = tempfile::tempdir().unwrap();
    let project = copy_of("fixtures/shadow", project.path());
    let command = Mlrails::new(scratch.path())
        .project(&project)
        .args(["lock"])
        .into_command();
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    other
        .env("HOME", scratch.path())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = other.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().count() <= 3, "{said}");
}

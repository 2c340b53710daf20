//! What a build may not do: go on for ever, take the machine's memory or processes, fill the disk with words, see secrets, outlive its
//! command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::builds::Site;
use crate::support::driver::Outcome;
use crate::support::index::Shelf;
use crate::support::sdists::in_tree;

/// Locks a project whose build does `script` in its first hook, within limits.
fn misbehaving(script: &str, limits: &[(&str, &str)]) -> (Site, Outcome) {
    let site = Site::new("\"thing\"");
    let thing = in_tree("thing", "1.0", &[("before.py", script)]);
    let server = Shelf::default().file("thing", "thing-1.0.tar.gz", thing).serve();
    let mut command = site
        .bench
        .command(&["lock"])
        .env("UV_DEFAULT_INDEX", server.index());
    for (name, value) in limits {
        command = command.env(name, value);
    }
    let outcome = command.run();
    (site, outcome)
}

/// Processes whose command line or environment names this folder.
fn left(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.path().join("exe").exists() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&folder) {
                found.push(line);
            }
        }
    }
    found
}

#[test]
fn a_build_that_does_not_end_is_ended() {
    let (site, outcome) = misbehaving("while True: pass\n", &[("MLRAILS_BUILD_SECONDS", "1")]);
    outcome.expect(1).says(&[
        "cannot build thing-1.0.tar.gz",
        "stopped in get_requires_for_build_wheel: it took longer than 1 seconds",
        "hint: MLRAILS_BUILD_SECONDS",
    ]);
    assert_eq!(left(&site.bench.home()), Vec::<String>::new());
    assert!(!site.bench.path("pylock.toml").exists());
}

#[test]
fn a_build_that_takes_all_memory_is_ended() {
    // Ten gigabytes, one hundred megabytes at a time and written to; in a child, and by itself.
    let alone = "held = []\nfor _ in range(100): held.append(b'x' * (100 << 20))\n";
    let forked = format!(
        "import os\nif os.fork() == 0:\n    {}\nos.wait()\n",
        alone.replace('\n', "\n    ")
    );
    for script in [alone, &forked] {
        let (site, outcome) = misbehaving(script, &[("MLRAILS_BUILD_MEMORY_MB", "400")]);
        outcome.expect(1).says(&[
            "it used more than 400 MB of memory",
            "hint: MLRAILS_BUILD_MEMORY_MB",
        ]);
        assert_eq!(left(&site.bench.home()), Vec::<String>::new());
    }
}

#[test]
fn a_build_that_forks_without_end_is_ended() {
    // It would end by itself at two hundred: a test shall not take its machine down.
    let bomb = "import os, time\nfor _ in range(200):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n        os._exit(0)\ntime.sleep(600)\n";
    let (site, outcome) = misbehaving(bomb, &[("MLRAILS_BUILD_PROCESSES", "40")]);
    outcome.expect(1).says(&[
        "it started more than 40 processes",
        "hint: MLRAILS_BUILD_PROCESSES",
    ]);
    assert_eq!(left(&site.bench.home()), Vec::<String>::new());
}

#[test]
fn what_a_build_prints_is_kept_within_bounds() {
    let flood = "line = 'x' * 1023\nfor _ in range(1 << 20): print(line)\nprint('the last words')\nraise RuntimeError('no compiler')\n";
    let (site, outcome) = misbehaving(flood, &[]);
    outcome.expect(1).says(&[
        "its build failed in get_requires_for_build_wheel: RuntimeError: no compiler",
        "Traceback (most recent call last)",
        "hint: all that it printed is in ",
    ]);
    let logs: Vec<PathBuf> = fs::read_dir(site.bench.home().join("cache/v1/tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let log = fs::read(&logs[0]).unwrap();
    assert!(log.len() < 17 << 20, "{}", log.len());
    let text = String::from_utf8(log).unwrap();
    assert!(text.contains("bytes are left out here") && text.contains("the last words"));
}

#[test]
fn a_build_sees_no_secrets_and_no_python_of_ours() {
    let site = Site::new("\"thing\"");
    let told = site.scratch.path().join("told");
    let script = format!(
        "import os, json, sys\njson.dump([dict(os.environ), sys.path], open({:?}, 'w'))\n",
        told.display().to_string()
    );
    let server = Shelf::default()
        .file(
            "thing",
            "thing-1.0.tar.gz",
            in_tree("thing", "1.0", &[("before.py", &script)]),
        )
        .serve();
    site.bench
        .command(&["lock"])
        .env("UV_DEFAULT_INDEX", server.index())
        .env("PYTHONPATH", "/evil")
        .env("PIP_INDEX_URL", "http://user:secret@localhost/")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("SSL_CERT_DIR", "/etc/ssl/certs")
        .run()
        .expect(0);
    let told: serde_json::Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    let environment = told[0].as_object().unwrap();
    assert!(!told.to_string().contains("secret") && !told.to_string().contains("/evil"));
    for gone in [
        "PYTHONPATH",
        "PIP_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "MLRAILS_CACHE_DIR",
    ] {
        assert!(!environment.contains_key(gone), "{gone}");
    }
    let home = environment["HOME"].as_str().unwrap();
    assert_ne!(Path::new(home), site.bench.home());
    assert!(!Path::new(home).exists(), "thrown away");
    assert_eq!(environment["NO_PROXY"], "localhost,127.0.0.1");
    assert_eq!(environment["SSL_CERT_DIR"], "/etc/ssl/certs");
}

#[test]
fn a_stopped_command_leaves_no_build_behind() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let site = Site::new("\"thing\"");
        let told = site.scratch.path().join("told");
        // It says which process it is, and goes on for ever.
        let script = format!(
            "import os\nopen({0:?} + '.new', 'w').write(str(os.getpid()))\nos.rename({0:?} + '.new', {0:?})\nwhile True: pass\n",
            told.display().to_string()
        );
        let server = Shelf::default()
            .file(
                "thing",
                "thing-1.0.tar.gz",
                in_tree("thing", "1.0", &[("before.py", &script)]),
            )
            .serve();
        let mut command = site
            .bench
            .command(&["lock"])
            .env("UV_DEFAULT_INDEX", server.index())
            .into_command();
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !told.exists() {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it was stopped"
            );
            std::thread::yield_now();
        }
        let build: i32 = fs::read_to_string(&told).unwrap().parse().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
        let build = Pid::from_raw(build).unwrap();
        // The kernel ends it at its own time; a zombie is nobody's burden but init's.
        while test_kill_process(build).is_ok() && !is_dead(build) {
            std::thread::yield_now();
        }
        assert!(!site.bench.path("pylock.toml").exists());
    }
}

fn is_dead(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

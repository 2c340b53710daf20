//! One project, one digest: whatever the machine, the day, the folder, and what is in the cache. docs/reproducibility.md says what counts.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::driver::repository;
use crate::support::peers::succeeds;
use crate::support::road::{Road, road};

/// One way in which a machine differs from another.
#[derive(Default)]
struct Circumstances {
    folder: &'static str,
    /// Has the words of the command behind it.
    through: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Years from now.
    years: i64,
    /// The road's cache instead of an empty one, and no network.
    warm_and_offline: bool,
    /// Files come to be in the reverse of their order, so that folders list them otherwise.
    backwards: bool,
}

/// Copies `from` file by file: in one order or in the other.
fn copy(from: &Path, to: &Path, backwards: bool) {
    std::fs::create_dir_all(to).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "dist")
        .collect();
    names.sort();
    if backwards {
        names.reverse();
    }
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy(&source, &target, backwards);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

/// `clock.c`, compiled.
fn clock(scratch: &Path) -> PathBuf {
    let made = scratch.join("clock.so");
    succeeds(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&made)
            .arg(repository("tests/clock.c"))
            .arg("-ldl"),
    );
    made
}

/// The digest of the image under these circumstances.
fn built(road: &Road, scratch: &Path, circumstances: &Circumstances) -> String {
    let folder = scratch.join(circumstances.folder);
    let project = folder.join("project");
    copy(&road.project, &project, circumstances.backwards);
    let words: &[&str] = match circumstances.warm_and_offline {
        true => &["--offline", "image"],
        false => &["image"],
    };
    let mut mlrails = road.on(&project, words);
    if !circumstances.warm_and_offline {
        mlrails = mlrails
            .env("MLRAILS_CACHE_DIR", folder.join("cache"))
            .env("HOME", &folder);
    }
    for (name, value) in circumstances.environment {
        mlrails = mlrails.env(name, value);
    }
    if circumstances.years != 0 {
        mlrails = mlrails
            .env("LD_PRELOAD", clock(scratch))
            .env("CLOCK_AHEAD", (circumstances.years * 31_557_600).to_string());
    }
    let inner = mlrails.into_command();
    let mut command = match circumstances.through {
        [] => Command::new(inner.get_program()),
        [program, words @ ..] => {
            let mut command = Command::new(program);
            command.args(words).arg(inner.get_program());
            command
        }
    };
    command.args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    succeeds(&mut command).trim().to_owned()
}

#[test]
fn a_digest_depends_on_nothing_but_the_project() {
    let Some(road) = road("one digest under many circumstances", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let matrix = [
        Circumstances {
            folder: "a/folder that is/ünlike the others",
            through: &["sh", "-c", "umask 077; exec \"$@\"", "sh"],
            environment: &[
                ("TZ", "Pacific/Auckland"),
                ("LC_ALL", "tr_TR.UTF-8"),
                ("LANG", "tr_TR.UTF-8"),
                ("RAYON_NUM_THREADS", "1"),
            ],
            years: 10,
            backwards: true,
            ..Circumstances::default()
        },
        Circumstances {
            folder: "b",
            through: &["sh", "-c", "umask 000; exec \"$@\"", "sh"],
            environment: &[
                ("TZ", "America/Bogota"),
                ("RAYON_NUM_THREADS", "7"),
                ("LC_ALL", "C"),
            ],
            years: -10,
            ..Circumstances::default()
        },
        Circumstances {
            folder: "c",
            through: &["taskset", "-c", "0"],
            warm_and_offline: true,
            backwards: true,
            ..Circumstances::default()
        },
    ];
    for circumstances in &matrix {
        let digest = built(road, scratch.path(), circumstances);
        assert_eq!(digest, road.digest(), "{}", circumstances.folder);
    }
}

#[test]
fn a_date_that_is_asked_for_is_in_the_digest() {
    let Some(road) = road("digests with SOURCE_DATE_EPOCH", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let dated = |folder, environment| Circumstances {
        folder,
        environment,
        warm_and_offline: true,
        ..Circumstances::default()
    };
    let one = built(
        road,
        scratch.path(),
        &dated("one", &[("SOURCE_DATE_EPOCH", "1700000000")]),
    );
    let again = built(
        road,
        scratch.path(),
        &dated(
            "again",
            &[("SOURCE_DATE_EPOCH", "1700000000"), ("TZ", "Asia/Tokyo")],
        ),
    );
    let other = built(
        road,
        scratch.path(),
        &dated("other", &[("SOURCE_DATE_EPOCH", "1700000001")]),
    );
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert_ne!(one, road.digest());
}

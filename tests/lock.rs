//! `mlrails lock` against an index on loopback: what it writes, when it solves, what it asks for.

use mlrails::lock::Lock;

use crate::support::debian::{file, gzip, tarball};
use crate::support::driver::{Mlrails, Outcome};
use crate::support::index::{Server, Shelf};

/// A project and a home of its own.
pub struct Bench {
    home: tempfile::TempDir,
    project: tempfile::TempDir,
}

impl Bench {
    pub fn new(pyproject: &str) -> Self {
        let bench = Self {
            home: tempfile::tempdir().unwrap(),
            project: tempfile::tempdir().unwrap(),
        };
        bench.write(pyproject);
        bench
    }

    pub fn write(&self, pyproject: &str) {
        let head = "[project]\nname = \"demo\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n";
        std::fs::write(self.path("pyproject.toml"), format!("{head}{pyproject}\n")).unwrap();
    }

    /// What stands for the user's home: the cache is in it.
    pub fn home(&self) -> std::path::PathBuf {
        self.home.path().to_owned()
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.project.path().join(name)
    }

    pub fn lock(&self, server: &Server, more: &[&str]) -> Outcome {
        self.lock_at(&server.index(), more)
    }

    pub fn lock_at(&self, index: &str, more: &[&str]) -> Outcome {
        Mlrails::new(self.home.path())
            .project(self.project.path())
            .args(["lock", "--index-url", index])
            .args(more)
            .run()
    }

    /// The cache of the commands on this project.
    pub fn cache(&self) -> std::path::PathBuf {
        self.home.path().join("cache")
    }

    /// Another command on the project, with the same cache.
    pub fn run(&self, words: &[&str]) -> Outcome {
        self.command(words).run()
    }

    pub fn command(&self, words: &[&str]) -> Mlrails {
        Mlrails::new(self.home.path())
            .project(self.project.path())
            .args(words)
    }

    /// `name version [marker]` per entry.
    pub fn locked(&self) -> Vec<String> {
        let lock = Lock::read(&self.path("pylock.toml")).unwrap().unwrap();
        lock.packages
            .iter()
            .map(|package| match package.marker.try_to_string() {
                Some(marker) => format!("{} [{marker}]", package.label()),
                None => package.label(),
            })
            .collect()
    }
}

fn shelf() -> Shelf {
    Shelf::default()
        .wheel(
            "a",
            "1.0",
            &[
                "Requires-Dist: b>=1 ; sys_platform == 'win32'",
                "Requires-Dist: c ; extra == 'x'",
            ],
        )
        .wheel(
            "a",
            "2.0",
            &[
                "Requires-Dist: b>=1 ; sys_platform == 'win32'",
                "Requires-Dist: c ; extra == 'x'",
            ],
        )
        .wheel("b", "1.0", &[])
        .wheel("b", "2.0rc1", &[])
        .wheel("c", "1.0", &["Requires-Dist: a"])
        .wheel("tool", "3.0", &["Requires-Dist: a<2"])
}

#[test]
fn a_lock_is_written_confirmed_and_moved_only_when_asked() {
    let server = shelf().serve();
    let bench =
        Bench::new("dependencies = [\"a[x]\"]\n[dependency-groups]\ndev = [\"b ; python_version < '3.12'\"]");
    let first = bench.lock(&server, &[]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(
        first.stderr.contains("packages in") && !first.stderr.contains("+ a"),
        "what is all new is no news: {}",
        first.stderr
    );
    let locked = bench.locked();
    assert_eq!(locked[0], "a 2.0");
    assert!(
        locked[1].starts_with("b 1.0 ["),
        "a prerelease is taken only if necessary: {locked:?}"
    );
    assert_eq!(locked[2], "c 1.0");
    let bytes = std::fs::read(bench.path("pylock.toml")).unwrap();

    server.asked();
    assert_eq!(bench.lock(&server, &["--check"]).code, 0);
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(
        server.asked(),
        Vec::<String>::new(),
        "a lock that holds asks nothing"
    );
    assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), bytes);

    std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    assert_eq!(bench.lock(&server, &["--offline"]).code, 0);
    assert_eq!(
        std::fs::read(bench.path("pylock.toml")).unwrap(),
        bytes,
        "solved again, byte by byte the same"
    );

    // A requirement that the locked versions meet changes markers, not versions, and solves nothing.
    bench.write("dependencies = [\"a[x]\", \"b>=1\"]");
    let check = bench.lock(&server, &["--check"]);
    assert_eq!(check.code, 1, "{}", check.stderr);
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(bench.locked(), ["a 2.0", "b 1.0", "c 1.0"]);

    // One that they do not meet moves what it must.
    bench.write("dependencies = [\"a[x]<2\", \"b>=1\"]");
    let moved = bench.lock(&server, &[]);
    assert!(moved.stderr.contains("~ a 2.0 -> 1.0"), "{}", moved.stderr);
    bench.write("dependencies = [\"a[x]\", \"b>=1\"]");
    bench.lock(&server, &[]);
    assert_eq!(bench.locked()[0], "a 1.0", "what is locked stays");
    bench.lock(&server, &["--upgrade-package", "a"]);
    assert_eq!(bench.locked()[0], "a 2.0");
}

#[test]
fn pins_of_requirements_txt_are_preferred() {
    let server = shelf().serve();
    let bench = Bench::new("dependencies = [\"a\"]");
    std::fs::write(bench.path("requirements.txt"), "a==1.0\n").unwrap();
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(bench.locked()[0], "a 1.0");
    assert_eq!(bench.lock(&server, &["--upgrade"]).code, 0);
    assert_eq!(bench.locked()[0], "a 2.0");
}

#[test]
fn every_way_to_metadata_gives_the_same_lock() {
    let mut locks = Vec::new();
    for (html, metadata, without_ranges) in [
        (false, true, false),
        (false, false, false),
        (false, false, true),
        (true, false, false),
    ] {
        let server = Shelf {
            html,
            metadata,
            without_ranges,
            ..shelf()
        }
        .serve();
        let bench = Bench::new("dependencies = [\"a[x]\", \"tool\"]");
        let outcome = bench.lock(&server, &[]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let fetched_beside = server.asked().iter().any(|path| path.ends_with(".metadata"));
        assert_eq!(fetched_beside, metadata);
        let lock = Lock::read(&bench.path("pylock.toml")).unwrap().unwrap();
        assert!(
            lock.packages
                .iter()
                .all(|package| package.imports == [package.name.to_string()])
        );
        locks.push(bench.locked());
    }
    assert!(locks.windows(2).all(|pair| pair[0] == pair[1]), "{locks:?}");
}

#[test]
fn pages_are_revalidated_by_their_etag() {
    let server = Shelf {
        etag: true,
        ..shelf()
    }
    .edit(|asked, answer| {
        let known = asked.headers.contains_key("if-none-match");
        assert!(
            answer.status != 200 || !known,
            "an unchanged page is not sent twice"
        );
        answer
    })
    .serve();
    let bench = Bench::new("dependencies = [\"b\"]");
    assert_eq!(bench.lock(&server, &[]).code, 0);
    std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    server.asked();
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(server.asked(), ["/simple/b/"]);
}

#[test]
fn an_unsolvable_project_is_told_why() {
    let server = shelf().serve();
    let bench = Bench::new("dependencies = [\"a>=2\", \"tool\"]\n[dependency-groups]\ndev = [\"nowhere\"]");
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("`nowhere`"), "{}", outcome.stderr);
    bench.write("dependencies = [\"a>=2\", \"tool\"]");
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, 1);
    for part in ["the project asks for `a>=2`", "tool 3.0 needs a<2"] {
        let said = outcome.stderr.replace(" (every version)", " 3.0");
        assert!(said.contains(part), "{part}\n{}", outcome.stderr);
    }
    assert!(!bench.path("pylock.toml").exists());
}

#[test]
fn bounds_of_every_kind_are_told_as_they_were_written() {
    let server = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("a", "2.0rc1", &[])
        .serve();
    for bound in [
        ">=3.0rc1",
        ">3.0.dev2",
        ">=3.0.post1",
        ">3.0.post1",
        "==3.0rc1",
        "==3.0+cpu",
        "~=3.0b2",
        "<0.5.dev1",
        "<=0.5rc1",
        "<0.5.post2",
        ">=2!1.0a1",
        "==3.0.post1.dev4",
        "==9.*",
    ] {
        let bench = Bench::new(&format!("dependencies = [\"a{bound}\"]"));
        bench
            .lock(&server, &[])
            .expect(1)
            .says(&[&format!("the project asks for `a{bound}`"), "no version of a is "]);
    }
    // In a chain, and when solving again.
    let server = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("a", "2.0rc1", &[])
        .wheel("t", "1.0", &["Requires-Dist: a>=2.0rc1"])
        .wheel("t", "2.0.dev1", &["Requires-Dist: a<2.0.dev3,>=1.5b1"])
        .serve();
    let bench = asks_for_a();
    bench.lock(&server, &[]).expect(0);
    bench.write("dependencies = [\"a<2.0rc1\", \"t>=1.0rc1\"]");
    bench.lock(&server, &[]).expect(1).says(&["needs a>=2.0rc1"]);
}

#[test]
fn a_platform_without_a_wheel_is_found_while_locking() {
    let x86 = "cp311-cp311-manylinux_2_17_x86_64";
    let arm = "cp311-cp311-manylinux_2_17_aarch64";
    let server = Shelf::default()
        .wheel_tagged("n", "1.0", x86, &[])
        .wheel_tagged("n", "1.0", arm, &[])
        .wheel_tagged("n", "2.0", x86, &[])
        .wheel_tagged("only", "0.9", arm, &[])
        .wheel_tagged("only", "1.0", x86, &[])
        .serve();
    let bench = Bench::new("dependencies = [\"n\"]\n[dependency-groups]\ndev = [\"only\"]");
    let both = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(bench.locked()[0], "n 2.0");
    let outcome = bench.lock(&server, &[&both[..], &["--upgrade"]].concat());
    assert_eq!(
        outcome.code, 0,
        "a development tool stops nobody: {}",
        outcome.stderr
    );
    assert_eq!(bench.locked()[0], "n 1.0", "the newest that has both");
    bench.write("dependencies = [\"only>=1\"]");
    let outcome = bench.lock(&server, &both);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("no wheel of `only` 1.0 fits linux/arm64"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("hint: 0.9 has one"), "{}", outcome.stderr);
}

#[test]
fn forks_are_kept_so_that_locks_do_not_oscillate() {
    let server = Shelf::default()
        .wheel("n", "1.0", &["Requires-Python: >=3.11"])
        .wheel("n", "2.0", &["Requires-Python: >=3.12"])
        .serve();
    let bench =
        Bench::new("dependencies = [\"n>=1 ; sys_platform == 'linux'\", \"n<2 ; sys_platform != 'linux'\"]");
    assert_eq!(bench.lock(&server, &[]).code, 0);
    let first = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    let lock = Lock::parse(&first, "pylock.toml").unwrap();
    assert!(lock.mlrails.forks.len() > 1, "{first}");
    std::fs::write(bench.path("pylock.toml"), first.replace("\"index = ", "\"index=")).unwrap();
    assert_eq!(bench.lock(&server, &[]).code, 0);
    assert_eq!(std::fs::read_to_string(bench.path("pylock.toml")).unwrap(), first);
}

/// Used by the hostile tests too: a project that asks for `a`.
pub fn asks_for_a() -> Bench {
    Bench::new("dependencies = [\"a\"]")
}

#[test]
fn the_first_index_that_has_a_name_answers_for_it() {
    let private = Shelf::default().wheel("a", "1.0", &[]).serve();
    let public = Shelf::default().wheel("a", "9.0", &[]).serve();
    let bench = asks_for_a();
    assert_eq!(
        bench.lock(&public, &["--extra-index-url", &private.index()]).code,
        0
    );
    assert_eq!(bench.locked(), ["a 1.0"]);
    assert_eq!(
        public.asked(),
        Vec::<String>::new(),
        "the public index is not even asked"
    );
}

#[test]
fn source_archives_count_where_their_metadata_is_final() {
    let sdist = |version: &str| {
        let info = format!("Metadata-Version: {version}\nName: s\nVersion: 1.0\nRequires-Dist: b\n");
        gzip(&tarball(&[file("s-1.0/PKG-INFO", &info)]))
    };
    let bench = Bench::new("dependencies = [\"s\"]");
    let server = shelf().file("s", "s-1.0.tar.gz", sdist("2.2")).serve();
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(bench.locked(), ["b 1.0", "s 1.0"]);
    let server = shelf().file("s", "s-1.0.tar.gz", sdist("2.1")).serve();
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .stderr
            .contains("cannot build s-1.0.tar.gz: it has no pyproject.toml"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn environments_that_nobody_has_stop_nothing() {
    let linux = "cp311-cp311-manylinux_2_17_x86_64";
    let server = Shelf::default()
        .wheel_tagged("torch", "2.0", linux, &[])
        .wheel_tagged("torch", "1.0", linux, &[])
        .wheel(
            "pandas",
            "3.0",
            &[
                "Requires-Dist: tzdata ; sys_platform == 'win32'",
                "Requires-Dist: tzdata ; sys_platform == 'emscripten'",
            ],
        )
        .wheel("tzdata", "1.0", &[])
        .serve();
    let bench = Bench::new("dependencies = [\"torch>=2\", \"pandas\"]");
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked()[1], "torch 2.0");
    let bytes = std::fs::read(bench.path("pylock.toml")).unwrap();
    std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    bench.lock(&server, &[]).expect(0);
    assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), bytes);
    // The image's own platform is another matter.
    let windows = ["--required-environment", "sys_platform == 'win32'"];
    bench
        .lock(&server, &[&windows[..], &["--upgrade"]].concat())
        .expect(1)
        .says(&["no wheel of `torch` 2.0 fits sys_platform == 'win32'"]);
    bench
        .lock(&server, &["--platform", "linux/arm64", "--upgrade"])
        .expect(1)
        .says(&["no wheel of `torch` 2.0 fits linux/arm64"]);
}

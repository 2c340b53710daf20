//! Where a lock has several versions of a name: local versions that are for some machines only, environments that must have a wheel.

use crate::lock::Bench;
use crate::support::index::{Server, Shelf};

const LINUX: &str = "cp311-cp311-manylinux_2_28_x86_64";
const WINDOWS: &str = "cp311-cp311-win_amd64";
const MAC: &str = "cp311-cp311-macosx_14_0_arm64";

/// As torch's own index for machines without a GPU has it.
fn torch() -> Shelf {
    Shelf::default()
        .wheel_tagged("torch", "2.9.1+cpu", LINUX, &["Requires-Dist: sympy"])
        .wheel_tagged("torch", "2.9.1+cpu", WINDOWS, &["Requires-Dist: sympy"])
        .wheel_tagged(
            "torch",
            "2.9.1",
            MAC,
            &["Requires-Dist: sympy", "Requires-Dist: metal"],
        )
        .wheel("sympy", "1.0", &[])
        .wheel("metal", "1.0", &[])
}

fn of<'a>(locked: &'a [String], name: &str) -> Vec<&'a str> {
    let own = locked.iter().filter(|line| line.starts_with(name));
    own.map(String::as_str).collect()
}

fn lock(bench: &Bench, server: &Server) -> Vec<String> {
    std::fs::write(bench.path(".python-version"), "3.11\n").unwrap();
    bench.lock(server, &[]).expect(0);
    bench.locked()
}

#[test]
fn a_build_for_some_systems_leaves_the_others_to_its_version() {
    let server = torch().serve();
    let bench = Bench::new("dependencies = [\"torch\"]\n");
    let locked = lock(&bench, &server);
    assert_eq!(
        of(&locked, "torch"),
        [
            "torch 2.9.1 [sys_platform == 'darwin']",
            "torch 2.9.1+cpu [sys_platform != 'darwin']"
        ]
    );
    assert_eq!(of(&locked, "sympy"), ["sympy 1.0"]);
    assert_eq!(of(&locked, "metal"), ["metal 1.0 [sys_platform == 'darwin']"]);
    // Pinned to the version, and once more from the lock's own forks: the same bytes.
    let written = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    for arguments in [&["--upgrade"][..], &["--upgrade-package", "torch"]] {
        bench.lock(&server, arguments).expect(0);
        assert_eq!(
            std::fs::read_to_string(bench.path("pylock.toml")).unwrap(),
            written
        );
    }
    bench.write("dependencies = [\"torch==2.9.1\"]\n");
    assert_eq!(lock(&bench, &server), locked);
}

#[test]
fn a_build_that_is_asked_for_by_name_is_alone() {
    let server = torch().serve();
    let bench = Bench::new("dependencies = [\"torch==2.9.1+cpu\"]\n");
    assert_eq!(of(&lock(&bench, &server), "torch"), ["torch 2.9.1+cpu"]);
}

#[test]
fn a_build_with_its_source_is_for_everyone() {
    let server = Shelf::default()
        .wheel_tagged("lib", "1.0+fast", LINUX, &[])
        .file(
            "lib",
            "lib-1.0+fast.tar.gz",
            crate::support::sdists::sdist("lib", "1.0+fast", &[]),
        )
        .wheel_tagged("lib", "1.0", MAC, &[])
        .serve();
    let bench = Bench::new("dependencies = [\"lib\"]\n");
    assert_eq!(lock(&bench, &server), ["lib 1.0+fast"]);
}

#[test]
fn an_environment_that_must_have_a_wheel_may_have_an_older_version() {
    let server = Shelf::default()
        .wheel_tagged("lib", "2.0", LINUX, &[])
        .wheel_tagged("lib", "1.0", LINUX, &[])
        .wheel_tagged("lib", "1.0", WINDOWS, &[])
        .serve();
    let bench = Bench::new(
        "dependencies = [\"lib\"]
[tool.uv]
required-environments = [\"sys_platform == 'win32'\"]\n",
    );
    assert_eq!(
        lock(&bench, &server),
        [
            "lib 1.0 [sys_platform == 'win32']",
            "lib 2.0 [sys_platform != 'win32']"
        ]
    );
}

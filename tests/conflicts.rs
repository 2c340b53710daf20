//! Projects that cannot be locked, as people write them: the whole text that says why, and what would do.

use crate::lock::Bench;
use crate::support::index::{Server, Shelf};

/// A small world of well-known names. pyproject.toml's line 5 is the first after its head.
fn world() -> Server {
    let sdist =
        crate::support::debian::gzip(&crate::support::debian::tarball(&[crate::support::debian::file(
            "oldlib-1.0/PKG-INFO",
            "Metadata-Version: 2.2\nName: oldlib\nVersion: 1.0\n",
        )]));
    Shelf::default()
        .wheel("numpy", "1.26.4", &[])
        .wheel("numpy", "2.0.2", &[])
        .wheel("numpy", "2.3.1", &[])
        .wheel("tensorflow", "2.15.0", &["Requires-Dist: numpy<2,>=1.23"])
        .wheel("pandas", "1.5.3", &["Requires-Dist: numpy<2"])
        .wheel("pandas", "2.2.3", &["Requires-Dist: numpy>=1.26"])
        .wheel("pandas", "2.3.0", &["Requires-Dist: numpy>=2"])
        .wheel("pydantic", "1.10.0", &[])
        .wheel("pydantic", "2.9.0", &[])
        .wheel("fastapi", "0.100.0", &["Requires-Dist: pydantic>=2"])
        .wheel("fastapi", "0.110.0", &["Requires-Dist: pydantic>=2"])
        .wheel("langlib", "0.1.0", &["Requires-Dist: langlib-core<0.2"])
        .wheel("langlib-core", "0.1.5", &["Requires-Dist: pydantic<2"])
        .wheel("scipy", "1.11.0", &[])
        .wheel("scipy", "1.17.0", &["Requires-Python: >=3.12"])
        .wheel("nightly", "3.0rc1", &[])
        .wheel("bad", "1.0", &["Requires-Dist: numpy>=99"])
        .wheel(
            "winlib",
            "1.0",
            &["Requires-Dist: numpy>=99 ; sys_platform == 'win32'"],
        )
        .wheel_tagged("fast", "0.9", "cp311-cp311-manylinux_2_17_aarch64", &[])
        .wheel_tagged("fast", "1.0", "cp311-cp311-manylinux_2_17_x86_64", &[])
        .wheel("plugin", "1.0", &["Requires-Dist: numpy<2 ; extra == 'fast'"])
        .file("oldlib", "oldlib-1.0.tar.gz", sdist)
        .serve()
}

#[track_caller]
fn check(server: &Server, pyproject: &str, flags: &[&str], expected: &str) {
    let bench = Bench::new(pyproject);
    let outcome = bench.lock(server, flags).expect(1);
    assert_eq!(
        outcome.stderr.trim_end(),
        expected.trim_start_matches('\n').trim_end(),
        "\n{}",
        outcome.stderr
    );
    assert!(!bench.path("pylock.toml").exists());
}

#[test]
fn bounds_that_do_not_meet() {
    let server = world();
    check(
        &server,
        r#"dependencies = [
  "numpy>=2",
  "tensorflow",
]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:6: the project asks for `numpy>=2`
  - pyproject.toml:7: the project asks for `tensorflow`
    tensorflow 2.15.0 needs numpy>=1.23,<2
hint: relax `numpy>=2` in pyproject.toml:6: numpy 1.26.4 would do
"#,
    );
    check(
        &server,
        r#"dependencies = ["numpy>=2"]
[dependency-groups]
dev = ["numpy<2"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `numpy>=2`
  - pyproject.toml:7: the group `dev` asks for `numpy<2`
hint: relax `numpy>=2` in pyproject.toml:5: numpy 1.26.4 would do
hint: relax `numpy<2` in pyproject.toml:7: numpy 2.3.1 would do
"#,
    );
    check(
        &server,
        r#"dependencies = ["plugin[fast]", "pandas>=2.3"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `pandas>=2.3`
    pandas 2.3.0 needs numpy>=2
  - pyproject.toml:5: the project asks for `plugin[fast]`
    plugin[fast] 1.0 needs numpy<2
hint: relax `pandas>=2.3` in pyproject.toml:5: pandas 2.2.3 would do
"#,
    );
    check(
        &server,
        r#"dependencies = ["pandas>=2", "tensorflow", "numpy>=2.1"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `numpy>=2.1`
  - pyproject.toml:5: the project asks for `tensorflow`
    tensorflow 2.15.0 needs numpy>=1.23,<2
hint: relax `numpy>=2.1` in pyproject.toml:5: numpy 1.26.4 would do
"#,
    );
}

#[test]
fn packages_that_do_not_go_together() {
    let server = world();
    check(
        &server,
        r#"dependencies = [
  "fastapi",
  "langlib",
]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:6: the project asks for `fastapi`
    fastapi (every version) needs pydantic>=2
  - pyproject.toml:7: the project asks for `langlib`
    langlib 0.1.0 needs langlib-core<0.2
      langlib-core 0.1.5 needs pydantic<2
hint: without `fastapi` in pyproject.toml:6 there is a solution
hint: without `langlib` in pyproject.toml:7 there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = [
  "fastapi<0.105",
  "langlib",
  "pydantic<2",
]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:8: the project asks for `pydantic<2`
  - pyproject.toml:6: the project asks for `fastapi<0.105`
    fastapi 0.100.0 needs pydantic>=2
hint: without `fastapi<0.105` in pyproject.toml:6 there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = ["pandas>=2.3", "bad"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `bad`
    bad 1.0 needs numpy>=99
      no version of numpy is >=99: the newest is 2.3.1
hint: without `bad` in pyproject.toml:5 there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = ["winlib"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `winlib`
    winlib 1.0 needs numpy>=99
      no version of numpy is >=99: the newest is 2.3.1
hint: on Linux alone there is a solution: environments = ["sys_platform == 'linux'"] in [tool.uv]
"#,
    );
}

#[test]
fn versions_that_are_not_there() {
    let server = world();
    check(
        &server,
        r#"dependencies = ["numpy==9.9"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `numpy==9.9`
    no version of numpy is ==9.9: the newest is 2.3.1
hint: relax `numpy==9.9` in pyproject.toml:5: numpy 2.3.1 would do
"#,
    );
    check(
        &server,
        r#"dependencies = ["numpi"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `numpi`
    `numpi` was not found on the index
hint: check the spelling of `numpi`, or add the index that has it with --extra-index-url
"#,
    );
    check(
        &server,
        r#"dependencies = ["scipy>=1.12"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `scipy>=1.12`
    scipy 1.17.0 requires Python >=3.12
hint: requires-python = ">=3.12" in pyproject.toml:4 would do
hint: relax `scipy>=1.12` in pyproject.toml:5: scipy 1.11.0 would do
"#,
    );
    check(
        &server,
        r#"dependencies = ["nightly"]"#,
        &["--prerelease", "disallow"],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `nightly`
    nightly has only prereleases
hint: --prerelease allow would solve this
"#,
    );
    check(
        &server,
        r#"dependencies = ["numpy"]"#,
        &["--exclude-newer", "2020-01-01"],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `numpy`
    numpy (every version) was published after --exclude-newer
hint: with a later --exclude-newer there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = ["oldlib"]"#,
        &["--no-build"],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:5: the project asks for `oldlib`
    oldlib 1.0 has no usable wheel, and --no-build excludes its source archive
hint: without --no-build there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = ["fast>=1"]"#,
        &["--platform", "linux/arm64"],
        r#"
error: no wheel of `fast` 1.0 fits linux/arm64
hint: 0.9 has one; or drop linux/arm64 from [image] platforms
hint: relax `fast>=1` in pyproject.toml:5: fast 0.9 would do
"#,
    );
}

#[test]
fn constraints_and_overrides() {
    let server = world();
    check(
        &server,
        r#"dependencies = ["pandas>=2.3"]
[tool.uv]
constraint-dependencies = ["numpy<2"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:7: the constraint `numpy<2` holds
  - pyproject.toml:5: the project asks for `pandas>=2.3`
    pandas 2.3.0 needs numpy>=2
hint: relax `pandas>=2.3` in pyproject.toml:5: pandas 2.2.3 would do
hint: without `numpy<2` in pyproject.toml:7 there is a solution
"#,
    );
    check(
        &server,
        r#"dependencies = ["numpy>=2"]
[tool.uv]
override-dependencies = ["numpy==1.0"]"#,
        &[],
        r#"
error: the requirements cannot be met together
  - pyproject.toml:7: the override `numpy==1.0` holds
    no version of numpy is ==1.0: the newest is 2.3.1; the nearest is 1.26.4
hint: without `numpy==1.0` in pyproject.toml:7 there is a solution
"#,
    );
}

//! What a lock does not do: move without being asked to, or oscillate; and what it says when it moves.

use crate::lock::Bench;
use crate::support::index::{Server, Shelf};

fn text(bench: &Bench) -> String {
    std::fs::read_to_string(bench.path("pylock.toml")).unwrap()
}

/// `fork` has an older version for older Pythons, and brings `low`; `top` narrows `shared`.
fn shelf() -> Server {
    Shelf::default()
        .wheel(
            "fork",
            "1.0",
            &["Requires-Python: >=3.11", "Requires-Dist: low<2"],
        )
        .wheel("fork", "2.0", &["Requires-Python: >=3.13", "Requires-Dist: low"])
        .wheel("low", "1.0", &[])
        .wheel("low", "2.0", &[])
        .wheel("top", "1.0", &["Requires-Dist: shared<2"])
        .wheel("top", "2.0", &["Requires-Dist: shared"])
        .wheel("shared", "1.0", &[])
        .wheel("shared", "2.0", &[])
        .serve()
}

#[test]
fn a_dependency_that_goes_and_comes_back_leaves_no_trace() {
    let server = shelf();
    let check = |all: &str, without: &str| {
        let bench = Bench::new(all);
        bench.lock(&server, &[]).expect(0);
        let first = text(&bench);
        bench.write(without);
        bench.lock(&server, &[]).expect(0);
        assert_ne!(text(&bench), first);
        bench.write(all);
        bench.lock(&server, &[]).expect(0);
        assert_eq!(text(&bench), first, "{all}");
        // And solved anew, from nothing.
        std::fs::remove_file(bench.path("pylock.toml")).unwrap();
        bench.lock(&server, &[]).expect(0);
        assert_eq!(text(&bench), first, "{all}");
    };
    check("dependencies = [\"top\", \"fork\"]", "dependencies = [\"top\"]");
    check("dependencies = [\"top\", \"fork\"]", "dependencies = [\"fork\"]");
    check("dependencies = [\"fork\"]", "dependencies = []");
    check(
        "dependencies = [\"low<2 ; sys_platform == 'linux'\", \"low>=2 ; sys_platform != 'linux'\", \"top\"]",
        "dependencies = [\"top\"]",
    );
}

#[test]
fn check_says_what_changed() {
    let server = shelf();
    let bench = Bench::new("dependencies = [\"top\"]");
    let check = |pyproject: &str, flags: &[&str], parts: &[&str]| {
        bench.write(pyproject);
        let before = text(&bench);
        let flags = [&["--check"], flags].concat();
        bench.lock(&server, &flags).expect(1).says(parts);
        assert_eq!(text(&bench), before, "--check changes nothing");
    };
    bench
        .lock(&server, &["--check"])
        .expect(1)
        .says(&["there is no lock"]);
    bench.lock(&server, &[]).expect(0);
    check("dependencies = [\"top<2\"]", &[], &["top<2", "2.0 is locked"]);
    check("dependencies = [\"top\", \"low\"]", &[], &["low"]);
    check("dependencies = []", &[], &["unused packages"]);
    check(
        "dependencies = [\"top\"]",
        &["--resolution", "lowest"],
        &["resolution = lowest", "is new"],
    );
    check(
        "dependencies = [\"top\"]\n[tool.uv]\nconstraint-dependencies = [\"shared<2\"]",
        &[],
        &["shared<2", "is new"],
    );
    bench.write("dependencies = [\"top\"]");
    bench.lock(&server, &["--check"]).expect(0);
}

#[test]
fn an_upgrade_moves_only_what_it_must() {
    let server = shelf();
    let bench = Bench::new("dependencies = [\"top<2\", \"low<2\", \"shared\"]");
    bench.lock(&server, &[]).expect(0);
    bench.write("dependencies = [\"top\", \"low\", \"shared\"]");
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["low 1.0", "shared 1.0", "top 1.0"]);
    let said = bench.lock(&server, &["--upgrade-package", "top"]).expect(0);
    // The new one admits the locked `shared`, so that stays.
    assert_eq!(bench.locked(), ["low 1.0", "shared 1.0", "top 2.0"]);
    assert!(said.stderr.contains("~ top 1.0 -> 2.0"), "{}", said.stderr);
    assert!(!said.stderr.contains("low"), "{}", said.stderr);
    bench.lock(&server, &["--upgrade"]).expect(0);
    assert_eq!(bench.locked(), ["low 2.0", "shared 2.0", "top 2.0"]);
}

#[test]
fn what_other_tools_locked_is_taken_over_once() {
    let server = shelf();
    let check = |file: &str, content: &str| {
        let bench = Bench::new("dependencies = [\"top\"]");
        std::fs::write(bench.path(file), content).unwrap();
        bench.lock(&server, &[]).expect(0);
        assert_eq!(bench.locked(), ["shared 1.0", "top 1.0"], "{file}");
    };
    let both =
        "[[package]]\nname = \"top\"\nversion = \"1.0\"\n[[package]]\nname = \"shared\"\nversion = \"1.0\"\n";
    check("uv.lock", &format!("version = 1\n{both}"));
    check("poetry.lock", both);
    check(
        "requirements-prod.txt",
        "top==1.0 \\\n    --hash=sha256:00\nshared==1.0\n",
    );
}

#[test]
fn what_a_change_weighs_is_said() {
    let large = vec![b'x'; 3_000_000];
    // Bytes that no compressor makes smaller.
    let large: Vec<u8> = large
        .iter()
        .scan(1_u32, |state, _| {
            *state ^= *state << 13;
            *state ^= *state >> 17;
            *state ^= *state << 5;
            Some(state.to_le_bytes()[0])
        })
        .collect();
    let server = Shelf::default()
        .wheel("small", "1.0", &[])
        .wheel_with("large", "1.0", "py3-none-any", &[], &[("large/data.bin", large)])
        .serve();
    let bench = Bench::new("dependencies = [\"small\"]");
    let said = |flags: &[&str]| bench.lock(&server, flags).expect(0).stderr;
    assert!(said(&[]).contains("production on linux/amd64 downloads 0.0 MB\n"));
    bench.write("dependencies = [\"small\", \"large\"]");
    let more = said(&[]);
    assert!(more.contains("+ large 1.0"), "{more}");
    assert!(
        more.contains("production on linux/amd64 downloads 3.0 MB, 3.0 MB more than before"),
        "{more}"
    );
    let same = said(&["--upgrade"]);
    assert!(same.contains("downloads 3.0 MB, as before"), "{same}");
}

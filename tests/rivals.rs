//! Extras and groups that exclude each other, and names that are left out wherever they are required.

use crate::lock::Bench;
use crate::support::index::{Server, Shelf};

const RIVALS: &str = "dependencies = [\"base\"]
[project.optional-dependencies]
old = [\"lib<2\"]
new = [\"lib>=2\"]
[dependency-groups]
dev = [\"lib<3\"]
";

fn shelf() -> Server {
    Shelf::default()
        .wheel("base", "1.0", &["Requires-Dist: unwanted"])
        .wheel("unwanted", "1.0", &[])
        .wheel("lib", "1.0", &[])
        .wheel("lib", "2.0", &["Requires-Dist: more"])
        .wheel("lib", "3.0", &["Requires-Dist: more"])
        .wheel("more", "1.0", &[])
        .serve()
}

#[test]
fn rivals_have_a_version_each() {
    let server = shelf();
    let bench = Bench::new(RIVALS);
    std::fs::write(bench.path(".python-version"), crate::builds::here()).unwrap();
    bench.lock(&server, &[]).expect(1).says(&["`lib<2`", "`lib>=2`"]);
    let declared =
        format!("{RIVALS}[tool.uv]\nconflicts = [[{{ extra = \"old\" }}, {{ extra = \"new\" }}]]\n");
    bench.write(&declared);
    bench.lock(&server, &[]).expect(0);
    let locked = bench.locked();
    let of = |name: &str| -> Vec<&str> {
        let own = locked.iter().filter(|line| line.starts_with(name));
        own.map(String::as_str).collect()
    };
    // The group goes with both, so the newer one is the newest that it admits.
    assert_eq!(of("lib").len(), 2, "{locked:?}");
    assert!(of("lib 1.0")[0].contains("'old' in extras"), "{locked:?}");
    assert!(of("lib 2.0")[0].contains("'new' in extras"), "{locked:?}");
    assert!(!of("more")[0].contains("'old' in extras and"), "{locked:?}");
    // The same again, solved from its own forks as well.
    let written = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    bench.lock(&server, &["--upgrade"]).expect(0);
    assert_eq!(
        std::fs::read_to_string(bench.path("pylock.toml")).unwrap(),
        written
    );
    bench.lock(&server, &["--upgrade-package", "lib"]).expect(0);
    assert_eq!(
        std::fs::read_to_string(bench.path("pylock.toml")).unwrap(),
        written
    );
    bench
        .run(&["sync", "--extra", "old", "--extra", "new"])
        .expect(1)
        .says(&["exclude each other", "choose one of them"]);
    // What is no longer declared is no longer solved apart.
    bench.write(RIVALS);
    bench.lock(&server, &[]).expect(1).says(&["`lib<2`"]);
}

#[test]
fn a_name_is_left_out_wherever_it_is_required() {
    let server = shelf();
    let bench = Bench::new("dependencies = [\"base\", \"more\"]\n");
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["base 1.0", "more 1.0", "unwanted 1.0"]);
    let before = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    bench.write(
        "dependencies = [\"base\", \"more\"]\n[tool.uv]\nexclude-dependencies = [\"unwanted\", \"more\"]\n",
    );
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["base 1.0"]);
    // Taken back, the bytes are those of before.
    bench.write("dependencies = [\"base\", \"more\"]\n");
    bench.lock(&server, &[]).expect(0);
    assert_eq!(
        std::fs::read_to_string(bench.path("pylock.toml")).unwrap(),
        before
    );
}

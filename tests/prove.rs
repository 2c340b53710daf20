//! `mlrails lock --check --prove`: a good lock holds, and every way to spoil one is named.

use mlrails::lock::Lock;
use mlrails::lock::prove::{Asked, Published, prove};
use mlrails::lock::reach::Scope;
use mlrails::lock::satisfies::Wanted;
use mlrails::python::requirement;
use mlrails::python::target::{Libc, Platform, PythonVersion};

use crate::lock::Bench;
use crate::support::index::Shelf;

const HASH: &str = "{ sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\" }";

/// A package of a lock, with `more` lines of its own and `tool` lines for mlrails.
fn package(name: &str, version: &str, tags: &str, more: &str, tool: &str) -> String {
    let file = format!("{name}-{version}-{tags}.whl");
    format!(
        "[[packages]]\nname = \"{name}\"\nversion = \"{version}\"\n{more}\
         wheels = [{{ url = \"https://h.example/{file}\", hashes = {HASH} }}]\n[packages.tool.mlrails]\n{tool}\n"
    )
}

fn asked(roots: &[&str]) -> Asked {
    let dev = Scope::Group("dev".parse().unwrap());
    let requirements = roots.iter().map(|text| match text.strip_prefix("dev: ") {
        Some(text) => (dev.clone(), requirement::parse(text).unwrap()),
        None => (Scope::Project, requirement::parse(text).unwrap()),
    });
    Asked {
        wanted: Wanted {
            requires_python: Some(">=3.11".parse().unwrap()),
            groups: vec!["dev".parse().unwrap()],
            requirements: requirements.collect(),
            ..Wanted::default()
        },
        platforms: vec![(Platform::LinuxArm64, Libc::Glibc { major: 2, minor: 36 })],
        python: Some(PythonVersion::new(3, 12)),
        ..Asked::default()
    }
}

/// The violations of a lock of `packages`, one a line.
fn violations(asked: &Asked, packages: &[String]) -> Vec<String> {
    let text = format!(
        "lock-version = \"1.0\"\ncreated-by = \"mlrails\"\nrequires-python = \">=3.11\"\ndependency-groups = [\"dev\"]\n\n{}",
        packages.concat()
    );
    let lock = Lock::parse(&text, "pylock.toml").unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let proof = prove(&lock, asked, &Published::new());
    assert!(proof.environments > 0);
    (proof.violations.iter())
        .map(|violation| format!("{} ({})", violation.fault, violation.place))
        .collect()
}

#[track_caller]
fn check(asked: &Asked, packages: &[String], expected: &[&str]) {
    assert_eq!(violations(asked, packages), expected);
}

const ANY: &str = "py3-none-any";

#[test]
fn each_way_to_spoil_a_lock_is_named() {
    let a = |more: &str, tool: &str| package("a", "1", ANY, more, tool);
    let b = |more: &str| package("b", "1", ANY, more, "");
    let plain = asked(&["a"]);
    check(&plain, &[a("", "requires = [\"b>=1\"]"), b("")], &[]);
    check(
        &plain,
        &[a("", "requires = [\"b>=1\"]")],
        &["a 1 needs `b>=1`, and it is not locked (CPython 3.11.0 on linux x86_64)"],
    );
    check(
        &plain,
        &[a("", "requires = [\"b>=2\"]"), b("")],
        &["a 1 needs `b>=2`, and b 1 is locked (CPython 3.11.0 on linux x86_64)"],
    );
    check(
        &plain,
        &[a("", ""), b("")],
        &["nothing needs b 1 (CPython 3.11.0 on linux x86_64)"],
    );
    check(
        &plain,
        &[a("", "requires = [\"b[x]\"]"), b("")],
        &["a 1 needs `b[x]`, and the lock has it without the extra `x` (CPython 3.11.0 on linux x86_64)"],
    );
    // The marker is right on one platform too few, and the requirement is met elsewhere.
    check(
        &plain,
        &[
            a("", "requires = [\"b ; sys_platform != 'win32'\"]"),
            b("marker = \"sys_platform == 'linux'\"\n"),
        ],
        &["a 1 needs `b ; sys_platform != 'win32'`, and it is not locked (CPython 3.11.0 on darwin x86_64)"],
    );
    check(
        &plain,
        &[
            package("a", "1", ANY, "marker = \"python_version < '3.13'\"\n", ""),
            package("a", "2", ANY, "marker = \"python_version >= '3.12'\"\n", ""),
        ],
        &["a is locked twice: a 1 and a 2 (CPython 3.12.0 on linux x86_64)"],
    );
    check(
        &plain,
        &[a("requires-python = \">=3.12,<3.13\"\n", "")],
        &["a 1 is for Python >=3.12, <3.13 (CPython 3.11.0 on linux x86_64)"],
    );
    check(
        &plain,
        &[package("a", "1", "cp312-cp312-manylinux_2_28_x86_64", "", "")],
        &[
            "a 1 has no file that fits linux/arm64 with CPython 3.12 and glibc 2.36 (linux/arm64 with CPython 3.12 and glibc 2.36)",
        ],
    );
}

#[test]
fn groups_constraints_and_promised_environments_are_held_against_it() {
    let a = package("a", "1", ANY, "", "");
    let tool = |more: &str| package("tool", "1", ANY, more, "");
    let with_group = asked(&["a", "dev: tool"]);
    let of_group = "marker = \"'dev' in dependency_groups\"\n";
    check(&with_group, &[a.clone(), tool(of_group)], &[]);
    check(
        &with_group,
        &[a.clone(), tool("")],
        &["nothing needs tool 1 (CPython 3.11.0 on linux x86_64)"],
    );
    let mut constrained = asked(&["a"]);
    constrained.constraints = vec![requirement::parse("a<1 ; sys_platform == 'win32'").unwrap()];
    check(
        &constrained,
        std::slice::from_ref(&a),
        &[
            "the constraint `a<1 ; sys_platform == 'win32'` is not kept: a 1 is locked (CPython 3.11.0 on win32 AMD64)",
        ],
    );
    let mut wider = asked(&["a"]);
    wider.wanted.requires_python = Some(">=3.10".parse().unwrap());
    check(
        &wider,
        &[a],
        &["the lock does not cover it (CPython 3.10.0 on linux x86_64)"],
    );
    let mut promised = asked(&["b"]);
    promised.required_environments = vec![
        "sys_platform == 'win32' and platform_machine == 'AMD64'"
            .parse()
            .unwrap(),
    ];
    promised.platforms.clear();
    check(
        &promised,
        &[package("b", "1", "cp312-cp312-win_amd64", "", "")],
        &[],
    );
    check(
        &promised,
        &[package("b", "1", "cp312-cp312-win_arm64", "", "")],
        &[
            "b 1 has no file that fits `platform_machine == 'AMD64' and sys_platform == 'win32'` (everywhere there)",
        ],
    );
    check(
        &promised,
        &[package("b", "1", "cp310-cp310-win_amd64", "", "")],
        &[
            "b 1 has no file that fits `platform_machine == 'AMD64' and sys_platform == 'win32'` (everywhere there)",
            "b 1 has no file that can be installed where it is locked (everywhere)",
        ],
    );
}

/// Editing the lock where `--check` does not look: what the file says itself is asked too.
#[test]
fn the_command_reads_what_files_say_and_names_what_is_wrong() {
    let server = Shelf::default()
        .wheel("a", "1.0", &["Requires-Dist: b>=2"])
        .wheel("b", "2.0", &[])
        .wheel("b", "1.0", &[])
        .serve();
    let bench = Bench::new("dependencies = [\"a\"]");
    bench.lock(&server, &[]).expect(0);
    let held = bench
        .lock(&server, &["--check", "--prove", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(held["proven"], true);
    assert_eq!(held["read_from_index"], 2);
    let path = bench.path("pylock.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    // The lock is told that `a` needs nothing of `b` in particular, and is given an older one.
    let old = bench_lock_of(&bench, &server);
    std::fs::write(
        &path,
        good.replace("b>=2", "b").replace(&part(&good), &part(&old)),
    )
    .unwrap();
    bench.lock(&server, &["--check"]).expect(0);
    let refused = bench
        .lock(&server, &["--check", "--prove", "--format", "json"])
        .expect(1);
    assert_eq!(refused.json()["violations"][0]["rule"], "unmet");
    assert_eq!(
        refused.json()["violations"][0]["what"],
        "a 1.0 needs `b>=2`, and b 1.0 is locked"
    );
    refused.says(&[
        "does not hold",
        "a 1.0 needs `b>=2`, and b 1.0 is locked",
        "hint:",
    ]);
    // Without `--check` there is nothing to prove.
    bench.lock(&server, &["--prove"]).expect(2);
}

/// A lock that has `b` 1.0.
fn bench_lock_of(bench: &Bench, server: &crate::support::index::Server) -> String {
    let other = Bench::new("dependencies = [\"b<2\"]");
    other.lock(server, &[]).expect(0);
    assert_ne!(other.home(), bench.home());
    std::fs::read_to_string(other.path("pylock.toml")).unwrap()
}

/// The entry of `b`.
fn part(lock: &str) -> String {
    let start = lock.find("[[packages]]\nname = \"b\"").unwrap();
    let end = lock[start..]
        .find("\n[tool.mlrails]")
        .map_or(lock.len(), |end| start + end);
    lock[start..end].to_owned()
}

/// Two packages ask for different versions of a third, on different systems: asked to, both get theirs.
#[test]
fn conflicts_that_never_meet_are_split_on_request() {
    let server = Shelf::default()
        .wheel("a", "1.0", &["Requires-Dist: c<2 ; sys_platform == 'linux'"])
        .wheel("b", "1.0", &["Requires-Dist: c>=2 ; sys_platform == 'darwin'"])
        .wheel("c", "1.0", &[])
        .wheel("c", "2.0", &[])
        .serve();
    let bench = Bench::new("dependencies = [\"a\", \"b\"]");
    bench
        .lock(&server, &[])
        .expect(1)
        .says(&["cannot be met together", "--split-conflicts"]);
    bench.lock(&server, &["--split-conflicts"]).expect(0);
    assert_eq!(
        bench.locked(),
        [
            "a 1.0",
            "b 1.0",
            "c 1.0 [sys_platform == 'linux']",
            "c 2.0 [sys_platform == 'darwin']"
        ]
    );
    // A contradiction that holds somewhere stays one.
    bench.write("dependencies = [\"a\", \"c>=2\"]");
    let refused = bench.lock(&server, &["--split-conflicts"]).expect(1);
    assert!(
        !refused.stderr.contains("--split-conflicts"),
        "{}",
        refused.stderr
    );
    refused.says(&["(found where python_full_version >= '3.11' and sys_platform == 'linux')"]);
}

/// An override takes the place of the project's own line too, marker and all; of an extra's line it stays the extra's.
#[test]
fn overrides_replace_lines_of_the_project() {
    let server = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("a", "2.0", &[])
        .wheel("b", "1.0", &["Requires-Dist: a>=2 ; extra == 'x'"])
        .serve();
    let table = "[tool.uv]\noverride-dependencies = [\"a==1.0\"]";
    let bench = Bench::new(&format!(
        "dependencies = [\"a>=2 ; sys_platform == 'win32'\"]\n{table}"
    ));
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["a 1.0"]);
    bench.write(&format!("dependencies = [\"b\"]\n{table}"));
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["b 1.0"]);
    bench.write(&format!("dependencies = [\"b[x]\"]\n{table}"));
    bench.lock(&server, &[]).expect(0);
    assert_eq!(bench.locked(), ["a 1.0", "b 1.0"]);
}

/// An extra of the project that is asked for in two environments is there in both.
#[test]
fn an_extra_may_be_asked_for_twice() {
    let server = Shelf::default().wheel("a", "1.0", &[]).serve();
    let bench = Bench::new(
        "optional-dependencies.x = [\"a\"]\n\
         optional-dependencies.y = [\"demo[x] ; sys_platform == 'linux'\", \"demo[x] ; sys_platform == 'win32'\"]",
    );
    bench.lock(&server, &[]).expect(0);
    let locked = bench.locked().join(" ");
    assert!(locked.contains("win32") && locked.contains("linux"), "{locked}");
}

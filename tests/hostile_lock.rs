//! Lock files that were tampered with: every command that reads one refuses it, and says what is wrong.

use crate::lock::asks_for_a;
use crate::support::index::Shelf;

/// A sound lock, edited; `lock --check` must refuse it with `rule`.
fn check(rule: &str, edit: impl Fn(&str) -> String) {
    let server = Shelf::default().wheel("a", "1.0", &[]).serve();
    let bench = asks_for_a();
    assert_eq!(bench.lock(&server, &[]).code, 0);
    let path = bench.path("pylock.toml");
    let sound = std::fs::read_to_string(&path).unwrap();
    let edited = edit(&sound);
    assert_ne!(edited, sound, "the edit for {rule:?} changes nothing");
    std::fs::write(&path, &edited).unwrap();
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, 1, "{rule}: {}", outcome.stderr);
    assert!(outcome.stderr.contains("pylock.toml"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(rule), "{rule}\n{}", outcome.stderr);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        edited,
        "a refused lock is left as it is"
    );
}

#[test]
fn tampered_locks_are_refused() {
    check("missing field `packages`", |text| {
        text.split("[[packages]]").next().unwrap().to_owned()
    });
    check("no sha256 hash", |text| text.replace("sha256", "md5"));
    check("listed twice", |text| {
        let start = text.find("[[packages]]").unwrap();
        let end = text.find("[tool.mlrails]").unwrap();
        format!("{}{}{}", &text[..end], &text[start..end], &text[end..])
    });
    check("leaves the lock's folder", |text| {
        let at = text.find("url = \"").unwrap();
        format!("{}path = \"../../{}", &text[..at], &text[at + 7..])
    });
    check("is not a file of a", |text| {
        text.replace("a-1.0-py3", "b-1.0-py3")
    });
    check("no usable name", |text| {
        text.replace("/a-1.0-py3", "/..%252fa-1.0-py3")
    });
    check("has no wheel", |text| {
        let (start, end) = (text.find("wheels = [").unwrap(), text.find("]\n\n").unwrap());
        format!("{}{}", &text[..start], &text[end + 1..])
    });
    check("not 1.0", |text| {
        text.replace("lock-version = \"1.0\"", "lock-version = \"7.0\"")
    });
    check("is not TOML", |text| format!("{text}\n{}", "[".repeat(100_000)));
    check("is not TOML", |text| {
        format!("{text}\nx = {}1{}", "[".repeat(100_000), "]".repeat(100_000))
    });
    check("is not TOML", |text| {
        format!("{text}\nx = {}", "{ x = ".repeat(100_000))
    });
    check("is not TOML", |text| {
        format!("{text}\nx{} = 1", ".x".repeat(100_000))
    });
    check("leaves the lock's folder", |text| {
        let at = text.find("url = \"").unwrap();
        format!("{}path = \"/etc/{}", &text[..at], &text[at + 7..])
    });
    check("", |text| {
        text.replace("version = \"1.0\"", "version = \"18446744073709551616\"")
    });
}

/// A place where a file of the project should be, and a command that reads it.
const READ: [(&str, &str, &str); 4] = [
    ("pylock.toml", "lock", "pylock.toml"),
    ("pylock.toml", "sync", "pylock.toml"),
    ("uv.toml", "lock", "uv.toml"),
    ("requirements-dev.txt", "lock", "requirements-dev.txt"),
];

#[test]
fn what_is_no_file_is_neither_followed_nor_waited_for() {
    let server = Shelf::default().wheel("a", "1.0", &[]).serve();
    let outside = tempfile::NamedTempFile::new().unwrap();
    for (file, command, named) in READ {
        let refused = |spoil: &dyn Fn(&std::path::Path), rule: &str| {
            let bench = asks_for_a();
            spoil(&bench.path(file));
            let index = server.index();
            let words = match command {
                "lock" => vec!["lock", "--index-url", &index],
                other => vec![other],
            };
            bench.run(&words).expect(1).says(&[named, rule]);
            assert_eq!(std::fs::metadata(outside.path()).unwrap().len(), 0);
        };
        use std::os::unix::fs::symlink;
        refused(
            &|path| symlink(outside.path(), path).unwrap(),
            "leads out of the project",
        );
        refused(
            &|path| symlink("/dev/zero", path).unwrap(),
            "leads out of the project",
        );
        refused(&|path| symlink("nowhere", path).unwrap(), "leads nowhere");
        refused(
            &|path| symlink(path.file_name().unwrap(), path).unwrap(),
            "leads in circles",
        );
        refused(&|path| fifo(path), "is a FIFO, not a file");
        refused(
            &|path| std::fs::create_dir(path).unwrap(),
            "is a folder, not a file",
        );
        let sparse = |path: &std::path::Path| {
            std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        };
        refused(
            &sparse,
            if file == "pylock.toml" {
                "larger than 67108864 bytes"
            } else {
                "1099511627776 bytes"
            },
        );
        refused(&|path| std::fs::write(path, b"a\xff").unwrap(), "UTF-8");
    }
}

fn fifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, mknodat};
    mknodat(CWD, path, FileType::Fifo, 0o644.into(), 0).unwrap();
}

#[test]
fn other_tools_files_that_nest_without_end() {
    let server = Shelf::default().wheel("a", "1.0", &[]).serve();
    let deep = "[".repeat(100_000);
    let bench = asks_for_a();
    std::fs::write(bench.path("uv.toml"), format!("x = {deep}")).unwrap();
    bench
        .lock(&server, &[])
        .expect(1)
        .says(&["uv.toml", "is not TOML"]);
    // Preferences are only that: what cannot be understood prefers nothing.
    std::fs::remove_file(bench.path("uv.toml")).unwrap();
    for (file, text) in [
        ("uv.lock", format!("x = {deep}")),
        ("poetry.lock", "[[package]]\n".repeat(100_000)),
        ("requirements.txt", deep.clone()),
        ("requirements-a.txt", format!("a{deep}\n")),
        (
            "requirements-b.txt",
            format!("a ; {}os_name == 'x'", "(".repeat(100_000)),
        ),
        ("requirements-c.txt", format!("a == {}1", "1.".repeat(100_000))),
        ("requirements-d.txt", "a==99999999999999999999\n".repeat(10_000)),
    ] {
        std::fs::write(bench.path(file), text).unwrap();
    }
    bench
        .lock(&server, &[])
        .expect(0)
        .says(&["warning: uv.lock is not understood, so its versions are not preferred: "]);
    assert_eq!(bench.locked(), ["a 1.0"]);
}

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
}

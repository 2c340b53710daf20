//! Indexes that lie, break or attack: refused with a message that names file and rule, and nothing is locked.

use crate::lock::{Bench, asks_for_a};
use crate::support::driver::Outcome;
use crate::support::index::{Answer, Asked, Shelf};

/// The answer of a sound index with one wheel of `a`, edited; what is said must hold `parts`.
fn check(
    code: i32,
    parts: &[&str],
    metadata: bool,
    edit: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static,
) {
    let server = Shelf {
        metadata,
        ..Shelf::default().wheel("a", "1.0", &[])
    }
    .edit(edit)
    .serve();
    let bench = asks_for_a();
    let outcome = bench.lock(&server, &[]);
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part}\n{}", outcome.stderr);
    }
    assert!(!bench.path("pylock.toml").exists());
    let again = bench.lock(&server, &["--offline"]);
    assert_ne!(again.code, 0, "nothing refused was cached");
}

fn is_page(asked: &Asked) -> bool {
    asked.path.starts_with("/simple/")
}

fn replaced(answer: &Answer, from: &str, to: &str) -> Answer {
    let text = String::from_utf8_lossy(&answer.body).replace(from, to);
    Answer {
        body: text.into_bytes(),
        ..answer.clone()
    }
}

#[test]
fn pages_that_no_honest_index_writes() {
    let name = "a-1.0-py3-none-any.whl";
    check(1, &["`a`", "may not hold a path"], false, move |_, answer| {
        replaced(
            &answer,
            &format!("\"filename\":\"{name}\""),
            "\"filename\":\"..%252fa-1.0-py3-none-any.whl\"",
        )
    });
    check(1, &["`a`", "in disguise"], false, |asked, answer| {
        match is_page(asked) {
            true => replaced(&answer, "\"/files/", "\"https://good.example@evil.example/files/"),
            false => answer,
        }
    });
    check(
        1,
        &["`a`", "does not call itself an index"],
        false,
        |asked, answer| match is_page(asked) {
            true => Answer::new(200, "text/html", "<h1>Please log in</h1>"),
            false => answer,
        },
    );
    check(1, &["`a`"], false, |asked, answer| match is_page(asked) {
        // 1 GB of spaces in 1 MB.
        true => {
            Answer::new(200, "application/vnd.pypi.simple.v1+json", bomb()).header("Content-Encoding", "gzip")
        }
        false => answer,
    });
}

fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![b' '; 1 << 20];
    for _ in 0..256 {
        std::io::Write::write_all(&mut encoder, &block).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn a_file_without_sha256_is_not_locked() {
    check(1, &["a 1.0", "sha256"], false, |asked, answer| {
        match is_page(asked) {
            true => replaced(&answer, "\"sha256\"", "\"md5\""),
            false => answer,
        }
    });
}

#[test]
fn metadata_that_is_not_what_was_promised() {
    check(
        1,
        &["a-1.0-py3-none-any.whl", ".metadata should be"],
        true,
        |asked, answer| match asked.path.ends_with(".metadata") {
            true => replaced(&answer, "Version: 1.0", "Version: 1.0\nRequires-Dist: evil"),
            false => answer,
        },
    );
}

#[test]
fn ranges_that_are_not_what_was_asked() {
    check(
        1,
        &["a-1.0-py3-none-any.whl", "another range"],
        false,
        |_, mut answer| {
            for (name, value) in &mut answer.headers {
                if name == "Content-Range" {
                    *value = value.replacen("bytes 0-", "bytes 7-", 1);
                }
            }
            answer
        },
    );
}

#[test]
fn wheels_that_are_not_what_the_page_says() {
    check(
        1,
        &["a-1.0-py3-none-any.whl"],
        false,
        |asked, answer| match asked.path.starts_with("/files/") {
            // The whole file, of the right length and other content.
            true => Answer {
                status: 200,
                body: vec![0; answer.body.len()],
                ..answer
            },
            false => answer,
        },
    );
}

#[test]
fn a_broken_index_is_exit_3() {
    check(3, &["503"], false, |_, answer| Answer {
        status: 503,
        ..answer
    });
}

#[test]
fn credentials_do_not_leave_their_origin() {
    let elsewhere = Shelf::default()
        .wheel("a", "1.0", &[])
        .edit(|asked, answer| {
            assert!(
                !asked.headers.contains_key("authorization"),
                "sent to another origin"
            );
            answer
        })
        .serve();
    let target = elsewhere.url.clone();
    let server = Shelf::default()
        .edit(move |asked, answer| match asked.headers.get("authorization") {
            Some(_) => {
                Answer::new(302, "text/plain", "").header("Location", &format!("{target}{}", asked.path))
            }
            None => Answer {
                status: 401,
                ..answer
            },
        })
        .serve();
    let bench = asks_for_a();
    let url = server.index().replace("http://", "http://user:secret@");
    let outcome = bench.lock_at(&url, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let written = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    assert!(!written.contains("secret"), "{written}");
    // Another user's credentials, and none, do not get the page that the first were shown.
    std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    assert_ne!(bench.lock_at(&server.index(), &["--offline"]).code, 0);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
}

/// Syncs a project whose lock asks for `a`, with an interpreter that only says what it is.
fn sync(bench: &Bench) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let python = bench.path("bin/python3.11");
    std::fs::create_dir_all(bench.path("bin")).unwrap();
    let says = format!(
        "#!/bin/sh\nprintf 'cpython\\n3.11.7\\n%s\\nglibc 2.36\\n' \"{}\"\n",
        python.display()
    );
    std::fs::write(&python, says).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        bench.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    bench.command(&["sync"]).env("PATH", path).run()
}

#[test]
fn metadata_beside_a_wheel_that_is_not_the_wheels() {
    // A consistent lie: the page promises the other metadata, and that is what is served.
    let honest = "Metadata-Version: 2.1\nName: a\nVersion: 1.0\n\n";
    let other = "Metadata-Version: 2.1\nName: a\nVersion: 1.0\nSummary: harmless\n\n";
    let hash = |text: &str| mlrails::digest::Digest::of(text.as_bytes()).hex();
    let server = Shelf {
        metadata: true,
        ..Shelf::default().wheel("a", "1.0", &[])
    }
    .edit(move |asked, answer| {
        if asked.path.ends_with(".metadata") {
            assert_eq!(answer.body, honest.as_bytes());
            return Answer {
                body: other.into(),
                ..answer
            };
        }
        match is_page(asked) {
            true => replaced(&answer, &hash(honest), &hash(other)),
            false => answer,
        }
    })
    .serve();
    let bench = asks_for_a();
    bench.lock(&server, &["--python", "3.11"]).expect(0);
    sync(&bench).expect(1).says(&[
        "error: the metadata of a-1.0-py3-none-any.whl is refused",
        "is not the .metadata that the index served",
        "hint: ",
    ]);
    assert!(
        !bench.path(".venv/lib/python3.11/site-packages/a").exists(),
        "nothing was installed"
    );
}

#[test]
fn sizes_that_are_not_the_files() {
    for (by, part) in [(-1, "is larger than"), (1, "is not what was promised")] {
        let server = Shelf {
            metadata: true,
            ..Shelf::default().wheel("a", "1.0", &[])
        }
        .edit(move |asked, answer| match is_page(asked) {
            true => {
                let mut page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                let size = &mut page["files"][0]["size"];
                *size = (size.as_i64().unwrap() + by).into();
                Answer {
                    body: page.to_string().into_bytes(),
                    ..answer
                }
            }
            false => answer,
        })
        .serve();
        let bench = asks_for_a();
        bench.lock(&server, &["--python", "3.11"]).expect(0);
        sync(&bench).expect(1).says(&["a-1.0-py3-none-any.whl", part]);
        assert!(
            !bench.path(".venv/lib/python3.11/site-packages/a").exists(),
            "nothing was installed"
        );
    }
}

#[test]
fn a_wheel_that_is_always_wrong_is_refused_and_one_that_was_cut_once_is_not() {
    for times in [1, u32::MAX] {
        let served = std::sync::Mutex::new(0);
        let server = Shelf {
            metadata: true,
            ..Shelf::default().wheel("a", "1.0", &[])
        }
        .edit(move |asked, answer| {
            let mut served = served.lock().unwrap();
            // Ranges are for names alone; the download asks for all.
            if !asked.path.ends_with(".whl") || asked.headers.contains_key("range") || *served == times {
                return answer;
            }
            *served += 1;
            let mut body = answer.body.clone();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            Answer { body, ..answer }
        })
        .serve();
        let bench = asks_for_a();
        bench.lock(&server, &["--python", "3.11"]).expect(0);
        let outcome = sync(&bench);
        match times {
            1 => drop(outcome.expect(0)),
            _ => drop(outcome.expect(1).says(&[
                "a-1.0-py3-none-any.whl",
                "is not what was promised",
                "hint: ",
            ])),
        }
    }
}

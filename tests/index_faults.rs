//! Indexes on bad days: connections that break, servers that are busy, slow or dead. What may pass is tried again; what does not
//! pass is told within a stated time, as exit 3.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::lock::{Bench, asks_for_a};
use crate::support::index::{Answer, Fault, Shelf};

/// Large enough that a body does not come in one piece with its head.
fn shelf(metadata: bool, without_ranges: bool) -> Shelf {
    let long = format!("Summary: {}", "word ".repeat(20_000));
    Shelf {
        metadata,
        without_ranges,
        ..Shelf::default().wheel("a", "1.0", &[&long, "Requires-Dist: b"])
    }
    .wheel("b", "1.0", &[])
}

/// An index that answers every address in a faulty way at first, and well on the third try.
fn twice(
    shelf: Shelf,
    fault: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> crate::support::index::Server {
    let tries: Mutex<HashMap<String, u32>> = Mutex::default();
    shelf
        .edit(move |asked, answer| {
            let mut tries = tries.lock().unwrap();
            let count = tries.entry(asked.path.clone()).or_default();
            *count += 1;
            if *count <= 2 { fault(answer) } else { answer }
        })
        .serve()
}

const PLACES: [fn(usize) -> usize; 4] = [|_| 0, |_| 1, |length| length / 2, |length| length - 1];

#[test]
fn connections_that_break_anywhere_are_made_again() {
    for place in PLACES {
        for fault in [Fault::Reset(place), Fault::End(place)] {
            for (metadata, without_ranges) in [(true, false), (false, false), (false, true)] {
                let server = twice(shelf(metadata, without_ranges), move |answer| answer.fault(fault));
                let bench = asks_for_a();
                bench.lock(&server, &[]).expect(0);
                assert_eq!(bench.locked(), ["a 1.0", "b 1.0"]);
            }
        }
    }
}

#[test]
fn busy_servers_are_asked_again() {
    for status in [408, 425, 429, 499, 500, 502, 503, 504, 522] {
        for after in [
            None,
            Some("0"),
            Some("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some("soon"),
        ] {
            let server = twice(shelf(true, false), move |_| {
                let answer = Answer::new(status, "text/plain", "later");
                match after {
                    Some(after) => answer.header("Retry-After", after),
                    None => answer,
                }
            });
            let bench = asks_for_a();
            bench.lock(&server, &[]).expect(0);
            assert_eq!(bench.locked(), ["a 1.0", "b 1.0"]);
        }
    }
}

#[test]
fn what_does_not_pass_is_exit_3_and_says_how_often_it_was_tried() {
    for status in [429, 503, 522] {
        let server = shelf(true, false)
            .edit(move |_, _| Answer::new(status, "text/plain", "try later"))
            .serve();
        asks_for_a().lock(&server, &[]).expect(3).says(&[
            "error: cannot read the page of `a`: ",
            &format!("/simple/a/ answered {status}"),
            "(5 tries): try later",
            "hint: ",
        ]);
        assert_eq!(server.asked().len(), 5);
    }
    for (place, part) in [(PLACES[0], "cannot reach"), (PLACES[3], "the body ended early")] {
        let server = shelf(true, false)
            .edit(move |_, answer| answer.fault(Fault::Reset(place)))
            .serve();
        asks_for_a()
            .lock(&server, &[])
            .expect(3)
            .says(&["`a`", part, "hint: "]);
        assert_eq!(server.asked().len(), 5);
    }
}

#[test]
fn what_is_final_is_asked_once() {
    for status in [400, 401, 403, 405, 451] {
        let server = shelf(true, false)
            .edit(move |_, _| Answer::new(status, "text/plain", "no"))
            .serve();
        asks_for_a()
            .lock(&server, &[])
            .expect(1)
            .says(&["`a`", &status.to_string()]);
        assert_eq!(server.asked(), ["/simple/a/"]);
    }
}

/// A server that makes no progress, or next to none, is given the stall time (30 s) five times, for each thing that is asked.
#[test]
fn dead_and_dripping_servers_are_left_at_the_deadline() {
    let lock = |bench: &Bench, url: &str| {
        bench
            .command(&["lock", "--index-url", url])
            .env("MLRAILS_HTTP_STALL_MS", "60")
            .run()
    };
    for fault in [
        Fault::Hang(|_| 0),
        Fault::Hang(|length| length / 2),
        Fault::Hang(|length| length - 1),
        Fault::Drip,
    ] {
        // The page, then the metadata, then the wheel itself.
        for (metadata, without_ranges, path) in [
            (true, false, "/simple/a/"),
            (true, false, ".metadata"),
            (false, false, "none-any.whl"),
            (false, true, "none-any.whl"),
        ] {
            let server = shelf(metadata, without_ranges)
                .edit(
                    move |asked, answer| match asked.path.contains("a-1.0") || path == "/simple/a/" {
                        true if asked.path.ends_with(path) => answer.fault(fault),
                        _ => answer,
                    },
                )
                .serve();
            lock(&asks_for_a(), &server.index())
                .expect(3)
                .says(&["next to no data for", "hint: "]);
            let tried = server
                .asked()
                .iter()
                .filter(|asked| asked.ends_with(path))
                .count();
            assert!((5..=6).contains(&tried), "{path}: {tried}");
        }
    }
}

#[test]
fn a_page_that_is_always_wrong_is_refused_and_not_kept() {
    // Half of the JSON, and a length that says that this is all.
    let server = shelf(true, false)
        .edit(|asked, answer| match asked.path.starts_with("/simple/") {
            true => Answer {
                body: answer.body[..answer.body.len() / 2].to_vec(),
                ..answer
            },
            false => answer,
        })
        .serve();
    let bench = asks_for_a();
    bench
        .lock(&server, &[])
        .expect(1)
        .says(&["the page of `a`", "is not the JSON of an index", "hint: "]);
    let sound = shelf(true, false).serve();
    bench.lock(&sound, &[]).expect(0);
}

#[test]
fn a_kept_page_answers_when_the_clock_is_wrong() {
    let server = Shelf {
        etag: true,
        ..shelf(true, false)
    }
    .serve();
    let bench = asks_for_a();
    bench.lock(&server, &[]).expect(0);
    let first = std::fs::read(bench.path("pylock.toml")).unwrap();
    for years in [-10i64, 10] {
        std::fs::remove_file(bench.path("pylock.toml")).unwrap();
        age(&bench.cache(), years * 365 * 86_400);
        server.asked();
        bench.lock(&server, &[]).expect(0);
        let asked = server.asked();
        assert!(
            asked.iter().all(|path| path.starts_with("/simple/")),
            "pages are confirmed, metadata is kept for good: {asked:?}"
        );
        assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), first);
        bench.lock(&server, &["--check"]).expect(0);
    }
}

/// Moves the moments at which pages were kept: as if the clock had been changed by as many seconds since.
fn age(folder: &std::path::Path, seconds: i64) {
    let mut moved = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let key = b"\"fetched\":";
            let Some(at) = bytes.windows(key.len()).position(|window| window == key) else {
                continue;
            };
            let start = at + key.len();
            let end = start
                + bytes[start..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
            let was: i64 = std::str::from_utf8(&bytes[start..end]).unwrap().parse().unwrap();
            // Ten digits in any case: the head's length stays as it is.
            let now = (was - seconds).to_string();
            assert_eq!(now.len(), end - start);
            let mut changed = bytes.clone();
            changed.splice(start..end, now.bytes());
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, changed).unwrap();
            moved += 1;
        }
    }
    assert!(moved >= 2, "the pages of a and b");
}

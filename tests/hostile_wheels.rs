//! Hostile wheels are refused, by a message that names the file, the entry and the rule; nothing of them is kept.
//!
//! | what is tried | where |
//! |---|---|
//! | `../`, absolute and backslash names, prefix siblings, control characters, empty names, chmod by name | `names_that_lead_elsewhere`, `file_names_that_are_no_wheels` |
//! | entry points that are paths | `entry_points_that_are_no_commands` |
//! | RECORD missing, with rows too many or leading out | `a_record_that_is_not_true` |
//! | central directory and local headers that disagree | `headers_that_disagree`, `data_descriptors_are_read_and_compared` |
//! | one name twice, wrong CRC, bzip2 and LZMA | `one_name_twice`, `content_that_is_not_what_was_promised` |
//! | bombs, overlapping entries | `bombs_stop_at_their_limits`, `bytes_that_belong_to_nothing` |
//! | links, devices, set-uid | `only_files_and_folders`, `what_the_environment_itself_is_made_of` |

use mlrails::layers::install::{self, Scheme};
use mlrails::layers::{Ingredients, LayerError, layer_from_wheels, open_wheel};
use mlrails::python::target::PythonVersion;
use mlrails::reporter::Silent;
use mlrails::store::Store;

use crate::support::wheels::{MakeWheel, Member, row};

const PYTHON: PythonVersion = PythonVersion::new(3, 11);

/// An error and its causes in one line, as people see it.
fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn attempt(file_name: &str, bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let digest = store.put(bytes).unwrap();
    let outcome = open_wheel(&store, file_name, &digest);
    let outcome = outcome.and_then(|wheel| {
        layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&wheel]), &Silent).map(|_| ())
    });
    outcome.map_err(|error: LayerError| {
        let blobs = store.blobs().unwrap();
        assert!(
            blobs.iter().all(|blob| *blob == digest),
            "something of it was kept"
        );
        message(&error)
    })
}

fn wheel() -> MakeWheel {
    MakeWheel::new("evil", "1.0").file("evil/__init__.py", "x = 1\n")
}

#[track_caller]
fn refused(wheel: &MakeWheel, parts: &[&str]) {
    let error = attempt(&wheel.file_name(), &wheel.build()).expect_err("accepted, and should be refused");
    assert!(
        error.contains("evil-1.0-py3-none-any.whl"),
        "the file is not named: {error}"
    );
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[track_caller]
fn accepted(wheel: &MakeWheel) {
    attempt(&wheel.file_name(), &wheel.build()).unwrap();
}

#[test]
fn the_sound_one_is_accepted() {
    accepted(&wheel());
}

#[test]
fn names_that_lead_elsewhere() {
    for (name, rule) in [
        ("../evil.py", "leads elsewhere"),
        ("evil/../../../site-packages-evil/x.py", "leads elsewhere"),
        ("../site-packages-evil/x.py", "leads elsewhere"),
        ("/etc/cron.d/x", "absolute"),
        ("evil\\..\\x.py", "backslash"),
        ("C:x.py", "drive"),
        ("evil//x.py", "empty"),
        ("evil/./x.py", "leads elsewhere"),
        ("evil/\u{1b}[2Jx.py", "control character"),
        ("evil/\nx.py", "control character"),
        ("evil/.wh.x", ".wh."),
        ("evil/.wh..wh..opq", ".wh."),
    ] {
        // Both with a RECORD that agrees and with the bit that pip once applied to whatever was named.
        refused(&wheel().file_with_mode(name, "x", 0o100_755), &[rule]);
    }
    refused(&wheel().file("", "x"), &["name is empty"]);
    let long = format!("evil/{}.py", "x".repeat(300));
    refused(&wheel().file(&long, "x"), &["longer than 255"]);
    // Shown escaped: a terminal must not obey a file name.
    let error = attempt(&wheel().file_name(), &wheel().file("evil/\u{1b}[2J", "").build()).unwrap_err();
    assert!(!error.contains('\u{1b}') && error.contains("\\u{1b}"), "{error}");
}

#[test]
fn file_names_that_are_no_wheels() {
    let bytes = wheel().build();
    for name in [
        "evil.whl",
        "../evil-1.0-py3-none-any.whl",
        "evil-1.0.tar.gz",
        "other-1.0-py3-none-any.whl",
    ] {
        let error = attempt(name, &bytes).unwrap_err();
        assert!(error.contains("refused"), "{name}: {error}");
    }
}

#[test]
fn entry_points_that_are_no_commands() {
    let check = |line: &str, rule: &str| {
        refused(
            &wheel().entry_points(&format!("[console_scripts]\n{line}\n")),
            &["entry_points.txt", rule],
        );
    };
    check("../x = evil:main", "no plain file name");
    check("/bin/sh = evil:main", "no plain file name");
    check("a\\b = evil:main", "no plain file name");
    check(".hidden = evil:main", "no plain file name");
    check("python = evil:main", "replace the interpreter");
    check("python3.11 = evil:main", "replace the interpreter");
    check("x = evil:main(); import os", "not of the form");
    check("x = evil\"; import os #:main", "not of the form");
    check("x = evil", "does not name a function");
    check("x", "has no `=`");
    check("x = evil:main\nx = evil:other", "twice");
}

#[test]
fn a_record_that_is_not_true() {
    refused(
        &wheel().members(|members| {
            members.pop();
        }),
        &["it has no evil-1.0.dist-info/RECORD"],
    );
    let with_row = |line: String| wheel().record(move |text| text.push_str(&line));
    refused(
        &with_row(row("evil/ghost.py", b"x")),
        &["it lists `evil/ghost.py`, which is not there"],
    );
    refused(
        &with_row(row("../../../bin/x", b"x")),
        &["RECORD", "leads elsewhere"],
    );
    refused(&with_row(row("/etc/passwd", b"x")), &["RECORD", "absolute"]);
    refused(
        &with_row(row("evil/__init__.py", b"other")),
        &["evil/__init__.py", "twice, differently"],
    );
    refused(&with_row("one,two\n".to_owned()), &["RECORD", "three fields"]);
    let without = |needle: &'static str| {
        wheel().record(move |text| {
            *text = text
                .lines()
                .filter(|line| !line.contains(needle))
                .map(|line| format!("{line}\n"))
                .collect()
        })
    };
    refused(
        &without("__init__"),
        &["evil/__init__.py", "RECORD does not list it"],
    );
    refused(&without("METADATA"), &["METADATA", "RECORD does not list it"]);
    let changed =
        |from: &'static str, to: &'static str| wheel().record(move |text| *text = text.replace(from, to));
    refused(&changed("sha256=", "md5="), &["not a sha256"]);
    refused(
        &changed(",6\n", ",7\n"),
        &["evil/__init__.py", "size is not what RECORD says"],
    );
    let hash = row("", b"x = 1\n")[8..16].to_owned();
    let wrong = wheel().record(move |text| *text = text.replace(&hash, "AAAAAAAA"));
    refused(&wrong, &["evil/__init__.py", "sha256 is not what RECORD says"]);
    let unhashed = wheel().record(|text| {
        let line = row("evil/__init__.py", b"x = 1\n");
        *text = text.replace(&line, "evil/__init__.py,,\n");
    });
    refused(&unhashed, &["evil/__init__.py", "no sha256"]);
}

#[test]
fn headers_that_disagree() {
    let differs = "local header and the central directory disagree";
    let edit = |edit: fn(&mut Member)| wheel().members(move |members| edit(&mut members[0]));
    refused(
        &edit(|member| member.local_name = Some(b"evil/__main__.py".to_vec())),
        &["evil/__init__.py", differs],
    );
    refused(
        &edit(|member| member.local_method = Some(0)),
        &["evil/__init__.py", differs],
    );
    refused(
        &edit(|member| member.local_crc32 = Some(7)),
        &["evil/__init__.py", differs],
    );
    refused(
        &edit(|member| member.local_size = Some(4)),
        &["evil/__init__.py", differs],
    );
    refused(
        &edit(|member| member.offset = Some(3)),
        &["bytes that belong to no entry"],
    );
    refused(&edit(|member| member.flags |= 1), &["encrypted"]);
    // Info-ZIP's Unicode Path: a second name in an extra field.
    let other = |member: &mut Member| {
        member.extra = [&[0x75, 0x70, 15, 0, 1, 0, 0, 0, 0][..], b"evil/x.py\0"].concat();
    };
    refused(&edit(other), &["another name"]);
    let wide = |member: &mut Member| {
        member.extra = [&[1, 0, 8, 0][..], &[0; 8], &[1, 0, 8, 0], &[0; 8]].concat();
    };
    refused(&edit(wide), &["two zip64 fields"]);
    refused(
        &edit(|member| member.name = b"evil/\xff.py".to_vec()),
        &["not marked as UTF-8"],
    );
}

#[test]
fn data_descriptors_are_read_and_compared() {
    let with = |head: &'static [u8], tail: &'static [u8], numbers: bool| {
        wheel().members(move |members| {
            for member in members {
                member.flags |= 1 << 3;
                let told = [member.crc32, member.raw.len() as u32, member.size].map(u32::to_le_bytes);
                let told = if numbers { told.concat() } else { Vec::new() };
                member.after = [head, &told, tail].concat();
                (member.local_crc32, member.local_size) = (Some(0), Some(0));
            }
        })
    };
    accepted(&with(b"", b"", true));
    accepted(&with(b"PK\x07\x08", b"", true));
    let missing = "data descriptor is missing or disagrees";
    refused(&with(b"", b"", false), &[missing]);
    refused(&with(&[0; 12], b"", false), &[missing]);
    refused(&with(b"", b"\0", true), &[missing]);
}

#[test]
fn one_name_twice() {
    let twice = |content: &'static str| {
        wheel().members(move |members| {
            members.insert(1, Member::deflated("evil/__init__.py", content.as_bytes()))
        })
    };
    refused(
        &twice("x = 2\n"),
        &["evil/__init__.py", "there twice, with different content"],
    );
    // Old tools wrote a file twice; nobody can be misled by that.
    accepted(&twice("x = 1\n"));
    refused(
        &wheel().file("evil/__init__.py/x.py", ""),
        &["evil/__init__.py/x.py", "a folder above it is a file"],
    );
}

#[test]
fn content_that_is_not_what_was_promised() {
    let edit = |edit: fn(&mut Member)| wheel().members(move |members| edit(&mut members[0]));
    refused(&edit(|member| member.crc32 ^= 1), &["evil/__init__.py", "CRC"]);
    refused(&edit(|member| member.raw[3] ^= 0x40), &["evil/__init__.py"]);
    for method in [12, 14, 93, 9] {
        let with = wheel().members(move |members| members[0].method = method);
        refused(&with, &["evil/__init__.py", "neither stored nor deflated"]);
    }
    // In metadata it is found on entry.
    let metadata = wheel().members(|members| members[1].crc32 ^= 1);
    refused(&metadata, &["METADATA", "CRC"]);
}

#[test]
fn bombs_stop_at_their_limits() {
    let promised = wheel()
        .record(|text| *text = text.replace(",6\n", ",4000000000\n"))
        .members(|members| members[0].size = 4_000_000_000);
    refused(&promised, &["over the limit"]);
    let hidden = wheel().members(|members| {
        members[0].raw = crate::support::wheels::deflate(&vec![0; 20_000_000], 9);
    });
    refused(&hidden, &["evil/__init__.py", "longer than the archive says"]);
    // Two entries over the same bytes: what makes small archives expand to petabytes.
    let overlapping = wheel().members(|members| {
        let again = Member {
            name: b"evil/again.py".to_vec(),
            offset: Some(0),
            ..members[0].clone()
        };
        members.push(again);
    });
    refused(&overlapping, &["past its place"]);
    let many = wheel().bytes(|bytes| {
        let at = bytes.len() - 14;
        bytes[at..at + 4].fill(0xff);
    });
    refused(&many, &["fewer entries"]);
}

#[test]
fn only_files_and_folders() {
    let mode = |mode: u32| wheel().file_with_mode("evil/x", "/etc/passwd", mode);
    refused(&mode(0o120_777), &["evil/x", "symbolic link"]);
    for device in [0o020_666, 0o060_666, 0o010_666, 0o140_777] {
        refused(&mode(device), &["evil/x", "not a regular file"]);
    }
    // Made harmless: what comes of them is in the tests of sound wheels.
    accepted(&mode(0o106_755));
    let folder = |content: &'static str| {
        wheel().members(move |members| {
            let mut folder = Member::stored("evil/", content.as_bytes());
            folder.mode = 0o040_777;
            members.insert(0, folder);
        })
    };
    accepted(&folder(""));
    refused(&folder("x"), &["evil/", "folder with content"]);
}

#[test]
fn bytes_that_belong_to_nothing() {
    let bytes = |edit: fn(&mut Vec<u8>)| wheel().bytes(edit);
    refused(
        &bytes(|bytes| drop(bytes.splice(0..0, *b"#!/bin/sh\n"))),
        &["not where the end record says"],
    );
    refused(
        &bytes(|bytes| bytes.extend(b"tail")),
        &["no end record ends where the file does"],
    );
    refused(
        &bytes(|bytes| bytes.truncate(bytes.len() - 1)),
        &["no end record"],
    );
    refused(&bytes(|bytes| bytes.truncate(10)), &["too short"]);
    refused(&bytes(Vec::clear), &["too short"]);
    let gap = wheel().members(|members| members[1].before = b"hidden".to_vec());
    refused(&gap, &["bytes that belong to no entry"]);
    // A second archive in the comment: readers that search from the other end would see it.
    let comment = |bytes: &mut Vec<u8>, comment: &[u8]| {
        let at = bytes.len() - 2;
        bytes.truncate(at);
        bytes.extend((comment.len() as u16).to_le_bytes());
        bytes.extend(comment);
    };
    let second = wheel().bytes(move |bytes| {
        let end = bytes[bytes.len() - 22..].to_vec();
        comment(bytes, &end);
    });
    refused(&second, &["two end records"]);
    let records = wheel().bytes(move |bytes| comment(bytes, b"PK\x05\x06 and so on, to no end at all"));
    refused(&records, &["comment contains zip records"]);
    accepted(&wheel().bytes(move |bytes| comment(bytes, b"made with care")));
    let divided = wheel().bytes(|bytes| {
        let at = bytes.len() - 18;
        bytes[at] = 1;
    });
    refused(&divided, &["divided archive"]);
}

#[test]
fn metadata_of_something_else() {
    refused(
        &wheel().file("other-2.0.dist-info/METADATA", "Name: other\n"),
        &["other-2.0.dist-info", "something else"],
    );
    refused(
        &wheel().file("Evil-1.0.dist-info/licenses/x", "x"),
        &["second folder of metadata"],
    );
    refused(
        &wheel().members(|members| {
            let at = members
                .iter()
                .position(|member| member.name.ends_with(b"/METADATA"))
                .unwrap();
            let text = b"Metadata-Version: 2.1\nName: good\nVersion: 1.0\n";
            members[at] = Member::deflated("evil-1.0.dist-info/METADATA", text);
        }),
        &["METADATA"],
    );
    refused(
        &wheel().about("Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"),
        &["Wheel-Version 2.0"],
    );
    refused(&wheel().about("Root-Is-Purelib: true\n"), &["one Wheel-Version"]);
    refused(&wheel().about("Wheel-Version: 1.0\n"), &["Root-Is-Purelib"]);
    refused(
        &wheel().file("evil-1.0.data/etc/passwd", "x"),
        &["evil-1.0.data/etc/passwd", "no installation has a place"],
    );
}

#[test]
fn what_the_environment_itself_is_made_of() {
    for path in [
        "data/pyvenv.cfg",
        "data/bin/python",
        "scripts/python3",
        "scripts/python3.11",
    ] {
        let wheel = wheel().file(&format!("evil-1.0.data/{path}"), "x");
        refused(&wheel, &["the environment's own"]);
    }
    let twice = wheel().file("evil-1.0.data/purelib/evil/__init__.py", "x = 2\n");
    refused(&twice, &["two files for", "evil/__init__.py"]);
    let sneaky = wheel().file(
        "evil-1.0.data/data/lib/python3.11/site-packages/evil/__init__.py",
        "x = 2\n",
    );
    refused(&sneaky, &["two files for"]);
}

#[test]
fn an_archive_that_was_cut_or_flipped_anywhere_never_panics() {
    let sound = wheel().build();
    let name = wheel().file_name();
    let mut survived = 0;
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x55;
        survived += usize::from(attempt_content(&name, &flipped));
        assert!(!attempt_content(&name, &sound[..at]), "cut at {at}");
    }
    // Times, versions and attributes are all that nobody has to agree on.
    assert!(
        survived < 120,
        "{survived} of {} flips were not noticed",
        sound.len()
    );
}

/// Whether these bytes are a wheel whose content can be installed.
fn attempt_content(name: &str, bytes: &[u8]) -> bool {
    let digest = mlrails::digest::Digest::of(bytes);
    mlrails::python::wheel::validate(name, digest, bytes).is_ok_and(|wheel| {
        install::place(&wheel, bytes, &Scheme::image(PYTHON)).is_ok()
            && wheel.entries.iter().all(|entry| wheel.read(bytes, entry).is_ok())
    })
}

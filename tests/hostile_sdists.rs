//! Source archives that try to get out, to be read in two ways, or to be too much: refused by name, with nothing outside of their folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mlrails::sdist::{self, SourceError, Unpacked};

use proptest::prelude::*;

use crate::support::sdists::{Tar, gzip};
use crate::support::store::amount;
use crate::support::wheels::{Member, zip};

/// Unpacks `bytes` in a folder of its own, and sees to it that nothing else in there changes.
fn unpacked(name: &str, bytes: &[u8], look: impl FnOnce(Result<Unpacked, SourceError>)) {
    let folder = tempfile::tempdir().unwrap();
    let (archive, into, outside) = (
        folder.path().join(name),
        folder.path().join("a/b/c/into"),
        folder.path().join("outside"),
    );
    fs::write(&archive, bytes).unwrap();
    fs::create_dir_all(&into).unwrap();
    fs::write(&outside, "as it was").unwrap();
    look(sdist::unpack(name, &fs::File::open(&archive).unwrap(), &into));
    assert_eq!(fs::read_to_string(&outside).unwrap(), "as it was");
    let mut left = Vec::new();
    files(folder.path(), &mut left);
    left.retain(|path| !path.starts_with(&into) && *path != archive && *path != outside);
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// Refused, with the archive, the entry (where it has come to one) and the rule.
#[track_caller]
fn refused(tar: Tar, entry: &str, rule: &str) {
    refused_bytes("demo-1.0.tar.gz", &gzip(&tar.end()), entry, rule);
}

#[track_caller]
fn refused_bytes(name: &str, bytes: &[u8], entry: &str, rule: &str) {
    unpacked(name, bytes, |found| {
        let error = found.expect_err(rule).to_string();
        // Who only looks into it is told the same.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        let file = fs::File::open(folder.path().join(name)).unwrap();
        assert_eq!(sdist::look(name, &file).unwrap_err().to_string(), error);
        assert!(error.contains(name), "{error}");
        assert!(error.contains(rule), "{error} (should say: {rule})");
        assert!(
            entry.is_empty() || error.contains(&format!("entry `{entry}`")),
            "{error}"
        );
    });
}

fn tar() -> Tar {
    Tar::default()
        .folder("demo-1.0")
        .file("demo-1.0/setup.py", "pass\n")
}

#[test]
fn what_projects_publish_is_unpacked() {
    let archive = tar()
        .link("demo-1.0/link", "docs/../setup.py")
        .folder("demo-1.0/docs/")
        .link("demo-1.0/docs/up", "../setup.py")
        .link("demo-1.0/later", "docs/nowhere")
        .hard_link("demo-1.0/twin", "demo-1.0/setup.py")
        .file("demo-1.0/setup.py", "pass\n")
        .pax(b'g', &[("comment", "0123456789abcdef")])
        .pax(
            b'x',
            &[("path", "demo-1.0/docs/ü.txt"), ("mtime", "1.5"), ("size", "2")],
        )
        .file("demo-1.0/docs/u.txt", "ü")
        .entry(
            b'L',
            "././@LongLink",
            "",
            format!("demo-1.0/{}\0", "x".repeat(150)).as_bytes(),
        )
        .file("demo-1.0/xxx", "long");
    unpacked("demo-1.0.tar.gz", &gzip(&archive.end()), |found| {
        let root = found.unwrap().root;
        assert!(root.ends_with("into/demo-1.0"));
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("link"), "pass\n");
        assert_eq!(read("docs/up"), "pass\n");
        assert_eq!(read("twin"), "pass\n");
        assert_eq!(read("docs/ü.txt"), "ü");
        assert_eq!(read(&"x".repeat(150)), "long");
        let status = fs::metadata(root.join("setup.py")).unwrap();
        assert_eq!(status.permissions().mode() & 0o7777, 0o644, "no setuid");
        let since = status
            .modified()
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        assert_eq!(since.as_secs(), 1_000_000_000);
    });
}

#[test]
fn nothing_gets_out() {
    refused(tar().file("../outside", "x"), "../outside", "leads elsewhere");
    refused(
        tar().file("demo-1.0/../../outside", "x"),
        "demo-1.0/../../outside",
        "leads elsewhere",
    );
    refused(tar().file("/tmp/x", "x"), "/tmp/x", "absolute");
    refused(tar().file("demo-1.0\\x", "x"), "demo-1.0\\x", "backslash");
    refused(
        tar().file("demo-1.0/a\nb", "x"),
        "demo-1.0/a\\nb",
        "control character",
    );
    refused(
        tar()
            .pax(b'x', &[("path", "demo-1.0/../../outside")])
            .file("demo-1.0/x", "x"),
        "demo-1.0/../../outside",
        "leads elsewhere",
    );
    refused(
        tar()
            .entry(b'L', "././@LongLink", "", b"../outside\0")
            .file("demo-1.0/x", "x"),
        "../outside",
        "leads elsewhere",
    );
}

#[test]
fn nothing_is_written_through_a_link() {
    for target in ["/tmp", "..", "../../../..", "docs"] {
        refused(
            tar()
                .folder("demo-1.0/docs")
                .link("demo-1.0/out", target)
                .file("demo-1.0/out/evil", "x"),
            "demo-1.0/out/evil",
            "`demo-1.0/out` above it is a link",
        );
    }
    // The link first, or last, or in place of what is there: the same.
    refused(
        tar().link("demo-1.0/setup.py", "../../outside"),
        "demo-1.0/setup.py",
        "there twice",
    );
    refused(
        tar()
            .link("demo-1.0/x", "../../outside")
            .file("demo-1.0/x", "evil"),
        "demo-1.0/x",
        "there twice",
    );
    refused(
        tar().file("demo-1.0/d/x", "x").link("demo-1.0/d", "/tmp"),
        "demo-1.0/d",
        "there twice",
    );
    refused(
        tar()
            .link("demo-1.0/d", "..")
            .hard_link("demo-1.0/d/x", "demo-1.0/setup.py"),
        "demo-1.0/d/x",
        "above it is a link",
    );
}

#[test]
fn links_stay_inside_at_every_step() {
    for target in ["/etc/passwd", "../../outside", "../..", "x/../../../outside"] {
        refused(tar().link("demo-1.0/l", target), "demo-1.0/l", "leads outside");
    }
    // Each step is inside, and what they come to is not.
    refused(
        tar()
            .folder("demo-1.0/d/e/f")
            .link("demo-1.0/d/e/f/up", "../..")
            .link("demo-1.0/l", "d/e/f/up/../../../.."),
        "demo-1.0/l",
        "through another link",
    );
    refused(
        tar().link("demo-1.0/one", "two").link("demo-1.0/two", "one"),
        "demo-1.0/one",
        "circles",
    );
    refused(tar().link("demo-1.0/self", "self"), "demo-1.0/self", "circles");
    refused(
        tar().hard_link("demo-1.0/h", "../outside"),
        "demo-1.0/h",
        "hard link to `../outside`",
    );
    refused(
        tar().hard_link("demo-1.0/h", "/etc/passwd"),
        "demo-1.0/h",
        "hard link to `/etc/passwd`",
    );
    refused(
        tar().hard_link("demo-1.0/h", "demo-1.0/none"),
        "demo-1.0/h",
        "no file before it",
    );
    refused(
        tar()
            .link("demo-1.0/l", "setup.py")
            .hard_link("demo-1.0/h", "demo-1.0/l"),
        "demo-1.0/h",
        "no file before it",
    );
}

#[test]
fn sizes_are_read_in_one_way() {
    // CVE-2025-62518: what one reader takes for content, another takes for entries.
    let hidden = Tar::default().file("demo-1.0/hidden", "evil").end();
    refused(
        tar()
            .pax(b'x', &[("size", &hidden.len().to_string())])
            .sized(b'0', "demo-1.0/x", "", &hidden, 0),
        "demo-1.0/x",
        "different sizes",
    );
    refused(
        tar().pax(b'x', &[("size", "0")]).file("demo-1.0/x", "content"),
        "demo-1.0/x",
        "different sizes",
    );
    refused(
        tar().pax(b'x', &[("size", "-1")]).file("demo-1.0/x", ""),
        "",
        "no number",
    );
    refused(
        tar()
            .pax(b'x', &[("size", "1"), ("size", "2")])
            .file("demo-1.0/x", "x"),
        "",
        "twice",
    );
    refused(
        tar().pax(b'g', &[("size", "5")]).file("demo-1.0/x", "x"),
        "",
        "global PAX header",
    );
    refused(
        tar().pax(b'g', &[("path", "demo-1.0/y")]).file("demo-1.0/x", "x"),
        "",
        "global PAX header",
    );
    refused(
        tar().entry(b'5', "demo-1.0/d", "", b"content"),
        "demo-1.0/d",
        "has content",
    );
    refused(
        tar().entry(b'2', "demo-1.0/l", "setup.py", b"content"),
        "demo-1.0/l",
        "has content",
    );
    refused(
        tar().sized(b'0', "demo-1.0/x", "", b"short", 1 << 20),
        "demo-1.0/x",
        "cut off",
    );
}

#[test]
fn headers_are_what_they_should_be() {
    for malformed in [
        "x path=a\n",
        "99 path=a\n",
        "9 path=ab\n",
        "12 path=ab\n",
        " path=a\n",
        "3 \n",
        "99999999999 path=a\n",
        "9 pathxa\n\n",
    ] {
        refused(
            tar()
                .entry(b'x', "PaxHeader", "", malformed.as_bytes())
                .file("demo-1.0/x", "x"),
            "",
            "PAX header is malformed",
        );
    }
    refused(
        tar().pax(b'x', &[("path", "a\0b")]).file("demo-1.0/x", "x"),
        "",
        "malformed",
    );
    refused(
        tar()
            .pax(b'x', &[("path", "demo-1.0/y")])
            .pax(b'x', &[("path", "demo-1.0/z")])
            .file("demo-1.0/x", "x"),
        "",
        "two headers of one kind",
    );
    refused(
        tar()
            .pax(b'x', &[("path", "demo-1.0/y")])
            .entry(b'L', "././@LongLink", "", b"demo-1.0/z\0")
            .file("demo-1.0/x", "x"),
        "",
        "given twice",
    );
    refused(tar().pax(b'x', &[("path", "demo-1.0/y")]), "", "not there");
    refused(
        tar()
            .pax(b'x', &[("hdrcharset", "BINARY")])
            .file("demo-1.0/x", "x"),
        "",
        "character set",
    );
    for key in ["GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.realsize"] {
        refused(
            tar().pax(b'x', &[(key, "1")]).file("demo-1.0/x", "x"),
            "",
            "sparse",
        );
    }
    refused(tar().entry(b'S', "demo-1.0/x", "", b""), "demo-1.0/x", "sparse");
    refused(tar().entry(b'3', "demo-1.0/x", "", b""), "demo-1.0/x", "device");
    refused(tar().entry(b'4', "demo-1.0/x", "", b""), "demo-1.0/x", "device");
    refused(tar().entry(b'6', "demo-1.0/x", "", b""), "demo-1.0/x", "FIFO");
    refused(
        tar().entry(b'7', "demo-1.0/x", "", b""),
        "demo-1.0/x",
        "neither a file",
    );
    refused(
        tar().file("demo-1.0/setup.py", "other\n"),
        "demo-1.0/setup.py",
        "different content",
    );
    refused(
        tar().file("demo-1.0/setup.py/x", "x"),
        "demo-1.0/setup.py/x",
        "is a file",
    );
    refused(tar().file("other/x", "x"), "", "one folder of its own");
    refused(Tar::default().file("setup.py", "x"), "", "one folder of its own");

    let mut behind = tar().end();
    behind.extend(Tar::default().file("demo-1.0/hidden", "evil").end());
    refused_bytes(
        "demo-1.0.tar.gz",
        &gzip(&behind),
        "",
        "bytes stand behind its end",
    );
    let members = [
        gzip(&tar().end()),
        gzip(&Tar::default().file("demo-1.0/hidden", "evil").end()),
    ]
    .concat();
    refused_bytes("demo-1.0.tar.gz", &members, "", "bytes stand behind its end");
    refused_bytes("demo-1.0.tar.gz", b"not gzip at all", "", "cannot be read");
    let whole = gzip(&tar().end());
    refused_bytes("demo-1.0.tar.gz", &whole[..whole.len() - 9], "", "cannot be read");
    refused_bytes("demo-1.0.tar.bz2", &whole, "", "neither a .tar.gz nor a .zip");
}

#[test]
fn what_is_too_much_is_stopped() {
    // A gigabyte of zeros in a megabyte, and no more of it on the disk than is let through.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder
        .write_all(&tar().sized(b'0', "demo-1.0/zeros", "", b"", 1 << 30).end()[..4 * 512])
        .unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    refused_bytes("demo-1.0.tar.gz", &bomb, "", "grows beyond");

    let deep = format!("demo-1.0/{}x", "d/".repeat(40));
    let deeper = format!("demo-1.0/{}x", "d/".repeat(100));
    refused(
        tar().pax(b'x', &[("path", &deeper)]).file("x", ""),
        "",
        "deeper than",
    );
    unpacked("demo-1.0.tar.gz", &gzip(&tar().file(&deep, "").end()), |found| {
        assert!(found.is_ok(), "{found:?}");
    });
    let long = format!("demo-1.0/{}", "x".repeat(300));
    refused(
        tar().pax(b'x', &[("path", &long)]).file("x", ""),
        "",
        "longer than 255 bytes",
    );
    let large = vec![b'x'; 2 << 20];
    refused(
        tar().entry(b'L', "././@LongLink", "", &large).file("x", ""),
        "",
        "larger than 1 MB",
    );
}

#[test]
fn a_zip_keeps_to_the_same_rules() {
    let of = |members: Vec<Member>| zip(&members);
    let setup = || Member::deflated("demo-1.0/setup.py", b"pass\n");
    unpacked(
        "demo-1.0.zip",
        &of(vec![setup(), Member::stored("demo-1.0/x", b"y")]),
        |found| {
            let root = found.unwrap().root;
            assert_eq!(fs::read_to_string(root.join("setup.py")).unwrap(), "pass\n");
            assert_eq!(fs::read_to_string(root.join("x")).unwrap(), "y");
        },
    );
    let refuse = |member: Member, entry: &str, rule: &str| {
        refused_bytes("demo-1.0.zip", &of(vec![setup(), member]), entry, rule);
    };
    refuse(
        Member::stored("../outside", b"x"),
        "../outside",
        "leads elsewhere",
    );
    refuse(Member::stored("/etc/x", b"x"), "/etc/x", "absolute");
    refuse(
        Member::stored("demo-1.0/setup.py/x", b"x"),
        "demo-1.0/setup.py/x",
        "is a file",
    );
    let mut link = Member::stored("demo-1.0/l", b"/etc");
    link.mode = 0o120_777;
    refuse(link, "demo-1.0/l", "symbolic link");
    let mut fifo = Member::stored("demo-1.0/f", b"");
    fifo.mode = 0o010_644;
    refuse(fifo, "demo-1.0/f", "neither a file nor a folder");
    let mut wrong = Member::stored("demo-1.0/x", b"x");
    wrong.crc32 ^= 1;
    refuse(wrong, "demo-1.0/x", "CRC");
    refused_bytes("demo-1.0.zip", b"PK\x03\x04", "", "");
}

#[test]
fn a_folder_is_copied_and_never_followed_out_of() {
    let outer = tempfile::tempdir().unwrap();
    let from = outer.path().join("project");
    fs::create_dir_all(from.join(".git")).unwrap();
    fs::create_dir_all(from.join("src")).unwrap();
    fs::write(from.join(".git/config"), "token").unwrap();
    fs::write(from.join("src/x.py"), "x = 1\n").unwrap();
    std::os::unix::fs::symlink("src/x.py", from.join("y.py")).unwrap();
    let copy = |name: &str| {
        let into = outer.path().join(name);
        fs::create_dir(&into).unwrap();
        sdist::copy(&from, &into)
    };
    let (one, other) = (copy("one").unwrap(), copy("other").unwrap());
    assert_eq!(one.content, other.content);
    assert_eq!(fs::read_to_string(one.root.join("y.py")).unwrap(), "x = 1\n");
    assert!(!one.root.join(".git").exists());
    fs::write(from.join("src/x.py"), "x = 2\n").unwrap();
    assert_ne!(copy("changed").unwrap().content, one.content);

    std::os::unix::fs::symlink("../..", from.join("src/out")).unwrap();
    let error = copy("out").unwrap_err().to_string();
    assert!(
        error.contains("`src/out`: it is a link that leads outside"),
        "{error}"
    );
    fs::remove_file(from.join("src/out")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(from.join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    let error = copy("pipe").unwrap_err().to_string();
    assert!(error.contains("`pipe`: it is a FIFO"), "{error}");
}

#[test]
fn damaged_archives_are_answered_and_stay_inside() {
    let whole = tar()
        .link("demo-1.0/link", "setup.py")
        .hard_link("demo-1.0/twin", "demo-1.0/setup.py")
        .pax(b'x', &[("path", "demo-1.0/docs/long"), ("size", "4")])
        .file("demo-1.0/docs/x", "text")
        .entry(b'L', "././@LongLink", "", b"demo-1.0/other\0")
        .file("demo-1.0/o", "more")
        .end();
    let headers = whole.len();
    // A changed byte in a header fails its checksum at once: most of the time the checksum is made right again.
    let damage = (0..headers, any::<u8>(), any::<bool>());
    let damages = (prop::collection::vec(damage, 1..6), 0..headers * 4);
    let config = ProptestConfig::with_cases(amount(150, 20_000));
    proptest!(config, |((changes, end) in damages)| {
        let mut bytes = whole.clone();
        for (at, value, again) in changes {
            bytes[at] = value;
            let block = at / 512 * 512;
            if again {
                let mut header = tar::Header::from_byte_slice(&bytes[block..block + 512]).clone();
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        bytes.truncate(end);
        unpacked("demo-1.0.tar.gz", &gzip(&bytes), |found| {
            if let Ok(found) = found {
                prop_assert_inside(&found.root);
            }
        });
    });
}

/// What was unpacked is reached without leaving it.
fn prop_assert_inside(root: &Path) {
    let mut found = Vec::new();
    files(root, &mut found);
    for path in found {
        if let Ok(real) = path.canonicalize() {
            assert!(real.starts_with(root), "{}", path.display());
        }
    }
}

#[test]
fn lock_refuses_them_and_keeps_nothing() {
    let info = "Metadata-Version: 2.2\nName: demo\nVersion: 1.0\n";
    let archive = tar()
        .file("demo-1.0/PKG-INFO", info)
        .link("demo-1.0/out", "../..")
        .file("demo-1.0/out/evil", "x");
    let bytes = gzip(&archive.end());
    let digest = mlrails::digest::Digest::of(&bytes).hex();
    let bench = crate::lock::Bench::new("dependencies = [\"evil-demo\"]");
    let server = crate::support::index::Shelf::default()
        .file("evil-demo", "evil_demo-1.0.tar.gz", bytes)
        .serve();
    bench.lock(&server, &[]).expect(1).says(&[
        "the source archive evil_demo-1.0.tar.gz is refused: entry `demo-1.0/out/evil`",
        "above it is a link",
        "hint: do not use this version",
    ]);
    assert!(!bench.path("pylock.toml").exists());
    let blob = format!("cache/v1/blobs/sha256/{}/{digest}", &digest[..2]);
    assert!(!bench.home().join(blob).exists());
}

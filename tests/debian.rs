//! The Debian base, from a signed archive to an image's files.

use mlrails::debian::{self, Archive, DebianError, Node, Rootfs, Wanted};
use mlrails::http::{Client, Options};
use mlrails::lock::base::{Base, Debian};
use mlrails::reporter::Silent;
use mlrails::store::Store;

use crate::support::debian::{Published, Server, real, write};

const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];

struct Machine {
    _folder: tempfile::TempDir,
    store: Store,
    client: Client,
}

fn machine() -> Machine {
    let folder = tempfile::tempdir().unwrap();
    Machine {
        store: Store::open(folder.path()).unwrap(),
        _folder: folder,
        client: Client::new(Options {
            pause: std::time::Duration::ZERO,
            ..Options::default()
        }),
    }
}

async fn resolve(machine: &Machine, archive: &Archive, packages: &[String]) -> Result<Debian, DebianError> {
    resolve_for(&PLATFORMS, machine, archive, packages).await
}

async fn resolve_for(
    platforms: &[&str],
    machine: &Machine,
    archive: &Archive,
    packages: &[String],
) -> Result<Debian, DebianError> {
    let wanted = Wanted {
        release: debian::release_with_python(3, 11).unwrap(),
        platforms,
        packages,
        locked: None,
    };
    debian::resolve(&machine.client, &machine.store, archive, &wanted, &Silent).await
}

async fn assemble(machine: &Machine, archive: &Archive, base: &Debian) -> Rootfs {
    for platform in PLATFORMS {
        debian::fetch(
            &machine.client,
            &machine.store,
            &archive.mirror,
            base,
            platform,
            &Silent,
        )
        .await
        .unwrap();
    }
    debian::rootfs(&machine.store, base, "linux/amd64").unwrap()
}

fn text(rootfs: &Rootfs, path: &str) -> String {
    match &rootfs.entries[path] {
        Node::File { content, .. } => String::from_utf8(content.to_vec()).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

#[tokio::test]
async fn a_base_is_made_of_a_signed_archive_and_nothing_else() {
    let (published, machine) = (Published::new(), machine());
    let archive = published.bookworm().archive();
    let base = resolve(&machine, &archive, &["libgomp1".to_owned()])
        .await
        .unwrap();
    assert_eq!((base.python.as_str(), base.glibc.as_str()), ("3.11.2", "2.36"));
    assert_eq!(
        base.date.to_string(),
        "2026-01-01T00:03:20Z",
        "the newest of the three"
    );
    let zlib = base.packages["linux/arm64"]
        .iter()
        .find(|deb| deb.name == "zlib1g")
        .unwrap();
    assert_eq!(zlib.version, "1.0-1+deb12u1", "the security archive's is higher");

    let rootfs = assemble(&machine, &archive, &base).await;
    let mut files: Vec<&str> = rootfs
        .entries
        .iter()
        .filter(|(path, node)| {
            !matches!(node, Node::Directory { .. }) && !path.starts_with("var/lib/dpkg/status.d/")
        })
        .map(|(path, _)| path.as_str())
        .collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [
            "bin",
            "etc/group",
            "etc/host.conf",
            "etc/localtime",
            "etc/nsswitch.conf",
            "etc/os-release",
            "etc/passwd",
            "etc/ssl/certs/ca-certificates.crt",
            "lib",
            "lib64",
            "sbin",
            "usr/bin/gomp-tool",
            "usr/bin/python",
            "usr/bin/python3",
            "usr/bin/python3.11",
            "usr/lib/locale/C.utf8/LC_CTYPE",
            "usr/lib/python3.11/lib-dynload/_json.cpython-311-triple.so",
            "usr/lib/python3.11/os.py",
            "usr/lib/ssl/cert.pem",
            "usr/lib/ssl/certs",
            "usr/lib/triple/gconv/UTF-16.so",
            "usr/lib/triple/libc.so.6",
            "usr/lib/triple/libgomp.so.1",
            "usr/lib/triple/libz.so.1",
            "usr/lib64/ld.so",
            "usr/share/doc/libc6/copyright",
            "var/lock",
            "var/run",
        ]
    );
    assert_eq!(
        text(&rootfs, "etc/ssl/certs/ca-certificates.crt"),
        "first\nsecond\n"
    );
    assert_eq!(text(&rootfs, "usr/lib/triple/libz.so.1"), "fixed");
    assert!(text(&rootfs, "etc/passwd").contains("nonroot:x:65532:65532:"));
    // Scanners read name and version here; files that are not in the image are not listed.
    let status = text(&rootfs, "var/lib/dpkg/status.d/libc6");
    assert!(
        status.starts_with("Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n"),
        "{status}"
    );
    let sums = text(&rootfs, "var/lib/dpkg/status.d/libc6.md5sums");
    assert_eq!(sums.lines().count(), 3, "{sums}");
    // The package's set-uid bit is not.
    assert!(matches!(
        rootfs.entries["usr/bin/python3.11"],
        Node::File { mode: 0o755, .. }
    ));
    assert!(matches!(rootfs.entries["tmp"], Node::Directory { mode: 0o1777 }));
    for path in rootfs.entries.keys() {
        let parent = path.rsplit_once('/').map(|(parent, _)| parent);
        assert!(
            parent.is_none_or(|parent| matches!(rootfs.entries[parent], Node::Directory { .. })),
            "{path} has no folder above it"
        );
    }
}

#[tokio::test]
async fn two_machines_make_the_same_base_and_a_lock_needs_no_archive() {
    let published = Published::new();
    let archive = published.bookworm().archive();
    let (one, other) = (machine(), machine());
    let base = resolve(&one, &archive, &[]).await.unwrap();
    let table = Base::Debian(base.clone()).to_table().unwrap();
    let text = toml::to_string(&table).unwrap();
    assert!(!text.contains("://"), "a lock names no host: {text}");
    assert_eq!(Base::from_table(&table).unwrap(), Base::Debian(base.clone()));
    assert_eq!(resolve(&other, &archive, &[]).await.unwrap(), base);
    let first = assemble(&one, &archive, &base).await;
    assert_eq!(assemble(&other, &archive, &base).await, first);

    // The archive is gone, and with it every key and date: what the store holds is enough.
    drop(published);
    assert_eq!(assemble(&one, &archive, &base).await, first);
    // A package that was damaged since is not used: it is asked for again.
    let deb = &base.packages["linux/amd64"][0];
    one.store.discard(&deb.digest).unwrap();
    let error = debian::rootfs(&one.store, &base, "linux/amd64").unwrap_err();
    assert!(matches!(error, DebianError::NotFetched(_)), "{error}");
}

#[tokio::test]
async fn a_package_that_left_the_mirror_is_in_the_dated_snapshot() {
    let (published, machine) = (Published::new(), machine());
    published.bookworm();
    let server = Server::start(published.folder.path());
    let mut archive = published.archive();
    archive.mirror = mlrails::debian::Mirror::parse(&format!("{}/debian", server.url)).unwrap();
    archive.mirror.snapshot = format!("{}/archive/", server.url).parse().ok();
    let base = resolve(&machine, &archive, &[]).await.unwrap();
    let gone = "pool/main/zlib1g_1.0-1+deb12u1_amd64.deb";
    let bytes = std::fs::read(published.path(&format!("debian-security/{gone}"))).unwrap();
    std::fs::remove_file(published.path(&format!("debian-security/{gone}"))).unwrap();

    let fetch = || {
        debian::fetch(
            &machine.client,
            &machine.store,
            &archive.mirror,
            &base,
            "linux/amd64",
            &Silent,
        )
    };
    let error = fetch().await.unwrap_err();
    assert!(
        matches!(&error, DebianError::Gone { name, .. } if name == "zlib1g"),
        "{error}"
    );
    let failure = mlrails::cli::Failure::from(error);
    assert_eq!(failure.code(), 3);
    assert!(failure.hints()[0].contains("lock --upgrade-base"), "{failure:?}");

    // The state of the day after the index was made is asked first, then that of its own time.
    let dated = published.path(&format!("archive/debian-security/20260101T000320Z/{gone}"));
    write(&dated, &bytes);
    fetch().await.unwrap();
    let asked = server.asked();
    let position = |part: &str| asked.iter().rposition(|path| path.contains(part)).unwrap();
    assert!(
        position("/archive/debian-security/20260102T000320Z/")
            < position("/archive/debian-security/20260101T000320Z/")
    );
}

#[tokio::test]
async fn what_debian_does_not_have_is_named() {
    let (published, machine) = (Published::new(), machine());
    let archive = published.bookworm().archive();
    let error = resolve(&machine, &archive, &["libgomp2".to_owned()])
        .await
        .unwrap_err();
    let failure = mlrails::cli::Failure::from(error);
    assert_eq!(
        (failure.code(), failure.message().unwrap()),
        (1, "Debian bookworm has no package `libgomp2` for amd64")
    );
    assert_eq!(failure.hints(), ["did you mean `libgomp1`?"]);
}

/// Debian's own signature, index and packages; its interpreter, run from a folder without root.
#[tokio::test]
async fn the_real_archive_gives_a_base_whose_interpreter_compiles() {
    let Some(archive) = real() else {
        return;
    };
    let machine = machine();
    let base = resolve_for(&["linux/amd64"], &machine, &archive, &["libgomp1".to_owned()])
        .await
        .unwrap();
    assert_eq!((base.python.as_str(), base.glibc.as_str()), ("3.11.2", "2.36"));
    debian::fetch(
        &machine.client,
        &machine.store,
        &archive.mirror,
        &base,
        "linux/amd64",
        &Silent,
    )
    .await
    .unwrap();
    let rootfs = debian::rootfs(&machine.store, &base, "linux/amd64").unwrap();
    let programs: Vec<&str> = rootfs
        .entries
        .keys()
        .filter(|path| path.starts_with("usr/bin/") || path.starts_with("usr/sbin/"))
        .map(String::as_str)
        .collect();
    assert_eq!(
        programs,
        ["usr/bin/python", "usr/bin/python3", "usr/bin/python3.11"]
    );
    assert!(
        text(&rootfs, "etc/ssl/certs/ca-certificates.crt")
            .matches("BEGIN CERTIFICATE")
            .count()
            > 100
    );
    assert!(text(&rootfs, "usr/lib/os-release").contains("VERSION_CODENAME=bookworm"));
    bytecode_does_not_depend_on_order(&machine.store, &base);
    the_standard_library_is_compiled(&machine.store, &base);
}

/// Compiled once, the standard library is not even unpacked again.
fn the_standard_library_is_compiled(store: &Store, base: &Debian) {
    use mlrails::layers::bytecode::{self, Bytecode};
    use mlrails::layers::interpreter::{self, Interpreter};
    let compile = || {
        let files = debian::BaseFiles::new(store, base, interpreter::PLATFORM);
        let key = interpreter::key(&Base::Debian(base.clone())).unwrap();
        let interpreter = Interpreter::of_debian(&files, key);
        let (unit, folder) = interpreter.standard_library().unwrap();
        assert_eq!(folder, "usr/lib/python3.11");
        match bytecode::compile(&interpreter, &[unit], &Silent).unwrap() {
            Bytecode::Made(units) => Some(
                units
                    .into_iter()
                    .flatten()
                    .collect::<std::collections::BTreeMap<_, _>>(),
            ),
            Bytecode::Impossible(_) => None,
        }
    };
    let Some(files) = compile() else {
        return;
    };
    assert!(files.contains_key("usr/lib/python3.11/json/__pycache__/decoder.cpython-311.pyc"));
    assert!(files.len() > 400, "{}", files.len());
    assert!(
        !files.keys().any(|path| path.contains("_sysconfigdata_")),
        "differs by platform"
    );
    for deb in &base.packages["linux/amd64"] {
        store.discard(&deb.digest).unwrap();
    }
    assert_eq!(compile().unwrap(), files);
}

fn bytecode_does_not_depend_on_order(store: &Store, base: &Debian) {
    use mlrails::layers::bytecode::{self, Bytecode, Unit};
    use mlrails::layers::interpreter::{self, Interpreter};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let folder = "/opt/venv/lib/python3.11/site-packages";
    let sources = BTreeMap::from([
        // One-character strings and names that may or may not have been interned before.
        (
            format!("{folder}/a.py"),
            "def f(*, x):\n    return '*', '/', x, {'b', 'a', 'c'}\n",
        ),
        (format!("{folder}/b.py"), "from os import *\n"),
        (
            format!("{folder}/c/__init__.py"),
            "# -*- coding: latin-1 -*-\nNAME = 'c'\n",
        ),
        (
            format!("{folder}/c/python2.py"),
            "print 'no module of this Python'\n",
        ),
    ]);
    let reads = AtomicUsize::new(0);
    let compile = |paths: Vec<String>, digest: &[u8]| {
        let unit = Unit {
            what: "a wheel".to_owned(),
            digest: mlrails::digest::Digest::of(digest),
            paths,
            read: Box::new(|path| {
                reads.fetch_add(1, Ordering::Relaxed);
                Ok(sources[path].as_bytes().into())
            }),
        };
        let files = debian::BaseFiles::new(store, base, interpreter::PLATFORM);
        let key = interpreter::key(&Base::Debian(base.clone())).unwrap();
        let interpreter = Interpreter::of_debian(&files, key);
        match bytecode::compile(&interpreter, &[unit], &Silent).unwrap() {
            Bytecode::Made(units) => Some(
                units
                    .into_iter()
                    .flatten()
                    .collect::<std::collections::BTreeMap<_, _>>(),
            ),
            // Another architecture: the reason is said, and there is nothing to compare.
            Bytecode::Impossible(reason) => {
                assert_ne!(
                    (std::env::consts::OS, std::env::consts::ARCH),
                    ("linux", "x86_64"),
                    "{reason}"
                );
                None
            }
        }
    };
    let forward: Vec<String> = sources.keys().cloned().collect();
    let backward: Vec<String> = sources.keys().rev().cloned().collect();
    let Some(first) = compile(forward.clone(), b"one") else {
        return;
    };
    let names: Vec<&str> = first
        .keys()
        .map(|path| path.rsplit_once("site-packages/").unwrap().1)
        .collect();
    assert_eq!(
        names,
        [
            "__pycache__/a.cpython-311.pyc",
            "__pycache__/b.cpython-311.pyc",
            "c/__pycache__/__init__.cpython-311.pyc"
        ]
    );
    for bytecode in first.values() {
        assert_eq!(
            bytecode.content[4..8],
            [1, 0, 0, 0],
            "PEP 552: by hash, and unchecked"
        );
    }
    assert_eq!(compile(backward, b"two").unwrap(), first);
    assert_eq!(reads.swap(0, Ordering::Relaxed), 8);
    assert_eq!(compile(forward.clone(), b"one").unwrap(), first);
    assert_eq!(
        reads.swap(0, Ordering::Relaxed),
        0,
        "a unit is compiled once, ever"
    );

    // An interpreter that was damaged in the cache is unpacked again.
    let interpreters = store.folder().join("interpreters");
    let root = std::fs::read_dir(&interpreters)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(root.join("usr/bin/python3.11"), "damaged").unwrap();
    assert_eq!(compile(forward, b"three").unwrap(), first);
}

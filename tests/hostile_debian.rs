//! Archives that lie, and packages that bite: refused, with the rule named, and nothing kept.
//!
//! | what is tried | where |
//! |---|---|
//! | broken `ar` members, entries that lead elsewhere | `a_package_of_another_shape_is_refused`, `entries_that_lead_elsewhere_are_refused` |
//! | endless streams | `endless_streams_stop_at_a_limit` |
//! | text around the signed text, changed text | `text_around_the_signed_text_is_refused`, `a_changed_text_is_refused` |
//! | unknown and expired signers, weak hashes | `an_unknown_or_expired_signer_and_a_weak_hash_are_refused`, `only_sha256_counts_and_it_must_fit` |
//! | an older date, another codename | `another_codename_and_an_older_date_are_refused` |

use mlrails::debian::archive::{self, Suite};
use mlrails::debian::{package, rootfs};
use mlrails::digest::Digest;
use mlrails::http::{Client, Options};
use mlrails::reporter::Silent;
use mlrails::store::Store;
use pgp::crypto::hash::HashAlgorithm;

use crate::support::debian::{BORN, Item, Key, Made, Published, ar, deb, file, gzip, tarball, write};

struct Case {
    published: Published,
    store: Store,
    _folder: tempfile::TempDir,
}

/// An archive with one suite, `bookworm`, published 1,000 seconds after its key was made.
fn case() -> Case {
    let folder = tempfile::tempdir().unwrap();
    let published = Published::new();
    published.suite("bookworm", 1000, &[Made::new("libc6", "2.36", "amd64", "")]);
    Case {
        published,
        store: Store::open(folder.path()).unwrap(),
        _folder: folder,
    }
}

impl Case {
    fn in_release(&self) -> std::path::PathBuf {
        self.published.path("debian/dists/bookworm/InRelease")
    }

    fn text(&self) -> String {
        self.published
            .index("bookworm", 1000, &[Made::new("libc6", "2.36", "amd64", "")])
            .0
    }

    /// Reads the suite's index and its list at `BORN + after`: the number of packages, or the error in one line.
    fn read(&self, after: i64) -> Result<usize, String> {
        let client = Client::new(Options::default());
        let origin = self.published.archive();
        let suite = Suite {
            name: "bookworm".to_owned(),
            root: origin.mirror.main.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let now = i64::from(BORN) + after;
            let release = archive::release(&client, &self.store, &origin.keys, &suite, now, &Silent)
                .await
                .map_err(shown)?;
            archive::packages(&client, &self.store, &suite, &release, "amd64", &Silent)
                .await
                .map(|entries| entries.len())
                .map_err(shown)
        })
    }

    fn refused(&self, after: i64, rule: &str) {
        match self.read(after) {
            Ok(count) => panic!("accepted {count} packages, though: {rule}"),
            Err(error) => assert!(error.contains(rule), "`{error}` is not about: {rule}"),
        }
    }
}

fn shown(error: archive::ArchiveError) -> String {
    let failure = mlrails::cli::Failure::from(error);
    assert_eq!(failure.code(), 1, "{failure:?}");
    failure.message().unwrap().to_owned()
}

#[test]
fn an_honest_archive_is_accepted_whatever_its_suite_is_called() {
    let case = case();
    assert_eq!(case.read(2000), Ok(1));
    // A release becomes oldstable: only its codename is compared.
    let text = case.text().replace("Suite: whatever", "Suite: oldoldstable");
    write(
        &case.in_release(),
        case.published.key.sign(&text, 1000).as_bytes(),
    );
    assert_eq!(case.read(2000), Ok(1));
    // The signature does not stop counting when the clock is slow.
    assert_eq!(case.read(-315_000_000), Ok(1));
}

#[test]
fn text_around_the_signed_text_is_refused() {
    let case = case();
    let signed = case.published.key.sign(&case.text(), 1000);
    let evil = "Codename: bookworm\nDate: Thu, 01 Jan 2026 01:00:00 UTC\nSHA256:\n";
    for (message, rule) in [
        (format!("{evil}\n{signed}"), "does not begin"),
        (format!("{signed}{evil}"), "text follows"),
        (
            signed.replacen("\n\n", "\nCodename: evil\n\n", 1),
            "something else than `Hash`",
        ),
        (
            signed.replacen(
                "-----BEGIN PGP SIGNATURE-----",
                "-----BEGIN PGP SIGNED MESSAGE-----",
                1,
            ),
            "begins with a dash",
        ),
    ] {
        write(&case.in_release(), message.as_bytes());
        case.refused(2000, rule);
    }
}

#[test]
fn a_changed_text_is_refused() {
    let case = case();
    let signed = case.published.key.sign(&case.text(), 1000);
    write(
        &case.in_release(),
        signed.replace("Origin: Test", "Origin: Evil").as_bytes(),
    );
    case.refused(2000, "does not fit the text");
}

#[test]
fn an_unknown_or_expired_signer_and_a_weak_hash_are_refused() {
    let case = case();
    write(
        &case.in_release(),
        Key::new(2, None).sign(&case.text(), 1000).as_bytes(),
    );
    case.refused(2000, "signed by an unknown key");

    let ring = |key: &Key, after: u32, now: u32| {
        key.ring()
            .verify(key.sign("text", after).as_bytes(), i64::from(BORN + now))
    };
    let short = Key::new(3, Some(500));
    assert_eq!(ring(&short, 400, 450).unwrap(), "text");
    // Expired when it signed; and since: whoever finds an old key can put any time into a signature.
    for (signed, now) in [(600, 700), (400, 700)] {
        let error = ring(&short, signed, now).unwrap_err().to_string();
        assert!(error.contains("expired"), "{error}");
    }
    let old = Key::rsa(4);
    let weak = old.sign_with("text", 1, HashAlgorithm::Sha1);
    let error = old.ring().verify(weak.as_bytes(), i64::from(BORN)).unwrap_err();
    assert!(error.to_string().contains("weak hash"), "{error}");
}

#[test]
fn one_good_signature_among_unknown_ones_is_enough() {
    let case = case();
    use pgp::composed::CleartextSignedMessage;
    let ours = case.published.key.sign("text", 1000);
    let theirs = Key::new(2, None).sign("text", 1000);
    let (first, _) = CleartextSignedMessage::from_string(&theirs).unwrap();
    let (second, _) = CleartextSignedMessage::from_string(&ours).unwrap();
    let both: Vec<_> = first
        .signatures()
        .iter()
        .chain(second.signatures())
        .cloned()
        .collect();
    let message = CleartextSignedMessage::new_many("text", |_| Ok(both)).unwrap();
    let message = message.to_armored_string(Default::default()).unwrap();
    assert_eq!(
        case.published
            .key
            .ring()
            .verify(message.as_bytes(), i64::from(BORN) + 2000)
            .unwrap(),
        "text"
    );
}

#[test]
fn another_codename_and_an_older_date_are_refused() {
    let case = case();
    let sign = |text: &str| write(&case.in_release(), case.published.key.sign(text, 1000).as_bytes());
    sign(&case.text().replace("Codename: bookworm", "Codename: bullseye"));
    case.refused(2000, "signed for `bullseye`, not for `bookworm`");

    sign(&case.text());
    assert_eq!(case.read(2000), Ok(1));
    case.published
        .suite("bookworm", 999, &[Made::new("libc6", "2.35", "amd64", "")]);
    case.refused(2000, "a mirror must not go back");
    // The same and a later one are fine.
    case.published.suite("bookworm", 1001, &[]);
    assert_eq!(case.read(2000), Ok(0));
}

#[test]
fn only_sha256_counts_and_it_must_fit() {
    let case = case();
    let sign = |text: &str| write(&case.in_release(), case.published.key.sign(text, 1000).as_bytes());
    sign(&case.text().replace("SHA256:", "SHA1:"));
    case.refused(2000, "no SHA256 section");
    sign(&case.text().replace("binary-amd64", "binary-mips"));
    case.refused(2000, "names none with a SHA-256");

    sign(&case.text());
    let list = case
        .published
        .path("debian/dists/bookworm/main/binary-amd64/Packages.xz");
    let bytes = std::fs::read(&list).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    write(&list, &changed);
    case.refused(2000, "should be sha256:");
    assert!(
        case.store.blob_size(&Digest::of(&changed)).is_none(),
        "nothing wrong is kept"
    );
    let mut longer = bytes;
    longer.push(0);
    write(&list, &longer);
    case.refused(2000, "should be sha256:");
}

/// The rule by which a package is refused.
fn rule(bytes: &[u8]) -> String {
    package::read("evil", bytes, |_| true).unwrap_err().to_string()
}

#[test]
fn a_package_of_another_shape_is_refused() {
    let control = gzip(&tarball(&[file("./control", "Package: a\n")]));
    let data = gzip(&tarball(&[]));
    let good: [(&str, &[u8]); 3] = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        ("data.tar.gz", &data),
    ];
    assert!(package::read("good", &ar(&good), |_| true).is_ok());
    assert!(
        package::read(
            "good",
            &ar(&[good[0], good[1], good[2], ("_later", b"x")]),
            |_| true
        )
        .is_ok()
    );
    let check = |members: &[(&str, &[u8])], expected: &str| {
        let found = rule(&ar(members));
        assert!(found.contains(expected), "`{found}` is not about: {expected}");
    };
    check(&[good[1], good[2]], "first member is not");
    check(&[("debian-binary", b"3.0\n"), good[1], good[2]], "not 2.0");
    check(&[good[0], good[2]], "`control.tar` should be here");
    check(&[good[0], good[1]], "`data.tar` is missing");
    check(
        &[good[0], good[1], good[2], ("evil", b"x")],
        "should not be there",
    );
    check(&[good[0], good[1], good[1], good[2]], "`data.tar` should be here");
    check(
        &[good[0], ("../ctl.tar.gz", &control), good[2]],
        "not a member's name",
    );
    check(
        &[good[0], ("control.tar.bz2", &control), good[2]],
        "`control.tar` should be here",
    );
    check(
        &[good[0], ("control.tar.gz", b"not gzip"), good[2]],
        "cannot be decompressed",
    );
    check(
        &[good[0], good[1], ("data.tar.xz", &data)],
        "cannot be decompressed",
    );
    check(
        &[good[0], good[1], ("data.tar.zst", &data)],
        "cannot be decompressed",
    );
    check(&[good[0], ("control.tar.gz", &data), good[2]], "no control file");

    let bytes = ar(&good);
    for (changed, expected) in [
        (bytes[..bytes.len() - 3].to_vec(), "cut off"),
        ([&bytes[..], b"rubbish"].concat(), "header is cut off"),
        (b"!<arch>".to_vec(), "not an `ar` archive"),
        (Vec::new(), "not an `ar` archive"),
        (
            String::from_utf8_lossy(&bytes[..200])
                .replace("`\n", "``")
                .into_bytes(),
            "header is broken",
        ),
    ] {
        let found = rule(&changed);
        assert!(found.contains(expected), "`{found}` is not about: {expected}");
    }
    let mut sized = bytes;
    sized[8 + 48..8 + 58].copy_from_slice(b"-1        ");
    assert!(rule(&sized).contains("not a number"));
}

#[test]
fn entries_that_lead_elsewhere_are_refused() {
    use tar::EntryType as Kind;
    let cases: Vec<(Vec<Item>, &str)> = vec![
        (vec![file("./usr/../../etc/passwd", "x")], "leads elsewhere"),
        (vec![file("/etc/passwd", "x")], "is absolute"),
        (vec![file("./usr//bin", "x")], "leads elsewhere"),
        (vec![file("./usr\\bin", "x")], "a backslash"),
        (vec![file("./usr/a\nb", "x")], "a control character"),
        (vec![file("./etc/.wh.passwd", "x")], "would delete"),
        (vec![Item::Special("./dev/sda", Kind::Block)], "neither a file"),
        (vec![Item::Special("./dev/tty", Kind::Char)], "neither a file"),
        (vec![Item::Special("./run/pipe", Kind::Fifo)], "neither a file"),
        (vec![Item::Special("./sparse", Kind::GNUSparse)], ""),
        (vec![Item::Hard("./a", "../../etc/shadow")], "leads elsewhere"),
        (vec![Item::Hard("./a", "/etc/shadow")], "is absolute"),
        (
            vec![Item::Hard("./a", "./b"), file("./b", "x")],
            "which is no file before it",
        ),
        (vec![Item::Link("./a", "")], ""),
        (vec![file("./a", "one"), file("./a", "other")], "there twice"),
        (
            vec![Item::Link("./etc", "/tmp"), file("./etc/passwd", "x")],
            "is not a folder",
        ),
        (
            vec![file("./etc", "x"), file("./etc/passwd", "x")],
            "is not a folder",
        ),
    ];
    for (items, expected) in cases {
        let found = rule(&deb("Package: evil\n", &items));
        assert!(found.contains(expected), "`{found}` is not about: {expected}");
        assert!(found.contains("evil"), "{found}");
    }
}

#[test]
fn set_uid_and_owners_are_made_harmless() {
    let bytes = deb(
        "Package: a\n",
        &[
            Item::File("./usr/bin/su", b"x".to_vec(), 0o4755),
            Item::Hard("./usr/bin/also", "./usr/bin/su"),
            file("./etc/a", "same"),
            file("./etc/a", "same"),
        ],
    );
    let read = package::read("a", &bytes, rootfs::is_wanted).unwrap();
    let executable = package::Entry::File {
        content: "x".into(),
        executable: true,
    };
    assert_eq!(read.entries["usr/bin/su"], executable);
    assert_eq!(read.entries["usr/bin/also"], executable);
    assert_eq!(read.entries.len(), 3);
}

#[test]
fn endless_streams_stop_at_a_limit() {
    let control = gzip(&tarball(&[file("./control", "Package: a\n")]));
    // 200 MB of one file in 0.9 MB of gzip.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(200 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bomb = header.as_bytes().to_vec();
    bomb.resize(200 << 20, 0);
    let packed = gzip(&bomb);
    let found = rule(&ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        ("data.tar.gz", &packed),
    ]));
    assert!(found.contains("grows beyond"), "{found}");

    // A zstd frame of run-length blocks: each 4 bytes become 128 KiB of zeros, after the header of a 1 TB file.
    header.set_size(1 << 40);
    header.set_cksum();
    let mut endless = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x38];
    let block = |last: u32, kind: u32, size: u32| (last | kind << 1 | size << 3).to_le_bytes();
    endless.extend(&block(0, 0, 512)[..3]);
    endless.extend(header.as_bytes());
    for _ in 0..4096 {
        endless.extend(&block(0, 1, 128 << 10)[..3]);
        endless.push(0);
    }
    let found = rule(&ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        ("data.tar.zst", &endless),
    ]));
    assert!(found.contains("grows beyond"), "{found}");
}

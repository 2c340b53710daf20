//! A small Debian archive, made and signed by the test with a key of its own: packages, indexes, a server on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mlrails::debian::{Archive, Keyring, Mirror};
use mlrails::digest::Digest;
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails as _, Password, SignedUser, Tag, Timestamp};
use rand::SeedableRng;

/// 2026-01-01; "now" for archives whose dates are around it is the machine's clock, which may be later.
pub const BORN: u32 = 1_767_225_600;

/// A key that signs archives.
pub struct Key {
    secret: SignedSecretKey,
    public: Vec<u8>,
}

impl Key {
    /// The key number `seed`, made at [`BORN`] and valid for `lifetime` seconds, or for ever.
    pub fn new(seed: u64, lifetime: Option<u32>) -> Self {
        Self::of(KeyType::Ed25519, seed, lifetime)
    }

    /// A key of a kind that may still sign weak hashes.
    pub fn rsa(seed: u64) -> Self {
        Self::of(KeyType::Rsa(2048), seed, None)
    }

    fn of(kind: KeyType, seed: u64, lifetime: Option<u32>) -> Self {
        let rng = rand::rngs::StdRng::seed_from_u64(seed);
        let secret = SecretKeyParamsBuilder::default()
            .key_type(kind)
            .can_sign(true)
            .can_certify(true)
            .created_at(Timestamp::from_secs(BORN))
            .primary_user_id("An archive <archive@example.invalid>".to_owned())
            .build()
            .unwrap()
            .generate(rng)
            .unwrap();
        let mut public = SignedPublicKey::from(secret.clone());
        if let Some(lifetime) = lifetime {
            let user = public.details.users[0].id.clone();
            let old = public.details.users[0].signatures[0].config().unwrap().clone();
            let mut config = SignatureConfig::v4(SignatureType::CertPositive, old.pub_alg, old.hash_alg);
            config.hashed_subpackets = old.hashed_subpackets.clone();
            config.hashed_subpackets.push(
                Subpacket::regular(SubpacketData::KeyExpirationTime(Duration::from_secs(lifetime))).unwrap(),
            );
            let signature = config
                .sign_certification(
                    &secret.primary_key,
                    secret.primary_key.public_key(),
                    &Password::empty(),
                    Tag::UserId,
                    &user,
                )
                .unwrap();
            public.details.users = vec![SignedUser::new(user, vec![signature])];
        }
        let public = public.to_bytes().unwrap();
        Self { secret, public }
    }

    /// Binary, as `gpg --export` writes it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    pub fn ring(&self) -> Keyring {
        Keyring::read(self.public()).unwrap()
    }

    /// `text`, clear-signed `after` seconds after [`BORN`].
    pub fn sign(&self, text: &str, after: u32) -> String {
        self.sign_with(text, after, HashAlgorithm::Sha256)
    }

    pub fn sign_with(&self, text: &str, after: u32, hash: HashAlgorithm) -> String {
        let key = &self.secret.primary_key;
        let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), hash);
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(
                BORN + after,
            )))
            .unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
        ];
        CleartextSignedMessage::new(text, config, key, &Password::empty())
            .unwrap()
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }
}

/// One entry of a package's data archive.
pub enum Item {
    File(&'static str, Vec<u8>, u32),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Special(&'static str, tar::EntryType),
}

pub fn file(path: &'static str, text: &str) -> Item {
    Item::File(path, text.as_bytes().to_vec(), 0o644)
}

/// A tar of `items`, each path written as it is: hostile ones too.
pub fn tarball(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, link: Option<&str>, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // `set_path` would refuse what a hostile archive holds.
        let name = header.as_old_mut();
        name.name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            name.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    for item in items {
        match item {
            Item::File(path, content, mode) => add(path, tar::EntryType::Regular, *mode, None, content),
            Item::Link(path, target) => add(path, tar::EntryType::Symlink, 0o777, Some(target), b""),
            Item::Hard(path, target) => add(path, tar::EntryType::Link, 0o644, Some(target), b""),
            Item::Special(path, kind) => add(path, *kind, 0o644, None, b""),
        }
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A valid `.xz` stream that compresses nothing: LZMA2 chunks of stored bytes.
///
/// Source: the .xz file format, version 1.2.1; LZMA2's chunk headers as XZ Utils documents them.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let variable = |mut value: u64| {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push((value as u8) | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    let pad = |out: &mut Vec<u8>| {
        while !out.len().is_multiple_of(4) {
            out.push(0);
        }
    };
    let flags = [0, 1];
    let mut out = vec![0xFD, b'7', b'z', b'X', b'Z', 0];
    out.extend(flags);
    out.extend(crc(&flags));
    // Block header: its size in words less one, one filter, LZMA2 with a 1 MiB dictionary, padding.
    let header = [2, 0, 0x21, 1, 16, 0, 0, 0];
    out.extend(header);
    out.extend(crc(&header));
    let start = out.len();
    for (index, chunk) in bytes.chunks(1 << 16).enumerate() {
        out.push(if index == 0 { 1 } else { 2 });
        out.extend(((chunk.len() - 1) as u16).to_be_bytes());
        out.extend(chunk);
    }
    out.push(0);
    let unpadded = (out.len() - start + header.len() + 4 + 4) as u64;
    pad(&mut out);
    out.extend(crc(bytes));
    let mut index = vec![0, 1];
    index.extend(variable(unpadded));
    index.extend(variable(bytes.len() as u64));
    pad(&mut index);
    let checksum = crc(&index);
    index.extend(checksum);
    let mut footer = ((index.len() / 4 - 1) as u32).to_le_bytes().to_vec();
    footer.extend(flags);
    out.extend(index);
    out.extend(crc(&footer));
    out.extend(footer);
    out.extend(b"YZ");
    out
}

/// An `ar` archive of `members`.
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        out.extend(
            format!(
                "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                0,
                0,
                0,
                100644,
                data.len()
            )
            .bytes(),
        );
        out.extend(*data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A package with this control file and these files.
pub fn deb(control: &str, items: &[Item]) -> Vec<u8> {
    let mut sums = String::new();
    for item in items {
        if let Item::File(path, ..) = item {
            sums.push_str(&format!(
                "00000000000000000000000000000000  {}\n",
                path.trim_start_matches("./")
            ));
        }
    }
    let control = tarball(&[
        Item::File("./control", control.as_bytes().to_vec(), 0o644),
        Item::File("./md5sums", sums.into_bytes(), 0o644),
        Item::File("./postinst", b"#!/bin/sh\nexit 1\n".to_vec(), 0o755),
    ]);
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &gzip(&control)),
        ("data.tar.xz", &xz(&tarball(items))),
    ])
}

/// A package before it is published.
pub struct Made {
    pub name: &'static str,
    pub version: &'static str,
    pub architecture: &'static str,
    /// Further control fields, `Depends: x\n`.
    pub fields: &'static str,
    pub items: Vec<Item>,
}

impl Made {
    pub fn new(
        name: &'static str,
        version: &'static str,
        architecture: &'static str,
        fields: &'static str,
    ) -> Self {
        Self {
            name,
            version,
            architecture,
            fields,
            items: Vec::new(),
        }
    }

    pub fn with(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }
}

/// An archive in a folder: `debian/` and `debian-security/`.
pub struct Published {
    pub folder: tempfile::TempDir,
    pub key: Key,
}

impl Published {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            key: Key::new(1, None),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Publishes a suite (`bookworm-security`) `after` seconds after [`BORN`].
    pub fn suite(&self, suite: &str, after: u32, packages: &[Made]) -> &Self {
        let (release, files) = self.index(suite, after, packages);
        let dists = self.path(&format!("{}/dists/{suite}", archive_of(suite)));
        for (path, bytes) in files {
            write(&dists.join(path), &bytes);
        }
        write(
            &dists.join("InRelease"),
            self.key.sign(&release, after).as_bytes(),
        );
        self
    }

    /// A suite's index text and the files that it names; writes the packages.
    pub fn index(&self, suite: &str, after: u32, packages: &[Made]) -> (String, BTreeMap<String, Vec<u8>>) {
        let archive = archive_of(suite);
        let mut lists: BTreeMap<&str, String> =
            BTreeMap::from([("amd64", String::new()), ("arm64", String::new())]);
        for package in packages {
            let control = format!(
                "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: a\n{}",
                package.name, package.version, package.architecture, package.fields
            );
            let bytes = deb(&control, &package.items);
            let filename = format!(
                "pool/main/{}_{}_{}.deb",
                package.name,
                package.version.replace(':', "."),
                package.architecture
            );
            write(&self.path(&format!("{archive}/{filename}")), &bytes);
            let stanza = format!(
                "{control}Filename: {filename}\nSize: {}\nMD5sum: 00\nSHA256: {}\n\n",
                bytes.len(),
                Digest::of(&bytes).hex()
            );
            for (architecture, list) in &mut lists {
                if package.architecture == "all" || package.architecture == *architecture {
                    list.push_str(&stanza);
                }
            }
        }
        let mut files = BTreeMap::new();
        let mut rows = String::new();
        for (architecture, list) in lists {
            let (path, bytes) = (
                format!("main/binary-{architecture}/Packages.xz"),
                xz(list.as_bytes()),
            );
            rows.push_str(&format!(" {} {} {path}\n", Digest::of(&bytes).hex(), bytes.len()));
            files.insert(path, bytes);
        }
        let date = jiff::Timestamp::from_second(i64::from(BORN + after)).unwrap();
        let date = date.strftime("%a, %d %b %Y %H:%M:%S UTC");
        let release = format!(
            "Origin: Test\nSuite: whatever\nCodename: {suite}\nDate: {date}\nMD5Sum:\n 00 0 x\nSHA256:\n{rows}"
        );
        (release, files)
    }

    /// A whole small release, `bookworm` with Python 3.11, for amd64 and arm64.
    pub fn bookworm(&self) -> &Self {
        let mut main = Vec::new();
        for name in [
            "base-files",
            "libgcc-s1",
            "libstdc++6",
            "media-types",
            "netbase",
            "tzdata",
            "zlib1g",
        ] {
            main.push(Made::new(name, "1.0-1", "all", ""));
        }
        main.push(
            Made::new("libc-bin", "2.36-9", "all", "Depends: libc6\n")
                .with(file("./usr/lib/locale/C.utf8/LC_CTYPE", "locale"))
                .with(Item::File("./sbin/ldconfig", b"program".to_vec(), 0o755)),
        );
        main.push(
            Made::new(
                "ca-certificates",
                "2023",
                "all",
                "Depends: openssl, debconf (>= 0.5) | debconf-2.0\n",
            )
            .with(file("./usr/share/ca-certificates/mozilla/B.crt", "second\n"))
            .with(file("./usr/share/ca-certificates/mozilla/A.crt", "first\n"))
            .with(Item::File(
                "./usr/sbin/update-ca-certificates",
                b"#!/bin/sh\n".to_vec(),
                0o755,
            )),
        );
        for architecture in ["amd64", "arm64"] {
            main.push(
                Made::new("libc6", "2.36-9", architecture, "")
                    .with(file("./lib/triple/libc.so.6", "libc"))
                    .with(Item::Link("./lib64/ld.so", "/lib/triple/ld.so"))
                    .with(file("./usr/lib/triple/gconv/BIG5.so", "big5"))
                    .with(file("./usr/lib/triple/gconv/UTF-16.so", "utf16"))
                    .with(file("./usr/share/doc/libc6/copyright", "GPL"))
                    .with(file("./usr/share/doc/libc6/changelog.gz", "long"))
                    .with(file("./usr/share/man/man1/x.1", "page")),
            );
            main.push(
                Made::new(
                    "python3.11-minimal",
                    "3.11.2-6",
                    architecture,
                    "Pre-Depends: libc6 (>= 2.35)\nDepends: dash, zlib1g (>= 1)\n",
                )
                .with(Item::File(
                    "./usr/bin/python3.11",
                    b"interpreter".to_vec(),
                    0o4755,
                )),
            );
            main.push(
                Made::new(
                    "libpython3.11-stdlib",
                    "3.11.2-6",
                    architecture,
                    "Depends: libreadline8 (>= 7), media-types | mime-support\n",
                )
                .with(file("./usr/lib/python3.11/os.py", "import this\n"))
                .with(Item::Link(
                    "./usr/lib/python3.11/sitecustomize.py",
                    "/etc/python3.11/sitecustomize.py",
                ))
                .with(file("./usr/lib/python3.11/test/test_os.py", "test"))
                .with(file(
                    "./usr/lib/python3.11/lib-dynload/readline.cpython-311-triple.so",
                    "readline",
                ))
                .with(file(
                    "./usr/lib/python3.11/lib-dynload/_json.cpython-311-triple.so",
                    "json",
                )),
            );
            main.push(
                Made::new("libgomp1", "12.2", architecture, "Depends: libc6\n")
                    .with(file("./usr/lib/triple/libgomp.so.1", "gomp"))
                    .with(Item::File("./usr/bin/gomp-tool", b"program".to_vec(), 0o755)),
            );
        }
        self.suite("bookworm", 0, &main);
        self.suite("bookworm-updates", 100, &[]);
        self.suite(
            "bookworm-security",
            200,
            &[
                Made::new("zlib1g", "1.0-1+deb12u1", "amd64", "")
                    .with(file("./usr/lib/triple/libz.so.1", "fixed")),
                Made::new("zlib1g", "1.0-1+deb12u1", "arm64", "")
                    .with(file("./usr/lib/triple/libz.so.1", "fixed")),
            ],
        )
    }

    /// The archive read from its folder, with no snapshots behind it.
    pub fn archive(&self) -> Archive {
        let mut mirror = Mirror::parse(&format!("file://{}", self.path("debian").display())).unwrap();
        mirror.snapshot = None;
        Archive {
            mirror,
            keys: self.key.ring(),
        }
    }
}

fn archive_of(suite: &str) -> &'static str {
    if suite.ends_with("-security") {
        "debian-security"
    } else {
        "debian"
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Serves a folder on loopback until the test process ends; remembers what was asked for.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, folder) = (asked.clone(), folder.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, folder) = (log.clone(), folder.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    let mut line = String::new();
                    if reader.read_line(&mut line).is_err() {
                        return;
                    }
                    let mut header = String::new();
                    while reader.read_line(&mut header).is_ok_and(|count| count > 2) {
                        header.clear();
                    }
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    log.lock().unwrap().push(path.clone());
                    let (status, body) = match std::fs::read(folder.join(path.trim_start_matches('/'))) {
                        Ok(body) => ("200 OK", body),
                        Err(_) => ("404 Not Found", Vec::new()),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream
                        .write_all(head.as_bytes())
                        .and_then(|()| stream.write_all(&body));
                });
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The slice of the real archive that `make setup` keeps in tests/store: signed by Debian, for amd64. None where setup has not
/// run, which is an error where all parts are required.
pub fn real() -> Option<Archive> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/debian");
    if !super::store::covered("Debian's own archive", &["debian/dists/bookworm/InRelease"]) {
        return None;
    }
    let mut mirror = Mirror::parse(&format!("file://{}", folder.display())).unwrap();
    mirror.snapshot = None;
    Some(Archive {
        mirror,
        keys: Keyring::embedded(),
    })
}

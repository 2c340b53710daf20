//! What an image must be, checked by hand from its bytes: no code of mlrails, and no tar or JSON of anybody else's image library.
//!
//! Peers forgive much (odd order, missing folders, a stray byte after the end). This does not: every digest and size, every diff_id,
//! every entry's path, order, mode, owner and time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::road::read_json;

const BLOCK: usize = 512;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without a slash at the end.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub mtime: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Folder,
    File { size: u64 },
    Link { target: String },
}

/// A layer as it stands in the manifest's order, lowest first.
pub struct Layer {
    pub created_by: String,
    pub entries: Vec<Entry>,
}

pub struct Image {
    pub manifest: Value,
    pub config: Value,
    pub layers: Vec<Layer>,
}

/// Reads the one image of `layout`, or panics with what is wrong.
pub fn validate(layout: &Path) -> Image {
    assert_eq!(
        std::fs::read_to_string(layout.join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
    let index = read_json(&layout.join("index.json"));
    assert_eq!(index["schemaVersion"], 2);
    let mut named = BTreeSet::new();
    let listed = index["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{index}");
    assert_eq!(listed[0]["mediaType"], MANIFEST);
    let manifest: Value = json(&content(layout, &listed[0], &mut named));
    assert_eq!(manifest["schemaVersion"], 2);
    assert_eq!(manifest["mediaType"], MANIFEST);
    assert_eq!(manifest["config"]["mediaType"], CONFIG);
    let config: Value = json(&content(layout, &manifest["config"], &mut named));
    assert_eq!(config["os"], "linux");
    assert_eq!(config["rootfs"]["type"], "layers");
    let descriptors = manifest["layers"].as_array().unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let history: Vec<&Value> = config["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["empty_layer"] != true)
        .collect();
    assert_eq!(
        (descriptors.len(), descriptors.len()),
        (diff_ids.len(), history.len())
    );
    let mut layers = Vec::new();
    for ((descriptor, diff_id), history) in descriptors.iter().zip(diff_ids).zip(history) {
        assert_eq!(descriptor["mediaType"], LAYER);
        let created_by = history["created_by"].as_str().unwrap().to_owned();
        let tar = gunzip(&content(layout, descriptor, &mut named), &created_by);
        assert_eq!(digest(&tar), diff_id.as_str().unwrap(), "{created_by}");
        let entries = entries(&tar, &created_by);
        in_order(&entries, &created_by);
        layers.push(Layer { created_by, entries });
    }
    let kept: BTreeSet<String> = std::fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|file| format!("sha256:{}", file.unwrap().file_name().into_string().unwrap()))
        .collect();
    assert_eq!(kept, named, "a blob that nothing names, or one that is not there");
    Image {
        manifest,
        config,
        layers,
    }
}

/// The union of the layers, as an engine would show it. A path never changes its kind from one layer to the next.
pub fn merged(image: &Image) -> BTreeMap<String, Entry> {
    let mut merged: BTreeMap<String, Entry> = BTreeMap::new();
    for layer in &image.layers {
        for entry in &layer.entries {
            let before = merged.insert(entry.path.clone(), entry.clone());
            if let Some(before) = before {
                let kinds = (
                    std::mem::discriminant(&before.kind),
                    std::mem::discriminant(&entry.kind),
                );
                assert_eq!(kinds.0, kinds.1, "{}: {before:?} {entry:?}", layer.created_by);
            }
        }
    }
    merged
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn content(layout: &Path, descriptor: &Value, named: &mut BTreeSet<String>) -> Vec<u8> {
    let name = descriptor["digest"].as_str().unwrap();
    let bytes = std::fs::read(layout.join("blobs/sha256").join(&name["sha256:".len()..])).unwrap();
    assert_eq!(digest(&bytes), name);
    assert_eq!(descriptor["size"], bytes.len(), "{name}");
    named.insert(name.to_owned());
    bytes
}

/// One gzip member with no name, comment or time in its head (RFC 1952), and nothing after it.
fn gunzip(bytes: &[u8], what: &str) -> Vec<u8> {
    assert_eq!(&bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "{what}");
    let mut rest = bytes;
    let mut tar = Vec::new();
    flate2::bufread::GzDecoder::new(&mut rest)
        .read_to_end(&mut tar)
        .unwrap();
    assert!(rest.is_empty(), "{what}: {} bytes after the member", rest.len());
    tar
}

/// POSIX ustar with pax records for what does not fit; every header's checksum, and the two zero blocks that end it.
fn entries(tar: &[u8], what: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut pax: BTreeMap<String, String> = BTreeMap::new();
    let mut at = 0;
    loop {
        let header = &tar[at..at + BLOCK];
        at += BLOCK;
        if header.iter().all(|byte| *byte == 0) {
            assert!(pax.is_empty(), "{what}");
            assert_eq!(
                &tar[at..],
                [0; BLOCK],
                "{what}: two zero blocks, and nothing after them"
            );
            return entries;
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            assert!(field[end..].iter().all(|byte| *byte == 0), "{what}");
            std::str::from_utf8(&field[..end]).unwrap().to_owned()
        };
        let number = |range: std::ops::Range<usize>| {
            let field = text(range);
            u64::from_str_radix(field.trim(), 8).unwrap_or_else(|_| panic!("{what}: {field:?}"))
        };
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(index, byte)| match (148..156).contains(&index) {
                true => u64::from(b' '),
                false => u64::from(*byte),
            })
            .sum();
        let stated = String::from_utf8_lossy(&header[148..156]);
        let stated = stated.trim_matches(['\0', ' ']);
        assert_eq!(u64::from_str_radix(stated, 8).unwrap(), sum, "{what}");
        assert_eq!(&header[257..265], b"ustar\x0000", "{what}");
        assert_eq!((number(108..116), number(116..124)), (0, 0), "{what}: owner");
        assert_eq!(
            (text(265..297), text(297..329)),
            (String::new(), String::new()),
            "{what}: names"
        );
        let kind = header[156];
        let mut size = number(124..136);
        if kind != b'x' {
            size = pax
                .get("size")
                .map_or(size, |size| size.parse().expect("a pax size"));
        }
        let held = usize::try_from(size).unwrap();
        let body = &tar[at..at + held];
        let padded = held.next_multiple_of(BLOCK);
        assert!(
            tar[at + held..at + padded].iter().all(|byte| *byte == 0),
            "{what}: padding"
        );
        at += padded;
        if kind == b'x' {
            assert!(pax.is_empty(), "{what}");
            pax = records(body);
            let known = ["path", "linkpath", "size"];
            assert!(
                pax.keys().all(|key| known.contains(&key.as_str())),
                "{what}: {pax:?}"
            );
            continue;
        }
        let prefix = text(345..500);
        let short = match prefix.is_empty() {
            true => text(0..100),
            false => format!("{prefix}/{}", text(0..100)),
        };
        let path = pax.remove("path").unwrap_or(short);
        let link = pax.remove("linkpath").unwrap_or_else(|| text(157..257));
        pax.remove("size");
        let kind = match kind {
            b'0' => Kind::File { size },
            b'5' => Kind::Folder,
            b'2' => Kind::Link { target: link.clone() },
            other => panic!("{what}: an entry of type {:?}", other as char),
        };
        assert!(kind == Kind::Folder || !path.ends_with('/'), "{what}: {path}");
        assert!(
            matches!(kind, Kind::Link { .. }) != link.is_empty(),
            "{what}: {path}"
        );
        assert!(
            matches!(kind, Kind::File { .. }) || size == 0,
            "{what}: {path} has bytes"
        );
        entries.push(Entry {
            path: path.trim_end_matches('/').to_owned(),
            kind,
            mode: u32::try_from(number(100..108)).unwrap(),
            mtime: number(136..148),
        });
    }
}

/// `LENGTH KEY=VALUE\n`, with a length that counts itself.
fn records(mut body: &[u8]) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&body[..space]).unwrap().parse().unwrap();
        let record = std::str::from_utf8(&body[space + 1..length]).unwrap();
        let (key, value) = record.strip_suffix('\n').unwrap().split_once('=').unwrap();
        assert!(records.insert(key.to_owned(), value.to_owned()).is_none());
        body = &body[length..];
    }
    records
}

/// Paths that stay inside; every folder before what is in it; sorted whole, or sorted folders and then a wheel's own order.
fn in_order(entries: &[Entry], what: &str) {
    let mut folders = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let path = &entry.path;
        assert!(
            path.split('/').all(|part| !["", ".", ".."].contains(&part)),
            "{what}: {path:?}"
        );
        assert!(!path.contains(['\\', '\0', '\n']), "{what}: {path:?}");
        assert!(
            !path.split('/').any(|part| part.starts_with(".wh.")),
            "{what}: {path}"
        );
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(folders.contains(parent), "{what}: {path} before its folder");
        }
        assert!(seen.insert(path.as_str()), "{what}: {path} twice");
        let modes: &[u32] = match &entry.kind {
            Kind::Folder => {
                folders.insert(path.as_str());
                match path.as_str() {
                    "root" => &[0o700],
                    "tmp" | "var/tmp" => &[0o1777],
                    _ => &[0o755],
                }
            }
            Kind::File { .. } => &[0o644, 0o755],
            Kind::Link { .. } => &[0o777],
        };
        assert!(
            modes.contains(&entry.mode),
            "{what}: {path} has mode {:o}",
            entry.mode
        );
    }
    let split = entries
        .iter()
        .position(|entry| entry.kind != Kind::Folder)
        .unwrap_or(entries.len());
    let sorted = |entries: &[Entry]| entries.is_sorted_by(|one, next| one.path < next.path);
    let folders_first = entries[split..].iter().all(|entry| entry.kind != Kind::Folder);
    assert!(
        sorted(entries) || folders_first && sorted(&entries[..split]),
        "{what}: neither sorted nor folders first"
    );
}

//! Imports only point down: reads the imports of src/ and defends the floors of ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room's floor, as ARCHITECTURE.md draws them. Rooms on one floor do not import each other, save where `PEERS` says.
const FLOORS: &[(&str, u8)] = &[
    ("cli", 7),
    ("image", 6),
    ("wheel", 6),
    ("verify", 6),
    ("build", 5),
    ("layers", 5),
    ("plan", 5),
    ("resolve", 4),
    ("base_image", 4),
    ("serving", 4),
    ("destination", 4),
    ("targets", 3),
    ("index", 3),
    ("debian", 3),
    ("registry", 3),
    ("run", 3),
    ("project", 2),
    ("lock", 2),
    ("oci", 2),
    ("sdist", 2),
    ("tree", 2),
    ("store", 2),
    ("fetch", 2),
    ("python", 1),
    ("digest", 1),
    ("deflate", 1),
    ("inflate", 1),
    ("http", 1),
    ("interrupt", 1),
    ("quantity", 1),
    ("regular", 1),
    ("whole", 1),
    ("reporter", 1),
];

/// Rooms that may import a room of their own floor, with the reason.
const PEERS: &[(&str, &str, &str)] = &[
    ("layers", "plan", "a layer is made from what the plan decided"),
    (
        "build",
        "layers",
        "what a build needs is installed by the one installer there is",
    ),
    ("tree", "store", "a tree's files may be the store's blobs"),
    ("python", "digest", "RECORD and wheels are told apart by digest"),
    ("python", "inflate", "a wheel's entries are deflate streams"),
    (
        "whole",
        "interrupt",
        "a file that is not finished is removed when the process is interrupted",
    ),
    ("fetch", "store", "a download ends in the store"),
    (
        "targets",
        "debian",
        "the releases that exist decide the default Python",
    ),
    ("index", "targets", "an index is asked on behalf of targets"),
];

fn floor(room: &str) -> u8 {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .unwrap_or_else(|| panic!("src/{room} stands on no floor: add it here and to ARCHITECTURE.md"))
        .1
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let room = first.trim_end_matches(".rs");
        if room == "main" || room == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // A test module may use anything: it proves the room, it is not part of it.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (_, rest) in text
            .match_indices("crate::")
            .map(|(at, found)| text.split_at(at + found.len()))
        {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if name == room || name.is_empty() {
                continue;
            }
            let peers = PEERS.iter().any(|(from, to, _)| *from == room && *to == name);
            if floor(&name) >= floor(room) && !peers {
                wrong.push(format!("{} imports crate::{name}", relative.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that do not point down:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_command_line_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        if file.starts_with(root.join("cli")) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for forbidden in ["println!(", "eprintln!(", "print!(", "eprint!("] {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", file.display());
        }
    }
}

//! Sound wheels are accepted and become layers; what goes in is what comes out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

use mlrails::digest::{Digest, Hashing};
use mlrails::layers::install::{self, Scheme};
use mlrails::layers::recipe::Recipe;
use mlrails::layers::{
    Ingredients, LayerError, MadeLayer, Ordered, Origin, layer_from_wheels, layers_from_wheels, open_wheel,
    refuse_collisions,
};
use mlrails::oci::LayerBytes;
use mlrails::python::target::PythonVersion;
use mlrails::python::wheel::{self, Wheel};
use mlrails::reporter::Silent;
use mlrails::store::Store;

use crate::support::store::{amount, covered};
use crate::support::wheels::{MakeWheel, real};

const PYTHON: PythonVersion = PythonVersion::new(3, 11);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn admit(store: &Store, made: &MakeWheel) -> Wheel {
    let digest = store.put(&made.build()).unwrap();
    open_wheel(store, &made.file_name(), &digest).unwrap()
}

fn sample() -> MakeWheel {
    MakeWheel::new("some_tool", "1.2")
        .file("some_tool/__init__.py", "VALUE = 1\n")
        .file("some_tool/data/caf\u{e9}.txt", "x".repeat(5000))
        .file("some_tool-1.2.data/scripts/old-style", "#!python\nprint('old')\n")
        .file("some_tool-1.2.data/data/share/some/thing", "shared")
        .file("some_tool-1.2.data/headers/tool.h", "#define TOOL\n")
        .file_with_mode("some_tool/bin/run", "#!/bin/sh\n", 0o104_755)
        .entry_points("[console_scripts]\nsome-tool = some_tool.cli:Main.run [fast]\n[other]\nx = y\n")
}

/// A layer's blob, checked against what the layer says of itself, as (path, mode, content).
fn contents(layer: &MadeLayer) -> Vec<(String, u32, Vec<u8>)> {
    let LayerBytes::File(path) = &layer.layer.bytes else {
        panic!("a layer of wheels is in the store");
    };
    let blob = std::fs::read(path).unwrap();
    assert_eq!(
        (Digest::of(&blob), blob.len() as u64),
        (layer.layer.digest, layer.layer.size)
    );
    let mut tar = Hashing::new(flate2::read::MultiGzDecoder::new(&blob[..]));
    let mut found = Vec::new();
    {
        let mut archive = tar::Archive::new(&mut tar);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            let mode = header.mode().unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((path, mode, content));
        }
    }
    std::io::copy(&mut tar, &mut std::io::sink()).unwrap();
    let (diff_id, size, _) = tar.finish();
    assert_eq!((diff_id, size), (layer.layer.diff_id, layer.uncompressed_size));
    found
}

#[test]
fn a_wheel_says_what_it_is() {
    let (_folder, store) = store();
    let wheel = admit(&store, &sample());
    assert_eq!(wheel.label(), "some-tool 1.2");
    assert_eq!(wheel.imports, ["some_tool"]);
    assert_eq!(
        (wheel.root_is_purelib, wheel.tags.clone()),
        (true, vec!["py3-none-any".to_owned()])
    );
    let script = &wheel.scripts[0];
    assert_eq!(
        (&*script.name, &*script.module, &*script.attribute),
        ("some-tool", "some_tool.cli", "Main.run")
    );
    let file = File::open(store.blob_path(&wheel.digest)).unwrap();
    let metadata = wheel.metadata_file(&file, "METADATA").unwrap().unwrap();
    assert!(metadata.starts_with(b"Metadata-Version: 2.1\nName: some_tool\n"));
    // The second time nothing is read: the record answers, though the bytes are gone.
    store.discard(&wheel.digest).unwrap();
    assert_eq!(
        open_wheel(&store, &wheel.file_name, &wheel.digest).unwrap(),
        wheel
    );
}

#[test]
fn a_layer_holds_the_installation() {
    let (_folder, store) = store();
    let wheel = admit(&store, &sample());
    let layer = layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&wheel]), &Silent).unwrap();
    assert_eq!(
        (layer.origin.clone(), layer.title.as_str()),
        (Origin::Made, "some-tool 1.2")
    );
    let found = contents(&layer);
    let listing: Vec<(&str, u32)> = found
        .iter()
        .map(|(path, mode, _)| (path.as_str(), *mode))
        .collect();
    let site = "opt/venv/lib/python3.11/site-packages";
    let at = |path: &str| format!("{site}/{path}");
    let expected = [
        ("opt/".to_owned(), 0o755),
        ("opt/venv/".to_owned(), 0o755),
        ("opt/venv/bin/".to_owned(), 0o755),
        ("opt/venv/include/".to_owned(), 0o755),
        ("opt/venv/include/site/".to_owned(), 0o755),
        ("opt/venv/include/site/python3.11/".to_owned(), 0o755),
        ("opt/venv/include/site/python3.11/some_tool/".to_owned(), 0o755),
        ("opt/venv/lib/".to_owned(), 0o755),
        ("opt/venv/lib/python3.11/".to_owned(), 0o755),
        (at(""), 0o755),
        (at("some_tool/"), 0o755),
        (at("some_tool-1.2.dist-info/"), 0o755),
        (at("some_tool/bin/"), 0o755),
        (at("some_tool/data/"), 0o755),
        ("opt/venv/share/".to_owned(), 0o755),
        ("opt/venv/share/some/".to_owned(), 0o755),
        (at("some_tool/__init__.py"), 0o644),
        (at("some_tool/data/caf\u{e9}.txt"), 0o644),
        ("opt/venv/bin/old-style".to_owned(), 0o755),
        ("opt/venv/share/some/thing".to_owned(), 0o644),
        (
            "opt/venv/include/site/python3.11/some_tool/tool.h".to_owned(),
            0o644,
        ),
        // Setuid in the wheel, and no more than executable here.
        (at("some_tool/bin/run"), 0o755),
        (at("some_tool-1.2.dist-info/entry_points.txt"), 0o644),
        (at("some_tool-1.2.dist-info/METADATA"), 0o644),
        (at("some_tool-1.2.dist-info/WHEEL"), 0o644),
        ("opt/venv/bin/some-tool".to_owned(), 0o755),
        (at("some_tool-1.2.dist-info/INSTALLER"), 0o644),
        (at("some_tool-1.2.dist-info/RECORD"), 0o644),
    ];
    let mut sorted: Vec<(&str, u32)> = expected
        .iter()
        .map(|(path, mode)| (path.as_str(), *mode))
        .collect();
    let mut got = listing.clone();
    assert_eq!(got[16..], sorted[16..], "files are in the wheel's order");
    sorted.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, sorted);

    let content: BTreeMap<&str, &str> = found
        .iter()
        .map(|(path, _, content)| (path.as_str(), std::str::from_utf8(content).unwrap()))
        .collect();
    assert_eq!(
        content["opt/venv/bin/old-style"],
        "#!/opt/venv/bin/python\nprint('old')\n"
    );
    assert_eq!(
        content["opt/venv/bin/some-tool"],
        "#!/opt/venv/bin/python\nimport sys\nfrom some_tool.cli import Main\nif __name__ == \"__main__\":\n    \
         sys.argv[0] = sys.argv[0].removesuffix(\".exe\")\n    sys.exit(Main.run())\n"
    );
    let rows =
        mlrails::python::record::parse(content[at("some_tool-1.2.dist-info/RECORD").as_str()]).unwrap();
    for row in &rows {
        let path = match row.path.strip_prefix("../../../") {
            Some(outside) => format!("opt/venv/{outside}"),
            None => at(&row.path),
        };
        let bytes = content[path.as_str()].as_bytes();
        if row.digest.is_some() {
            assert_eq!(
                (row.digest, row.size),
                (Some(Digest::of(bytes)), Some(bytes.len() as u64))
            );
        }
    }
    assert_eq!(rows.len(), expected.len() - 16, "every file has its row");

    // Made once, ever; and the same bytes in a store that knows nothing.
    let again = layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&wheel]), &Silent).unwrap();
    assert_eq!(
        (again.origin, again.layer.digest),
        (Origin::Stored, layer.layer.digest)
    );
    let (_other_folder, other) = self::store();
    let wheel = admit(&other, &sample());
    let elsewhere = layer_from_wheels(&other, &Ingredients::new(PYTHON, vec![&wheel]), &Silent).unwrap();
    assert_eq!(
        (elsewhere.origin, elsewhere.layer.digest),
        (Origin::Made, layer.layer.digest)
    );
}

#[test]
fn a_wheel_that_was_proven_once_is_not_believed_when_it_was_damaged_since() {
    let (_folder, store) = store();
    let wheel = admit(&store, &sample());
    let make = || layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&wheel]), &Silent);
    let first = make().unwrap();
    mlrails::layers::forget_layers(&store).unwrap();
    let again = make().unwrap();
    assert_eq!(
        (again.origin, again.layer.digest),
        (Origin::Made, first.layer.digest)
    );

    let path = store.blob_path(&wheel.digest);
    let sound = std::fs::read(&path).unwrap();
    for entry in wheel
        .entries
        .iter()
        .filter(|entry| entry.compressed_size > 8 && !entry.name.ends_with("/RECORD"))
    {
        mlrails::layers::forget_layers(&store).unwrap();
        let mut bytes = sound.clone();
        bytes[(entry.data_offset + entry.compressed_size / 2) as usize] ^= 4;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let error = make().unwrap_err();
        assert!(
            matches!(error, LayerError::Damaged { .. }),
            "{}: {error}",
            entry.name
        );
        std::fs::write(&path, &sound).unwrap();
    }
    mlrails::layers::forget_layers(&store).unwrap();
    assert_eq!(make().unwrap().layer.digest, first.layer.digest);
}

#[test]
fn two_wheels_with_one_path_are_refused_unless_they_agree() {
    let (_folder, store) = store();
    let make = |name: &str, content: &str| {
        admit(
            &store,
            &MakeWheel::new(name, "1")
                .file(&format!("{name}/__init__.py"), name)
                .file("tests/__init__.py", content),
        )
    };
    let (one, same, other) = (make("one", ""), make("same", ""), make("other", "x"));
    refuse_collisions(&store, PYTHON, &[&one, &same]).unwrap();
    let layer = layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&one, &same]), &Silent).unwrap();
    let shared = contents(&layer)
        .into_iter()
        .filter(|(path, ..)| path.ends_with("tests/__init__.py"));
    assert_eq!(shared.count(), 1);
    let error = refuse_collisions(&store, PYTHON, &[&one, &same, &other])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "one 1 and other 1 both bring lib/python3.11/site-packages/tests/__init__.py, with different content"
    );
    let folder = admit(
        &store,
        &MakeWheel::new("folder", "1").file("one/__init__.py/x.py", ""),
    );
    assert!(refuse_collisions(&store, PYTHON, &[&folder, &one]).is_err());
}

#[test]
fn a_tree_becomes_a_zip_that_everybody_reads() {
    use mlrails::tree::{PLAIN, Tree};
    let mut tree = Tree::new();
    let text = "from here import there\n".repeat(300);
    tree.insert_file("pkg/__init__.py", text.clone(), PLAIN).unwrap();
    tree.insert_file("pkg/caf\u{e9}.bin", vec![7u8; 3], 0o755)
        .unwrap();
    tree.insert_file("pkg/empty", Vec::new(), PLAIN).unwrap();
    let bytes = tree.to_zip(Vec::new(), 0).unwrap();
    assert_eq!(
        bytes,
        tree.to_zip(Vec::new(), 5).unwrap(),
        "before 1980 there is no time"
    );
    assert_ne!(bytes, tree.to_zip(Vec::new(), 1_700_000_000).unwrap());
    let members = mlrails::python::archive::members(&bytes[..]).unwrap();
    let found: Vec<(&str, u64, u32)> = members
        .iter()
        .map(|member| (member.name.as_str(), member.size, member.mode))
        .collect();
    let expected = [
        ("pkg/", 0, 0o040_755),
        ("pkg/__init__.py", text.len() as u64, 0o100_644),
        ("pkg/caf\u{e9}.bin", 3, 0o100_755),
        ("pkg/empty", 0, 0o100_644),
    ];
    assert_eq!(found, expected);
    let start = members[1].data_offset as usize;
    let stream = &bytes[start..start + members[1].compressed_size as usize];
    let mut content = String::new();
    flate2::read::DeflateDecoder::new(stream)
        .read_to_string(&mut content)
        .unwrap();
    assert!(stream.len() < 200 && content == text);
    tree.insert_symlink("pkg/link", "__init__.py").unwrap();
    assert!(tree.to_zip(Vec::new(), 0).is_err());
}

#[test]
fn a_wheel_that_changed_in_the_cache_is_found_out() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, store) = store();
    let wheel = admit(&store, &sample());
    let path = store.blob_path(&wheel.digest);
    let mut bytes = std::fs::read(&path).unwrap();
    let entry = wheel.entry("some_tool/data/caf\u{e9}.txt").unwrap();
    bytes[entry.data_offset as usize + 3] ^= 0x10;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let error = layer_from_wheels(&store, &Ingredients::new(PYTHON, vec![&wheel]), &Silent).unwrap_err();
    assert!(matches!(error, LayerError::Damaged { .. }), "{error}");
    assert!(!path.exists(), "it is downloaded again");
}

#[test]
fn real_wheels_are_accepted_and_come_out_whole() {
    if !covered("real wheels", &["wheels/"]) {
        return;
    }
    let wheels = real();
    let (_folder, store) = store();
    let scheme = Scheme::image(PYTHON);
    let mut opened = Vec::new();
    for path in wheels.iter().step_by(amount(4, 1) as usize) {
        let bytes = std::fs::read(path).unwrap();
        let digest = store.put(&bytes).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let wheel = open_wheel(&store, name, &digest).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let placed = install::place(&wheel, &bytes[..], &scheme).unwrap();
        assert!(placed.len() >= wheel.entries.len().min(3), "{name}");
        opened.push(wheel);
    }
    let ordered: Vec<Ordered> = opened
        .iter()
        .enumerate()
        .map(|(place, wheel)| Ordered {
            recipe: Recipe::new(PYTHON, [wheel.digest]),
            wheels: vec![place],
            size: wheel.size,
        })
        .collect();
    // They arrive one by one, the last first.
    let arriving: Vec<OnceLock<Wheel>> = opened.iter().map(|_| OnceLock::new()).collect();
    let layers = layers_from_wheels::<LayerError>(
        &store,
        &arriving,
        &ordered,
        |arrived| {
            for (place, wheel) in opened.iter().enumerate().rev() {
                arriving[place].get_or_init(|| wheel.clone());
                assert!(arrived(&[place]));
            }
            Ok(())
        },
        &|_| {},
        &Silent,
    )
    .unwrap();
    assert_eq!(layers.len(), opened.len());
    for (layer, wheel) in layers.iter().zip(&opened) {
        let found: BTreeMap<String, Digest> = contents(layer)
            .into_iter()
            .map(|(path, _, content)| (path, Digest::of(&content)))
            .collect();
        let file = File::open(store.blob_path(&wheel.digest)).unwrap();
        for placed in install::place(wheel, &file, &scheme).unwrap() {
            assert_eq!(
                found[&format!("opt/venv/{}", placed.path)],
                placed.digest,
                "{}",
                placed.path
            );
        }
        let entry = wheel.entries.last().unwrap();
        wheel::read_entry(&file, entry, &mut |_| Ok(())).unwrap();
    }
}

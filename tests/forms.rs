//! The forms that layers come in, and that what is in them does not depend on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::peers::succeeds;
use crate::support::road::{blob, image_of, read_json, road};
use crate::support::validator::{Entry, Kind, Layer, merged, validate};

fn diff_ids(layout: &Path) -> Value {
    image_of(layout).1["rootfs"]["diff_ids"].clone()
}

#[test]
fn zstd_layers_hold_the_same_and_are_made_once() {
    let Some(road) = road("layers compressed with zstd", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let image = |words: &[&str]| road.on(&project, &[&["image"], words].concat()).run();
    image(&["--compression", "zstd:1", "--verify"])
        .expect(0)
        .says(&["golden rows are answered by the image as in training"]);
    let layout = project.join("dist/churn");
    assert_eq!(diff_ids(&layout), diff_ids(&road.layout()));
    let (manifest, _) = image_of(&layout);
    let layers = manifest["layers"].as_array().unwrap().clone();
    for layer in &layers {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        let bytes = std::fs::read(blob(&layout, layer["digest"].as_str().unwrap())).unwrap();
        assert_eq!(bytes[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    }

    // Again: nothing is made, and nothing else comes of it. Another level and another form are other layers.
    image(&["--compression", "zstd:1"]).expect(0).says(&["(0 made"]);
    assert_eq!(image_of(&layout).0["layers"].as_array().unwrap(), &layers);
    image(&[]).expect(0);
    assert_eq!(image_of(&layout).0, image_of(&road.layout()).0);
    for wrong in ["lz4", "zstd:0", "zstd:99", "gzip:9"] {
        image(&["--compression", wrong])
            .expect(2)
            .says(&["is no compression of layers", "zstd:19"]);
    }

    // The project's word counts where the command line says nothing.
    let pyproject = project.join("pyproject.toml");
    let text = std::fs::read_to_string(&pyproject).unwrap();
    let configured = |line: &str| {
        std::fs::write(&pyproject, format!("{text}\n[tool.mlrails.image]\n{line}\n")).unwrap();
    };
    configured("compression = \"zstd:1\"");
    image(&[]).expect(0);
    assert_eq!(image_of(&layout).0["layers"].as_array().unwrap(), &layers);
    configured("compression = \"brotli\"");
    for command in ["image", "check"] {
        road.on(&project, &[command])
            .run()
            .expect(1)
            .says(&["[image] compression", "`brotli` is no compression of layers"]);
    }
}

#[test]
fn skopeo_reads_zstd_layers() {
    let Some(road) = road("zstd layers and skopeo", &["skopeo"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    road.on(&project, &["image", "--compression", "zstd:1"])
        .run()
        .expect(0);
    let layout = project.join("dist/churn");
    let copied = scratch.path().join("copied");
    // Decompressed by it, each layer is what the config says.
    succeeds(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-decompress"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("dir:{}", copied.display())),
    );
    let manifest: Value = read_json(&copied.join("manifest.json"));
    let layers = manifest["layers"].as_array().unwrap().iter();
    let digests: Vec<&Value> = layers.map(|layer| &layer["digest"]).collect();
    assert_eq!(json!(digests), diff_ids(&layout));
}

/// Walks every layer of an OCI layout as a snapshotter does: footer, table, each file by its offset. Says how many files it saw.
const READER: &str = r#"
import gzip, hashlib, io, json, pathlib, re, sys, tarfile, zlib
layout = pathlib.Path(sys.argv[1])
blob = lambda digest: (layout / "blobs" / digest.replace(":", "/")).read_bytes()
sha = lambda data: "sha256:" + hashlib.sha256(data).hexdigest()
manifest = json.loads(blob(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]))
config = json.loads(blob(manifest["config"]["digest"]))
def member(data, at):
    inflate = zlib.decompressobj(31)
    content = inflate.decompress(data[at:])
    assert inflate.eof
    return content
files = 0
for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
    data = blob(layer["digest"])
    footer = data[-51:]
    assert footer[:4] == b"\x1f\x8b\x08\x04" and footer[12:14] == b"SG", footer
    assert footer[10:12] == b"\x1a\x00" and footer[14:16] == b"\x16\x00", footer
    assert member(footer, 0) == b""
    at = int(re.fullmatch(rb"([0-9a-f]{16})STARGZ", footer[16:38])[1], 16)
    archive = tarfile.open(fileobj=io.BytesIO(member(data, at)))
    toc = archive.extractfile(archive.next()).read()
    assert archive.next() is None
    assert sha(toc) == layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"]
    whole = gzip.decompress(data)
    assert sha(whole) == diff_id
    assert str(len(whole)) == layer["annotations"]["io.containers.estargz.uncompressed-size"]
    table = json.loads(toc)
    assert table["version"] == 1
    there = tarfile.open(fileobj=io.BytesIO(whole)).getmembers()
    assert there[-1].name == "stargz.index.json" and there[0].name == ".no.prefetch.landmark"
    assert [m.name for m in there[:-1]] == [e["name"].rstrip("/") for e in table["entries"]]
    for entry, seen in zip(table["entries"], there):
        assert entry["mode"] == seen.mode and entry.get("linkName", "") == seen.linkname
        assert {"reg": seen.isreg(), "dir": seen.isdir(), "symlink": seen.issym()}[entry["type"]]
        if entry["type"] == "reg":
            size = entry.get("size", 0)
            content = member(data, entry["offset"])[:size] if size else b""
            assert len(content) == size == seen.size and sha(content) == entry["digest"], entry
            assert not size or entry["chunkDigest"] == entry["digest"]
            files += 1
print(files)
"#;

#[test]
fn lazy_layers_are_read_by_their_table_and_by_everybody() {
    let Some(road) = road("eStargz layers", &["skopeo"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    road.on(&project, &["image", "--lazy", "--no-bytecode", "--verify"])
        .run()
        .expect(0)
        .says(&["golden rows are answered by the image as in training"]);
    let layout = project.join("dist/churn");
    let files = succeeds(Command::new("python3").args(["-c", READER]).arg(&layout));
    let plain = validate(&road.layout());
    let is_file = |entry: &&Entry| matches!(entry.kind, Kind::File { .. });
    let is_compared = |layer: &&Layer| !layer.created_by.starts_with("mlrails: bytecode");
    let layers: Vec<&Layer> = plain.layers.iter().filter(is_compared).collect();
    let entries = layers.iter().flat_map(|layer| &layer.entries);
    let expected = entries.filter(is_file).count() + layers.len();
    assert_eq!(
        files.trim(),
        expected.to_string(),
        "every file, and a landmark in each layer"
    );

    // Twice the same, and made once.
    let manifest = image_of(&layout).0;
    road.on(&project, &["image", "--lazy", "--no-bytecode"])
        .run()
        .expect(0)
        .says(&["(0 made"]);
    assert_eq!(image_of(&layout).0, manifest);
    succeeds(
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-decompress"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("dir:{}", scratch.path().join("copied").display())),
    );
    road.on(&project, &["image", "--lazy", "--compression", "zstd"])
        .run()
        .expect(2);
}

#[test]
fn a_wheel_that_is_too_large_for_a_layer_is_divided() {
    let Some(road) = road("a wheel in several layers", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let pyproject = project.join("pyproject.toml");
    let text = std::fs::read_to_string(&pyproject).unwrap();
    let image = |line: &str| {
        std::fs::write(&pyproject, format!("{text}\n[tool.mlrails.image]\n{line}\n")).unwrap();
        road.on(&project, &["image"]).run()
    };
    let whole = validate(&road.layout());
    image("max-layer-size = \"9 MB\"").expect(0);
    let layout = project.join("dist/churn");
    let divided = validate(&layout);
    assert!(
        divided.layers.len() > whole.layers.len() + 3,
        "{}",
        divided.layers.len()
    );
    assert!(merged(&divided) == merged(&whole), "the same files");

    // Parts of one wheel share no file, and are about as heavy as one another.
    let mut parts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let descriptors = divided.manifest["layers"].as_array().unwrap();
    for (layer, descriptor) in divided.layers.iter().zip(descriptors) {
        if let Some((wheel, _)) = layer.created_by.split_once(", part ") {
            let sizes = parts.entry(wheel.to_owned()).or_default();
            sizes.push(descriptor["size"].as_u64().unwrap());
        }
    }
    assert!(parts.len() >= 2, "{parts:?}");
    for (wheel, sizes) in &parts {
        assert!(sizes.len() > 1, "{wheel}");
        assert!(sizes.iter().all(|size| *size < 14_000_000), "{wheel}: {sizes:?}");
    }
    for wrong in ["\"2\"", "\"10 kB\"", "\"-1 GB\"", "\"many\"", "2"] {
        image(&format!("max-layer-size = {wrong}"))
            .expect(1)
            .says(&["max-layer-size"]);
    }
}

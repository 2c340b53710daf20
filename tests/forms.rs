//! The forms that layers come in, and that what is in them does not depend on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::peers::succeeds;
use crate::support::road::{blob, image_of, read_json, road};
use crate::support::validator::{merged, validate};

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
    assert!(
        merged(&divided) == merged(&whole),
        "the same files, of the same content"
    );

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

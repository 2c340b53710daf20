//! An OCI layout folder: blobs by digest, and an `index.json` that names the image.
//!
//! Blobs are hard links to the store's where both are on one filesystem, so that a layout costs no space; a blob that
//! was hashed once is recognised by its stamp (size, inode, modification time), so publishing an unchanged image reads
//! none of it. `index.json` is replaced last, and only then go the blobs that nothing names any more.
//!
//! Source: OCI image-spec "Image Layout Specification".

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{CopyError, PublishError, Published, copy_layer, fault};
use crate::digest::Digest;
use crate::oci::image::media_type;
use crate::oci::{Layer, LayerBytes, Publishable};
use crate::reporter::{Reporter, Unit};
use crate::store::{Stamp, Store};
use crate::whole;

/// The content of `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Marks an `index.json` as ours: only then may blobs be dropped.
const OURS: &str = "dev.mlrails.layout";

/// Makes `folder` a layout of `image` alone, under the tag `name`. A folder with other things in it is refused.
pub fn publish(
    folder: &Path,
    name: &str,
    image: &Publishable,
    store: &Store,
    reporter: &dyn Reporter,
) -> Result<Published, PublishError> {
    prepare(folder)?;
    // Two builds into one folder take turns; the kernel lets go when a process dies.
    let lock = File::open(folder).map_err(fault("open", folder))?;
    lock.lock().map_err(fault("lock", folder))?;
    check_ours(folder)?;

    let layers = image.layers();
    let total = layers.iter().map(|layer| layer.size).sum();
    let task = reporter.start(&folder.display().to_string(), Unit::Bytes, Some(total));
    let outcome = fill(folder, name, image, &layers, store, &|count| {
        reporter.advance(task, count)
    });
    reporter.finish(task);
    let (reused, reused_layers) = outcome?;
    Ok(Published {
        digest: image.digest(),
        location: folder.display().to_string(),
        reused,
        reused_layers,
        sent: total - reused,
        sent_layers: layers.len() - reused_layers,
    })
}

/// Bytes and layers that were there already.
fn fill(
    folder: &Path,
    name: &str,
    image: &Publishable,
    layers: &[&Layer],
    store: &Store,
    advance: &dyn Fn(u64),
) -> Result<(u64, usize), PublishError> {
    let blobs = folder.join("blobs/sha256");
    let mut named = HashSet::new();
    let (mut reused, mut reused_layers) = (0, 0);
    for layer in layers {
        named.insert(layer.digest.hex());
        if place(layer, &blobs.join(layer.digest.hex()), store, advance)? == Placed::Found {
            reused += layer.size;
            reused_layers += 1;
            advance(layer.size);
        }
    }
    for (digest, bytes) in documents(image) {
        named.insert(digest.hex());
        let path = blobs.join(digest.hex());
        if !is_known(&path, &digest, store) {
            write_file(&path, 0o444, bytes)?;
            remember(&path, &digest, store);
        }
    }
    for (file, content) in [
        ("oci-layout", LAYOUT.to_vec()),
        ("index.json", index_json(image, &[name])?),
    ] {
        let path = folder.join(file);
        if fs::read(&path).ok().as_deref() != Some(&content) {
            write_file(&path, 0o644, &content)?;
        }
    }
    sweep(folder, &blobs, &named)?;
    Ok((reused, reused_layers))
}

/// The JSON blobs of `image`: configs, manifests, and the index of several.
pub(crate) fn documents(image: &Publishable) -> Vec<(Digest, &[u8])> {
    let mut documents: Vec<(Digest, &[u8])> = Vec::new();
    for one in image.images() {
        documents.push((one.config_digest(), &one.config));
        documents.push((one.digest(), &one.manifest));
    }
    if let Publishable::Index(index) = image {
        documents.push((index.digest(), &index.manifest));
    }
    documents
}

/// The layout's `index.json`: the image under each of `names`, which are tags or whole references.
pub(crate) fn index_json(image: &Publishable, names: &[&str]) -> Result<Vec<u8>, PublishError> {
    let entries: Vec<_> = names
        .iter()
        .map(|name| {
            let tag = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
            let mut annotations =
                json!({ "org.opencontainers.image.ref.name": tag.map_or(*name, |(_, tag)| tag) });
            if name.contains('/') {
                // What containerd, Docker and Podman call the image when they load it.
                annotations["io.containerd.image.name"] = (*name).into();
            }
            json!({
                "mediaType": image.media_type(),
                "digest": image.digest(),
                "size": image.manifest().len(),
                "annotations": annotations,
            })
        })
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": entries,
        "annotations": { OURS: "1" },
    });
    serde_json::to_vec(&index).map_err(|error| crate::oci::image::ConfigError::Encode(error).into())
}

fn prepare(folder: &Path) -> Result<(), PublishError> {
    let not_ours = || PublishError::NotALayout {
        path: folder.display().to_string(),
    };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if !folder.join("oci-layout").exists()
                && entries.next().is_some_and(|entry| !is_ours_unfinished(entry))
            {
                return Err(not_ours());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(not_ours()),
        Err(error) => return Err(fault("read", folder)(error)),
    }
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(fault("make", &blobs))?;
    for part in [folder.join("blobs"), blobs] {
        // A link would lead writes, and the sweep, out of the folder.
        if fs::symlink_metadata(&part)
            .map_err(fault("read", &part))?
            .is_symlink()
        {
            return Err(not_ours());
        }
    }
    Ok(())
}

/// Whether a build that was stopped before `oci-layout` was written left this: `blobs` and nothing else.
fn is_ours_unfinished(entry: io::Result<fs::DirEntry>) -> bool {
    entry.is_ok_and(|entry| {
        let name = entry.file_name();
        name == "blobs" || name.to_string_lossy().starts_with(whole::PREFIX)
    })
}

fn check_ours(folder: &Path) -> Result<(), PublishError> {
    let path = folder.join("index.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault("read", &path)(error)),
    };
    let index: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let is_empty = index["manifests"].as_array().is_some_and(Vec::is_empty);
    if is_empty || index["annotations"][OURS].is_string() {
        return Ok(());
    }
    Err(PublishError::Foreign {
        path: folder.display().to_string(),
    })
}

#[derive(PartialEq, Eq)]
enum Placed {
    Found,
    Written,
}

fn place(layer: &Layer, path: &Path, store: &Store, advance: &dyn Fn(u64)) -> Result<Placed, PublishError> {
    if is_known(path, &layer.digest, store) || is_sound(path, layer) {
        remember(path, &layer.digest, store);
        return Ok(Placed::Found);
    }
    match &layer.bytes {
        LayerBytes::File(source) if source.starts_with(store.folder()) => {
            // The link is to be worth as much as a copy that was hashed on the way.
            if !is_known(source, &layer.digest, store) {
                copy_layer(layer, &mut io::sink(), &|_| ()).map_err(|error| error.of(layer, source))?;
                remember(source, &layer.digest, store);
            }
            if link(source, path).is_err() {
                write_layer(layer, path, advance)?;
            } else {
                advance(layer.size);
            }
        }
        _ => write_layer(layer, path, advance)?,
    }
    remember(path, &layer.digest, store);
    Ok(Placed::Written)
}

fn link(source: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(source, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let folder = path.parent().unwrap_or(Path::new("."));
            whole::replace(folder, path, |name| fs::hard_link(source, name))
        }
        other => other,
    }
}

fn write_layer(layer: &Layer, path: &Path, advance: &dyn Fn(u64)) -> Result<(), PublishError> {
    enum Broken {
        Copy(CopyError),
        Io(io::Error),
    }
    impl From<io::Error> for Broken {
        fn from(error: io::Error) -> Self {
            Self::Io(error)
        }
    }
    whole::write(path, 0o444, |file| {
        copy_layer(layer, file, advance).map_err(Broken::Copy)
    })
    .map_err(|broken| match broken {
        Broken::Copy(error) => error.of(layer, path),
        Broken::Io(error) => fault("write", path)(error),
    })
}

fn write_file(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), PublishError> {
    whole::write(path, mode, |file| file.write_all(bytes)).map_err(fault("write", path))
}

/// Whether the blob at `path` was once hashed to `digest` and has not been written to since.
fn is_known(path: &Path, digest: &Digest, store: &Store) -> bool {
    stamp_key(path).is_some_and(|key| store.record::<Digest>("stamps", &key).as_ref() == Some(digest))
}

/// Keeps that the blob at `path` was just hashed. Not being able to only costs time later.
fn remember(path: &Path, digest: &Digest, store: &Store) {
    if let Some(key) = stamp_key(path)
        && store.record::<Digest>("stamps", &key).as_ref() != Some(digest)
    {
        let _ = store.keep_record("stamps", &key, digest);
    }
}

fn stamp_key(path: &Path) -> Option<String> {
    serde_json::to_string(&Stamp::of(path)?).ok()
}

/// Whether a file of this layer's size is there and hashes to it: a layout older than the store's memory of it.
fn is_sound(path: &Path, layer: &Layer) -> bool {
    let is_candidate =
        fs::symlink_metadata(path).is_ok_and(|data| data.is_file() && data.len() == layer.size);
    let there = Layer {
        bytes: LayerBytes::File(path.to_owned()),
        ..layer.clone()
    };
    is_candidate && copy_layer(&there, &mut io::sink(), &|_| ()).is_ok()
}

/// Removes blobs that nothing names, and temporaries of builds that were stopped.
fn sweep(folder: &Path, blobs: &Path, named: &HashSet<String>) -> Result<(), PublishError> {
    let mut stale: Vec<PathBuf> = Vec::new();
    for place in [folder, blobs] {
        for entry in fs::read_dir(place).map_err(fault("read", place))? {
            let entry = entry.map_err(fault("read", place))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_blob = place == blobs && Digest::from_hex(&name).is_ok();
            if name.starts_with(whole::PREFIX) || (is_blob && !named.contains(&name)) {
                stale.push(entry.path());
            }
        }
    }
    for path in stale {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fault("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

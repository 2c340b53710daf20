//! Layers, applied one over the other into a folder: to run what was built, without an engine and without root.
//!
//! Takes finished layers whose bytes are on this machine; verifies each blob's digest while reading it. Ownership is
//! not applied (nobody but root could), setuid bits never are, and nothing is written outside the folder: an entry
//! that would pass through a symlink is refused rather than followed.
//!
//! Source: OCI image-spec "Image Layer Filesystem Changeset", whiteouts included.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::digest::{Digest, Hashing};
use crate::oci::{Layer, LayerBytes};

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot read the layer {title}")]
    Read { title: String, source: io::Error },
    #[error("the layer {title} should be {expected} and is {actual}")]
    Corrupt {
        title: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("the layer {title} is not on this machine")]
    Elsewhere { title: String },
    #[error("the layer {title} holds `{entry}`: {rule}")]
    Entry {
        title: String,
        entry: String,
        rule: &'static str,
    },
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
}

/// Applies `layers`, lowest first, to the empty folder `root`.
pub fn unpack(layers: &[Layer], root: &Path) -> Result<(), UnpackError> {
    for layer in layers {
        apply(layer, root)?;
    }
    Ok(())
}

fn apply(layer: &Layer, root: &Path) -> Result<(), UnpackError> {
    let title = || layer.created_by.clone();
    let read = |source| UnpackError::Read {
        title: title(),
        source,
    };
    let blob: Box<dyn Read> = match &layer.bytes {
        LayerBytes::File(path) => Box::new(File::open(path).map_err(read)?),
        LayerBytes::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        LayerBytes::Remote(_) => return Err(UnpackError::Elsewhere { title: title() }),
    };
    let mut hashed = Hashing::new(io::BufReader::with_capacity(256 << 10, blob));
    let mut archive = tar::Archive::new(layer.media_type.decoded(&mut hashed).map_err(read)?);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let path = entry.path().map_err(read)?.into_owned();
        let refuse = |rule| UnpackError::Entry {
            title: title(),
            entry: path.display().to_string(),
            rule,
        };
        let target = inside(root, &path).map_err(refuse)?;
        let write = |source| UnpackError::Write {
            path: target.display().to_string(),
            source,
        };
        if target == root {
            continue;
        }
        let name = target
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let folder = target.parent().unwrap_or(root);
        if name == ".wh..wh..opq" {
            for child in fs::read_dir(folder).map_err(write)? {
                remove(&child.map_err(write)?.path()).map_err(write)?;
            }
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(&folder.join(hidden)).map_err(write)?;
            continue;
        }
        fs::create_dir_all(folder).map_err(write)?;
        let mode = entry.header().mode().map_err(read)? & 0o777;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                // A directory replaces what is no directory (a base's symlink), and is merged with one that is.
                if fs::symlink_metadata(&target).is_ok_and(|data| !data.is_dir()) {
                    remove(&target).map_err(write)?;
                }
                fs::create_dir_all(&target).map_err(write)?;
                // The owner must be able to go on writing below it.
                fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o700)).map_err(write)?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                remove(&target).map_err(write)?;
                let mut file = File::create_new(&target).map_err(write)?;
                io::copy(&mut entry, &mut file).map_err(write)?;
                file.set_permissions(fs::Permissions::from_mode(mode))
                    .map_err(write)?;
            }
            tar::EntryType::Symlink => {
                let link = entry
                    .link_name()
                    .map_err(read)?
                    .ok_or_else(|| refuse("a link to nowhere"))?;
                remove(&target).map_err(write)?;
                std::os::unix::fs::symlink(&link, &target).map_err(write)?;
            }
            tar::EntryType::Link => {
                let link = entry
                    .link_name()
                    .map_err(read)?
                    .ok_or_else(|| refuse("a link to nowhere"))?;
                let source = inside(root, &link).map_err(refuse)?;
                remove(&target).map_err(write)?;
                fs::hard_link(&source, &target).map_err(write)?;
            }
            // Devices and pipes cannot be made without root, and nothing that is served needs one.
            _ => {}
        }
    }
    drop(archive);
    io::copy(&mut hashed, &mut io::sink()).map_err(read)?;
    let (actual, _, _) = hashed.finish();
    if actual != layer.digest {
        return Err(UnpackError::Corrupt {
            title: title(),
            expected: layer.digest,
            actual,
        });
    }
    Ok(())
}

/// `path` below `root`, if no part of it climbs out or passes through a symlink.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, &'static str> {
    let mut target = root.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::CurDir | Component::RootDir => continue,
            Component::ParentDir | Component::Prefix(_) => return Err("it climbs out of the image"),
        }
        if parts.peek().is_some() && fs::symlink_metadata(&target).is_ok_and(|data| data.is_symlink()) {
            target = followed(root, &target)?;
        }
    }
    Ok(target)
}

/// Where a symlinked folder of the image leads (`/lib` → `usr/lib`), if that is inside and one step away.
fn followed(root: &Path, link: &Path) -> Result<PathBuf, &'static str> {
    let to = fs::read_link(link).map_err(|_| "a link that cannot be read")?;
    let base = if to.is_absolute() {
        root
    } else {
        link.parent().unwrap_or(root)
    };
    let mut target = base.to_owned();
    for part in to.components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err("it passes through a link that climbs");
            }
        }
    }
    match fs::symlink_metadata(&target) {
        Ok(data) if data.is_dir() => Ok(target),
        _ => Err("it passes through a link that is no folder of the image"),
    }
}

/// Where `path` of the image is below `root`, its links followed as they are meant in the image.
pub fn find(root: &Path, path: &str) -> Option<PathBuf> {
    through(root, path, MOST_LINKS)
}

const MOST_LINKS: u32 = 8;

/// The file that `path` is in the image, with links followed inside `root`; `None` if there is none.
fn through(root: &Path, path: &str, links: u32) -> Option<PathBuf> {
    let mut found = root.to_owned();
    let mut parts = Path::new(path).components();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            continue;
        };
        found.push(name);
        let data = fs::symlink_metadata(&found).ok()?;
        if data.is_symlink() {
            let target = fs::read_link(&found).ok()?;
            let base = if target.is_absolute() {
                Path::new("/")
            } else {
                found.parent()?.strip_prefix(root).ok()?
            };
            let next = base.join(&target).join(parts.as_path());
            // `..` in a link is resolved by name: the image's links are plain ones.
            let mut plain = PathBuf::new();
            for part in next.components() {
                match part {
                    Component::ParentDir => {
                        plain.pop();
                    }
                    Component::Normal(name) => plain.push(name),
                    _ => {}
                }
            }
            return if links == 0 {
                None
            } else {
                through(root, plain.to_str()?, links - 1)
            };
        }
    }
    Some(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::oci::image::LayerType;

    fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Layer {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            let name = &mut header.as_mut_bytes()[..path.len()];
            name.copy_from_slice(path.as_bytes());
            if *kind == tar::EntryType::Symlink {
                header.set_link_name(content).unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        let bytes = builder.into_inner().unwrap();
        let digest = Digest::of(&bytes);
        Layer {
            media_type: LayerType::Tar,
            digest,
            size: bytes.len() as u64,
            diff_id: digest,
            created_by: "test".to_owned(),
            annotations: Default::default(),
            bytes: LayerBytes::Memory(Bytes::from(bytes)),
        }
    }

    use tar::EntryType::{Regular, Symlink};

    #[test]
    fn layers_cover_each_other_and_whiteouts_remove() {
        let root = tempfile::tempdir().unwrap();
        let below = layer(&[
            ("a/x", Regular, "old"),
            ("a/y", Regular, "y"),
            ("lib", Symlink, "a"),
        ]);
        let above = layer(&[
            ("a/x", Regular, "new"),
            ("a/.wh.y", Regular, ""),
            ("lib/z", Regular, "z"),
        ]);
        unpack(&[below, above], root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a/x")).unwrap(), "new");
        assert!(!root.path().join("a/y").exists());
        assert_eq!(fs::read_to_string(root.path().join("a/z")).unwrap(), "z");
        let mode = fs::metadata(root.path().join("a/x"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755, "no setuid");
    }

    #[test]
    fn nothing_is_written_outside() {
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().to_str().unwrap();
        for hostile in [
            layer(&[("../evil", Regular, "x")]),
            layer(&[("out", Symlink, link), ("out/evil", Regular, "x")]),
            layer(&[("out", Symlink, "../.."), ("out/evil", Regular, "x")]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let error = unpack(&[hostile], root.path()).unwrap_err();
            assert!(matches!(error, UnpackError::Entry { .. }), "{error}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }
}

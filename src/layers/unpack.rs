//! Layers, applied one over the other into a folder: to run what was built, without an engine and without root.
//!
//! Takes finished layers whose bytes are on this machine; verifies each blob's digest while reading it. Ownership is
//! not applied (nobody but root could), setuid bits never are, and nothing is written outside the folder: an entry
//! that would pass through a symlink is refused rather than followed.
//!
//! Source: OCI image-spec "Image Layer Filesystem Changeset", whiteouts included.

use std::ffi::OsString;
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
    let mut budget = Budget {
        entries: 2_000_000,
        bytes: 64_000_000_000,
    };
    for layer in layers {
        apply(layer, root, &mut budget)?;
    }
    Ok(())
}

/// What may still be unpacked.
struct Budget {
    entries: u64,
    bytes: u64,
}

fn apply(layer: &Layer, root: &Path, budget: &mut Budget) -> Result<(), UnpackError> {
    let title = || layer.title();
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
        budget.entries = budget.entries.saturating_sub(1);
        budget.bytes = budget.bytes.saturating_sub(entry.size());
        let refuse = |rule| UnpackError::Entry {
            title: title(),
            entry: path.display().to_string(),
            rule,
        };
        if budget.entries == 0 || budget.bytes == 0 {
            return Err(refuse(
                "the image unpacks to more than 64 GB or two million files",
            ));
        }
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
            if matches!(hidden, "" | "." | "..") {
                return Err(refuse("a whiteout of nothing"));
            }
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

/// `path` below `root`: every part before the last is a folder or nothing yet. Links among them are followed as they are meant in the
/// image, part by part, so that the system never follows one; one that climbs or leads to no folder is refused.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, &'static str> {
    let mut target = root.to_owned();
    let mut ahead: Vec<OsString> = Vec::new();
    push(&mut ahead, path, "it climbs out of the image")?;
    let mut links = 0;
    // How many parts stand behind the last link: what the link itself leads to has to be there.
    let mut behind = usize::MAX;
    while let Some(name) = ahead.pop() {
        let next = target.join(&name);
        if ahead.is_empty() {
            return Ok(next);
        }
        match fs::symlink_metadata(&next) {
            Ok(data) if data.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err("it passes through too many links");
                }
                let to = fs::read_link(&next).map_err(|_| "a link that cannot be read")?;
                if to.is_absolute() {
                    target = root.to_owned();
                }
                behind = ahead.len().min(behind);
                push(&mut ahead, &to, "it passes through a link that climbs")?;
            }
            Ok(data) if data.is_dir() => target = next,
            Err(_) if ahead.len() < behind || links == 0 => target = next,
            _ => return Err("it passes through what is no folder of the image"),
        }
    }
    Ok(target)
}

/// Puts the parts of `path` before those that are `ahead`, whose last is the next.
fn push(ahead: &mut Vec<OsString>, path: &Path, climbs: &'static str) -> Result<(), &'static str> {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push(name.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(climbs),
        }
    }
    Ok(())
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
            ("lib/new/folder/z", Regular, "z"),
        ]);
        unpack(&[below, above], root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a/x")).unwrap(), "new");
        assert!(!root.path().join("a/y").exists());
        assert_eq!(fs::read_to_string(root.path().join("a/z")).unwrap(), "z");
        assert_eq!(
            fs::read_to_string(root.path().join("a/new/folder/z")).unwrap(),
            "z"
        );
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
        fs::create_dir(outside.path().join("below")).unwrap();
        fs::write(outside.path().join("below/kept"), "kept").unwrap();
        for hostile in [
            layer(&[("../evil", Regular, "x")]),
            layer(&[("out", Symlink, link), ("out/evil", Regular, "x")]),
            layer(&[("out", Symlink, "../.."), ("out/evil", Regular, "x")]),
            // In two steps, to a file, a folder, and by what is taken away.
            layer(&[
                ("x", Symlink, link),
                ("a", Symlink, "x/below"),
                ("a/evil", Regular, "x"),
            ]),
            layer(&[
                ("x", Symlink, link),
                ("a", Symlink, "x/below"),
                ("a/b/evil", Regular, "x"),
            ]),
            layer(&[
                ("x", Symlink, link),
                ("a", Symlink, "x/below"),
                ("a/.wh.kept", Regular, ""),
            ]),
            layer(&[
                ("x", Symlink, link),
                ("a", Symlink, "x/below"),
                ("a/.wh..wh..opq", Regular, ""),
            ]),
            layer(&[("x", Symlink, "x"), ("x/evil", Regular, "x")]),
            layer(&[(".wh...", Regular, "")]),
            layer(&[("a/.wh...", Regular, "")]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let error = unpack(&[hostile], root.path()).unwrap_err();
            assert!(matches!(error, UnpackError::Entry { .. }), "{error}");
            assert!(root.path().exists());
            let left = fs::read_dir(outside.path().join("below")).unwrap().count();
            assert_eq!((fs::read_dir(outside.path()).unwrap().count(), left), (1, 1));
        }
    }
}

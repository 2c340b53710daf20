//! The base's own interpreter, unpacked into the cache and run from there without root: what compiles bytecode.
//!
//! It comes from Debian's packages or from the layers of an image. Either way a folder has its program, loader, libraries and standard
//! library at the same places (`usr/bin`, `usr/lib`), and nothing else of the base. It does not know what is compiled.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bytecode::{BytecodeError, CHUNK, RECORD, SCRIPT, Unit};
use super::unpack::{self, find};
use crate::debian::{self, BaseFiles, Node, Rootfs};
use crate::digest::{Digest, Hasher};
use crate::lock::base::{Base, Debian, Registry};
use crate::oci::Layer;
use crate::store::Store;

/// The platform whose interpreter compiles.
pub const PLATFORM: &str = "linux/amd64";
pub(super) const TRIPLE: &str = "x86_64-linux-gnu";
pub(super) const LOADER: &str = "ld-linux-x86-64.so.2";

/// Of what is taken out of an image; a change makes bytecode anew.
const LAYOUT: u32 = 1;

/// All that bytecode follows from besides the modules: the script that compiles and the base's interpreter. Or why there is none.
pub fn key(base: &Base) -> Result<Digest, &'static str> {
    let mut hasher = Hasher::new();
    hasher.update(SCRIPT.as_bytes());
    hasher.update(&CHUNK.to_le_bytes());
    let without = "the lock's base has no linux/amd64, whose interpreter compiles";
    match base {
        Base::Debian(base) => {
            hasher.update(&debian::rootfs::LAYOUT.to_le_bytes());
            for deb in base.packages.get(PLATFORM).ok_or(without)? {
                hasher.update(deb.digest.bytes());
            }
        }
        Base::Registry(base) => {
            if base.glibc.is_none() {
                return Err("the base's libc is musl, whose interpreter is not run outside of an image");
            }
            hasher.update(&LAYOUT.to_le_bytes());
            hasher.update(base.digests.get(PLATFORM).ok_or(without)?.bytes());
            hasher.update(base.python_path.as_bytes());
        }
    }
    Ok(hasher.finish())
}

/// One base's interpreter. It is unpacked when it is first needed.
pub struct Interpreter<'a> {
    pub(super) store: &'a Store,
    pub(super) key: Digest,
    /// `3.11`
    pub(super) minor: String,
    origin: Origin<'a>,
    /// Looked at whole once, and not for each module of the standard library.
    here: OnceLock<(PathBuf, Unpacked)>,
}

enum Origin<'a> {
    Debian(&'a BaseFiles<'a>),
    Image {
        python_path: &'a str,
        layers: Vec<Layer>,
    },
}

impl<'a> Interpreter<'a> {
    /// `files` are those of a base for [`PLATFORM`], and `key` is that base's.
    pub fn of_debian(files: &'a BaseFiles<'a>, key: Digest) -> Self {
        Self {
            store: files.store,
            key,
            minor: files.base.python_minor(),
            origin: Origin::Debian(files),
            here: OnceLock::new(),
        }
    }

    /// `layers` are those of the base's image for [`PLATFORM`], on this machine; where [`is_unpacked`] says so, none are needed.
    pub fn of_image(store: &'a Store, base: &'a Registry, layers: Vec<Layer>, key: Digest) -> Self {
        Self {
            store,
            key,
            minor: base.python.split('.').take(2).collect::<Vec<_>>().join("."),
            origin: Origin::Image {
                python_path: &base.python_path,
                layers,
            },
            here: OnceLock::new(),
        }
    }

    /// The folder of the unpacked interpreter; made, or made again, where it is not what it was.
    pub(super) fn root(&self) -> Result<PathBuf, BytecodeError> {
        Ok(self.here()?.0.clone())
    }

    fn here(&self) -> Result<&(PathBuf, Unpacked), BytecodeError> {
        if let Some(here) = self.here.get() {
            return Ok(here);
        }
        let here = self.unpacked()?;
        Ok(self.here.get_or_init(|| here))
    }

    fn unpacked(&self) -> Result<(PathBuf, Unpacked), BytecodeError> {
        let (store, name) = (self.store, self.key.to_string());
        let root = store.folder().join("interpreters").join(self.key.hex());
        // One process unpacks; nobody looks at a folder that another one is replacing.
        let _guard = store.lock(&format!("interpreter {name}"))?;
        if let Some(unpacked) = store.record::<Unpacked>(BUCKET, &name)
            && is_intact(&root, &unpacked)
        {
            return Ok((root, unpacked));
        }
        let fault = |source| BytecodeError::Unpack {
            path: root.clone(),
            source,
        };
        let folder = store.temporary_folder()?;
        let unpacked = match &self.origin {
            Origin::Debian(files) => Unpacked {
                files: of_debian(&*files.get()?, files.base, folder.path()).map_err(fault)?,
                stdlib: files.base.stdlib().trim_start_matches('/').to_owned(),
            },
            Origin::Image { python_path, layers } => {
                let whole = store.temporary_folder()?;
                unpack::unpack(layers, whole.path())?;
                self.of_root(whole.path(), python_path, folder.path(), &fault)?
            }
        };
        match std::fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        std::fs::create_dir_all(store.folder().join("interpreters")).map_err(fault)?;
        std::fs::rename(folder.path(), &root).map_err(fault)?;
        store.keep_record(BUCKET, &name, &unpacked)?;
        Ok((root, unpacked))
    }

    /// Takes what is needed out of an image's files, to the places where Debian has it.
    fn of_root(
        &self,
        whole: &Path,
        python_path: &str,
        to: &Path,
        fault: &dyn Fn(io::Error) -> BytecodeError,
    ) -> Result<Unpacked, BytecodeError> {
        let found = |path: &str| {
            find(whole, path).ok_or_else(|| BytecodeError::Absent {
                path: path.to_owned(),
            })
        };
        let program = found(python_path)?;
        let above = program.parent().and_then(Path::parent);
        let prefix = above.filter(|prefix| prefix.starts_with(whole)).unwrap_or(whole);
        let below = |path: &Path| {
            let path = path.strip_prefix(whole).unwrap_or(path);
            path.display().to_string()
        };
        let folder = found(&below(&prefix.join(format!("lib/python{}", self.minor))))?;
        let mut files = Vec::new();
        let mut take = |from: &Path, path: String, executable: bool| -> io::Result<()> {
            let at = to.join(&path);
            let data = std::fs::symlink_metadata(from)?;
            // No interpreter needs a library of that size to compile; what lies beside its own may be anything.
            if at.exists() || !data.is_file() || data.len() > LARGEST {
                return Ok(());
            }
            std::fs::create_dir_all(at.parent().unwrap_or(to))?;
            let content = std::fs::read(from)?;
            std::fs::write(&at, &content)?;
            let mode = if executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode))?;
            files.push((path, Digest::of(&content)));
            Ok(())
        };
        let libraries = format!("usr/lib/{TRIPLE}");
        take(&program, format!("usr/bin/python{}", self.minor), true).map_err(fault)?;
        let loader = found(&format!("lib64/{LOADER}"))?;
        take(&loader, format!("{libraries}/{LOADER}"), true).map_err(fault)?;
        let own = below(&prefix.join("lib"));
        for folder in [
            &libraries[..],
            &format!("lib/{TRIPLE}"),
            "usr/lib64",
            "usr/lib",
            &own,
        ] {
            let Some(found) = find(whole, folder) else {
                continue;
            };
            for entry in std::fs::read_dir(found).map_err(fault)? {
                let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
                if name.contains(".so")
                    && let Some(library) = find(whole, &format!("{folder}/{name}"))
                {
                    take(&library, format!("{libraries}/{name}"), false).map_err(fault)?;
                }
            }
        }
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).map_err(fault)? {
                let entry = entry.map_err(fault)?;
                let (path, kind) = (entry.path(), entry.file_type().map_err(fault)?);
                let name = path.strip_prefix(&folder).unwrap_or(&path).display().to_string();
                if kind.is_dir() && !matches!(&name[..], "site-packages" | "dist-packages" | "test") {
                    folders.push(path);
                } else if kind.is_file() && (name.ends_with(".py") || name.ends_with(".so")) {
                    take(&path, format!("usr/lib/python{}/{name}", self.minor), false).map_err(fault)?;
                }
            }
        }
        files.sort();
        Ok(Unpacked {
            files,
            stdlib: below(&folder),
        })
    }

    /// The base's own standard library as a unit, and its folder in the image: Debian compiles it when packages are installed, which never
    /// happens here, and images of Python leave bytecode out. It is the same for every platform.
    pub fn standard_library(&self) -> Result<(Unit<'_>, String), BytecodeError> {
        let key = format!("standard library {}", self.key);
        let (paths, folder) = match self.store.record::<(Vec<String>, String)>(RECORD, &key) {
            Some(found) => found,
            None => {
                let found = self.modules()?;
                self.store.keep_record(RECORD, &key, &found)?;
                found
            }
        };
        let within = format!("/{folder}/");
        let unit = Unit {
            what: format!("the standard library of Python {}", self.minor),
            digest: self.key,
            paths,
            read: Box::new(move |path| match &self.origin {
                Origin::Debian(files) => {
                    let rootfs = files.get().map_err(io::Error::other)?;
                    match rootfs.entries.get(path.trim_start_matches('/')) {
                        Some(Node::File { content, .. }) => Ok(content.clone()),
                        _ => Err(io::ErrorKind::NotFound.into()),
                    }
                }
                Origin::Image { .. } => {
                    let name = path.strip_prefix(&within).ok_or(io::ErrorKind::NotFound)?;
                    let root = self.root().map_err(io::Error::other)?;
                    let read = std::fs::read(root.join(format!("usr/lib/python{}/{name}", self.minor)))?;
                    Ok(Bytes::from(read))
                }
            }),
        };
        Ok((unit, folder))
    }

    /// The paths of the standard library's modules in the image, and its folder there, without a slash at its start.
    fn modules(&self) -> Result<(Vec<String>, String), BytecodeError> {
        let (within, folder, all): (String, String, Vec<String>) = match &self.origin {
            Origin::Debian(files) => {
                let folder = files.base.stdlib().trim_start_matches('/').to_owned();
                let paths = files.get()?.entries.keys().cloned().collect();
                (format!("{folder}/"), folder, paths)
            }
            Origin::Image { .. } => {
                let (_, unpacked) = self.here()?;
                let paths = unpacked.files.iter().map(|(path, _)| path.clone()).collect();
                let folder = unpacked.stdlib.clone();
                (format!("usr/lib/python{}/", self.minor), folder, paths)
            }
        };
        let names = all.iter().filter_map(|path| path.strip_prefix(&within));
        let paths = names
            .filter(|name| is_common_module(name))
            .map(|name| format!("/{folder}/{name}"))
            .collect();
        Ok((paths, folder))
    }
}

/// Whether the interpreter of that key was unpacked before: then its base need not be here.
pub fn is_unpacked(store: &Store, key: &Digest) -> bool {
    let root = store.folder().join("interpreters").join(key.hex());
    store
        .record::<Unpacked>(BUCKET, &key.to_string())
        .is_some_and(|unpacked| is_intact(&root, &unpacked))
}

/// Whether every platform's standard library has this module: all but how each one was built.
fn is_common_module(path: &str) -> bool {
    path.ends_with(".py") && !path.starts_with("_sysconfigdata_")
}

/// Larger files of an image are left out, in bytes.
const LARGEST: u64 = 256 << 20;

const BUCKET: &str = "interpreters";

/// An unpacked interpreter: its files, so that a damaged one is noticed.
#[derive(Serialize, Deserialize)]
struct Unpacked {
    files: Vec<(String, Digest)>,
    /// Where the standard library is in the image, relative to its root.
    stdlib: String,
}

/// Writes what compiling needs: the program, its libraries, the modules that it starts with. Links become copies: those of
/// an image may point anywhere.
fn of_debian(rootfs: &Rootfs, base: &Debian, to: &Path) -> io::Result<Vec<(String, Digest)>> {
    let program = base.python_path().trim_start_matches('/').to_owned();
    let stdlib = format!("{}/", base.stdlib().trim_start_matches('/'));
    let libraries = format!("usr/lib/{TRIPLE}/");
    let mut files = Vec::new();
    for (path, node) in &rootfs.entries {
        let library = path
            .strip_prefix(&libraries)
            .is_some_and(|file| !file.contains('/') && file.contains(".so"));
        let module = path.strip_prefix(&stdlib).is_some_and(|file| {
            let package = file.split_once('/').map(|(package, _)| package);
            file.ends_with(".py")
                && matches!(
                    package,
                    None | Some("encodings" | "importlib" | "collections" | "re")
                )
        });
        if !(library || module || *path == program) {
            continue;
        }
        let content = match node {
            Node::File { content, .. } => content,
            Node::Symlink { target } => match rootfs.entries.get(&format!("{libraries}{target}")) {
                Some(Node::File { content, .. }) if library => content,
                _ => continue,
            },
            Node::Directory { .. } => continue,
        };
        let at = to.join(path);
        if let Some(parent) = at.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&at, content)?;
        let mode = if *path == program || path.ends_with(LOADER) {
            0o755
        } else {
            0o644
        };
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode))?;
        files.push((path.clone(), Digest::of(content)));
    }
    Ok(files)
}

fn is_intact(root: &Path, unpacked: &Unpacked) -> bool {
    !unpacked.files.is_empty()
        && unpacked.files.iter().all(|(path, digest)| {
            std::fs::read(root.join(path)).is_ok_and(|content| Digest::of(&content) == *digest)
        })
}

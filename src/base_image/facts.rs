//! What somebody else's image has inside that wheels are chosen by: where its interpreter is, its version, and its C library.
//!
//! It takes an image; it gives [`Facts`], from the config of an official Python image alone, else from the layers, each read once
//! and to its end, so that nothing is believed which does not hash to its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use crate::digest::{Digest, Hashing};
use crate::oci::reference::HUB;
use crate::oci::{Image, Layer, LayerBytes, Reference};
use crate::python::target::PythonVersion;

/// What a lock must know of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Absolute, `/usr/local/bin/python3.12`.
    pub python_path: String,
    /// `3.12.7`, or `3.12` where no more is known.
    pub python: String,
    /// `2.36`; none for musl.
    pub glibc: Option<String>,
}

impl Facts {
    /// These, save for what the user says.
    pub fn but(self, python_path: Option<&str>, libc: Option<Option<String>>) -> Self {
        Self {
            python_path: python_path.map_or(self.python_path, str::to_owned),
            glibc: libc.unwrap_or(self.glibc),
            ..self
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("it has no python{wanted}{}", others(there))]
    NoPython { wanted: String, there: Vec<String> },
    #[error("no C library is found in it")]
    NoLibc,
    #[error("its layer {title} cannot be read")]
    Read { title: String, source: io::Error },
    #[error("its layer {title} should be {expected} and is {actual}")]
    Corrupt {
        title: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("its layer {title} is not on this machine")]
    Elsewhere { title: String },
}

fn others(there: &[String]) -> String {
    match there.is_empty() {
        true => String::new(),
        false => format!(" (it has {})", there.join(", ")),
    }
}

/// Debian releases that official images stand on, with their glibc.
const CODENAMES: [(&str, &str); 4] = [
    ("buster", "2.28"),
    ("bullseye", "2.31"),
    ("bookworm", "2.36"),
    ("trixie", "2.41"),
];

/// The most that is read of a file for what it says of itself, in bytes.
const MOST: u64 = 16 << 20;

/// What the config of an official Python image says: its variables name the version, the first line of its history the release.
pub fn of_config(reference: &Reference, image: &Image, python: PythonVersion) -> Option<Facts> {
    if reference.registry() != HUB || reference.repository() != "library/python" {
        return None;
    }
    let version = version_said(image, python)?;
    let first = image.layers.first()?;
    let (_, glibc) = CODENAMES.iter().find(|(codename, _)| {
        first.created_by.contains("debian.sh") && first.created_by.contains(&format!("'{codename}'"))
    })?;
    Some(Facts {
        python_path: format!("/usr/local/bin/python{}", python.minor_only()),
        python: version,
        glibc: Some((*glibc).to_owned()),
    })
}

/// The version in the variable PYTHON_VERSION, where it is one of the minor `python`.
pub fn version_said(image: &Image, python: PythonVersion) -> Option<String> {
    let environment = image.started().environment;
    let text = environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PYTHON_VERSION="))?;
    let said: PythonVersion = text.parse().ok()?;
    (said.minor_only() == python.minor_only()).then(|| text.to_owned())
}

/// Reads the layers of `image`, which are files. `path` and `libc` are what the user says, and not looked for.
pub fn read(
    image: &Image,
    python: PythonVersion,
    path: Option<&str>,
    libc: Option<Option<String>>,
) -> Result<Facts, FactsError> {
    let mut seen = Seen::default();
    for layer in &image.layers {
        let (hidden, added) = look(layer)?;
        seen.hide(&hidden);
        seen.add(added);
    }
    let wanted = format!("python{}", python.minor_only());
    let environment = image.started().environment;
    let search = environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or("/usr/local/bin:/usr/bin:/bin");
    let python_path = match path {
        Some(path) => path.to_owned(),
        None => seen
            .interpreter(&wanted, search)
            .ok_or_else(|| FactsError::NoPython {
                wanted: python.minor_only().to_string(),
                there: seen.interpreters.iter().map(|path| format!("/{path}")).collect(),
            })?,
    };
    let version = seen
        .version(&python_path, &wanted)
        .or_else(|| version_said(image, python))
        .unwrap_or_else(|| python.minor_only().to_string());
    let glibc = match libc {
        Some(said) => said,
        None => seen.libc().ok_or(FactsError::NoLibc)?,
    };
    Ok(Facts {
        python_path,
        python: version,
        glibc,
    })
}

/// What was seen in the layers, by path without the leading slash.
#[derive(Debug, Default)]
struct Seen {
    interpreters: BTreeSet<String>,
    /// What `patchlevel.h` says.
    versions: BTreeMap<String, String>,
    /// The version that a glibc says; none for musl.
    libraries: BTreeMap<String, Option<String>>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.interpreters.extend(other.interpreters);
        self.versions.extend(other.versions);
        self.libraries.extend(other.libraries);
    }

    /// Forgets what lies at or below one of `paths`.
    fn hide(&mut self, paths: &[String]) {
        let stays = |path: &str| {
            !paths.iter().any(|hidden| {
                path.strip_prefix(hidden.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || hidden.is_empty())
            })
        };
        self.interpreters.retain(|path| stays(path));
        self.versions.retain(|path, _| stays(path));
        self.libraries.retain(|path, _| stays(path));
    }

    /// The absolute path of the interpreter `wanted`: the first that `search`, a PATH, finds, else the shortest.
    fn interpreter(&self, wanted: &str, search: &str) -> Option<String> {
        let found: Vec<&str> = self
            .interpreters
            .iter()
            .map(String::as_str)
            // Ours replaces what lies there.
            .filter(|path| path.rsplit('/').next() == Some(wanted) && !path.starts_with("opt/venv/"))
            .collect();
        let listed = search.split(':').find_map(|folder| {
            let path = format!("{}/{wanted}", folder.trim_matches('/'));
            found.contains(&path.as_str()).then_some(path)
        });
        let shortest = || {
            found
                .iter()
                .min_by_key(|path| (path.len(), **path))
                .map(|path| (*path).to_owned())
        };
        listed.or_else(shortest).map(|path| format!("/{path}"))
    }

    /// What the headers beside the interpreter at `path` say.
    fn version(&self, path: &str, wanted: &str) -> Option<String> {
        let prefix = Path::new(path.trim_start_matches('/')).parent()?.parent()?;
        let header = prefix.join("include").join(wanted).join("patchlevel.h");
        self.versions.get(header.to_str()?).cloned()
    }

    /// The libc: glibc where there is one, the oldest where there are several.
    fn libc(&self) -> Option<Option<String>> {
        let number =
            |text: &&String| -> Vec<u32> { text.split('.').filter_map(|part| part.parse().ok()).collect() };
        let oldest = self.libraries.values().flatten().min_by_key(number);
        match oldest {
            Some(version) => Some(Some(version.clone())),
            None => (!self.libraries.is_empty()).then_some(None),
        }
    }
}

/// What one layer hides of those below it, and what it brings.
fn look(layer: &Layer) -> Result<(Vec<String>, Seen), FactsError> {
    let read = |source| FactsError::Read {
        title: layer.title(),
        source,
    };
    let LayerBytes::File(path) = &layer.bytes else {
        return Err(FactsError::Elsewhere { title: layer.title() });
    };
    let file = io::BufReader::with_capacity(256 << 10, File::open(path).map_err(read)?);
    let mut hashed = Hashing::new(file);
    let (mut hidden, mut seen) = (Vec::new(), Seen::default());
    let mut archive = tar::Archive::new(layer.media_type.decoded(&mut hashed).map_err(read)?);
    for entry in archive.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let Some(path) = plain(&entry.path().map_err(read)?) else {
            continue;
        };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            hidden.push(folder.to_owned());
        } else if let Some(gone) = name.strip_prefix(".wh.") {
            hidden.push(match folder {
                "" => gone.to_owned(),
                folder => format!("{folder}/{gone}"),
            });
        } else if is_interpreter(folder, name) {
            seen.interpreters.insert(path);
        } else if name == "patchlevel.h" {
            let text = bytes(&mut entry).map_err(read)?;
            if let Some(version) = header_version(&String::from_utf8_lossy(&text)) {
                seen.versions.insert(path, version);
            }
        } else if name == "libc.so.6" || (name.starts_with("libc-2.") && name.ends_with(".so")) {
            let text = bytes(&mut entry).map_err(read)?;
            if let Some(version) = glibc_version(&text) {
                seen.libraries.insert(path, Some(version));
            }
        } else if name.starts_with("ld-musl-") {
            seen.libraries.insert(path, None);
        }
    }
    drop(archive);
    io::copy(&mut hashed, &mut io::sink()).map_err(read)?;
    let (actual, _, _) = hashed.finish();
    if actual != layer.digest {
        return Err(FactsError::Corrupt {
            title: layer.title(),
            expected: layer.digest,
            actual,
        });
    }
    Ok((hidden, seen))
}

/// `path` without dots and the leading slash; none where it climbs.
fn plain(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn is_interpreter(folder: &str, name: &str) -> bool {
    let minor = name.strip_prefix("python3.").unwrap_or_default();
    let in_bin = folder == "bin" || folder.ends_with("/bin");
    in_bin && !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
}

fn bytes(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Of `#define PY_VERSION "3.12.7"`.
fn header_version(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("#define PY_VERSION")?;
    let version = rest.trim_start().strip_prefix('"')?.split('"').next()?;
    let version = version.trim_end_matches('+');
    version.parse::<PythonVersion>().ok()?;
    Some(version.to_owned())
}

/// Of the line that every glibc holds: `GNU C Library (...) stable release version 2.36.`
fn glibc_version(library: &[u8]) -> Option<String> {
    let after = |text: &[u8], mark: &[u8]| {
        let at = text.windows(mark.len()).position(|window| window == mark)?;
        text.get(at + mark.len()..).map(<[u8]>::to_vec)
    };
    let line = after(library, b"GNU C Library (")?;
    let version = after(line.get(..512).unwrap_or(&line), b"release version ")?;
    let digits: Vec<u8> = version
        .into_iter()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .collect();
    let text = String::from_utf8(digits).ok()?;
    let text = text.trim_end_matches('.');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glibc_says_its_version() {
        let debian =
            b"\0\0GNU C Library (Debian GLIBC 2.36-9+deb12u9) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(debian).as_deref(), Some("2.36"));
        assert_eq!(
            glibc_version(b"GNU C Library (GNU libc) development release version 2.40.9000.\n").as_deref(),
            Some("2.40.9000")
        );
        assert_eq!(glibc_version(b"\x7fELF no such line"), None);
    }

    #[test]
    fn headers_say_the_patch() {
        assert_eq!(
            header_version("/* x */\n#define PY_VERSION      \t\"3.12.7+\"\n").as_deref(),
            Some("3.12.7")
        );
        assert_eq!(header_version("#define PY_VERSION 3"), None);
    }

    #[test]
    fn what_a_layer_hides_is_gone() {
        let mut seen = Seen::default();
        for path in ["usr/bin/python3.12", "usr/bin/python3.1", "usr/binx/python3.12"] {
            seen.interpreters.insert(path.to_owned());
        }
        seen.hide(&["usr/bin/python3.12".to_owned()]);
        assert_eq!(seen.interpreters.len(), 2);
        seen.hide(&["usr/bin".to_owned()]);
        assert_eq!(
            seen.interpreter("python3.12", "/nowhere").as_deref(),
            Some("/usr/binx/python3.12")
        );
        seen.hide(&[String::new()]);
        assert!(seen.interpreters.is_empty());
    }

    #[test]
    fn the_first_on_the_path_is_taken() {
        let mut seen = Seen::default();
        for path in [
            "opt/venv/bin/python3.12",
            "usr/bin/python3.12",
            "usr/local/bin/python3.12",
        ] {
            seen.interpreters.insert(path.to_owned());
        }
        let search = "/opt/venv/bin:/usr/local/bin:/usr/bin";
        assert_eq!(
            seen.interpreter("python3.12", search).as_deref(),
            Some("/usr/local/bin/python3.12")
        );
        assert_eq!(seen.interpreter("python3.13", search), None);
    }
}

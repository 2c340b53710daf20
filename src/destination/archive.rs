//! Archives: one tar file that holds an image, in OCI's or in Docker's arrangement.
//!
//! The same image gives the same file: entries stand in a fixed order, with times and owners zeroed. Written to a
//! stream, so that an engine can be handed the same bytes with no file in between.
//!
//! Sources: OCI image-spec "Image Layout Specification"; Docker's `docker save` format, version 1.2 (`manifest.json`).

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;

use super::layout::{LAYOUT, documents, index_json};
use super::read::{Blobs, ReadError, read_from};
use super::{CopyError, PublishError, Published, copy_layer, fault};
use crate::digest::Digest;
use crate::oci::image::{ConfigError, LayerType};
use crate::oci::{Image, Layer, LayerBytes, Platform, Publishable};
use crate::reporter::{Reporter, Unit};
use crate::whole;

/// The arrangement inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout in a tar: Podman, Skopeo, containerd, Docker from 25.
    Oci,
    /// What `docker save` writes and every `docker load` and `podman load` reads; one platform.
    Docker,
}

/// Writes `image` to the file `path` under `names` (whole references with tags).
pub fn publish(
    path: &Path,
    form: Form,
    names: &[String],
    image: &Publishable,
    reporter: &dyn Reporter,
) -> Result<Published, PublishError> {
    if fs::symlink_metadata(path).is_ok_and(|data| !data.is_file()) {
        return Err(PublishError::NotAFile {
            path: path.display().to_string(),
        });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(fault("make", folder))?;
    }
    let total = layers_of(form, image).iter().map(|layer| layer.size).sum();
    let task = reporter.start(&path.display().to_string(), Unit::Bytes, Some(total));
    let outcome = whole::write(path, 0o644, |file| {
        let mut sink = io::BufWriter::with_capacity(1 << 20, file);
        write(form, names, image, &mut sink, &|count| {
            reporter.advance(task, count)
        })
        .map_err(Broken::Write)?;
        sink.flush().map_err(Broken::Io)
    });
    reporter.finish(task);
    outcome.map_err(|broken| match broken {
        Broken::Write(error) => error.of(path),
        Broken::Io(error) => fault("write", path)(error),
    })?;
    Ok(Published {
        digest: image.digest(),
        location: path.display().to_string(),
        reused: 0,
        reused_layers: 0,
        sent: total,
        sent_layers: image.layers().len(),
    })
}

enum Broken {
    Write(WriteError),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why an archive could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    Layer(Box<Layer>, CopyError),
    Io(io::Error),
    Config(ConfigError),
}

impl WriteError {
    pub(crate) fn of(self, path: &Path) -> PublishError {
        match self {
            Self::Layer(layer, error) => error.of(&layer, path),
            Self::Io(error) => fault("write", path)(error),
            Self::Config(error) => error.into(),
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn layers_of(form: Form, image: &Publishable) -> Vec<&Layer> {
    match form {
        Form::Oci => image.layers(),
        Form::Docker => {
            let mut seen = std::collections::HashSet::new();
            let layers = for_engine(image)
                .map(|image| image.layers.iter())
                .into_iter()
                .flatten();
            layers.filter(|layer| seen.insert(layer.digest)).collect()
        }
    }
}

/// Of several platforms, the one that an engine on this machine would run; else the first.
pub(crate) fn for_engine(image: &Publishable) -> Option<&Image> {
    let host = Platform::host();
    let images = image.images();
    images
        .iter()
        .find(|image| image.platform.serves(&host))
        .or(images.first())
}

/// Writes the archive to `sink`; `advance` is told layer bytes.
pub(crate) fn write(
    form: Form,
    names: &[String],
    image: &Publishable,
    sink: &mut dyn Write,
    advance: &dyn Fn(u64),
) -> Result<(), WriteError> {
    let mut tar = Tar { sink };
    match form {
        Form::Oci => {
            let names: Vec<&str> = match names {
                [] => vec!["latest"],
                names => names.iter().map(String::as_str).collect(),
            };
            let index = index_json(image, &names).map_err(|error| match error {
                PublishError::Config(error) => WriteError::Config(error),
                other => WriteError::Io(io::Error::other(other)),
            })?;
            tar.bytes("oci-layout", LAYOUT)?;
            tar.bytes("index.json", &index)?;
            tar.folder("blobs/")?;
            tar.folder("blobs/sha256/")?;
            for (digest, bytes) in documents(image) {
                tar.bytes(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
            }
            for layer in image.layers() {
                tar.layer(&format!("blobs/sha256/{}", layer.digest.hex()), layer, advance)?;
            }
        }
        Form::Docker => {
            if let Some(image) = for_engine(image) {
                let config = format!("{}.json", image.config_digest().hex());
                let paths: Vec<String> = image.layers.iter().map(docker_path).collect();
                let manifest = json!([{ "Config": config, "RepoTags": names, "Layers": paths }]);
                let manifest = serde_json::to_vec(&manifest)
                    .map_err(|error| WriteError::Config(ConfigError::Encode(error)))?;
                // First, so that a reader of the stream knows what the rest is.
                tar.bytes("manifest.json", &manifest)?;
                tar.bytes(&config, &image.config)?;
            }
            // A layer that is there twice is listed twice and stored once.
            for layer in layers_of(form, image) {
                tar.layer(&docker_path(layer), layer, advance)?;
            }
        }
    }
    tar.end()?;
    Ok(())
}

fn docker_path(layer: &Layer) -> String {
    let suffix = match layer.media_type {
        LayerType::Tar => "",
        LayerType::Gzip => ".gz",
        LayerType::Zstd => ".zst",
    };
    format!("{}.tar{suffix}", layer.digest.hex())
}

/// Tar entries with nothing in them but name, size and content.
struct Tar<'a> {
    sink: &'a mut dyn Write,
}

impl Tar<'_> {
    fn header(&mut self, path: &str, size: u64, mode: u32, kind: tar::EntryType) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(kind);
        header.set_cksum();
        self.sink.write_all(header.as_bytes())
    }

    fn folder(&mut self, path: &str) -> io::Result<()> {
        self.header(path, 0, 0o755, tar::EntryType::Directory)
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.header(path, bytes.len() as u64, 0o644, tar::EntryType::Regular)?;
        self.sink.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn layer(&mut self, path: &str, layer: &Layer, advance: &dyn Fn(u64)) -> Result<(), WriteError> {
        self.header(path, layer.size, 0o644, tar::EntryType::Regular)?;
        copy_layer(layer, self.sink, advance)
            .map_err(|error| WriteError::Layer(Box::new(layer.clone()), error))?;
        Ok(self.pad(layer.size)?)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % 512) as usize;
        match rest {
            0 => Ok(()),
            rest => self.sink.write_all(&[0; 512][rest..]),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.sink.write_all(&[0; 1024])
    }
}

/// An archive's entries by path: offset and size. Only regular files of our own depth are looked at.
struct Entries {
    path: std::path::PathBuf,
    file: std::sync::Mutex<File>,
    places: std::collections::HashMap<String, (u64, u64)>,
}

/// The most entries of an archive that are read.
const MOST_ENTRIES: usize = 100_000;

impl Blobs for Entries {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let rule = |rule| ReadError::Rule {
            path: format!("{}, {path}", self.shown()),
            rule,
        };
        let (offset, size) = *self
            .places
            .get(path)
            .ok_or_else(|| rule("it is not in the archive"))?;
        if size > limit {
            return Err(rule("it is larger than anything of its kind may be"));
        }
        let fault = |source| ReadError::Io {
            path: self.shown(),
            source,
        };
        let mut file = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).map_err(fault)?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes).map_err(fault)?;
        Ok(bytes)
    }

    fn layer(&self, path: &str, size: u64) -> Option<LayerBytes> {
        // Inside an archive there is no file to name: such layers are described, not read.
        let (_, actual) = self.places.get(path)?;
        (*actual == size).then_some(LayerBytes::Remote(Vec::new()))
    }
}

/// Reads the images of an OCI archive. Their layers are described; their bytes stay in the archive.
pub fn read(path: &Path) -> Result<Publishable, ReadError> {
    let fault = |source| ReadError::Io {
        path: path.display().to_string(),
        source,
    };
    let file = File::open(path).map_err(fault)?;
    let mut archive = tar::Archive::new(BufReader::new(file.try_clone().map_err(fault)?));
    let mut places = std::collections::HashMap::new();
    for entry in archive.entries_with_seek().map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if places.len() == MOST_ENTRIES {
            return Err(ReadError::Rule {
                path: path.display().to_string(),
                rule: "it has more entries than an image's archive has",
            });
        }
        if entry.header().entry_type() == tar::EntryType::Regular {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            // The first of two entries of one name is what a streaming reader sees.
            places
                .entry(name)
                .or_insert((entry.raw_file_position(), entry.size()));
        }
    }
    let entries = Entries {
        path: path.to_owned(),
        file: std::sync::Mutex::new(file),
        places,
    };
    if entries.places.contains_key("manifest.json") && !entries.places.contains_key("oci-layout") {
        return read_docker(&entries);
    }
    read_from(&entries)
}

/// A Docker archive has no manifest with digests; one is made from what is there, and its layers are described by the
/// digests of the archive's own files.
fn read_docker(entries: &Entries) -> Result<Publishable, ReadError> {
    use crate::oci::Family;
    use crate::oci::manifest::{Descriptor, ImageManifest, LARGEST_CONFIG, LARGEST_MANIFEST};
    let rule = |rule| ReadError::Rule {
        path: entries.shown(),
        rule,
    };
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(rename = "Config")]
        config: String,
        #[serde(rename = "Layers")]
        layers: Vec<String>,
    }
    let manifest = entries.small("manifest.json", LARGEST_MANIFEST)?;
    let items: Vec<Item> =
        serde_json::from_slice(&manifest).map_err(|_| rule("manifest.json is not `docker save`'s"))?;
    let [item] = &items[..] else {
        return Err(rule("it does not hold exactly one image"));
    };
    if item.layers.len() > crate::oci::manifest::MOST_LAYERS {
        return Err(rule("it has more layers than engines take"));
    }
    let config = entries.small(&item.config, LARGEST_CONFIG)?;
    let mut layers = Vec::new();
    for path in &item.layers {
        let (offset, size) = *entries
            .places
            .get(path)
            .ok_or_else(|| rule("a layer that manifest.json names is missing"))?;
        let mut file = entries
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let fault = |source| ReadError::Io {
            path: entries.shown(),
            source,
        };
        file.seek(SeekFrom::Start(offset)).map_err(fault)?;
        let mut hashing = crate::digest::Hashing::new(Read::take(&mut *file, size));
        let mut head = [0; 4];
        let known = hashing.read(&mut head).map_err(fault)?;
        io::copy(&mut hashing, &mut io::sink()).map_err(fault)?;
        let (digest, length, _) = hashing.finish();
        if length != size {
            return Err(rule("a layer is cut off"));
        }
        let kind = match &head[..known] {
            [0x1f, 0x8b, ..] => LayerType::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => LayerType::Zstd,
            _ => LayerType::Tar,
        };
        let descriptor = Descriptor {
            media_type: kind.oci().to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        };
        layers.push((descriptor, kind));
    }
    let parsed = ImageManifest {
        family: Family::Docker,
        config: Descriptor {
            media_type: Family::Docker.config().to_owned(),
            digest: Digest::of(&config),
            size: config.len() as u64,
            platform: None,
            annotations: Default::default(),
        },
        layers,
        annotations: Default::default(),
    };
    let image = Image::read(manifest.into(), &parsed, config.into(), |_| {
        LayerBytes::Remote(Vec::new())
    });
    image.map(Publishable::Image).map_err(|source| ReadError::Config {
        path: entries.shown(),
        source,
    })
}

//! The project's own part of an image as trees: the runtime, the trained values, the record of the run, the code.
//!
//! Each changes for another reason and so becomes another layer: the runtime with mlrails, the values with training,
//! the code with every edit. Values are hashed here against `artifacts/files.json`; nothing is read of them otherwise.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rayon::prelude::*;
use serde_json::value::{RawValue, to_raw_value};

use super::recipe::LAYOUT;
use crate::digest::{Digest, Hasher};
use crate::project::files::ShippedFile;
use crate::project::record::FilesRecord;
use crate::project::values::shown;
use crate::project::{Project, mlflow};
use crate::regular::{self, Irregular};
use crate::tree::{EXECUTABLE, PLAIN, Source, Tree, TreeError};

/// Where the application is in every image, relative to its root.
pub const APP: &str = "app";
/// Where the environment is, relative to its root.
pub const VENV: &str = "opt/venv";

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{file}, the trained value `{value}`, is missing")]
    Missing { value: String, file: String },
    #[error(
        "{file}, the trained value `{value}`, is not what files.json says: expected sha256 {expected}, found {found}"
    )]
    Differs {
        value: String,
        file: String,
        expected: String,
        found: String,
    },
    #[error(
        "{file}, the trained value `{value}`, is not what files.json says: expected {expected} bytes, found {found}"
    )]
    Size {
        value: String,
        file: String,
        expected: u64,
        found: u64,
    },
    #[error("{file}, the trained value `{value}`, is refused: {why}")]
    Irregular {
        value: String,
        file: String,
        why: Irregular,
    },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
}

/// The runtime's package below `site_packages` (`opt/venv/lib/python3.11/site-packages`). `files` are its paths and texts.
pub fn runtime(site_packages: &str, files: &[(&str, &'static str)]) -> Result<Tree, PipelineError> {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree.insert_file(&format!("{site_packages}/{path}"), text.as_bytes(), PLAIN)?;
    }
    Ok(tree)
}

/// Refuses trained values that are missing or are not those that files.json records: also those whose layer is known already,
/// as what a person sees beside the image is what they believe is in it.
pub fn check_values(project: &Project, files: &FilesRecord, wanted: &[String]) -> Result<(), PipelineError> {
    let folder = project.values_folder();
    wanted.par_iter().try_for_each(|name| {
        let missing = |file: String| PipelineError::Missing {
            value: name.clone(),
            file,
        };
        let Some(record) = files.values.get(name) else {
            return Err(missing(shown(folder, &format!("{name}.*"))));
        };
        let file = shown(folder, &record.file);
        let located =
            regular::locate(project.root(), Path::new(&file)).map_err(|why| PipelineError::Irregular {
                value: name.clone(),
                file: file.clone(),
                why,
            })?;
        let Some(path) = located else {
            return Err(missing(file));
        };
        let size = Source::file(&path)?.size();
        if size != record.size {
            return Err(PipelineError::Size {
                value: name.clone(),
                file,
                expected: record.size,
                found: size,
            });
        }
        let found = digest_of(&path)?.hex();
        if found != record.sha256 {
            return Err(PipelineError::Differs {
                value: name.clone(),
                file,
                expected: record.sha256.clone(),
                found,
            });
        }
        Ok(())
    })
}

/// The trained values that [`check_values`] saw, below `app/artifacts`. Only those that `wanted` names ship.
pub fn values(project: &Project, files: &FilesRecord, wanted: &[String]) -> Result<Tree, PipelineError> {
    let mut tree = Tree::new();
    tree.insert_dir(&format!("{APP}/artifacts"))?;
    for record in wanted.iter().filter_map(|name| files.values.get(name)) {
        let path = project.root().join(project.values_folder()).join(&record.file);
        tree.insert_file(
            &format!("{APP}/artifacts/{}", record.file),
            Source::file(&path)?,
            PLAIN,
        )?;
    }
    Ok(tree)
}

/// What identifies the layer of those values, from files.json alone: their files and hashes, and the layer's time.
pub fn values_key(files: &FilesRecord, wanted: &[String], epoch: u64) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(format!("values {LAYOUT} {epoch}\n").as_bytes());
    for name in wanted {
        if let Some(record) = files.values.get(name) {
            hasher.update(format!("{} {} {}\n", record.file, record.sha256, record.size).as_bytes());
        }
    }
    hasher.finish()
}

/// The record of the run, which golden rows are read from.
pub fn run_record(project: &Project, files: &FilesRecord) -> Result<Tree, PipelineError> {
    let mut tree = Tree::new();
    tree.insert_file(&format!("{APP}/artifacts/run.json"), shipped_run(project)?, PLAIN)?;
    let files = match project.model() {
        Some(_) => Bytes::from(serde_json::to_vec(files).unwrap_or_default()),
        None => Source::file(&project.root().join("artifacts/files.json"))?.read()?,
    };
    tree.insert_file(&format!("{APP}/artifacts/files.json"), files, PLAIN)?;
    Ok(tree)
}

/// run.json without what differs between runs that came to the same: how long its nodes took, and how much memory. Everything else is
/// byte for byte as it is written.
pub fn shipped_run(project: &Project) -> Result<Bytes, PipelineError> {
    let path = project.root().join(project.run_file());
    let text = match &project.run {
        // Before `run` there is no file of it, and what is known all the same ships.
        Some(run) if project.model().is_some() && !mlflow::is_recorded(run) => {
            Bytes::from(serde_json::to_vec(run).unwrap_or_default())
        }
        _ => Source::file(&path)?.read()?,
    };
    Ok(without_measures(&text).map_or(text, Bytes::from))
}

fn without_measures(text: &[u8]) -> Option<Vec<u8>> {
    type Raw = BTreeMap<String, Box<RawValue>>;
    let mut run: Raw = serde_json::from_slice(text).ok()?;
    let mut nodes: BTreeMap<String, Raw> = serde_json::from_str(run.get("nodes")?.get()).ok()?;
    for node in nodes.values_mut() {
        node.remove("seconds");
        node.remove("peak_mb");
    }
    run.insert("nodes".to_owned(), to_raw_value(&nodes).ok()?);
    serde_json::to_vec(&run).ok()
}

/// Files beyond this size, in bytes, are not held in memory.
const LARGE: u64 = 16 << 20;

/// The project's package and what is included with it, below `app`.
pub fn code(shipped: &[ShippedFile]) -> Result<Tree, PipelineError> {
    let mut tree = Tree::new();
    tree.insert_dir(APP)?;
    for file in shipped {
        let mode = if file.executable { EXECUTABLE } else { PLAIN };
        let path = format!("{APP}/{}", file.path.display());
        let content = Source::file(&file.source)?;
        if content.size() > LARGE {
            tree.insert_file(&path, content, mode)?;
        } else {
            // Read now, and once: what was listed a moment ago may be edited while the image is built.
            tree.insert_file(&path, content.read()?, mode)?;
        }
    }
    Ok(tree)
}

fn digest_of(path: &Path) -> Result<Digest, PipelineError> {
    let fault = |source| PipelineError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = regular::open(path).map_err(|irregular| fault(irregular.into()))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(fault)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

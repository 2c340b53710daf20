//! Indexes on this machine: a folder of files, a page in a file, and a `file://` index with a folder for each project.
//!
//! It hashes what it lists, so that files from a folder are locked like any others. It reads and never writes.

use std::path::Path;

use url::Url;
use uv_normalize::PackageName;

use super::config::Location;
use super::page::{Page, RawFile};
use super::{IndexError, simple};
use crate::digest::Hashing;
use crate::regular;

/// The page of `name` on a `file://` index: `<name>/index.html` (PEP 503 as a folder), else the files in `<name>/`.
pub(super) fn folder_page(location: &Location, name: &PackageName) -> Result<Option<Page>, IndexError> {
    let root = location
        .url
        .to_file_path()
        .map_err(|()| IndexError::Config(format!("{} is no path", location.url)))?;
    if !root.is_dir() {
        return Err(fault(&root)(std::io::ErrorKind::NotFound.into()));
    }
    let folder = root.join(name.as_str());
    if !folder.is_dir() {
        return Ok(None);
    }
    let document = folder.join("index.html");
    let files = match document.is_file() {
        true => flat_document(&document)?,
        false => folder_files(&folder)?,
    };
    Ok(Some(Page::build(name, &location.label(), files)))
}

/// The distributions that an HTML page on this machine names. Files beside it that it gives no hash for are hashed.
pub(super) fn flat_document(path: &Path) -> Result<Vec<RawFile<'static>>, IndexError> {
    let bad = |rule: String| IndexError::Config(format!("{}: {rule}", path.display()));
    let url = Url::from_file_path(path).map_err(|()| bad("it is no path".to_owned()))?;
    let text = regular::text(path, simple::LARGEST).map_err(|error| bad(error.to_string()))?;
    let mut files = simple::flat(&url, text.as_bytes()).map_err(bad)?;
    for file in &mut files {
        let local = Url::parse(&file.url).ok().filter(|url| url.scheme() == "file");
        let local = local.and_then(|url| url.to_file_path().ok());
        if let Some(local) = local.filter(|_| file.sha256.is_none() || file.size.is_none()) {
            let (digest, size) = hashed(&local)?;
            file.sha256 = file.sha256.or(Some(digest));
            file.size = Some(size);
        }
    }
    Ok(files)
}

/// The distributions in a folder, hashed.
pub(super) fn folder_files(folder: &Path) -> Result<Vec<RawFile<'static>>, IndexError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault(folder))? {
        let entry = entry.map_err(fault(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let regular = entry.file_type().map_err(fault(folder))?.is_file();
        if !regular || !(name.ends_with(".whl") || name.ends_with(".tar.gz") || name.ends_with(".zip")) {
            continue;
        }
        let path = entry.path();
        let (digest, size) = hashed(&path)?;
        if let Ok(url) = Url::from_file_path(&path) {
            files.push(RawFile {
                name: name.into(),
                url: url.to_string().into(),
                sha256: Some(digest),
                size: Some(size),
                ..RawFile::default()
            });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn hashed(path: &Path) -> Result<(crate::digest::Digest, u64), IndexError> {
    let mut content = Hashing::new(std::fs::File::open(path).map_err(fault(path))?);
    std::io::copy(&mut content, &mut std::io::sink()).map_err(fault(path))?;
    let (digest, size, _) = content.finish();
    Ok((digest, size))
}

fn fault(path: &Path) -> impl Fn(std::io::Error) -> IndexError {
    // Without the slash that a folder's URL ends in.
    let path = path.components().as_path().display().to_string();
    move |source| IndexError::FindLinks {
        path: path.clone(),
        source,
    }
}

//! What a project takes from a URL, a path or a repository, read so that it can be locked.
//!
//! `name @ url` in a list of requirements and `[tool.uv.sources]` come to the same. What such a package requires by URL is a place
//! as well. Two places for one name are refused where both would hold.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::{Failure, Session};
use crate::build::Builder;
use crate::digest::Digest;
use crate::http::{Credentials, Redacted, Request};
use crate::index::config::Locations;
use crate::index::{Direct, SourceMetadata, SourcePlace, SourceTree, git};
use crate::layers::{open_wheel, wheel_file};
use crate::lock::reach::{Scope, without_extras};
use crate::lock::{File, Location, Lock, Source};
use crate::project::uv::SourceKind;
use crate::project::{Declared, Manifest};
use crate::python::metadata::Metadata;
use crate::python::requirement::{Requirement, VersionOrUrl};
use crate::store::Store;

/// The largest archive that is taken from a URL, in bytes.
const LARGEST: u64 = 8 << 30;

/// One place that is asked for, before anybody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub name: PackageName,
    marker: MarkerTree,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Url(url::Url),
    /// As it is written; absolute, or relative to the project's folder.
    Path {
        path: PathBuf,
        editable: bool,
    },
    Git {
        url: url::Url,
        reference: Option<String>,
        subdirectory: Option<String>,
    },
}

impl Asked {
    /// For people and for the lock's own lines: no credentials, and paths as they are written.
    fn shown(&self) -> String {
        match &self.place {
            Place::Url(url) => Redacted(&Credentials::take_from(url).0).to_string(),
            Place::Path { path, .. } => path.display().to_string(),
            Place::Git {
                url,
                reference,
                subdirectory,
            } => {
                let (url, _) = Credentials::take_from(url);
                let at = reference
                    .as_ref()
                    .map(|text| format!("@{text}"))
                    .unwrap_or_default();
                let below = subdirectory.as_ref().map(|text| format!("#subdirectory={text}"));
                format!("git+{url}{at}{}", below.unwrap_or_default())
            }
        }
    }
}

/// `requirement` as an index would answer it: its URL is told by [`asked`].
pub fn bare(mut requirement: Requirement) -> Requirement {
    if matches!(requirement.version_or_url, Some(VersionOrUrl::Url(_))) {
        requirement.version_or_url = None;
    }
    requirement
}

/// All places that the project names.
pub fn asked(manifest: &Manifest) -> Result<Vec<Asked>, Failure> {
    let pyproject = &manifest.pyproject;
    let uv = &pyproject.uv;
    let lists = std::iter::once(&pyproject.dependencies)
        .chain(pyproject.extras.iter().map(|(_, list)| list))
        .chain(pyproject.groups.iter().map(|(_, list)| list))
        .chain([&uv.constraints, &uv.overrides]);
    let mut found = Vec::new();
    for Declared { requirement, .. } in lists.flatten() {
        add(&mut found, from_requirement(requirement, requirement.marker)?)?;
    }
    for (name, sources) in &uv.sources {
        for source in sources {
            let scopes = [
                source.extra.clone().map(Scope::Extra),
                source.group.clone().map(Scope::Group),
            ];
            let scopes = scopes.into_iter().flatten();
            let marker = scopes.fold(source.marker.unwrap_or(MarkerTree::TRUE), |all, scope| {
                all.and(scope.marker())
            });
            let place = match &source.kind {
                SourceKind::Index(_) => continue,
                SourceKind::Workspace => {
                    return Err(Failure::new(format!(
                        "[tool.uv.sources] takes `{name}` from the workspace, and mlrails knows one project at a time"
                    ))
                    .hint("name its folder: `path = \"libs/…\"`"));
                }
                SourceKind::Url(text) => Place::Url(parsed(name, text)?),
                SourceKind::Path { path, editable } => Place::Path {
                    path: path.into(),
                    editable: *editable,
                },
                SourceKind::Git {
                    url,
                    reference,
                    subdirectory,
                } => Place::Git {
                    url: parsed(name, url.strip_prefix("git+").unwrap_or(url))?,
                    reference: reference.clone(),
                    subdirectory: subdirectory.clone(),
                },
            };
            add(
                &mut found,
                Some(Asked {
                    name: name.clone(),
                    marker,
                    place,
                }),
            )?;
        }
    }
    Ok(found)
}

fn parsed(name: &PackageName, text: &str) -> Result<url::Url, Failure> {
    // `git@host:path`, as people copy it.
    let scp = text
        .split_once(':')
        .filter(|(host, path)| host.contains('@') && !path.starts_with("//") && !host.contains('/'));
    let written = scp.map_or_else(|| text.to_owned(), |(host, path)| format!("ssh://{host}/{path}"));
    url::Url::parse(&written)
        .map_err(|error| Failure::new(format!("the place of `{name}` is not a URL: {error}")))
}

fn add(found: &mut Vec<Asked>, new: Option<Asked>) -> Result<(), Failure> {
    let Some(new) = new else { return Ok(()) };
    for old in found.iter().filter(|old| old.name == new.name) {
        if old.place == new.place && old.marker == new.marker {
            return Ok(());
        }
        if old.place != new.place && !old.marker.is_disjoint(new.marker) {
            return Err(Failure::new(format!(
                "`{}` comes from two places: {} and {}",
                new.name,
                old.shown(),
                new.shown()
            ))
            .hint("keep one of them, or give them markers that exclude each other"));
        }
    }
    found.push(new);
    Ok(())
}

fn from_requirement(requirement: &Requirement, marker: MarkerTree) -> Result<Option<Asked>, Failure> {
    let Some(VersionOrUrl::Url(url)) = &requirement.version_or_url else {
        return Ok(None);
    };
    let name = &requirement.name;
    let place = match url.scheme() {
        "file" => Place::Path {
            path: url.to_file_path().map_err(|()| {
                Failure::new(format!("the place of `{name}` is no path of this machine: {url}"))
            })?,
            editable: false,
        },
        scheme if scheme.starts_with("git+") => {
            let mut text = url.as_str()["git+".len()..].to_owned();
            let fragment = url.fragment().map(str::to_owned);
            if let Some((before, _)) = text.clone().split_once('#') {
                text = before.to_owned();
            }
            // The last `@` behind the host is the reference's.
            let path_at = text.find("://").map_or(0, |at| at + 3);
            let path_at = text[path_at..].find('/').map_or(text.len(), |at| path_at + at);
            let reference = text[path_at..]
                .rfind('@')
                .map(|at| text.split_off(path_at + at)[1..].to_owned());
            let subdirectory = fragment
                .iter()
                .flat_map(|fragment| fragment.split('&'))
                .find_map(|part| part.strip_prefix("subdirectory="))
                .map(str::to_owned);
            Place::Git {
                url: parsed(name, &text)?,
                reference,
                subdirectory,
            }
        }
        "https" | "http" => Place::Url(url.clone()),
        other => {
            return Err(
                Failure::new(format!("`{name}` comes from a URL of the kind `{other}`"))
                    .hint("https, file and git+https are understood"),
            );
        }
    };
    Ok(Some(Asked {
        name: name.clone(),
        marker: without_extras(marker),
        place,
    }))
}

/// What of the places decides a lock, as its lines: with what a folder says of itself, so that a change there is noticed.
pub fn lines(manifest: &Manifest, asked: &[Asked]) -> Vec<String> {
    let line = |one: &Asked| {
        let state = match &one.place {
            Place::Path { path, .. } => format!(" {}", state(&manifest.root.join(path))),
            _ => String::new(),
        };
        let marker = one.marker.try_to_string().map(|text| format!(" ; {text}"));
        let shown = one.shown();
        format!(
            "direct {} @ {shown}{state}{}",
            one.name,
            marker.unwrap_or_default()
        )
    };
    asked.iter().map(line).collect()
}

/// Whether a lock has its packages from where the project says today. What installs from a lock asks no place, so the lines decide.
pub fn agrees(manifest: &Manifest, lock: &Lock) -> Result<(), Failure> {
    let is = lines(manifest, &asked(manifest)?);
    let was: Vec<&String> = (lock.mlrails.inputs.iter())
        .filter(|line| line.starts_with("direct "))
        .collect();
    let new = is.iter().find(|line| !was.contains(line));
    let gone = was.iter().find(|line| !is.contains(line));
    match (new, gone) {
        (Some(line), _) => Err(super::lock::outgrown(&format!("`{line}` is new"))),
        (None, Some(line)) => Err(super::lock::outgrown(&format!("`{line}` is gone"))),
        (None, None) => Ok(()),
    }
}

/// A short digest of what says which requirements a path has.
fn state(path: &Path) -> String {
    let mut hasher = crate::digest::Hasher::new();
    let files = ["pyproject.toml", "setup.py", "setup.cfg"].map(|name| path.join(name));
    for file in files.iter().map(PathBuf::as_path).chain([path]) {
        if let Ok(bytes) = crate::regular::bytes(file, LARGEST) {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
    }
    hasher.finish().hex()[..16].to_owned()
}

/// Reads every place, and those that the packages there name. Blocks, downloads and may build.
pub fn find(
    asked: Vec<Asked>,
    manifest: &Manifest,
    old: Option<&Lock>,
    moves: bool,
    locations: &Locations,
    builder: &Builder,
    session: &Session,
) -> Result<Vec<Direct>, Failure> {
    // `--upgrade` looks again at what may have moved.
    let old = old.filter(|_| !moves);
    let mut places = asked;
    let mut found: Vec<Direct> = Vec::new();
    let mut next = 0;
    while let Some(one) = places.get(next).cloned() {
        next += 1;
        let (mut metadata, source) = read(&one, manifest, old, locations, builder, session)?;
        if metadata.name != one.name {
            return Err(Failure::new(format!(
                "{} is `{}`, and was asked for as `{}`",
                one.shown(),
                metadata.name,
                one.name
            )));
        }
        for requirement in &metadata.requires_dist {
            let marker = one.marker.and(without_extras(requirement.marker));
            add(&mut places, from_requirement(requirement, marker)?)?;
        }
        metadata.requires_dist = metadata.requires_dist.into_iter().map(bare).collect();
        found.push(Direct {
            name: one.name.clone(),
            label: one.shown(),
            marker: one.marker,
            metadata: Arc::new(metadata),
            source,
        });
    }
    // One place under several markers is one page.
    let mut seen = BTreeSet::new();
    found.retain(|direct| {
        seen.insert((
            direct.name.clone(),
            direct.label.clone(),
            direct.marker.try_to_string(),
        ))
    });
    Ok(found)
}

fn read(
    one: &Asked,
    manifest: &Manifest,
    old: Option<&Lock>,
    locations: &Locations,
    builder: &Builder,
    session: &Session,
) -> Result<(Metadata, Source), Failure> {
    let store = session.store()?;
    match &one.place {
        Place::Url(url) => {
            let known = old.and_then(|old| locked_at(old, &one.name, url));
            let file = match known.filter(|file| store.blob_size(&file.digest).is_some()) {
                Some(file) => file,
                None => download(&one.name, url, locations, &store, session)?,
            };
            Ok((archive(&one.name, &file, &store, builder)?, Source::Archive(file)))
        }
        Place::Path { path, editable } => {
            let at = manifest.root.join(path);
            let below = path_below(&manifest.root, &at);
            if at.is_file() {
                let file = local(&one.name, &at, below, &store)?;
                return Ok((archive(&one.name, &file, &store, builder)?, Source::Archive(file)));
            }
            if !at.is_dir() {
                return Err(Failure::new(format!(
                    "`{}` comes from {}, where there is nothing",
                    one.name,
                    path.display()
                )));
            }
            let Some(below) = below else {
                return Err(Failure::new(format!(
                    "`{}` comes from {}, which is outside of the project: a lock cannot name it for other machines",
                    one.name,
                    path.display()
                ))
                .hint("move it below the project, build a wheel of it, or name its repository (`git = …`)"));
            };
            let tree = SourceTree {
                name: one.name.clone(),
                place: SourcePlace::Folder(at),
                subdirectory: None,
            };
            let source = Source::Directory {
                path: below,
                editable: *editable,
            };
            Ok((of_tree(builder, &tree)?, source))
        }
        Place::Git {
            url,
            reference,
            subdirectory,
        } => {
            let (bare_url, _) = Credentials::take_from(url);
            // A branch becomes a commit once: it moves with `--upgrade`, or when its line changes.
            let kept = old.and_then(|old| locked_commit(old, one, &bare_url));
            let checkout = git::checkout(&store, url, kept.as_deref().or(reference.as_deref()))?;
            let tree = SourceTree {
                name: one.name.clone(),
                place: SourcePlace::Folder(git::folder(&store, url, &checkout.commit)),
                subdirectory: subdirectory.as_ref().map(PathBuf::from),
            };
            let source = Source::Vcs {
                kind: "git".to_owned(),
                url: bare_url,
                commit: checkout.commit,
                subdirectory: subdirectory.clone(),
            };
            Ok((of_tree(builder, &tree)?, source))
        }
    }
}

fn of_tree(builder: &Builder, tree: &SourceTree) -> Result<Metadata, Failure> {
    builder
        .metadata(tree)
        .map(|metadata| (*metadata).clone())
        .map_err(|source| {
            let file = tree.shown();
            Arc::new(crate::index::IndexError::Source { file, source }).into()
        })
}

/// The path from the project's folder, if it stays in it.
fn path_below(root: &Path, at: &Path) -> Option<PathBuf> {
    let (root, at) = (root.canonicalize().ok()?, at.canonicalize().ok()?);
    at.strip_prefix(root).ok().map(Path::to_owned)
}

/// The metadata of a wheel or a source archive that the store has.
fn archive(name: &PackageName, file: &File, store: &Store, builder: &Builder) -> Result<Metadata, Failure> {
    if !file.name.ends_with(".whl") {
        return of_tree(builder, &SourceTree::archive(name, &file.name, file.digest));
    }
    let wheel = open_wheel(store, &file.name, &file.digest)?;
    let text = wheel
        .metadata_file(&wheel_file(store, &wheel)?, "METADATA")
        .map_err(crate::layers::LayerError::from)?;
    let mut metadata = Metadata::parse(&text.unwrap_or_default())
        .map_err(|error| Failure::new(format!("METADATA of {}: {error}", file.name)))?;
    metadata.import_names = wheel.imports.clone();
    Ok(metadata)
}

fn locked_at(old: &Lock, name: &PackageName, url: &url::Url) -> Option<File> {
    let (url, _) = Credentials::take_from(url);
    old.packages_named(name)
        .find_map(|package| match &package.source {
            Source::Archive(file) if file.location == Location::Url(without_fragment(&url)) => {
                Some(file.clone())
            }
            _ => None,
        })
}

fn locked_commit(old: &Lock, one: &Asked, url: &url::Url) -> Option<String> {
    let line = format!("direct {} @ {}", one.name, one.shown());
    let is_same = |known: &String| {
        *known == line
            || known
                .strip_prefix(&line)
                .is_some_and(|rest| rest.starts_with(" ;"))
    };
    if !old.mlrails.inputs.iter().any(is_same) {
        return None;
    }
    old.packages_named(&one.name)
        .find_map(|package| match &package.source {
            Source::Vcs {
                url: known, commit, ..
            } if known == url => Some(commit.clone()),
            _ => None,
        })
}

fn without_fragment(url: &url::Url) -> url::Url {
    let mut url = url.clone();
    url.set_fragment(None);
    url
}

fn file_name(name: &PackageName, url: &url::Url) -> Result<String, Failure> {
    let known = [".whl", ".tar.gz", ".tgz", ".zip"];
    crate::python::file_name_of(url)
        .filter(|file| known.iter().any(|end| file.ends_with(end)))
        .ok_or_else(|| {
            Failure::new(format!(
                "`{name}` comes from {}, which is neither a wheel nor a source archive",
                Redacted(url)
            ))
            .hint("the URL has to end in .whl, .tar.gz or .zip")
        })
}

/// A file of this machine, copied into the store.
fn local(name: &PackageName, at: &Path, below: Option<PathBuf>, store: &Store) -> Result<File, Failure> {
    let url = std::path::absolute(at)
        .ok()
        .and_then(|path| url::Url::from_file_path(path).ok());
    let url = url.ok_or_else(|| Failure::new(format!("{} is no path", at.display())))?;
    let file = file_name(name, &url)?;
    let fault = |source: std::io::Error| Failure::new(format!("cannot read {}: {source}", at.display()));
    let mut input = crate::regular::open(at).map_err(|irregular| fault(irregular.into()))?;
    let mut writer = store.writer()?;
    let size = std::io::copy(&mut input, &mut writer).map_err(fault)?;
    let (digest, _) = writer.commit()?;
    Ok(File {
        name: file,
        location: below.map_or(Location::Url(url), Location::Path),
        size: Some(size),
        upload_time: None,
        digest,
    })
}

/// A file of a URL, into the store; what `#sha256=` says is held against it.
fn download(
    name: &PackageName,
    url: &url::Url,
    locations: &Locations,
    store: &Store,
    session: &Session,
) -> Result<File, Failure> {
    let file = file_name(name, url)?;
    let (bare_url, credentials) = Credentials::take_from(url);
    let credentials = credentials.or_else(|| locations.credentials(&bare_url));
    let promised = bare_url.fragment().and_then(|fragment| {
        let mut parts = fragment.split('&');
        parts.find_map(|part| part.strip_prefix("sha256="))
    });
    let promised = promised
        .map(Digest::from_hex)
        .transpose()
        .map_err(|error| Failure::new(format!("the hash in the URL of `{name}` cannot be one: {error}")))?;
    let bare_url = without_fragment(&bare_url);
    let client = session.client(&[])?;
    let reporter = session.reporter();
    let fetched = tokio::runtime::Handle::current().block_on(async {
        let request = Request::get(bare_url.clone()).credentials(credentials);
        let mut response = client.send(request).await?;
        let task = reporter.start(&file, crate::reporter::Unit::Bytes, response.content_length());
        let mut writer = store.writer()?;
        let mut size = 0;
        while let Some(piece) = response.chunk().await? {
            size += piece.len() as u64;
            if size > LARGEST {
                return Err(Failure::new(format!(
                    "{} is larger than {LARGEST} bytes",
                    Redacted(&bare_url)
                )));
            }
            writer
                .write_all(&piece)
                .map_err(|error| Failure::new(format!("cannot write {file} to the cache: {error}")))?;
            reporter.advance(task, piece.len() as u64);
        }
        reporter.finish(task);
        Ok::<_, Failure>(writer.commit()?)
    });
    let (digest, size) = fetched?;
    if let Some(promised) = promised
        && promised != digest
    {
        return Err(Failure::new(format!(
            "{} is not what its URL promises: expected {promised}, got {digest}",
            Redacted(&bare_url)
        )));
    }
    Ok(File {
        name: file,
        location: Location::Url(bare_url),
        size: Some(size),
        upload_time: None,
        digest,
    })
}

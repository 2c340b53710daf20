//! The lock as data: which distributions, at which versions, from which files, for which environments (PEP 751).
//!
//! It reads and writes `pylock.toml`, selects what one target installs, and knows whether a lock still satisfies a
//! project. It does not know how the lock was solved, nor how files are fetched.

pub mod base;
pub mod cost;
pub mod diff;
pub mod format;
pub mod held;
pub mod prove;
pub mod reach;
pub mod satisfies;
mod select;

use std::path::PathBuf;

use url::Url;
use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep440::{Version, VersionSpecifiers};
use uv_pep508::MarkerTree;

use crate::digest::Digest;
use crate::python::requirement::Requirement;
use crate::python::target::{Platform, PythonVersion};

pub use format::LockError;
pub use select::SelectError;

/// The name that `mlrails lock` writes and every command reads, in the project's folder.
pub const FILE_NAME: &str = "pylock.toml";

/// The reserved dependency group of the serving runtime's own packages, locked in the project's solve.
pub const SERVING_GROUP: &str = "mlrails-serving";

/// What a lock of ours says of its writer.
pub const CREATED_BY: &str = "mlrails";

/// A lock file. Packages are sorted by name, then version.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    /// Who wrote it.
    pub created_by: String,
    pub requires_python: Option<VersionSpecifiers>,
    /// The environments that the lock covers; empty: all that `requires_python` admits.
    pub environments: Vec<MarkerTree>,
    /// The project's extras and groups that markers in `packages` speak of.
    pub extras: Vec<ExtraName>,
    pub dependency_groups: Vec<GroupName>,
    pub default_groups: Vec<GroupName>,
    pub packages: Vec<Package>,
    /// `[tool.mlrails]`.
    pub mlrails: Settings,
}

/// What mlrails keeps in a lock for itself, under `[tool.mlrails]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The one Python minor for training and serving.
    pub python: Option<PythonVersion>,
    /// The image's platforms: a wheel or an sdist of every production package is known to exist for each.
    pub platforms: Vec<Platform>,
    /// Where the solution forked; the next solve starts from here, so that locks do not oscillate.
    pub forks: Vec<MarkerTree>,
    /// What was asked for, as canonical lines: equal lines and a satisfied lock mean that nothing is solved again.
    pub inputs: Vec<String>,
    /// `[tool.mlrails.base]`: the locked base, as its own room reads and writes it.
    pub base: Option<toml::Table>,
}

/// One distribution at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: PackageName,
    /// Absent only for sources whose version is not fixed (a directory).
    pub version: Option<Version>,
    /// Where it is installed, `'dev' in dependency_groups` included.
    pub marker: MarkerTree,
    pub requires_python: Option<VersionSpecifiers>,
    /// Its Requires-Dist as published, so that reachability is computed from the lock alone.
    pub requires: Vec<Requirement>,
    /// The extras of it that the lock covers: those that somebody asked for when it was solved.
    pub extras: Vec<ExtraName>,
    /// In which forks this entry answers for its name; TRUE unless the name has several entries.
    pub fork: MarkerTree,
    /// The index it came from, without credentials.
    pub index: Option<String>,
    pub source: Source,
    /// Top-level import names; empty while no wheel of it was opened.
    pub imports: Vec<String>,
    /// That it was built from source when it was locked, with what: `name==version` of the build environment, sorted.
    pub built: Option<Vec<String>>,
}

/// Where a package's content comes from: exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An index's files.
    Files { sdist: Option<File>, wheels: Vec<File> },
    /// One archive at a URL or path of the project's choosing.
    Archive(File),
    /// A checkout: `kind` (`git`), its URL, the commit.
    Vcs {
        kind: String,
        url: Url,
        commit: String,
        subdirectory: Option<String>,
    },
    /// A folder beside the lock.
    Directory { path: PathBuf, editable: bool },
}

/// One file, by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The file's own name; for a wheel it holds name, version and tags.
    pub name: String,
    pub location: Location,
    /// In bytes.
    pub size: Option<u64>,
    /// RFC 3339, as the index says.
    pub upload_time: Option<jiff::Timestamp>,
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Url(Url),
    /// Relative to the lock's folder, and inside it.
    Path(PathBuf),
}

impl Lock {
    /// The entries of `name`: one, or one per fork.
    pub fn packages_named<'a>(&'a self, name: &'a PackageName) -> impl Iterator<Item = &'a Package> {
        self.packages.iter().filter(move |package| package.name == *name)
    }
}

impl Package {
    /// Its wheels; empty for other sources.
    pub fn wheels(&self) -> &[File] {
        match &self.source {
            Source::Files { wheels, .. } => wheels,
            Source::Archive(file) if file.name.ends_with(".whl") => std::slice::from_ref(file),
            _ => &[],
        }
    }

    /// Its source distribution, where it has one.
    pub fn sdist(&self) -> Option<&File> {
        match &self.source {
            Source::Files { sdist, .. } => sdist.as_ref(),
            Source::Archive(file) if !file.name.ends_with(".whl") => Some(file),
            _ => None,
        }
    }

    /// Whether there is source code that a wheel could be built from.
    pub fn has_source(&self) -> bool {
        self.sdist().is_some() || matches!(self.source, Source::Vcs { .. } | Source::Directory { .. })
    }

    /// `name version`, as people read it.
    pub fn label(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_string(),
        }
    }
}

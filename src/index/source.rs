//! Source code as a place that metadata comes from: what of it is final as it is written, and who is asked when nothing is.
//!
//! It gives [`SourceTree`], the vocabulary between those who find source code (an index's archives, a URL, a checkout, a folder) and
//! the one who builds it, which the solver knows as [`SourceMetadata`] alone: running a project's build belongs above this floor.
//!
//! Sources: PEP 621 (pyproject.toml), PEP 643 (what is final in PKG-INFO).

use std::path::PathBuf;
use std::sync::Arc;

use uv_normalize::{ExtraName, PackageName};
use uv_pep440::{Version, VersionSpecifiers};

use super::{FileId, Index, IndexError, Page, Pick, Pin};
use crate::digest::Digest;
use crate::python::metadata::{Metadata, MetadataError};
use crate::python::requirement::{self, Requirement};

/// Source code that a wheel can be built from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceTree {
    /// Whose code it is said to be: what a build makes of it must agree.
    pub name: PackageName,
    pub place: SourcePlace,
    /// The project's folder below the place, where it is not the place itself: `#subdirectory=` of a requirement.
    pub subdirectory: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourcePlace {
    /// A source archive that the store has: its own name (`demo-1.0.tar.gz`, `.zip`) and its content.
    Archive { file_name: String, digest: Digest },
    /// A folder on this machine, absolute: a checkout, a path dependency. It is copied and never written to.
    Folder(PathBuf),
}

impl SourceTree {
    /// An archive with the project in its one top folder.
    pub fn archive(name: &PackageName, file_name: &str, digest: Digest) -> Self {
        Self {
            name: name.clone(),
            place: SourcePlace::Archive {
                file_name: file_name.to_owned(),
                digest,
            },
            subdirectory: None,
        }
    }

    /// As people know it.
    pub fn shown(&self) -> String {
        let place = match &self.place {
            SourcePlace::Archive { file_name, .. } => file_name.clone(),
            SourcePlace::Folder(path) => path.display().to_string(),
        };
        match &self.subdirectory {
            Some(below) => format!("{place} ({})", below.display()),
            None => place,
        }
    }
}

/// Why a source tells nothing. Its type is the builder's own; advice is given for it where it is known.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Tells what source code needs: from what is final in it, else by a build.
pub trait SourceMetadata: Sync {
    /// Blocks, and may run the project's own code.
    fn metadata(&self, tree: &SourceTree) -> Result<Arc<Metadata>, SourceError>;
}

/// An index whose source archives answer by a build where nothing else does. A build happens only for a version that the solver
/// has chosen, never ahead.
pub struct WithSources<'a> {
    pub index: &'a dyn Index,
    pub sources: &'a dyn SourceMetadata,
}

impl Index for WithSources<'_> {
    fn page(&self, name: &PackageName) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        self.index.page(name)
    }

    fn metadata(
        &self,
        name: &PackageName,
        page: &Arc<Page>,
        file: FileId,
    ) -> Result<Arc<Metadata>, Arc<IndexError>> {
        let error = match self.index.metadata(name, page, file) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        let IndexError::NeedsBuild { file, digest, .. } = &*error else {
            return Err(error);
        };
        let tree = SourceTree::archive(name, file, *digest);
        self.sources.metadata(&tree).map_err(|source| {
            Arc::new(IndexError::Source {
                file: file.clone(),
                source,
            })
        })
    }

    fn pins(&self, name: &PackageName) -> &[Pin] {
        self.index.pins(name)
    }

    fn source(&self, name: &PackageName, page: &Page) -> Option<&crate::lock::Source> {
        self.index.source(name, page)
    }

    fn page_from(&self, name: &PackageName, pin: Option<&str>) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        self.index.page_from(name, pin)
    }

    fn request_from(&self, name: &PackageName, pin: Option<&str>, pick: Option<Pick>) {
        self.index.request_from(name, pin, pick);
    }

    fn request_metadata(&self, name: &PackageName, page: &Arc<Page>, file: FileId) {
        self.index.request_metadata(name, page, file);
    }
}

/// The metadata of a source tree that no build will change, from the texts of its PKG-INFO and its pyproject.toml; `None` if only a
/// build can tell.
pub fn final_metadata(
    pkg_info: Option<&[u8]>,
    pyproject: Option<&str>,
) -> Result<Option<Metadata>, MetadataError> {
    let info = pkg_info.map(Metadata::parse).transpose()?;
    if info.as_ref().is_some_and(Metadata::dependencies_are_static) {
        return Ok(info);
    }
    let Some(project) = pyproject.and_then(Project::read) else {
        return Ok(None);
    };
    // A PKG-INFO of any age is right about whose it is: nothing of that was ever left to a build.
    let said = match info {
        Some(info) => Some((info.name, info.version)),
        None => project.name.zip(project.version),
    };
    Ok(said.map(|(name, version)| Metadata {
        metadata_version: (2, 2),
        name,
        version,
        requires_python: project.requires_python,
        requires_dist: project.requires_dist,
        provides_extra: project.provides_extra,
        dynamic: Vec::new(),
        import_names: Vec::new(),
    }))
}

/// `[project]`, where no backend may change its dependencies: what is not in `dynamic` is final.
struct Project {
    name: Option<PackageName>,
    version: Option<Version>,
    requires_python: Option<VersionSpecifiers>,
    requires_dist: Vec<Requirement>,
    provides_extra: Vec<ExtraName>,
}

impl Project {
    fn read(text: &str) -> Option<Self> {
        let table: toml::Table = text.parse().ok()?;
        let project = table.get("project")?.as_table()?;
        let dynamic = project.get("dynamic").and_then(toml::Value::as_array);
        let is_dynamic =
            |name: &str| dynamic.is_some_and(|names| names.iter().any(|value| value.as_str() == Some(name)));
        if ["dependencies", "optional-dependencies", "requires-python"]
            .into_iter()
            .any(is_dynamic)
        {
            return None;
        }
        // Poetry 1 put dependencies elsewhere and left `[project]` without any.
        if table.get("tool").and_then(|tool| tool.get("poetry")).is_some()
            && !project.contains_key("dependencies")
        {
            return None;
        }
        let parse = |value: &toml::Value| requirement::parse(value.as_str()?).ok();
        let mut requires_dist = Vec::new();
        let mut provides_extra = Vec::new();
        for value in project
            .get("dependencies")
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten()
        {
            requires_dist.push(parse(value)?);
        }
        let optional = project
            .get("optional-dependencies")
            .and_then(toml::Value::as_table);
        for (name, values) in optional.into_iter().flatten() {
            let extra: ExtraName = name.parse().ok()?;
            for value in values.as_array()? {
                requires_dist.push(parse(value)?.with_extra_marker(extra.clone()));
            }
            provides_extra.push(extra);
        }
        let text = |key: &str| project.get(key).and_then(toml::Value::as_str);
        Some(Self {
            name: text("name").and_then(|name| name.parse().ok()),
            version: text("version")
                .filter(|_| !is_dynamic("version"))
                .and_then(|version| version.parse().ok()),
            requires_python: match project.get("requires-python") {
                Some(value) => Some(value.as_str()?.parse().ok()?),
                None => None,
            },
            requires_dist,
            provides_extra,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_final_needs_no_build() {
        let check = |info: Option<&str>, project: Option<&str>, expected: Option<&str>| {
            let found = final_metadata(info.map(str::as_bytes), project).unwrap();
            let shown = found.map(|found| {
                let requires: Vec<String> = found.requires_dist.iter().map(ToString::to_string).collect();
                format!("{} {}: {}", found.name, found.version, requires.join(", "))
            });
            assert_eq!(shown.as_deref(), expected);
        };
        let old = "Metadata-Version: 1.2\nName: a\nVersion: 1\n";
        let new = "Metadata-Version: 2.2\nName: a\nVersion: 1\nRequires-Dist: b\n";
        let open = "Metadata-Version: 2.2\nName: a\nVersion: 1\nDynamic: Requires-Dist\n";
        let whole = "[project]\nname = \"a\"\nversion = \"2\"\ndependencies = [\"c>1\"]\n";
        let partly = "[project]\nname = \"a\"\nversion = \"2\"\ndynamic = [\"dependencies\"]\n";
        let unversioned = "[project]\nname = \"a\"\ndynamic = [\"version\"]\ndependencies = [\"c\"]\n";
        check(Some(new), None, Some("a 1: b"));
        check(Some(old), None, None);
        check(Some(open), Some(partly), None);
        check(Some(old), Some(whole), Some("a 1: c>1"));
        check(None, Some(whole), Some("a 2: c>1"));
        check(Some(old), Some(unversioned), Some("a 1: c"));
        check(None, Some(unversioned), None);
        check(None, Some("[tool.x]\n"), None);
        check(
            None,
            Some("[project]\nname = \"a\"\nversion = \"1\"\n[tool.poetry]\n"),
            None,
        );
    }
}

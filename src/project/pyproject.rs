//! pyproject.toml: the project's metadata and what it depends on.
//!
//! Sources: PEP 621 (`[project]`), PEP 735 (`[dependency-groups]`), PEP 518 and 517 (`[build-system]`), and the `[tool.uv]` tables
//! that say where packages come from. Facts only: nothing is resolved here.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep440::{Version, VersionSpecifiers};

use super::document::{Placed, Table};
use super::groups::{self, MOST_NAMES};
use super::mistake::{Mistake, Rule};
use super::place::{Place, SourceText};
use super::uv::{self, Uv};
use crate::python::entry_point;
use crate::python::requirement::{self, Requirement};

/// The most requirements that one list may hold. The largest known lists have hundreds.
const MOST_REQUIREMENTS: usize = 10_000;

/// Keys of `[project]` that are not read here.
const OTHER_KEYS: [&str; 10] = [
    "readme",
    "license",
    "license-files",
    "authors",
    "maintainers",
    "keywords",
    "classifiers",
    "urls",
    "import-names",
    "import-namespaces",
];

/// What pyproject.toml says.
#[derive(Debug, Clone)]
pub struct Pyproject {
    pub source: Arc<SourceText>,
    pub name: PackageName,
    /// As it is written.
    pub display_name: String,
    /// `None` when a build backend computes it.
    pub version: Option<Version>,
    pub description: Option<String>,
    pub requires_python: Option<VersionSpecifiers>,
    pub requires_python_place: Option<Place>,
    pub dependencies: Vec<Declared>,
    pub extras: Vec<(ExtraName, Vec<Declared>)>,
    /// With `include-group` replaced by what it names.
    pub groups: Vec<(GroupName, Vec<Declared>)>,
    pub build_system: Option<BuildSystem>,
    pub uv: Uv,
}

/// A requirement and where it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub requirement: Requirement,
    pub place: Place,
}

/// PEP 518 and PEP 517.
#[derive(Debug, Clone)]
pub struct BuildSystem {
    pub requires: Vec<Declared>,
    pub backend: Option<String>,
    /// Folders inside the project.
    pub backend_path: Vec<String>,
}

impl Pyproject {
    /// The requirements of one group.
    pub fn group(&self, name: &GroupName) -> Option<&[Declared]> {
        let (_, found) = self.groups.iter().find(|(group, _)| group == name)?;
        Some(found)
    }

    /// Every declared requirement: of the project, its extras and its groups.
    pub fn all_declared(&self) -> impl Iterator<Item = &Declared> {
        let extras = self.extras.iter().flat_map(|(_, declared)| declared);
        let groups = self.groups.iter().flat_map(|(_, declared)| declared);
        self.dependencies.iter().chain(extras).chain(groups)
    }
}

/// Reads the document whose root is `root`; `None` when there is no usable `[project]` name.
pub fn read(root: &Table<'_>, folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Pyproject> {
    let groups = groups::read(root, mistakes);
    let build_system = root
        .table("build-system", "[build-system]", mistakes)
        .map(|table| build_system(&table, folder, mistakes));
    let tool = root.table("tool", "[tool]", mistakes);
    let uv = tool
        .and_then(|tool| tool.table("uv", "[tool.uv]", mistakes))
        .map(|table| uv::read(&table, mistakes))
        .unwrap_or_default();
    let Some(project) = root.table("project", "[project]", mistakes) else {
        let rule = Rule::MissingKey {
            table: "pyproject.toml".to_owned(),
            key: "[project]".to_owned(),
        };
        mistakes.push(Mistake::new(rule).at(root.place().clone()));
        return None;
    };
    let dynamic = project.strings("dynamic", mistakes);
    let is_dynamic = |key: &str| dynamic.iter().any(|name| name.value == key);
    let name = name(&project, mistakes);
    let version = project
        .string("version", mistakes)
        .and_then(|text| version(&text, mistakes));
    if version.is_none() && project.value("version").is_none() && !is_dynamic("version") {
        let rule = Rule::MissingKey {
            table: "[project]".to_owned(),
            key: "version".to_owned(),
        };
        mistakes.push(Mistake::new(rule).at(project.place().clone()));
    }
    let description = project.string("description", mistakes).map(|text| text.value);
    let requires_python_text = project.string("requires-python", mistakes);
    let requires_python_place = requires_python_text.as_ref().map(|text| text.place.clone());
    let requires_python = requires_python_text.and_then(|text| {
        VersionSpecifiers::from_str(&text.value)
            .map_err(|error| mistakes.push(invalid(&text, "a version specifier", &error.to_string())))
            .ok()
    });
    let dependencies = declared(&project, "dependencies", mistakes);
    let extras = extras(&project, mistakes);
    paths_stay_inside(&project, folder, mistakes);
    entry_points(&project, mistakes);
    // The rest of PEP 621, PEP 639 and PEP 794 is the build backend's; a key that nobody reads is a slip, and a quiet one.
    for key in OTHER_KEYS {
        project.value(key);
    }
    project.finish(mistakes);
    let (name, display_name) = name?;
    Some(Pyproject {
        source: project.source().clone(),
        name,
        display_name,
        version,
        description,
        requires_python,
        requires_python_place,
        dependencies,
        extras,
        groups,
        build_system,
        uv,
    })
}

fn name(project: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Option<(PackageName, String)> {
    let Some(name) = project.string("name", mistakes) else {
        if project.value("name").is_none() {
            let rule = Rule::MissingKey {
                table: "[project]".to_owned(),
                key: "name".to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(project.place().clone()));
        }
        return None;
    };
    match PackageName::from_str(&name.value) {
        Ok(parsed) => Some((parsed, name.value)),
        Err(_) => {
            let rule = Rule::ProjectName {
                name: name.value.escape_debug().to_string(),
            };
            mistakes.push(Mistake::new(rule).at(name.place));
            None
        }
    }
}

fn version(text: &Placed<String>, mistakes: &mut Vec<Mistake>) -> Option<Version> {
    Version::from_str(&text.value)
        .map_err(|error| mistakes.push(invalid(text, "a version", &error.to_string())))
        .ok()
}

fn extras(project: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Vec<(ExtraName, Vec<Declared>)> {
    let Some(table) = project.table(
        "optional-dependencies",
        "[project.optional-dependencies]",
        mistakes,
    ) else {
        return Vec::new();
    };
    let mut extras = Vec::new();
    for (key, value) in table.entries() {
        let Ok(extra) = ExtraName::from_str(key.value) else {
            let what = format!("`{}` is not the name of an extra", key.value);
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(key.place));
            continue;
        };
        let Some(items) = value.get_ref().as_array() else {
            mistakes.push(table.wrong_type(key.value, "a list", value));
            continue;
        };
        let texts: Vec<_> = items
            .iter()
            .filter_map(|item| table.as_string(key.value, item, mistakes))
            .collect();
        extras.push((extra, parse_all(&texts, table.name(), mistakes)));
    }
    if extras.len() > MOST_NAMES {
        let rule = Rule::TooMany {
            table: table.name().to_owned(),
            limit: MOST_NAMES,
        };
        mistakes.push(Mistake::new(rule).at(table.place().clone()));
        return Vec::new();
    }
    extras
}

fn build_system(table: &Table<'_>, folder: &Path, mistakes: &mut Vec<Mistake>) -> BuildSystem {
    let backend_path = table.strings("backend-path", mistakes);
    for path in &backend_path {
        inside(path, folder, mistakes);
    }
    BuildSystem {
        requires: declared(table, "requires", mistakes),
        backend: table.string("build-backend", mistakes).map(|text| text.value),
        backend_path: backend_path.into_iter().map(|path| path.value).collect(),
    }
}

/// `readme` and `license` may name files, and `license-files` patterns: none outside the project, none through a link that leads out.
fn paths_stay_inside(project: &Table<'_>, folder: &Path, mistakes: &mut Vec<Mistake>) {
    if let Some(readme) = project.value("readme") {
        match readme.get_ref().as_str() {
            Some(_) => {
                if let Some(path) = project.as_string("readme", readme, mistakes) {
                    inside(&path, folder, mistakes);
                }
            }
            None => file_key(project, "readme", "[project.readme]", folder, mistakes),
        }
    }
    if project
        .value("license")
        .is_some_and(|license| license.get_ref().is_table())
    {
        file_key(project, "license", "[project.license]", folder, mistakes);
    }
    for pattern in project.strings("license-files", mistakes) {
        inside(&pattern, folder, mistakes);
    }
}

/// `[project.scripts]`, `[project.gui-scripts]` and `[project.entry-points]`: installers make files of the first two's names.
/// Source: the entry points specification, "Data model".
fn entry_points(project: &Table<'_>, mistakes: &mut Vec<Mistake>) {
    for (key, name) in [
        ("scripts", "[project.scripts]"),
        ("gui-scripts", "[project.gui-scripts]"),
    ] {
        if let Some(table) = project.table(key, name, mistakes) {
            entry_points_of(&table, true, mistakes);
        }
    }
    let Some(groups) = project.table("entry-points", "[project.entry-points]", mistakes) else {
        return;
    };
    for (group, value) in groups.entries() {
        let name = format!("[project.entry-points.{}]", group.value.escape_debug());
        if let Some(table) = groups.as_table(group.value, &name, value, mistakes) {
            entry_points_of(&table, false, mistakes);
        }
    }
}

fn entry_points_of(table: &Table<'_>, is_script: bool, mistakes: &mut Vec<Mistake>) {
    for (key, value) in table.entries() {
        let mut refuse = |place: Place, why: &str| {
            let what = format!(
                "the entry point `{}` of {} {why}",
                key.value.escape_debug(),
                table.name()
            );
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place));
        };
        if let Err(why) = entry_point::check_name(key.value, is_script) {
            refuse(key.place.clone(), why);
        }
        let place = table.place_of(value);
        match value.get_ref().as_str() {
            Some(object) if entry_point::is_object(object, is_script) => {}
            Some(_) if is_script => refuse(place, "is not of the form \"package.module:function\""),
            Some(_) => refuse(
                place,
                "is not of the form \"package.module\" or \"package.module:object\"",
            ),
            None => mistakes.push(table.wrong_type(key.value, "a text", value)),
        }
    }
}

fn file_key(project: &Table<'_>, key: &'static str, name: &str, folder: &Path, mistakes: &mut Vec<Mistake>) {
    let path = project
        .table(key, name, mistakes)
        .and_then(|table| table.string("file", mistakes));
    if let Some(path) = path {
        inside(&path, folder, mistakes);
    }
}

/// Notes a path that leads out of `folder`, by its text or through links.
pub(super) fn inside(path: &Placed<String>, folder: &Path, mistakes: &mut Vec<Mistake>) {
    let relative = Path::new(&path.value);
    let lexical = relative.components().all(|part| {
        matches!(
            part,
            std::path::Component::Normal(_) | std::path::Component::CurDir
        )
    });
    let outside = if !lexical || path.value.is_empty() {
        true
    } else {
        match folder.join(relative).canonicalize() {
            Ok(real) => !real.starts_with(folder),
            // Absent is the build backend's error; a link that leads nowhere or in circles is ours.
            Err(_) => folder.join(relative).is_symlink(),
        }
    };
    if outside {
        let rule = Rule::OutsideProject {
            path: path.value.escape_debug().to_string(),
        };
        mistakes.push(Mistake::new(rule).at(path.place.clone()));
    }
}

/// The requirements in the list at `key`.
pub(super) fn declared(table: &Table<'_>, key: &'static str, mistakes: &mut Vec<Mistake>) -> Vec<Declared> {
    let texts = table.strings(key, mistakes);
    parse_all(&texts, &format!("{} {key}", table.name()), mistakes)
}

pub(super) fn parse_all(texts: &[Placed<String>], table: &str, mistakes: &mut Vec<Mistake>) -> Vec<Declared> {
    if texts.len() > MOST_REQUIREMENTS {
        let rule = Rule::TooMany {
            table: table.to_owned(),
            limit: MOST_REQUIREMENTS,
        };
        mistakes.push(Mistake::new(rule).at(texts[MOST_REQUIREMENTS].place.clone()));
        return Vec::new();
    }
    texts
        .iter()
        .filter_map(|text| parse_one(text, mistakes))
        .collect()
}

pub(super) fn parse_one(text: &Placed<String>, mistakes: &mut Vec<Mistake>) -> Option<Declared> {
    match requirement::parse(&text.value) {
        Ok(requirement) => {
            if let Some(requirement::VersionOrUrl::Url(url)) = &requirement.version_or_url
                && let Some(mistake) = disguised_host(url)
            {
                mistakes.push(mistake.at(text.place.clone()));
                return None;
            }
            if let Some(requirement::VersionOrUrl::Url(url)) = &requirement.version_or_url
                && let Some(mistake) = weak_hash(url)
            {
                mistakes.push(mistake.at(text.place.clone()));
                return None;
            }
            Some(Declared {
                requirement,
                place: text.place.clone(),
            })
        }
        Err(error) => {
            let what = redacted(&error.to_string());
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(text.place.clone()));
            None
        }
    }
}

/// `https://good@evil/` reads as one host and is another: a user name without a password is refused.
pub(super) fn disguised_host(url: &url::Url) -> Option<Mistake> {
    if url.username().is_empty() || url.password().is_some() || url.scheme().contains("ssh") {
        return None;
    }
    let what = format!(
        "the host of this URL is `{}`; `{}` before the `@` is a user name without a password",
        url.host_str().unwrap_or_default(),
        url.username()
            .chars()
            .take(3)
            .chain("…".chars())
            .collect::<String>(),
    );
    Some(Mistake::new(Rule::InvalidValue { what }))
}

/// A URL that vouches for its file by a hash that can be forged, and by no other.
fn weak_hash(url: &url::Url) -> Option<Mistake> {
    let mut weak = None;
    for (name, _) in url::form_urlencoded::parse(url.fragment()?.as_bytes()) {
        match &*name {
            "sha256" | "sha384" | "sha512" => return None,
            "md5" | "sha1" | "sha224" => weak = Some(name),
            _ => {}
        }
    }
    let what = format!(
        "the only hash of this URL is {}, which can be forged: give its sha256",
        weak?
    );
    Some(Mistake::new(Rule::InvalidValue { what }))
}

/// `text` with what stands between `://` and `@` replaced, for messages.
pub(super) fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '`')
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(user_end) => {
                shown.push_str("****");
                &after[user_end..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

pub(super) fn invalid(text: &Placed<String>, what: &str, reason: &str) -> Mistake {
    let shown: String = text.value.chars().take(80).collect();
    let reason = reason.lines().next().unwrap_or_default();
    let what = redacted(&format!("`{}` is not {what}: {reason}", shown.escape_debug()));
    Mistake::new(Rule::InvalidValue { what }).at(text.place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let text = "`a @ https://user:secret@host/a.whl` and git+ssh://git@host/x";
        assert_eq!(
            redacted(text),
            "`a @ https://****@host/a.whl` and git+ssh://****@host/x"
        );
    }
}

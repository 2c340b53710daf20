//! `[tool.uv]`, as far as it says where packages come from and which may meet. Other keys are uv's own and pass unread.

use std::str::FromStr;

use toml::de::DeValue;
use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep508::MarkerTree;

use super::document::{Placed, Table};
use super::mistake::{Mistake, Rule};
use super::pyproject::{Declared, declared, disguised_host, invalid};
use crate::python::requirement;

/// What `[tool.uv]` says, as data.
#[derive(Debug, Clone, Default)]
pub struct Uv {
    pub sources: Vec<(PackageName, Vec<Source>)>,
    pub indexes: Vec<Index>,
    /// The older form of a default index.
    pub index_url: Option<String>,
    pub extra_index_urls: Vec<String>,
    pub find_links: Vec<String>,
    /// Packages come from `find_links` only.
    pub no_index: bool,
    pub constraints: Vec<Declared>,
    pub overrides: Vec<Declared>,
    /// Names that are left out wherever they are required.
    pub excluded: Vec<PackageName>,
    /// Each entry lists extras and groups of which at most one is installed.
    pub conflicts: Vec<Vec<Conflict>>,
    pub environments: Vec<MarkerTree>,
    pub required_environments: Vec<MarkerTree>,
    pub default_groups: Option<Vec<GroupName>>,
    pub prerelease: Option<String>,
    pub resolution: Option<String>,
    pub exclude_newer: Option<String>,
    pub no_build_packages: Vec<PackageName>,
    pub no_binary_packages: Vec<PackageName>,
}

/// One `[[tool.uv.index]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub name: Option<String>,
    pub url: String,
    pub default: bool,
    /// Only for packages whose source names it.
    pub explicit: bool,
    /// A flat list of files rather than PEP 503 pages.
    pub flat: bool,
}

/// One entry of `[tool.uv.sources]`.
#[derive(Debug, Clone)]
pub struct Source {
    pub kind: SourceKind,
    pub marker: Option<MarkerTree>,
    pub extra: Option<ExtraName>,
    pub group: Option<GroupName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    Index(String),
    Url(String),
    Path {
        path: String,
        editable: bool,
    },
    Git {
        url: String,
        reference: Option<String>,
        subdirectory: Option<String>,
    },
    Workspace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    Extra(ExtraName),
    Group(GroupName),
}

pub(super) fn read(table: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Uv {
    Uv {
        sources: sources(table, mistakes),
        indexes: indexes(table, mistakes),
        index_url: table
            .string("index-url", mistakes)
            .and_then(|text| url(&text, mistakes)),
        extra_index_urls: table
            .strings("extra-index-url", mistakes)
            .iter()
            .filter_map(|text| url(text, mistakes))
            .collect(),
        find_links: values(table.strings("find-links", mistakes)),
        no_index: table.boolean("no-index", mistakes).unwrap_or(false),
        constraints: declared(table, "constraint-dependencies", mistakes),
        overrides: declared(table, "override-dependencies", mistakes),
        excluded: names(table, "exclude-dependencies", mistakes),
        conflicts: conflicts(table, mistakes),
        environments: markers(table, "environments", mistakes),
        required_environments: markers(table, "required-environments", mistakes),
        default_groups: default_groups(table, mistakes),
        prerelease: table.string("prerelease", mistakes).map(|text| text.value),
        resolution: table.string("resolution", mistakes).map(|text| text.value),
        exclude_newer: table
            .value("exclude-newer")
            .and_then(|value| super::document::json(value.get_ref()))
            .and_then(|value| value.as_str().map(str::to_owned)),
        no_build_packages: names(table, "no-build-package", mistakes),
        no_binary_packages: names(table, "no-binary-package", mistakes),
    }
}

fn values(texts: Vec<Placed<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

/// A URL or a path; of a URL, only that it does not disguise its host is checked here.
fn url(text: &Placed<String>, mistakes: &mut Vec<Mistake>) -> Option<String> {
    if let Ok(parsed) = url::Url::parse(&text.value)
        && let Some(mistake) = disguised_host(&parsed)
    {
        mistakes.push(mistake.at(text.place.clone()));
        return None;
    }
    Some(text.value.clone())
}

fn name<T: FromStr<Err: std::fmt::Display>>(
    text: &Placed<String>,
    what: &str,
    mistakes: &mut Vec<Mistake>,
) -> Option<T> {
    text.value
        .parse()
        .map_err(|error: T::Err| mistakes.push(invalid(text, what, &error.to_string())))
        .ok()
}

fn names(table: &Table<'_>, key: &'static str, mistakes: &mut Vec<Mistake>) -> Vec<PackageName> {
    let texts = table.strings(key, mistakes);
    texts
        .iter()
        .filter_map(|text| name(text, "a package's name", mistakes))
        .collect()
}

fn marker(text: &Placed<String>, mistakes: &mut Vec<Mistake>) -> Option<MarkerTree> {
    requirement::parse_marker(&text.value)
        .map_err(|error| mistakes.push(invalid(text, "a marker", &error.to_string())))
        .ok()
}

/// A list of markers, or one alone.
fn markers(table: &Table<'_>, key: &'static str, mistakes: &mut Vec<Mistake>) -> Vec<MarkerTree> {
    let texts = match table.value(key) {
        Some(value) if value.get_ref().is_str() => table.string(key, mistakes).into_iter().collect(),
        _ => table.strings(key, mistakes),
    };
    texts.iter().filter_map(|text| marker(text, mistakes)).collect()
}

fn default_groups(table: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<GroupName>> {
    // "all" is uv's other form; it means no restriction, as does its absence here.
    if table.value("default-groups")?.get_ref().is_str() {
        return None;
    }
    let texts = table.strings("default-groups", mistakes);
    Some(
        texts
            .iter()
            .filter_map(|text| name(text, "a group's name", mistakes))
            .collect(),
    )
}

fn indexes(table: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Index> {
    let Some(items) = table.array("index", mistakes) else {
        return Vec::new();
    };
    let mut indexes = Vec::new();
    for item in items.iter() {
        let Some(entry) = table.as_table("index", "[[tool.uv.index]]", item, mistakes) else {
            continue;
        };
        let Some(written) = entry.string("url", mistakes) else {
            let rule = Rule::MissingKey {
                table: "[[tool.uv.index]]".to_owned(),
                key: "url".to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(entry.place().clone()));
            continue;
        };
        let Some(url) = url(&written, mistakes) else {
            continue;
        };
        indexes.push(Index {
            name: entry.string("name", mistakes).map(|text| text.value),
            url,
            default: entry.boolean("default", mistakes).unwrap_or(false),
            explicit: entry.boolean("explicit", mistakes).unwrap_or(false),
            flat: entry
                .string("format", mistakes)
                .is_some_and(|format| format.value == "flat"),
        });
    }
    indexes
}

fn sources(table: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Vec<(PackageName, Vec<Source>)> {
    let Some(sources) = table.table("sources", "[tool.uv.sources]", mistakes) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in sources.entries() {
        let written = Placed {
            value: key.value.to_owned(),
            place: key.place.clone(),
        };
        let Some(package) = name(&written, "a package's name", mistakes) else {
            continue;
        };
        let one;
        let entries: Vec<_> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => {
                one = value;
                vec![one]
            }
        };
        let mut list = Vec::new();
        for entry in entries {
            let Some(entry) = sources.as_table(key.value, "[tool.uv.sources]", entry, mistakes) else {
                continue;
            };
            list.extend(source(&entry, mistakes));
        }
        found.push((package, list));
    }
    found
}

fn source(entry: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Option<Source> {
    let text = |key, mistakes: &mut Vec<Mistake>| entry.string(key, mistakes).map(|text| text.value);
    let subdirectory = text("subdirectory", mistakes);
    let editable = entry.boolean("editable", mistakes).unwrap_or(false);
    let kind = if let Some(index) = text("index", mistakes) {
        SourceKind::Index(index)
    } else if let Some(written) = entry.string("url", mistakes) {
        SourceKind::Url(url(&written, mistakes)?)
    } else if let Some(path) = text("path", mistakes) {
        SourceKind::Path { path, editable }
    } else if let Some(written) = entry.string("git", mistakes) {
        let reference = text("rev", mistakes)
            .or_else(|| text("tag", mistakes))
            .or_else(|| text("branch", mistakes));
        SourceKind::Git {
            url: url(&written, mistakes)?,
            reference,
            subdirectory,
        }
    } else if entry.boolean("workspace", mistakes).unwrap_or(false) {
        SourceKind::Workspace
    } else {
        let what = "a source names one of index, url, path, git or workspace".to_owned();
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(entry.place().clone()));
        return None;
    };
    Some(Source {
        kind,
        marker: entry
            .string("marker", mistakes)
            .and_then(|text| marker(&text, mistakes)),
        extra: entry
            .string("extra", mistakes)
            .and_then(|text| name(&text, "an extra", mistakes)),
        group: entry
            .string("group", mistakes)
            .and_then(|text| name(&text, "a group", mistakes)),
    })
}

fn conflicts(table: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Vec<Conflict>> {
    let Some(sets) = table.array("conflicts", mistakes) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for set in sets.iter() {
        let Some(items) = set.get_ref().as_array() else {
            mistakes.push(table.wrong_type("conflicts", "a list of lists", set));
            continue;
        };
        let mut conflict = Vec::new();
        for item in items.iter() {
            let Some(item) = table.as_table("conflicts", "[tool.uv] conflicts", item, mistakes) else {
                continue;
            };
            if let Some(extra) = item.string("extra", mistakes) {
                conflict.extend(name(&extra, "an extra", mistakes).map(Conflict::Extra));
            } else if let Some(group) = item.string("group", mistakes) {
                conflict.extend(name(&group, "a group", mistakes).map(Conflict::Group));
            }
        }
        found.push(conflict);
    }
    found
}

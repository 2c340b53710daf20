//! The files of other tools that say where packages come from: uv's `uv.toml` and pip's `pip.conf`.
//!
//! It reads them into the words of [`super`], which decides between them. A file that is not there says nothing.

use std::path::{Path, PathBuf};

use super::super::IndexError;
use super::{Declared, DeclaredIndex, Flags, LARGEST};
use crate::regular;

/// The `uv.toml` beside the project (which replaces its `[tool.uv]` for uv, and adds to it here), the user's, the machine's.
pub(super) fn uv_files(
    folder: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Declared, IndexError> {
    let mut all = Declared::default();
    let user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    let machine = Some(PathBuf::from("/etc/uv/uv.toml"));
    let files = [
        Some(folder.join("uv.toml")),
        user.map(|folder| folder.join("uv/uv.toml")),
        machine,
    ];
    for path in files.into_iter().flatten() {
        let text = match path.parent() == Some(folder) {
            true => regular::text_beside(&path, LARGEST)
                .map_err(|irregular| IndexError::Config(format!("{}: {irregular}", path.display())))?,
            // What is the user's own may be a link to anywhere.
            false => regular::text(&path, LARGEST).ok(),
        };
        let Some(text) = text else { continue };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            IndexError::Config(format!("{} is not TOML: {}", path.display(), error.message()))
        })?;
        let found = declared_in(&table);
        // A relative place in a file that is not the project's is relative to that file.
        let beside = path.parent().unwrap_or(folder);
        let placed = |text: String| match text.contains("://") || beside == folder {
            true => text,
            false => beside.join(text).to_string_lossy().into_owned(),
        };
        all.indexes.extend(found.indexes.into_iter().map(|mut index| {
            index.url = placed(index.url);
            index
        }));
        all.find_links.extend(found.find_links.into_iter().map(placed));
        all.no_index |= found.no_index;
    }
    Ok(all)
}

/// The index settings of a `uv.toml` or a `[tool.uv]` table.
fn declared_in(table: &toml::Table) -> Declared {
    let text =
        |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let flag =
        |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_bool).unwrap_or_default();
    let list = |key: &str| -> Vec<String> {
        let values = table.get(key).and_then(toml::Value::as_array);
        values
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let mut declared = Declared {
        find_links: list("find-links"),
        no_index: flag(table, "no-index"),
        ..Declared::default()
    };
    for index in table
        .get("index")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let Some(index) = index.as_table() else { continue };
        if let Some(url) = text(index, "url") {
            declared.indexes.push(DeclaredIndex {
                name: text(index, "name"),
                url,
                default: flag(index, "default"),
                explicit: flag(index, "explicit"),
                flat: text(index, "format").as_deref() == Some("flat"),
            });
        }
    }
    for url in list("extra-index-url") {
        declared.indexes.push(DeclaredIndex {
            url,
            ..DeclaredIndex::default()
        });
    }
    if let Some(url) = text(table, "index-url") {
        declared.indexes.push(DeclaredIndex {
            url,
            default: true,
            ..DeclaredIndex::default()
        });
    }
    declared
}

/// What pip.conf says: the user's file before the machine's.
pub(super) fn pip_files(variable: &dyn Fn(&str) -> Option<String>) -> Flags {
    let home = variable("HOME").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let files = match variable("PIP_CONFIG_FILE") {
        Some(path) => vec![Some(PathBuf::from(path))],
        None => vec![
            variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("pip.conf")),
            config.map(|folder| folder.join("pip/pip.conf")),
            home.map(|folder| folder.join(".pip/pip.conf")),
            Some(PathBuf::from("/etc/pip.conf")),
        ],
    };
    let mut found = Flags::default();
    for path in files.into_iter().flatten() {
        if let Ok(text) = regular::text(&path, LARGEST) {
            let file = pip_file(&text);
            found.index_url = found.index_url.or(file.index_url);
            found.extra_index_urls.extend(file.extra_index_urls);
            found.find_links.extend(file.find_links);
            found.no_index |= file.no_index;
        }
    }
    found
}

/// One pip.conf: `key = value` below `[global]`, `[install]` or `[lock]`; an indented line goes on with the value above.
pub(super) fn pip_file(text: &str) -> Flags {
    let mut found = Flags::default();
    let mut relevant = false;
    let mut key = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[') {
            let section = section.trim_end_matches(']').trim();
            relevant = matches!(section, "global" | "install" | "lock");
            key.clear();
            continue;
        }
        let value = if line.starts_with([' ', '\t']) && !key.is_empty() {
            trimmed
        } else {
            let Some((name, value)) = trimmed.split_once(['=', ':']) else {
                continue;
            };
            key = name.trim().to_ascii_lowercase().replace('_', "-");
            value.trim()
        };
        if !relevant || value.is_empty() {
            continue;
        }
        match key.as_str() {
            "index-url" => found.index_url = Some(value.to_owned()),
            "extra-index-url" => found
                .extra_index_urls
                .extend(value.split_whitespace().map(str::to_owned)),
            "find-links" => found
                .find_links
                .extend(value.split_whitespace().map(str::to_owned)),
            "no-index" => found.no_index = super::is_yes(value),
            _ => {}
        }
    }
    found
}

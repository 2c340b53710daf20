//! Which names a wheel makes importable, told from its file names alone.

use std::collections::{BTreeMap, BTreeSet};

/// Import names of a wheel with these entries: top-level modules and packages; below a namespace package (a folder
/// without `__init__`), the dotted names of what is in it (`google.cloud.storage`). Sorted.
///
/// Private top-level names (`_cffi_backend`) are kept: code imports them.
pub fn import_names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut root = Folder::default();
    for path in paths {
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts[0].ends_with(".data") {
            // `name-1.data/purelib/…` lands in site-packages like what is outside of it; scripts and headers do not.
            if parts.len() < 3 || !matches!(parts[1], "purelib" | "platlib") {
                continue;
            }
            parts.drain(..2);
        }
        if parts[0].ends_with(".dist-info") || parts[0].ends_with(".libs") {
            continue;
        }
        let Some(file) = parts.pop() else { continue };
        let Some(module) = module_name(file) else { continue };
        if !parts.iter().all(|part| is_identifier(part)) {
            continue;
        }
        let mut folder = &mut root;
        for part in parts {
            folder = folder.folders.entry(part.to_owned()).or_default();
        }
        folder.modules.insert(module.to_owned());
    }
    let mut names = Vec::new();
    root.collect("", &mut names);
    names.sort();
    names
}

#[derive(Default)]
struct Folder {
    modules: BTreeSet<String>,
    folders: BTreeMap<String, Folder>,
}

impl Folder {
    fn collect(&self, prefix: &str, names: &mut Vec<String>) {
        for module in &self.modules {
            if module != "__init__" && module != "__main__" {
                names.push(format!("{prefix}{module}"));
            }
        }
        for (name, folder) in &self.folders {
            if self.modules.contains(name) {
                continue;
            }
            if folder.modules.is_empty() {
                folder.collect(&format!("{prefix}{name}."), names);
            } else {
                // A package, or a namespace folder that holds modules itself: it answers for all below it.
                names.push(format!("{prefix}{name}"));
            }
        }
    }
}

/// The module that a file defines: `a.py`, `a.cpython-311-x86_64-linux-gnu.so`, `a.abi3.so`, `a.pyd`.
fn module_name(file: &str) -> Option<&str> {
    let (stem, extension) = file.rsplit_once('.')?;
    let name = match extension {
        "py" => stem,
        "so" | "pyd" => stem.split('.').next().unwrap_or_default(),
        _ => return None,
    };
    is_identifier(name).then_some(name)
}

fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|character| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_import_finds() {
        let names = import_names([
            "sklearn/__init__.py",
            "sklearn/tree/_tree.cpython-311-x86_64-linux-gnu.so",
            "scikit_learn.libs/libgomp-a34b3233.so.1.0.0",
            "scikit_learn-1.0.dist-info/METADATA",
            "google/cloud/storage/__init__.py",
            "google/cloud/storage/blob.py",
            "six.py",
            "_cffi_backend.abi3.so",
            "x-1.data/purelib/extra/__init__.py",
            "x-1.data/scripts/tool.py",
            "share/jupyter/kernel.json",
            "my-folder/a.py",
        ]);
        assert_eq!(
            names,
            ["_cffi_backend", "extra", "google.cloud.storage", "six", "sklearn"]
        );
    }
}

//! The names that files make importable.

use std::collections::{HashMap, HashSet};

/// The top-level import names of a distribution, from the paths of its files below site-packages: sorted, and dotted
/// where the top is a namespace that other distributions share (`google.cloud.storage`).
pub fn import_names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    // Per folder: its modules' names, and whether one is `__init__`.
    let mut folders: HashMap<&str, (Vec<&str>, bool)> = HashMap::new();
    for path in paths {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let Some((stem, rest)) = file.split_once('.') else {
            continue;
        };
        // `x.py`, `x.so`, `x.abi3.so`, `x.cpython-311-x86_64-linux-gnu.so`, `x.cp311-win_amd64.pyd`.
        if rest != "py" && rest != "so" && rest != "pyd" && !rest.ends_with(".so") && !rest.ends_with(".pyd")
        {
            continue;
        }
        let slot = folders.entry(folder).or_default();
        slot.1 |= stem == "__init__";
        slot.0.push(stem);
    }
    let mut names = HashSet::new();
    for (folder, (modules, _)) in &folders {
        if folder.is_empty() {
            names.extend(
                modules
                    .iter()
                    .filter(|name| is_identifier(name))
                    .map(|name| (*name).to_owned()),
            );
            continue;
        }
        // The highest folder on the way that is a package, or that has modules of its own.
        let mut tops = folder
            .match_indices('/')
            .map(|(at, _)| &folder[..at])
            .chain([*folder]);
        if let Some(top) = tops.find(|top| folders.contains_key(top)) {
            let dotted = top.replace('/', ".");
            if is_dotted(&dotted) {
                names.insert(dotted);
            }
        }
    }
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names
}

/// Whether `text` is Python names joined by dots: it is written into a script's source.
pub(in crate::python) fn is_dotted(text: &str) -> bool {
    text.split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && chars.all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_names_stop_at_the_first_package() {
        let check =
            |paths: &[&str], expected: &[&str]| assert_eq!(import_names(paths.iter().copied()), expected);
        check(
            &["numpy/__init__.py", "numpy/core/__init__.py", "numpy/core/x.so"],
            &["numpy"],
        );
        check(
            &["six.py", "_yaml.cpython-311-x86_64-linux-gnu.so", "README.txt"],
            &["_yaml", "six"],
        );
        check(
            &[
                "google/cloud/storage/__init__.py",
                "google/cloud/storage/blob.py",
                "google/api/x.py",
            ],
            &["google.api", "google.cloud.storage"],
        );
        check(
            &["foo-stubs/__init__.pyi", "foo-x/__init__.py", "data/table.csv"],
            &[],
        );
        check(&["plain/mod.py", "plain/sub/deep.py"], &["plain"]);
    }
}

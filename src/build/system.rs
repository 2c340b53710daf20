//! How a source tree says it is built: `[build-system]` of its pyproject.toml, within the tree and within reason.
//!
//! Source: PEP 518 (`requires`), PEP 517 (`build-backend`, `backend-path`).

use std::path::{Path, PathBuf};

use crate::python::requirement::{self, Requirement};
use crate::regular;

/// What is needed to call a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    pub requires: Vec<Requirement>,
    /// `package.module:attribute`.
    pub backend: String,
    /// Folders of the tree that the backend is imported from, absolute and real.
    pub paths: Vec<PathBuf>,
}

/// The largest pyproject.toml that is read, in bytes.
const LARGEST: u64 = 4 << 20;
/// A tree without a word on it is built as it was before there were words: by its setup.py.
const LEGACY: &str = "setuptools.build_meta:__legacy__";
const LEGACY_REQUIRES: &str = "setuptools>=40.8.0";

impl System {
    /// What the tree at `root` says. The error is the rule that it breaks.
    pub fn of(root: &Path) -> Result<Self, String> {
        let said = pyproject(root)?.unwrap_or_default();
        let Some(section) = said.get("build-system") else {
            return Self::legacy(root, Vec::new());
        };
        let section = section
            .as_table()
            .ok_or("[build-system] of its pyproject.toml is no table")?;
        let texts = |key: &str| -> Result<Option<Vec<&str>>, String> {
            let wrong = || format!("[build-system] {key} of its pyproject.toml is no list of strings");
            let Some(value) = section.get(key) else {
                return Ok(None);
            };
            let list = value.as_array().ok_or_else(wrong)?;
            list.iter()
                .map(|value| value.as_str().ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some)
        };
        let requires = texts("requires")?
            .ok_or("[build-system] of its pyproject.toml has no `requires`")?
            .into_iter()
            .map(|text| requirement::parse(text).map_err(|error| format!("[build-system] requires: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(backend) = section.get("build-backend") else {
            return Self::legacy(root, requires);
        };
        let backend = backend
            .as_str()
            .filter(|text| is_object(text))
            .ok_or("[build-system] build-backend of its pyproject.toml names no Python object")?;
        let mut paths = Vec::new();
        for path in texts("backend-path")?.unwrap_or_default() {
            paths.push(inside(root, path)?);
        }
        Ok(Self {
            requires,
            backend: backend.to_owned(),
            paths,
        })
    }

    fn legacy(root: &Path, mut requires: Vec<Requirement>) -> Result<Self, String> {
        if !["setup.py", "setup.cfg", "pyproject.toml"]
            .iter()
            .any(|name| matches!(regular::locate(root, Path::new(name)), Ok(Some(_))))
        {
            return Err("it has no pyproject.toml, no setup.py and no setup.cfg".to_owned());
        }
        if requires.is_empty() {
            requires.extend(requirement::parse(LEGACY_REQUIRES));
        }
        Ok(Self {
            requires,
            backend: LEGACY.to_owned(),
            paths: Vec::new(),
        })
    }
}

/// The tree's pyproject.toml as data; `None` if there is none.
pub fn pyproject(root: &Path) -> Result<Option<toml::Table>, String> {
    let Some(text) = text(root, "pyproject.toml")? else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|error: toml::de::Error| format!("its pyproject.toml is not TOML: {}", error.message()))
}

/// A text file at the top of the tree; `None` if there is none.
pub fn text(root: &Path, name: &str) -> Result<Option<String>, String> {
    let bytes = bytes(root, name)?;
    let text = bytes.map(String::from_utf8).transpose();
    text.map_err(|_| format!("its {name} is not UTF-8"))
}

/// The same, whatever its characters are: a PKG-INFO of old is latin-1.
pub fn bytes(root: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
    let wrong = |irregular: regular::Irregular| format!("its {name}: {irregular}");
    match regular::locate(root, Path::new(name)).map_err(wrong)? {
        Some(path) => regular::bytes(&path, LARGEST).map(Some).map_err(wrong),
        None => Ok(None),
    }
}

/// `package.module` or `package.module:attribute.path`.
fn is_object(text: &str) -> bool {
    let dotted = |text: &str| {
        text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || letter == '_')
                && !part.starts_with(|letter: char| letter.is_ascii_digit())
        })
    };
    let (module, attribute) = text.split_once(':').unwrap_or((text, "x"));
    text.len() <= 500 && dotted(module) && dotted(attribute)
}

/// A folder of the tree, whatever links are on the way.
fn inside(root: &Path, path: &str) -> Result<PathBuf, String> {
    let wrong = |rule: &str| {
        format!(
            "[build-system] backend-path names `{}`: {rule}",
            crate::sdist::shown(path)
        )
    };
    let relative: PathBuf = Path::new(path)
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect();
    if path.is_empty() || Path::new(path).is_absolute() {
        return Err(wrong("it is no path in the tree"));
    }
    if relative.as_os_str().is_empty() {
        return Ok(root.to_owned());
    }
    match regular::folder(root, &relative) {
        Ok(Some(real)) => Ok(real),
        Ok(None) => Err(wrong("it is not there")),
        Err(irregular) => Err(wrong(&irregular.to_string().replace("project", "tree"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pyproject: Option<&str>, expected: Result<(&str, &[&str], usize), &str>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("tools")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("out")).unwrap();
        match pyproject {
            Some(text) => std::fs::write(root.join("pyproject.toml"), text).unwrap(),
            None => std::fs::write(root.join("setup.py"), "").unwrap(),
        }
        let found = System::of(&root);
        match (found, expected) {
            (Ok(found), Ok((backend, requires, paths))) => {
                assert_eq!(found.backend, backend);
                let shown: Vec<String> = found.requires.iter().map(ToString::to_string).collect();
                assert_eq!(shown, requires);
                assert_eq!(found.paths.len(), paths);
                assert!(found.paths.iter().all(|path| path.starts_with(&root)));
            }
            (Err(rule), Err(part)) => assert!(rule.contains(part), "{rule}"),
            (found, _) => panic!("{pyproject:?}: {found:?}"),
        }
    }

    #[test]
    fn what_a_tree_says_of_its_build() {
        check(None, Ok((LEGACY, &["setuptools>=40.8.0"], 0)));
        check(
            Some("[project]\nname = 'x'\n"),
            Ok((LEGACY, &["setuptools>=40.8.0"], 0)),
        );
        check(
            Some("[build-system]\nrequires = ['cython']\n"),
            Ok((LEGACY, &["cython"], 0)),
        );
        check(
            Some("[build-system]\nrequires = []\nbuild-backend = 'a.b:c'\nbackend-path = ['tools', '.']\n"),
            Ok(("a.b:c", &[], 2)),
        );
        check(
            Some("[build-system]\nbuild-backend = 'a'\n"),
            Err("no `requires`"),
        );
        for (path, rule) in [
            ("../x", "outside"),
            ("/usr", "no path"),
            ("out", "leads out"),
            ("none", "not there"),
        ] {
            let text =
                format!("[build-system]\nrequires = []\nbuild-backend = 'a'\nbackend-path = ['{path}']\n");
            check(Some(&text), Err(rule));
        }
        check(
            Some("[build-system]\nrequires = []\nbuild-backend = 'os; x'\n"),
            Err("names no Python object"),
        );
        check(Some("[[["), Err("not TOML"));
    }
}

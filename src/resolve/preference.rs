//! What was chosen before: versions that are taken again where they fit, so that a lock moves only when it must.

use std::collections::{BTreeSet, HashMap};

use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use crate::lock::Lock;

/// Preferred versions by name, most trusted first.
#[derive(Debug, Clone, Default)]
pub struct Preferences {
    by_name: HashMap<PackageName, Vec<Preference>>,
    /// Where the earlier lock forked.
    pub forks: Vec<MarkerTree>,
    /// The names of the earlier lock: most of them will be asked for.
    pub expected: BTreeSet<PackageName>,
}

/// One version that was chosen before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    pub version: Version,
    /// The environments it was chosen for.
    pub marker: MarkerTree,
}

impl Preferences {
    /// The pins of an earlier lock; none for the names in `upgrade`.
    pub fn from_lock(lock: &Lock, upgrade: &[PackageName]) -> Self {
        let mut preferences = Self {
            forks: lock.mlrails.forks.clone(),
            expected: lock.packages.iter().map(|package| package.name.clone()).collect(),
            ..Self::default()
        };
        for package in &lock.packages {
            if let Some(version) = &package.version
                && !upgrade.contains(&package.name)
            {
                preferences.add(package.name.clone(), version.clone(), package.fork);
            }
        }
        preferences
    }

    /// Adds a version after those that are there.
    pub fn add(&mut self, name: PackageName, version: Version, marker: MarkerTree) {
        let known = self.by_name.entry(name).or_default();
        if !known
            .iter()
            .any(|preference| preference.version == version && preference.marker == marker)
        {
            known.push(Preference { version, marker });
        }
    }

    /// Adds the pins of another tool's lock text: `requirements.txt` (`name==1.0`), `uv.lock` and `poetry.lock`
    /// (`[[package]]` with name and version). What is no exact pin says nothing; a lock that cannot be understood is refused, with
    /// the reason, and adds nothing.
    pub fn add_text(&mut self, file_name: &str, text: &str) -> Result<(), String> {
        if file_name.ends_with(".lock") {
            let table = text
                .parse::<toml::Table>()
                .map_err(|error| error.message().lines().next().unwrap_or_default().to_owned())?;
            let packages = match table.get("package") {
                Some(packages) => packages.as_array().ok_or("`package` is no list")?.as_slice(),
                // A lock of nothing.
                None if table.contains_key("version") || table.contains_key("metadata") => &[],
                None => return Err("it has neither packages nor a version".to_owned()),
            };
            for package in packages {
                let field = |key: &str| package.get(key).and_then(toml::Value::as_str);
                if let (Some(Ok(name)), Some(Ok(version))) =
                    (field("name").map(str::parse), field("version").map(str::parse))
                {
                    self.add(name, version, MarkerTree::TRUE);
                }
            }
            return Ok(());
        }
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let line = line
                .split(" --")
                .next()
                .unwrap_or_default()
                .trim()
                .trim_end_matches('\\')
                .trim();
            if line.starts_with('-') {
                continue;
            }
            let Ok(requirement) = crate::python::requirement::parse(line) else {
                continue;
            };
            let specifiers = crate::python::requirement::version_specifiers(&requirement);
            if let Some([only]) = specifiers.map(|specifiers| &**specifiers)
                && *only.operator() == uv_pep440::Operator::Equal
            {
                self.add(
                    requirement.name.clone(),
                    only.version().clone(),
                    requirement.marker,
                );
            }
        }
        Ok(())
    }

    /// The versions preferred for `name` in `environment`: first those that were chosen for it.
    pub fn of(&self, name: &PackageName, environment: MarkerTree) -> impl Iterator<Item = &Version> {
        let known = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let fits = move |preference: &&Preference| !preference.marker.is_disjoint(environment);
        let first = known.iter().filter(fits);
        let rest = known.iter().filter(move |preference| !fits(preference));
        first.chain(rest).map(|preference| &preference.version)
    }

    /// Whether `version` is what an earlier lock or the user chose.
    pub fn holds(&self, name: &PackageName, version: &Version) -> bool {
        self.by_name
            .get(name)
            .is_some_and(|known| known.iter().any(|preference| preference.version == *version))
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_other_tools_are_read() {
        let mut preferences = Preferences::default();
        preferences.add_text(
            "requirements.txt",
            "pandas==2.2.3 \\\n    --hash=sha256:00\nnumpy>=2\n-r other.txt\nsix==1.16.0 ; python_version < '3' # why\nx[y]==1.0 --hash=sha256:1\n",
        ).unwrap();
        preferences
            .add_text(
                "uv.lock",
                "version = 1\n[[package]]\nname = \"scipy\"\nversion = \"1.11.4\"\n",
            )
            .unwrap();
        let known = |name: &str| -> Vec<String> {
            preferences
                .of(&name.parse().unwrap(), MarkerTree::TRUE)
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(known("pandas"), ["2.2.3"]);
        assert_eq!(known("six"), ["1.16.0"]);
        assert_eq!(known("scipy"), ["1.11.4"]);
        assert_eq!(known("x"), ["1.0"]);
        assert!(known("numpy").is_empty());
    }

    #[test]
    fn a_lock_that_cannot_be_understood_says_why() {
        let check = |text: &str, expected: Result<(), &str>| {
            let said = Preferences::default().add_text("uv.lock", text);
            assert_eq!(
                said.as_ref().map(|_| ()).map_err(String::as_str),
                expected,
                "{text}"
            );
        };
        check("version = 1\n", Ok(()));
        check("package = []\n", Ok(()));
        check("package = 3\n", Err("`package` is no list"));
        check("", Err("it has neither packages nor a version"));
        let said = Preferences::default()
            .add_text("poetry.lock", "<html>")
            .unwrap_err();
        assert!(!said.is_empty() && !said.contains('\n'), "{said}");
        let deep = format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Preferences::default().add_text("uv.lock", &deep).is_err());
    }
}

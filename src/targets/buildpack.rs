//! Buildpacks: what a framework needs beyond its distribution, as data. buildpacks/*.toml are embedded; a project's own folder
//! (`[image] buildpacks`) is read the same way.
//!
//! *detect* says when one applies, *build* what goes into the image, *launch* how it starts. Reading one runs nothing. Takes facts of
//! a project, gives [`Additions`]; whoever makes the base, the lock or the launch takes its part.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use uv_normalize::PackageName;

use crate::python::requirement::{self, Requirement};

/// One buildpack.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buildpack {
    pub name: String,
    pub description: String,
    pub detect: Detect,
    #[serde(default)]
    pub build: Build,
    #[serde(default)]
    pub launch: Launch,
}

/// When it applies: any one of these is enough.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// Declared or locked distributions.
    #[serde(default)]
    pub distributions: Vec<String>,
    /// Files of the project, by path.
    #[serde(default)]
    pub files: Vec<String>,
    /// Formats of trained values, as files.json has them.
    #[serde(default)]
    pub formats: Vec<String>,
    /// `[serve] entry` is set.
    #[serde(default)]
    pub entry: bool,
}

/// What it adds to what is built.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Debian packages that the base gets.
    #[serde(default)]
    pub debian: Vec<String>,
    /// Requirements (PEP 508) that are locked and shipped with the serving runtime's.
    #[serde(default)]
    pub requirements: Vec<String>,
}

/// How what was built is started.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// What is known of a project when buildpacks are asked.
#[derive(Default)]
pub struct Facts<'a> {
    pub distributions: BTreeSet<PackageName>,
    pub formats: BTreeSet<String>,
    pub has_entry: bool,
    /// The project's folder, for `files`.
    pub root: Option<&'a Path>,
}

/// What all that apply come to; each thing with who asks for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Additions {
    /// Names of the buildpacks, sorted.
    pub names: Vec<String>,
    pub debian: BTreeSet<String>,
    pub requirements: Vec<(Requirement, String)>,
    pub environment: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildpackError {
    #[error("cannot read the buildpack {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the buildpack {path} is larger than {LARGEST} bytes")]
    Large { path: PathBuf },
    #[error("the buildpack {path} is invalid: {reason}")]
    Invalid { path: PathBuf, reason: String },
    #[error("the buildpacks {one} and {other} set {name} to different values")]
    Conflict {
        name: String,
        one: String,
        other: String,
    },
}

/// The largest buildpack that is read, in bytes.
const LARGEST: u64 = 256 << 10;
/// The most files that a project's folder of them may have.
const MOST: usize = 200;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../buildpacks/", $name, ".toml")))),*]
    };
}

/// Name and text, sorted by name. A test compares the list with the folder.
const EMBEDDED: &[(&str, &str)] = embedded![
    "catboost",
    "lightgbm",
    "mlflow-model",
    "onnx",
    "plain-function",
    "pytorch",
    "scikit-learn",
    "spacy",
    "statsmodels",
    "tensorflow-keras",
    "transformers",
    "xgboost",
];

/// All buildpacks, sorted by name: those in this binary, and those in `folder`, which replace the ones of the same name.
pub fn all(folder: Option<&Path>) -> Result<Vec<Buildpack>, BuildpackError> {
    let mut found = BTreeMap::new();
    for (name, text) in EMBEDDED {
        let path = PathBuf::from(format!("{name}.toml"));
        let buildpack = parse(&path, text)?;
        found.insert(buildpack.name.clone(), buildpack);
    }
    if let Some(folder) = folder {
        for path in files(folder)? {
            let buildpack = parse(&path, &text(&path)?)?;
            found.insert(buildpack.name.clone(), buildpack);
        }
    }
    Ok(found.into_values().collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, BuildpackError> {
    let fault = |source| BuildpackError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
        if found.len() > MOST {
            return Err(BuildpackError::Invalid {
                path: folder.to_owned(),
                reason: format!("it has more than {MOST} files"),
            });
        }
    }
    found.sort();
    Ok(found)
}

fn text(path: &Path) -> Result<String, BuildpackError> {
    let fault = |source| BuildpackError::Read {
        path: path.to_owned(),
        source,
    };
    // Opening a FIFO would wait for a writer.
    let data = std::fs::symlink_metadata(path).map_err(fault)?;
    if !data.is_file() {
        return Err(fault(io::Error::other("it is not a regular file")));
    }
    if data.len() > LARGEST {
        return Err(BuildpackError::Large {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(fault)
}

/// Reads one; every name in it is checked here, so that whoever takes it need not.
fn parse(path: &Path, text: &str) -> Result<Buildpack, BuildpackError> {
    let invalid = |reason: String| BuildpackError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let buildpack: Buildpack =
        toml::from_str(text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.+".contains(&byte))
    };
    if !is_name(&buildpack.name) {
        return Err(invalid(format!(
            "`{}` is not a name",
            buildpack.name.escape_debug()
        )));
    }
    let detect = &buildpack.detect;
    if detect.distributions.is_empty()
        && detect.files.is_empty()
        && detect.formats.is_empty()
        && !detect.entry
    {
        return Err(invalid(
            "[detect] names nothing, so it would never apply".to_owned(),
        ));
    }
    for name in &detect.distributions {
        name.parse::<PackageName>()
            .map_err(|error| invalid(error.to_string()))?;
    }
    for file in &detect.files {
        let plain = Path::new(file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || file.is_empty() {
            return Err(invalid(format!(
                "`{}` is not a path inside the project",
                file.escape_debug()
            )));
        }
    }
    if let Some(name) = buildpack.build.debian.iter().find(|name| !is_name(name)) {
        return Err(invalid(format!(
            "`{}` is not a Debian package's name",
            name.escape_debug()
        )));
    }
    for text in &buildpack.build.requirements {
        requirement::parse(text).map_err(|error| invalid(error.to_string()))?;
    }
    for (name, value) in &buildpack.launch.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!("`{}` is not a variable", name.escape_debug())));
        }
    }
    Ok(buildpack)
}

/// Those that apply, in the order of `buildpacks`.
pub fn detect<'a>(buildpacks: &'a [Buildpack], facts: &Facts<'_>) -> Vec<&'a Buildpack> {
    let applies = |buildpack: &&Buildpack| {
        let detect = &buildpack.detect;
        let mut names = detect.distributions.iter().filter_map(|name| name.parse().ok());
        names.any(|name| facts.distributions.contains(&name))
            || detect.formats.iter().any(|format| facts.formats.contains(format))
            || facts
                .root
                .is_some_and(|root| detect.files.iter().any(|file| root.join(file).is_file()))
            || detect.entry && facts.has_entry
    };
    buildpacks.iter().filter(applies).collect()
}

/// What they add, together. Two that want one variable different are refused: neither is more right.
pub fn merge(buildpacks: &[&Buildpack]) -> Result<Additions, BuildpackError> {
    let mut additions = Additions::default();
    let mut set_by: BTreeMap<&str, &str> = BTreeMap::new();
    for buildpack in buildpacks {
        additions.names.push(buildpack.name.clone());
        additions.debian.extend(buildpack.build.debian.iter().cloned());
        for text in &buildpack.build.requirements {
            // It was parsed when the buildpack was read.
            if let Ok(requirement) = requirement::parse(text) {
                additions.requirements.push((requirement, buildpack.name.clone()));
            }
        }
        for (name, value) in &buildpack.launch.environment {
            let known = additions.environment.insert(name.clone(), value.clone());
            if known.is_some_and(|known| known != *value) {
                return Err(BuildpackError::Conflict {
                    name: name.clone(),
                    one: set_by.get(name.as_str()).copied().unwrap_or_default().to_owned(),
                    other: buildpack.name.clone(),
                });
            }
            set_by.insert(name, &buildpack.name);
        }
    }
    Ok(additions)
}

//! For what is built: the image's platforms, the one Python minor, and the kind of base.
//!
//! Takes what the project says; decides, and resolves nothing. One Python minor serves training and serving alike.

pub mod buildpack;

use uv_pep440::Version;

use crate::debian::closure::{RELEASES, Release};
use crate::project::{Manifest, Placed};
use crate::python::target::{Libc, Platform, PythonVersion, Target};

/// The decision.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Of the image; at least one, each once, in the order they were given.
    pub platforms: Vec<Platform>,
    /// A minor, without its patch.
    pub python: PythonVersion,
    pub base: BaseChoice,
}

/// What lies under our layers, before it is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseChoice {
    /// Assembled from this release's signed archive.
    Debian(Release),
    /// An image of a registry.
    Registry {
        reference: String,
        python_path: Option<String>,
        glibc: Option<String>,
        reason: BaseReason,
    },
}

/// Why a registry's image is the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseReason {
    /// The project, or the command line, names it.
    Asked,
    /// No Debian release has this Python.
    NoRelease,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{source_name} asks for Python `{text}`, which is no version such as 3.11")]
    Python { source_name: &'static str, text: String },
    #[error("{source_name} asks for Python {python}, and requires-python is `{requires}`")]
    Unadmitted {
        source_name: &'static str,
        python: PythonVersion,
        requires: String,
    },
    #[error("requires-python is `{requires}`, and no Python that a base exists for satisfies it")]
    NoPython { requires: String },
    #[error("`{text}` is not a platform that images can be built for")]
    Platform {
        text: String,
        nearest: Option<&'static str>,
    },
}

/// What the command line asks for instead of what the project says.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub platforms: Vec<String>,
    pub base: Option<String>,
    pub python: Option<String>,
}

/// The Pythons that exist and are maintained, newest first: those a default may fall on.
const MINORS: [(u8, u8); 4] = [(3, 13), (3, 12), (3, 11), (3, 10)];

/// Decides for a project. Python: the command line, `.python-version`, `[image] python`, else the newest that
/// requires-python admits and Debian has, else the newest that it admits.
pub fn choose(manifest: &Manifest, asked: &Asked) -> Result<Targets, TargetError> {
    let image = &manifest.config.image;
    let written: Vec<String> = if asked.platforms.is_empty() {
        image
            .platforms
            .iter()
            .map(|platform| platform.value.clone())
            .collect()
    } else {
        asked.platforms.clone()
    };
    let mut platforms = Vec::new();
    for text in &written {
        let platform = platform(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::LinuxAmd64);
    }
    let python = python(manifest, asked)?;
    let value = |placed: &Option<Placed<String>>| placed.as_ref().map(|placed| placed.value.clone());
    let base = match asked.base.clone().or_else(|| value(&image.base)) {
        Some(reference) => BaseChoice::Registry {
            reference,
            python_path: value(&image.base_python),
            glibc: value(&image.base_glibc),
            reason: BaseReason::Asked,
        },
        None => match RELEASES
            .iter()
            .find(|release| release.python == (u64::from(python.major), u64::from(python.minor)))
        {
            Some(release) => BaseChoice::Debian(*release),
            None => BaseChoice::Registry {
                reference: format!("python:{python}-slim"),
                python_path: None,
                glibc: None,
                reason: BaseReason::NoRelease,
            },
        },
    };
    Ok(Targets {
        platforms,
        python,
        base,
    })
}

fn platform(text: &str) -> Result<Platform, TargetError> {
    match text.parse::<Platform>() {
        Ok(platform) if platform.is_linux() => Ok(platform),
        _ => Err(TargetError::Platform {
            text: text.to_owned(),
            nearest: nearest(text),
        }),
    }
}

fn nearest(text: &str) -> Option<&'static str> {
    Platform::ALL
        .iter()
        .filter(|platform| platform.is_linux())
        .map(|platform| {
            (
                strsim::damerau_levenshtein(text, platform.name()),
                platform.name(),
            )
        })
        .min()
        .filter(|(distance, _)| *distance <= 4)
        .map(|(_, name)| name)
}

fn python(manifest: &Manifest, asked: &Asked) -> Result<PythonVersion, TargetError> {
    let requires = manifest.pyproject.requires_python.as_ref();
    let admits = |python: PythonVersion| requires.is_none_or(|requires| requires.contains(&python.full()));
    let named = [
        ("--python", asked.python.clone()),
        (".python-version", manifest.python_version.clone()),
        (
            "[image] python",
            manifest
                .config
                .image
                .python
                .as_ref()
                .map(|placed| placed.value.clone()),
        ),
    ];
    for (source_name, text) in named {
        let Some(text) = text else { continue };
        let python: PythonVersion = text.parse().map_err(|_| TargetError::Python {
            source_name,
            text: text.chars().take(80).collect(),
        })?;
        if !admits(python) {
            let requires = requires.map(ToString::to_string).unwrap_or_default();
            return Err(TargetError::Unadmitted {
                source_name,
                python,
                requires,
            });
        }
        return Ok(python.minor_only());
    }
    let debian = RELEASES
        .iter()
        .map(|release| PythonVersion::new(release.python.0 as u8, release.python.1 as u8));
    let others = MINORS
        .iter()
        .map(|(major, minor)| PythonVersion::new(*major, *minor));
    debian
        .chain(others)
        .find(|python| admits(*python))
        .ok_or_else(|| TargetError::NoPython {
            requires: requires.map(ToString::to_string).unwrap_or_default(),
        })
}

/// What a platform's wheels are chosen for, once the base is known. `glibc` as in `2.36`.
pub fn target(platform: Platform, python: &str, glibc: Option<&str>) -> Option<Target> {
    let libc = match glibc {
        Some(text) => {
            let version: Version = text.parse().ok()?;
            let release = version.release();
            let (major, minor) = (*release.first()?, *release.get(1)?);
            Libc::Glibc {
                major: u16::try_from(major).ok()?,
                minor: u16::try_from(minor).ok()?,
            }
        }
        None => Libc::Musl { major: 1, minor: 2 },
    };
    Some(Target {
        platform,
        python: python.parse().ok()?,
        libc,
    })
}

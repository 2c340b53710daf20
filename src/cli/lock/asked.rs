//! What a lock is asked for: the project's own lines, its settings and the command's options, as the resolver takes them.

use std::path::PathBuf;

use uv_normalize::GroupName;

use super::{Args, ForkArg, PrereleaseArg, ResolutionArg};
use crate::cli::{Failure, base, build, direct, prove};
use crate::lock::SERVING_GROUP;
use crate::lock::reach::Scope;
use crate::project::{Declared, Manifest, Place, Pyproject};
use crate::python::requirement::{self, Requirement};
use crate::python::target::{Libc, Platform, PythonVersion};
use crate::resolve::{Conflicts, ForkStrategy, Inputs, Options, Prerelease, Resolution, Written};
use crate::serving::runtime::REQUIREMENTS;

pub(super) fn inputs(manifest: &Manifest, args: &Args) -> Result<Inputs, Failure> {
    let pyproject = &manifest.pyproject;
    let plain = |declared: &[Declared]| -> Vec<Requirement> {
        declared
            .iter()
            .map(|declared| direct::bare(declared.requirement.clone()))
            .collect()
    };
    let mut required_environments = pyproject.uv.required_environments.clone();
    for text in &args.required_environment {
        required_environments.push(
            requirement::parse_marker(text)
                .map_err(|error| Failure::usage(format!("--required-environment: {error}")))?,
        );
    }
    let mut inputs = Inputs {
        name: Some(pyproject.name.clone()),
        requires_python: pyproject.requires_python.clone(),
        dependencies: plain(&pyproject.dependencies),
        extras: pyproject
            .extras
            .iter()
            .map(|(name, list)| (name.clone(), plain(list)))
            .collect(),
        groups: pyproject
            .groups
            .iter()
            .map(|(name, list)| (name.clone(), plain(list)))
            .collect(),
        default_groups: pyproject.uv.default_groups.clone().unwrap_or_default(),
        constraints: plain(&pyproject.uv.constraints),
        overrides: plain(&pyproject.uv.overrides),
        environments: pyproject.uv.environments.clone(),
        required_environments,
        conflicts: (pyproject.uv.conflicts.iter())
            .map(|set| set.iter().map(prove::scope).collect())
            .collect(),
        places: places(pyproject),
        requires_python_place: pyproject.requires_python_place.as_ref().map(line),
    };
    for name in &pyproject.uv.excluded {
        // An override that holds nowhere.
        let never = requirement::parse(&format!("{name} ; python_version < '0'"));
        inputs
            .overrides
            .push(never.map_err(|error| Failure::new(error.to_string()))?);
    }
    if serves(manifest) {
        let group: GroupName = SERVING_GROUP
            .parse()
            .map_err(|error| Failure::new(format!("{SERVING_GROUP}: {error}")))?;
        if inputs.groups.contains_key(&group) {
            return Err(Failure::new(format!(
                "the dependency group `{SERVING_GROUP}` is reserved for what serving itself needs"
            ))
            .hint("give the group in pyproject.toml another name"));
        }
        let mut list = REQUIREMENTS
            .iter()
            .map(|text| requirement::parse(text).map_err(|error| Failure::new(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let added = base::additions(manifest)?.requirements;
        list.extend(added.into_iter().map(|(requirement, _)| requirement));
        inputs.groups.insert(group, list);
    }
    Ok(inputs)
}

/// Where each requirement of the project is written.
fn places(pyproject: &Pyproject) -> Vec<Written> {
    let of = |scope: Option<Scope>, list: &[Declared]| -> Vec<Written> {
        list.iter()
            .map(|declared| Written {
                scope: scope.clone(),
                requirement: direct::bare(declared.requirement.clone()),
                place: line(&declared.place),
            })
            .collect()
    };
    let mut places = of(Some(Scope::Project), &pyproject.dependencies);
    for (name, list) in &pyproject.extras {
        places.extend(of(Some(Scope::Extra(name.clone())), list));
    }
    for (name, list) in &pyproject.groups {
        places.extend(of(Some(Scope::Group(name.clone())), list));
    }
    places.extend(of(None, &pyproject.uv.constraints));
    places.extend(of(None, &pyproject.uv.overrides));
    places
}

/// `pyproject.toml:7`
fn line(place: &Place) -> String {
    format!("{}:{}", place.file().display(), place.line())
}

/// Whether the project has a serving half: only then is the serving runtime locked with it.
pub(super) fn serves(manifest: &Manifest) -> bool {
    let module = manifest.pyproject.name.as_str().replace('-', "_");
    let has_half = |folder: PathBuf| folder.join("serve.py").is_file() || folder.join("serve").is_dir();
    manifest.model.is_some()
        || manifest.config.serve.entry.is_some()
        || has_half(manifest.root.join("src").join(&module))
        || has_half(manifest.root.join(&module))
}

pub(super) fn options(manifest: &Manifest, args: &Args) -> Result<Options, Failure> {
    let uv = &manifest.pyproject.uv;
    let resolution = match (args.resolution, uv.resolution.as_deref()) {
        (Some(ResolutionArg::Lowest), _) | (None, Some("lowest")) => Resolution::Lowest,
        (Some(ResolutionArg::LowestDirect), _) | (None, Some("lowest-direct")) => Resolution::LowestDirect,
        _ => Resolution::Highest,
    };
    let prerelease = match (args.prerelease, uv.prerelease.as_deref()) {
        (Some(PrereleaseArg::Allow), _) | (None, Some("allow")) => Prerelease::Allow,
        (Some(PrereleaseArg::Disallow), _) | (None, Some("disallow")) => Prerelease::Disallow,
        _ => Prerelease::IfNecessary,
    };
    let exclude_newer = args
        .exclude_newer
        .as_ref()
        .or(uv.exclude_newer.as_ref())
        .map(|text| moment(text))
        .transpose()?;
    let (platforms, python) = production(manifest, args)?;
    Ok(Options {
        resolution,
        prerelease,
        fork_strategy: match args.fork_strategy {
            Some(ForkArg::Fewest) => ForkStrategy::Fewest,
            _ => ForkStrategy::RequiresPython,
        },
        conflicts: match args.split_conflicts {
            true => Conflicts::Split,
            false => Conflicts::Refuse,
        },
        exclude_newer,
        no_build: build::never(args.no_build, &args.no_build_package, &uv.no_build_packages),
        no_binary: build::never(args.no_binary, &args.no_binary_package, &uv.no_binary_packages),
        platforms,
        python,
        // Debian's own interpreters, newest first: any other minor needs a base from a registry.
        preferred_pythons: vec![PythonVersion::new(3, 13), PythonVersion::new(3, 11)],
    })
}

/// The C library of the oldest base that is assembled: what its wheels need, every later base has.
const GLIBC: Libc = Libc::Glibc { major: 2, minor: 36 };

/// The production platforms with their C libraries, and the Python minor if one is named.
type Production = (Vec<(Platform, Libc)>, Option<PythonVersion>);

/// The production platforms, and the Python minor where the project or the command line names one.
fn production(manifest: &Manifest, args: &Args) -> Result<Production, Failure> {
    let image = &manifest.config.image;
    let written: Vec<String> = match args.platform.is_empty() {
        false => args.platform.clone(),
        true => image
            .platforms
            .iter()
            .map(|placed| placed.value.clone())
            .collect(),
    };
    let mut platforms = Vec::new();
    for text in &written {
        let place = place(text)?;
        if !platforms.contains(&place) {
            platforms.push(place);
        }
    }
    if platforms.is_empty() {
        platforms.push((Platform::LinuxAmd64, GLIBC));
    }
    let named = manifest
        .python_version
        .as_deref()
        .or(image.python.as_ref().map(|placed| placed.value.as_str()));
    let python = match (args.python, named) {
        (Some(python), _) => Some(python),
        (None, Some(text)) => Some(text.parse().map_err(|error| Failure::new(format!("{error}")))?),
        (None, None) => None,
    };
    Ok((platforms, python.map(PythonVersion::minor_only)))
}

/// `linux/amd64`, or a manylinux or musllinux name as uv takes it: `x86_64-manylinux_2_28`, `aarch64-unknown-linux-gnu`.
fn place(text: &str) -> Result<(Platform, Libc), Failure> {
    if let Ok(platform) = text.parse() {
        return Ok((platform, GLIBC));
    }
    let unknown = || {
        Failure::usage(format!("`{text}` is not a platform"))
            .hint("use an OCI name such as linux/amd64, or a manylinux name such as x86_64-manylinux_2_28")
    };
    let (machine, system) = text.split_once('-').ok_or_else(unknown)?;
    let platform = match machine {
        "x86_64" => Platform::LinuxAmd64,
        "aarch64" => Platform::LinuxArm64,
        "riscv64gc" | "riscv64" => Platform::LinuxRiscv64,
        "ppc64le" | "powerpc64le" => Platform::LinuxPpc64le,
        "s390x" => Platform::LinuxS390x,
        "i686" => Platform::Linux386,
        _ => return Err(unknown()),
    };
    let numbers = |text: &str| -> Option<(u16, u16)> {
        let (major, minor) = text.split_once('_')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let libc = match system {
        "manylinux2014" | "unknown-linux-gnu" => Libc::Glibc { major: 2, minor: 17 },
        "unknown-linux-musl" => Libc::Musl { major: 1, minor: 2 },
        _ => {
            let glibc = system.strip_prefix("manylinux_").and_then(numbers);
            let musl = system.strip_prefix("musllinux_").and_then(numbers);
            match (glibc, musl) {
                (Some((major, minor)), _) => Libc::Glibc { major, minor },
                (_, Some((major, minor))) => Libc::Musl { major, minor },
                _ => return Err(unknown()),
            }
        }
    };
    Ok((platform, libc))
}

/// A date (its whole day is over) or a moment, in microseconds since 1970.
fn moment(text: &str) -> Result<i64, Failure> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.as_microsecond());
    }
    format!("{text}T23:59:59.999999Z")
        .parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_microsecond)
        .map_err(|_| {
            Failure::usage(format!("`{text}` is no date or moment"))
                .hint("write 2026-01-31, or 2026-01-31T12:00:00Z")
        })
}

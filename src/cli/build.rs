//! Source code into wheels, as commands ask for it: which interpreter, which limits, what is forbidden, and what fits where.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use uv_normalize::PackageName;
use uv_pep440::VersionSpecifiers;

use super::indexes::{IndexArgs, locations};
use super::interpreter::{NEWEST_FIRST, on_machine};
use super::{Failure, Session, fetch};
use crate::build::{Builder, Built, Find, Limits, Settings, is_built_from, native};
use crate::index::{Network, SourcePlace, SourceTree, git};
use crate::lock::{File, Lock, Package, Source};
use crate::project::Manifest;
use crate::python::target::{Libc, Platform, PythonVersion, Target};
use crate::resolve::Never;
use crate::store::Store;

/// For every command that may have to build what a lock holds.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct BuildArgs {
    /// Build nothing from source: refuse instead
    #[arg(long)]
    no_build: bool,
    /// Do not build this package from source; may be repeated
    #[arg(long, value_name = "PACKAGE")]
    no_build_package: Vec<PackageName>,
}

impl BuildArgs {
    fn never(&self, manifest: &Manifest) -> Never {
        never(
            self.no_build,
            &self.no_build_package,
            &manifest.pyproject.uv.no_build_packages,
        )
    }
}

/// What flags and configuration forbid together.
pub fn never(all: bool, flags: &[PackageName], configured: &[PackageName]) -> Never {
    let names: BTreeSet<PackageName> = flags.iter().chain(configured).cloned().collect();
    match (all, names.is_empty()) {
        (true, _) => Never::All,
        (false, true) => Never::None,
        (false, false) => Never::Some(names),
    }
}

/// What a build may use: documented in docs/configuration.md.
pub fn limits() -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    if let Some(seconds) = number("MLRAILS_BUILD_SECONDS")? {
        limits.time = Duration::from_secs(seconds);
    }
    if let Some(megabytes) = number("MLRAILS_BUILD_MEMORY_MB")? {
        limits.memory = megabytes.saturating_mul(1 << 20);
    }
    if let Some(processes) = number("MLRAILS_BUILD_PROCESSES")? {
        limits.processes = usize::try_from(processes).unwrap_or(usize::MAX);
    }
    Ok(limits)
}

fn number(variable: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = std::env::var(variable) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Failure::usage(format!(
            "{variable} is `{text}`, and should be a number above 0"
        ))),
    }
}

/// The interpreter that builds: of `minor` where that is decided and here, else the newest that `admits`.
pub fn finder(store: Arc<Store>, minor: Option<PythonVersion>, admits: Option<VersionSpecifiers>) -> Find {
    let newest = |admits: Option<&VersionSpecifiers>, store: &Store| {
        NEWEST_FIRST
            .iter()
            .filter_map(|minor| on_machine(store, PythonVersion::new(3, *minor)))
            .find(|found| admits.is_none_or(|admits| admits.contains(&found.version.full())))
    };
    Box::new(move |only| {
        if let Some(only) = only {
            return newest(Some(only), &store).ok_or_else(|| format!(" {only}"));
        }
        let of_minor = minor.and_then(|minor| on_machine(&store, minor));
        let found = of_minor.or_else(|| newest(admits.as_ref(), &store));
        found.ok_or_else(|| match (minor, &admits) {
            (Some(minor), _) => format!(" {}", minor.minor_only()),
            (None, Some(admits)) => format!(" {admits}"),
            (None, None) => String::new(),
        })
    })
}

/// What builds of the packages of a lock were done with.
pub fn settings(
    lock: Option<&Lock>,
    no_build: Never,
    exclude_newer: Option<i64>,
) -> Result<Settings, Failure> {
    let packages = lock.map(|lock| lock.packages.as_slice()).unwrap_or_default();
    let known = packages
        .iter()
        .filter_map(|package| Some((package.name.clone(), package.built.clone()?)));
    Ok(Settings {
        limits: limits()?,
        no_build,
        exclude_newer,
        known: known.collect(),
    })
}

/// The moment after which nothing was taken when the lock was made: what its builds need is no exception.
fn newest_of(lock: &Lock) -> Option<i64> {
    let lines = lock.mlrails.inputs.iter();
    let moment = lines
        .filter_map(|line| line.strip_prefix("exclude-newer = "))
        .next()?;
    Some(moment.parse::<jiff::Timestamp>().ok()?.as_microsecond())
}

/// The source of a locked package; `None` if it has none that is built here. `folder` is the lock's.
pub fn source(package: &Package, folder: &Path, store: &Store) -> Option<SourceTree> {
    match &package.source {
        Source::Vcs {
            url,
            commit,
            subdirectory,
            ..
        } => Some(SourceTree {
            name: package.name.clone(),
            place: SourcePlace::Folder(git::folder(store, url, commit)),
            subdirectory: subdirectory.as_ref().map(Into::into),
        }),
        Source::Directory { path, .. } => Some(SourceTree {
            name: package.name.clone(),
            place: SourcePlace::Folder(folder.join(path)),
            subdirectory: None,
        }),
        Source::Files { .. } | Source::Archive(_) => {
            let file = package.sdist()?;
            Some(SourceTree::archive(&package.name, &file.name, file.digest))
        }
    }
}

/// Fills `imports` of packages that no wheel speaks for, and notes what was built to lock them. What cannot be built here is said,
/// and stays empty.
pub fn note_built(
    builder: &Builder,
    lock: &mut Lock,
    folder: &Path,
    session: &Session,
) -> Result<(), Failure> {
    let store = session.store()?;
    let python = lock.mlrails.python;
    let admits = |package: &Package| match (python, &package.requires_python) {
        (Some(python), Some(admits)) => admits.contains(&python.full()),
        _ => true,
    };
    for package in &mut lock.packages {
        let Some(tree) = source(package, folder, &store) else {
            continue;
        };
        let has_file = match &tree.place {
            SourcePlace::Archive { digest, .. } => builder.has(digest),
            SourcePlace::Folder(_) => true,
        };
        // What production's Python cannot have, production does not import.
        let is_asked = package.imports.is_empty() && package.wheels().is_empty() && admits(package);
        if is_asked && has_file {
            match builder.imports(&tree) {
                Ok(names) => package.imports = names,
                Err(error) => session.printer().warn(&format!(
                    "what {} makes importable is not known: {}",
                    package.label(),
                    Failure::from(error).message().unwrap_or_default()
                )),
            }
        }
        if let Some(with) = builder.built_with(&tree) {
            package.built = Some(with);
        }
    }
    Ok(())
}

/// Whether a wheel that is installed is the one that was built from this package's source.
pub fn is_from(store: &Store, package: &Package, wheel: &crate::digest::Digest) -> bool {
    package
        .sdist()
        .is_some_and(|sdist| is_built_from(store, wheel, &sdist.digest))
}

/// Builds a wheel of each of these packages of `lock`.
pub fn wheels(
    manifest: &Manifest,
    lock: &Lock,
    packages: &[&Package],
    find: Find,
    args: &BuildArgs,
    session: &Session,
) -> Result<Vec<Built>, Failure> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let settings = settings(Some(lock), args.never(manifest), newest_of(lock))?;
    // Refused before anything is downloaded, and before any code runs.
    let forbidden = packages
        .iter()
        .find(|package| settings.no_build.holds(&package.name));
    if let Some(package) = forbidden {
        return Err(crate::build::BuildError::Forbidden {
            tree: package.label(),
            name: package.name.clone(),
        }
        .into());
    }
    let sdists: Vec<&File> = packages.iter().filter_map(|package| package.sdist()).collect();
    fetch::files(manifest, &sdists, session)?;
    let locations = locations(manifest, &IndexArgs::default())?;
    let (client, store, reporter) = (session.client(&[])?, session.store()?, session.reporter());
    // It belongs to the runtime that is entered here, and blocks outside of it.
    let kept = store.clone();
    let builder = session.block_on(async {
        let network = Network::new(client, kept.clone(), locations, reporter.clone());
        Builder::new(kept, network, reporter, settings, find)
    })?;
    for package in packages {
        if let Source::Vcs { url, commit, .. } = &package.source {
            git::checkout(&store, url, Some(commit))?;
        }
    }
    packages
        .iter()
        .map(|package| {
            let tree = source(package, &manifest.root, &store).ok_or_else(|| {
                Failure::new(format!("{} has no source that is built here", package.label()))
            })?;
            Ok(builder.wheel(&tree)?)
        })
        .collect()
}

/// The lock with a wheel for each of `names`, built from source for `target`: one that says for what it is made, and may lie.
pub fn for_image(
    manifest: &Manifest,
    lock: &Lock,
    names: &[PackageName],
    target: &Target,
    args: &BuildArgs,
    session: &Session,
) -> Result<Lock, Failure> {
    let store = session.store()?;
    let packages: Vec<&Package> = lock
        .packages
        .iter()
        .filter(|package| names.contains(&package.name) && package.wheel_for(target).is_none())
        .filter(|package| source(package, &manifest.root, &store).is_some())
        .collect();
    let find = finder(
        store.clone(),
        Some(target.python.minor_only()),
        lock.requires_python.clone(),
    );
    let built = wheels(manifest, lock, &packages, find, args, session)?;
    let files: Vec<(PackageName, Option<uv_pep440::Version>, Built)> = packages
        .iter()
        .zip(built)
        .map(|(package, built)| (package.name.clone(), package.version.clone(), built))
        .collect();
    let mut lock = lock.clone();
    for (name, version, built) in files {
        if native::is_native(&built.wheel) {
            check_native(&store, &built, target, session)?;
        }
        for package in &mut lock.packages {
            if package.name != name || package.version != version {
                continue;
            }
            match &mut package.source {
                Source::Files { wheels, .. } => wheels.push(built.file.clone()),
                source => *source = Source::Archive(built.file.clone()),
            }
            if package.imports.is_empty() {
                package.imports = built.wheel.imports.clone();
            }
        }
    }
    Ok(lock)
}

/// A wheel with machine code in it was built for this machine. Whether it runs in the image is looked up in it, not hoped for.
fn check_native(store: &Store, built: &Built, target: &Target, session: &Session) -> Result<(), Failure> {
    let (label, name) = (built.wheel.label(), &built.file.name);
    if Platform::host() != Some(target.platform) {
        return Err(Failure::new(format!(
            "{label} was built on this machine as {name}, and the image is for {}",
            target.platform
        ))
        .hint(format!(
            "build the image on such a machine, or choose a version of {} that has a wheel",
            built.wheel.name
        )));
    }
    let needs = native::glibc(store, &built.wheel)?;
    match (needs, target.libc) {
        (
            Some((major, minor)),
            Libc::Glibc {
                major: has,
                minor: least,
            },
        ) if (major, minor) > (has, least) => Err(Failure::new(format!(
            "{label} was built on this machine and needs glibc {major}.{minor}; the image has {}",
            target.libc
        ))
        .hint("build on a machine as old as the image's base, or choose a newer base")),
        (Some(_), Libc::Musl { .. }) => Err(Failure::new(format!(
            "{label} was built on this machine for glibc, and the image has {}",
            target.libc
        ))
        .hint("build on a machine with musl, or choose a base with glibc")),
        _ => {
            session.printer().warn(&format!(
                "{label} has no wheel for {target}: it was built on this machine ({name}), and links to what this machine has"
            ));
            Ok(())
        }
    }
}

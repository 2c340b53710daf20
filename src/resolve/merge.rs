//! The forks' pins joined into one lock: every package with the marker of the environments that install it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use url::Url;
use uv_normalize::{ExtraName, PackageName};
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use super::ResolveError;
use super::solve::{Context, Pin, Solution};
use super::tags;
use crate::index::{Listed, Page};
use crate::lock::reach::{self, Entry};
use crate::lock::satisfies::{Wanted, package_markers};
use crate::lock::{File, Location, Lock, Package, Settings, Source};
use crate::python::requirement::Requirement;

/// Joins `solutions`; packages come out sorted by name, then version.
pub(super) fn merge(
    context: &Context<'_>,
    wanted: &Wanted,
    solutions: &[Solution],
) -> Result<Lock, ResolveError> {
    let mut packages = Vec::new();
    let reached: Vec<Solution> = (solutions.iter())
        .map(|solution| reached(context, wanted, solution))
        .collect::<Result<_, _>>()?;
    for ((name, version, _), chosen) in chosen(context, &reached)? {
        packages.push(package(context, wanted, name, version, &chosen)?);
    }
    alone_everywhere(&mut packages);
    let markers = package_markers(wanted, &packages).map_err(ResolveError::Unsound)?;
    let mut packages: Vec<Package> = packages
        .into_iter()
        .zip(markers)
        .filter(|(_, marker)| !marker.is_false())
        .map(|(package, marker)| usable_files(Package { marker, ..package }, wanted))
        .collect();
    // Once more: a fork may have pinned another version that nothing reaches in the end.
    alone_everywhere(&mut packages);
    // In an order that does not depend on which fork was solved first.
    let mut forks: Vec<(Option<String>, MarkerTree)> = solutions
        .iter()
        .map(|solution| wanted.simplified(solution.marker))
        .map(|fork| (fork.try_to_string(), fork))
        .collect();
    forks.sort_by(|one, other| one.0.cmp(&other.0));
    let forks = match forks.len() {
        1 => Vec::new(),
        _ => forks.into_iter().map(|(_, fork)| fork).collect(),
    };
    Ok(Lock {
        created_by: crate::lock::CREATED_BY.to_owned(),
        requires_python: wanted.requires_python.clone(),
        environments: wanted.environments.clone(),
        extras: wanted.extras.clone(),
        dependency_groups: wanted.groups.clone(),
        default_groups: wanted.default_groups.clone(),
        packages,
        mlrails: Settings {
            forks,
            inputs: wanted.options.clone(),
            ..Settings::default()
        },
    })
}

/// An entry that is alone with its name answers for it everywhere: where no fork needed it, nothing asks for it.
fn alone_everywhere(packages: &mut [Package]) {
    let mut entries: BTreeMap<PackageName, usize> = BTreeMap::new();
    for package in packages.iter() {
        *entries.entry(package.name.clone()).or_default() += 1;
    }
    for package in packages {
        if entries.get(&package.name) == Some(&1) {
            package.fork = MarkerTree::TRUE;
        }
    }
}

/// `solution` without what it holds for another fork's sake: a fork inherits the choices that were made before it was split off.
/// Locks would depend on the order of splits, and move when they are solved again from their own forks.
fn reached(context: &Context<'_>, wanted: &Wanted, solution: &Solution) -> Result<Solution, ResolveError> {
    let mut rows = Vec::with_capacity(solution.pins.len());
    for (name, pin) in &solution.pins {
        let Some(page) = context.page(name, solution.marker)? else {
            continue;
        };
        let metadata = context.index.metadata(name, &page, pin.file)?;
        let extras: Vec<ExtraName> = pin.extras.iter().cloned().collect();
        rows.push((name, pin, extras, context.effective(&metadata.requires_dist)));
    }
    let entries: Vec<Entry<'_>> = rows
        .iter()
        .map(|(name, pin, extras, requires)| Entry {
            name,
            version: Some(&pin.version),
            requires,
            extras,
            fork: MarkerTree::TRUE,
        })
        .collect();
    let roots = wanted.requirements.iter().map(|(scope, root)| (scope, root));
    let found = reach::extras(solution.marker, roots, &entries).map_err(ResolveError::Unsound)?;
    let pins = rows.iter().zip(found).filter_map(|((name, pin, ..), extras)| {
        let extras = extras?;
        Some((
            (*name).clone(),
            Pin {
                extras,
                ..(*pin).clone()
            },
        ))
    });
    Ok(Solution {
        marker: solution.marker,
        pins: pins.collect(),
    })
}

struct Chosen<'a> {
    page: Arc<Page>,
    pin: &'a Pin,
    fork: MarkerTree,
    extras: BTreeSet<ExtraName>,
}

/// A name, a version, and the index that answered: one version from two indexes is two.
type Key<'a> = (&'a PackageName, &'a Version, String);

fn chosen<'a>(
    context: &Context<'_>,
    solutions: &'a [Solution],
) -> Result<BTreeMap<Key<'a>, Chosen<'a>>, ResolveError> {
    let mut chosen: BTreeMap<Key<'a>, Chosen<'a>> = BTreeMap::new();
    for solution in solutions {
        for (name, pin) in &solution.pins {
            let Some(page) = context.page(name, solution.marker)? else {
                continue;
            };
            let key = (name, &pin.version, page.index.clone());
            let entry = chosen.entry(key).or_insert_with(|| Chosen {
                page,
                pin,
                fork: MarkerTree::FALSE,
                extras: BTreeSet::new(),
            });
            entry.fork = entry.fork.or(solution.marker);
            entry.extras.extend(pin.extras.iter().cloned());
        }
    }
    Ok(chosen)
}

fn package(
    context: &Context<'_>,
    wanted: &Wanted,
    name: &PackageName,
    version: &Version,
    chosen: &Chosen<'_>,
) -> Result<Package, ResolveError> {
    let page = &chosen.page;
    let metadata = context.index.metadata(name, page, chosen.pin.file)?;
    let requires = context
        .effective(&metadata.requires_dist)
        .into_iter()
        .filter(|requirement| is_active(requirement, &chosen.extras, wanted))
        .collect();
    let (index, source) = match context.index.source(name, page) {
        Some(source) => (None, source.clone()),
        None => {
            let position = page.position(version).unwrap_or(usize::MAX);
            let (sdist, wheels) = files(context, name, page, position);
            let index = (!page.index.is_empty()).then(|| page.index.clone());
            (index, Source::Files { sdist, wheels })
        }
    };
    Ok(Package {
        name: name.clone(),
        version: Some(version.clone()),
        marker: MarkerTree::TRUE,
        requires_python: metadata.requires_python.clone(),
        requires,
        extras: chosen.extras.iter().cloned().collect(),
        fork: wanted.simplified(chosen.fork),
        index,
        source,
        imports: metadata.import_names.clone(),
        built: None,
    })
}

/// Whether a requirement can matter to this lock: requirements of extras that nobody asked for are most of what some
/// projects publish.
fn is_active(requirement: &Requirement, extras: &BTreeSet<ExtraName>, wanted: &Wanted) -> bool {
    let with = requirement
        .marker
        .simplify_extras_with(|extra| extras.contains(extra))
        .simplify_not_extras_with(|extra| !extras.contains(extra));
    let without = crate::lock::reach::without_extras(requirement.marker);
    !wanted.universe().and(with.or(without)).is_false()
}

fn files(
    context: &Context<'_>,
    name: &PackageName,
    page: &Page,
    position: usize,
) -> (Option<File>, Vec<File>) {
    let mut sdists: Vec<File> = Vec::new();
    let mut wheels = Vec::new();
    for listed in page.files(position) {
        let Some(file) = locked(&listed) else { continue };
        if !context.allows(name, &listed) {
            continue;
        }
        if listed.is_wheel() {
            wheels.push(file);
        } else {
            sdists.push(file);
        }
    }
    // One sdist: the gzipped tar, which PEP 625 made the only kind.
    sdists.sort_by_key(|file| !file.name.ends_with(".tar.gz"));
    wheels.sort_by(|one, other| one.name.cmp(&other.name));
    (sdists.into_iter().next(), wheels)
}

fn locked(listed: &Listed<'_>) -> Option<File> {
    Some(File {
        name: listed.name().to_owned(),
        location: Location::Url(Url::parse(listed.url()).ok()?),
        size: listed.size(),
        upload_time: listed
            .upload_time()
            .and_then(|time| Timestamp::from_microsecond(time).ok()),
        digest: listed.digest()?,
    })
}

/// Leaves out the wheels that no environment of the lock can install.
fn usable_files(mut package: Package, wanted: &Wanted) -> Package {
    let Source::Files { sdist, wheels } = &mut package.source else {
        return package;
    };
    // Group and extra markers say who wants a package, not where it can be.
    let place = package.marker.and(wanted.universe());
    let usable =
        |file: &File| tags::implied(&file.name).is_some_and(|implied| !implied.marker.is_disjoint(place));
    // An entry without any file is no entry: one that nobody can install keeps what it has.
    if sdist.is_some() || wheels.iter().any(usable) {
        wheels.retain(usable);
    }
    package
}

//! The image's platforms: every production package has a wheel for each of them, or a source archive to build one.
//!
//! Found out while locking and not while building the image. Only packages that production reaches are held to it: a
//! development tool without an arm64 wheel stops nobody's image.

use std::collections::BTreeMap;

use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::fork::Environment;
use super::solve::{Place, place};
use super::tags;
use super::{Inputs, Options, ResolveError};
use crate::index::{Index, Listed};
use crate::lock::reach::{Entry, markers};
use crate::lock::satisfies::Wanted;
use crate::lock::{Lock, Package};
use crate::python::target::{Libc, Platform, PythonVersion};

/// Names that must have a wheel, and where: found out by solving once without.
#[derive(Debug, Clone, Default)]
pub(super) struct Required {
    by_name: BTreeMap<PackageName, Vec<Demand>>,
}

/// Where a version has no wheel, and should.
#[derive(Debug)]
pub(super) struct Missing {
    /// The platform's name, or a marker.
    pub shown: String,
    /// The environments that may have another version than the rest.
    pub apart: Option<MarkerTree>,
}

#[derive(Debug, Clone)]
struct Demand {
    /// `None`: any file whose tags imply part of the marker does.
    platform: Option<(Platform, Libc)>,
    marker: MarkerTree,
    /// As people read it: a platform's name, or a marker.
    shown: String,
    python: Option<PythonVersion>,
    /// The version that has no wheel.
    version: String,
}

impl Required {
    /// Where an already found demand says that these wheels do not do.
    pub fn missing(
        &self,
        name: &PackageName,
        environment: &Environment,
        wheels: &[Listed<'_>],
    ) -> Option<Missing> {
        let demands = self.by_name.get(name)?;
        let unmet = demands.iter().find(|demand| {
            environment.includes(demand.marker) && !wheels.iter().any(|wheel| fits(wheel.name(), demand))
        })?;
        Some(Missing {
            shown: unmet.shown.clone(),
            // Production has one version for all its platforms: images of one lock hold the same.
            apart: unmet.platform.is_none().then_some(unmet.marker),
        })
    }

    /// Looks for packages of `lock` without a file where one is needed. True if there are new ones.
    pub fn find_more(&mut self, lock: &Lock, inputs: &Inputs, options: &Options, wanted: &Wanted) -> bool {
        let mut found = false;
        for (package, marker) in production(lock, wanted) {
            for place in &options.platforms {
                let demand = demand(package, marker, *place, options.python);
                found |= self.note(package, demand);
            }
        }
        for package in &lock.packages {
            for required in &inputs.required_environments {
                let demand = Demand {
                    platform: None,
                    marker: package.marker.and(wanted.universe()).and(*required),
                    shown: required.try_to_string().unwrap_or_default(),
                    python: None,
                    version: package
                        .version
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                };
                found |= self.note(package, demand);
            }
        }
        found
    }

    fn note(&mut self, package: &Package, demand: Demand) -> bool {
        if demand.marker.is_false() || package.has_source() || has_wheel(package, &demand) {
            return false;
        }
        let known = self.by_name.entry(package.name.clone()).or_default();
        let is_new = !known.iter().any(|old| {
            old.platform == demand.platform && old.marker == demand.marker && old.version == demand.version
        });
        if is_new {
            known.push(demand);
        }
        is_new
    }

    /// A failure to solve under demands is told as the missing wheel that it is.
    pub fn explain(&self, error: ResolveError, index: &dyn Index) -> ResolveError {
        let first = self
            .by_name
            .iter()
            .find_map(|(name, demands)| Some((name, demands.first()?)));
        match (error, first) {
            (ResolveError::NoSolution { .. }, Some((name, demand))) => ResolveError::NoWheel {
                name: name.clone(),
                version: demand.version.clone(),
                platform: demand.shown.clone(),
                python: demand
                    .python
                    .map(|python| format!(" with CPython {}", python.minor_only()))
                    .unwrap_or_default(),
                nearest: demand.nearest(name, index),
                hints: Vec::new(),
            },
            (error, _) => error,
        }
    }
}

impl Demand {
    /// The version next to the one without a wheel that has a file for the place: an older one before a newer one.
    fn nearest(&self, name: &PackageName, index: &dyn Index) -> Option<String> {
        let pin = match place(index, name, self.marker) {
            Place::At(pin) => pin,
            Place::Between(_) => None,
        };
        let page = index.page_from(name, pin).ok().flatten()?;
        let versions = page.versions();
        let at = self.version.parse().map_or(versions.len(), |version| {
            versions.partition_point(|other| *other < version)
        });
        let serves = |position: &usize| {
            page.files(*position)
                .any(|file| !file.is_wheel() || fits(file.name(), self))
        };
        let older = (0..at).rev().find(serves);
        let found = older.or_else(|| (at..versions.len()).find(serves))?;
        Some(versions[found].to_string())
    }
}

/// The newest Python minor that production can run: preferred ones first.
pub(super) fn best_python(lock: &Lock, options: &Options, wanted: &Wanted) -> Option<PythonVersion> {
    let production = production(lock, wanted);
    let universe = wanted.universe();
    let admitted = |python: PythonVersion| {
        let here = python_marker(python);
        if universe.is_disjoint(here) {
            return false;
        }
        options.platforms.iter().all(|place| {
            production.iter().all(|(package, marker)| {
                let demand = demand(package, *marker, *place, Some(python));
                demand.marker.is_false() || package.sdist().is_some() || has_wheel(package, &demand)
            })
        })
    };
    // 3.14 is the newest that wheels are published for as this is written; older ones follow.
    let all = (9..=14).rev().map(|minor| PythonVersion::new(3, minor));
    options
        .preferred_pythons
        .iter()
        .copied()
        .chain(all)
        .find(|python| admitted(*python))
}

/// The packages that production installs, with where.
fn production<'a>(lock: &'a Lock, wanted: &Wanted) -> Vec<(&'a Package, MarkerTree)> {
    let entries: Vec<Entry<'_>> = lock
        .packages
        .iter()
        .map(|package| Entry {
            name: &package.name,
            version: package.version.as_ref(),
            requires: &package.requires,
            extras: &package.extras,
            fork: package.fork,
        })
        .collect();
    // The group's own marker is left out: production always has it.
    let everywhere = crate::lock::reach::Scope::Project;
    let roots = wanted
        .requirements
        .iter()
        .filter(|(scope, _)| Inputs::is_production(scope))
        .map(|(_, requirement)| (&everywhere, requirement));
    match markers(wanted.universe(), roots, &entries) {
        Ok(found) => lock
            .packages
            .iter()
            .zip(found)
            .filter(|(_, marker)| !marker.is_false())
            .collect(),
        Err(_) => Vec::new(),
    }
}

fn demand(
    package: &Package,
    marker: MarkerTree,
    place: (Platform, Libc),
    python: Option<PythonVersion>,
) -> Demand {
    Demand {
        platform: Some(place),
        marker: marker.and(at(place.0, python)),
        shown: place.0.to_string(),
        python,
        version: package
            .version
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

fn python_marker(python: PythonVersion) -> MarkerTree {
    format!("python_version == '{}'", python.short())
        .parse()
        .unwrap_or(MarkerTree::FALSE)
}

fn at(platform: Platform, python: Option<PythonVersion>) -> MarkerTree {
    let python = python.map_or(MarkerTree::TRUE, python_marker);
    platform.marker().and(python).and(
        "platform_python_implementation == 'CPython'"
            .parse()
            .unwrap_or(MarkerTree::TRUE),
    )
}

fn has_wheel(package: &Package, demand: &Demand) -> bool {
    package.wheels().iter().any(|file| fits(&file.name, demand))
}

fn fits(name: &str, demand: &Demand) -> bool {
    tags::implied(name).is_some_and(|implied| implied.ordinary && !implied.marker.is_disjoint(demand.marker))
        && demand.platform.is_none_or(|(platform, libc)| {
            name.parse()
                .is_ok_and(|wheel| tags::fits_platform(&wheel, platform, libc))
        })
}

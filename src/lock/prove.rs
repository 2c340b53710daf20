//! Whether a lock holds: tried out, environment by environment, without a word from whoever solved it.
//!
//! It takes the lock and what was asked for, derives finitely many environments that stand for all (`cover`), installs the lock
//! in each in thought, and names everything that is wrong. It shares data types and the vocabulary of versions and markers with the
//! resolver, and no judgement: no marker is joined with another here, no range is made. It reads no files and no index; whoever
//! has the published metadata hands it in.

mod cover;
mod fault;
mod files;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;
use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep440::{Version, VersionSpecifiers};
use uv_pep508::{MarkerEnvironment, MarkerTree};

use self::cover::{Compared, Place};
use self::fault::Found;
pub use self::fault::{Fault, Violation};
use self::files::{Installable, Machine, check_name, check_python, installable, is_buildable};
use super::reach::Scope;
use super::satisfies::Wanted;
use super::{Lock, Package, SERVING_GROUP, Source};
use crate::python::metadata::Metadata;
use crate::python::requirement::{Requirement, VersionOrUrl};
use crate::python::target::{Libc, Platform, PythonVersion, Target};

/// What a lock is held against.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Its requirements are what the project asks for after overrides.
    pub wanted: Wanted,
    pub constraints: Vec<Requirement>,
    pub overrides: Vec<Requirement>,
    /// Sets of which at most one is installed.
    pub conflicts: Vec<Vec<Scope>>,
    /// Where everything that is selected must have a file.
    pub required_environments: Vec<MarkerTree>,
    /// The platforms that production runs on.
    pub platforms: Vec<(Platform, Libc)>,
    /// Its Python minor; `None`: the lock's.
    pub python: Option<PythonVersion>,
}

/// What the files of locked packages say of themselves, by name, version and index (one version from two indexes is two packages);
/// packages that are missing are taken at the lock's word.
pub type Published = HashMap<(PackageName, Version, Option<String>), Arc<Metadata>>;

/// What trying a lock out came to.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// How many environments were tried.
    pub environments: usize,
    /// How many choices of the project's extras and groups were tried in each.
    pub choices: usize,
    pub violations: Vec<Violation>,
    /// What is so on purpose, and worth knowing.
    pub notes: Vec<String>,
}

impl Proof {
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Tries `lock` out against `asked`: with the requirements that it keeps, and with those that its files publish.
pub fn prove(lock: &Lock, asked: &Asked, published: &Published) -> Proof {
    let mut found = Found::default();
    for package in &lock.packages {
        check_name(package, published, &mut found);
    }
    let claim = Claim { lock, asked };
    let saved = |package: &Package| package.requires.clone();
    let overridden = |package: &Package| match of(published, package) {
        Some(metadata) => replaced(&asked.overrides, &metadata.requires_dist),
        None => package.requires.clone(),
    };
    let mut requires: Vec<Vec<Vec<Requirement>>> = vec![lock.packages.iter().map(saved).collect()];
    if !published.is_empty() {
        requires.push(lock.packages.iter().map(overridden).collect());
    }
    let mut compared = Compared::default();
    for marker in claim.markers() {
        compared.marker(marker);
    }
    for requirement in requires.iter().flatten().flatten() {
        compared.marker(requirement.marker);
    }
    for specifiers in claim.pythons(published) {
        compared.specifiers(specifiers);
    }
    // Where a source archive can be built, wheels decide nothing.
    for package in lock.packages.iter().filter(|package| !is_buildable(package)) {
        for wheel in package.wheels().iter().filter_map(|file| file.name.parse().ok()) {
            compared.wheel(&wheel);
        }
    }
    let places = match compared.places() {
        Ok(places) => places,
        Err(count) => {
            found.add(Fault::TooMany(count), "everywhere");
            return found.proof(0, 0);
        }
    };
    let places: Vec<Place> = places.into_iter().filter(|place| claim.is_asked(place)).collect();
    let choices = choices(asked);
    let machines: BTreeSet<Machine> = places.iter().filter_map(Place::machine).collect();
    let installable: Installable = machines
        .into_par_iter()
        .map(|machine| (machine, installable(lock, machine)))
        .collect();
    let tried: Vec<Tried> = places
        .par_iter()
        .map(|place| {
            let mut here = Tried::default();
            if !claim.is_covered(place) {
                here.found.add(Fault::NotCovered, place);
                return here;
            }
            let mut selected: BTreeSet<usize> = BTreeSet::new();
            for choice in &choices {
                let active = claim.active(place, choice, &mut here.found);
                selected.extend(active.values());
                for requires in &requires {
                    claim.walk(place, choice, &active, requires, &mut here.found);
                }
            }
            let promises = claim.promises(place);
            for index in selected {
                check_python(&lock.packages[index], place, published, &mut here.found);
                let Some(machine) = place.machine() else {
                    continue;
                };
                let usable = installable[&machine].contains(&index);
                for promise in std::iter::once(None).chain(promises.iter().copied().map(Some)) {
                    here.selected.insert((index, promise));
                    if usable {
                        here.usable.insert((index, promise));
                    }
                }
            }
            here
        })
        .collect();
    let (mut selected, mut usable) = (BTreeSet::new(), BTreeSet::new());
    for here in tried {
        found.join(here.found);
        selected.extend(here.selected);
        usable.extend(here.usable);
    }
    for (index, promise) in selected.difference(&usable) {
        let package = lock.packages[*index].label();
        match promise {
            None => found.add(Fault::Useless { package }, "everywhere"),
            Some(promise) => {
                let environment = asked.required_environments[*promise];
                let place = environment.try_to_string().unwrap_or_default();
                let fault = Fault::NoFile {
                    package,
                    place: format!("`{place}`"),
                };
                found.add(fault, "everywhere there");
            }
        }
    }
    claim.check_production(&mut found);
    found.proof(places.len(), choices.len())
}

/// What came of one place.
#[derive(Debug, Default)]
struct Tried {
    found: Found,
    /// The packages that are installed there, by position: at all, and with each required environment that the place is in. Nothing
    /// is said of places whose files are not known: other interpreters, other systems.
    selected: BTreeSet<(usize, Option<usize>)>,
    /// Those of them that have a file for it.
    usable: BTreeSet<(usize, Option<usize>)>,
}

/// A choice of the project's extras and groups.
#[derive(Debug, Clone, Default, PartialEq)]
struct Choice {
    extras: Vec<ExtraName>,
    groups: Vec<GroupName>,
}

impl Choice {
    fn of<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> Self {
        let mut choice = Self::default();
        for scope in scopes {
            match scope {
                Scope::Project => {}
                Scope::Extra(name) => choice.extras.push(name.clone()),
                Scope::Group(name) => choice.groups.push(name.clone()),
            }
        }
        choice
    }

    fn has(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Project => true,
            Scope::Extra(name) => self.extras.contains(name),
            Scope::Group(name) => self.groups.contains(name),
        }
    }
}

/// None, each alone, and all together: where some exclude each other, all that go with each of those.
fn choices(asked: &Asked) -> Vec<Choice> {
    let wanted = &asked.wanted;
    let scopes: Vec<Scope> = (wanted.extras.iter().cloned().map(Scope::Extra))
        .chain(wanted.groups.iter().cloned().map(Scope::Group))
        .collect();
    let mut all = vec![Choice::default()];
    let mut add = |choice: Choice| {
        if !all.contains(&choice) {
            all.push(choice);
        }
    };
    for scope in &scopes {
        add(Choice::of([scope]));
    }
    // Whatever comes first is kept, and what it excludes is left out: once with each scope in front.
    for first in &scopes {
        let mut together: Vec<&Scope> = Vec::new();
        for scope in std::iter::once(first).chain(&scopes) {
            let excluded = together
                .iter()
                .any(|other| *other == scope || excludes(asked, other, scope));
            if !excluded {
                together.push(scope);
            }
        }
        together.sort();
        add(Choice::of(together));
    }
    all
}

fn excludes(asked: &Asked, one: &Scope, other: &Scope) -> bool {
    asked
        .conflicts
        .iter()
        .any(|set| set.contains(one) && set.contains(other))
}

fn of<'a>(published: &'a Published, package: &Package) -> Option<&'a Metadata> {
    let version = package.version.clone()?;
    published
        .get(&(package.name.clone(), version, package.index.clone()))
        .map(|metadata| &**metadata)
}

/// Requirements with the project's overrides in the place of those they replace: wherever an override says, but under the extra
/// that the replaced one was under.
fn replaced(overrides: &[Requirement], requires: &[Requirement]) -> Vec<Requirement> {
    let mut all = Vec::new();
    for requirement in requires {
        let extra = requirement.marker.top_level_extra();
        let mut by = overrides
            .iter()
            .filter(|by| by.name == requirement.name)
            .peekable();
        if by.peek().is_none() {
            all.push(requirement.clone());
        }
        all.extend(by.map(|by| {
            Requirement {
                marker: extra
                    .clone()
                    .map_or(by.marker, |extra| by.marker.and(MarkerTree::expression(extra))),
                ..by.clone()
            }
        }));
    }
    all
}

struct Claim<'a> {
    lock: &'a Lock,
    asked: &'a Asked,
}

/// What one choice installs in one place, by name.
type Active<'a> = BTreeMap<&'a PackageName, usize>;

impl<'a> Claim<'a> {
    fn markers(&self) -> impl Iterator<Item = MarkerTree> {
        let roots = self.asked.wanted.requirements.iter().map(|(_, root)| root.marker);
        let narrowing = (self.asked.constraints.iter())
            .chain(&self.asked.overrides)
            .map(|one| one.marker);
        let environments = (self.asked.wanted.environments.iter())
            .chain(&self.asked.required_environments)
            .chain(&self.lock.environments)
            .copied();
        let packages = self.lock.packages.iter().map(|package| package.marker);
        roots.chain(narrowing).chain(environments).chain(packages)
    }

    fn pythons<'b>(&'b self, published: &'b Published) -> impl Iterator<Item = &'b VersionSpecifiers> {
        let of_packages = self.lock.packages.iter().flat_map(move |package| {
            let published = of(published, package).and_then(|metadata| metadata.requires_python.as_ref());
            package.requires_python.iter().chain(published)
        });
        (self.asked.wanted.requires_python.iter())
            .chain(&self.lock.requires_python)
            .chain(of_packages)
    }

    fn is_asked(&self, place: &Place) -> bool {
        let wanted = &self.asked.wanted;
        is_within(wanted.requires_python.as_ref(), &wanted.environments, place)
    }

    fn is_covered(&self, place: &Place) -> bool {
        is_within(self.lock.requires_python.as_ref(), &self.lock.environments, place)
    }

    /// What is installed: one entry of a name (PEP 751, "Installation").
    fn active(&self, place: &Place, choice: &Choice, found: &mut Found) -> Active<'a> {
        let mut active: Active<'a> = BTreeMap::new();
        for (index, package) in self.lock.packages.iter().enumerate() {
            if !package
                .marker
                .evaluate_pep751(&place.markers, &choice.extras, &choice.groups)
            {
                continue;
            }
            if let Some(other) = active.insert(&package.name, index) {
                let fault = Fault::Twice {
                    name: package.name.clone(),
                    one: self.lock.packages[other].label(),
                    other: package.label(),
                };
                found.add(fault, place);
            }
        }
        active
    }

    /// Follows every requirement from the project's own, and compares what it meets with what is installed.
    fn walk(
        &self,
        place: &Place,
        choice: &Choice,
        active: &Active<'a>,
        requires: &[Vec<Requirement>],
        found: &mut Found,
    ) {
        let mut met: HashSet<(usize, Option<ExtraName>)> = HashSet::new();
        let mut todo: Vec<(usize, Option<ExtraName>)> = Vec::new();
        let mut follow = |requirement: &Requirement,
                          by: &dyn Fn() -> String,
                          todo: &mut Vec<(usize, Option<ExtraName>)>,
                          found: &mut Found| {
            let Some(index) = active.get(&requirement.name).copied() else {
                let fault = Fault::Missing {
                    by: by(),
                    requirement: requirement.to_string(),
                };
                found.add(fault, place);
                return;
            };
            let package = &self.lock.packages[index];
            if !is_met(requirement, package) {
                let fault = Fault::Unmet {
                    by: by(),
                    requirement: requirement.to_string(),
                    locked: package.label(),
                };
                found.add(fault, place);
            }
            for extra in &requirement.extras {
                if !package.extras.contains(extra) {
                    let fault = Fault::Extra {
                        by: by(),
                        requirement: requirement.to_string(),
                        extra: extra.clone(),
                    };
                    found.add(fault, place);
                }
            }
            let extras = requirement.extras.iter().cloned().map(Some);
            for node in std::iter::once(None).chain(extras) {
                if met.insert((index, node.clone())) {
                    todo.push((index, node));
                }
            }
        };
        let roots = (self.asked.wanted.requirements.iter()).filter(|(scope, _)| choice.has(scope));
        for (scope, root) in roots {
            if root.marker.evaluate(&place.markers, &[]) {
                follow(root, &|| scope.to_string(), &mut todo, found);
            }
        }
        while let Some((index, extra)) = todo.pop() {
            for requirement in &requires[index] {
                if is_active(requirement, &place.markers, extra.as_ref()) {
                    let by = || self.lock.packages[index].label();
                    follow(requirement, &by, &mut todo, found);
                }
            }
        }
        let reached: HashSet<usize> = met.iter().map(|(index, _)| *index).collect();
        for index in active.values().filter(|index| !reached.contains(index)) {
            found.add(Fault::Unreachable(self.lock.packages[*index].label()), place);
        }
        for constraint in &self.asked.constraints {
            let index = active.get(&constraint.name);
            if let Some(package) = index.map(|index| &self.lock.packages[*index])
                && constraint.marker.evaluate(&place.markers, &[])
                && !is_met(constraint, package)
            {
                let fault = Fault::Constraint {
                    requirement: constraint.to_string(),
                    locked: package.label(),
                };
                found.add(fault, place);
            }
        }
    }

    /// The required environments that a place is in, by position.
    fn promises(&self, place: &Place) -> Vec<usize> {
        let required = self.asked.required_environments.iter().enumerate();
        let here = required.filter(|(_, environment)| environment.evaluate(&place.markers, &[]));
        here.map(|(index, _)| index).collect()
    }

    /// What production installs has a file on each of its platforms.
    fn check_production(&self, found: &mut Found) {
        let Some(python) = self.asked.python.or(self.lock.mlrails.python) else {
            return;
        };
        let serving: Vec<GroupName> = (self.lock.dependency_groups.iter())
            .filter(|group| group.as_ref() == SERVING_GROUP)
            .cloned()
            .collect();
        let choice = Choice {
            extras: Vec::new(),
            groups: serving,
        };
        for (platform, libc) in &self.asked.platforms {
            let target = Target {
                platform: *platform,
                python,
                libc: *libc,
            };
            let markers = target.markers();
            let tags = target.tags();
            for package in &self.lock.packages {
                let here = package
                    .marker
                    .evaluate_pep751(&markers, &choice.extras, &choice.groups);
                if here && !is_buildable(package) && package.wheel_for_tags(&tags).is_none() {
                    let fault = Fault::NoFile {
                        package: package.label(),
                        place: target.to_string(),
                    };
                    found.add(fault, target);
                }
            }
        }
    }
}

fn is_within(
    requires_python: Option<&VersionSpecifiers>,
    environments: &[MarkerTree],
    place: &Place,
) -> bool {
    requires_python.is_none_or(|specifiers| specifiers.contains(&place.python))
        && (environments.is_empty()
            || environments
                .iter()
                .any(|environment| environment.evaluate(&place.markers, &[])))
}

/// Whether a package's requirement speaks in this environment: with one of its extras asked for, or without any.
fn is_active(requirement: &Requirement, markers: &MarkerEnvironment, extra: Option<&ExtraName>) -> bool {
    match extra {
        None => requirement.marker.evaluate(markers, &[]),
        Some(extra) => requirement.marker.evaluate(markers, std::slice::from_ref(extra)),
    }
}

fn is_met(requirement: &Requirement, package: &Package) -> bool {
    match (&requirement.version_or_url, &package.version) {
        (Some(VersionOrUrl::Url(_)), _) => !matches!(package.source, Source::Files { .. }),
        (Some(VersionOrUrl::VersionSpecifier(specifiers)), Some(version)) => specifiers.contains(version),
        _ => true,
    }
}

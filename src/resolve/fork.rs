//! Environments and their splitting: what a fork of the solution is for.
//!
//! A fork is made where one version lists a name several times under different markers, where a marker raises the
//! Python floor, and where a candidate needs a newer Python than the fork's floor. Forks of one state are disjoint and
//! together cover what the state covered.

use std::collections::BTreeMap;
use std::ops::Bound;

use pubgrub::Ranges;
use uv_normalize::PackageName;
use uv_pep440::{LowerBound, Version, VersionSpecifiers, release_specifiers_to_ranges};
use uv_pep508::{CanonicalMarkerValueVersion, MarkerTree, MarkerTreeKind};

use super::provider::Node;

/// The environments that one fork solves for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Environment {
    pub marker: MarkerTree,
    /// The lowest Python among them.
    pub floor: LowerBound,
}

impl Environment {
    pub fn new(marker: MarkerTree) -> Self {
        let floor = floor(marker);
        Self { marker, floor }
    }

    pub fn includes(&self, marker: MarkerTree) -> bool {
        !self.marker.is_disjoint(marker)
    }

    /// The two halves at `marker`: where it does not hold, and where it does. `None` if one of them is empty.
    pub fn split(&self, marker: MarkerTree) -> Option<[Self; 2]> {
        let halves = [self.marker.and(marker.negate()), self.marker.and(marker)];
        let both = halves.iter().all(|half| !half.is_false());
        both.then(|| halves.map(Self::new))
    }
}

/// The Python versions for which `marker` can be true.
pub(super) fn pythons(marker: MarkerTree) -> Ranges<Version> {
    match marker.kind() {
        MarkerTreeKind::True => Ranges::full(),
        MarkerTreeKind::False => Ranges::empty(),
        MarkerTreeKind::Version(tree) => {
            let is_python = tree.key() == CanonicalMarkerValueVersion::PythonFullVersion;
            tree.edges().fold(Ranges::empty(), |all, (range, child)| {
                let below = pythons(child);
                match is_python {
                    true => all.union(&below.intersection(range)),
                    false => all.union(&below),
                }
            })
        }
        // Below a variable other than the version, Python can only be bounded on every branch.
        MarkerTreeKind::String(tree) => join(tree.children().map(|(_, child)| child)),
        MarkerTreeKind::In(tree) => join(tree.children().map(|(_, child)| child)),
        MarkerTreeKind::Contains(tree) => join(tree.children().map(|(_, child)| child)),
        MarkerTreeKind::List(tree) => join(tree.children().map(|(_, child)| child)),
        MarkerTreeKind::Extra(tree) => join(tree.children().map(|(_, child)| child)),
    }
}

fn join(children: impl Iterator<Item = MarkerTree>) -> Ranges<Version> {
    children.fold(Ranges::empty(), |all, child| all.union(&pythons(child)))
}

fn floor(marker: MarkerTree) -> LowerBound {
    let range = pythons(marker);
    LowerBound::new(
        range
            .bounding_range()
            .map_or(Bound::Unbounded, |(lower, _)| lower.cloned()),
    )
}

/// The lowest Python that a Requires-Python admits. Its upper bounds are ignored: they say what was tested when it
/// was published, and taking them at their word makes a solver walk back to versions from before they were written.
pub(super) fn lowest_python(specifiers: &VersionSpecifiers) -> LowerBound {
    let range = release_specifiers_to_ranges(specifiers.clone());
    LowerBound::new(
        range
            .bounding_range()
            .map_or(Bound::Unbounded, |(lower, _)| lower.cloned()),
    )
}

/// The environments that a Requires-Python admits, by the same reading.
pub(super) fn lowest_python_marker(specifiers: &VersionSpecifiers) -> Option<MarkerTree> {
    above(&lowest_python(specifiers))
}

/// `python_full_version >= '3.11'`; `None` without a bound.
pub(super) fn above(bound: &LowerBound) -> Option<MarkerTree> {
    let (operator, version) = match &**bound {
        Bound::Included(version) => (">=", version),
        Bound::Excluded(version) => (">", version),
        Bound::Unbounded => return None,
    };
    format!("python_full_version {operator} '{version}'").parse().ok()
}

/// One requirement as the solver takes it: the nodes it constrains, under a marker.
#[derive(Debug, Clone)]
pub(super) struct Dependency {
    pub name: PackageName,
    pub nodes: Vec<(Node, Ranges<Version>)>,
    pub marker: MarkerTree,
}

/// The dependencies that hold in one environment.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    pub environment: Environment,
    pub dependencies: Vec<(Node, Ranges<Version>)>,
}

/// Splits `environment` as far as `dependencies`, all of one version of one package, make it necessary. The fork to
/// solve first is the last.
pub(super) fn split(environment: &Environment, dependencies: Vec<Dependency>) -> Vec<Fork> {
    let mut by_name: BTreeMap<PackageName, Vec<Dependency>> = BTreeMap::new();
    for dependency in dependencies {
        by_name
            .entry(dependency.name.clone())
            .or_default()
            .push(dependency);
    }
    let mut forks = vec![Fork {
        environment: environment.clone(),
        dependencies: Vec::new(),
    }];
    for group in by_name.into_values() {
        // One requirement of a name, or several under one marker, need no fork: conflicts between requirements of
        // different packages are not seen here (nor by uv). A marker that raises the floor is the exception.
        let marker = group[0].marker;
        let uniform = group.iter().all(|dependency| dependency.marker == marker);
        if uniform && floor(marker) <= environment.floor {
            for fork in &mut forks {
                if fork.environment.includes(marker) {
                    fork.dependencies
                        .extend(group.iter().flat_map(|dependency| dependency.nodes.clone()));
                }
            }
            continue;
        }
        for dependency in group {
            if !environment.includes(dependency.marker) {
                continue;
            }
            if dependency.marker.is_true() {
                for fork in &mut forks {
                    fork.dependencies.extend(dependency.nodes.clone());
                }
                continue;
            }
            forks = forks
                .into_iter()
                .flat_map(|fork| split_one(fork, &dependency))
                .collect();
        }
    }
    forks.sort_by(first_to_solve);
    forks
}

/// `fork` without `dependency` where its marker does not hold, and with it where it does.
fn split_one(fork: Fork, dependency: &Dependency) -> Vec<Fork> {
    let with = fork.environment.marker.and(dependency.marker);
    let without = fork.environment.marker.and(dependency.marker.negate());
    if with.is_false() {
        return vec![fork];
    }
    let mut halves = Vec::with_capacity(2);
    if !without.is_false() {
        halves.push(Fork {
            environment: Environment::new(without),
            dependencies: fork.dependencies.clone(),
        });
    }
    let mut dependencies = fork.dependencies;
    dependencies.extend(dependency.nodes.clone());
    halves.push(Fork {
        environment: Environment::new(with),
        dependencies,
    });
    halves
}

/// The newest Python first: its pins are often good for older ones, not the other way round. Then the fork with more
/// upper bounds: `numpy<2` before `numpy>=1`, whose newest version would serve only itself.
fn first_to_solve(one: &Fork, other: &Fork) -> std::cmp::Ordering {
    let bounded = |fork: &Fork| {
        fork.dependencies
            .iter()
            .filter(|(_, range)| {
                range
                    .bounding_range()
                    .is_some_and(|(_, upper)| !matches!(upper, Bound::Unbounded))
            })
            .count()
    };
    one.environment
        .floor
        .cmp(&other.environment.floor)
        .then_with(|| bounded(one).cmp(&bounded(other)))
}

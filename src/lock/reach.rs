//! Reachability over locked packages: where each entry is installed, and who asked for it.
//!
//! A package's marker is the OR, over the paths that lead to it from the project, of the AND of the markers on the
//! way. The solver uses this to finish a lock, `satisfies` to judge one, and the plan to find what production needs.
//! Everything is computed from names, versions and Requires-Dist; nothing is fetched.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep440::Version;
use uv_pep508::{MarkerEnvironment, MarkerTree};

use super::{Lock, Package};
use crate::python::marker_size;
use crate::python::requirement::{Requirement, VersionOrUrl};

/// Which part of the project a requirement was written in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `[project] dependencies`
    Project,
    /// `[project.optional-dependencies]`
    Extra(ExtraName),
    /// `[dependency-groups]`
    Group(GroupName),
}

impl Scope {
    /// The marker under which PEP 751 installers include the scope.
    pub fn marker(&self) -> MarkerTree {
        let text = match self {
            Self::Project => return MarkerTree::TRUE,
            Self::Extra(name) => format!("'{name}' in extras"),
            Self::Group(name) => format!("'{name}' in dependency_groups"),
        };
        // Names are letters, digits and dashes: the text always parses.
        text.parse().unwrap_or(MarkerTree::FALSE)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Project => formatter.write_str("the project"),
            Self::Extra(name) => write!(formatter, "the extra `{name}`"),
            Self::Group(name) => write!(formatter, "the group `{name}`"),
        }
    }
}

/// What reachability needs to know of a locked package.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a PackageName,
    pub version: Option<&'a Version>,
    pub requires: &'a [Requirement],
    /// The extras that `requires` speaks of.
    pub extras: &'a [ExtraName],
    /// In which forks this entry answers for its name.
    pub fork: MarkerTree,
}

/// A requirement that no entry meets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{by} needs `{requirement}`, and {reason}")]
pub struct Unmet {
    pub by: String,
    pub requirement: String,
    pub reason: String,
}

/// Each entry's marker, in their order; FALSE where nothing leads to it.
///
/// `universe` is what requires-python and the environments admit. Fails at the first requirement that the entries do
/// not meet somewhere in it.
pub fn markers<'a>(
    universe: MarkerTree,
    roots: impl IntoIterator<Item = (&'a Scope, &'a Requirement)>,
    entries: &[Entry<'a>],
) -> Result<Vec<MarkerTree>, Unmet> {
    let nodes = nodes(universe, roots, entries)?;
    let marker = |index| nodes.get(&(index, None)).copied();
    Ok((0..entries.len())
        .map(|index| marker(index).unwrap_or(MarkerTree::FALSE))
        .collect())
}

/// For each entry that something leads to, in their order: which of its extras are asked for on the way.
pub fn extras<'a>(
    universe: MarkerTree,
    roots: impl IntoIterator<Item = (&'a Scope, &'a Requirement)>,
    entries: &[Entry<'a>],
) -> Result<Vec<Option<BTreeSet<ExtraName>>>, Unmet> {
    let mut found = vec![None; entries.len()];
    for (index, extra) in nodes(universe, roots, entries)?.into_keys() {
        let extras: &mut BTreeSet<ExtraName> = found[index].get_or_insert_default();
        extras.extend(extra.cloned());
    }
    Ok(found)
}

/// Where each node is reached; those that are not reached are left out.
fn nodes<'a>(
    universe: MarkerTree,
    roots: impl IntoIterator<Item = (&'a Scope, &'a Requirement)>,
    entries: &[Entry<'a>],
) -> Result<HashMap<Node<'a>, MarkerTree>, Unmet> {
    let mut walk = Walk {
        by_name: HashMap::new(),
        entries,
        nodes: HashMap::new(),
        queue: VecDeque::new(),
    };
    for (index, entry) in entries.iter().enumerate() {
        walk.by_name.entry(entry.name).or_default().push(index);
    }
    for (scope, requirement) in roots {
        let scoped = joined(universe, scope.marker(), MarkerTree::and);
        walk.require(requirement, scoped, requirement.marker, || scope.to_string())?;
    }
    while let Some((index, extra)) = walk.queue.pop_front() {
        let entry = &entries[index];
        let condition = walk.nodes[&(index, extra)];
        for requirement in entry.requires {
            let marker = match extra {
                None => without_extras(requirement.marker),
                Some(extra) => with_extra(requirement.marker, extra),
            };
            walk.require(requirement, Some(condition), marker, || match entry.version {
                Some(version) => format!("{} {version}", entry.name),
                None => entry.name.to_string(),
            })?;
        }
    }
    Ok(walk.nodes)
}

/// A marker as it reads with no extra asked for.
pub fn without_extras(marker: MarkerTree) -> MarkerTree {
    marker.simplify_not_extras_with(|_| true)
}

/// A marker as it reads with one extra asked for.
pub fn with_extra(marker: MarkerTree, extra: &ExtraName) -> MarkerTree {
    without_extras(marker.simplify_extras_with(|name| name == extra))
}

/// A package, and one of its extras; its own requirements without one.
type Node<'a> = (usize, Option<&'a ExtraName>);

/// How many nodes a marker may have that is joined from two: each requirement's is bounded where it is parsed, but a hundred of them
/// on one way, or on ways to one package, multiply. Real locks stay below a few hundred.
const LARGEST: usize = 1 << 18;

/// Why a requirement's marker was not joined with those on the way.
const TOO_LARGE: &str =
    "its marker, joined with those of other requirements, has too many extras, groups or `in`";

struct Walk<'a, 'e> {
    by_name: HashMap<&'a PackageName, Vec<usize>>,
    entries: &'e [Entry<'a>],
    nodes: HashMap<Node<'a>, MarkerTree>,
    queue: VecDeque<Node<'a>>,
}

/// `one.and(other)` or `one.or(other)`, unless that could be too large to be made.
fn joined(
    one: MarkerTree,
    other: MarkerTree,
    join: fn(MarkerTree, MarkerTree) -> MarkerTree,
) -> Option<MarkerTree> {
    let nodes = marker_size::nodes(one, LARGEST).saturating_mul(marker_size::nodes(other, LARGEST));
    (nodes <= LARGEST).then(|| join(one, other))
}

impl<'a> Walk<'a, '_> {
    fn require(
        &mut self,
        requirement: &'a Requirement,
        condition: Option<MarkerTree>,
        marker: MarkerTree,
        by: impl Fn() -> String,
    ) -> Result<(), Unmet> {
        let unmet = |reason: String| Unmet {
            by: by(),
            requirement: requirement.to_string(),
            reason,
        };
        // The name alone: a marker that is too large to be joined is too large to be written out.
        let too_large = || Unmet {
            by: by(),
            requirement: requirement.name.to_string(),
            reason: TOO_LARGE.to_owned(),
        };
        let condition = condition
            .and_then(|condition| joined(condition, marker, MarkerTree::and))
            .ok_or_else(too_large)?;
        if condition.is_false() {
            return Ok(());
        }
        let mut remaining = condition;
        let candidates = self.by_name.get(&requirement.name).cloned().unwrap_or_default();
        for index in candidates {
            let entry = &self.entries[index];
            let here = joined(condition, entry.fork, MarkerTree::and).ok_or_else(too_large)?;
            if here.is_false() {
                continue;
            }
            if let (Some(VersionOrUrl::VersionSpecifier(specifiers)), Some(version)) =
                (&requirement.version_or_url, entry.version)
                && !specifiers.contains(version)
            {
                return Err(unmet(format!("{version} is locked")));
            }
            remaining = joined(remaining, entry.fork.negate(), MarkerTree::and).ok_or_else(too_large)?;
            self.reach((index, None), here).ok_or_else(too_large)?;
            for extra in &requirement.extras {
                if !entry.extras.contains(extra) {
                    return Err(unmet(format!("it is locked without the extra `{extra}`")));
                }
                self.reach((index, Some(extra)), here).ok_or_else(too_large)?;
            }
        }
        if remaining.is_false() {
            return Ok(());
        }
        Err(unmet(match remaining.try_to_string() {
            Some(marker) if remaining != condition => format!("nothing is locked where {marker}"),
            _ => "it is not locked".to_owned(),
        }))
    }

    /// Notes a way to `node`; `None` where its marker would become too large.
    fn reach(&mut self, node: Node<'a>, condition: MarkerTree) -> Option<()> {
        let marker = self.nodes.entry(node).or_insert(MarkerTree::FALSE);
        let wider = joined(*marker, condition, MarkerTree::or)?;
        if wider != *marker {
            *marker = wider;
            if !self.queue.contains(&node) {
                self.queue.push_back(node);
            }
        }
        Some(())
    }
}

/// One distribution that a set of roots brings along.
#[derive(Debug, Clone)]
pub struct Reached<'a> {
    pub package: &'a Package,
    /// Extras that somebody on the way asked for.
    pub extras: BTreeSet<ExtraName>,
    /// Who asked first, on a shortest way; `None` for a root.
    pub by: Option<&'a PackageName>,
}

impl Lock {
    /// What `roots` bring along in one environment: themselves, and all that their active Requires-Dist reach, by name.
    ///
    /// `selected` are the packages of that environment (see [`Lock::select`]); a root or requirement outside of it is
    /// left out, since whoever selected decided that.
    pub fn closure<'a>(
        selected: &[&'a Package],
        markers: &MarkerEnvironment,
        roots: impl IntoIterator<Item = (PackageName, Vec<ExtraName>)>,
    ) -> BTreeMap<&'a PackageName, Reached<'a>> {
        let by_name: HashMap<&PackageName, &'a Package> =
            selected.iter().map(|package| (&package.name, *package)).collect();
        let mut reached: BTreeMap<&'a PackageName, Reached<'a>> = BTreeMap::new();
        let mut queue: VecDeque<(PackageName, Vec<ExtraName>, Option<&'a PackageName>)> = roots
            .into_iter()
            .map(|(name, extras)| (name, extras, None))
            .collect();
        while let Some((name, extras, by)) = queue.pop_front() {
            let Some(package) = by_name.get(&name).copied() else {
                continue;
            };
            let new = !reached.contains_key(&package.name);
            let node = reached.entry(&package.name).or_insert_with(|| Reached {
                package,
                extras: BTreeSet::new(),
                by,
            });
            let fresh: Vec<ExtraName> = extras
                .into_iter()
                .filter(|extra| node.extras.insert(extra.clone()))
                .collect();
            if !new && fresh.is_empty() {
                continue;
            }
            let known: Vec<ExtraName> = node.extras.iter().cloned().collect();
            for requirement in &package.requires {
                if requirement.marker.evaluate(markers, &known) {
                    queue.push_back((
                        requirement.name.clone(),
                        requirement.extras.to_vec(),
                        Some(&package.name),
                    ));
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::requirement;

    fn marker(text: &str) -> MarkerTree {
        text.parse().unwrap()
    }

    /// `name version fork: requires, requires`, one entry per line.
    fn check(
        roots: &[(&Scope, &str)],
        lines: &[(&str, &str, &str, &[&str])],
    ) -> Result<Vec<MarkerTree>, String> {
        let parsed: Vec<(PackageName, Version, MarkerTree, Vec<Requirement>)> = lines
            .iter()
            .map(|(name, version, fork, requires)| {
                (
                    name.parse().unwrap(),
                    version.parse().unwrap(),
                    if fork.is_empty() {
                        MarkerTree::TRUE
                    } else {
                        fork.parse().unwrap()
                    },
                    requires
                        .iter()
                        .map(|text| requirement::parse(text).unwrap())
                        .collect(),
                )
            })
            .collect();
        let extras = ["x".parse().unwrap()];
        let entries: Vec<Entry<'_>> = parsed
            .iter()
            .map(|(name, version, fork, requires)| Entry {
                name,
                version: Some(version),
                requires,
                extras: &extras,
                fork: *fork,
            })
            .collect();
        let roots: Vec<(&Scope, Requirement)> = roots
            .iter()
            .map(|(scope, text)| (*scope, requirement::parse(text).unwrap()))
            .collect();
        markers(
            MarkerTree::TRUE,
            roots.iter().map(|(scope, requirement)| (*scope, requirement)),
            &entries,
        )
        .map_err(|unmet| unmet.to_string())
    }

    #[test]
    fn markers_accrue_along_paths() {
        let dev = Scope::Group("dev".parse().unwrap());
        let found = check(
            &[(&Scope::Project, "a ; sys_platform == 'linux'"), (&dev, "c")],
            &[
                ("a", "1", "", &["b[x]"]),
                (
                    "b",
                    "1",
                    "",
                    &[
                        "a",
                        "c ; extra == 'x' and platform_machine == 'x86_64'",
                        "d ; extra == 'y'",
                    ],
                ),
                ("c", "1", "", &[]),
                ("d", "1", "", &[]),
            ],
        )
        .unwrap();
        assert_eq!(found[1], marker("sys_platform == 'linux'"));
        let expected =
            "(platform_machine == 'x86_64' and sys_platform == 'linux') or 'dev' in dependency_groups";
        assert_eq!(found[2], marker(expected));
        assert!(found[3].is_false(), "nobody asks for the extra y");
    }

    /// Each marker is small; a way through all of them, or all ways together, is not.
    #[test]
    fn markers_that_multiply_are_refused_before_they_are_joined() {
        let pair = |at: usize| format!("'{at}' in os_name and '{at}' in sys_platform");
        let either = |at: usize| format!("'{at}' in os_name or '{at}' in sys_platform");
        let ways: Vec<String> = (0..200).map(|at| format!("a ; {}", pair(at))).collect();
        let roots: Vec<(&Scope, &str)> = ways.iter().map(|way| (&Scope::Project, way.as_str())).collect();
        let unmet = check(&roots, &[("a", "1", "", &[])]).unwrap_err();
        assert_eq!(unmet, format!("the project needs `a`, and {TOO_LARGE}"));
        let names: Vec<String> = (0..201).map(|at| format!("a{at}")).collect();
        let requires: Vec<String> = (1..201).map(|at| format!("a{at} ; {}", either(at))).collect();
        let lists: Vec<[&str; 1]> = requires.iter().map(|text| [text.as_str()]).collect();
        let mut lines: Vec<(&str, &str, &str, &[&str])> = Vec::new();
        for (at, name) in names.iter().enumerate() {
            lines.push((name, "1", "", lists.get(at).map_or(&[], |list| list.as_slice())));
        }
        let unmet = check(&[(&Scope::Project, "a0")], &lines).unwrap_err();
        assert!(unmet.ends_with(TOO_LARGE), "{unmet}");
        // A list of one variable stays small, however long.
        let groups: Vec<Scope> = (0..300)
            .map(|at| Scope::Group(format!("g{at}").parse().unwrap()))
            .collect();
        let roots: Vec<(&Scope, &str)> = groups.iter().map(|group| (group, "a")).collect();
        check(&roots, &[("a", "1", "", &[])]).unwrap();
    }

    #[test]
    fn what_is_not_met_is_named() {
        let unmet = check(&[(&Scope::Project, "a>=2")], &[("a", "1", "", &[])]).unwrap_err();
        assert_eq!(unmet, "the project needs `a>=2`, and 1 is locked");
        let unmet = check(
            &[(&Scope::Project, "a")],
            &[("a", "1", "sys_platform == 'linux'", &[])],
        )
        .unwrap_err();
        assert!(
            unmet.ends_with("nothing is locked where sys_platform != 'linux'"),
            "{unmet}"
        );
    }
}

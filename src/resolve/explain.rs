//! Why there is no solution, in the project's words: which of its lines asks for what, and what the index has.
//!
//! pubgrub's derivation is a tree of incompatibilities; people read a short list of facts that contradict each other,
//! the project's own lines first. Facts that only repeat what others say are left out.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use pubgrub::{DerivationTree, External, Ranges};
use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use super::ResolveError;
use super::fork::Environment;
use super::provider::{Node, Reason};
use super::solve::Context;
use crate::lock::reach::Scope;

type Tree = DerivationTree<Node, Ranges<Version>, Reason>;

/// The most facts that are told; more hide the reason instead of showing it.
const MOST: usize = 14;

/// The error for a derivation that ends at the project itself.
pub(super) fn no_solution(context: &Context<'_>, environment: &Environment, tree: Tree) -> ResolveError {
    let mut facts = Facts {
        context,
        environment: environment.marker,
        own: Vec::new(),
        others: Vec::new(),
        names: BTreeSet::new(),
        hints: Vec::new(),
    };
    let mut externals = Vec::new();
    leaves(&tree, &mut externals);
    for external in externals {
        facts.add(external);
    }
    let mut explanation = String::new();
    let everywhere = environment.marker.try_to_string();
    let mut lines = facts.own.clone();
    lines.extend(
        facts
            .others
            .iter()
            .filter(|line| !facts.own.contains(line))
            .cloned(),
    );
    let hidden = lines.len().saturating_sub(MOST);
    for line in lines.iter().take(MOST) {
        let _ = writeln!(explanation, "  - {line}");
    }
    if hidden > 0 {
        let _ = writeln!(explanation, "  - and {hidden} more of the kind");
    }
    if let Some(marker) = everywhere.filter(|_| context.is_split(environment)) {
        let _ = writeln!(explanation, "  (found where {marker})");
    }
    ResolveError::NoSolution {
        explanation: explanation.trim_end().to_owned(),
        hints: facts.hints,
    }
}

/// The facts at the tree's leaves, each once, in the order of the derivation.
fn leaves<'t>(tree: &'t Tree, found: &mut Vec<&'t External<Node, Ranges<Version>, Reason>>) {
    // Derivations of long conflicts are deep: a stack of our own instead of recursion. Shared parts are visited once.
    let mut stack = vec![tree];
    let mut seen = BTreeSet::new();
    while let Some(tree) = stack.pop() {
        match tree {
            DerivationTree::External(external) => found.push(external),
            DerivationTree::Derived(derived) => {
                if derived.shared_id.is_none_or(|id| seen.insert(id)) {
                    stack.push(&derived.cause2);
                    stack.push(&derived.cause1);
                }
            }
        }
    }
}

struct Facts<'c, 'a> {
    context: &'c Context<'a>,
    environment: MarkerTree,
    /// Facts about the project's own lines.
    own: Vec<String>,
    others: Vec<String>,
    names: BTreeSet<PackageName>,
    hints: Vec<String>,
}

impl Facts<'_, '_> {
    fn add(&mut self, external: &External<Node, Ranges<Version>, Reason>) {
        match external {
            External::NotRoot(..) => {}
            External::NoVersions(node, range) => {
                let Some(name) = node.name() else { return };
                self.no_versions(name, range);
            }
            External::Custom(node, range, reason) => {
                let Some(name) = node.name() else { return };
                let line = match reason {
                    Reason::NotFound => format!("`{name}` was not found on the index"),
                    _ => format!("{name} {} {reason}", self.shown(name, range)),
                };
                self.advise(name, reason);
                push(&mut self.others, line);
            }
            External::FromDependencyOf(Node::Root, _, node, range) => {
                let Some(name) = node.name() else { return };
                self.root(name, range);
            }
            External::FromDependencyOf(node, versions, dependency, range) => {
                let (Some(name), Some(needed)) = (node.name(), dependency.name()) else {
                    return;
                };
                // An extra always has its package's version: no news.
                if name == needed {
                    return;
                }
                let versions = self.shown(name, versions);
                let wanted = match range == &Ranges::full() {
                    true => dependency.to_string(),
                    false => format!("{dependency}{}", specifiers(range)),
                };
                push(&mut self.others, format!("{node} {versions} needs {wanted}"));
            }
        }
    }

    /// The project's own lines about `name`.
    fn root(&mut self, name: &PackageName, range: &Ranges<Version>) {
        let mut any = false;
        for (scope, requirement) in self.context.roots {
            if requirement.name != *name {
                continue;
            }
            let own = match crate::python::requirement::version_specifiers(requirement) {
                Some(list) => Ranges::from(list.clone()),
                None => Ranges::full(),
            };
            if own == *range {
                any = true;
                let line = match scope {
                    Scope::Project => format!("the project asks for `{requirement}`"),
                    scope => format!("{scope} asks for `{requirement}`"),
                };
                push(&mut self.own, line);
            }
        }
        if !any {
            push(
                &mut self.own,
                format!("a constraint or override holds {name} to {}", specifiers(range)),
            );
        }
    }

    fn no_versions(&mut self, name: &PackageName, range: &Ranges<Version>) {
        if !self.names.insert(name.clone()) && range == &Ranges::full() {
            return;
        }
        let page = self.context.page(name, self.environment).ok().flatten();
        let versions = page.as_ref().map(|page| page.versions()).unwrap_or_default();
        let inside = versions.iter().filter(|version| range.contains(version)).count();
        let line = match (versions.last(), inside) {
            (None, _) => format!("the index has no version of {name}"),
            // Versions in the range were ruled out one by one; those facts stand for themselves.
            (Some(_), 1..) => return,
            (Some(last), 0) => {
                let nearest = nearest(versions, range);
                let also = match nearest {
                    Some(version) if version != last => format!("; the nearest is {version}"),
                    _ => String::new(),
                };
                format!(
                    "no version of {name} is {}: the newest is {last}{also}",
                    specifiers(range).trim_start()
                )
            }
        };
        push(&mut self.others, line);
    }

    /// `range` as the versions that exist in it.
    fn shown(&self, name: &PackageName, range: &Ranges<Version>) -> String {
        let page = self.context.page(name, self.environment).ok().flatten();
        let versions = page.as_ref().map(|page| page.versions()).unwrap_or_default();
        let inside: Vec<&Version> = versions
            .iter()
            .filter(|version| range.contains(version))
            .collect();
        match inside.as_slice() {
            [] => specifiers(range),
            [only] => only.to_string(),
            all if all.len() == versions.len() => "(every version)".to_owned(),
            [first, .., last] => {
                let from = versions.iter().position(|version| version == *first).unwrap_or(0);
                let contiguous = versions[from..]
                    .iter()
                    .take(inside.len())
                    .eq(inside.iter().copied());
                match (contiguous, inside.len()) {
                    (true, 2) => format!("{first} and {last}"),
                    (true, count) => format!("{first} to {last} ({count} versions)"),
                    (false, count) => format!("{count} versions from {first} to {last}"),
                }
            }
        }
    }

    fn advise(&mut self, name: &PackageName, reason: &Reason) {
        let hint = match reason {
            Reason::Yanked(_) => {
                format!("a yanked version is only taken when the project pins it: `{name}==…`")
            }
            Reason::NeedsBuild(_) => format!("choose a version of {name} that has a wheel"),
            Reason::RequiresPython(_) => {
                "raise requires-python in pyproject.toml, or ask for an older version".to_owned()
            }
            Reason::NoBuild => format!("drop --no-build for {name}, or ask for a version with a wheel"),
            Reason::NoBinary => format!("drop --no-binary for {name}"),
            Reason::NotFound => {
                format!("check the spelling of `{name}`, or add the index that has it with --extra-index-url")
            }
            Reason::TooNew => "move --exclude-newer, or ask for an older version".to_owned(),
            _ => return,
        };
        push(&mut self.hints, hint);
    }
}

fn push(lines: &mut Vec<String>, line: String) {
    if !lines.contains(&line) {
        lines.push(line);
    }
}

/// The version next to `range`, below it if there is one.
fn nearest<'v>(versions: &'v [Version], range: &Ranges<Version>) -> Option<&'v Version> {
    let (lower, _) = range.bounding_range()?;
    let bound = match lower {
        std::ops::Bound::Included(version) | std::ops::Bound::Excluded(version) => version,
        std::ops::Bound::Unbounded => return versions.first(),
    };
    let at = versions.partition_point(|version| version < bound);
    at.checked_sub(1)
        .and_then(|below| versions.get(below))
        .or_else(|| versions.get(at))
}

/// A range as requirements write it. Internal bounds around local versions and prereleases read as what was written: a
/// version's text leaves their marks out.
fn specifiers(range: &Ranges<Version>) -> String {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let range = uv_pep440::strip_local_version_sentinels(range);
    if range == Ranges::full() {
        return " (any version)".to_owned();
    }
    let parts: Vec<String> = range
        .iter()
        .map(|(lower, upper)| match (lower, upper) {
            (Included(one), Included(other)) if one == other => format!("=={one}"),
            _ => {
                let mut text = match lower {
                    Included(version) => format!(">={version}"),
                    Excluded(version) => format!(">{version}"),
                    Unbounded => String::new(),
                };
                if !text.is_empty() && !matches!(upper, Unbounded) {
                    text.push(',');
                }
                match upper {
                    Included(version) => text.push_str(&format!("<={version}")),
                    Excluded(version) => text.push_str(&format!("<{version}")),
                    Unbounded => {}
                }
                text
            }
        })
        .collect();
    parts.join(" or ")
}

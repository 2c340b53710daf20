//! Why there is no solution, in the project's words: which of its lines asks for what, what that leads to, and what the index has.
//!
//! pubgrub's derivation is a tree of incompatibilities, each of them seen from the solver. People read the other way: from their
//! own lines to the place where these contradict each other. So the facts at the tree's leaves are arranged again, each below the
//! line that leads to it by the shortest way, and the lines with the shortest ways come first.

use std::collections::BTreeSet;

use pubgrub::{DerivationTree, External, Ranges};
use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use super::advise::Involved;
use super::fork::Environment;
use super::provider::{Node, Reason};
use super::solve::Context;
use super::{Inputs, ResolveError};
use crate::lock::SERVING_GROUP;
use crate::lock::reach::Scope;
use crate::python::requirement::{Requirement, version_specifiers};

pub(super) type Tree = DerivationTree<Node, Ranges<Version>, Reason>;

/// The most facts that are told; more hide the reason instead of showing it.
const MOST: usize = 14;

/// The error for a derivation that ends at the project itself.
///
/// `apart`: the facts do not hold everywhere, and parts of the environment may have solutions.
pub(super) fn no_solution(
    context: &Context<'_>,
    environment: &Environment,
    tree: Tree,
    apart: bool,
) -> ResolveError {
    let mut facts = Facts {
        context,
        environment: environment.marker,
        known: Vec::new(),
        involved: Involved {
            apart,
            ..Involved::default()
        },
        hints: Vec::new(),
    };
    // Only whether there is a solution is asked: nobody reads why not.
    if context.is_trial() {
        return facts.into_error(String::new());
    }
    let mut externals = Vec::new();
    leaves(&tree, &mut externals);
    for external in externals {
        facts.add(external);
    }
    let mut lines = facts.lines();
    let hidden = lines.len().saturating_sub(MOST);
    if hidden > 1 {
        lines.truncate(MOST);
        lines.push(format!("  - and {hidden} more of the kind"));
    }
    let everywhere = environment.marker.try_to_string();
    if let Some(marker) = everywhere.filter(|_| context.is_split(environment)) {
        lines.push(format!("  (found where {marker})"));
    }
    facts.into_error(lines.join("\n"))
}

/// The facts at the tree's leaves, each once, in the order of the derivation.
pub(super) fn leaves<'t>(tree: &'t Tree, found: &mut Vec<&'t External<Node, Ranges<Version>, Reason>>) {
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

/// One thing that is so.
#[derive(Debug, Clone, PartialEq)]
enum Fact {
    /// The project's own line asks for `name`.
    Asked { name: PackageName, line: String },
    /// Versions of `by` need something of `name`.
    Needs {
        by: Node,
        versions: Ranges<Version>,
        name: PackageName,
        what: String,
    },
    /// Versions of `name` cannot be used.
    Unusable {
        name: PackageName,
        versions: Ranges<Version>,
        reason: Reason,
    },
    /// Nothing of `name` is in range.
    Missing { name: PackageName, line: String },
}

impl Fact {
    /// The name that it says something about.
    fn about(&self) -> Option<&PackageName> {
        match self {
            Self::Asked { .. } => None,
            Self::Needs { by, .. } => by.name(),
            Self::Unusable { name, .. } | Self::Missing { name, .. } => Some(name),
        }
    }

    /// The name that it leads to.
    fn leads_to(&self) -> Option<&PackageName> {
        match self {
            Self::Asked { name, .. } | Self::Needs { name, .. } => Some(name),
            Self::Unusable { .. } | Self::Missing { .. } => None,
        }
    }
}

struct Facts<'c, 'a> {
    context: &'c Context<'a>,
    environment: MarkerTree,
    known: Vec<Fact>,
    involved: Involved,
    hints: Vec<String>,
}

impl Facts<'_, '_> {
    fn into_error(self, explanation: String) -> ResolveError {
        ResolveError::NoSolution {
            explanation,
            hints: self.hints,
            involved: Box::new(self.involved),
        }
    }

    fn add(&mut self, external: &External<Node, Ranges<Version>, Reason>) {
        match external {
            External::NotRoot(..) => {}
            External::NoVersions(node, range) => {
                let Some(name) = node.name() else { return };
                self.no_versions(name, range);
            }
            External::Custom(node, range, reason) => {
                let Some(name) = node.name() else { return };
                self.advise(name, reason);
                self.involved.reasons.push(reason.clone());
                for fact in &mut self.known {
                    if let Fact::Unusable {
                        name: other,
                        versions,
                        reason: known,
                    } = fact
                        && other == name
                        && known == reason
                    {
                        *versions = versions.union(range);
                        return;
                    }
                }
                self.known.push(Fact::Unusable {
                    name: name.clone(),
                    versions: range.clone(),
                    reason: reason.clone(),
                });
            }
            External::FromDependencyOf(Node::Root, _, node, range) => {
                let Some(name) = node.name() else { return };
                self.root(name, range);
            }
            External::FromDependencyOf(node, range, dependency, wanted) => {
                let Some(name) = dependency.name() else { return };
                // An extra always has its package's version: no news.
                if node.name() == Some(name) {
                    return;
                }
                // The solver sees a constraint, and what an override makes of a requirement, as the package's own.
                if self.held(name, wanted) {
                    return;
                }
                let what = match wanted == &Ranges::full() {
                    true => dependency.to_string(),
                    false => format!("{dependency}{}", specifiers(wanted)),
                };
                for fact in &mut self.known {
                    if let Fact::Needs {
                        by,
                        versions,
                        what: known,
                        ..
                    } = fact
                        && by == node
                        && *known == what
                    {
                        *versions = versions.union(range);
                        return;
                    }
                }
                self.known.push(Fact::Needs {
                    by: node.clone(),
                    versions: range.clone(),
                    name: name.clone(),
                    what,
                });
            }
        }
    }

    /// The project's own lines about `name`.
    fn root(&mut self, name: &PackageName, range: &Ranges<Version>) {
        let inputs = self.context.inputs;
        let is_it = |requirement: &Requirement| asks(requirement, name, range);
        let mut lines = Vec::new();
        for (scope, requirement) in self
            .context
            .roots
            .iter()
            .filter(|(_, requirement)| is_it(requirement))
        {
            let who = match scope {
                Scope::Project => "the project asks for".to_owned(),
                Scope::Group(group) if group.as_ref() == SERVING_GROUP => {
                    "mlrails' serving runtime asks for".to_owned()
                }
                scope => format!("{scope} asks for"),
            };
            lines.push(placed(
                inputs,
                Some(scope),
                requirement,
                &format!("{who} `{requirement}`"),
            ));
            self.involved.own.push((scope.clone(), requirement.clone()));
        }
        for line in lines {
            self.note(name, line);
        }
        self.held(name, range);
    }

    /// The project's constraints and overrides that hold `name` in `range`; false if there are none.
    fn held(&mut self, name: &PackageName, range: &Ranges<Version>) -> bool {
        let inputs = self.context.inputs;
        let mut any = false;
        for (what, list) in [
            ("constraint", &inputs.constraints),
            ("override", &inputs.overrides),
        ] {
            for requirement in list.iter().filter(|requirement| asks(requirement, name, range)) {
                any = true;
                if !self.involved.held.contains(requirement) {
                    self.involved.held.push(requirement.clone());
                }
                let text = format!("the {what} `{requirement}` holds");
                self.note(name, placed(inputs, None, requirement, &text));
            }
        }
        any
    }

    fn note(&mut self, name: &PackageName, line: String) {
        let fact = Fact::Asked {
            name: name.clone(),
            line,
        };
        if !self.known.contains(&fact) {
            self.known.push(fact);
        }
    }

    /// All facts as lines: below each of the project's own what it leads to, the shortest ways first.
    fn lines(&self) -> Vec<String> {
        let mut left: Vec<Option<&Fact>> = self.known.iter().map(Some).collect();
        // Each own line with its ways, breadth first over all of them at once: a fact stands where the way to it is shortest.
        let mut blocks: Vec<Vec<(usize, &Fact)>> = Vec::new();
        for slot in &mut left {
            if let Some(fact @ Fact::Asked { .. }) = *slot {
                blocks.push(vec![(0, fact)]);
                *slot = None;
            }
        }
        for depth in 0.. {
            let mut grew = false;
            for block in &mut blocks {
                let mut at = 0;
                while at < block.len() {
                    let (level, parent) = block[at];
                    at += 1;
                    if level != depth {
                        continue;
                    }
                    let mut below = at;
                    for slot in &mut left {
                        let Some(fact) = *slot else { continue };
                        if parent.leads_to().is_some() && fact.about() == parent.leads_to() {
                            block.insert(below, (depth + 1, fact));
                            below += 1;
                            *slot = None;
                            grew = true;
                        }
                    }
                }
            }
            if !grew {
                break;
            }
        }
        // Stable: lines of one length stay in the order of the derivation.
        blocks.sort_by_key(|block| block.iter().map(|(depth, _)| *depth).max());
        let mut lines = Vec::new();
        for (depth, fact) in blocks.into_iter().flatten() {
            let bullet = if depth == 0 { "- " } else { "" };
            let line = format!("{}{bullet}{}", "  ".repeat(depth + 1), self.text(fact));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.extend(
            left.into_iter()
                .flatten()
                .map(|fact| format!("  - {}", self.text(fact))),
        );
        lines
    }

    fn text(&self, fact: &Fact) -> String {
        match fact {
            Fact::Asked { line, .. } | Fact::Missing { line, .. } => line.clone(),
            Fact::Needs {
                by, versions, what, ..
            } => {
                let versions = by
                    .name()
                    .map(|name| self.shown(name, versions))
                    .unwrap_or_default();
                format!("{by} {versions} needs {what}")
            }
            Fact::Unusable {
                name,
                reason: Reason::NotFound,
                ..
            } => format!("`{name}` was not found on the index"),
            Fact::Unusable {
                name,
                versions,
                reason,
            } => format!("{name} {} {reason}", self.shown(name, versions)),
        }
    }

    fn no_versions(&mut self, name: &PackageName, range: &Ranges<Version>) {
        let page = self.context.page(name, self.environment).ok().flatten();
        let versions = page.as_ref().map(|page| page.versions()).unwrap_or_default();
        let inside = versions.iter().filter(|version| range.contains(version)).count();
        let line = match (versions.last(), inside) {
            (None, _) => format!("the index has no version of {name}"),
            // Versions in the range were ruled out one by one; those facts stand for themselves.
            (Some(_), 1..) => {
                let finals = versions
                    .iter()
                    .filter(|version| range.contains(version) && !version.any_prerelease());
                if finals.count() > 0 {
                    return;
                }
                self.involved.prereleases = true;
                match range == &Ranges::full() {
                    true => format!("{name} has only prereleases"),
                    false => format!(
                        "only prereleases of {name} are {}",
                        specifiers(range).trim_start()
                    ),
                }
            }
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
        let fact = Fact::Missing {
            name: name.clone(),
            line,
        };
        if !self.known.contains(&fact) {
            self.known.push(fact);
        }
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

    /// What helps whatever the rest of the project is.
    fn advise(&mut self, name: &PackageName, reason: &Reason) {
        let hint = match reason {
            Reason::Yanked(_) => {
                format!("a yanked version is only taken when the project pins it: `{name}==…`")
            }
            Reason::NotFound => {
                format!("check the spelling of `{name}`, or add the index that has it with --extra-index-url")
            }
            _ => return,
        };
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }
}

/// Whether `requirement` asks for `range` of `name`.
fn asks(requirement: &Requirement, name: &PackageName, range: &Ranges<Version>) -> bool {
    let own = || version_specifiers(requirement).map_or(Ranges::full(), |list| Ranges::from(list.clone()));
    requirement.name == *name && own() == *range
}

/// `text` after the place where `requirement` is written.
fn placed(inputs: &Inputs, scope: Option<&Scope>, requirement: &Requirement, text: &str) -> String {
    match inputs.place_of(scope, requirement) {
        Some(place) => format!("{place}: {text}"),
        None => text.to_owned(),
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

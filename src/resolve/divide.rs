//! What to do with an environment that has no solution: perhaps its parts have.
//!
//! Within one fork every requirement counts that holds somewhere in it. So two packages that ask for different versions, one on
//! Windows and the other elsewhere, look like a contradiction. The derivation names the requirements it is made of: where one of them
//! holds in a part of the fork only, the fork is solved again as two. Where all of them hold everywhere in it, the derivation is a
//! proof, and there is no solution. A fork that was split off another has inherited what that one needed, and may be failed by a
//! requirement that holds in the other only: such a fork is solved again from the start. It is asked when solving failed, so what has a solution without it is not touched.

use std::sync::atomic::{AtomicU32, Ordering};

use pubgrub::{External, Ranges};
use uv_normalize::PackageName;
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use super::Conflicts;
use super::explain::{Tree, leaves};
use super::fork::{Environment, lowest_python_marker};
use super::provider::{Node, Reason};
use super::solve::Context;
use crate::index::FileId;
use crate::lock::reach::{with_extra, without_extras};

/// After so many divisions a solve gives up: it is not to take minutes to say no.
const MOST: u32 = 100;

/// How often environments were divided in one solve.
#[derive(Debug, Default)]
pub(super) struct Divisions(AtomicU32);

/// What is left of an environment that could not be solved.
pub(super) enum Parts {
    /// These may have solutions when they are solved from the start. The part in which more requirements hold is the last: if it has
    /// no solution, the other need not be looked at.
    Solve(Vec<MarkerTree>),
    /// Some may, and it was not asked to look.
    Refused,
    /// It has no solution anywhere, or too much was tried.
    None,
}

/// The parts of `environment` that may have solutions.
///
/// `started` is the environment that the fork was started with; `chosen` lists the versions of a name whose requirements were looked at.
pub(super) fn divide(
    context: &Context<'_>,
    environment: &Environment,
    started: MarkerTree,
    chosen: &dyn Fn(&PackageName) -> Vec<(Version, FileId)>,
    tree: &Tree,
) -> Parts {
    let mut externals = Vec::new();
    leaves(tree, &mut externals);
    let conditions: Vec<MarkerTree> = externals
        .into_iter()
        .flat_map(|external| conditions(context, environment.marker, external, chosen))
        .collect();
    let parts = if environment.marker != started
        && conditions.iter().any(|marker| !environment.includes(*marker))
    {
        vec![environment.marker]
    } else {
        let divides =
            |marker: &&MarkerTree| environment.includes(**marker) && environment.includes(marker.negate());
        let Some(marker) = conditions.iter().find(divides) else {
            return Parts::None;
        };
        if context.conflicts == Conflicts::Refuse {
            return Parts::Refused;
        }
        vec![
            environment.marker.and(marker.negate()),
            environment.marker.and(*marker),
        ]
    };
    match context.divisions.0.fetch_add(1, Ordering::Relaxed) {
        MOST.. => Parts::None,
        _ => Parts::Solve(parts),
    }
}

/// Where a fact of the derivation holds; of a requirement that is written several times, each.
fn conditions(
    context: &Context<'_>,
    environment: MarkerTree,
    external: &External<Node, Ranges<Version>, Reason>,
    chosen: &dyn Fn(&PackageName) -> Vec<(Version, FileId)>,
) -> Vec<MarkerTree> {
    match external {
        External::NotRoot(..) | External::NoVersions(..) => Vec::new(),
        External::Custom(node, range, reason) => match reason {
            Reason::RequiresPython(specifiers) => {
                let newer = specifiers
                    .parse()
                    .ok()
                    .and_then(|list| lowest_python_marker(&list));
                newer.map(MarkerTree::negate).into_iter().collect()
            }
            Reason::Itself => match node.name() {
                Some(name) => requirements(context, environment, node, range, name, chosen),
                None => Vec::new(),
            },
            // It depends on where, and not in a way that a marker could say.
            Reason::MissingWheel(_) => vec![MarkerTree::FALSE],
            _ => Vec::new(),
        },
        External::FromDependencyOf(Node::Root, _, needed, _) => {
            let Some(name) = needed.name() else {
                return Vec::new();
            };
            let roots = context.roots.iter().map(|(_, root)| std::slice::from_ref(root));
            let roots = roots.flat_map(|root| context.effective(root));
            let mut found: Vec<MarkerTree> = roots
                .filter(|root| root.name == *name)
                .map(|root| root.marker)
                .collect();
            found.extend(context.narrowing(name));
            found
        }
        External::FromDependencyOf(node, versions, needed, _) => {
            let Some(name) = needed.name() else {
                return Vec::new();
            };
            let mut found = requirements(context, environment, node, versions, name, chosen);
            found.extend(context.narrowing(name));
            found
        }
    }
}

/// Where `versions` of `node`, as far as they were looked at, require `name`.
fn requirements(
    context: &Context<'_>,
    environment: MarkerTree,
    node: &Node,
    versions: &Ranges<Version>,
    name: &PackageName,
    chosen: &dyn Fn(&PackageName) -> Vec<(Version, FileId)>,
) -> Vec<MarkerTree> {
    let Some(by) = node.name() else {
        return Vec::new();
    };
    let Ok(Some(page)) = context.page(by, environment) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (version, file) in chosen(by) {
        if !versions.contains(&version) {
            continue;
        }
        let Ok(metadata) = context.index.metadata(by, &page, file) else {
            continue;
        };
        let requires = context.effective(&metadata.requires_dist);
        for requirement in requires.iter().filter(|requirement| requirement.name == *name) {
            found.push(match node {
                Node::Extra(_, extra) => with_extra(requirement.marker, extra),
                _ => without_extras(requirement.marker),
            });
        }
    }
    found
}

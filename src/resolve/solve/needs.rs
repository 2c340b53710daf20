//! What one version needs, as the solver takes it.

use std::sync::Arc;

use pubgrub::Ranges;
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use super::{Context, Fork};
use crate::index::{FileId, IndexError, Page};
use crate::lock::reach::{with_extra, without_extras};
use crate::python::metadata::Metadata;
use crate::python::requirement::{Requirement, VersionOrUrl};
use crate::resolve::ResolveError;
use crate::resolve::fork::{Dependency, lowest_python};
use crate::resolve::provider::{Node, Reason};

pub(super) type Dependencies = Result<Vec<Dependency>, Reason>;

/// What one version needs, for the solver. `Ok(Err(_))`: the version cannot be used.
pub(super) fn dependencies(
    context: &Context<'_>,
    fork: &Fork,
    node: &Node,
    version: &Version,
    file: Option<FileId>,
    page: Option<&Arc<Page>>,
) -> Result<Dependencies, ResolveError> {
    let (name, extra) = match node {
        Node::Root => return root_dependencies(context, fork),
        Node::Package(name) => (name, None),
        Node::Extra(name, extra) => (name, Some(extra)),
    };
    let (Some(file), Some(page)) = (file, page) else {
        return Ok(Ok(Vec::new()));
    };
    let metadata: Arc<Metadata> = match context.index.metadata(name, page, file) {
        Ok(metadata) => metadata,
        Err(error) => {
            return match &*error {
                IndexError::NeedsBuild { reason, .. } => {
                    context.note(format!(
                        "{name} {version} has to be built to know what it needs, and is passed over: {reason}"
                    ));
                    Ok(Err(Reason::NeedsBuild(reason.clone())))
                }
                IndexError::Unreadable { rule, .. } => Ok(Err(Reason::Broken(rule.clone()))),
                _ => Err(error.into()),
            };
        }
    };
    if let Some(specifiers) = &metadata.requires_python
        && lowest_python(specifiers) > fork.environment.floor
    {
        return Ok(Err(Reason::RequiresPython(specifiers.to_string())));
    }
    let mut dependencies = Vec::new();
    if let Some(extra) = extra {
        if !metadata.provides_extra.contains(extra) {
            context.note(format!("{name} {version} has no extra `{extra}`"));
        }
        dependencies.push(Dependency {
            name: name.clone(),
            nodes: vec![(Node::Package(name.clone()), Ranges::singleton(version.clone()))],
            marker: MarkerTree::TRUE,
        });
    }
    for requirement in context.effective(&metadata.requires_dist) {
        let plain = without_extras(requirement.marker);
        let marker = match extra {
            None => plain,
            // What holds without the extra is the package's own business.
            Some(extra) => with_extra(requirement.marker, extra).and(plain.negate()),
        };
        if !fork.environment.includes(marker) {
            continue;
        }
        if let Some(VersionOrUrl::Url(_)) = requirement.version_or_url {
            return Ok(Err(Reason::Url(requirement.name.to_string())));
        }
        // A package may name itself, usually to bundle its extras.
        if requirement.name == *name && requirement.extras.is_empty() {
            if range_of(&requirement).contains(version) {
                continue;
            }
            return Ok(Err(Reason::Itself));
        }
        push(context, &requirement, marker, fork, &mut dependencies);
    }
    Ok(Ok(dependencies))
}

fn root_dependencies(context: &Context<'_>, fork: &Fork) -> Result<Dependencies, ResolveError> {
    let mut dependencies = Vec::new();
    for (scope, requirement) in context.roots {
        for requirement in context.effective(std::slice::from_ref(requirement)) {
            if let Some(VersionOrUrl::Url(_)) = requirement.version_or_url {
                return Err(ResolveError::Unsupported {
                    requirement: requirement.name.to_string(),
                    rule: "comes from a URL that nobody has read".to_owned(),
                });
            }
            // What an extra or a group asks for, a fork for its rival does not have.
            if fork.environment.includes(requirement.marker.and(scope.marker())) {
                push(context, &requirement, requirement.marker, fork, &mut dependencies);
            }
        }
    }
    Ok(Ok(dependencies))
}

/// Adds a requirement, and the constraints that its name has.
fn push(
    context: &Context<'_>,
    requirement: &Requirement,
    marker: MarkerTree,
    fork: &Fork,
    dependencies: &mut Vec<Dependency>,
) {
    dependencies.push(as_dependency(requirement, marker));
    for constraint in context.constraints.get(&requirement.name).into_iter().flatten() {
        let marker = marker.and(constraint.marker);
        if fork.environment.includes(marker) {
            let mut bare = (*constraint).clone();
            bare.extras = Box::default();
            dependencies.push(as_dependency(&bare, marker));
        }
    }
}

fn as_dependency(requirement: &Requirement, marker: MarkerTree) -> Dependency {
    let range = range_of(requirement);
    let package = Node::Package(requirement.name.clone());
    let extras = requirement.extras.iter().map(|extra| {
        (
            Node::Extra(requirement.name.clone(), extra.clone()),
            range.clone(),
        )
    });
    Dependency {
        name: requirement.name.clone(),
        nodes: std::iter::once((package, range.clone())).chain(extras).collect(),
        marker,
    }
}

fn range_of(requirement: &Requirement) -> Ranges<Version> {
    match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => Ranges::from(specifiers.clone()),
        _ => Ranges::full(),
    }
}

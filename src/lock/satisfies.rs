//! Whether a lock still satisfies a project: then nothing is solved again.
//!
//! The judgement is by reachability, not by comparing text: a reordered list, a requirement that the locked versions
//! meet, or one that was dropped changes markers at most. What cannot be judged that way (the resolution mode, a
//! constraint, another index) is compared as lines.

use uv_normalize::{ExtraName, GroupName};
use uv_pep440::VersionSpecifiers;
use uv_pep508::MarkerTree;

use super::reach::{Entry, Scope, Unmet, markers};
use super::{Lock, Package};
use crate::python::requirement::Requirement;

/// What a project asks of its lock.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub requires_python: Option<VersionSpecifiers>,
    /// Empty: all that `requires_python` admits.
    pub environments: Vec<MarkerTree>,
    pub extras: Vec<ExtraName>,
    pub groups: Vec<GroupName>,
    pub default_groups: Vec<GroupName>,
    pub requirements: Vec<(Scope, Requirement)>,
    /// Extras and groups of which at most one of a set is ever installed.
    pub conflicts: Vec<Vec<Scope>>,
    /// Everything else that decides a solution, as canonical lines.
    pub options: Vec<String>,
}

/// Why a lock has to be solved again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outdated {
    #[error("requires-python was {was} and is {is}")]
    RequiresPython { was: String, is: String },
    #[error("the environments it covers changed")]
    Environments,
    #[error("{0}")]
    Options(String),
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

/// That no two of `set` are installed together.
fn at_most_one(set: &[Scope]) -> MarkerTree {
    let mut only = MarkerTree::TRUE;
    for (at, one) in set.iter().enumerate() {
        for other in set[at + 1..].iter().filter(|other| *other != one) {
            only = only.and(one.marker().and(other.marker()).negate());
        }
    }
    only
}

impl Wanted {
    /// All environments that the lock is for, as one marker.
    pub fn universe(&self) -> MarkerTree {
        let python = self
            .requires_python
            .as_ref()
            .map_or(MarkerTree::TRUE, python_marker);
        let environments = self
            .environments
            .iter()
            .fold(MarkerTree::FALSE, |all, environment| all.or(*environment));
        let universe = match self.environments.is_empty() {
            true => python,
            false => python.and(environments),
        };
        self.conflicts
            .iter()
            .fold(universe, |universe, set| universe.and(at_most_one(set)))
    }

    /// The choices that the declared conflicts leave, each a marker: none of a set first, then one of it. They are disjoint, and one alone
    /// where nothing conflicts.
    pub fn choices(&self) -> Vec<MarkerTree> {
        let mut choices = vec![MarkerTree::TRUE];
        for set in &self.conflicts {
            let chosen = set.iter().map(Scope::marker);
            let none = chosen
                .clone()
                .fold(MarkerTree::TRUE, |all, one| all.and(one.negate()));
            let only = at_most_one(set);
            let of_set: Vec<MarkerTree> = [none]
                .into_iter()
                .chain(chosen.map(|one| one.and(only)))
                .collect();
            choices = (choices.iter())
                .flat_map(|choice| of_set.iter().map(|one| choice.and(*one)))
                .filter(|choice| !choice.is_false())
                .collect();
        }
        choices
    }

    /// `marker` as it is written in a lock: what requires-python already says is left out.
    pub fn simplified(&self, marker: MarkerTree) -> MarkerTree {
        let Some(specifiers) = &self.requires_python else {
            return marker;
        };
        let range = uv_pep440::release_specifiers_to_ranges(specifiers.clone());
        match range.bounding_range() {
            Some((lower, upper)) => marker.simplify_python_versions(lower, upper),
            None => marker,
        }
    }
}

/// The marker that is true where `specifiers` admit the interpreter.
pub fn python_marker(specifiers: &VersionSpecifiers) -> MarkerTree {
    use uv_pep508::{MarkerExpression, MarkerValueVersion};
    specifiers.iter().fold(MarkerTree::TRUE, |all, specifier| {
        all.and(MarkerTree::expression(MarkerExpression::Version {
            key: MarkerValueVersion::PythonFullVersion,
            specifier: specifier.clone(),
        }))
    })
}

/// The lock as it should be for `wanted` without solving again: `lock` itself where nothing changed, else with other
/// markers, or without packages that nothing asks for any more.
pub fn refreshed(lock: &Lock, wanted: &Wanted) -> Result<Lock, Outdated> {
    let text = |specifiers: &Option<VersionSpecifiers>| match specifiers {
        Some(specifiers) => format!("`{specifiers}`"),
        None => "open".to_owned(),
    };
    if lock.requires_python != wanted.requires_python {
        return Err(Outdated::RequiresPython {
            was: text(&lock.requires_python),
            is: text(&wanted.requires_python),
        });
    }
    if lock.environments != wanted.environments {
        return Err(Outdated::Environments);
    }
    if lock.mlrails.inputs != wanted.options {
        let changed = wanted
            .options
            .iter()
            .find(|line| !lock.mlrails.inputs.contains(line))
            .map(|line| format!("`{line}` is new"))
            .or_else(|| {
                let gone = lock
                    .mlrails
                    .inputs
                    .iter()
                    .find(|line| !wanted.options.contains(line))?;
                Some(format!("`{gone}` is gone"))
            });
        return Err(Outdated::Options(
            changed.unwrap_or_else(|| "its options are in another order".to_owned()),
        ));
    }
    let found = package_markers(wanted, &lock.packages)?;
    let packages = lock
        .packages
        .iter()
        .zip(found)
        .filter(|(_, marker)| !marker.is_false())
        .map(|(package, marker)| Package {
            marker,
            ..package.clone()
        })
        .collect();
    Ok(Lock {
        extras: wanted.extras.clone(),
        dependency_groups: wanted.groups.clone(),
        default_groups: wanted.default_groups.clone(),
        packages,
        ..lock.clone()
    })
}

/// Each package's marker as it is written in a lock for `wanted`.
pub fn package_markers(wanted: &Wanted, packages: &[Package]) -> Result<Vec<MarkerTree>, Unmet> {
    let entries: Vec<Entry<'_>> = packages
        .iter()
        .map(|package| Entry {
            name: &package.name,
            version: package.version.as_ref(),
            requires: &package.requires,
            extras: &package.extras,
            fork: package.fork,
        })
        .collect();
    let roots = wanted
        .requirements
        .iter()
        .map(|(scope, requirement)| (scope, requirement));
    let found = markers(wanted.universe(), roots, &entries)?;
    Ok(found
        .into_iter()
        .map(|marker| wanted.simplified(marker))
        .collect())
}

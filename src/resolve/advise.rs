//! What would solve: changes to the project that are tried out before they are offered.
//!
//! It takes what a conflict involves and a way to solve once more; it gives hints, each true: with that change, and no other, there
//! is a lock. Trials share the index's answers with the solve that failed, and stop together at a moment that is set before.

use std::ops::Bound;

use uv_pep508::MarkerTree;

use super::fork::lowest_python;
use super::provider::Reason;
use super::{Conflicts, Inputs, Never, Options, Prerelease};
use crate::lock::Lock;
use crate::lock::reach::Scope;
use crate::python::requirement::{Requirement, VersionOrUrl, version_specifiers};

/// The most changes that are offered: the nearest ones.
const MOST: usize = 3;

/// What a conflict is about.
#[derive(Debug, Clone, Default)]
pub struct Involved {
    /// The project's own requirements, as they are told.
    pub(super) own: Vec<(Scope, Requirement)>,
    /// Constraints and overrides.
    pub(super) held: Vec<Requirement>,
    pub(super) reasons: Vec<Reason>,
    /// Prereleases would be in range.
    pub(super) prereleases: bool,
    /// The facts do not hold everywhere: parts of the environments may have solutions.
    pub(super) apart: bool,
}

/// Solves changed inputs; `None` if that fails, or takes too long.
pub(super) type Trial<'a> = &'a dyn Fn(&Inputs, &Options) -> Option<Lock>;

/// The changes that would solve, the nearest first.
pub(super) fn changes(
    involved: &Involved,
    inputs: &Inputs,
    options: &Options,
    solve: Trial<'_>,
) -> Vec<String> {
    let mut hints = Vec::new();
    if involved.apart {
        let changed = Options {
            conflicts: Conflicts::Split,
            ..options.clone()
        };
        if solve(inputs, &changed).is_some() {
            let hint = "no environment has all of this: --split-conflicts would lock different versions for different ones";
            hints.push(hint.to_owned());
        }
    }
    if involved.prereleases {
        let changed = Options {
            prerelease: Prerelease::Allow,
            ..options.clone()
        };
        if solve(inputs, &changed).is_some() {
            hints.push("--prerelease allow would solve this".to_owned());
        }
    }
    hints.extend(python(involved, inputs, options, solve));
    hints.extend(files(involved, inputs, options, solve));
    for (scope, requirement) in unique(&involved.own) {
        if hints.len() >= MOST {
            break;
        }
        if version_specifiers(requirement).is_none() {
            continue;
        }
        let Some(lock) = solve(&relaxed(inputs, std::slice::from_ref(&requirement)), options) else {
            continue;
        };
        hints.push(format!(
            "relax {}: {} would do",
            written(inputs, Some(scope), requirement),
            chosen(&lock, requirement)
        ));
    }
    for requirement in &involved.held {
        if hints.len() < MOST && solve(&relaxed(inputs, &[requirement]), options).is_some() {
            hints.push(format!(
                "without {} there is a solution",
                written(inputs, None, requirement)
            ));
        }
    }
    if !hints.is_empty() {
        return hints;
    }
    if inputs.environments.is_empty() {
        let linux: MarkerTree = "sys_platform == 'linux'".parse().unwrap_or(MarkerTree::FALSE);
        let changed = Inputs {
            environments: vec![linux],
            ..inputs.clone()
        };
        if solve(&changed, options).is_some() {
            return vec![
                "on Linux alone there is a solution: environments = [\"sys_platform == 'linux'\"] in [tool.uv]"
                    .to_owned(),
            ];
        }
    }
    let all: Vec<&Requirement> = unique(&involved.own)
        .into_iter()
        .map(|(_, requirement)| requirement)
        .filter(|requirement| version_specifiers(requirement).is_some())
        .collect();
    if all.len() > 1
        && let Some(lock) = solve(&relaxed(inputs, &all), options)
    {
        let shown: Vec<String> = all.iter().map(|requirement| chosen(&lock, requirement)).collect();
        return vec![format!(
            "no single line is to blame; {} would do together",
            shown.join(", ")
        )];
    }
    if involved
        .reasons
        .iter()
        .any(|reason| matches!(reason, Reason::NotFound))
    {
        return Vec::new();
    }
    // No bound is to blame: two of the project's packages do not go together.
    unique(&involved.own)
        .into_iter()
        .filter(|(_, requirement)| solve(&without(inputs, requirement), options).is_some())
        .map(|(scope, requirement)| {
            format!(
                "without {} there is a solution",
                written(inputs, Some(scope), requirement)
            )
        })
        .take(MOST)
        .collect()
}

/// The hint that relaxes the project's own line about a package whose wheels are missing.
pub(super) fn for_wheel(
    own: &[(Scope, Requirement)],
    inputs: &Inputs,
    options: &Options,
    solve: Trial<'_>,
) -> Vec<String> {
    own.iter()
        .filter(|(_, requirement)| version_specifiers(requirement).is_some())
        .filter_map(|(scope, requirement)| {
            let lock = solve(&relaxed(inputs, &[requirement]), options)?;
            Some(format!(
                "relax {}: {} would do",
                written(inputs, Some(scope), requirement),
                chosen(&lock, requirement)
            ))
        })
        .take(1)
        .collect()
}

/// A newer Python, where versions ask for one.
fn python(involved: &Involved, inputs: &Inputs, options: &Options, solve: Trial<'_>) -> Option<String> {
    let mut bounds: Vec<_> = involved
        .reasons
        .iter()
        .filter_map(|reason| match reason {
            Reason::RequiresPython(text) => Some(lowest_python(&text.parse().ok()?)),
            _ => None,
        })
        .collect();
    bounds.sort();
    bounds.dedup();
    bounds.into_iter().find_map(|bound| {
        let Bound::Included(version) = &*bound else {
            return None;
        };
        let text = format!(">={version}");
        let changed = Inputs {
            requires_python: Some(text.parse().ok()?),
            ..inputs.clone()
        };
        solve(&changed, options)?;
        let place = inputs
            .requires_python_place
            .as_deref()
            .unwrap_or("pyproject.toml");
        Some(format!("requires-python = \"{text}\" in {place} would do"))
    })
}

/// Files that an option hides.
fn files(involved: &Involved, inputs: &Inputs, options: &Options, solve: Trial<'_>) -> Option<String> {
    let has = |wanted: fn(&Reason) -> bool| involved.reasons.iter().any(wanted);
    let (changed, hint) = if has(|reason| matches!(reason, Reason::TooNew)) {
        let changed = Options {
            exclude_newer: None,
            ..options.clone()
        };
        (changed, "with a later --exclude-newer there is a solution")
    } else if has(|reason| matches!(reason, Reason::NoBuild)) {
        let changed = Options {
            no_build: Never::None,
            ..options.clone()
        };
        (changed, "without --no-build there is a solution")
    } else if has(|reason| matches!(reason, Reason::NoBinary)) {
        let changed = Options {
            no_binary: Never::None,
            ..options.clone()
        };
        (changed, "without --no-binary there is a solution")
    } else {
        return None;
    };
    solve(inputs, &changed).map(|_| hint.to_owned())
}

fn unique(own: &[(Scope, Requirement)]) -> Vec<&(Scope, Requirement)> {
    let mut found: Vec<&(Scope, Requirement)> = Vec::new();
    for one in own {
        if !found.iter().any(|known| known.1 == one.1) {
            found.push(one);
        }
    }
    found
}

/// `inputs` with every one of `requirements` asking for any version.
fn relaxed(inputs: &Inputs, requirements: &[&Requirement]) -> Inputs {
    let mut changed = inputs.clone();
    let lists = [&mut changed.dependencies]
        .into_iter()
        .chain(changed.extras.values_mut())
        .chain(changed.groups.values_mut())
        .chain([&mut changed.constraints, &mut changed.overrides]);
    for list in lists {
        for one in list.iter_mut() {
            let is_it = |wanted: &&&Requirement| {
                wanted.name == one.name && wanted.version_or_url == one.version_or_url
            };
            if requirements.iter().any(|wanted| is_it(&wanted))
                && matches!(one.version_or_url, Some(VersionOrUrl::VersionSpecifier(_)))
            {
                one.version_or_url = None;
            }
        }
    }
    changed
}

/// `inputs` without a requirement.
fn without(inputs: &Inputs, requirement: &Requirement) -> Inputs {
    let mut changed = inputs.clone();
    let lists = [&mut changed.dependencies].into_iter();
    for list in lists
        .chain(changed.extras.values_mut())
        .chain(changed.groups.values_mut())
    {
        list.retain(|one| one.name != requirement.name || one.version_or_url != requirement.version_or_url);
    }
    changed
}

/// A requirement as it is written, with the place.
fn written(inputs: &Inputs, scope: Option<&Scope>, requirement: &Requirement) -> String {
    match inputs.place_of(scope, requirement) {
        Some(place) => format!("`{requirement}` in {place}"),
        None => format!("`{requirement}`"),
    }
}

/// What a trial locked of a requirement's name: `a 2.1`.
fn chosen(lock: &Lock, requirement: &Requirement) -> String {
    let versions: Vec<String> = lock
        .packages_named(&requirement.name)
        .filter_map(|package| package.version.as_ref().map(ToString::to_string))
        .collect();
    match versions.as_slice() {
        [] => format!("{} under other conditions", requirement.name),
        versions => format!("{} {}", requirement.name, versions.join(" and ")),
    }
}

//! Requirements become pins: one universal lock for every platform and Python that a project admits.
//!
//! It takes what a project asks for ([`Inputs`]), how to choose ([`Options`]), what was chosen before ([`Preferences`])
//! and an [`Index`]; it gives a [`Lock`]. It does not read projects, write files or print, and it reaches the network
//! only through the index.
//!
//! `solve` drives pubgrub over forks of the environment, `candidate` chooses versions, `fork` splits environments,
//! `divide` those without a solution, `merge` joins the forks' pins into a lock, `coverage` sees to it that the image's
//! platforms have wheels, `explain` says why there is no solution, `advise` what would be one.

mod advise;
mod candidate;
mod coverage;
mod divide;
mod explain;
mod fork;
mod merge;
pub mod preference;
mod priority;
mod provider;
mod solve;
mod tags;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_pep440::VersionSpecifiers;
use uv_pep508::MarkerTree;

use crate::index::{Index, IndexError};
use crate::lock::reach::Scope;
use crate::lock::satisfies::Wanted;
use crate::lock::{Lock, SERVING_GROUP};
use crate::python::requirement::Requirement;
use crate::python::target::{Libc, Platform, PythonVersion};

pub use advise::Involved;
pub use preference::Preferences;

/// What a project asks for.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The project's own name: `churn[viz]` in its own lists means its extra.
    pub name: Option<PackageName>,
    pub requires_python: Option<VersionSpecifiers>,
    pub dependencies: Vec<Requirement>,
    pub extras: BTreeMap<ExtraName, Vec<Requirement>>,
    pub groups: BTreeMap<GroupName, Vec<Requirement>>,
    pub default_groups: Vec<GroupName>,
    /// Narrow what may be chosen, without asking for anything.
    pub constraints: Vec<Requirement>,
    /// Replace every requirement of their names, wherever it is.
    pub overrides: Vec<Requirement>,
    /// Which environments to lock for; empty: all that `requires_python` admits.
    pub environments: Vec<MarkerTree>,
    /// Environments in which every package that reaches them must have a usable file.
    pub required_environments: Vec<MarkerTree>,
    /// Extras and groups of which at most one of a set is ever installed.
    pub conflicts: Vec<Vec<Scope>>,
    /// Where the project's own requirements are written, for messages.
    pub places: Vec<Written>,
    pub requires_python_place: Option<String>,
}

/// A requirement of the project, and where it stands.
#[derive(Debug, Clone)]
pub struct Written {
    /// `None`: a constraint or an override.
    pub scope: Option<Scope>,
    pub requirement: Requirement,
    /// `pyproject.toml:7`
    pub place: String,
}

/// How versions are chosen.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub resolution: Resolution,
    pub prerelease: Prerelease,
    pub fork_strategy: ForkStrategy,
    pub conflicts: Conflicts,
    /// Files uploaded later, in microseconds since 1970, do not exist.
    pub exclude_newer: Option<i64>,
    pub no_build: Never,
    pub no_binary: Never,
    /// The platforms that production is built for.
    pub platforms: Vec<(Platform, Libc)>,
    /// The Python minor that production runs, where it is decided.
    pub python: Option<PythonVersion>,
    /// Minors that production would rather run, best first, where it is not.
    pub preferred_pythons: Vec<PythonVersion>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolution {
    #[default]
    Highest,
    Lowest,
    /// The project's own requirements at their lowest, everything else at its highest.
    LowestDirect,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prerelease {
    Disallow,
    Allow,
    /// Only where no final version is in range.
    #[default]
    IfNecessary,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForkStrategy {
    /// The newest version for each Python, at the price of several versions of a package.
    #[default]
    RequiresPython,
    /// As few versions of each package as possible.
    Fewest,
}

/// What happens where requirements of different packages contradict each other, and each holds in some environments only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// There is no solution: one version of a package serves all environments, but where one list of requirements says otherwise.
    #[default]
    Refuse,
    /// The environments are split further: a lock is found whenever every environment has a solution.
    Split,
}

/// For which packages a kind of file is not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Never {
    #[default]
    None,
    All,
    Some(BTreeSet<PackageName>),
}

impl Never {
    pub fn holds(&self, name: &PackageName) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => names.contains(name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No choice of versions meets all requirements. The text derives that from the project's own lines.
    #[error("the requirements cannot be met together\n{explanation}")]
    NoSolution {
        explanation: String,
        /// Each was tried: with that change, there is a solution.
        hints: Vec<String>,
        involved: Box<Involved>,
    },
    #[error(transparent)]
    Index(#[from] Arc<IndexError>),
    #[error("`{requirement}` {rule}")]
    Unsupported { requirement: String, rule: String },
    #[error("no wheel of `{name}` {version} fits {platform}{python}")]
    NoWheel {
        name: PackageName,
        version: String,
        platform: String,
        python: String,
        /// The nearest version that has one.
        nearest: Option<String>,
        /// Changes that would solve.
        hints: Vec<String>,
    },
    /// A trial's time is over.
    #[error("there was no solution in the time that a trial has")]
    OutOfTime,
    /// Two rules of this program contradict each other.
    #[error("the solution does not hold: {0}")]
    Unsound(crate::lock::reach::Unmet),
}

/// A lock, and what people should know of how it came about.
#[derive(Debug)]
pub struct Resolved {
    pub lock: Lock,
    pub notes: Vec<String>,
}

/// How long changes to an unsolvable project are tried out, all together.
const TRIALS: Duration = Duration::from_secs(8);

/// Solves `inputs`. Blocks the thread; run it where that is allowed.
pub fn resolve(
    inputs: &Inputs,
    options: &Options,
    preferences: &Preferences,
    index: &dyn Index,
    index_lines: &[String],
) -> Result<Resolved, ResolveError> {
    let mut error = match resolve_until(None, inputs, options, preferences, index, index_lines) {
        Err(error) => error,
        resolved => return resolved,
    };
    let end = Instant::now() + TRIALS;
    let trial = |inputs: &Inputs, options: &Options| {
        let solved = resolve_until(Some(end), inputs, options, preferences, index, index_lines);
        solved.ok().map(|resolved| resolved.lock)
    };
    match &mut error {
        ResolveError::NoSolution { hints, involved, .. } => {
            hints.extend(advise::changes(involved, inputs, options, &trial));
        }
        ResolveError::NoWheel { name, hints, .. } => {
            let mut own = inputs.roots()?;
            own.retain(|(_, requirement)| requirement.name == *name);
            *hints = advise::for_wheel(&own, inputs, options, &trial);
        }
        _ => {}
    }
    Err(error)
}

/// Solves; as a trial, until `end` at most, and without saying why there is no solution.
fn resolve_until(
    end: Option<Instant>,
    inputs: &Inputs,
    options: &Options,
    preferences: &Preferences,
    index: &dyn Index,
    index_lines: &[String],
) -> Result<Resolved, ResolveError> {
    let roots = inputs.roots()?;
    let wanted = inputs.wanted_from(&roots, options, index_lines);
    let mut must_cover = coverage::Required::default();
    loop {
        let context =
            solve::Context::new(inputs, options, &roots, &wanted, preferences, index, &must_cover).until(end);
        let solutions = solve::solve(&context).map_err(|error| must_cover.explain(error, index))?;
        let mut lock = merge::merge(&context, &wanted, &solutions)?;
        // A production package that a platform has no wheel of is solved again with that demanded: another version
        // may have one. The second solve asks the network for next to nothing.
        if must_cover.find_more(&lock, inputs, options, &wanted) {
            continue;
        }
        lock.mlrails.platforms = options.platforms.iter().map(|(platform, _)| *platform).collect();
        lock.mlrails.python = options
            .python
            .or_else(|| coverage::best_python(&lock, options, &wanted));
        return Ok(Resolved {
            lock,
            notes: context.notes(),
        });
    }
}

/// Whether every package of `lock` has the files that the platforms and required environments ask for.
pub fn covers(
    lock: &Lock,
    inputs: &Inputs,
    options: &Options,
    index_lines: &[String],
) -> Result<bool, ResolveError> {
    let wanted = inputs.wanted(options, index_lines)?;
    Ok(!coverage::Required::default().find_more(lock, inputs, options, &wanted))
}

impl Inputs {
    /// Where `requirement` of `scope` is written: there, or where it came into the scope from.
    pub fn place_of(&self, scope: Option<&Scope>, requirement: &Requirement) -> Option<&str> {
        let mut found = self.places.iter().filter(|written| {
            written.requirement.name == requirement.name
                && written.requirement.version_or_url == requirement.version_or_url
                && written.scope.is_some() == scope.is_some()
        });
        let first = found.next()?;
        let own = std::iter::once(first)
            .chain(found)
            .find(|written| written.scope.as_ref() == scope);
        Some(&own.unwrap_or(first).place)
    }

    /// Every requirement with where it was written; the project's own extras are replaced by what they hold.
    pub fn roots(&self) -> Result<Vec<(Scope, Requirement)>, ResolveError> {
        let mut roots = Vec::new();
        let lists = std::iter::once((Scope::Project, &self.dependencies))
            .chain(
                self.extras
                    .iter()
                    .map(|(name, list)| (Scope::Extra(name.clone()), list)),
            )
            .chain(
                self.groups
                    .iter()
                    .map(|(name, list)| (Scope::Group(name.clone()), list)),
            );
        for (scope, list) in lists {
            let mut seen = BTreeSet::new();
            for requirement in list {
                self.expand(&scope, requirement, requirement.marker, &mut seen, &mut roots)?;
            }
        }
        Ok(roots)
    }

    fn expand(
        &self,
        scope: &Scope,
        requirement: &Requirement,
        marker: MarkerTree,
        seen: &mut BTreeSet<(ExtraName, MarkerTree)>,
        roots: &mut Vec<(Scope, Requirement)>,
    ) -> Result<(), ResolveError> {
        if Some(&requirement.name) != self.name.as_ref() {
            let mut requirement = requirement.clone();
            requirement.marker = marker;
            roots.push((scope.clone(), requirement));
            return Ok(());
        }
        for extra in &requirement.extras {
            let list = self.extras.get(extra).ok_or_else(|| ResolveError::Unsupported {
                requirement: requirement.to_string(),
                rule: format!("names the project's extra `{extra}`, which it does not have"),
            })?;
            // Once for each marker: an extra that is asked for in two environments is there in both.
            if seen.insert((extra.clone(), marker)) {
                for inner in list {
                    self.expand(scope, inner, marker.and(inner.marker), seen, roots)?;
                }
            }
        }
        Ok(())
    }

    /// The project's requirements with overrides in the place of those they replace.
    fn overridden(&self, roots: &[(Scope, Requirement)]) -> Vec<(Scope, Requirement)> {
        let mut all = Vec::with_capacity(roots.len());
        for (scope, root) in roots {
            let before = all.len();
            for by in self.overrides.iter().filter(|by| by.name == root.name) {
                all.push((scope.clone(), overridden(root, by)));
            }
            if all.len() == before {
                all.push((scope.clone(), root.clone()));
            }
        }
        all
    }

    /// What a lock has to satisfy to need no solving.
    pub fn wanted(&self, options: &Options, index_lines: &[String]) -> Result<Wanted, ResolveError> {
        Ok(self.wanted_from(&self.roots()?, options, index_lines))
    }

    fn wanted_from(
        &self,
        roots: &[(Scope, Requirement)],
        options: &Options,
        index_lines: &[String],
    ) -> Wanted {
        let mut lines = index_lines.to_vec();
        lines.extend(options.lines());
        let mut listed = |what: &str, list: &[Requirement]| {
            let mut shown: Vec<String> = list
                .iter()
                .map(|requirement| format!("{what} = {requirement}"))
                .collect();
            shown.sort();
            lines.extend(shown);
        };
        listed("constraint", &self.constraints);
        listed("override", &self.overrides);
        for marker in &self.required_environments {
            lines.push(format!(
                "required-environment = {}",
                marker.try_to_string().unwrap_or_default()
            ));
        }
        for set in &self.conflicts {
            let mut names: Vec<String> = set.iter().map(ToString::to_string).collect();
            names.sort();
            lines.push(format!("conflict = {}", names.join(", ")));
        }
        Wanted {
            requires_python: self.requires_python.clone(),
            environments: self.environments.clone(),
            extras: self.extras.keys().cloned().collect(),
            groups: self.groups.keys().cloned().collect(),
            default_groups: self.default_groups.clone(),
            requirements: self.overridden(roots),
            conflicts: self.conflicts.clone(),
            options: lines,
        }
    }

    /// The scopes that production consists of.
    pub fn is_production(scope: &Scope) -> bool {
        match scope {
            Scope::Project => true,
            Scope::Extra(_) => false,
            Scope::Group(name) => name.as_str() == SERVING_GROUP,
        }
    }
}

/// `by` in the place of `requirement`, which it overrides: wherever `by` says, whatever the other's marker said, but of an extra only
/// if the other was. So it is with uv.
fn overridden(requirement: &Requirement, by: &Requirement) -> Requirement {
    let extra = requirement.marker.top_level_extra();
    let extra = extra.map_or(MarkerTree::TRUE, MarkerTree::expression);
    Requirement {
        marker: by.marker.and(extra),
        ..by.clone()
    }
}

impl Options {
    /// What differs from the defaults, as lines for the lock.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.resolution {
            Resolution::Highest => {}
            Resolution::Lowest => lines.push("resolution = lowest".to_owned()),
            Resolution::LowestDirect => lines.push("resolution = lowest-direct".to_owned()),
        }
        match self.prerelease {
            Prerelease::IfNecessary => {}
            Prerelease::Allow => lines.push("prerelease = allow".to_owned()),
            Prerelease::Disallow => lines.push("prerelease = disallow".to_owned()),
        }
        if self.fork_strategy == ForkStrategy::Fewest {
            lines.push("fork-strategy = fewest".to_owned());
        }
        if self.conflicts == Conflicts::Split {
            lines.push("split-conflicts".to_owned());
        }
        if let Some(time) = self
            .exclude_newer
            .and_then(|time| jiff::Timestamp::from_microsecond(time).ok())
        {
            lines.push(format!("exclude-newer = {time}"));
        }
        for (what, never) in [("no-build", &self.no_build), ("no-binary", &self.no_binary)] {
            match never {
                Never::None => {}
                Never::All => lines.push(format!("{what} = all")),
                Never::Some(names) => lines.extend(names.iter().map(|name| format!("{what} = {name}"))),
            }
        }
        for (platform, libc) in &self.platforms {
            lines.push(format!("platform = {platform}, {libc}"));
        }
        if let Some(python) = self.python {
            lines.push(format!("python = {}", python.minor_only()));
        }
        lines
    }
}

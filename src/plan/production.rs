//! The production set: the locked distributions that the serving half reaches, and nothing else.
//!
//! The roots are the distributions that the serving half's imports come from; each brings all of its Requires-Dist
//! whose markers hold on the target, with the extras that were asked of it. What is declared and not reached is left
//! out, and both answers carry their reason: `image --explain` prints them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use uv_normalize::{ExtraName, PackageName};

use crate::lock::{File, Lock, Package, SelectError};
use crate::python::requirement::Requirement;
use crate::python::target::Target;

/// Where reachability starts.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Third-party modules that the serving half imports, dotted, with the first place that does (`src/x.py:3`).
    pub imports: Vec<(String, String)>,
    /// The project's own requirements: they say which extras were asked of a distribution.
    pub declared: Vec<Requirement>,
    /// `[dependencies] keep`: in, whether reached or not.
    pub kept: Vec<PackageName>,
    /// Modules that the golden rows' replay needed beyond the imports that can be read.
    pub replayed: Vec<String>,
    /// The serving runtime's own packages, and what buildpacks add, each with the one who asks.
    pub added: Vec<(PackageName, Reason)>,
}

/// Why a distribution is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The serving half imports a module of it, there.
    Imported { module: String, at: String },
    /// A distribution that is in requires it.
    Required { by: PackageName },
    /// `[dependencies] keep` names it.
    Kept,
    /// Golden rows fail without a module of it.
    Replayed { module: String },
    /// The serving runtime is made of it.
    Runtime,
    /// A model that MLflow loads was logged with it.
    Logged,
    /// A buildpack adds it.
    Buildpack { name: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imported { module, at } => write!(formatter, "{at} imports {module}"),
            Self::Required { by } => write!(formatter, "{by} requires it"),
            Self::Kept => formatter.write_str("[dependencies] keep names it"),
            Self::Replayed { module } => write!(formatter, "golden rows need its module {module}"),
            Self::Logged => formatter.write_str("the model was logged with it, and MLflow loads the model"),
            Self::Runtime => formatter.write_str("the serving runtime needs it"),
            Self::Buildpack { name } => write!(formatter, "the buildpack {name} adds it"),
        }
    }
}

/// A distribution that goes in, with the file that fits the target.
#[derive(Debug, Clone)]
pub struct Included {
    pub package: Package,
    pub wheel: File,
    pub reason: Reason,
}

/// A declared distribution that stays out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub name: PackageName,
    /// The wheel's size in bytes on the target, where it is known: what leaving it out saves.
    pub size: Option<u64>,
}

/// The decision, for one target. Both lists are sorted by name.
#[derive(Debug)]
pub struct Production {
    pub target: Target,
    pub included: Vec<Included>,
    pub left_out: Vec<LeftOut>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("no locked distribution provides the module `{module}` that {at} imports")]
    UnknownModule { module: String, at: String },
    #[error("`{name}`, which {by} needs, is not in the lock for {target}")]
    NotLocked {
        name: PackageName,
        by: String,
        target: String,
    },
    #[error("no locked wheel of {package} fits {target}")]
    NoWheel {
        name: PackageName,
        package: String,
        target: String,
    },
    #[error(transparent)]
    Select(#[from] SelectError),
}

/// Walks from `roots` over the lock. All that is wrong is reported, not only the first.
pub fn production(lock: &Lock, target: &Target, roots: &Roots) -> Result<Production, Vec<PlanError>> {
    let selected = lock
        .select(target, &lock.dependency_groups, &lock.extras)
        .map_err(|error| vec![PlanError::Select(error)])?;
    let markers = target.markers();
    let locked = Locked::new(&selected);
    let mut errors = Vec::new();
    let mut reasons: BTreeMap<PackageName, Reason> = BTreeMap::new();

    for (module, at) in &roots.imports {
        match locked.provider(module) {
            Some(name) => {
                let reason = Reason::Imported {
                    module: module.clone(),
                    at: at.clone(),
                };
                reasons.entry(name.clone()).or_insert(reason);
            }
            None => errors.push(PlanError::UnknownModule {
                module: module.clone(),
                at: at.clone(),
            }),
        }
    }
    for module in &roots.replayed {
        // The replay may have seen a module that no locked distribution has: the project's own, or the standard
        // library's. Either way it needs no distribution.
        if let Some(name) = locked.provider(module) {
            reasons.entry(name.clone()).or_insert_with(|| Reason::Replayed {
                module: module.clone(),
            });
        }
    }
    let named = roots.kept.iter().map(|name| (name, &Reason::Kept));
    for (name, reason) in named.chain(roots.added.iter().map(|(name, reason)| (name, reason))) {
        if locked.package(name).is_some() {
            reasons.entry(name.clone()).or_insert_with(|| reason.clone());
        } else {
            errors.push(PlanError::NotLocked {
                name: name.clone(),
                by: reason.to_string(),
                target: target.to_string(),
            });
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }

    let asked = |name: &PackageName| -> Vec<ExtraName> {
        let of_name = roots
            .declared
            .iter()
            .filter(|requirement| requirement.name == *name);
        of_name
            .filter(|requirement| requirement.marker.evaluate(&markers, &[]))
            .flat_map(|requirement| requirement.extras.iter().cloned())
            .collect()
    };
    let starts: Vec<(PackageName, Vec<ExtraName>)> =
        reasons.keys().map(|name| (name.clone(), asked(name))).collect();
    let reached = Lock::closure(&selected, &markers, starts);
    let tags = target.tags();
    let mut included = Vec::new();
    for (name, node) in &reached {
        let reason = match (reasons.get(*name), node.by) {
            (Some(reason), _) => reason.clone(),
            (None, Some(by)) => Reason::Required { by: by.clone() },
            (None, None) => continue,
        };
        match node.package.wheel_for_tags(&tags) {
            Some(wheel) => {
                included.push(Included {
                    package: node.package.clone(),
                    wheel: wheel.clone(),
                    reason,
                });
            }
            None => errors.push(PlanError::NoWheel {
                name: (*name).clone(),
                package: node.package.label(),
                target: target.to_string(),
            }),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let declared: BTreeSet<&PackageName> = roots
        .declared
        .iter()
        .map(|requirement| &requirement.name)
        .collect();
    let left_out = declared
        .into_iter()
        .filter(|name| !reached.contains_key(*name))
        .map(|name| LeftOut {
            name: name.clone(),
            size: locked
                .package(name)
                .and_then(|package| package.wheel_for_tags(&tags)?.size),
        })
        .collect();
    Ok(Production {
        target: *target,
        included,
        left_out,
    })
}

/// The lock as one target sees it: at most one package per name.
struct Locked<'lock> {
    packages: BTreeMap<&'lock PackageName, &'lock Package>,
    /// Import name, possibly dotted (`google.cloud.storage`), to the distribution that has it.
    modules: BTreeMap<&'lock str, &'lock PackageName>,
}

impl<'lock> Locked<'lock> {
    fn new(selected: &[&'lock Package]) -> Self {
        let mut packages = BTreeMap::new();
        let mut modules = BTreeMap::new();
        for package in selected {
            packages.insert(&package.name, *package);
            for module in &package.imports {
                modules.entry(module.as_str()).or_insert(&package.name);
            }
        }
        Self { packages, modules }
    }

    fn package(&self, name: &PackageName) -> Option<&'lock Package> {
        self.packages.get(name).copied()
    }

    /// The distribution of the longest prefix of `module` that one provides.
    fn provider(&self, module: &str) -> Option<&'lock PackageName> {
        let mut prefix = module;
        loop {
            if let Some(name) = self.modules.get(prefix) {
                return Some(name);
            }
            prefix = prefix.rsplit_once('.')?.0;
        }
    }
}

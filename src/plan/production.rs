//! The production set: the locked distributions that the serving half reaches, and nothing else.
//!
//! The roots are the distributions that the serving half's imports come from; each brings all of its Requires-Dist
//! whose markers hold on the target, with the extras that were asked of it. What is declared and not reached is left
//! out, and both answers carry their reason: `image --explain` prints them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uv_normalize::{ExtraName, PackageName};
use uv_pep508::{MarkerEnvironment, Requirement};

use crate::lock::{File, Lock, Package};
use crate::python::target::Target;

/// Where reachability starts.
#[derive(Debug, Default)]
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
    /// A buildpack adds it.
    Buildpack { name: String },
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
    NotLocked { name: PackageName, by: String, target: String },
    #[error("no locked wheel of `{name}` {version} fits {target}")]
    NoWheel { name: PackageName, version: String, target: String },
}

/// Walks from `roots` over the lock. All that is wrong is reported, not only the first.
pub fn production(lock: &Lock, target: &Target, roots: &Roots) -> Result<Production, Vec<PlanError>> {
    let markers = target.markers();
    let locked = Locked::new(lock, &markers);
    let mut errors = Vec::new();
    let mut reached: BTreeMap<PackageName, Reason> = BTreeMap::new();
    let mut seen_extras: BTreeMap<PackageName, BTreeSet<ExtraName>> = BTreeMap::new();
    let mut queue: VecDeque<(PackageName, Vec<ExtraName>, Reason)> = VecDeque::new();

    let asked_extras = |name: &PackageName| -> Vec<ExtraName> {
        let of_name = roots.declared.iter().filter(|requirement| requirement.name == *name);
        of_name
            .filter(|requirement| requirement.marker.evaluate(&markers, &[]))
            .flat_map(|requirement| requirement.extras.iter().cloned())
            .collect()
    };
    for (module, at) in &roots.imports {
        match locked.provider(module) {
            Some(name) => {
                let reason = Reason::Imported { module: module.clone(), at: at.clone() };
                queue.push_back((name.clone(), asked_extras(name), reason));
            }
            None => errors.push(PlanError::UnknownModule { module: module.clone(), at: at.clone() }),
        }
    }
    for module in &roots.replayed {
        // The replay saw it import something that no locked distribution has: the project's own, or the standard
        // library's. Either way it needs no distribution.
        if let Some(name) = locked.provider(module) {
            queue.push_back((name.clone(), asked_extras(name), Reason::Replayed { module: module.clone() }));
        }
    }
    for name in &roots.kept {
        queue.push_back((name.clone(), asked_extras(name), Reason::Kept));
    }
    for (name, reason) in &roots.added {
        queue.push_back((name.clone(), Vec::new(), reason.clone()));
    }

    while let Some((name, extras, reason)) = queue.pop_front() {
        let is_new = !reached.contains_key(&name);
        let known = seen_extras.entry(name.clone()).or_default();
        let fresh: Vec<ExtraName> = extras.into_iter().filter(|extra| known.insert(extra.clone())).collect();
        if !is_new && fresh.is_empty() {
            continue;
        }
        let Some(package) = locked.package(&name) else {
            let by = match &reason {
                Reason::Required { by } => format!("`{by}`"),
                Reason::Kept => "[dependencies] keep".to_owned(),
                Reason::Runtime => "the serving runtime".to_owned(),
                Reason::Buildpack { name } => format!("the buildpack {name}"),
                Reason::Imported { at, .. } => at.clone(),
                Reason::Replayed { .. } => "the golden rows' replay".to_owned(),
            };
            errors.push(PlanError::NotLocked { name: name.clone(), by, target: target.to_string() });
            reached.insert(name, reason);
            continue;
        };
        for requirement in &package.requires {
            let plain = is_new && requirement.marker.evaluate(&markers, &[]);
            let by_extra = !fresh.is_empty() && requirement.marker.evaluate(&markers, &fresh);
            if plain || by_extra {
                let reason = Reason::Required { by: name.clone() };
                queue.push_back((requirement.name.clone(), requirement.extras.to_vec(), reason));
            }
        }
        if is_new {
            reached.insert(name, reason);
        }
    }

    let mut included = Vec::new();
    for (name, reason) in &reached {
        let Some(package) = locked.package(name) else { continue };
        match package.wheel_for(target) {
            Some(wheel) => {
                included.push(Included { package: package.clone(), wheel: wheel.clone(), reason: reason.clone() });
            }
            None => errors.push(PlanError::NoWheel {
                name: name.clone(),
                version: package.version.as_ref().map(ToString::to_string).unwrap_or_default(),
                target: target.to_string(),
            }),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let declared: BTreeSet<&PackageName> = roots.declared.iter().map(|requirement| &requirement.name).collect();
    let left_out = declared
        .into_iter()
        .filter(|name| !reached.contains_key(*name))
        .map(|name| LeftOut {
            name: name.clone(),
            size: locked.package(name).and_then(|package| package.wheel_for(target)?.size),
        })
        .collect();
    Ok(Production { target: target.clone(), included, left_out })
}

/// The lock as one target sees it: at most one package per name.
struct Locked<'lock> {
    packages: BTreeMap<&'lock PackageName, &'lock Package>,
    /// Import name, possibly dotted (`google.cloud.storage`), to the distribution that has it.
    modules: BTreeMap<&'lock str, &'lock PackageName>,
}

impl<'lock> Locked<'lock> {
    fn new(lock: &'lock Lock, markers: &MarkerEnvironment) -> Self {
        let groups = &lock.dependency_groups;
        let extras = &lock.extras;
        let mut packages = BTreeMap::new();
        let mut modules = BTreeMap::new();
        for package in &lock.packages {
            if package.marker.evaluate_pep751(markers, extras, groups) {
                packages.entry(&package.name).or_insert(package);
                for module in &package.imports {
                    modules.entry(module.as_str()).or_insert(&package.name);
                }
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

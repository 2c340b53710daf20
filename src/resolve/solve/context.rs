//! What all forks of a solve share: the requirements, the index, how to choose, and what people should know.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use crate::index::{Index, IndexError, Page};
use crate::lock::reach::Scope;
use crate::lock::satisfies::Wanted;
use crate::python::requirement::Requirement;
use crate::resolve::candidate::{Selector, Tries};
use crate::resolve::coverage::Required;
use crate::resolve::divide::Divisions;
use crate::resolve::fork::Environment;
use crate::resolve::{Conflicts, Inputs, Options, Preferences, overridden};

/// Everything that forks share and do not change.
pub(in crate::resolve) struct Context<'a> {
    pub inputs: &'a Inputs,
    pub roots: &'a [(Scope, Requirement)],
    pub index: &'a dyn Index,
    pub preferences: &'a Preferences,
    pub(super) selector: Arc<Selector>,
    pub(super) universe: MarkerTree,
    /// What the declared conflicts leave to be chosen, each a fork.
    pub(super) choices: Vec<MarkerTree>,
    pub(super) constraints: HashMap<&'a PackageName, Vec<&'a Requirement>>,
    overrides: HashMap<&'a PackageName, Vec<&'a Requirement>>,
    pub(super) tries: Tries,
    pub conflicts: Conflicts,
    pub divisions: Divisions,
    notes: Mutex<BTreeSet<String>>,
    pub(super) end: Option<Instant>,
}

/// Where a name comes from in an environment.
pub(in crate::resolve) enum Place<'a> {
    /// The usual indexes, or the one of that name.
    At(Option<&'a str>),
    /// One index where the marker holds, another where it does not.
    Between(MarkerTree),
}

impl<'a> Context<'a> {
    pub fn new(
        inputs: &'a Inputs,
        options: &Options,
        roots: &'a [(Scope, Requirement)],
        wanted: &Wanted,
        preferences: &'a Preferences,
        index: &'a dyn Index,
        required: &Required,
    ) -> Self {
        let by_name = |list: &'a [Requirement]| {
            let mut map: HashMap<&'a PackageName, Vec<&'a Requirement>> = HashMap::new();
            for requirement in list {
                map.entry(&requirement.name).or_default().push(requirement);
            }
            map
        };
        Self {
            inputs,
            roots,
            index,
            preferences,
            selector: Arc::new(Selector::new(inputs, options, roots, required)),
            universe: wanted.universe(),
            choices: wanted.choices(),
            constraints: by_name(&inputs.constraints),
            overrides: by_name(&inputs.overrides),
            tries: Tries::default(),
            conflicts: options.conflicts,
            divisions: Divisions::default(),
            notes: Mutex::default(),
            end: None,
        }
    }

    /// A trial, that ends at `end`.
    pub fn until(self, end: Option<Instant>) -> Self {
        Self { end, ..self }
    }

    pub fn is_trial(&self) -> bool {
        self.end.is_some()
    }

    /// What people should know though it stopped nothing.
    pub fn notes(&self) -> Vec<String> {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    pub(super) fn note(&self, line: String) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(line);
    }

    /// The requirements of one version after overrides, with their own markers (extras included).
    pub fn effective(&self, requires: &[Requirement]) -> Vec<Requirement> {
        requires
            .iter()
            .flat_map(|requirement| match self.overrides.get(&requirement.name) {
                None => vec![requirement.clone()],
                Some(overrides) => overrides.iter().map(|by| overridden(requirement, by)).collect(),
            })
            .collect()
    }

    /// Where the constraints on `name` hold.
    pub fn narrowing(&self, name: &PackageName) -> impl Iterator<Item = MarkerTree> {
        let constraints = self.constraints.get(name).into_iter().flatten();
        constraints.map(|constraint| constraint.marker)
    }

    /// Whether a fork is less than all that was asked for.
    pub fn is_split(&self, environment: &Environment) -> bool {
        environment.marker != self.universe
    }

    /// Whether a listed file may stand in the lock.
    pub fn allows(&self, name: &PackageName, file: &crate::index::Listed<'_>) -> bool {
        self.selector.allows(name, file)
    }

    /// The page of `name` that counts in `environment`.
    pub fn page(
        &self,
        name: &PackageName,
        environment: MarkerTree,
    ) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        match self.pin(name, environment) {
            Place::At(pin) => self.index.page_from(name, pin),
            Place::Between(_) => self.index.page(name),
        }
    }

    /// Which of the project's indexes `name` comes from in `environment`: the first pin that holds in all of it.
    pub fn pin(&self, name: &PackageName, environment: MarkerTree) -> Place<'a> {
        place(self.index, name, environment)
    }
}

/// Where `name` comes from in `environment`.
pub(in crate::resolve) fn place<'a>(
    index: &'a dyn Index,
    name: &PackageName,
    environment: MarkerTree,
) -> Place<'a> {
    for pin in index.pins(name) {
        if environment.is_disjoint(pin.marker) {
            continue;
        }
        if environment.is_disjoint(pin.marker.negate()) {
            return Place::At(Some(&pin.index));
        }
        return Place::Between(pin.marker);
    }
    Place::At(None)
}

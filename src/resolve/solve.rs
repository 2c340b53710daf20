//! The loop: propagate, pick a package, choose a version, add its dependencies; split into forks where that is needed.
//!
//! Every fork owns a solver state. Forks are solved depth first, the newest Python first, and the pins of a finished
//! fork are preferences of the next: versions differ between forks only where they must.

mod context;
mod needs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use pubgrub::{Id, Ranges, State, Term};
use uv_normalize::{ExtraName, PackageName};
use uv_pep440::Version;
use uv_pep508::MarkerTree;

use self::needs::dependencies;
use super::ResolveError;
use super::candidate::Choice;
use super::divide::{Parts, divide};
use super::explain::{self, Tree};
use super::fork::{Environment, split};
use super::preference::Preferences;
use super::priority::Priorities;
use super::provider::{Node, Reason, Types};
use crate::index::{FileId, Page};

pub(super) use self::context::{Context, Place, place};

/// One fork's pins.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub marker: MarkerTree,
    pub pins: BTreeMap<PackageName, Pin>,
}

#[derive(Debug, Clone)]
pub(super) struct Pin {
    pub version: Version,
    /// The file whose metadata stood for the version.
    pub file: FileId,
    pub extras: BTreeSet<ExtraName>,
}

/// The state of one fork.
#[derive(Clone)]
struct Fork {
    environment: Environment,
    /// What it was started with, before it was split.
    started: MarkerTree,
    state: State<Types>,
    next: Id<Node>,
    /// Picked before the fork was split, and still to be decided.
    pending: Option<Id<Node>>,
    added: HashMap<Id<Node>, HashSet<Version>>,
    files: HashMap<(PackageName, Version), FileId>,
    priorities: Priorities,
    requested: HashSet<PackageName>,
}

/// Solves all environments of `context`. Their solutions are disjoint and cover them.
pub(super) fn solve(context: &Context<'_>) -> Result<Vec<Solution>, ResolveError> {
    let mut preferences = context.preferences.clone();
    let mut stack: Vec<Fork> = chosen(context, start(context)).map(Fork::new).collect();
    stack.reverse();
    if let Some(fork) = stack.last() {
        // Their pages and metadata are read side by side, and not one after the other as they are met.
        let shared = Arc::new(preferences.clone());
        for name in &preferences.expected {
            request(context, name, Ranges::full(), &fork.environment, &shared);
        }
    }
    let mut solutions = Vec::new();
    while let Some(fork) = stack.pop() {
        match run(context, fork, &preferences)? {
            Outcome::Solved(solution) => {
                for (name, pin) in &solution.pins {
                    preferences.add(name.clone(), pin.version.clone(), solution.marker);
                }
                solutions.push(solution);
            }
            Outcome::Forked(forks) => stack.extend(forks),
        }
    }
    Ok(solutions)
}

/// `parts`, each split by what declared conflicts leave to be chosen: what conflicts is never solved together. In an order that does
/// not depend on whether the parts are an earlier lock's, since the first fork's pins are the others' preferences.
fn chosen(context: &Context<'_>, parts: Vec<MarkerTree>) -> impl Iterator<Item = MarkerTree> {
    context.choices.iter().flat_map(move |choice| {
        let split: Vec<MarkerTree> = parts.iter().map(|part| part.and(*choice)).collect();
        split.into_iter().filter(|part| !part.is_false())
    })
}

/// Where solving starts: the environments that are asked for, or the forks of the earlier lock.
fn start(context: &Context<'_>) -> Vec<MarkerTree> {
    let universe = context.universe;
    let saved: Vec<MarkerTree> = context
        .preferences
        .forks
        .iter()
        .map(|fork| fork.and(universe))
        .filter(|fork| !fork.is_false())
        .collect();
    let covered = saved.iter().fold(MarkerTree::FALSE, |all, fork| all.or(*fork));
    let disjoint = saved
        .iter()
        .enumerate()
        .all(|(at, one)| saved[at + 1..].iter().all(|other| one.is_disjoint(*other)));
    // Forks saved under another requires-python may overlap or leave gaps: then they say nothing.
    if saved.len() > 1 && disjoint && universe.and(covered.negate()).is_false() {
        return saved;
    }
    let environments = &context.inputs.environments;
    let parts: Vec<MarkerTree> = environments.iter().map(|part| part.and(universe)).collect();
    let overlap = parts
        .iter()
        .enumerate()
        .any(|(at, one)| parts[at + 1..].iter().any(|other| !one.is_disjoint(*other)));
    if parts.len() > 1 && !overlap {
        parts
    } else {
        vec![universe]
    }
}

enum Outcome {
    Solved(Solution),
    /// To be pushed in this order: the last is solved first.
    Forked(Vec<Fork>),
}

impl Fork {
    fn new(marker: MarkerTree) -> Self {
        let state = State::init(Node::Root, Version::new([0]));
        let next = state.root_package;
        Self {
            environment: Environment::new(marker),
            started: marker,
            state,
            next,
            pending: None,
            added: HashMap::new(),
            files: HashMap::new(),
            priorities: Priorities::default(),
            requested: HashSet::new(),
        }
    }

    /// The versions of `name` that were chosen at some time, ascending.
    fn chosen(&self, name: &PackageName) -> Vec<(Version, FileId)> {
        let mut found: Vec<(Version, FileId)> = (self.files.iter())
            .filter(|((of, _), _)| of == name)
            .map(|((_, version), file)| (version.clone(), *file))
            .collect();
        found.sort();
        found
    }

    fn within(&self, environment: Environment) -> Self {
        Self {
            environment,
            ..self.clone()
        }
    }
}

fn run(context: &Context<'_>, mut fork: Fork, preferences: &Preferences) -> Result<Outcome, ResolveError> {
    let shared = Arc::new(preferences.clone());
    loop {
        if context.end.is_some_and(|end| Instant::now() >= end) {
            return Err(ResolveError::OutOfTime);
        }
        if let Err(tree) = propagate(&mut fork) {
            let chosen = |name: &PackageName| fork.chosen(name);
            let parts = divide(context, &fork.environment, fork.started, &chosen, &tree);
            return match parts {
                Parts::Solve(parts) => Ok(Outcome::Forked(parts.into_iter().map(Fork::new).collect())),
                Parts::Refused => Err(explain::no_solution(context, &fork.environment, tree, true)),
                Parts::None => Err(explain::no_solution(context, &fork.environment, tree, false)),
            };
        }
        prefetch(context, &mut fork, &shared);
        let picked = match fork.pending.take() {
            Some(pending) => Some(pending),
            None => {
                let Fork {
                    state, priorities, ..
                } = &mut fork;
                let store = &state.package_store;
                state
                    .partial_solution
                    .pick_highest_priority_pkg(|id, _| priorities.of(&store[id]))
                    .map(|(id, _)| id)
            }
        };
        let Some(id) = picked else {
            return Ok(Outcome::Solved(finish(&fork)));
        };
        fork.next = id;
        let node = fork.state.package_store[id].clone();
        let range = match fork.state.partial_solution.term_intersection_for_package(id) {
            Some(Term::Positive(range)) => range.clone(),
            _ => continue,
        };
        let (version, file, page) = match choose(context, &mut fork, id, &node, &range, preferences)? {
            Step::Take(version, file, page) => (version, file, page),
            Step::Again => continue,
            Step::Split(halves) => {
                let forks = halves.map(|environment| {
                    let mut half = fork.within(environment);
                    half.pending = Some(id);
                    half
                });
                return Ok(Outcome::Forked(forks.into()));
            }
        };
        if !fork.added.entry(id).or_default().insert(version.clone()) {
            fork.state.partial_solution.add_decision(id, version);
            continue;
        }
        let around = match &page {
            Some(page) => Ranges::singleton(version.clone()).widen_versions(page.versions()),
            None => Ranges::singleton(version.clone()),
        };
        let dependencies = match dependencies(context, &fork, &node, &version, file, page.as_ref())? {
            Ok(dependencies) => dependencies,
            Err(reason) => {
                fork.state.add_unavailable(id, around, reason);
                continue;
            }
        };
        let forks = split(&fork.environment, dependencies);
        if let [_] = forks.as_slice() {
            for part in forks {
                add(&mut fork, id, &version, &around, part.dependencies);
            }
            continue;
        }
        let forks = forks
            .into_iter()
            .map(|part| {
                let mut half = fork.within(part.environment);
                add(&mut half, id, &version, &around, part.dependencies);
                half
            })
            .collect();
        return Ok(Outcome::Forked(forks));
    }
}

/// Draws all conclusions; fails with the derivation that the project itself cannot be.
fn propagate(fork: &mut Fork) -> Result<(), Tree> {
    let conflicts = fork.state.unit_propagation(fork.next)?;
    for (affected, conflict) in conflicts {
        let store = &fork.state.package_store;
        let culprits: Vec<&Node> = fork
            .state
            .conflict_packages(&conflict)
            .filter(|id| *id != affected)
            .map(|id| &store[id])
            .collect();
        fork.priorities.conflict(&store[affected], culprits);
    }
    // Conflicts are also counted where dependencies are added, so this is asked every time.
    for name in fork.priorities.reorder() {
        let id = fork.state.package_store.alloc(Node::Package(name));
        fork.state.backtrack_package(id);
    }
    Ok(())
}

/// Asks for the pages of all names that were met, and for the metadata of what would be chosen now.
fn prefetch(context: &Context<'_>, fork: &mut Fork, preferences: &Arc<Preferences>) {
    let Fork {
        state,
        requested,
        environment,
        ..
    } = fork;
    for (id, range) in state.partial_solution.prioritized_packages() {
        let Node::Package(name) = &state.package_store[id] else {
            continue;
        };
        if !requested.insert(name.clone()) {
            continue;
        }
        request(context, name, range.clone(), environment, preferences);
    }
}

/// Asks for the page of `name`, and for the metadata of what would be chosen from it now.
fn request(
    context: &Context<'_>,
    name: &PackageName,
    range: Ranges<Version>,
    environment: &Environment,
    preferences: &Arc<Preferences>,
) {
    // Where two indexes have a part in the environment, it is split before either is asked.
    let Place::At(pin) = context.pin(name, environment.marker) else {
        return;
    };
    let (selector, preferences) = (context.selector.clone(), preferences.clone());
    let (asked, environment) = (name.clone(), environment.clone());
    context.index.request_from(
        name,
        pin,
        Some(Box::new(move |page| {
            match selector.choose(&asked, page, &range, &environment, &preferences) {
                Choice::Version(_, file) => Some(file),
                _ => None,
            }
        })),
    );
}

enum Step {
    Take(Version, Option<FileId>, Option<Arc<Page>>),
    /// The range was narrowed: look again.
    Again,
    Split([Environment; 2]),
}

fn choose(
    context: &Context<'_>,
    fork: &mut Fork,
    id: Id<Node>,
    node: &Node,
    range: &Ranges<Version>,
    preferences: &Preferences,
) -> Result<Step, ResolveError> {
    let Some(name) = node.name() else {
        return Ok(Step::Take(Version::new([0]), None, None));
    };
    // The same name from two indexes is two projects: an environment that lies in both is split first.
    if let Place::Between(marker) = context.pin(name, fork.environment.marker) {
        let halves = [
            fork.environment.marker.and(marker.negate()),
            fork.environment.marker.and(marker),
        ];
        return Ok(Step::Split(halves.map(Environment::new)));
    }
    let Some(page) = context.page(name, fork.environment.marker)? else {
        fork.state.add_unavailable(id, Ranges::full(), Reason::NotFound);
        return Ok(Step::Again);
    };
    match context
        .selector
        .choose(name, &page, range, &fork.environment, preferences)
    {
        Choice::Version(version, file) => {
            fork.files.insert((name.clone(), version.clone()), file);
            let ahead = context.tries.count(name, &version);
            if ahead > 0 {
                fetch_ahead(context, fork, name, &page, range, &version, ahead, preferences);
            }
            Ok(Step::Take(version, Some(file), Some(page)))
        }
        Choice::Split(marker) => match fork.environment.split(marker) {
            Some(halves) => Ok(Step::Split(halves)),
            None => Ok(Step::Again),
        },
        Choice::Unavailable(version, reason) => {
            let around = Ranges::singleton(version).widen_versions(page.versions());
            fork.state.add_unavailable(id, around, reason);
            Ok(Step::Again)
        }
        Choice::None => {
            fork.state.add_no_versions(id, range.clone());
            Ok(Step::Again)
        }
    }
}

/// A name whose versions keep being rejected: the metadata of the next ones is fetched in one go.
#[allow(clippy::too_many_arguments)]
fn fetch_ahead(
    context: &Context<'_>,
    fork: &Fork,
    name: &PackageName,
    page: &Arc<Page>,
    range: &Ranges<Version>,
    version: &Version,
    count: usize,
    preferences: &Preferences,
) {
    let below = Ranges::strictly_lower_than(version.clone()).intersection(range);
    let mut rest = below;
    for _ in 0..count {
        match context
            .selector
            .choose(name, page, &rest, &fork.environment, preferences)
        {
            Choice::Version(next, file) => {
                context.index.request_metadata(name, page, file);
                rest = rest.intersection(&Ranges::strictly_lower_than(next));
            }
            Choice::Unavailable(next, _) => {
                rest = rest.intersection(&Ranges::singleton(next).complement());
            }
            Choice::Split(_) | Choice::None => return,
        }
    }
}

fn add(
    fork: &mut Fork,
    id: Id<Node>,
    version: &Version,
    around: &Ranges<Version>,
    dependencies: Vec<(Node, Ranges<Version>)>,
) {
    for (node, range) in &dependencies {
        if let Some(name) = node.name() {
            fork.priorities.meet(name, range);
        }
    }
    let conflict =
        fork.state
            .add_package_version_dependencies(id, version.clone(), around.clone(), dependencies);
    if let Some(conflict) = conflict {
        let store = &fork.state.package_store;
        let culprits: Vec<&Node> = fork
            .state
            .conflict_packages(&conflict)
            .filter(|other| *other != id)
            .map(|other| &store[other])
            .collect();
        fork.priorities.conflict(&store[id], culprits);
    }
}

fn finish(fork: &Fork) -> Solution {
    let mut pins: BTreeMap<PackageName, Pin> = BTreeMap::new();
    let mut extras: BTreeMap<PackageName, BTreeSet<ExtraName>> = BTreeMap::new();
    for (id, version) in fork.state.partial_solution.extract_solution() {
        match &fork.state.package_store[id] {
            Node::Root => {}
            Node::Extra(name, extra) => {
                extras.entry(name.clone()).or_default().insert(extra.clone());
            }
            Node::Package(name) => {
                if let Some(file) = fork.files.get(&(name.clone(), version.clone())) {
                    pins.insert(
                        name.clone(),
                        Pin {
                            version,
                            file: *file,
                            extras: BTreeSet::new(),
                        },
                    );
                }
            }
        }
    }
    for (name, extras) in extras {
        if let Some(pin) = pins.get_mut(&name) {
            pin.extras = extras;
        }
    }
    Solution {
        marker: fork.environment.marker,
        pins,
    }
}

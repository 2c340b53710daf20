//! What the serving half imports: modules of the project, and modules of others with the places that need them.
//!
//! Importing a module runs all of its top level, so a module brings its own top-level imports and those of its parents; an import inside
//! a function counts only if the function is reached. Takes the nodes that serving runs; gives the [`Closure`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::graph::{Graph, NodeId};
use super::names::{self, Import, Part, Uses};
use super::reach::{Index, Question, Unit, question};
use super::{Module, Sources, paths, stdlib};
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::Place;

/// What a set of nodes brings with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Closure {
    /// Modules of the project that are imported, with their parents.
    pub modules: BTreeSet<String>,
    /// Imports of modules that are neither the project's nor the standard library's, each place once.
    pub imports: Vec<ThirdParty>,
    /// Constant paths that are opened for reading.
    pub opened: Vec<Opened>,
}

/// One import of someone else's module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThirdParty {
    /// Dotted, as it is written: `sklearn.linear_model`.
    pub module: String,
    /// The name that is imported from it, which may be a submodule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The code expects that it may fail.
    pub optional: bool,
    pub place: Place,
}

/// A file that is opened by a constant path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Opened {
    /// As people would find it: relative to the application's folder (`churn/regions.csv`, `data/x.csv`).
    pub path: String,
    pub place: Place,
}

/// What `nodes` bring, together with `modules` of the project that are imported by name (a pickle's classes, say).
pub fn closure(
    index: &Index<'_>,
    graph: &Graph,
    nodes: &[NodeId],
    modules: &[String],
    python: Option<u8>,
) -> Closure {
    let mut walk = Walk {
        index,
        python,
        closure: Closure::default(),
        modules: Vec::new(),
        units: Vec::new(),
        seen: BTreeSet::new(),
        asked: BTreeSet::new(),
        dynamic: BTreeSet::new(),
        places: BTreeSet::new(),
    };
    for module in modules {
        walk.execute(module);
    }
    for id in nodes {
        let node = graph.node(*id);
        walk.execute(&node.module);
        walk.units.extend(index.definitions(&node.module, &node.function));
    }
    walk.run();
    let mut closure = walk.closure;
    closure
        .imports
        .sort_by(|one, other| by_place(&one.place, &other.place));
    closure
        .opened
        .sort_by(|one, other| by_place(&one.place, &other.place));
    closure
}

fn by_place(one: &Place, other: &Place) -> std::cmp::Ordering {
    (one.file(), one.range().start).cmp(&(other.file(), other.range().start))
}

/// Every import of someone else's module anywhere in the package.
pub fn all(sources: &Sources, python: Option<u8>) -> Vec<ThirdParty> {
    let mut found = Vec::new();
    for module in sources.iter() {
        for statement in module.body() {
            let uses = names::uses(module, statement, Part::Whole);
            let imports = uses
                .imports
                .iter()
                .filter_map(|import| third_party(module, sources, import, python));
            found.extend(imports);
        }
    }
    found
}

/// Notes imports of modules of the project that do not exist. `has_file` tells of compiled modules.
pub fn unknown_modules(sources: &Sources, has_file: impl Fn(&str) -> bool, mistakes: &mut Vec<Mistake>) {
    for module in sources.iter() {
        for statement in module.body() {
            for import in names::uses(module, statement, Part::Whole).imports {
                if import.optional || !sources.is_own(&import.module) || sources.get(&import.module).is_some()
                {
                    continue;
                }
                // A folder of modules without an `__init__.py` is a package too (PEP 420).
                let prefix = format!("{}.", import.module);
                if sources.iter().any(|other| other.name.starts_with(&prefix)) || has_file(&import.module) {
                    continue;
                }
                // A module that is a file may put modules of its making below itself (`six.moves`).
                let parent = import
                    .module
                    .rsplit_once('.')
                    .and_then(|(parent, _)| sources.get(parent));
                if parent.is_some_and(|parent| !parent.is_package) {
                    continue;
                }
                let rule = Rule::UnknownModule {
                    module: import.module.clone(),
                    known: sources.iter().map(|module| module.name.clone()).collect(),
                };
                mistakes.push(Mistake::new(rule).at(module.place(import.range)));
            }
        }
    }
    mistakes.dedup();
}

fn third_party(
    module: &Module,
    sources: &Sources,
    import: &Import<'_>,
    python: Option<u8>,
) -> Option<ThirdParty> {
    if sources.is_own(&import.module) || stdlib::is_standard(&import.module, python) {
        return None;
    }
    Some(ThirdParty {
        module: import.module.clone(),
        attribute: import.attribute.map(str::to_owned),
        optional: import.optional,
        place: module.place(import.range),
    })
}

struct Walk<'a, 's> {
    index: &'a Index<'s>,
    python: Option<u8>,
    closure: Closure,
    /// Imported, and not yet looked into.
    modules: Vec<String>,
    units: Vec<Unit>,
    seen: BTreeSet<Unit>,
    asked: BTreeSet<Question>,
    /// Modules of which every statement is reached.
    dynamic: BTreeSet<String>,
    /// Imports and opened paths that were taken down: a function inside an executed statement is met twice.
    places: BTreeSet<(String, usize, String)>,
}

impl Walk<'_, '_> {
    fn run(&mut self) {
        loop {
            if let Some(module) = self.modules.pop() {
                self.module(&module);
            } else if let Some(unit) = self.units.pop() {
                self.unit(&unit);
            } else {
                return;
            }
        }
    }

    /// Notes that a module of the project is imported, after its parents.
    fn execute(&mut self, dotted: &str) {
        let mut at = 0;
        while at < dotted.len() {
            let end = dotted[at..].find('.').map_or(dotted.len(), |dot| at + dot);
            let name = &dotted[..end];
            if self.index.sources().get(name).is_some() && self.closure.modules.insert(name.to_owned()) {
                self.modules.push(name.to_owned());
            }
            at = end + 1;
        }
    }

    /// Runs a module's top level.
    fn module(&mut self, name: &str) {
        let Some(module) = self.index.sources().get(name) else {
            return;
        };
        for unit in self.index.units(name) {
            let uses = names::uses(module, &module.body()[unit.index], Part::Import);
            self.uses(module, &uses);
        }
    }

    /// Calls a function, or uses whatever the statement defines.
    fn unit(&mut self, unit: &Unit) {
        if !self.seen.insert(unit.clone()) {
            return;
        }
        let Some(module) = self.index.sources().get(&unit.module) else {
            return;
        };
        self.execute(&unit.module);
        let index = self.index;
        if let Some(uses) = index.uses(unit) {
            self.uses(module, uses);
        }
    }

    fn uses(&mut self, module: &Module, uses: &Uses<'_>) {
        for import in &uses.imports {
            self.import(module, import);
        }
        for used in &uses.names {
            if self.asked.insert(question(&module.name, used)) {
                self.units.extend(self.index.targets(&module.name, used).units);
            }
        }
        if uses.dynamic && self.dynamic.insert(module.name.clone()) {
            self.units.extend(self.index.units(&module.name));
        }
        for call in &uses.calls {
            if let Some(dotted) = paths::imported_by_name(call) {
                let import = Import {
                    module: dotted,
                    attribute: None,
                    binds: None,
                    optional: false,
                    range: ruff_text_size::Ranged::range(*call),
                };
                self.import(module, &import);
            }
            if let Some(path) = paths::opened(module, call) {
                let place = module.place(ruff_text_size::Ranged::range(*call));
                if self.first(&place, &path) {
                    self.closure.opened.push(Opened { path, place });
                }
            }
        }
    }

    fn import(&mut self, module: &Module, import: &Import<'_>) {
        if self.index.sources().is_own(&import.module) {
            self.execute(&import.module);
            if let Some(attribute) = import.attribute {
                // `from churn import clean`, where `clean` is a module.
                self.execute(&format!("{}.{attribute}", import.module));
            }
            return;
        }
        if let Some(found) = third_party(module, self.index.sources(), import, self.python) {
            let name = format!("{} {:?}", found.module, found.attribute);
            if self.first(&found.place, &name) {
                self.closure.imports.push(found);
            }
        }
    }

    fn first(&mut self, place: &Place, name: &str) -> bool {
        let file = place.file().to_string_lossy().into_owned();
        self.places.insert((file, place.range().start, name.to_owned()))
    }
}

/// Top-level names of imports, each with the first place that needs it.
pub fn first_places(imports: &[ThirdParty]) -> BTreeMap<String, &ThirdParty> {
    let mut first = BTreeMap::new();
    for import in imports {
        let top = import.module.split('.').next().unwrap_or_default();
        first.entry(top.to_owned()).or_insert(import);
    }
    first
}

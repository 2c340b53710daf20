//! What the serving half imports: modules of the project, and modules of others with the places that need them.
//!
//! Importing a module runs all of its top level, so a module brings its own top-level imports and those of its parents; an import inside
//! a function counts only if the function is reached. Takes the nodes that serving runs; gives the [`Closure`].

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::Expr;
use serde::Serialize;

use super::constants::{self, Constants, NodeSettings, Setting};
use super::graph::{Graph, NodeId};
use super::names::{self, Call, Import, Part, Uses};
use super::reach::{Index, Question, Unit, question};
use super::{Module, Sources, paths, stdlib};
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::Place;
use crate::project::settings::{Resolved, SettingValue};

/// What a set of nodes brings with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Closure {
    /// Modules of the project that are imported, with their parents.
    pub modules: BTreeSet<String>,
    /// Imports of modules that are neither the project's nor the standard library's, each place once.
    pub imports: Vec<ThirdParty>,
    /// Constant paths that are opened for reading.
    pub opened: Vec<Opened>,
    pub named: Vec<Named>,
    pub called: Vec<Called>,
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
    /// The default, argument or constant that the path comes from, if that stands elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Place>,
}

/// A text of the code that may name something: short, without spaces, or a URL.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    pub text: String,
    pub place: Place,
}

/// A call of a function of someone else's, or of a method of an object that is not known.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Dotted: `pandas.read_parquet`; `.to_parquet` for a method.
    pub name: String,
    /// Keywords that are given a text: `engine="pyarrow"`.
    pub keywords: Vec<(String, String)>,
    pub place: Place,
}

/// What `nodes` bring, together with `modules` of the project that are imported by name (a pickle's classes, say). `settings` are
/// those that the nodes are given.
pub fn closure(
    index: &Index<'_>,
    graph: &Graph,
    nodes: &[NodeId],
    modules: &[String],
    python: Option<u8>,
    settings: &Resolved,
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
        calls: Vec::new(),
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
    walk.look_at_calls(&node_settings(graph, nodes, settings));
    let mut closure = walk.closure;
    closure
        .imports
        .sort_by(|one, other| one.place.order().cmp(&other.place.order()));
    closure
        .opened
        .sort_by(|one, other| one.place.order().cmp(&other.place.order()));
    closure
        .named
        .sort_by(|one, other| one.place.order().cmp(&other.place.order()));
    closure
        .called
        .sort_by(|one, other| one.place.order().cmp(&other.place.order()));
    closure
}

/// The settings of the nodes as `constants` wants them: texts that are paths, and what cannot be known.
fn node_settings(
    graph: &Graph,
    nodes: &[NodeId],
    settings: &Resolved,
) -> BTreeMap<(String, String), NodeSettings> {
    let of_node = |id: &NodeId| {
        let node = graph.node(*id);
        let each = settings.of(*id).iter().map(|(name, given)| {
            let value = match &given.value {
                _ if given.value.is_reference() => Setting::Unknown,
                _ if given.is_default() => Setting::Default,
                SettingValue::Json(serde_json::Value::String(text)) => Setting::Text(text.clone()),
                _ => Setting::Unknown,
            };
            (name.clone(), value)
        });
        ((node.module.clone(), node.function.clone()), each.collect())
    };
    nodes.iter().map(of_node).collect()
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
    /// Imports, texts and calls that were taken down: a function inside an executed statement is met twice.
    places: BTreeSet<(String, usize, String)>,
    calls: Vec<(&'s Module, Call<'s>)>,
}

impl<'s> Walk<'_, 's> {
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

    fn uses(&mut self, module: &'s Module, uses: &Uses<'s>) {
        for import in &uses.imports {
            self.import(module, import);
        }
        for used in &uses.names {
            if self.asked.insert(question(&module.name, used)) {
                let targets = self.index.targets(&module.name, used);
                self.units.extend(targets.units);
                let whole = targets.modules.iter().flat_map(|name| self.index.units(name));
                self.units.extend(whole);
            }
        }
        if uses.dynamic && self.dynamic.insert(module.name.clone()) {
            self.units.extend(self.index.units(&module.name));
        }
        for call in &uses.calls {
            let place = module.place(call.call);
            if !self.first(&place, "()") {
                continue;
            }
            self.calls.push((module, call.clone()));
            if let Some(dotted) = paths::imported_by_name(call.call) {
                let import = Import {
                    module: dotted,
                    attribute: None,
                    binds: None,
                    optional: false,
                    range: ruff_text_size::Ranged::range(call.call),
                };
                self.import(module, &import);
            }
        }
        for text in &uses.texts {
            let place = module.place(text.range);
            if may_name(text.value) && self.first(&place, "\"") {
                let text = text.value.to_owned();
                self.closure.named.push(Named { text, place });
            }
        }
    }

    /// What the reached calls open, and whose functions they are: told once all of them are known.
    fn look_at_calls(&mut self, settings: &BTreeMap<(String, String), NodeSettings>) {
        let calls = std::mem::take(&mut self.calls);
        let constants = Constants::new(self.index, &calls, settings);
        for (module, call) in &calls {
            let place = module.place(call.call);
            for (path, found) in paths::opened(&constants, module, call) {
                if self.first(&place, &path) {
                    self.closure.opened.push(Opened {
                        path,
                        place: place.clone(),
                        given: found.given,
                    });
                }
            }
            let external = call
                .callee
                .as_ref()
                .and_then(|callee| constants.external(module, callee));
            let name = match (external, &*call.call.func) {
                (Some(name), _) => name,
                (None, Expr::Attribute(method)) => format!(".{}", method.attr),
                _ => continue,
            };
            let keywords = call.call.arguments.keywords.iter().filter_map(|keyword| {
                let value = constants::string(&keyword.value)?;
                Some((keyword.arg.as_ref()?.as_str().to_owned(), value.to_owned()))
            });
            let keywords = keywords.collect();
            self.closure.called.push(Called {
                name,
                keywords,
                place,
            });
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

/// Whether a text can name a distribution, a module or a URL's scheme: most texts are column names and sentences.
fn may_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '[' | ']');
    text.contains("://") || (text.len() <= 100 && text.len() > 1 && text.chars().all(plain))
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

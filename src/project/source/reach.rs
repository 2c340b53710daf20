//! Which definitions a piece of code reaches, through names, imports and attributes, across the project's modules.
//!
//! The unit is a module's top-level statement. On the generous side: where a name cannot be resolved, the whole module is reached.
//! `keys` hashes what is found here.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::{Expr, Stmt};

use super::names::{self, Part, Root, Use, Uses};
use super::{Module, Sources};

/// A top-level statement of a module, by its index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    pub module: String,
    pub index: usize,
}

/// What was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    pub units: BTreeSet<Unit>,
    /// Dotted names outside of the project: `pandas`, `sklearn.linear_model.LogisticRegression`.
    pub external: BTreeSet<String>,
    /// Modules of the project that are passed around as objects: anything in them may be meant.
    pub modules: BTreeSet<String>,
}

/// What a use of a name asks: the same in a module wherever it is asked. Files define one name thousands of times, and use it
/// as often: who walks uses looks each question up once.
pub type Question = (String, String, Vec<String>);

pub fn question(module: &str, used: &Use<'_>) -> Question {
    let root = match &used.root {
        Root::Name(name) => (*name).to_owned(),
        // No name has a dot; an imported path of one part is told apart.
        Root::Imported(path) => format!(".{path}"),
    };
    let attributes = used.attributes.iter().map(|name| (*name).to_owned()).collect();
    (module.to_owned(), root, attributes)
}

/// The bindings of all modules, computed once.
pub struct Index<'a> {
    sources: &'a Sources,
    modules: BTreeMap<&'a str, Bindings<'a>>,
}

#[derive(Default)]
struct Bindings<'a> {
    names: BTreeMap<&'a str, Vec<Binding>>,
    /// Modules of the project that `from x import *` names.
    stars: Vec<String>,
    /// Statements that run for their effect: a call, an assignment into something.
    effects: Vec<usize>,
    uses: Vec<Uses<'a>>,
}

#[derive(Clone)]
enum Binding {
    Unit(usize),
    Import(String),
}

impl<'a> Index<'a> {
    pub fn new(sources: &'a Sources) -> Self {
        let modules = sources
            .iter()
            .map(|module| (module.name.as_str(), bindings(module)))
            .collect();
        Self { sources, modules }
    }

    pub fn sources(&self) -> &'a Sources {
        self.sources
    }

    /// What one top-level statement uses.
    pub fn uses(&self, unit: &Unit) -> Option<&Uses<'a>> {
        self.modules.get(unit.module.as_str())?.uses.get(unit.index)
    }

    /// All top-level statements of a module that may run when it is imported.
    pub fn units(&self, module: &str) -> Vec<Unit> {
        let Some(parsed) = self.sources.get(module) else {
            return Vec::new();
        };
        (0..parsed.body().len())
            .filter(|index| !is_silent(parsed, &parsed.body()[*index]))
            .map(|index| Unit {
                module: module.to_owned(),
                index,
            })
            .collect()
    }

    /// The statements that define `name` in `module`, and none for a name that is imported.
    pub fn definitions(&self, module: &str, name: &str) -> Vec<Unit> {
        let found = self
            .modules
            .get(module)
            .and_then(|bindings| bindings.names.get(name));
        let units = found.into_iter().flatten().filter_map(|binding| match binding {
            Binding::Unit(index) => Some(Unit {
                module: module.to_owned(),
                index: *index,
            }),
            Binding::Import(_) => None,
        });
        units.collect()
    }

    /// The dotted path that `name` was imported from, if `module` binds it in no other way.
    pub fn imported(&self, module: &str, name: &str) -> Option<&str> {
        match self.modules.get(module)?.names.get(name)?.as_slice() {
            [Binding::Import(path)] => Some(path),
            _ => None,
        }
    }

    /// Everything that `start` reaches, itself included.
    pub fn reach(&self, start: Vec<Unit>) -> Reach {
        let mut reach = Reach::default();
        let mut pending = start;
        let mut seen_modules = BTreeSet::new();
        let mut dynamic_modules = BTreeSet::new();
        let mut asked = BTreeSet::new();
        while let Some(unit) = pending.pop() {
            if !reach.units.insert(unit.clone()) {
                continue;
            }
            let Some(bindings) = self.modules.get(unit.module.as_str()) else {
                continue;
            };
            if seen_modules.insert(unit.module.clone()) {
                pending.extend(bindings.effects.iter().map(|index| Unit {
                    module: unit.module.clone(),
                    index: *index,
                }));
            }
            let Some(uses) = bindings.uses.get(unit.index) else {
                continue;
            };
            if uses.dynamic && dynamic_modules.insert(unit.module.clone()) {
                pending.extend(self.units(&unit.module));
            }
            for name in &uses.names {
                if asked.insert(question(&unit.module, name)) {
                    let targets = self.targets(&unit.module, name);
                    pending.extend(targets.units);
                    pending.extend(targets.modules.iter().flat_map(|module| self.units(module)));
                    reach.external.extend(targets.external);
                }
            }
        }
        reach
    }

    /// What one use of a name in `module` means: definitions of the project, or names outside of it.
    pub fn targets(&self, module: &str, used: &Use<'_>) -> Reach {
        let mut pending = Vec::new();
        let mut reach = Reach::default();
        match &used.root {
            Root::Name(root) => self.name(module, root, &used.attributes, &mut pending, &mut reach, 0),
            Root::Imported(path) => self.path(path, &used.attributes, &mut pending, &mut reach, 0),
        }
        reach.units.extend(pending);
        reach
    }

    fn name(
        &self,
        module: &str,
        name: &str,
        attributes: &[&str],
        pending: &mut Vec<Unit>,
        reach: &mut Reach,
        depth: usize,
    ) {
        // Modules that import names from each other in a circle.
        if depth > 32 {
            return;
        }
        let Some(bindings) = self.modules.get(module) else {
            return;
        };
        match bindings.names.get(name) {
            Some(found) => {
                for binding in found {
                    match binding {
                        Binding::Unit(index) => pending.push(Unit {
                            module: module.to_owned(),
                            index: *index,
                        }),
                        Binding::Import(path) => self.path(path, attributes, pending, reach, depth + 1),
                    }
                }
            }
            None => {
                for star in &bindings.stars {
                    self.name(star, name, attributes, pending, reach, depth + 1);
                }
            }
        }
    }

    /// `path.attributes`, where the longest beginning that is a module of the project is one.
    fn path(
        &self,
        path: &str,
        attributes: &[&str],
        pending: &mut Vec<Unit>,
        reach: &mut Reach,
        depth: usize,
    ) {
        if !self.sources.is_own(path) {
            reach.external.insert(path.to_owned());
            return;
        }
        let parts: Vec<&str> = path.split('.').chain(attributes.iter().copied()).collect();
        for length in (1..=parts.len()).rev() {
            let module = parts[..length].join(".");
            if self.sources.get(&module).is_none() {
                continue;
            }
            match parts.get(length) {
                Some(name) => self.name(&module, name, &parts[length + 1..], pending, reach, depth + 1),
                None => {
                    reach.modules.insert(module);
                }
            }
            return;
        }
    }
}

fn bindings(module: &Module) -> Bindings<'_> {
    let mut bindings = Bindings::default();
    for (index, statement) in module.body().iter().enumerate() {
        let uses = names::uses(module, statement, Part::Whole);
        if !is_silent(module, statement) {
            let mut imported = BTreeSet::new();
            // A function's own imports bind nothing in the module.
            if !matches!(statement, Stmt::FunctionDef(_) | Stmt::ClassDef(_)) {
                for import in &uses.imports {
                    match import.binds {
                        Some(name) => {
                            imported.insert(name);
                            let binding = Binding::Import(import.path());
                            bindings.names.entry(name).or_default().push(binding);
                        }
                        None => bindings.stars.push(import.module.clone()),
                    }
                }
            }
            for name in uses.binds.iter().filter(|name| !imported.contains(*name)) {
                bindings.names.entry(name).or_default().push(Binding::Unit(index));
            }
            if has_effect(statement) {
                bindings.effects.push(index);
            }
        }
        bindings.uses.push(uses);
    }
    bindings
}

/// Docstrings, `if TYPE_CHECKING:` and `if __name__ == "__main__":` do nothing when the module is imported.
fn is_silent(module: &Module, statement: &Stmt) -> bool {
    match statement {
        Stmt::Expr(expression) => matches!(
            &*expression.value,
            Expr::StringLiteral(_) | Expr::EllipsisLiteral(_)
        ),
        Stmt::If(branches) => {
            branches.elif_else_clauses.is_empty() && names::never_runs(module.text(&*branches.test))
        }
        Stmt::Pass(_) => true,
        _ => false,
    }
}

/// Whether a statement may change something without binding a name.
fn has_effect(statement: &Stmt) -> bool {
    match statement {
        Stmt::FunctionDef(_)
        | Stmt::ClassDef(_)
        | Stmt::Import(_)
        | Stmt::ImportFrom(_)
        | Stmt::TypeAlias(_)
        | Stmt::Pass(_) => false,
        Stmt::Assign(assign) => assign.targets.iter().any(|target| !binds_names(target)),
        Stmt::AnnAssign(assign) => !binds_names(&assign.target),
        Stmt::If(branches) => {
            branches.body.iter().any(has_effect)
                || branches
                    .elif_else_clauses
                    .iter()
                    .any(|clause| clause.body.iter().any(has_effect))
        }
        Stmt::Try(attempt) => {
            let bodies = [&attempt.body, &attempt.orelse, &attempt.finalbody];
            bodies.iter().any(|body| body.iter().any(has_effect))
        }
        _ => true,
    }
}

fn binds_names(target: &Expr) -> bool {
    match target {
        Expr::Name(_) => true,
        Expr::Tuple(tuple) => tuple.elts.iter().all(binds_names),
        Expr::List(list) => list.elts.iter().all(binds_names),
        _ => false,
    }
}

//! What a path in the code is, where that can be told without running: constants, followed through names, modules, parameters
//! and the calls that give them.
//!
//! Takes the reached calls and the settings of nodes; gives the values that an expression can have. No value means unknown.

mod bindings;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bindings::{Bound, TopLevel, is_path_of, parameter};
use ruff_python_ast::{Expr, ExprCall, InterpolatedStringElement, Operator, StmtFunctionDef};

use super::Module;
use super::names::{Call, Root, Use};
use super::reach::{Index, Unit};
use crate::project::place::Place;

/// How far one value is followed: `DATA = HERE / "x.csv"`, `HERE = Path(__file__).parent`.
const FOLLOWED: usize = 24;
/// How many expressions are looked at for one value, and how many values it may have: functions call each other in many ways.
const LOOKED_AT: usize = 2_000;
const MOST: usize = 16;
/// How many are looked at for all values of a project: a million calls that open a path are nobody's code.
const LOOKED_AT_IN_ALL: usize = 1_000_000;

/// One path that an expression can be.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Relative to the application's folder, where `__file__` of a module will be.
    pub path: PathBuf,
    /// The default, argument or constant that it comes from, if that stands elsewhere.
    pub given: Option<Place>,
}

/// Where an expression stands.
#[derive(Clone, Copy)]
pub struct At<'c, 's> {
    pub module: &'s Module,
    /// The functions around it, outermost first.
    pub within: &'c [&'s StmtFunctionDef],
}

/// What is known of the values that names have.
pub struct Constants<'i, 's> {
    index: &'i Index<'s>,
    /// The reached calls of each top-level definition.
    calls: BTreeMap<Unit, Vec<(&'s Module, &'i Call<'s>)>>,
    /// By module and function of a node: its settings' values, unknown ones as `None`.
    settings: &'i BTreeMap<(String, String), NodeSettings>,
    /// Of the value that is being looked for, and of all.
    left: Cell<usize>,
    left_in_all: Cell<usize>,
    modules: RefCell<HashMap<*const Module, Rc<TopLevel<'s>>>>,
    functions: RefCell<HashMap<*const StmtFunctionDef, Names<'s>>>,
    /// What parameters are given: asked once, however often the function opens one.
    given: RefCell<HashMap<(*const StmtFunctionDef, String), Vec<Found>>>,
}

type Names<'s> = HashMap<&'s str, Bound<'s>>;

/// The settings of one node: `None` for a value that only Python or the environment knows.
pub type NodeSettings = BTreeMap<String, Setting>;

#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// The function's own default.
    Default,
    /// Text that configuration gives.
    Text(String),
    Unknown,
}

impl<'i, 's> Constants<'i, 's> {
    pub fn new(
        index: &'i Index<'s>,
        reached: &'i [(&'s Module, Call<'s>)],
        settings: &'i BTreeMap<(String, String), NodeSettings>,
    ) -> Self {
        let mut calls: BTreeMap<Unit, Vec<(&'s Module, &'i Call<'s>)>> = BTreeMap::new();
        for (module, call) in reached {
            let Some(callee) = &call.callee else { continue };
            for unit in index.targets(&module.name, callee).units {
                calls.entry(unit).or_default().push((*module, call));
            }
        }
        Self {
            index,
            calls,
            settings,
            left: Cell::new(0),
            left_in_all: Cell::new(LOOKED_AT_IN_ALL),
            modules: RefCell::default(),
            functions: RefCell::default(),
            given: RefCell::default(),
        }
    }

    /// The dotted name outside of the project that a use means: `pandas.read_csv`, `open` for the builtin.
    pub fn external(&self, module: &Module, used: &Use<'_>) -> Option<String> {
        let (path, attributes) = match &used.root {
            Root::Imported(path) => (path.clone(), &used.attributes),
            Root::Name(name) => match self.index.imported(&module.name, name) {
                Some(path) => (path.to_owned(), &used.attributes),
                None if self.index.definitions(&module.name, name).is_empty() => {
                    return used.attributes.is_empty().then(|| (*name).to_owned());
                }
                None => return None,
            },
        };
        if self.index.sources().is_own(&path) {
            return None;
        }
        let parts = std::iter::once(path.as_str()).chain(attributes.iter().copied());
        Some(parts.collect::<Vec<_>>().join("."))
    }

    /// The paths that `expression` can be; empty where none can be told.
    pub fn paths(&self, at: At<'_, 's>, expression: &'s Expr) -> Vec<Found> {
        let granted = LOOKED_AT.min(self.left_in_all.get());
        self.left.set(granted);
        let mut found = self.evaluate(at, expression, FOLLOWED);
        let used = granted - self.left.get();
        self.left_in_all.set(self.left_in_all.get() - used);
        found.dedup();
        found
    }

    fn evaluate(&self, at: At<'_, 's>, expression: &'s Expr, depth: usize) -> Vec<Found> {
        let left = self.left.get();
        let Some(depth) = depth.checked_sub(1).filter(|_| left > 0) else {
            return Vec::new();
        };
        self.left.set(left - 1);
        let here = |path: PathBuf| vec![Found { path, given: None }];
        match expression {
            Expr::StringLiteral(literal) => here(PathBuf::from(literal.value.to_str())),
            Expr::Name(name) if name.id.as_str() == "__file__" => here(module_file(at.module)),
            Expr::Name(name) => self.name(at, name.id.as_str(), depth),
            Expr::BinOp(operation) if operation.op == Operator::Div => {
                let left = self.evaluate(at, &operation.left, depth);
                self.pairs(at, left, &operation.right, depth, |one, other| {
                    Some(one.join(other))
                })
            }
            Expr::BinOp(operation) if operation.op == Operator::Add => {
                let left = self.evaluate(at, &operation.left, depth);
                self.pairs(at, left, &operation.right, depth, appended)
            }
            Expr::FString(text) => {
                let mut found = here(PathBuf::new());
                for element in text.value.elements() {
                    found = match element {
                        InterpolatedStringElement::Literal(literal) => {
                            mapped(found, |path| appended(path, Path::new(&*literal.value)))
                        }
                        InterpolatedStringElement::Interpolation(inner) => {
                            self.pairs(at, found, &inner.expression, depth, appended)
                        }
                    };
                }
                found
            }
            Expr::Attribute(attribute) if attribute.attr.as_str() == "parent" => {
                let found = self.evaluate(at, &attribute.value, depth);
                mapped(found, |path| Some(path.parent()?.to_path_buf()))
            }
            Expr::Attribute(attribute) => match &*attribute.value {
                // `config.DATA`, where `config` is a module of the project.
                Expr::Name(name) if !self.is_bound(at, name.id.as_str()) => self
                    .index
                    .imported(&at.module.name, name.id.as_str())
                    .map(|path| self.elsewhere(path, Some(attribute.attr.as_str()), depth))
                    .unwrap_or_default(),
                _ => Vec::new(),
            },
            Expr::Subscript(subscript) => {
                let Expr::Attribute(attribute) = &*subscript.value else {
                    return Vec::new();
                };
                let index = super::literal::json(&subscript.slice).and_then(|index| index.as_u64());
                let Some(index) = index.filter(|index| *index < 32 && attribute.attr.as_str() == "parents")
                else {
                    return Vec::new();
                };
                let found = self.evaluate(at, &attribute.value, depth);
                mapped(found, |path| {
                    path.ancestors().nth(index as usize + 1).map(Path::to_path_buf)
                })
            }
            Expr::Call(call) => self.call(at, call, depth),
            _ => Vec::new(),
        }
    }

    fn call(&self, at: At<'_, 's>, call: &'s ExprCall, depth: usize) -> Vec<Found> {
        let arguments = &call.arguments.args;
        let (name, object) = match &*call.func {
            Expr::Name(name) => (name.id.as_str(), None),
            Expr::Attribute(attribute) => (attribute.attr.as_str(), Some(&*attribute.value)),
            _ => return Vec::new(),
        };
        let first = || match arguments.first() {
            Some(first) => self.evaluate(at, first, depth),
            None => Vec::new(),
        };
        let joined = |start: Vec<Found>, rest: &'s [Expr]| {
            rest.iter().fold(start, |found, part| {
                self.pairs(at, found, part, depth, |one, other| Some(one.join(other)))
            })
        };
        match name {
            "Path" | "PurePath" | "PosixPath" | "abspath" | "realpath" | "str" | "fspath" => {
                joined(first(), arguments.get(1..).unwrap_or_default())
            }
            "dirname" => mapped(first(), |path| Some(path.parent()?.to_path_buf())),
            "join" if object.is_some_and(is_os_path) => {
                joined(first(), arguments.get(1..).unwrap_or_default())
            }
            // importlib.resources: the folder of a package of the project.
            "files" => {
                let dotted = match arguments.first() {
                    Some(Expr::StringLiteral(literal)) => literal.value.to_str().to_owned(),
                    Some(Expr::Name(name)) if name.id.as_str() == "__package__" => package_of(at.module),
                    _ => return Vec::new(),
                };
                if !self.index.sources().is_own(&dotted) {
                    return Vec::new();
                }
                let path = dotted.split('.').collect();
                vec![Found { path, given: None }]
            }
            _ => {
                let Some(object) = object else {
                    return Vec::new();
                };
                let found = || self.evaluate(at, object, depth);
                let text = arguments.first().and_then(string);
                match (name, text) {
                    ("resolve" | "absolute" | "expanduser" | "as_posix", _) => found(),
                    ("joinpath", _) => joined(found(), arguments),
                    ("with_name", Some(text)) => mapped(found(), |path| Some(path.with_file_name(text))),
                    ("with_suffix", Some(text)) => mapped(found(), |path| {
                        Some(path.with_extension(text.trim_start_matches('.')))
                    }),
                    _ => Vec::new(),
                }
            }
        }
    }

    /// Each of `found` with each value of `right`.
    fn pairs(
        &self,
        at: At<'_, 's>,
        found: Vec<Found>,
        right: &'s Expr,
        depth: usize,
        join: impl Fn(&Path, &Path) -> Option<PathBuf>,
    ) -> Vec<Found> {
        if found.is_empty() {
            return found;
        }
        let right = self.evaluate(at, right, depth);
        let pairs = found
            .iter()
            .flat_map(|one| right.iter().map(move |other| (one, other)));
        let joined = pairs.filter_map(|(one, other)| {
            Some(Found {
                path: join(&one.path, &other.path)?,
                given: one.given.clone().or_else(|| other.given.clone()),
            })
        });
        joined.take(MOST).collect()
    }

    /// What a name is: of the functions around, innermost first, then of the module.
    fn name(&self, at: At<'_, 's>, name: &str, depth: usize) -> Vec<Found> {
        for (level, function) in at.within.iter().enumerate().rev() {
            let around = At {
                module: at.module,
                within: &at.within[..=level],
            };
            let is_parameter = parameter(function, name).is_some();
            match self.bound(function, name) {
                None if is_parameter => return self.parameter(around, function, name, depth),
                None => {}
                Some(Bound::Value(value)) if !is_parameter => return self.evaluate(around, value, depth),
                // `path = Path(path)`: what is on the right is still the parameter.
                Some(Bound::Value(value)) if is_path_of(value, name) => {
                    return self.parameter(around, function, name, depth);
                }
                Some(_) => return Vec::new(),
            }
        }
        let module = At {
            module: at.module,
            within: &[],
        };
        match self.constant(at.module, name) {
            Some(value) => self.evaluate(module, value, depth),
            None => match self.index.imported(&at.module.name, name) {
                Some(path) => self.elsewhere(path, None, depth),
                None => Vec::new(),
            },
        }
    }

    /// The constant of another module of the project that `path` names, or `path` and `attribute`.
    fn elsewhere(&self, path: &str, attribute: Option<&str>, depth: usize) -> Vec<Found> {
        let (module, name) = match (attribute, path.rsplit_once('.')) {
            (Some(name), _) => (path, name),
            (None, Some(parts)) => parts,
            (None, None) => return Vec::new(),
        };
        let Some(module) = self.index.sources().get(module) else {
            return Vec::new();
        };
        let Some(value) = self.constant(module, name) else {
            return Vec::new();
        };
        let at = At { module, within: &[] };
        given(self.evaluate(at, value, depth), &module.place(value))
    }

    /// What a parameter of a top-level function is given: by settings, if it is a node's, and by each reached call.
    fn parameter(
        &self,
        at: At<'_, 's>,
        function: &'s StmtFunctionDef,
        name: &str,
        depth: usize,
    ) -> Vec<Found> {
        let key = (std::ptr::from_ref(function), name.to_owned());
        let known = self.given.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            let found = self.look_at_calls(at, function, name, depth);
            self.given.borrow_mut().insert(key, found.clone());
            found
        })
    }

    fn look_at_calls(
        &self,
        at: At<'_, 's>,
        function: &'s StmtFunctionDef,
        name: &str,
        depth: usize,
    ) -> Vec<Found> {
        let address = std::ptr::from_ref(function);
        let (Some(index), Some((position, default))) = (
            self.top_level(at.module).functions.get(&address).copied(),
            parameter(function, name),
        ) else {
            return Vec::new();
        };
        let module = At {
            module: at.module,
            within: &[],
        };
        let by_default = || match default {
            Some(default) => given(self.evaluate(module, default, depth), &at.module.place(default)),
            None => Vec::new(),
        };
        let node = (at.module.name.clone(), function.name.as_str().to_owned());
        let setting = self.settings.get(&node).and_then(|settings| settings.get(name));
        let mut found = match setting {
            Some(Setting::Default) => by_default(),
            Some(Setting::Text(text)) => vec![Found {
                path: PathBuf::from(text),
                given: None,
            }],
            Some(Setting::Unknown) | None => Vec::new(),
        };
        let unit = Unit {
            module: at.module.name.clone(),
            index,
        };
        for (caller, call) in self.calls.get(&unit).into_iter().flatten() {
            if self.left.get() == 0 {
                break;
            }
            let arguments = &call.call.arguments;
            let positional = position.and_then(|position| {
                let before = arguments.args.get(..=position)?;
                let starred = before.iter().any(|argument| matches!(argument, Expr::Starred(_)));
                before.last().filter(|_| !starred)
            });
            let keyword = arguments.find_keyword(name).map(|keyword| &keyword.value);
            let spread = arguments.keywords.iter().any(|keyword| keyword.arg.is_none())
                || arguments
                    .args
                    .iter()
                    .any(|argument| matches!(argument, Expr::Starred(_)));
            match positional.or(keyword) {
                Some(argument) => {
                    let at = At {
                        module: caller,
                        within: &call.within,
                    };
                    found.extend(given(self.evaluate(at, argument, depth), &caller.place(argument)));
                }
                None if !spread => found.extend(by_default()),
                None => {}
            }
            if found.len() >= MOST {
                break;
            }
        }
        found.truncate(MOST);
        found
    }

    /// Whether a function around `at` has its own `name`.
    fn is_bound(&self, at: At<'_, 's>, name: &str) -> bool {
        at.within
            .iter()
            .any(|function| parameter(function, name).is_some() || self.bound(function, name).is_some())
    }

    fn bound(&self, function: &'s StmtFunctionDef, name: &str) -> Option<Bound<'s>> {
        let mut known = self.functions.borrow_mut();
        let names = known
            .entry(std::ptr::from_ref(function))
            .or_insert_with(|| bindings::of_function(function));
        names.get(name).copied()
    }

    fn top_level(&self, module: &'s Module) -> Rc<TopLevel<'s>> {
        let mut known = self.modules.borrow_mut();
        let address = std::ptr::from_ref(module);
        known
            .entry(address)
            .or_insert_with(|| Rc::new(TopLevel::of(module)))
            .clone()
    }

    /// The value that the module's top level gives a name, if it does so once.
    fn constant(&self, module: &'s Module, name: &str) -> Option<&'s Expr> {
        match self.top_level(module).values.get(name) {
            Some(Bound::Value(value)) => Some(value),
            _ => None,
        }
    }
}

fn mapped(found: Vec<Found>, change: impl Fn(&Path) -> Option<PathBuf>) -> Vec<Found> {
    let changed = found.into_iter().filter_map(|one| {
        Some(Found {
            path: change(&one.path)?,
            given: one.given,
        })
    });
    changed.collect()
}

/// The values with the place that they come from, where none is known that is further away.
fn given(found: Vec<Found>, place: &Place) -> Vec<Found> {
    let placed = found.into_iter().map(|one| Found {
        given: one.given.or_else(|| Some(place.clone())),
        ..one
    });
    placed.collect()
}

fn appended(one: &Path, other: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(format!("{}{}", one.to_str()?, other.to_str()?)))
}

fn is_os_path(expression: &Expr) -> bool {
    match expression {
        Expr::Attribute(attribute) => attribute.attr.as_str() == "path",
        Expr::Name(name) => name.id.as_str() == "path" || name.id.as_str() == "osp",
        _ => false,
    }
}

/// Where the module's file is in the application's folder: `churn/features.py`.
fn module_file(module: &Module) -> PathBuf {
    let mut path: PathBuf = module.name.split('.').collect();
    if module.is_package {
        path.push("__init__.py");
    } else {
        path.set_extension("py");
    }
    path
}

fn package_of(module: &Module) -> String {
    match module.name.rsplit_once('.') {
        Some((parent, _)) if !module.is_package => parent.to_owned(),
        _ => module.name.clone(),
    }
}

pub(super) fn string(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::StringLiteral(literal) => Some(literal.value.to_str()),
        _ => None,
    }
}

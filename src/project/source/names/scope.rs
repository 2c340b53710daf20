//! The names that a function, a class or a comprehension has for itself.
//!
//! Source: the language reference, "Resolution of names"; PEP 572 for `:=`, PEP 634 for what patterns capture.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{ExceptHandler, Expr, ExprContext, Parameters, Pattern, Stmt};

use super::from_base;
use crate::project::source::Module;

/// The names that are local to one function or class, and what those that it imports stand for.
#[derive(Default)]
pub(super) struct Scope<'a> {
    pub locals: BTreeSet<&'a str>,
    pub imported: BTreeMap<&'a str, String>,
    /// A class's names are seen by its own statements once they are bound, and never by its methods. Source: the language
    /// reference, "Resolution of names".
    pub is_class: bool,
}

impl<'a> Scope<'a> {
    /// Of a function whose parameters are `names`, or of a block that is one's body.
    pub(super) fn of_body(module: &'a Module, names: BTreeSet<&'a str>, body: &'a [Stmt]) -> Self {
        let mut scope = Self {
            locals: names,
            ..Self::default()
        };
        let mut locals = Locals {
            module,
            scope: &mut scope,
            outer: BTreeSet::new(),
            comprehensions: 0,
        };
        locals.visit_body(body);
        let outer = locals.outer;
        scope.locals.retain(|name| !outer.contains(name));
        scope
    }

    /// Of a class: its names are bound as its statements are met.
    pub(super) fn of_class() -> Self {
        Self {
            is_class: true,
            ..Self::default()
        }
    }
}

pub(super) fn parameter_names<'a>(parameters: &'a Parameters, names: &mut BTreeSet<&'a str>) {
    let plain = parameters
        .iter_non_variadic_params()
        .map(|with_default| &with_default.parameter);
    let variadic = parameters
        .vararg
        .iter()
        .chain(&parameters.kwarg)
        .map(|boxed| &**boxed);
    names.extend(plain.chain(variadic).map(|parameter| parameter.name.as_str()));
}

pub(super) fn stored_names<'a>(target: &'a Expr, names: &mut BTreeSet<&'a str>) {
    match target {
        Expr::Name(name) => {
            names.insert(name.id.as_str());
        }
        Expr::Tuple(tuple) => tuple.elts.iter().for_each(|element| stored_names(element, names)),
        Expr::List(list) => list.elts.iter().for_each(|element| stored_names(element, names)),
        Expr::Starred(starred) => stored_names(&starred.value, names),
        _ => {}
    }
}

/// The name that a `case` pattern itself binds.
pub(super) fn captured(pattern: &Pattern) -> Option<&str> {
    let name = match pattern {
        Pattern::MatchAs(capture) => capture.name.as_ref(),
        Pattern::MatchStar(star) => star.name.as_ref(),
        Pattern::MatchMapping(mapping) => mapping.rest.as_ref(),
        _ => None,
    };
    name.map(|name| name.as_str())
}

/// Collects the names that a function's body binds, without entering functions inside it.
struct Locals<'a, 's> {
    module: &'a Module,
    scope: &'s mut Scope<'a>,
    /// Declared `global` or `nonlocal`.
    outer: BTreeSet<&'a str>,
    /// How many comprehensions are around: what they store is their own.
    comprehensions: usize,
}

impl<'a> Visitor<'a> for Locals<'a, '_> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(function) => {
                self.scope.locals.insert(function.name.as_str());
            }
            Stmt::ClassDef(class) => {
                self.scope.locals.insert(class.name.as_str());
            }
            Stmt::Global(global) => self.outer.extend(global.names.iter().map(|name| name.as_str())),
            Stmt::Nonlocal(nonlocal) => self.outer.extend(nonlocal.names.iter().map(|name| name.as_str())),
            Stmt::Import(import) => {
                for alias in &import.names {
                    let module = alias.name.as_str();
                    let top = module.split('.').next().unwrap_or(module);
                    let (binds, path) = match &alias.asname {
                        Some(name) => (name.as_str(), module),
                        None => (top, top),
                    };
                    self.scope.imported.insert(binds, path.to_owned());
                }
            }
            Stmt::ImportFrom(from) => {
                let Some(base) = from_base(self.module, from) else {
                    return;
                };
                for alias in &from.names {
                    let name = alias.name.as_str();
                    let binds = alias.asname.as_ref().map_or(name, |name| name.as_str());
                    self.scope.imported.insert(binds, format!("{base}.{name}"));
                }
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(inner) = handler;
        if let Some(name) = &inner.name {
            self.scope.locals.insert(name.as_str());
        }
        visitor::walk_except_handler(self, handler);
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) if name.ctx == ExprContext::Store && self.comprehensions == 0 => {
                self.scope.locals.insert(name.id.as_str());
            }
            // Inside a comprehension too, `:=` binds a name of the function. Source: PEP 572.
            Expr::Named(named) => {
                stored_names(&named.target, &mut self.scope.locals);
                visitor::walk_expr(self, expression);
            }
            // Names inside are the lambda's.
            Expr::Lambda(_) => {}
            Expr::ListComp(_) | Expr::SetComp(_) | Expr::DictComp(_) | Expr::Generator(_) => {
                self.comprehensions += 1;
                visitor::walk_expr(self, expression);
                self.comprehensions -= 1;
            }
            _ => visitor::walk_expr(self, expression),
        }
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.scope.locals.extend(captured(pattern));
        visitor::walk_pattern(self, pattern);
    }
}

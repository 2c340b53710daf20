//! What a name is bound to in a function or at a module's top level, by its syntax alone.

use std::collections::HashMap;

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Expr, ExprContext, Stmt, StmtFunctionDef};

use crate::project::source::Module;

/// A parameter's position, if it can be given by position, and its default.
pub(super) fn parameter<'s>(
    function: &'s StmtFunctionDef,
    name: &str,
) -> Option<(Option<usize>, Option<&'s Expr>)> {
    let parameters = &function.parameters;
    let positional = parameters.posonlyargs.iter().chain(&parameters.args).enumerate();
    let by_position = positional.map(|(position, parameter)| (Some(position), parameter));
    let by_name = parameters.kwonlyargs.iter().map(|parameter| (None, parameter));
    by_position
        .chain(by_name)
        .find(|(_, parameter)| parameter.parameter.name.as_str() == name)
        .map(|(position, parameter)| (position, parameter.default.as_deref()))
}

/// `Path(name)`, `str(name)`: the same path.
pub(super) fn is_path_of(expression: &Expr, name: &str) -> bool {
    let Expr::Call(call) = expression else {
        return false;
    };
    let converts = match &*call.func {
        Expr::Name(function) => matches!(function.id.as_str(), "Path" | "str"),
        Expr::Attribute(attribute) => attribute.attr.as_str() == "Path",
        _ => false,
    };
    let is_it = |argument: &Expr| matches!(argument, Expr::Name(found) if found.id.as_str() == name);
    converts && call.arguments.len() == 1 && call.arguments.args.first().is_some_and(is_it)
}

/// What a name is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound<'s> {
    /// Once, by a plain assignment.
    Value(&'s Expr),
    /// Several times, or by something else: a loop, an import, a definition.
    Unclear,
}

/// What a function's body binds, functions inside it left out.
pub(super) fn of_function(function: &StmtFunctionDef) -> HashMap<&str, Bound<'_>> {
    let mut assigned = Assigned::default();
    assigned.visit_body(&function.body);
    assigned.names
}

/// What a module's top level assigns, and where its functions stand in its body.
pub(super) struct TopLevel<'s> {
    pub values: HashMap<&'s str, Bound<'s>>,
    /// By address: names may be defined twice.
    pub functions: HashMap<*const StmtFunctionDef, usize>,
}

impl<'s> TopLevel<'s> {
    pub(super) fn of(module: &'s Module) -> Self {
        let mut assigned = Assigned::default();
        let mut functions = HashMap::new();
        for (index, statement) in module.body().iter().enumerate() {
            match statement {
                Stmt::Assign(_) | Stmt::AnnAssign(_) => assigned.visit_stmt(statement),
                Stmt::FunctionDef(function) => {
                    functions.insert(std::ptr::from_ref(function), index);
                }
                _ => {}
            }
        }
        Self {
            values: assigned.names,
            functions,
        }
    }
}

#[derive(Default)]
struct Assigned<'s> {
    names: HashMap<&'s str, Bound<'s>>,
}

impl<'s> Assigned<'s> {
    fn bind(&mut self, name: &'s str, bound: Bound<'s>) {
        let known = self.names.entry(name);
        known.and_modify(|known| *known = Bound::Unclear).or_insert(bound);
    }
}

impl<'s> Visitor<'s> for Assigned<'s> {
    fn visit_stmt(&mut self, statement: &'s Stmt) {
        match statement {
            Stmt::Assign(assign) => {
                for target in &assign.targets {
                    match target {
                        Expr::Name(name) => self.bind(name.id.as_str(), Bound::Value(&assign.value)),
                        other => self.visit_expr(other),
                    }
                }
                self.visit_expr(&assign.value);
            }
            Stmt::AnnAssign(assign) => {
                if let (Expr::Name(name), Some(value)) = (&*assign.target, &assign.value) {
                    self.bind(name.id.as_str(), Bound::Value(value));
                    self.visit_expr(value);
                }
            }
            Stmt::FunctionDef(inner) => self.bind(inner.name.as_str(), Bound::Unclear),
            Stmt::ClassDef(inner) => self.bind(inner.name.as_str(), Bound::Unclear),
            Stmt::Import(import) => {
                for alias in &import.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
                    self.bind(name.split('.').next().unwrap_or(name), Bound::Unclear);
                }
            }
            Stmt::ImportFrom(from) => {
                for alias in &from.names {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name);
                    self.bind(name.as_str(), Bound::Unclear);
                }
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'s Expr) {
        match expression {
            Expr::Name(name) if name.ctx == ExprContext::Store => {
                self.bind(name.id.as_str(), Bound::Unclear);
            }
            Expr::Lambda(_) => {}
            _ => visitor::walk_expr(self, expression),
        }
    }
}

//! What a name is bound to in a function or at a module's top level, by its syntax alone.

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

/// What a function's body binds `name` to, functions inside it left out: `None` where it is not plainly assigned.
pub(super) fn assigned<'s>(function: &'s StmtFunctionDef, name: &str) -> Vec<Option<&'s Expr>> {
    let mut assigned = Assigned {
        name,
        values: Vec::new(),
    };
    assigned.visit_body(&function.body);
    assigned.values
}

struct Assigned<'n, 's> {
    name: &'n str,
    values: Vec<Option<&'s Expr>>,
}

impl<'s> Visitor<'s> for Assigned<'_, 's> {
    fn visit_stmt(&mut self, statement: &'s Stmt) {
        let is_it = |target: &Expr| matches!(target, Expr::Name(found) if found.id.as_str() == self.name);
        match statement {
            Stmt::Assign(assign) if assign.targets.iter().any(is_it) => self.values.push(Some(&assign.value)),
            Stmt::AnnAssign(assign) if is_it(&assign.target) => {
                if let Some(value) = &assign.value {
                    self.values.push(Some(value));
                }
            }
            Stmt::FunctionDef(inner) if inner.name.as_str() == self.name => self.values.push(None),
            Stmt::ClassDef(inner) if inner.name.as_str() == self.name => self.values.push(None),
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => {}
            Stmt::Import(import) => {
                let binds = |alias: &ruff_python_ast::Alias| {
                    let name = alias.asname.as_ref().unwrap_or(&alias.name).as_str();
                    name.split('.').next() == Some(self.name)
                };
                if import.names.iter().any(binds) {
                    self.values.push(None);
                }
            }
            Stmt::ImportFrom(from) => {
                let binds = |alias: &ruff_python_ast::Alias| {
                    alias.asname.as_ref().unwrap_or(&alias.name).as_str() == self.name
                };
                if from.names.iter().any(binds) {
                    self.values.push(None);
                }
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'s Expr) {
        match expression {
            Expr::Name(name) if name.ctx == ExprContext::Store && name.id.as_str() == self.name => {
                self.values.push(None);
            }
            Expr::Lambda(_) => {}
            _ => visitor::walk_expr(self, expression),
        }
    }
}

/// The value that the module's top level gives a name, if it does so once.
pub(super) fn constant<'a>(module: &'a Module, name: &str) -> Option<&'a Expr> {
    let mut values = module.body().iter().filter_map(|statement| match statement {
        Stmt::Assign(assign) => {
            let is_it = |target: &Expr| matches!(target, Expr::Name(found) if found.id.as_str() == name);
            assign.targets.iter().any(is_it).then_some(&*assign.value)
        }
        Stmt::AnnAssign(assign) => {
            let is_it = matches!(&*assign.target, Expr::Name(found) if found.id.as_str() == name);
            assign.value.as_deref().filter(|_| is_it)
        }
        _ => None,
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

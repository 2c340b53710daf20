//! What a name in an annotation stands for: followed through imports and aliases, without evaluating anything.

use ruff_python_ast::{Expr, Stmt, StmtClassDef};

use super::Reader;
use crate::project::source::Module;

/// What a name stands for.
pub(super) enum Named<'a> {
    /// A class of the project.
    Class(&'a Module, &'a StmtClassDef),
    /// An alias of the project: `Customers = list[Customer]`.
    Alias(&'a Module, &'a Expr),
    /// Something of someone else's: `typing.Optional`.
    External(String),
}

impl<'a> Reader<'a, '_> {
    /// What a name or a dotted name means in `module`.
    pub(super) fn resolve(self, module: &'a Module, expression: &Expr) -> Option<Named<'a>> {
        let dotted = dotted(expression)?;
        let (first, rest) = dotted.split_once('.').unwrap_or((&dotted, ""));
        let reader = self.deeper()?;
        match reader.binding(module, first) {
            Some(Named::External(path)) if rest.is_empty() => reader.path(&path),
            Some(Named::External(path)) => reader.path(&format!("{path}.{rest}")),
            Some(found) => rest.is_empty().then_some(found),
            None if rest.is_empty() => Some(Named::External(format!("builtins.{first}"))),
            None => None,
        }
    }

    /// An absolute dotted name: of the project, followed to its definition, or of someone else.
    fn path(self, path: &str) -> Option<Named<'a>> {
        if !self.sources.is_own(path) {
            return Some(Named::External(path.to_owned()));
        }
        let (module, name) = path.rsplit_once('.')?;
        let module = self.sources.get(module)?;
        match self.binding(module, name)? {
            Named::External(path) => self.deeper()?.path(&path),
            found => Some(found),
        }
    }

    /// The last top-level statement of `module` that gives `name` a meaning.
    fn binding(self, module: &'a Module, name: &str) -> Option<Named<'a>> {
        module.body().iter().rev().find_map(|statement| match statement {
            Stmt::ClassDef(class) if class.name.as_str() == name => Some(Named::Class(module, class)),
            Stmt::TypeAlias(alias) if is_name(&alias.name, name) => Some(Named::Alias(module, &alias.value)),
            Stmt::Assign(assign) if assign.targets.iter().any(|target| is_name(target, name)) => {
                Some(Named::Alias(module, &assign.value))
            }
            Stmt::Import(import) => import.names.iter().find_map(|alias| {
                let path = alias.name.as_str();
                match &alias.asname {
                    Some(bound) => (bound.as_str() == name).then(|| Named::External(path.to_owned())),
                    None => {
                        let top = path.split('.').next().unwrap_or(path);
                        (top == name).then(|| Named::External(top.to_owned()))
                    }
                }
            }),
            Stmt::ImportFrom(from) => from.names.iter().find_map(|alias| {
                let bound = alias.asname.as_ref().unwrap_or(&alias.name);
                if bound.as_str() != name {
                    return None;
                }
                let module_name = from.module.as_ref().map(|module| module.as_str());
                let base = match (from.level, module_name) {
                    (0, Some(absolute)) => absolute.to_owned(),
                    (level, Some(relative)) => format!("{}.{relative}", module.relative_base(level)?),
                    (level, None) => module.relative_base(level)?,
                };
                Some(Named::External(format!("{base}.{}", alias.name)))
            }),
            // `if TYPE_CHECKING:` imports types.
            _ => None,
        })
    }
}

fn is_name(expression: &Expr, name: &str) -> bool {
    matches!(expression, Expr::Name(found) if found.id.as_str() == name)
}

/// `a.b.c`, if it is that and nothing else.
fn dotted(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Name(name) => Some(name.id.to_string()),
        Expr::Attribute(attribute) => Some(format!("{}.{}", dotted(&attribute.value)?, attribute.attr)),
        _ => None,
    }
}

//! What a piece of code uses: names with their attributes, imports, calls. Local names of functions are told apart.
//!
//! Purely syntactic and on the generous side: a name that might be the module's is taken to be. `reach` resolves what is found here.

mod scope;

use std::collections::BTreeSet;

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    self as ast, ExceptHandler, Expr, ExprContext, InterpolatedStringElement, Pattern, Stmt, StmtFunctionDef,
    StmtIf,
};
use ruff_text_size::{Ranged, TextRange};

use super::Module;
use scope::{Scope, captured, parameter_names, stored_names};

/// Which code is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it: what could run once it is called.
    Whole,
    /// What importing the module runs: no function's body.
    Import,
}

/// A name that is used, with the attributes that follow: `pd.io.json` is `pd` and `[io, json]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Use<'a> {
    pub root: Root<'a>,
    pub attributes: Vec<&'a str>,
    pub range: TextRange,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root<'a> {
    /// A name of the module, or a builtin.
    Name(&'a str),
    /// What a function imported for itself: a dotted path.
    Imported(String),
}

/// One name that an import statement brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Import<'a> {
    /// Absolute: `pandas`, `sklearn.linear_model`, `churn.features`.
    pub module: String,
    /// `from module import attribute`.
    pub attribute: Option<&'a str>,
    /// What it is called here; `None` for `*`.
    pub binds: Option<&'a str>,
    /// May fail without harm: inside `try`/`except ImportError`, or under a test of version or platform.
    pub optional: bool,
    pub range: TextRange,
}

impl Import<'_> {
    /// The path that the bound name stands for. `import a.b` binds `a`.
    pub fn path(&self) -> String {
        match (self.attribute, self.binds) {
            (Some(attribute), _) => format!("{}.{attribute}", self.module),
            (None, Some(binds)) if self.module.split('.').next() == Some(binds) => binds.to_owned(),
            _ => self.module.clone(),
        }
    }
}

/// One call, and where it stands.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub call: &'a ast::ExprCall,
    /// What is called, unless that is a local name or an expression.
    pub callee: Option<Use<'a>>,
    /// The functions around it, outermost first.
    pub within: Vec<&'a StmtFunctionDef>,
}

/// A constant text: a string literal, or what an f-string begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    pub value: &'a str,
    pub range: TextRange,
}

/// What a piece of code uses.
#[derive(Debug, Default)]
pub struct Uses<'a> {
    pub names: Vec<Use<'a>>,
    pub imports: Vec<Import<'a>>,
    pub calls: Vec<Call<'a>>,
    /// Docstrings are none.
    pub texts: Vec<Text<'a>>,
    /// Names that assignments, definitions and imports bind at the outermost level.
    pub binds: BTreeSet<&'a str>,
    /// `globals()`, `eval` and the like: names cannot be resolved.
    pub dynamic: bool,
}

/// What `statement` of `module` uses.
pub fn uses<'a>(module: &'a Module, statement: &'a Stmt, part: Part) -> Uses<'a> {
    let mut collector = Collector::new(module, part);
    collector.visit_stmt(statement);
    collector.uses
}

/// What the body of `if __name__ == "__main__":` uses of the module: what it binds itself is its own.
pub fn script_uses<'a>(module: &'a Module, body: &'a [Stmt]) -> Uses<'a> {
    let mut collector = Collector::new(module, Part::Whole);
    collector.inside(BTreeSet::new(), body);
    collector.uses
}

struct Collector<'a> {
    module: &'a Module,
    part: Part,
    scopes: Vec<Scope<'a>>,
    functions: Vec<&'a StmtFunctionDef>,
    optional: usize,
    uses: Uses<'a>,
}

impl<'a> Collector<'a> {
    fn new(module: &'a Module, part: Part) -> Self {
        Self {
            module,
            part,
            scopes: Vec::new(),
            functions: Vec::new(),
            optional: 0,
            uses: Uses::default(),
        }
    }

    /// What `name` means here; `None` for a local name.
    fn root(&self, name: &'a str) -> Option<Root<'a>> {
        let innermost = self.scopes.len().saturating_sub(1);
        for (at, scope) in self.scopes.iter().enumerate().rev() {
            if scope.is_class && at < innermost {
                continue;
            }
            if let Some(path) = scope.imported.get(name) {
                return Some(Root::Imported(path.clone()));
            }
            if scope.locals.contains(name) {
                return None;
            }
        }
        Some(Root::Name(name))
    }

    fn name(&mut self, name: &'a str, attributes: Vec<&'a str>, range: TextRange) {
        let Some(root) = self.root(name) else {
            return;
        };
        if matches!(root, Root::Name("globals" | "eval" | "exec" | "vars" | "locals")) {
            self.uses.dynamic = true;
        }
        self.uses.names.push(Use {
            root,
            attributes,
            range,
        });
    }

    fn bind(&mut self, name: &'a str) {
        match self.scopes.last_mut() {
            None => {
                self.uses.binds.insert(name);
            }
            Some(scope) if scope.is_class => {
                scope.locals.insert(name);
            }
            // A function's were collected before its body was looked at.
            Some(_) => {}
        }
    }

    fn call(&mut self, call: &'a ast::ExprCall) {
        let callee = chain(&call.func).and_then(|(name, attributes)| {
            Some(Use {
                root: self.root(name)?,
                attributes,
                range: call.func.range(),
            })
        });
        self.uses.calls.push(Call {
            call,
            callee,
            within: self.functions.clone(),
        });
    }

    fn text(&mut self, value: &'a str, range: TextRange) {
        self.uses.texts.push(Text { value, range });
    }

    fn import(&mut self, import: Import<'a>) {
        if let Some(binds) = import.binds {
            self.bind(binds);
        }
        self.uses.imports.push(import);
    }

    /// Looks into `body`, whose own names are `names` and what it binds.
    fn inside(&mut self, names: BTreeSet<&'a str>, body: &'a [Stmt]) {
        self.scopes.push(Scope::of_body(self.module, names, body));
        self.visit_body(body);
        self.scopes.pop();
    }
}

impl<'a> Visitor<'a> for Collector<'a> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(function) => {
                self.bind(function.name.as_str());
                for decorator in &function.decorator_list {
                    self.visit_expr(&decorator.expression);
                }
                for parameter in function.parameters.iter_non_variadic_params() {
                    if let Some(default) = &parameter.default {
                        self.visit_expr(default);
                    }
                    if let Some(annotation) = &parameter.parameter.annotation {
                        self.visit_expr(annotation);
                    }
                }
                if let Some(returns) = &function.returns {
                    self.visit_expr(returns);
                }
                if self.part == Part::Whole {
                    let mut names = BTreeSet::new();
                    parameter_names(&function.parameters, &mut names);
                    self.functions.push(function);
                    self.inside(names, &function.body);
                    self.functions.pop();
                }
            }
            Stmt::ClassDef(class) => {
                self.bind(class.name.as_str());
                for decorator in &class.decorator_list {
                    self.visit_expr(&decorator.expression);
                }
                if let Some(arguments) = &class.arguments {
                    self.visit_arguments(arguments);
                }
                // The class's own names are no bindings of the module.
                self.scopes.push(Scope::of_class());
                self.visit_body(&class.body);
                self.scopes.pop();
            }
            Stmt::If(branches) => self.branches(branches),
            // A docstring says nothing that runs.
            Stmt::Expr(expression) if matches!(&*expression.value, Expr::StringLiteral(_)) => {}
            Stmt::Try(attempt) => {
                let guarded = attempt.handlers.iter().any(catches_import_error);
                self.optional += usize::from(guarded);
                self.visit_body(&attempt.body);
                for handler in &attempt.handlers {
                    self.visit_except_handler(handler);
                }
                self.optional -= usize::from(guarded);
                self.visit_body(&attempt.orelse);
                self.visit_body(&attempt.finalbody);
            }
            Stmt::Import(import) => {
                for alias in &import.names {
                    let module = alias.name.as_str();
                    let binds = match &alias.asname {
                        Some(name) => name.as_str(),
                        None => module.split('.').next().unwrap_or(module),
                    };
                    self.import(Import {
                        module: module.to_owned(),
                        attribute: None,
                        binds: Some(binds),
                        optional: self.optional > 0,
                        range: alias.range(),
                    });
                }
            }
            Stmt::ImportFrom(from) => {
                let Some(base) = from_base(self.module, from) else {
                    return;
                };
                for alias in &from.names {
                    let name = alias.name.as_str();
                    let binds =
                        (name != "*").then(|| alias.asname.as_ref().map_or(name, |name| name.as_str()));
                    self.import(Import {
                        module: base.clone(),
                        attribute: (name != "*").then_some(name),
                        binds,
                        optional: self.optional > 0,
                        range: from.range(),
                    });
                }
            }
            _ => visitor::walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) => match name.ctx {
                ExprContext::Store => self.bind(name.id.as_str()),
                _ => self.name(name.id.as_str(), Vec::new(), name.range()),
            },
            // What follows a dot is the object's own: `random.sample` uses `random`, and no `sample` of the module.
            Expr::Attribute(attribute) => match chain(expression) {
                Some((name, attributes)) => self.name(name, attributes, expression.range()),
                None => self.visit_expr(&attribute.value),
            },
            Expr::Lambda(lambda) => {
                let mut scope = Scope::default();
                if let Some(parameters) = &lambda.parameters {
                    self.visit_parameters(parameters);
                    parameter_names(parameters, &mut scope.locals);
                }
                self.scopes.push(scope);
                self.visit_expr(&lambda.body);
                self.scopes.pop();
            }
            Expr::ListComp(_) | Expr::SetComp(_) | Expr::DictComp(_) | Expr::Generator(_) => {
                let generators = match expression {
                    Expr::ListComp(comprehension) => &comprehension.generators,
                    Expr::SetComp(comprehension) => &comprehension.generators,
                    Expr::DictComp(comprehension) => &comprehension.generators,
                    Expr::Generator(comprehension) => &comprehension.generators,
                    _ => return,
                };
                let mut scope = Scope::default();
                for generator in generators {
                    stored_names(&generator.target, &mut scope.locals);
                }
                self.scopes.push(scope);
                visitor::walk_expr(self, expression);
                self.scopes.pop();
            }
            Expr::Call(call) => {
                self.call(call);
                visitor::walk_expr(self, expression);
            }
            Expr::StringLiteral(literal) => self.text(literal.value.to_str(), literal.range()),
            Expr::FString(literal) => {
                if let Some(InterpolatedStringElement::Literal(first)) = literal.value.elements().next() {
                    self.text(&first.value, literal.range());
                }
                visitor::walk_expr(self, expression);
            }
            _ => visitor::walk_expr(self, expression),
        }
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        if let Some(name) = captured(pattern) {
            self.bind(name);
        }
        visitor::walk_pattern(self, pattern);
    }
}

/// `a.b.c` as its first name and what follows; `None` where it begins with something else than a name.
fn chain(expression: &Expr) -> Option<(&str, Vec<&str>)> {
    let mut attributes = Vec::new();
    let mut inner = expression;
    while let Expr::Attribute(attribute) = inner {
        attributes.push(attribute.attr.as_str());
        inner = &attribute.value;
    }
    attributes.reverse();
    match inner {
        Expr::Name(name) => Some((name.id.as_str(), attributes)),
        _ => None,
    }
}

impl<'a> Collector<'a> {
    /// `if TYPE_CHECKING:` never runs, nor does `if __name__ == "__main__":` where modules are imported.
    fn branches(&mut self, branches: &'a StmtIf) {
        let test = self.module.text(&*branches.test);
        if !never_runs(test) {
            self.visit_expr(&branches.test);
            let uncertain =
                test.contains("sys.version") || test.contains("sys.platform") || test.contains("os.name");
            self.optional += usize::from(uncertain);
            self.visit_body(&branches.body);
            self.optional -= usize::from(uncertain);
        }
        let uncertain =
            test.contains("sys.version") || test.contains("sys.platform") || test.contains("os.name");
        self.optional += usize::from(uncertain);
        for clause in &branches.elif_else_clauses {
            self.visit_elif_else_clause(clause);
        }
        self.optional -= usize::from(uncertain);
    }
}

pub(super) fn never_runs(test: &str) -> bool {
    matches!(test, "TYPE_CHECKING" | "typing.TYPE_CHECKING" | "False" | "0")
        || (test.starts_with("__name__") && test.contains("__main__"))
}

/// The absolute module that a `from` statement names.
fn from_base(module: &Module, from: &ast::StmtImportFrom) -> Option<String> {
    let named = from.module.as_ref().map(|name| name.as_str());
    if from.level == 0 {
        return named.map(str::to_owned);
    }
    let base = module.relative_base(from.level)?;
    Some(match named {
        Some(name) => format!("{base}.{name}"),
        None => base,
    })
}

fn catches_import_error(handler: &ExceptHandler) -> bool {
    let ExceptHandler::ExceptHandler(handler) = handler;
    let Some(kind) = &handler.type_ else {
        return true;
    };
    let is_import_error = |expression: &Expr| {
        let name = match expression {
            Expr::Name(name) => name.id.as_str(),
            Expr::Attribute(attribute) => attribute.attr.as_str(),
            _ => return false,
        };
        matches!(
            name,
            "ImportError" | "ModuleNotFoundError" | "Exception" | "BaseException" | "OSError"
        )
    };
    match &**kind {
        Expr::Tuple(kinds) => kinds.elts.iter().any(is_import_error),
        kind => is_import_error(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;
    use crate::project::place::SourceText;

    fn found(text: &str) -> (Vec<String>, Vec<String>) {
        let file = (
            "churn.features".to_owned(),
            false,
            SourceText::new("features.py", text),
        );
        let sources = Sources::parse("churn", vec![file], &mut Vec::new());
        let module = sources.get("churn.features").unwrap();
        let (mut names, mut imports) = (Vec::new(), Vec::new());
        for statement in module.body() {
            let uses = uses(module, statement, Part::Whole);
            for found in uses.names {
                let root = match found.root {
                    Root::Name(name) => name.to_owned(),
                    Root::Imported(path) => format!("<{path}>"),
                };
                let parts = std::iter::once(root).chain(found.attributes.iter().map(|a| (*a).to_owned()));
                names.push(parts.collect::<Vec<_>>().join("."));
            }
            for import in uses.imports {
                imports.push(format!(
                    "{}{}",
                    import.path(),
                    if import.optional { "?" } else { "" }
                ));
            }
        }
        (names, imports)
    }

    #[test]
    fn locals_are_not_the_modules_names() {
        let (names, _) = found(
            "def f(a, b=LIMIT):\n    c = a + helper(b)\n    d = [x * SCALE for x in c]\n    g = lambda y: y + OFFSET\n    return d, g\n",
        );
        assert_eq!(names, ["LIMIT", "helper", "SCALE", "OFFSET"]);
        let (names, _) = found("def f():\n    global total\n    total = total + 1\n");
        assert_eq!(names, ["total"]);
    }

    #[test]
    fn imports_are_absolute_and_know_when_they_may_fail() {
        let (_, imports) = found(
            "import a.b\nimport a.b as ab\nfrom . import clean\nfrom .clean import one as uno\ntry:\n    import fast\nexcept ImportError:\n    fast = None\nif TYPE_CHECKING:\n    import mypy\nif sys.version_info >= (3, 11):\n    import tomllib\nelse:\n    import tomli\n",
        );
        assert_eq!(
            imports,
            [
                "a",
                "a.b",
                "churn.clean",
                "churn.clean.one",
                "fast?",
                "tomllib?",
                "tomli?"
            ]
        );
    }

    #[test]
    fn a_functions_own_imports_resolve() {
        let (names, imports) = found("def f(x):\n    from .clean import tidy\n    return tidy(x)\n");
        assert_eq!(names, ["<churn.clean.tidy>"]);
        assert_eq!(imports, ["churn.clean.tidy"]);
    }
}

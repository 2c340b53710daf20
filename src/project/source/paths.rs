//! Constants in calls: which file is opened, which module is imported by name. Only what can be told without running.

use std::path::{Component, Path, PathBuf};

use ruff_python_ast::{Expr, ExprCall, Operator, Stmt};

use super::Module;

/// How far names are followed: `DATA = HERE / "x.csv"`, `HERE = Path(__file__).parent`.
const FOLLOWED: usize = 8;

/// The path that a call opens for reading, relative to the application's folder, if it is a constant inside of it.
pub fn opened(module: &Module, call: &ExprCall) -> Option<String> {
    let path = match &*call.func {
        Expr::Name(name) if name.id.as_str() == "open" => readable(call)?,
        Expr::Attribute(attribute) => match attribute.attr.as_str() {
            // A method of a path.
            "read_text" | "read_bytes" => &attribute.value,
            "open" => match module_name(&attribute.value) {
                Some("io" | "gzip" | "bz2" | "lzma" | "codecs" | "builtins") => readable(call)?,
                Some(_) => return None,
                None => &attribute.value,
            },
            // Of a database, not of a file.
            "read_sql" | "read_sql_query" | "read_sql_table" | "read_clipboard" | "read_gbq"
            | "read_database" => {
                return None;
            }
            name if name.starts_with("read_") || name.starts_with("scan_") => {
                module_name(&attribute.value)
                    .filter(|name| ["pd", "pandas", "pl", "polars", "pq", "gpd"].contains(name))?;
                first_argument(call)?
            }
            "load" | "loadtxt" | "genfromtxt" | "fromfile" => {
                module_name(&attribute.value)
                    .filter(|name| ["np", "numpy", "joblib", "torch"].contains(name))?;
                first_argument(call)?
            }
            _ => return None,
        },
        _ => return None,
    };
    let path = evaluate(module, path, FOLLOWED)?;
    inside(&path)
}

/// The module of `importlib.import_module("x")` or `__import__("x")`.
pub fn imported_by_name(call: &ExprCall) -> Option<String> {
    let named = match &*call.func {
        Expr::Name(name) => matches!(name.id.as_str(), "import_module" | "__import__"),
        Expr::Attribute(attribute) => attribute.attr.as_str() == "import_module",
        _ => false,
    };
    let text = string(first_argument(call).filter(|_| named)?)?;
    let plain = !text.is_empty() && text.split('.').all(super::is_identifier);
    plain.then(|| text.to_owned())
}

/// The first argument of `open`, unless its mode writes.
fn readable(call: &ExprCall) -> Option<&Expr> {
    let keyword = call.arguments.find_keyword("mode").map(|keyword| &keyword.value);
    let mode = call
        .arguments
        .args
        .get(1)
        .or(keyword)
        .and_then(string)
        .unwrap_or("r");
    if mode.contains(['w', 'a', 'x']) {
        return None;
    }
    first_argument(call)
}

fn first_argument(call: &ExprCall) -> Option<&Expr> {
    call.arguments.args.first()
}

fn string(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::StringLiteral(literal) => Some(literal.value.to_str()),
        _ => None,
    }
}

fn module_name(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Name(name) => Some(name.id.as_str()),
        _ => None,
    }
}

/// A path that is a constant: relative to the application's folder. `__file__` is where the module will be in it.
fn evaluate(module: &Module, expression: &Expr, left: usize) -> Option<PathBuf> {
    let left = left.checked_sub(1)?;
    match expression {
        Expr::StringLiteral(literal) => Some(PathBuf::from(literal.value.to_str())),
        Expr::Name(name) if name.id.as_str() == "__file__" => Some(module_file(module)),
        Expr::Name(name) => evaluate(module, constant(module, name.id.as_str())?, left),
        Expr::BinOp(operation) if operation.op == Operator::Div => {
            let right = evaluate(module, &operation.right, left)?;
            Some(evaluate(module, &operation.left, left)?.join(right))
        }
        Expr::Attribute(attribute) if attribute.attr.as_str() == "parent" => {
            Some(evaluate(module, &attribute.value, left)?.parent()?.to_path_buf())
        }
        Expr::Subscript(subscript) => {
            let Expr::Attribute(attribute) = &*subscript.value else {
                return None;
            };
            let index = super::literal::json(&subscript.slice)?
                .as_u64()
                .filter(|index| *index < 32)?;
            (attribute.attr.as_str() == "parents").then_some(())?;
            let path = evaluate(module, &attribute.value, left)?;
            path.ancestors().nth(index as usize + 1).map(Path::to_path_buf)
        }
        Expr::Call(call) => evaluate_call(module, call, left),
        _ => None,
    }
}

fn evaluate_call(module: &Module, call: &ExprCall, left: usize) -> Option<PathBuf> {
    let arguments = &call.arguments.args;
    let joined = |start: PathBuf, rest: &[Expr]| -> Option<PathBuf> {
        rest.iter()
            .try_fold(start, |path, part| Some(path.join(evaluate(module, part, left)?)))
    };
    let name = match &*call.func {
        Expr::Name(name) => name.id.as_str(),
        Expr::Attribute(attribute) => attribute.attr.as_str(),
        _ => return None,
    };
    match name {
        "Path" | "PurePath" | "PosixPath" | "abspath" | "realpath" | "str" | "fspath" => {
            joined(evaluate(module, arguments.first()?, left)?, arguments.get(1..)?)
        }
        "dirname" => Some(
            evaluate(module, arguments.first()?, left)?
                .parent()?
                .to_path_buf(),
        ),
        "join" if matches!(&*call.func, Expr::Attribute(attribute) if is_os_path(&attribute.value)) => {
            joined(evaluate(module, arguments.first()?, left)?, arguments.get(1..)?)
        }
        // importlib.resources: the folder of a package of the project.
        "files" => {
            let dotted = match arguments.first()? {
                Expr::StringLiteral(literal) => literal.value.to_str().to_owned(),
                Expr::Name(name) if name.id.as_str() == "__package__" => package_of(module),
                _ => return None,
            };
            let own = dotted.split('.').next() == module.name.split('.').next();
            own.then(|| dotted.split('.').collect())
        }
        _ => {
            let Expr::Attribute(attribute) = &*call.func else {
                return None;
            };
            let path = evaluate(module, &attribute.value, left)?;
            match name {
                "resolve" | "absolute" | "expanduser" => Some(path),
                "joinpath" => joined(path, arguments),
                "with_name" => Some(path.with_file_name(string(arguments.first()?)?)),
                "with_suffix" => {
                    Some(path.with_extension(string(arguments.first()?)?.trim_start_matches('.')))
                }
                _ => None,
            }
        }
    }
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

/// The value that the module's top level gives a name, if it does so once.
fn constant<'a>(module: &'a Module, name: &str) -> Option<&'a Expr> {
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

/// The path without `.` and `..`; `None` for one that is absolute, a URL, or leads out.
fn inside(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    if text.is_empty() || text.contains("://") || text.contains(['*', '{', '\0']) {
        return None;
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    clean.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::names::{Part, uses};
    use super::super::{Sources, names};
    use crate::project::place::SourceText;

    fn opened(text: &str) -> Vec<String> {
        let file = (
            "churn.features".to_owned(),
            false,
            SourceText::new("features.py", text),
        );
        let sources = Sources::parse("churn", vec![file], &mut Vec::new());
        let module = sources.get("churn.features").unwrap();
        let calls = module
            .body()
            .iter()
            .flat_map(|statement| uses(module, statement, Part::Whole).calls);
        let mut found: Vec<String> = calls.filter_map(|call| super::opened(module, call)).collect();
        found.extend(
            module
                .body()
                .iter()
                .flat_map(|statement| names::uses(module, statement, Part::Whole).calls)
                .filter_map(super::imported_by_name),
        );
        found
    }

    #[test]
    fn constant_paths() {
        let check = |text: &str, expected: &[&str]| assert_eq!(opened(text), expected, "{text}");
        check("open('data/x.csv')", &["data/x.csv"]);
        check("open('out.csv', 'w')", &[]);
        check(
            "Path(__file__).parent.joinpath('r.csv').read_text()",
            &["churn/r.csv"],
        );
        check("pd.read_csv(Path(__file__).with_name('r.csv'))", &["churn/r.csv"]);
        check(
            "HERE = Path(__file__).resolve().parent\nR = HERE / 'lookups' / 'r.json'\njson.load(open(R))",
            &["churn/lookups/r.json"],
        );
        check("(files('churn') / 'r.csv').read_text()", &["churn/r.csv"]);
        check(
            "open(os.path.join(os.path.dirname(__file__), 'r.csv'))",
            &["churn/r.csv"],
        );
        check("np.load(Path(__file__).parents[1] / 'w.npy')", &["w.npy"]);
        check(
            "pd.read_csv('https://host/x.csv')\nopen('/etc/hosts')\nopen(name)\npd.read_sql('select 1', c)",
            &[],
        );
        check("importlib.import_module('lightgbm')", &["lightgbm"]);
    }
}

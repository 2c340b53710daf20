//! Calls that open a file for reading, and modules that are imported by a name in a text. Only what can be told without running.

use std::path::{Component, Path, PathBuf};

use ruff_python_ast::{Expr, ExprCall};

use super::Module;
use super::constants::{At, Constants, Found, string};
use super::names::Call;

/// The files that a call opens for reading, relative to the application's folder, where they are constants inside of it.
pub fn opened<'s>(
    constants: &Constants<'_, 's>,
    module: &'s Module,
    call: &Call<'s>,
) -> Vec<(String, Found)> {
    let Some(path) = path_argument(constants, module, call) else {
        return Vec::new();
    };
    let at = At {
        module,
        within: &call.within,
    };
    let found = constants.paths(at, path).into_iter();
    found
        .filter_map(|found| Some((inside(&found.path)?, found)))
        .collect()
}

/// Which expression of a call is the file that it reads.
fn path_argument<'s>(constants: &Constants<'_, 's>, module: &Module, call: &Call<'s>) -> Option<&'s Expr> {
    let named = call
        .callee
        .as_ref()
        .and_then(|callee| constants.external(module, callee));
    let call = call.call;
    let Some(named) = named else {
        // A method: of a path, where the object turns out to be one.
        let Expr::Attribute(method) = &*call.func else {
            return None;
        };
        return match method.attr.as_str() {
            "read_text" | "read_bytes" => Some(&method.value),
            "open" => (!writes(call, 0)).then_some(&*method.value),
            _ => None,
        };
    };
    let (module, function) = named.rsplit_once('.').unwrap_or(("", &named));
    let package = module.split('.').next().unwrap_or_default();
    match (package, function) {
        ("" | "io" | "gzip" | "bz2" | "lzma" | "codecs" | "builtins", "open") => {
            (!writes(call, 1)).then(|| first_argument(call))?
        }
        // Of a database or a screen, not of a file.
        (
            _,
            "read_sql" | "read_sql_query" | "read_sql_table" | "read_clipboard" | "read_gbq"
            | "read_database",
        ) => None,
        ("pandas" | "polars" | "pyarrow" | "geopandas", name)
            if name.starts_with("read_") || name.starts_with("scan_") =>
        {
            first_argument(call)
        }
        ("numpy" | "joblib" | "torch", "load" | "loadtxt" | "genfromtxt" | "fromfile") => {
            first_argument(call)
        }
        ("PIL", "open") | ("onnxruntime", "InferenceSession") => first_argument(call),
        _ => None,
    }
}

/// The module of `importlib.import_module("x")` or `__import__("x")`.
pub fn imported_by_name(call: &ExprCall) -> Option<String> {
    let named = match &*call.func {
        Expr::Name(name) => matches!(name.id.as_str(), "import_module" | "__import__"),
        Expr::Attribute(attribute) => attribute.attr.as_str() == "import_module",
        _ => false,
    };
    let text = string(call.arguments.args.first().filter(|_| named)?)?;
    let plain = !text.is_empty() && text.split('.').all(super::is_identifier);
    plain.then(|| text.to_owned())
}

/// Whether the mode of an `open`, its argument at `position`, writes.
fn writes(call: &ExprCall, position: usize) -> bool {
    let keyword = call.arguments.find_keyword("mode").map(|keyword| &keyword.value);
    let mode = call.arguments.args.get(position).or(keyword);
    mode.and_then(string)
        .is_some_and(|mode| mode.contains(['w', 'a', 'x']))
}

/// The first argument, or the keyword that it is known by.
fn first_argument(call: &ExprCall) -> Option<&Expr> {
    const NAMES: [&str; 10] = [
        "file",
        "filename",
        "filepath_or_buffer",
        "path_or_buf",
        "path",
        "io",
        "source",
        "fname",
        "fp",
        "f",
    ];
    let keyword = || NAMES.iter().find_map(|name| call.arguments.find_keyword(name));
    call.arguments
        .args
        .first()
        .or_else(|| keyword().map(|keyword| &keyword.value))
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
    use std::collections::BTreeMap;

    use super::super::Sources;
    use super::super::constants::{Constants, Setting};
    use super::super::reach::Index;
    use crate::project::place::SourceText;

    const IMPORTS: &str = "import gzip, io, os\nimport numpy as np\nimport pandas as pd\nimport pandas\nfrom pandas import read_csv\nfrom pathlib import Path\n";

    fn opened_in(files: &[(&str, &str)], settings: &[(&str, &str, Setting)]) -> Vec<String> {
        let files = files.iter().map(|(name, text)| {
            let file = SourceText::new(format!("{name}.py"), *text);
            (format!("churn.{name}"), false, file)
        });
        let sources = Sources::parse("churn", files.collect(), &mut Vec::new());
        let index = Index::new(&sources);
        let mut calls = Vec::new();
        let mut imported = Vec::new();
        for module in sources.iter() {
            for unit in index.units(&module.name) {
                for call in &index.uses(&unit).unwrap().calls {
                    imported.extend(super::imported_by_name(call.call));
                    calls.push((module, call.clone()));
                }
            }
        }
        let mut nodes: BTreeMap<(String, String), BTreeMap<String, Setting>> = BTreeMap::new();
        for (function, parameter, setting) in settings {
            let node = nodes.entry(("churn.features".to_owned(), (*function).to_owned()));
            node.or_default().insert((*parameter).to_owned(), setting.clone());
        }
        let constants = Constants::new(&index, &calls, &nodes);
        let found = calls
            .iter()
            .flat_map(|(module, call)| super::opened(&constants, module, call));
        let mut found: Vec<String> = found.map(|(path, _)| path).collect();
        found.sort();
        found.dedup();
        found.extend(imported);
        found
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let text = format!("{IMPORTS}{text}\n");
        assert_eq!(opened_in(&[("features", &text)], &[]), expected, "{text}");
    }

    #[test]
    fn constant_paths() {
        check("open('data/x.csv')", &["data/x.csv"]);
        check("open('out.csv', 'w')", &[]);
        check("open(mode='w', file='out.csv')", &[]);
        check("open(file='data/x.csv')", &["data/x.csv"]);
        check(
            "Path(__file__).parent.joinpath('r.csv').read_text()",
            &["churn/r.csv"],
        );
        check("pd.read_csv(Path(__file__).with_name('r.csv'))", &["churn/r.csv"]);
        check("read_csv('a.csv')\npandas.read_csv('b.csv')", &["a.csv", "b.csv"]);
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
        check("R = Path('r.csv')\nR.open()\nR.open('w')", &["r.csv"]);
        check(
            "HERE = 'data'\nopen(HERE + '/a.csv')\nopen(f'{HERE}/b.csv')",
            &["data/a.csv", "data/b.csv"],
        );
        check("def open(x): return x\nopen('data/x.csv')", &[]);
        check("importlib.import_module('lightgbm')", &["lightgbm"]);
    }

    #[test]
    fn paths_are_followed_through_parameters() {
        check("def _read(path='a.csv'):\n    return pd.read_csv(path)", &[]);
        check(
            "def _read(path='a.csv'):\n    return pd.read_csv(path)\n_read()",
            &["a.csv"],
        );
        check(
            "def _read(path='a.csv'):\n    return pd.read_csv(path)\n_read('b.csv')",
            &["b.csv"],
        );
        check(
            "def _read(n, *, path):\n    return pd.read_csv(path)\n_read(1, path='b.csv')",
            &["b.csv"],
        );
        check(
            "def _read(path='a.csv'):\n    return pd.read_csv(path)\n_read(*names)\n_read(**names)",
            &[],
        );
        check(
            "def _one(path):\n    path = Path(path)\n    return path.read_text()\ndef _two(name):\n    folder = Path('data')\n    return _one(folder / name)\n_two('c.csv')",
            &["data/c.csv"],
        );
        check(
            "def _read(path='a.csv'):\n    path = other()\n    return pd.read_csv(path)\n_read()",
            &[],
        );
        check(
            "def _read(path='a.csv'):\n    for path in other():\n        pd.read_csv(path)\n_read()",
            &[],
        );
        check(
            "PATH = 'a.csv'\ndef _read(PATH):\n    return pd.read_csv(PATH)\n_read(unknown)",
            &[],
        );
        // Functions that call each other without end.
        check(
            "def _a(path):\n    open(path)\n    _b(path)\ndef _b(path):\n    _a(path)\n_a('x.csv')",
            &["x.csv"],
        );
    }

    #[test]
    fn a_nodes_path_is_its_setting() {
        let text =
            "import pandas as pd\ndef X(customers, path='data/x.csv'):\n    return pd.read_csv(path)\n";
        let found = |setting| opened_in(&[("features", text)], &[("X", "path", setting)]);
        assert_eq!(found(Setting::Default), ["data/x.csv"]);
        assert_eq!(found(Setting::Text("data/other.csv".into())), ["data/other.csv"]);
        assert_eq!(found(Setting::Unknown), [""; 0]);
    }

    #[test]
    fn constants_of_other_modules() {
        let places = "from pathlib import Path\nROOT = Path('data')\nX = ROOT / 'x.csv'\n";
        let text = "import pandas as pd\nfrom churn import places\nfrom .places import ROOT as R\ndef f():\n    pd.read_csv(places.X)\n    pd.read_csv(R / 'y.csv')\ndef g(places):\n    pd.read_csv(places.X)\n";
        let found = opened_in(&[("features", text), ("places", places)], &[]);
        assert_eq!(found, ["data/x.csv", "data/y.csv"]);
    }

    /// A generated file: each of its opens asks for names of a large module, and of a function that is called as often.
    #[test]
    fn a_large_module_is_looked_through_once() {
        let mut text = IMPORTS.to_owned();
        text.push_str("def _read(path):\n");
        for at in 0..4_000 {
            text.push_str(&format!(
                "    open(path)\n    name{at} = unknown()\n    open(name{at})\n"
            ));
        }
        for at in 0..4_000 {
            text.push_str(&format!("X{at} = 'x{at}.csv'\nopen(X{at})\n_read(other{at})\n"));
        }
        assert_eq!(opened_in(&[("features", &text)], &[]).len(), 4_000);
    }
}

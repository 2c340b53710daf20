//! What `check` reads out of the code: which functions are nodes, which files and distributions serving needs without importing them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::driver::{Mlrails, Outcome, copy_of};
use crate::support::road::road;
use crate::support::validator::{merged, validate};

/// A sound project whose files a test replaces.
fn project(home: &Path, files: &[(&str, &str)]) -> PathBuf {
    let folder = copy_of("fixtures/unknown_parameter", home);
    let sound = "def X(customers, spend_stats):\n    return customers\n";
    for (file, text) in [("features.py", sound)].iter().chain(files) {
        let folder = match file.ends_with(".py") {
            true => folder.join("src/shop"),
            false => folder.clone(),
        };
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn check(files: &[(&str, &str)], words: &[&str]) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    let folder = project(home.path(), files);
    Mlrails::new(home.path()).project(&folder).args(words).run()
}

/// The nodes of train.py when `more` stands below the two that are there.
fn trained(more: &str) -> Vec<String> {
    let train = format!(
        "import random\nimport numpy as np\n\n\ndef spend_stats(customers):\n    return 1\n\n\ndef model(X):\n    return 1\n\n\n{more}\n"
    );
    let document = check(&[("train.py", &train)], &["--format", "json", "check"])
        .expect(0)
        .json();
    let nodes = document["nodes"].as_array().unwrap().iter();
    let trained = nodes.filter(|node| node["phase"] == "train");
    let names = trained.map(|node| node["name"].as_str().unwrap().to_owned());
    names.skip(2).collect()
}

#[test]
fn a_name_that_only_looks_like_a_node_makes_no_helper_of_it() {
    let node = "def sample(X):\n    return 1\n";
    #[track_caller]
    fn check(node: &str, more: &str, expected: &[&str]) {
        assert_eq!(trained(&format!("{node}\n\n{more}")), expected, "{more}");
    }
    // What follows a dot is the object's own.
    check(
        node,
        "def other(X):\n    return random.sample(X, 1), X.sample(2), X['a'].sample(3)",
        &["sample", "other"],
    );
    check(
        node,
        "picked = random.sample([1], 1)\nrng = random.Random(1)\nmore = rng.sample([1], 1)",
        &["sample"],
    );
    check(
        "def mean(X):\n    return 1\n",
        "def other(X):\n    return np.mean(X)",
        &["mean", "other"],
    );
    // Keywords, methods and attributes of `self`.
    check(
        node,
        "def other(X):\n    return dict(sample=1)",
        &["sample", "other"],
    );
    check(
        node,
        "class Sampler:\n    def sample(self):\n        return self.sample\n\n    def twice(self):\n        return self.sample()",
        &["sample"],
    );
    // Names of a class are its own.
    check(
        node,
        "class Sampler:\n    sample = 3\n    twice = sample",
        &["sample"],
    );
    // Local names: assigned, captured by a pattern, by `:=`, imported, of a nested function.
    check(
        node,
        "def other(X):\n    sample = X\n    return sample",
        &["sample", "other"],
    );
    check(
        node,
        "def other(X):\n    match X:\n        case {'a': sample, **rest}:\n            return sample\n        case [1, *sample]:\n            return sample",
        &["sample", "other"],
    );
    check(
        node,
        "def other(X):\n    return [y for x in X if (sample := x) for y in sample], sample",
        &["sample", "other"],
    );
    check(
        node,
        "def other(X):\n    from random import sample\n    return sample(X, 1)",
        &["sample", "other"],
    );
    check(
        node,
        "def other(X):\n    def sample(x):\n        return x\n    return sample(X)",
        &["sample", "other"],
    );
    check(
        node,
        "if __name__ == '__main__':\n    sample = random.sample([1], 1)\n    print(sample)",
        &["sample"],
    );
    // A module that is passed around names none of its functions.
    check(
        node,
        "def other(X):\n    from shop import train\n    return dir(train)",
        &["sample", "other"],
    );
    // And what does use it.
    check(node, "def other(X):\n    return sample(X)", &["other"]);
    check(
        node,
        "def other(X):\n    import shop.train\n    return shop.train.sample(X)",
        &["other"],
    );
    check(
        node,
        "def other(X):\n    from shop import train as t\n    return t.sample(X)",
        &["other"],
    );
    check(
        node,
        "class Sampler:\n    def sample(self):\n        return sample(1)",
        &[],
    );
    check(node, "class Sampler:\n    sample = sample", &[]);
    check(node, "if __name__ == '__main__':\n    print(sample(1))", &[]);
}

const FEATURES: &str = "import pandas as pd\n\nfrom .places import rates\n\n\n\
                        def X(customers, spend_stats, path: str = \"data/x.csv\"):\n    return rates(pd.read_csv(path))\n";
const PLACES: &str = "from pathlib import Path\n\nimport pandas as pd\n\nHERE = Path(__file__).parent\n\n\n\
                      def rates(table, file=HERE / \"rates.csv\"):\n    return table.join(pd.read_csv(file))\n";

#[test]
fn a_path_is_followed_from_where_it_is_given_to_where_it_is_opened() {
    let files = [("features.py", FEATURES), ("places.py", PLACES)];
    let outcome = check(&files, &["check"]).expect(1);
    assert_eq!(
        outcome.stderr,
        "\
error: `data/x.csv` is opened while serving and does not ship
 --> src/shop/features.py:7:18
  |
6 | def X(customers, spend_stats, path: str = \"data/x.csv\"):
  |                                           ------------ the path comes from here
7 |     return rates(pd.read_csv(path))
  |                  ^^^^^^^^^^^^^^^^^
  |
  = hint: put x.csv beside the module and open it as Path(__file__).with_name(\"x.csv\"), or add \"data/x.csv\" to [image] include in mlrails.toml

error: `shop/rates.csv` is opened while serving and does not ship
 --> src/shop/places.py:9:23
  |
8 | def rates(table, file=HERE / \"rates.csv\"):
  |                       ------------------ the path comes from here
9 |     return table.join(pd.read_csv(file))
  |                       ^^^^^^^^^^^^^^^^^
  |
  = hint: put rates.csv beside the module and open it as Path(__file__).with_name(\"rates.csv\"), or add \"shop/rates.csv\" to [image] include in mlrails.toml

error: the project has 2 mistakes
"
    );
    // A file beside the module ships; configuration says where the other one is.
    let shipped = [
        &files[..],
        &[
            ("src/shop/rates.csv", "a\n"),
            ("config/base.toml", "[X]\npath = \"lookups/x.csv\"\n"),
            ("mlrails.toml", "[image]\ninclude = [\"lookups\"]\n"),
            ("lookups/x.csv", "a\n"),
        ],
    ]
    .concat();
    let document = check(&shipped, &["--format", "json", "check"]).expect(0).json();
    let opened: Vec<&Value> = document["serving"]["opened"]
        .as_array()
        .unwrap()
        .iter()
        .map(|opened| &opened["path"])
        .collect();
    assert_eq!(opened, ["lookups/x.csv", "shop/rates.csv"]);
    // A secret or a place that only the environment knows is nobody's mistake.
    let environment = [
        &files[..],
        &shipped[2..3],
        &[("config/base.toml", "[X]\npath = \"env:RATES\"\n")],
    ]
    .concat();
    check(&environment, &["check"]).expect(0);
}

const SERVE: &str = "from sqlalchemy import create_engine\n\n\
                     URL = \"postgresql+psycopg://shop:secret@db/shop\"\n\n\n\
                     def predict(model, X) -> list[bool]:\n    \"\"\"Answers, by pyarrow.\"\"\"\n    create_engine(URL)\n    return X.convert_dtypes(dtype_backend=\"pyarrow\")\n";

fn pyproject(dependencies: &str) -> String {
    format!(
        "[project]\nname = \"shop\"\nversion = \"0.1.0\"\nrequires-python = \">=3.11\"\ndependencies = [{dependencies}]\n"
    )
}

#[test]
fn a_driver_that_only_a_text_names_is_told_before_it_is_missed() {
    let declared = pyproject("\"pandas\", \"sqlalchemy\", \"psycopg\", \"pyarrow\"");
    let files = [("serve.py", SERVE), ("pyproject.toml", &declared)];
    let outcome = check(&files, &["check"]).expect(0);
    assert_eq!(
        outcome.stderr,
        "\
warning: src/shop/serve.py:3:7: \"postgresql+psycopg://…\" needs `psycopg`, which is declared and left out, for nothing that serves imports it: add it to [dependencies] keep in mlrails.toml
warning: src/shop/serve.py:9:12: dtype_backend=\"pyarrow\" needs `pyarrow`, which is declared and left out, for nothing that serves imports it: add it to [dependencies] keep in mlrails.toml
"
    );
    let document = check(&files, &["--format", "json", "check"]).expect(0).json();
    assert_eq!(
        document["serving"]["unmet"][0],
        json!({
            "needs": ["psycopg", "psycopg-binary"], "declared": "psycopg", "by": "\"postgresql+psycopg://…\"",
            "place": {"file": "src/shop/serve.py", "line": 3, "column": 7},
        })
    );
    let kept = "[dependencies]\nkeep = [\"psycopg\", \"pyarrow\"]\n";
    let answered = [&files[..], &[("mlrails.toml", kept)]].concat();
    assert_eq!(check(&answered, &["check"]).expect(0).stderr, "");
    let imported = format!("import psycopg\nimport pyarrow\n{SERVE}");
    let answered = [("serve.py", imported.as_str()), files[1]];
    assert_eq!(check(&answered, &["check"]).expect(0).stderr, "");
    // Training may name what it likes.
    let train = format!(
        "{}\n\ndef model(X):\n    return 1\n\n\ndef spend_stats(customers):\n    return 1\n",
        SERVE.replace("predict", "_read").replace("model, X", "X")
    );
    let training = [("train.py", train.as_str()), files[1]];
    let said = check(&training, &["check"]).expect(0).stderr;
    assert!(!said.contains("left out"), "{said}");
}

/// The committed record is of an older version, which listed the standard library's modules too.
#[test]
fn bytecode_is_of_what_serving_loaded_and_of_the_library_that_servers_load() {
    let Some(road) = road("the image's bytecode", &[]) else {
        return;
    };
    let loaded = &road.record()["serving"]["loaded"];
    assert!(loaded["argparse"].is_string() && loaded["pandas"].is_string());
    let paths = merged(&validate(&road.layout()));
    let site = "opt/venv/lib/python3.11/site-packages";
    let library = "usr/lib/python3.11";
    for (path, there) in [
        (
            format!("{site}/pandas/core/__pycache__/frame.cpython-311.pyc"),
            true,
        ),
        (
            format!("{site}/pandas/io/formats/__pycache__/style.cpython-311.pyc"),
            false,
        ),
        (format!("{library}/__pycache__/argparse.cpython-311.pyc"), true),
        (
            format!("{library}/importlib/metadata/__pycache__/__init__.cpython-311.pyc"),
            true,
        ),
        (
            format!("{library}/xmlrpc/__pycache__/client.cpython-311.pyc"),
            false,
        ),
    ] {
        assert_eq!(paths.contains_key(&path), there, "{path}");
    }
}

/// By the image's own plan, for what comes along is known only there.
#[test]
fn an_image_says_what_it_leaves_out_although_the_code_names_it() {
    let Some(road) = road("an image that lacks what a text names", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let serve = project.join("src/churn/serve.py");
    let text = fs::read_to_string(&serve).unwrap();
    let more = "\n\nSTYLE = \"matplotlib\"\nNUMBERS = \"numpy\"\nTABLE = \"https://matplotlib\"\n\n\ndef _table(path):\n    return pandas.read_parquet(path)\n";
    fs::write(
        &serve,
        format!("import pandas\n{text}{more}\n\n_TABLE = _table\n"),
    )
    .unwrap();
    let outcome = road.on(&project, &["image"]).run().expect(0);
    let warned: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("serve.py"))
        .collect();
    let line = text.lines().count() + 4;
    assert_eq!(
        warned,
        [
            format!(
                "warning: src/churn/serve.py:{line}:9: \"matplotlib\" needs `matplotlib`, which is declared and left out, for nothing that \
                 serves imports it: add it to [dependencies] keep in mlrails.toml"
            ),
            format!(
                "warning: src/churn/serve.py:{}:12: pandas.read_parquet needs `pyarrow` or `fastparquet`, and the image has none: declare \
                 it, and add it to [dependencies] keep in mlrails.toml",
                line + 6
            )
        ],
        "{}",
        outcome.stderr
    );
}

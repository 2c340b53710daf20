//! `check`: what it tells of sound projects, and each mistake's whole message.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::driver::{Mlrails, Outcome, copy_of, repository};

fn check(folder: &Path) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    Mlrails::new(home.path()).project(folder).args(["check"]).run()
}

fn check_json(folder: &Path) -> serde_json::Value {
    let home = tempfile::tempdir().unwrap();
    Mlrails::new(home.path())
        .project(folder)
        .args(["--format", "json", "check"])
        .run()
        .json()
}

/// Every fixture that holds an expected-check.txt is checked, and all that is said is compared.
#[test]
fn each_situation_says_exactly_this() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(repository("fixtures"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    for folder in folders {
        let Ok(expected) = fs::read_to_string(folder.join("expected-check.txt")) else {
            continue;
        };
        seen += 1;
        let outcome = check(&folder);
        let said = format!("exit {}\n{}{}", outcome.code, outcome.stdout, outcome.stderr);
        if said != expected {
            wrong.push(format!(
                "{}:\n--- expected\n{expected}\n--- said\n{said}",
                folder.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(seen >= 17, "only {seen} situations were found");
}

#[test]
fn the_cut_of_churn_and_what_training_alone_imports() {
    let document = check_json(&repository("fixtures/churn"));
    assert_eq!(document["cut"]["predict"], "predict");
    assert_eq!(document["cut"]["frozen"], json!(["model", "spend_stats"]));
    assert_eq!(document["cut"]["request"]["node"], "customers");
    assert_eq!(document["mistakes"], json!([]));
    let imports = document["imports"]["imports"].as_array().unwrap();
    let matplotlib = imports
        .iter()
        .find(|found| found["module"] == "matplotlib")
        .unwrap();
    assert_eq!(matplotlib["serving"], false, "only train.py draws");
    let modules = document["serving"]["modules"].as_array().unwrap();
    assert!(
        !modules.contains(&json!("churn.train")),
        "serving never imports train.py"
    );
}

#[test]
fn mistakes_are_data_in_json() {
    let document = check_json(&repository("fixtures/unknown_parameter"));
    assert_eq!(
        document["mistakes"],
        json!([{
            "rule": "unknown-parameter", "node": "X", "parameter": "custmers",
            "known": ["X", "customers", "model", "predict", "spend_stats"],
            "place": {"file": "src/shop/features.py", "line": 1, "column": 7},
            "message": "nothing is called `custmers`, which `X` takes",
            "hint": "did you mean `customers`?",
        }])
    );
    assert_eq!(document["error"]["code"], 1);
}

#[test]
fn all_mistakes_of_a_project_are_told_in_one_run() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/unknown_parameter", home.path());
    fs::write(folder.join("mlrails.toml"), "[imgae]\nbase = 1\n").unwrap();
    fs::create_dir(folder.join("config")).unwrap();
    fs::write(folder.join("config/base.toml"), "[model]\nC = \"one\"\n").unwrap();
    let serve = "import shop.nothing\n\n\ndef predict(modle, X):\n    return X\n";
    fs::write(folder.join("src/shop/serve.py"), serve).unwrap();
    check(&folder).expect(1).says(&[
        "`imgae` is not a key of mlrails.toml",
        "`C` of `model` is a number, and is given \"one\"",
        "nothing is called `custmers`",
        "nothing is called `modle`",
        "`shop.nothing` is imported, and is no module",
        "the project has 5 mistakes",
    ]);
}

#[test]
fn helpers_are_told_from_nodes_by_who_uses_them() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/unknown_parameter", home.path());
    let write = |file: &str, text: &str| fs::write(folder.join("src/shop").join(file), text).unwrap();
    write(
        "features.py",
        "def X(customers, spend_stats):\n    return customers\n",
    );
    // `fit` and `scale` are called; that a helper's parameter is called `scale` makes no node of it. `report` is a node, although an
    // object of someone else's has a method of that name; `walk` calls only itself.
    let train = "import tracker\n\n\ndef scale(v):\n    return v\n\n\ndef fit(data, scale):\n    return scale(data)\n\n\n\
                 def spend_stats(customers):\n    return fit(customers, scale)\n\n\ndef model(X):\n    tracker.report(X)\n    return 1\n\n\n\
                 def report(model):\n    return 2\n\n\ndef walk(customers):\n    return walk(customers)\n\n\n\
                 def main(argv):\n    pass\n\n\nif __name__ == '__main__':\n    main([])\n";
    write("train.py", train);
    let document = check_json(&folder);
    let nodes = document["nodes"]
        .as_array()
        .unwrap_or_else(|| panic!("{document}"));
    let trained: Vec<_> = nodes
        .iter()
        .filter(|node| node["phase"] == "train")
        .map(|node| node["name"].clone())
        .collect();
    assert_eq!(trained, ["spend_stats", "model", "report", "walk"]);
}

#[test]
fn modules_that_are_made_while_running_are_not_missed() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/shadow", home.path());
    let write = |file: &str, text: &str| fs::write(folder.join("src/shop").join(file), text).unwrap();
    write("lazy.py", "import sys\nsys.modules[__name__ + '.parts'] = sys\n");
    write("fast.cpython-311-x86_64-linux-gnu.so", "");
    let mut text = "from shop.lazy.parts import one\nfrom shop import fast\nimport shop.fast\n".to_owned();
    text += "try:\n    import shop.absent\nexcept ImportError:\n    pass\n\n\n";
    text += "def X(customers, spend_stats):\n    return customers\n";
    write("features.py", &text);
    check(&folder).expect(0);
    write("features.py", &text.replace("shop.lazy.parts", "shop.lzay"));
    check(&folder)
        .expect(1)
        .says(&["`shop.lzay` is imported", "did you mean `shop.lazy`?"]);
}

#[test]
fn a_key_of_project_that_nobody_reads_is_a_slip() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/shadow", home.path());
    let path = folder.join("pyproject.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("dependencies =", "dependancies =")).unwrap();
    check(&folder).expect(1).says(&[
        "`dependancies` is not a key of [project]",
        "did you mean `dependencies`?",
    ]);
    fs::write(&path, text + "authors = [{ name = \"A\" }]\nkeywords = [\"a\"]\n").unwrap();
    check(&folder).expect(0);
}

/// A lock whose packages all say what they provide makes an absent module certain.
fn lock(imports_of_pandas: &str) -> String {
    let hash = "0".repeat(64);
    format!(
        "lock-version = \"1.0\"\ncreated-by = \"mlrails\"\n\n[[packages]]\nname = \"pandas\"\nversion = \"2.2.3\"\n\
         wheels = [{{ name = \"pandas-2.2.3-py3-none-any.whl\", path = \"wheels/pandas-2.2.3-py3-none-any.whl\", size = 1, hashes = {{ sha256 = \"{hash}\" }} }}]\n\
         {imports_of_pandas}\n\
         [[packages]]\nname = \"numpy\"\nversion = \"2.1.0\"\n\
         wheels = [{{ name = \"numpy-2.1.0-py3-none-any.whl\", path = \"wheels/numpy-2.1.0-py3-none-any.whl\", size = 1, hashes = {{ sha256 = \"{hash}\" }} }}]\n\
         [packages.tool.mlrails]\nimports = [\"numpy\"]\n"
    )
}

#[test]
fn an_undeclared_import_is_a_mistake_once_the_lock_is_certain() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/undeclared_import", home.path());
    // Without a lock, names are a guess, and a guess fails nothing.
    check(&folder)
        .expect(0)
        .says(&["`lightgbm` is imported: by its name"]);
    let certain = "[packages.tool.mlrails]\nimports = [\"pandas\"]\n";
    fs::write(folder.join("pylock.toml"), lock(certain)).unwrap();
    let outcome = check(&folder).expect(1);
    assert_eq!(
        outcome.stderr,
        "error: `lightgbm` is imported, and no declared dependency provides it
 --> src/shop/features.py:2:8
  |
2 | import lightgbm.basic
  |        ^^^^^^^^^^^^^^
  |
  = hint: add `lightgbm` to dependencies in pyproject.toml and run `mlrails lock`

error: the project has 1 mistake
"
    );
    // One package whose modules are not known might be the one.
    fs::write(folder.join("pylock.toml"), lock("")).unwrap();
    check(&folder)
        .expect(0)
        .says(&["`lightgbm` is imported: no locked distribution is known to provide it"]);
}

#[test]
fn what_is_installed_is_asked_before_names_are_guessed() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/shadow", home.path());
    let site = folder.join(".venv/lib/python3.11/site-packages");
    fs::create_dir_all(site.join("panda_fork-1.0.dist-info")).unwrap();
    let record =
        "pandas/__init__.py,,\npanda_fork-1.0.dist-info/RECORD,,\n_panda.cpython-311-x86_64-linux-gnu.so,,\n";
    fs::write(site.join("panda_fork-1.0.dist-info/RECORD"), record).unwrap();
    let document = check_json(&folder);
    assert_eq!(document["imports"]["known_by"], "installed");
    assert_eq!(
        document["imports"]["imports"][0]["distributions"],
        json!(["panda-fork"])
    );
}

#[test]
fn a_data_file_ships_when_it_is_beside_the_module_or_included() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/data_not_shipped", home.path());
    fs::write(folder.join("src/shop/rates.csv"), "rate\n1\n").unwrap();
    check(&folder)
        .expect(1)
        .says(&["`data/extra.csv` is opened while serving", "has 1 mistake"]);
    fs::write(folder.join("mlrails.toml"), "[image]\ninclude = [\"data\"]\n").unwrap();
    check(&folder).expect(0);
    fs::write(folder.join("mlrails.toml"), "[image]\ninclude = [\"dta\"]\n").unwrap();
    check(&folder)
        .expect(1)
        .says(&["[image] include names `dta`, which does not exist"]);
}

#[test]
fn configuration_may_stand_in_pyproject_but_not_twice() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/shadow", home.path());
    let path = folder.join("pyproject.toml");
    let text = fs::read_to_string(&path).unwrap() + "\n[tool.mlrails.golden]\nrows = 10\n";
    fs::write(&path, text).unwrap();
    check(&folder).expect(0);
    fs::write(folder.join("mlrails.toml"), "").unwrap();
    check(&folder)
        .expect(1)
        .says(&["the project is configured twice"]);
    fs::remove_file(folder.join("mlrails.toml")).unwrap();
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("rows = 10", "rwos = 10");
    fs::write(&path, text).unwrap();
    check(&folder).expect(1).says(&[
        "`rwos` is not a key of [tool.mlrails.golden]",
        "did you mean `rows`?",
    ]);
}

#[test]
fn another_entry_than_serve_py() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/predict_missing", home.path());
    fs::write(
        folder.join("mlrails.toml"),
        "[serve]\nentry = \"shop.serve:predct\"\n",
    )
    .unwrap();
    check(&folder).expect(0);
    fs::write(
        folder.join("mlrails.toml"),
        "[serve]\nentry = \"shop.serve:nothing\"\n",
    )
    .unwrap();
    check(&folder)
        .expect(1)
        .says(&["`shop.serve:nothing` cannot answer: the module has no such function"]);
}

#[test]
fn every_key_is_documented() {
    let documented = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    for key in mlrails::project::config::KEYS {
        let (table, name) = key.split_once('.').unwrap();
        assert!(
            documented.contains(&format!("### [{table}]")),
            "docs/configuration.md lacks [{table}]"
        );
        assert!(
            documented.contains(&format!("`{name}`")),
            "docs/configuration.md lacks {key}"
        );
    }
}

#[test]
fn a_mistake_without_a_place_has_no_lines_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let outcome = check(&home.path().join("absent")).expect(1);
    assert!(!outcome.stderr.contains('|'), "{}", outcome.stderr);
    let folder = copy_of("fixtures/shadow", home.path());
    fs::rename(folder.join("src/shop"), folder.join("src/shup")).unwrap();
    fs::create_dir_all(folder.join("src/data")).unwrap();
    assert_eq!(
        check(&folder).expect(1).stderr,
        "\
error: there is no package `shop`: neither src/shop/ nor shop/ exists
hint: src/shup exists, and the project is called `shop`: rename one of them, or name another entry in [serve] entry of mlrails.toml

error: the project has 1 mistake
"
    );
    fs::remove_dir_all(folder.join("src/shup")).unwrap();
    check(&folder)
        .expect(1)
        .says(&["hint: put the pipeline into src/shop/, with data.py"]);
}

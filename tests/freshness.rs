//! Keys: what changes them and what does not; what `stale` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlrails::project::settings::Overrides;
use mlrails::project::source::graph::Half;
use mlrails::project::{self, Project};

use crate::support::driver::{Mlrails, copy_of, repository};

fn load(folder: &Path) -> Project {
    project::load(folder).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn keys(folder: &Path) -> BTreeMap<String, String> {
    let project = load(folder);
    let settings = project.resolve(Half::Training, &Overrides::default()).unwrap();
    project.keys(&settings).unwrap()
}

/// Names whose key differs between the fixture and its copy with `changes` (file, from, to) applied.
fn changed(fixture: &str, changes: &[(&str, &str, &str)]) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of(&format!("fixtures/{fixture}"), home.path());
    let before = keys(&folder);
    for (file, from, to) in changes {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(from), "{file} holds no {from}");
        let text = if from.is_empty() {
            (*to).to_owned()
        } else {
            text.replace(from, to)
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let after = keys(&folder);
    let names: Vec<&String> = before.keys().collect();
    assert_eq!(names, after.keys().collect::<Vec<_>>());
    before
        .iter()
        .filter(|(name, key)| after[*name] != **key)
        .map(|(name, _)| name.clone())
        .collect()
}

const NONE: [&str; 0] = [];

#[test]
fn layout_comments_and_docstrings_change_nothing() {
    let train = "src/shop/train.py";
    let cases: &[&[(&str, &str, &str)]] = &[
        &[(
            train,
            "    spend = orders[\"spend\"]\n",
            "    # why\n\n    spend = orders[\n        'spend'  # here\n    ]\n",
        )],
        &[(
            train,
            "def model(X, orders, C: float = 1.0):\n",
            "def model(\n    X,\n    orders,\n    C: float = 1.0,\n):\n    \"\"\"Learns.\n\n    A lot.\"\"\"\n\n",
        )],
        &[(
            train,
            "return {\"limit\": float(X.mean()) * C}",
            "return (\n        {\n            \"limit\": float(X.mean()) * C,\n        }\n    )",
        )],
        &[(
            train,
            "def picture(",
            "def _unused(a):\n    return a\n\n\ndef picture(",
        )],
        &[(
            "src/shop/features/_scaling.py",
            "    return (values",
            "    \"\"\"Scales.\"\"\"\n    return (values",
        )],
        &[(
            "sql/orders.sql",
            "select customer, spend\nfrom orders",
            "/* all */ select customer,   spend from orders",
        )],
        &[("src/shop/serve.py", "def predict", "# answers\ndef predict")],
    ];
    for case in cases {
        assert_eq!(changed("sql_and_folders", case), NONE, "{case:?}");
    }
}

#[test]
fn what_a_value_follows_from_changes_it_and_all_that_use_it() {
    let check = |change: (&str, &str, &str), expected: &[&str]| {
        assert_eq!(changed("sql_and_folders", &[change]), expected, "{change:?}");
    };
    let below_stats = ["X", "model", "picture", "predict", "spend_stats"];
    // A helper in another module, reached through an import.
    check(
        (
            "src/shop/features/_scaling.py",
            "/ stats[\"std\"]",
            "/ stats[\"mean\"]",
        ),
        &["X", "model", "picture", "predict"],
    );
    check(("src/shop/train.py", "spend.std()", "spend.var()"), &below_stats);
    check(
        ("src/shop/train.py", "C: float = 1.0", "C: float = 2.0"),
        &["model", "predict"],
    );
    // An import by the same name from elsewhere.
    check(
        (
            "src/shop/train.py",
            "import matplotlib.pyplot as plt",
            "import plotnine as plt",
        ),
        &["picture"],
    );
    check(("src/shop/serve.py", "X > model", "X >= model"), &["predict"]);
    check(
        ("sql/orders.sql", "':nor this'", "':nor  this'"),
        &["X", "model", "orders", "picture", "predict", "spend_stats"],
    );
    // A setting that a file gives.
    check(
        ("config/base.toml", "2026-01-01", "2026-02-01"),
        &["X", "model", "orders", "picture", "predict", "spend_stats"],
    );
    check(
        ("config/train.toml", "", "[model]\nC = 3.0\n"),
        &["model", "predict"],
    );
    // The same value from another place is the same.
    check(("config/train.toml", "", "[model]\nC = 1.0\n"), &[]);
    check(("config/train.toml", "", "[model]\nC = 1\n"), &[]);
    // A module-level name, and a statement that changes it.
    let with_constant = "LIMITS = {\"low\": 0.0}\nLIMITS[\"low\"] = 1.0\n\n\ndef scale(values, stats):\n    values = values.clip(LIMITS[\"low\"])\n";
    check(
        (
            "src/shop/features/_scaling.py",
            "def scale(values, stats):\n",
            with_constant,
        ),
        &["X", "model", "picture", "predict"],
    );
}

#[test]
fn tuples_of_one_and_texts_are_not_layout() {
    let train = "src/shop/train.py";
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/sql_and_folders", home.path());
    let mut seen = BTreeMap::new();
    let text = fs::read_to_string(folder.join(train)).unwrap();
    for value in [
        "X", "(X,)", "(X, X)", "[X]", "[X,]", "X['a']", "X['a',]", "X[\"a\"]", "X['a ']", "f'{X}'",
        "f'{X!r}'", "r'\\n'", "'\\n'", "b'x'", "'x'", "1_0", "10",
    ] {
        let changed = text.replace("{\"limit\": float(X.mean()) * C}", value);
        fs::write(folder.join(train), changed).unwrap();
        seen.entry(keys(&folder)["model"].clone())
            .or_insert_with(Vec::new)
            .push(value);
    }
    let equal: Vec<_> = seen.values().filter(|values| values.len() > 1).cloned().collect();
    let mut equal = equal;
    equal.sort();
    assert_eq!(equal, [vec!["X['a']", "X[\"a\"]"], vec!["[X]", "[X,]"]]);
}

/// Keys are recorded in projects: a newer mlrails must compute the same ones. If this fails, artifacts everywhere turn stale.
#[test]
fn keys_are_the_same_in_every_version() {
    let keys = keys(&repository("fixtures/sql_and_folders"));
    let expected = [
        (
            "X",
            "1:97c0c4f5c87484e25c80fc6e42322ca87daed7b1319e93c5a5601790705f9922",
        ),
        (
            "model",
            "1:7a71ea8ce792f0aaa44555d6dfbb4b9e3ddc143d02570155afe5d89cdb111970",
        ),
        (
            "orders",
            "1:ce4c589713e7aa1097a26329bd3687fe685c5cc5fa3854d61c1ba813275cf8da",
        ),
        (
            "picture",
            "1:f3f4cf2f52d4432d0292b0d064702dcbbf10c75390f25480a815f5678c10a4df",
        ),
        (
            "predict",
            "1:f6f64492a04dbd8ff7a94c37c40ac6deb3fe14782dc078eac586a6bd9693987b",
        ),
        (
            "spend_stats",
            "1:9d57b1c66d918de087cefabb916342e1ce26596f94740bf41d28e26f6075f990",
        ),
    ];
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()))
        .collect();
    assert_eq!(keys, expected);
}

#[test]
fn stale_values_are_named_with_the_reason() {
    let project = load(&repository("fixtures/stale_artifacts"));
    let stale: Vec<(String, String)> = project
        .stale()
        .unwrap()
        .into_iter()
        .map(|stale| (stale.node, stale.why))
        .collect();
    let expected = [
        ("spend_stats", "its code, or code that it uses, changed"),
        ("X", "its input `spend_stats` changed"),
        ("model", "its setting `C` was 0.5 and is 1.0"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(node, why)| ((*node).to_owned(), (*why).to_owned()))
        .collect();
    assert_eq!(stale, expected);
    assert!(!project.golden_is_current().unwrap());
    let home = tempfile::tempdir().unwrap();
    let folder = repository("fixtures/stale_artifacts");
    Mlrails::new(home.path())
        .project(&folder)
        .args(["check"])
        .run()
        .expect(0)
        .says(&["artifacts are stale: `model`: its setting `C` was 0.5 and is 1.0"]);
}

#[test]
fn a_run_with_overrides_is_judged_under_them() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/stale_artifacts", home.path());
    let project = load(&folder);
    let overrides = Overrides {
        set: vec![("model.C".to_owned(), "0.5".to_owned())],
        ..Overrides::default()
    };
    let settings = project.resolve(Half::Training, &overrides).unwrap();
    let keys = project.keys(&settings).unwrap();
    let path = folder.join("artifacts/run.json");
    let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (name, key) in keys {
        record["nodes"][&name]["key"] = key.into();
        record["nodes"][&name]["phase"] = "train".into();
    }
    record["set"] = serde_json::json!([["model.C", "0.5"]]);
    fs::write(&path, record.to_string()).unwrap();
    let project = load(&folder);
    assert_eq!(project.stale().unwrap(), []);
    assert!(project.golden_is_current().unwrap());
}

#[test]
fn settings_come_in_their_order() {
    let home = tempfile::tempdir().unwrap();
    let folder = copy_of("fixtures/shadow", home.path());
    fs::create_dir(folder.join("config")).unwrap();
    let given = |overrides: &Overrides| -> String {
        let project = load(&folder);
        let settings = project
            .resolve(Half::Training, overrides)
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let model = project.graph.training_node("model").unwrap();
        let (name, given) = &settings.of(model)[0];
        format!("{name} = {} by {}", given.value.record(), given.from)
    };
    let mut overrides = Overrides::default();
    assert_eq!(given(&overrides), "C = 1.0 by default");
    fs::write(folder.join("config/base.toml"), "C = 2\n").unwrap();
    assert_eq!(given(&overrides), "C = 2.0 by config/base.toml:1:1");
    fs::write(folder.join("config/base.toml"), "C = 2\n\n[model]\nC = 3\n").unwrap();
    assert_eq!(given(&overrides), "C = 3.0 by config/base.toml:4:1");
    fs::write(folder.join("config/train.toml"), "C = 4\n").unwrap();
    fs::write(folder.join("config/serve.toml"), "C = 40\n").unwrap();
    assert_eq!(given(&overrides), "C = 4.0 by config/train.toml:1:1");
    fs::write(folder.join("config/test.toml"), "[model]\nC = \"env:LIMIT\"\n").unwrap();
    overrides.environment = Some("test".to_owned());
    assert_eq!(given(&overrides), "C = \"env:LIMIT\" by config/test.toml:2:1");
    overrides.variables = vec![("MLRAILS_SET_MODEL__C".to_owned(), "6".to_owned())];
    assert_eq!(given(&overrides), "C = 6.0 by MLRAILS_SET_MODEL__C");
    overrides.set = vec![
        ("C".to_owned(), "7".to_owned()),
        ("model.C".to_owned(), "8.5".to_owned()),
    ];
    assert_eq!(given(&overrides), "C = 8.5 by --set");
    let refused = |overrides: &Overrides| {
        load(&folder)
            .resolve(Half::Training, overrides)
            .unwrap_err()
            .to_string()
    };
    overrides.set = vec![("model.D".to_owned(), "7".to_owned())];
    assert!(refused(&overrides).contains("`--set: model.D` names no setting"));
    overrides.set = vec![("model.C".to_owned(), "high".to_owned())];
    assert!(refused(&overrides).contains("`C` of `model` is a number, and is given \"high\""));
    overrides.set.clear();
    overrides.environment = Some("tset".to_owned());
    assert!(refused(&overrides).contains("there is no environment `tset`"));
}

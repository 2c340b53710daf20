//! Buildpacks: the embedded ones are sound, a project's own are read strictly, and what applies is added up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mlrails::targets::buildpack::{self, Additions, Facts};

use crate::support::small::Small;

fn facts(distributions: &[&str]) -> Facts<'static> {
    Facts {
        distributions: distributions.iter().map(|name| name.parse().unwrap()).collect(),
        ..Facts::default()
    }
}

fn additions(folder: Option<&Path>, facts: &Facts<'_>) -> Additions {
    let all = buildpack::all(folder).unwrap();
    buildpack::merge(&buildpack::detect(&all, facts)).unwrap()
}

#[test]
fn every_file_of_the_folder_is_embedded_under_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let embedded: BTreeSet<String> = buildpack::all(None)
        .unwrap()
        .into_iter()
        .map(|one| format!("{}.toml", one.name))
        .collect();
    assert_eq!(embedded, files);
    // All of them together agree.
    let all = buildpack::all(None).unwrap();
    buildpack::merge(&all.iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn what_a_framework_needs_is_added() {
    let found = additions(None, &facts(&["lightgbm", "pandas", "scikit-learn"]));
    assert_eq!(found.names, ["lightgbm", "scikit-learn"]);
    assert_eq!(found.debian, ["libgomp1".to_owned()].into());
    assert_eq!(
        additions(None, &facts(&["pandas"])),
        Additions::default(),
        "nothing applies, nothing is added"
    );
    let by_format = Facts {
        formats: ["lightgbm".to_owned()].into(),
        ..Facts::default()
    };
    assert_eq!(additions(None, &by_format).names, ["lightgbm"]);
    let by_entry = Facts {
        has_entry: true,
        ..Facts::default()
    };
    assert_eq!(additions(None, &by_entry).names, ["plain-function"]);
}

#[test]
fn a_projects_own_are_read_the_same_way_and_come_first() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "fasttext.toml",
        "name = \"fasttext\"\ndescription = \"\"\n[detect]\nfiles = [\"model.ftz\"]\n[build]\nrequirements = [\"fasttext-wheel>=0.9\"]\n\
         [launch.environment]\nA = \"1\"\n",
    );
    write(
        "lightgbm.toml",
        "name = \"lightgbm\"\ndescription = \"\"\n[detect]\ndistributions = [\"LightGBM\"]\n",
    );
    write("notes.txt", "not a buildpack");
    write("model.ftz", "");
    let facts = Facts {
        root: Some(folder.path()),
        ..facts(&["lightgbm"])
    };
    let found = additions(Some(folder.path()), &facts);
    assert_eq!(found.names, ["fasttext", "lightgbm"]);
    assert!(
        found.debian.is_empty(),
        "the project's own lightgbm replaced the embedded one"
    );
    assert_eq!(found.requirements[0].0.to_string(), "fasttext-wheel>=0.9");
    assert_eq!(found.requirements[0].1, "fasttext");
}

#[test]
fn what_would_be_misread_is_refused() {
    let refused = |text: &str, reason: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.toml"), text).unwrap();
        let error = buildpack::all(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("x.toml") && error.contains(reason), "{error}");
    };
    let with = |rest: &str| format!("name = \"x\"\ndescription = \"\"\n{rest}");
    refused(
        &with("[detect]\ndistribution = [\"a\"]\n"),
        "unknown field `distribution`",
    );
    refused(&with("[detect]\nentry = true\n[run]\n"), "unknown field `run`");
    refused(&with("[detect]\n"), "never apply");
    refused(&with(""), "missing field `detect`");
    refused(&with("[detect]\nfiles = [\"../x\"]\n"), "inside the project");
    refused(&with("[detect]\ndistributions = [\"a b\"]\n"), "a b");
    refused(
        &with("[detect]\nentry = true\n[build]\ndebian = [\"a; rm\"]\n"),
        "not a Debian package's name",
    );
    refused(
        &with("[detect]\nentry = true\n[build]\nrequirements = [\"a >> 1\"]\n"),
        "not a requirement",
    );
    refused(
        &with("[detect]\nentry = true\n[launch.environment]\n\"A=B\" = \"\"\n"),
        "not a variable",
    );
    refused(
        &format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        "",
    );
    refused(&" ".repeat(300 << 10), "larger than");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("x.toml")).unwrap();
    assert!(buildpack::all(Some(folder.path())).is_err());
}

#[test]
fn two_that_disagree_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a", "1"), ("b", "2")] {
        let text = format!(
            "name = \"{name}\"\ndescription = \"\"\n[detect]\nentry = true\n[launch.environment]\nX = \"{value}\"\n"
        );
        fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
    }
    let all = buildpack::all(Some(folder.path())).unwrap();
    let applying = buildpack::detect(
        &all,
        &Facts {
            has_entry: true,
            ..Facts::default()
        },
    );
    let error = buildpack::merge(&applying).unwrap_err().to_string();
    assert_eq!(error, "the buildpacks a and b set X to different values");
}

const OPENMP: &str = "usr/lib/triple/libgomp.so.1";

#[test]
fn a_declared_framework_brings_its_system_library_into_the_locked_base_and_the_image() {
    let bench = Small::new("\"lightgbm\"", "json");
    bench
        .on(&["lock", "--platform", "linux/amd64", "--platform", "linux/arm64"])
        .run()
        .expect(0);
    assert_eq!(bench.has("libgomp1"), [true, true]);
    let (paths, _) = bench.image();
    assert!(paths.iter().any(|path| path == OPENMP), "{paths:?}");
    // xgboost's wheels bring their own.
    let bench = Small::new("\"xgboost\"", "json");
    bench.on(&["lock", "--platform", "linux/amd64"]).run().expect(0);
    assert_eq!(bench.has("libgomp1"), [false]);
    let (paths, _) = bench.image();
    assert!(!paths.iter().any(|path| path == OPENMP));
}

/// What is trained says what serves it, when the framework comes with something else: the base is chosen anew once a run has shown it.
#[test]
fn a_trained_values_format_is_enough() {
    let bench = Small::new("\"boosted\"", "json");
    bench.on(&["lock", "--platform", "linux/amd64"]).run().expect(0);
    assert_eq!(bench.has("libgomp1"), [false]);
    let bench = Small::new("\"boosted\"", "lightgbm");
    let record = fs::read_to_string(bench.folder.join("artifacts/files.json")).unwrap();
    fs::remove_file(bench.folder.join("artifacts/files.json")).unwrap();
    bench.on(&["lock", "--platform", "linux/amd64"]).run().expect(0);
    assert_eq!(bench.has("libgomp1"), [false]);
    bench.write("artifacts/files.json", &record);
    bench
        .on(&["image", "--locked", "--no-bytecode", "--allow-stale"])
        .run()
        .expect(1)
        .says(&["--locked forbids"]);
    let (paths, _) = bench.image();
    assert!(paths.iter().any(|path| path == OPENMP), "{paths:?}");
    assert_eq!(bench.has("libgomp1"), [true]);
}

#[test]
fn an_image_starts_as_its_frameworks_want() {
    let bench = Small::new("\"transformers\"", "json");
    bench.write("src/demo/serve.py", "import transformers\n\n\ndef predict(model, request: list[dict]) -> list[float]:\n    return [1.0 for _ in request]\n");
    bench.write("mlrails.toml", "[image]\nbuildpacks = \"packs\"\n");
    bench.write("packs/pins.toml", "name = \"pins\"\ndescription = \"\"\n[detect]\nformats = [\"json\"]\n[launch.environment]\nOMP_NUM_THREADS = \"2\"\n");
    bench.write("packs/other.toml", "name = \"other\"\ndescription = \"\"\n[detect]\nformats = [\"torch\"]\n[launch.environment]\nOTHER = \"1\"\n");
    bench.on(&["lock", "--platform", "linux/amd64"]).run().expect(0);
    let (_, environment) = bench.image();
    for set in [
        "OMP_NUM_THREADS=2",
        "TOKENIZERS_PARALLELISM=false",
        "PYTHONPATH=/app",
    ] {
        assert!(
            environment.iter().any(|found| found == set),
            "{set}: {environment:?}"
        );
    }
    assert!(
        !environment.iter().any(|set| set.starts_with("OTHER=")),
        "{environment:?}"
    );
    // A framework that is declared and does not serve says nothing of how the image starts.
    bench.write(
        "src/demo/serve.py",
        "def predict(model, request: list[dict]) -> list[float]:\n    return [1.0 for _ in request]\n",
    );
    let (_, environment) = bench.image();
    assert!(
        !environment.iter().any(|set| set.starts_with("TOKENIZERS")),
        "{environment:?}"
    );
}

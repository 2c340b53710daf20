//! `mlrails run`: training in worker processes, golden rows, and artifacts that change only when all went well.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::driver::{Mlrails, Outcome, copy_of, repository};
use crate::support::store::covered;

/// A fixture's copy with an environment, and a home for the binary.
struct Case {
    home: tempfile::TempDir,
    root: PathBuf,
}

impl Case {
    /// With a Python that has no packages: these run wherever python3 is.
    fn plain(fixture: &str) -> Self {
        let case = Self::without_environment(fixture);
        std::os::unix::fs::symlink(bare_environment(), case.root.join(".venv")).unwrap();
        case
    }

    fn without_environment(fixture: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = copy_of(&format!("fixtures/{fixture}"), home.path());
        Self { home, root }
    }

    /// With an environment of its own, into which `module` was installed as a distribution of that name.
    fn with_distributions(fixture: &str, modules: &[(&str, &str, &str)]) -> Self {
        let case = Self::without_environment(fixture);
        make_environment(&case.root.join(".venv"));
        let lib = fs::read_dir(case.root.join(".venv/lib"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let site = lib.path().join("site-packages");
        for (module, code, requires) in modules {
            fs::write(site.join(format!("{module}.py")), code).unwrap();
            let info = site.join(format!("{module}-1.0.dist-info"));
            fs::create_dir(&info).unwrap();
            fs::write(
                info.join("METADATA"),
                format!("Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n{requires}"),
            )
            .unwrap();
            fs::write(
                info.join("RECORD"),
                format!("{module}.py,,\n{module}-1.0.dist-info/METADATA,,\n"),
            )
            .unwrap();
        }
        case
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn replace(&self, path: &str, old: &str, new: &str) -> &Self {
        let text = fs::read_to_string(self.root.join(path)).unwrap();
        assert!(text.contains(old), "{path} lacks `{old}`");
        self.write(path, &text.replace(old, new))
    }

    fn command(&self) -> Mlrails {
        Mlrails::new(self.home.path()).project(&self.root)
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command().args(["run"]).args(arguments).run()
    }

    fn record(&self) -> Value {
        let text = fs::read_to_string(self.root.join("artifacts/run.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Every file of artifacts/ with its content; empty when there is none.
    fn artifacts(&self) -> Vec<(String, Vec<u8>)> {
        let Ok(entries) = fs::read_dir(self.root.join("artifacts")) else {
            return Vec::new();
        };
        let mut found: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    fs::read(entry.path()).unwrap(),
                )
            })
            .collect();
        found.sort();
        found
    }

    /// Nothing of a run is left but artifacts/.
    fn is_tidy(&self) -> bool {
        fs::read_dir(self.root.join(".mlrails/run")).is_ok_and(|mut entries| entries.next().is_none())
    }
}

fn make_environment(folder: &Path) {
    let status = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(folder)
        .status()
        .expect("python3 is on this machine");
    assert!(status.success());
}

fn bare_environment() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        make_environment(folder.path());
        folder
    })
    .path()
}

/// An environment with pandas and scikit-learn, where `make setup` made one.
fn full_environment() -> Option<PathBuf> {
    covered("training in a full environment", &["venv-3.11/bin/python"])
        .then(|| repository("tests/store/venv-3.11"))
}

/// run.json without what differs from run to run: how long, how much.
fn lasting(mut record: Value) -> Value {
    for (_, node) in record["nodes"].as_object_mut().unwrap() {
        node["seconds"] = json!(null);
        node["peak_mb"] = json!(null);
    }
    record
}

#[test]
fn a_run_leaves_values_and_a_record_of_what_they_are() {
    let case = Case::plain("plain_python");
    case.write("artifacts/notes.txt", "kept");
    let outcome = case
        .run(&[])
        .expect(0)
        .says(&["weight_stats", "list of 240", "predict"]);
    assert!(
        outcome.stdout.contains("100 golden rows from parcels"),
        "{}",
        outcome.stdout
    );
    let record = case.record();
    assert_eq!(record["nodes"]["model"]["phase"], "train");
    assert_eq!(record["nodes"]["model"]["settings"], json!({ "column": 1 }));
    assert_eq!(record["nodes"]["model"]["inputs"], json!(["table", "parcels"]));
    assert!(
        record["nodes"]["drawn"].is_object(),
        "all of train.py is a target"
    );
    let request = &record["request"];
    assert_eq!(
        (&request["kind"], &request["node"]),
        (&json!("records"), &json!("parcels"))
    );
    let columns: Vec<(&str, bool, bool)> = request["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            (
                column["name"].as_str().unwrap(),
                column["required"].as_bool().unwrap(),
                column["nullable"].as_bool().unwrap(),
            )
        })
        .collect();
    // `insured` is what is learned, and no field of `Parcel`.
    assert_eq!(
        columns,
        [
            ("weight", false, true),
            ("height", true, false),
            ("kind", true, false)
        ]
    );
    assert_eq!(
        request["columns"][2]["categories"],
        json!(["box", "letter", "tube"])
    );
    assert_eq!(
        record["response"],
        json!({ "kind": "list", "items": { "type": "number" } })
    );
    let rows = record["golden"]["rows"].as_array().unwrap();
    assert_eq!(
        (
            rows.len(),
            record["golden"]["predictions"].as_array().unwrap().len()
        ),
        (100, 100)
    );
    assert!(rows.iter().any(|row| row["weight"].is_null()));
    // No distribution is loaded; the standard library is no business of a record.
    assert_eq!(record["serving"], json!({ "modules": [], "loaded": {} }));
    let files: Value = serde_json::from_slice(&case.artifacts()[1].1).unwrap();
    let formats: Vec<(&str, &str)> = files["values"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value["format"].as_str().unwrap()))
        .collect();
    // A tuple and an object are no JSON; the dict of floats is. Nothing but what serving reads ships.
    assert_eq!(
        formats,
        [
            ("bounds", "pickle"),
            ("model", "pickle"),
            ("weight_stats", "json")
        ]
    );
    for value in files["values"].as_object().unwrap().values() {
        let path = case.root.join("artifacts").join(value["file"].as_str().unwrap());
        let content = fs::read(path).unwrap();
        assert_eq!(value["size"], content.len());
        assert_eq!(value["sha256"], mlrails::digest::Digest::of(&content).hex());
    }
    assert_eq!(
        fs::read_to_string(case.root.join("artifacts/notes.txt")).unwrap(),
        "kept"
    );
    assert!(case.is_tidy());
}

#[test]
fn eight_workers_and_one_give_the_same() {
    let case = Case::plain("plain_python");
    // A node that changes what it was given: the others must not see it.
    case.write(
        "src/plain_python/train.py",
        &(fs::read_to_string(case.root.join("src/plain_python/train.py")).unwrap()
            + "\n\ndef a_vandal(parcels):\n    parcels.clear()\n    return random.random()\n"),
    );
    case.run(&["--jobs", "1"]).expect(0);
    let (one, record) = (case.artifacts(), case.record());
    case.run(&["--jobs", "8"]).expect(0);
    assert_eq!(lasting(case.record()), lasting(record));
    let values = |artifacts: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        artifacts
            .into_iter()
            .filter(|(name, _)| name != "run.json")
            .collect()
    };
    assert_eq!(values(case.artifacts()), values(one));
}

#[test]
fn nodes_that_do_not_need_each_other_run_at_the_same_time() {
    let case = Case::plain("plain_python");
    // Each end of a pipe waits for the other: one after the other, they would wait for ever (the alarm ends that).
    case.write(
        "src/plain_python/train.py",
        &(fs::read_to_string(case.root.join("src/plain_python/train.py")).unwrap()
            + r#"

def sender(parcels):
    signal.alarm(60)
    with open("pipe", "w") as pipe:
        pipe.write("met")
    return signal.alarm(0) and None


def taker(parcels):
    signal.alarm(60)
    with open("pipe") as pipe:
        text = pipe.read()
    signal.alarm(0)
    return text
"#),
    );
    case.replace(
        "src/plain_python/train.py",
        "import random",
        "import random\nimport signal",
    );
    let made = Command::new("mkfifo")
        .arg(case.root.join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    case.run(&["--jobs", "2"]).expect(0);
}

#[test]
fn a_feature_that_uses_its_batch_fails_the_run_by_name() {
    let case = Case::plain("skew_batch_mean");
    case.write("artifacts/run.json", "{\"schema\":1,\"mlrails\":\"0\",\"python\":\"3.11.0\",\"nodes\":{},\"request\":{\"kind\":\"records\"}}");
    let before = case.artifacts();
    let outcome = case.run(&["--format", "json"]).expect(1).says(&[
        "error: `relative_height` is not what it was in training when golden rows are replayed together",
        "it depends on `parcels`",
        "learned in train.py",
    ]);
    let failed = &outcome.json()["failed"]["facts"];
    assert_eq!(
        (&failed["node"], &failed["inputs"]),
        (&json!("relative_height"), &json!(["parcels"]))
    );
    assert_eq!(case.artifacts(), before);
    assert!(case.is_tidy());
}

#[test]
fn a_group_that_belongs_together_is_replayed_together() {
    let case = Case::plain("skew_batch_mean");
    case.replace("src/skew_batch_mean/features.py",
        "    mean = sum(parcel[\"height\"] for parcel in parcels) / len(parcels)\n    return [parcel[\"height\"] / mean for parcel in parcels]",
        "    first = {}\n    for parcel in parcels:\n        first.setdefault(parcel[\"kind\"], []).append(parcel[\"height\"])\n    return [parcel[\"height\"] / max(first[parcel[\"kind\"]]) for parcel in parcels]");
    case.run(&[]).expect(1).says(&["`relative_height`"]);
    case.write("mlrails.toml", "[golden]\ngroup = \"kind\"\nrows = 200\n");
    case.run(&[]).expect(0);
    let kinds: std::collections::BTreeMap<String, usize> = case.record()["golden"]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .fold(Default::default(), |mut kinds, row| {
            *kinds.entry(row["kind"].to_string()).or_default() += 1;
            kinds
        });
    assert_eq!(kinds.len(), 2, "whole groups, as many as fit: {kinds:?}");
    case.write("mlrails.toml", "[golden]\ngroup = \"colour\"\n");
    case.run(&[]).expect(1).says(&["`colour`", "hint"]);
}

#[test]
fn a_failing_node_shows_the_project_s_frames_and_changes_nothing() {
    let case = Case::plain("failing_node");
    let outcome = case.run(&[]).expect(1).says(&[
        "src/failing_node/train.py:5, in mean",
        "    return parse(heights)",
        "src/failing_node/train.py:9, in parse",
        "frames in Python)",
        "error: `mean` failed: JSONDecodeError: Expecting property name",
    ]);
    assert!(!outcome.stderr.contains("mlrails_worker") && !outcome.stderr.contains("decoder.py"));
    assert!(case.artifacts().is_empty() && case.is_tidy());
}

#[test]
fn an_interrupt_ends_all_processes_and_writes_nothing() {
    let case = Case::plain("failing_node");
    case.write(
        "src/failing_node/train.py",
        "import os\nimport subprocess\nimport threading\n\n\ndef mean(heights):\n    child = subprocess.Popen([\"cat\"], stdin=subprocess.PIPE)\n    print(\"started\", os.getpid(), child.pid)\n    threading.Event().wait()\n",
    );
    let mut child = case
        .command()
        .args(["run"])
        .into_command()
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("started") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the node never started");
    }
    let started: Vec<i32> = line
        .split(' ')
        .skip(1)
        .map(|word| word.trim().parse().unwrap())
        .collect();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for process in started {
        // Gone, or a dead one that nobody has looked at yet.
        let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
        assert!(
            state.is_none_or(|state| state == 'Z' || state == 'X'),
            "{process} lives on: {status}"
        );
    }
    assert!(case.artifacts().is_empty() && case.is_tidy());
}

#[test]
fn a_worker_that_dies_is_told_from_a_node_that_fails() {
    let case = Case::plain("failing_node");
    case.write(
        "src/failing_node/train.py",
        "import os\n\n\ndef mean(heights):\n    os.kill(os.getpid(), 9)\n",
    );
    case.run(&[]).expect(1).says(&["`mean`", "signal: 9", "--jobs 1"]);
    case.write(
        "src/failing_node/train.py",
        "def mean(heights):\n    raise SystemExit(0)\n",
    );
    case.run(&[]).expect(1).says(&["`mean` failed: SystemExit: 0"]);
}

#[test]
fn only_what_was_asked_for_runs_and_artifacts_stay() {
    let case = Case::plain("plain_python");
    let outcome = case.run(&["weight_stats"]).expect(0);
    assert!(
        outcome.stdout.starts_with("ran parcels, weight_stats ("),
        "{}",
        outcome.stdout
    );
    assert!(case.artifacts().is_empty());
    case.run(&["weight_stat"]).expect(1).says(&["weight_stats"]);
}

#[test]
fn settings_reach_the_nodes_and_the_record_in_order() {
    let case = Case::plain("plain_python");
    let column = |case: &Case| case.record()["nodes"]["model"]["settings"]["column"].clone();
    case.run(&["-e", "light"]).expect(0);
    assert_eq!(
        (column(&case), &case.record()["environment"]),
        (json!(0), &json!("light"))
    );
    let variable = ("MLRAILS_SET_model__column", "2");
    case.command()
        .args(["run"])
        .env(variable.0, variable.1)
        .run()
        .expect(0);
    assert_eq!(column(&case), 2);
    assert_eq!(case.record()["set"], json!([["model.column", "2"]]));
    case.command()
        .args(["run", "--set", "model.column=0"])
        .env(variable.0, variable.1)
        .run()
        .expect(0);
    assert_eq!(column(&case), 0);
    // What was recorded is what freshness is judged by.
    case.command().args(["check"]).run().expect(0);
    case.run(&["--set", "model"]).expect(2);
    case.run(&["--set", "model.colum=1"])
        .expect(1)
        .says(&["model.column"]);
}

#[test]
fn secrets_are_used_and_not_recorded() {
    let case = Case::plain("plain_python");
    case.replace(
        "src/plain_python/train.py",
        "count: int = 3",
        "count: int = 3, token: str = \"env:TOKEN\", key: str = \"file:key.txt\"",
    )
    .replace(
        "src/plain_python/train.py",
        "    return random.sample",
        "    assert (token, key) == (\"hunter2\", \"swordfish\")\n    return random.sample",
    )
    .write("key.txt", "swordfish\n");
    case.run(&[]).expect(1).says(&["environment variable TOKEN"]);
    case.command()
        .args(["run"])
        .env("TOKEN", "hunter2")
        .run()
        .expect(0);
    let settings = &case.record()["nodes"]["drawn"]["settings"];
    assert_eq!(
        (&settings["token"], &settings["key"]),
        (&json!("env:TOKEN"), &json!("file:key.txt"))
    );
    for (name, content) in case.artifacts() {
        let text = String::from_utf8_lossy(&content).into_owned();
        assert!(!text.contains("hunter2") && !text.contains("swordfish"), "{name}");
    }
}

#[test]
fn a_query_is_a_node_with_bound_parameters() {
    let case = Case::plain("plain_python");
    let sql =
        "select weight, height, kind, insured -- all\nfrom parcels where height < :most and kind <> :hidden";
    case.write("sql/parcels.sql", sql);
    fs::remove_file(case.root.join("src/plain_python/data.py")).unwrap();
    case.write("config/base.toml", "[parcels]\nmost = 50.0\nhidden = \"tube\"\n");
    case.run(&[])
        .expect(1)
        .says(&["`parcels` is a query", "[data] url"]);
    case.write("mlrails.toml", "[data]\nurl = \"env:DATABASE\"\n");
    let with = |url: &str, arguments: &[&str]| {
        case.command()
            .args(["run"])
            .args(arguments)
            .env("DATABASE", url)
            .run()
    };
    with("sqlite:///data/none.db", &[])
        .expect(1)
        .says(&["does not exist"]);
    assert!(!case.root.join("data/none.db").exists());
    let made = Command::new("python3")
        .args(["-c", "import csv, sqlite3; c = sqlite3.connect('data/parcels.db'); c.execute('create table parcels (weight real, height real, kind text, insured int)'); c.executemany('insert into parcels values (?, ?, ?, ?)', [(r['weight'] or None, r['height'], r['kind'], r['insured']) for r in csv.DictReader(open('data/parcels.csv'))]); c.commit()"])
        .current_dir(&case.root)
        .status()
        .unwrap();
    assert!(made.success());
    with("sqlite:///data/parcels.db", &[]).expect(0);
    let record = case.record();
    assert_eq!(
        record["nodes"]["parcels"]["settings"],
        json!({ "most": 50.0, "hidden": "tube" })
    );
    let kinds = || -> std::collections::BTreeSet<String> {
        let record = case.record();
        let rows = record["golden"]["rows"].as_array().unwrap().iter();
        rows.map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds().len(), 2);
    // A parameter is a value, whatever is in it.
    let set = ["--set", "parcels.hidden=' or kind = '"];
    with("sqlite:///data/parcels.db", &set).expect(0);
    assert_eq!(kinds().len(), 3);
    case.write("config/base.toml", "");
    with("sqlite:///data/parcels.db", &[])
        .expect(1)
        .says(&["`:most`", "--set parcels.most"]);
}

#[test]
fn replay_proves_old_artifacts_and_finds_what_changed() {
    let case = Case::plain("plain_python");
    case.run(&["--replay"])
        .expect(1)
        .says(&["nothing to replay", "mlrails run"]);
    case.run(&[]).expect(0);
    let values = case.record();
    case.run(&["--replay"]).expect(0);
    let record = case.record();
    assert_eq!(record["replayed"][0]["python"], record["python"]);
    assert_eq!(record["golden"], values["golden"]);
    case.replace("src/plain_python/features.py", "/ scale", "/ (scale + 1)");
    case.run(&["--replay"])
        .expect(1)
        .says(&["`predict` is not what it was in training"]);
    assert_eq!(case.record(), record);
    // Another value than was trained is not loaded, and a missing one is named.
    let model = case.root.join("artifacts/model.pkl");
    let mut trained = fs::read(&model).unwrap();
    trained.push(b'.');
    fs::write(&model, trained).unwrap();
    case.run(&["--replay"])
        .expect(1)
        .says(&["artifacts/model.pkl", "`model`", "bytes"]);
    fs::remove_file(model).unwrap();
    case.run(&["--replay"])
        .expect(1)
        .says(&["artifacts/model.pkl", "`model`, is missing"]);
}

#[test]
fn a_column_that_is_to_be_withheld_is_not_published_for_a_slip() {
    let case = Case::plain("plain_python");
    case.write("mlrails.toml", "[golden]\nredact = [\"heihgt\"]\n");
    case.run(&[])
        .expect(1)
        .says(&["[golden] redact names `heihgt`", "did you mean `height`?"]);
    assert!(!case.root.join("artifacts/run.json").exists());
    let ignored = fs::read_to_string(case.root.join(".mlrails/.gitignore")).unwrap();
    assert_eq!(ignored, "*\n");
}

#[test]
fn golden_rows_are_as_many_as_asked_for_and_hide_what_is_redacted() {
    let case = Case::plain("plain_python");
    case.write("mlrails.toml", "[golden]\nrows = 12\nredact = [\"height\"]\n");
    case.run(&[]).expect(0);
    let record = case.record();
    let rows = record["golden"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|row| row["height"] == 0.0));
    let kinds: std::collections::BTreeSet<&str> =
        rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 3, "each category is shown");
    let column = record["request"]["columns"][1].as_object().unwrap();
    assert_eq!(column["name"], "height");
    assert!(
        ["minimum", "maximum", "mean"]
            .iter()
            .all(|key| !column.contains_key(*key)),
        "{column:?}"
    );
    // What was recorded is still what the model answers.
    case.run(&["--replay"]).expect(0);
}

#[test]
fn rows_come_from_a_file_or_from_examples_where_training_has_none() {
    let case = Case::plain("plain_python");
    case.write("mlrails.toml", "[golden]\nrows = \"golden.jsonl\"\n")
        .write("golden.jsonl", "{\"weight\": 1.5, \"height\": 20, \"kind\": \"box\"}\n{\"weight\": null, \"height\": 3, \"kind\": \"tube\"}\n");
    case.run(&[]).expect(0);
    assert_eq!(case.record()["golden"]["rows"].as_array().unwrap().len(), 2);
    case.write("golden.jsonl", "not json");
    case.run(&[]).expect(1).says(&["golden rows cannot be read"]);

    // A request that stands for nothing that training knows.
    let case = Case::plain("plain_python");
    case.write(
        "src/plain_python/serve.py",
        "def words(request: list[dict]):\n    return [item[\"text\"].split() for item in request]\n\n\ndef predict(words, weight_stats) -> list[float]:\n    return [len(text) * weight_stats[\"mean\"] for text in words]\n",
    );
    case.run(&[]).expect(0);
    assert_eq!(case.record()["golden"]["rows"], json!([]));
    case.replace("src/plain_python/serve.py", "def words", "def examples():\n    return [{\"text\": \"a b\", \"unread\": 1}, {\"text\": \"c\", \"unread\": 2}]\n\n\ndef words");
    case.run(&[]).expect(0);
    let record = case.record();
    assert_eq!(
        record["golden"]["rows"],
        json!([{ "text": "a b" }, { "text": "c" }])
    );
    assert_eq!(record["request"]["columns"][0]["type"], "string");
}

#[test]
fn what_does_not_survive_saving_is_refused() {
    let case = Case::plain("plain_python");
    case.replace("src/plain_python/tree.py", "    def share", "    def __getstate__(self):\n        return {\"column\": self.column, \"limit\": self.limit + 1, \"shares\": self.shares}\n\n    def share");
    // The spool goes through pickle too, so the object that is compared has lost its field already; what is left to find is a change
    // that happens at each saving.
    case.run(&[])
        .expect(1)
        .says(&["`model` is not the same once it is saved and loaded"]);
    let case = Case::plain("plain_python");
    case.replace(
        "src/plain_python/train.py",
        "    return min(heights), max(heights)",
        "    return min(heights), lambda: max(heights)",
    );
    case.run(&[]).expect(1).says(&[
        "`bounds` returned a builtins.tuple, which cannot be handed to another process",
        "hint: return data",
    ]);
    assert!(case.artifacts().is_empty());
}

#[test]
fn an_answer_that_is_not_one_per_row_is_refused() {
    let case = Case::plain("plain_python");
    case.replace(
        "src/plain_python/serve.py",
        "    return [model.share(row) if low <= row[1] * 10 <= high else 0.0 for row in table]",
        "    return {\"mean\": 1.0}",
    );
    case.run(&[]).expect(1).says(&["one answer per row"]);
}

#[test]
fn the_replay_sees_only_what_serving_reaches() {
    let modules = [
        (
            "asked_for",
            "import inner\nfactor = inner.factor\n",
            "Requires-Dist: inner; python_version > \"3\"\n",
        ),
        ("inner", "factor = 1.0\n", ""),
        ("merely_there", "", ""),
        ("by_name", "factor = 1.0\n", ""),
    ];
    let case = Case::with_distributions("plain_python", &modules);
    case.replace(
        "src/plain_python/features.py",
        "def weight_z",
        "import importlib\n\nimport asked_for\n\ntry:\n    importlib.import_module(\"merely_\" + \"there\")\nexcept ImportError:\n    pass\n\n\ndef weight_z",
    )
    .replace("pyproject.toml", "dependencies = []", "dependencies = [\"asked_for\", \"merely_there\", \"by_name\"]");
    case.run(&[]).expect(0);
    let record = case.record();
    // An import that fails quietly and changes nothing is not needed; what a needed one requires is there.
    assert_eq!(
        record["serving"],
        json!({ "modules": [], "loaded": { "asked_for": "", "inner": "" } })
    );
    let mut versions: Vec<&String> = record["versions"].as_object().unwrap().keys().collect();
    versions.sort();
    assert_eq!(versions, ["asked-for", "inner", "merely-there"]);
    case.replace(
        "src/plain_python/features.py",
        "    mean, spread",
        "    factor = importlib.import_module(\"by_\" + \"name\").factor\n    mean, spread",
    );
    let outcome = case.run(&[]).expect(0);
    assert_eq!(case.record()["serving"]["modules"], json!(["by_name"]));
    assert!(
        outcome.stdout.contains("serving also needs by_name"),
        "{}",
        outcome.stdout
    );
    case.run(&["--replay"]).expect(0);
}

#[test]
fn without_an_environment_it_says_how_to_get_one() {
    let case = Case::without_environment("plain_python");
    case.run(&[])
        .expect(1)
        .says(&[".venv/bin/python does not exist", "mlrails sync"]);
}

#[test]
fn the_example_project_trains_as_it_is_committed() {
    let Some(environment) = full_environment() else {
        return;
    };
    let case = Case::without_environment("churn");
    std::os::unix::fs::symlink(environment, case.root.join(".venv")).unwrap();
    let committed = case.record();
    case.run(&["--replay"]).expect(0);
    case.run(&[]).expect(0);
    let record = case.record();
    assert_eq!(record["request"], committed["request"]);
    assert_eq!(record["golden"]["rows"], committed["golden"]["rows"]);
    let pairs = record["golden"]["predictions"].as_array().unwrap().iter();
    for (now, then) in pairs.zip(committed["golden"]["predictions"].as_array().unwrap()) {
        assert!((now.as_f64().unwrap() - then.as_f64().unwrap()).abs() < 1e-9);
    }
    let keys = |record: &Value| -> Vec<(String, Value)> {
        let nodes = record["nodes"].as_object().unwrap().iter();
        nodes
            .map(|(name, node)| (name.clone(), node["key"].clone()))
            .collect()
    };
    assert_eq!(keys(&record), keys(&committed));
    // The label is what is learned: no request brings it. The missing are missing as they were in training.
    let columns = record["request"]["columns"].as_array().unwrap();
    assert!(columns.len() == 20 && columns.iter().all(|column| column["name"] != "churned"));
    let channel = columns.iter().find(|column| column["name"] == "channel").unwrap();
    assert_eq!(
        (&channel["missing"], &channel["required"]),
        (&json!("nan"), &json!(false))
    );
    assert!(
        record["serving"]["modules"]
            .as_array()
            .unwrap()
            .contains(&json!("pandas"))
    );
    let said = &record["accelerate"]["model"]["predict_proba"];
    assert_eq!(
        (&said["kept"], &said["rows"], &said["answered"]),
        (&json!(true), &json!(10_000), &json!(10_000)),
        "{said}"
    );
    case.write("mlrails.toml", "[serve]\naccelerate = false\n");
    case.run(&[]).expect(0);
    assert_eq!(case.record()["accelerate"], Value::Null);
}

/// A table whose dtypes are all different, through requests and back.
#[test]
fn every_kind_of_column_survives_the_way_through_a_request() {
    let Some(environment) = full_environment() else {
        return;
    };
    let case = Case::without_environment("plain_python");
    std::os::unix::fs::symlink(environment, case.root.join(".venv")).unwrap();
    for unused in ["features.py", "kinds.py", "tree.py"] {
        fs::remove_file(case.root.join("src/plain_python").join(unused)).unwrap();
    }
    case.write("config/base.toml", "").write("config/light.toml", "");
    case.write("src/plain_python/data.py", "import pandas as pd\n\n\ndef things():\n    return pd.DataFrame({\n        \"whole\": [2**53 + 1, 2, 3],\n        \"small\": pd.array([1.5, 2.5, 0.1], dtype=\"float32\"),\n        \"maybe\": pd.array([1, None, 3], dtype=\"Int64\"),\n        \"flag\": [True, False, True],\n        \"perhaps\": pd.array([True, None, False], dtype=\"boolean\"),\n        \"when\": pd.to_datetime([\"2024-01-01\", None, \"2024-05-05T12:30:00.123456\"], format=\"ISO8601\"),\n        \"kind\": pd.Categorical([\"a\", \"b\", None], categories=[\"b\", \"a\", \"c\"]),\n        \"text\": [\"x\", None, \"é\"],\n        \"gap\": [\"x\", float(\"nan\"), \"y\"],\n        \"unread\": [1, 2, 3],\n        \"label\": [0, 1, 0],\n    })\n")
        .write("src/plain_python/train.py", "def shift(things):\n    return float(things[\"label\"].mean())\n")
        .write("src/plain_python/features.py", "NAMES = [\"whole\", \"small\", \"maybe\", \"flag\", \"perhaps\", \"when\", \"kind\", \"text\", \"gap\"]\n\n\ndef shown(things):\n    assert len(things.columns) and len(things)\n    chosen = things.loc[:, NAMES]\n    kinds = \" \".join(str(chosen[name].dtype) for name in NAMES)\n    return [kinds + repr([repr(cell) for cell in row]) for row in chosen.itertuples(index=False, name=None)]\n")
        .write("src/plain_python/serve.py", "def predict(shown, shift) -> list[str]:\n    return [f\"{text} {shift}\" for text in shown]\n");
    case.run(&[]).expect(0);
    let record = case.record();
    let types: Vec<(&str, &str, &str)> = record["request"]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            (
                column["name"].as_str().unwrap(),
                column["type"].as_str().unwrap(),
                column["dtype"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        types,
        [
            ("whole", "integer", "int64"),
            ("small", "number", "float32"),
            ("maybe", "integer", "Int64"),
            ("flag", "boolean", "bool"),
            ("perhaps", "boolean", "boolean"),
            ("when", "datetime", "datetime64[ns]"),
            ("kind", "string", "category"),
            ("text", "string", "object"),
            ("gap", "string", "object"),
        ]
    );
    assert_eq!(
        record["request"]["columns"][6]["categories"],
        json!(["b", "a", "c"])
    );
    // Whatever uses the whole table needs every column that is not only learned from.
    case.replace(
        "src/plain_python/features.py",
        "things.loc[:, NAMES]",
        "things.drop(columns=[\"label\"], errors=\"ignore\")[NAMES]",
    );
    case.run(&[]).expect(0);
    let names: Vec<Value> = case.record()["request"]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].clone())
        .collect();
    assert!(
        names.contains(&json!("unread")) && !names.contains(&json!("label")),
        "{names:?}"
    );
}

/// pandas calls its class `pandas.core.frame.DataFrame` up to version 2, and `pandas.DataFrame` from 3 on.
#[test]
fn a_frame_is_known_by_whatever_name_pandas_gives_it() {
    let Some(environment) = full_environment() else {
        return;
    };
    let script = r#"
from mlrails_worker.table import is_frame
for module, known in {"pandas": True, "pandas.core.frame": True, "pandasql": False, "polars": False}.items():
    made = type("DataFrame", (), {"__module__": module})
    assert is_frame(made()) == known, module
    assert is_frame(type("Customers", (made,), {})()) == known, module
"#;
    let output = std::process::Command::new(environment.join("bin/python"))
        .args(["-c", script])
        .env("PYTHONPATH", repository("templates/worker"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

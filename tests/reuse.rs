//! A machine with nothing but the project: what an image in a registry has is not downloaded, and what was put there by somebody
//! else is not believed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlrails::digest::Digest;
use serde_json::{Value, json};

use crate::support::driver::{Mlrails, Outcome};
use crate::support::registry::{Asked, Server, Settings};
use crate::support::road::{Road, road};
use crate::support::small::Small;
use crate::support::validator::validate;

/// An index and a mirror that refuse, and count.
struct Refusing {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Refusing {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                // Closed without a word: no download, no range, no HEAD.
                drop(stream);
            }
        });
        Self { url, asked }
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The project, its image in a registry as `:1`, and a machine that has neither wheels nor base.
struct Machine {
    road: &'static Road,
    project: PathBuf,
    registry: Server,
    refusing: Refusing,
    scratch: tempfile::TempDir,
    homes: usize,
}

impl Machine {
    fn new(what: &str) -> Option<Self> {
        let road = road(what, &[])?;
        let scratch = tempfile::tempdir().unwrap();
        let machine = Self {
            road,
            project: road.copy(scratch.path()),
            registry: Server::start(Settings::default()),
            refusing: Refusing::start(),
            scratch,
            homes: 0,
        };
        machine
            .warm(&["--tag", &machine.name("churn:1"), "--push"])
            .expect(0);
        Some(machine)
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host)
    }

    /// `image` where everything is at hand.
    fn warm(&self, words: &[&str]) -> Outcome {
        self.road.on(&self.project, &[&["image"], words].concat()).run()
    }

    /// `image` with an empty cache, and nobody to download from.
    fn empty(&mut self, words: &[&str]) -> Outcome {
        self.homes += 1;
        let home = self.scratch.path().join(format!("home{}", self.homes));
        std::fs::create_dir_all(&home).unwrap();
        Mlrails::new(&home)
            .env("UV_DEFAULT_INDEX", &self.refusing.url)
            .env("MLRAILS_DEBIAN_MIRROR", &self.refusing.url)
            .env("MLRAILS_DEBIAN_SNAPSHOT", "off")
            .project(&self.project)
            .args(["image"].iter().chain(words))
            .run()
    }

    fn edit(&self, file: &str, edit: impl FnOnce(String) -> String) {
        let path = self.project.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, edit(text)).unwrap();
    }

    /// The manifest and config that `name` has now.
    fn image(&self, repository: &str, name: &str) -> (Value, Value) {
        let manifest: Value =
            serde_json::from_slice(&self.registry.manifest(repository, name).unwrap()).unwrap();
        let config: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
        let config = self.registry.blob(repository, config).unwrap();
        (manifest, serde_json::from_slice(&config).unwrap())
    }

    /// Replaces the image `churn:1` by one that somebody else made of it.
    fn poison(&self, change: impl FnOnce(&mut Value, &mut Value)) {
        let (mut manifest, mut config) = self.image("churn", "1");
        change(&mut manifest, &mut config);
        let config = serde_json::to_vec(&config).unwrap();
        manifest["config"]["size"] = json!(config.len());
        manifest["config"]["digest"] = json!(self.registry.put_blob("churn", &config));
        self.registry
            .put_manifest("churn", "1", &serde_json::to_vec(&manifest).unwrap());
    }
}

/// The layers that an image says it has.
fn claims(config: &Value) -> Vec<Value> {
    serde_json::from_str(config["config"]["Labels"]["dev.mlrails.layers"].as_str().unwrap()).unwrap()
}

fn claim(config: &mut Value, change: impl FnOnce(&mut Vec<Value>)) {
    let mut listed = claims(config);
    change(&mut listed);
    config["config"]["Labels"]["dev.mlrails.layers"] = json!(json!(listed).to_string());
}

/// What the registry was asked since the last call, with how much came and went.
struct Traffic {
    asked: Vec<Asked>,
    received: usize,
    sent: usize,
}

impl Machine {
    fn traffic(&self, sent_before: usize) -> Traffic {
        let asked = self.registry.asked();
        Traffic {
            received: asked.iter().map(|one| one.read).sum(),
            sent: self.registry.sent() - sent_before,
            asked,
        }
    }
}

impl Traffic {
    #[track_caller]
    fn is_small(&self) {
        assert!(self.asked.len() < 30, "{}: {:#?}", self.asked.len(), self.asked);
        assert!(self.received < 1_000_000, "{}", self.received);
        assert!(self.sent < 1_000_000, "{}", self.sent);
    }
}

#[test]
fn a_code_change_downloads_nothing_and_sends_the_code() {
    let Some(mut machine) = Machine::new("a rebuild on an empty machine") else {
        return;
    };
    machine.edit("src/churn/serve.py", |text| format!("{text}\n\nNOTE = 1\n"));
    let tag = machine.name("churn:1");
    let (_, sent) = (machine.registry.asked(), machine.registry.sent());
    let built = machine
        .empty(&["--tag", &tag, "--push", "--locked", "--explain"])
        .expect(0);
    machine.traffic(sent).is_small();
    assert_eq!(machine.refusing.count(), 0, "{}", built.stderr);
    let built = built.says(&[
        "mlrails.sum vouches for it",
        "bytecode of",
        "made: the project has changed",
    ]);
    // The very image that a machine with everything makes.
    let layout = machine.scratch.path().join("layout");
    let warm = machine.warm(&["--output", layout.to_str().unwrap()]).expect(0);
    assert_eq!(warm.stdout, built.stdout);
}

#[test]
fn a_distribution_that_leaves_downloads_nothing() {
    let Some(mut machine) = Machine::new("a distribution that leaves, on an empty machine") else {
        return;
    };
    let tag = machine.name("churn:1");
    let import = |text: String| format!("import matplotlib\n{text}");
    machine.edit("src/churn/serve.py", import);
    machine.warm(&["--tag", &tag, "--push"]).expect(0);
    let (_, with) = machine.image("churn", "1");
    assert!(json!(claims(&with)).to_string().contains("matplotlib"));
    machine.edit("src/churn/serve.py", |text| {
        text.replace("import matplotlib\n", "# none\n")
    });
    let (_, sent) = (machine.registry.asked(), machine.registry.sent());
    let built = machine.empty(&["--tag", &tag, "--push", "--locked"]).expect(0);
    machine.traffic(sent).is_small();
    assert_eq!(machine.refusing.count(), 0, "{}", built.stderr);
    let (_, without) = machine.image("churn", "1");
    let titles = json!(claims(&without)).to_string();
    assert!(!titles.contains("matplotlib"), "{titles}");
}

#[test]
fn trained_values_need_not_be_there() {
    let Some(mut machine) = Machine::new("trained values that are only in the image") else {
        return;
    };
    let tag = machine.name("churn:1");
    machine.edit("artifacts/files.json", |text| {
        let mut files: Value = serde_json::from_str(&text).unwrap();
        files["values"]["model"]["modules"] = json!(["numpy.core.multiarray", "sklearn.pipeline"]);
        serde_json::to_string_pretty(&files).unwrap()
    });
    for name in ["model.joblib", "spend_stats.json"] {
        std::fs::remove_file(machine.project.join("artifacts").join(name)).unwrap();
    }
    machine.empty(&["--tag", &tag, "--push", "--locked"]).expect(0);
    assert_eq!(machine.refusing.count(), 0);
    machine
        .empty(&["--tag", &tag, "--push", "--no-reuse"])
        .expect(1)
        .says(&["artifacts/", "is missing"]);
}

#[test]
fn another_repository_of_the_registry_is_mounted_from() {
    let Some(mut machine) = Machine::new("layers in another repository") else {
        return;
    };
    let (tag, from) = (machine.name("other:2"), machine.name("churn:1"));
    let (_, sent) = (machine.registry.asked(), machine.registry.sent());
    machine
        .empty(&["--tag", &tag, "--push", "--locked", "--cache-from", &from])
        .expect(0);
    assert_eq!(machine.refusing.count(), 0);
    let traffic = machine.traffic(sent);
    assert!(traffic.received < 1_000_000 && traffic.sent < 1_000_000);
    let mounts = traffic
        .asked
        .iter()
        .filter(|one| one.path.contains("mount="))
        .count();
    assert!(mounts >= 3, "{mounts}");
    let (one, other) = (machine.image("churn", "1"), machine.image("other", "2"));
    assert_eq!(one.0["layers"], other.0["layers"]);
    // A destination that is no registry gets the bytes from there.
    let layout = machine.scratch.path().join("layout");
    let brought = machine.empty(&["--output", layout.to_str().unwrap(), "--cache-from", &from]);
    assert_eq!(brought.expect(0).stdout.trim(), machine.road.digest());
    validate(&layout);
    assert_eq!(machine.refusing.count(), 0);
}

/// Every platform's image of an index, on a machine that has nothing: from the tag that is pushed to, and from another repository.
#[test]
fn an_index_of_two_platforms_is_reused() {
    let small = Small::new("\"xgboost\"", "json");
    let serve = |note: &str| {
        let predict =
            "def predict(model, request: list[dict]) -> list[float]:\n    return [1.0 for _ in request]\n";
        small.write(
            "src/demo/serve.py",
            &format!("import xgboost\n\n\n{predict}{note}"),
        );
    };
    serve("");
    let platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    small.on(&[&["lock"][..], &platforms].concat()).run().expect(0);
    let (registry, refusing) = (Server::start(Settings::default()), Refusing::start());
    let image = |name: &str, more: &[&str]| {
        let tag = format!("{}/{name}", registry.host);
        let words = ["image", "--no-bytecode", "--allow-stale", "--push", "--tag", &tag];
        [&words[..], &platforms, more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let warm = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        small.on(&words).run().expect(0)
    };
    let empty = |words: Vec<String>| {
        let home = tempfile::tempdir().unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (_, sent) = (registry.asked(), registry.sent());
        let outcome = small
            .from(home.path(), &refusing.url, &refusing.url, &words)
            .run()
            .expect(0);
        assert_eq!(refusing.count(), 0, "{}", outcome.stderr);
        let asked = registry.asked();
        let received: usize = asked.iter().map(|one| one.read).sum();
        assert!(received < 200_000 && registry.sent() - sent < 200_000);
        (outcome, asked)
    };
    warm(image("demo:1", &[]));
    serve("\n\nNOTE = 1\n");
    let (built, asked) = empty(image("demo:1", &["--locked"]));
    assert!(asked.len() < 30, "{}: {asked:#?}", asked.len());
    let index: Value = serde_json::from_slice(&registry.manifest("demo", "1").unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    let from = format!("{}/demo:1", registry.host);
    let (elsewhere, asked) = empty(image("other:1", &["--locked", "--cache-from", &from]));
    assert!(asked.iter().any(|one| one.path.contains("mount=")), "{asked:#?}");
    // The very index that a machine with everything makes.
    let known = warm(image("demo:1", &[]));
    assert_eq!([&built.stdout, &elsewhere.stdout], [&known.stdout, &known.stdout]);
}

#[test]
fn what_mlrails_sum_does_not_know_is_unproven() {
    let Some(mut machine) = Machine::new("layers that nobody vouches for") else {
        return;
    };
    std::fs::remove_file(machine.project.join("mlrails.sum")).unwrap();
    let tag = machine.name("churn:1");
    machine
        .empty(&["--tag", &tag, "--push", "--locked"])
        .expect(1)
        .says(&["mlrails.sum does not vouch for the layer"]);
    machine
        .empty(&["--tag", &tag, "--push"])
        .expect(0)
        .says(&["unproven"]);
    let made = std::fs::read_to_string(machine.project.join("mlrails.sum")).unwrap_or_default();
    assert_eq!(made, "", "what was not made from bytes is not vouched for");
    // Of an image that is not the target's, nothing unproven is taken: it would have to be downloaded.
    let (other, from) = (machine.name("other:1"), machine.name("churn:1"));
    machine
        .empty(&["--tag", &other, "--push", "--cache-from", &from])
        .expect(3);
    assert!(machine.refusing.count() > 0);
}

#[test]
fn without_reuse_and_without_an_image_layers_are_made() {
    let Some(mut machine) = Machine::new("a build without reuse") else {
        return;
    };
    let tag = machine.name("churn:1");
    machine.empty(&["--tag", &tag, "--push", "--no-reuse"]).expect(3);
    assert!(machine.refusing.count() > 0);
    // Foreign: an image of somebody else's is no source, and no mistake.
    machine.poison(|_, config| {
        config["config"]["Labels"].as_object_mut().unwrap().clear();
    });
    let before = machine.refusing.count();
    machine
        .empty(&["--tag", &machine.name("none:1"), "--push"])
        .expect(3);
    assert!(machine.refusing.count() > before, "there is no image yet");
    // Nothing vouches, so that the blobs themselves are no answer either.
    std::fs::remove_file(machine.project.join("mlrails.sum")).unwrap();
    machine
        .empty(&["--tag", &tag, "--push"])
        .expect(3)
        .says(&["mlrails did not make it"]);
    machine.warm(&["--tag", &tag, "--push"]).expect(0);
}

/// Each is refused by name, and nothing is downloaded or pushed.
#[test]
fn poisoned_images_are_refused() {
    let Some(mut machine) = Machine::new("poisoned images") else {
        return;
    };
    type Change = fn(&mut Value, &mut Value, &str);
    let cases: [(&str, Change, &[&str]); 9] = [
        (
            "a foreign digest",
            |manifest, config, foreign| {
                manifest["layers"][1]["digest"] = json!(foreign);
                claim(config, |claims| claims[1]["digest"] = json!(foreign));
            },
            &["with the digest", "mlrails.sum says"],
        ),
        (
            "a foreign digest in the manifest alone",
            |manifest, _, foreign| manifest["layers"][1]["digest"] = json!(foreign),
            &["layer 2 of", "should have the digest"],
        ),
        (
            "a foreign diff_id",
            |_, config, foreign| {
                config["rootfs"]["diff_ids"][1] = json!(foreign);
                claim(config, |claims| claims[1]["diff_id"] = json!(foreign));
            },
            &["with the diff_id", "mlrails.sum says"],
        ),
        (
            "a foreign diff_id in the config alone",
            |_, config, foreign| config["rootfs"]["diff_ids"][1] = json!(foreign),
            &["layer 2 of", "should have the diff_id"],
        ),
        (
            "another size",
            |manifest, config, _| {
                manifest["layers"][1]["size"] = json!(7);
                claim(config, |claims| claims[1]["size"] = json!(7));
            },
            &["with the size 7", "mlrails.sum says"],
        ),
        (
            "another order",
            |manifest, config, _| {
                manifest["layers"].as_array_mut().unwrap().swap(1, 2);
                config["rootfs"]["diff_ids"].as_array_mut().unwrap().swap(1, 2);
            },
            &["layer 2 of", "should have the digest"],
        ),
        (
            "an extra layer",
            |manifest, config, foreign| {
                let layers = manifest["layers"].as_array_mut().unwrap();
                let mut extra = layers[0].clone();
                extra["digest"] = json!(foreign);
                layers.push(extra);
                config["rootfs"]["diff_ids"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!(foreign));
            },
            &["layers in its label, and has"],
        ),
        (
            "a variable that no image of ours sets",
            |_, config, _| {
                let variables = config["config"]["Env"].as_array_mut().unwrap();
                variables.push(json!("LD_PRELOAD=/app/x.so"));
            },
            &["it sets the variable `LD_PRELOAD`"],
        ),
        (
            "another entrypoint",
            |_, config, _| config["config"]["Entrypoint"] = json!(["/bin/sh"]),
            &["it has another entrypoint"],
        ),
    ];
    let tag = machine.name("churn:1");
    let sound = machine.registry.manifest("churn", "1").unwrap();
    let foreign = machine.registry.put_blob("churn", b"somebody else's").to_string();
    for (what, change, said) in cases {
        machine.registry.put_manifest("churn", "1", &sound);
        machine.poison(|manifest, config| change(manifest, config, &foreign));
        let poisoned = machine.registry.manifest("churn", "1").unwrap();
        let outcome = machine.empty(&["--tag", &tag, "--push"]);
        assert_eq!(outcome.code, 1, "{what}: {}", outcome.stderr);
        outcome.says(said);
        assert_eq!(
            machine.registry.manifest("churn", "1").unwrap(),
            poisoned,
            "{what}"
        );
    }
    assert_eq!(machine.refusing.count(), 0);
}

#[test]
fn inspect_shows_what_is_in_an_image_without_pulling_it() {
    let Some(machine) = Machine::new("inspect") else {
        return;
    };
    let tag = machine.name("churn:1");
    machine.registry.asked();
    let inspect = |what: &str, more: &[&str]| {
        let words = [&["inspect", what][..], more].concat();
        machine.road.on(&machine.project, &words).run().expect(0)
    };
    let text = inspect(&tag, &[]).stdout;
    let asked = machine.registry.asked().len();
    assert!(asked <= 3, "{asked}");
    for part in [
        "pandas 2",
        "scikit-learn requires it",
        "left out",
        "matplotlib",
        "unpacked",
        "MB",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let layout = machine.road.layout();
    let (there, here) = (
        inspect(&tag, &["--format", "json"]).json(),
        inspect(layout.to_str().unwrap(), &["--format", "json"]).json(),
    );
    assert_eq!(there["images"], here["images"]);
    assert_eq!(here["digest"], machine.road.digest());
    assert_eq!(here["images"][0]["made_by_mlrails"], true);
    machine.poison(|_, config| {
        config["config"]["Labels"].as_object_mut().unwrap().clear();
    });
    let foreign = inspect(&tag, &[]).stdout;
    assert!(foreign.contains("mlrails did not make this image"), "{foreign}");
}

//! A base that a registry holds: what of it is locked, what travels, and what is refused.

use std::path::PathBuf;

use mlrails::digest::Digest;
use serde_json::{Value, json};

use crate::support::driver::{Mlrails, Outcome};
use crate::support::registry::{Server, Settings};
use crate::support::road::{Road, blob, image_of, road};

/// The project, and a registry with bases that other people made.
struct Bench {
    road: &'static Road,
    project: PathBuf,
    registry: Server,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(what: &str) -> Option<Self> {
        let road = road(what, &[])?;
        let scratch = tempfile::tempdir().unwrap();
        Some(Self {
            road,
            project: road.copy(scratch.path()),
            registry: Server::start(Settings::default()),
            scratch,
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host)
    }

    fn image(&self, words: &[&str]) -> Outcome {
        self.road.on(&self.project, &[&["image"], words].concat()).run()
    }

    /// An image of `layers`, tars lowest first, as `docker push` leaves one.
    fn put(&self, repository: &str, tag: &str, layers: &[(&[u8], Digest, &str)], environment: &[&str]) {
        let listed: Vec<Value> = layers
            .iter()
            .map(|(blob, _, form)| {
                let digest = self.registry.put_blob(repository, blob);
                let media_type = format!("application/vnd.docker.image.rootfs.diff.{form}");
                json!({"mediaType": media_type, "digest": digest, "size": blob.len()})
            })
            .collect();
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "config": {"Env": environment, "Entrypoint": ["/theirs"], "User": "theirs", "Labels": {"theirs": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(_, id, _)| id).collect::<Vec<_>>()},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": self.registry.put_blob(repository, &config), "size": config.len(),
            },
            "layers": listed,
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        self.registry.put_manifest(repository, tag, &bytes);
    }

    /// `base/python:3.11`: the layer of Debian with Python that the road has, as somebody's image, and a layer above it.
    fn put_python(&self) {
        let (manifest, config) = image_of(&self.road.layout());
        let digest = manifest["layers"][0]["digest"].as_str().unwrap();
        let debian = std::fs::read(blob(&self.road.layout(), digest)).unwrap();
        let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap().parse().unwrap();
        let above = tar_of(&[(
            "usr/local/include/python3.11/patchlevel.h",
            "#define PY_VERSION \"3.11.99\"\n",
        )]);
        let layers = [
            (&debian[..], diff_id, "tar.gzip"),
            (&above, Digest::of(&above), "tar"),
        ];
        self.put("base/python", "3.11", &layers, &["PATH=/usr/bin", "THEIRS=yes"]);
    }

    fn locked(&self) -> toml::Table {
        let text = std::fs::read_to_string(self.project.join("pylock.toml")).unwrap();
        let lock: toml::Table = text.parse().unwrap();
        lock["tool"]["mlrails"]["base"].as_table().unwrap().clone()
    }

    /// What the registry was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        let asked = self.registry.asked().into_iter();
        asked.map(|one| format!("{} {}", one.method, one.path)).collect()
    }
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_image_stands_on_somebody_elses_base() {
    let Some(bench) = Bench::new("an image on a base from a registry") else {
        return;
    };
    bench.put_python();
    let base = bench.name("base/python:3.11");
    // Its interpreter is nobody's to run here before the project says so.
    bench
        .image(&["--base", &base])
        .expect(0)
        .says(&["no bytecode layers", "[image] base-bytecode = true"]);
    std::fs::write(
        bench.project.join("mlrails.toml"),
        "[image]\nbase-bytecode = true\n",
    )
    .unwrap();
    bench
        .image(&["--base", &base, "--verify"])
        .expect(0)
        .says(&["golden rows are answered by the image as in training"]);
    let locked = bench.locked();
    assert_eq!(locked["kind"].as_str(), Some("registry"));
    assert_eq!(locked["reference"].as_str(), Some(base.as_str()));
    assert_eq!(locked["python-path"].as_str(), Some("/usr/bin/python3.11"));
    assert_eq!(locked["glibc"].as_str(), Some("2.36"));
    let manifest = bench.registry.manifest("base/python", "3.11").unwrap();
    assert_eq!(
        locked["digests"]["linux/amd64"].as_str(),
        Some(Digest::of(&manifest).to_string().as_str())
    );

    let layout = bench.project.join("dist/churn");
    let (manifest, config) = image_of(&layout);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    for layer in manifest["layers"].as_array().unwrap() {
        let kind = layer["mediaType"].as_str().unwrap();
        assert!(kind.starts_with("application/vnd.docker."), "{kind}");
    }
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_ne!(config["config"]["Entrypoint"], json!(["/theirs"]));
    let text = config["config"].to_string();
    assert!(!text.contains("THEIRS") && !text.contains("\"theirs\""), "{text}");
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.base.name"],
        base
    );
    assert_eq!(
        config["config"]["Labels"]["org.opencontainers.image.base.digest"],
        locked["digests"]["linux/amd64"].as_str().unwrap()
    );

    // The interpreter is the one of Debian's packages, here in somebody's layers: it compiles to the same bytecode.
    let compiled = |config: &Value| {
        let listed = config["config"]["Labels"]["dev.mlrails.layers"].as_str().unwrap();
        let listed: Vec<Value> = serde_json::from_str(listed).unwrap();
        let of_bytecode = listed.into_iter().filter(|layer| {
            let title = layer["title"].as_str().unwrap();
            title.starts_with("bytecode of")
        });
        of_bytecode
            .map(|layer| format!("{} {}", layer["title"], layer["diff_id"]))
            .collect::<Vec<_>>()
    };
    let of_debian = compiled(&image_of(&bench.road.layout()).1);
    assert!(of_debian.len() > 3, "{of_debian:?}");
    assert_eq!(compiled(&config), of_debian);

    // Everything is at hand: nobody is asked, and the same image comes of it.
    bench.asked();
    bench.image(&["--base", &base, "--locked"]).expect(0);
    assert_eq!(bench.asked(), Vec::<String>::new());
    assert_eq!(image_of(&layout), (manifest, config));
}

#[test]
fn the_layers_of_a_base_are_mounted_and_left_alone_afterwards() {
    let Some(bench) = Bench::new("a base whose layers do not travel") else {
        return;
    };
    bench.put_python();
    std::fs::write(
        bench.project.join("mlrails.toml"),
        "[image]\nbase-bytecode = true\n",
    )
    .unwrap();
    let (base, name) = (bench.name("base/python:3.11"), bench.name("churn:1"));
    bench
        .image(&["--base", &base, "--tag", &name, "--push"])
        .expect(0);
    let manifest: Value = serde_json::from_slice(&bench.registry.manifest("churn", "1").unwrap()).unwrap();
    let debian = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    bench.asked();

    // A machine that has nothing of the base: its bytes are asked for by nobody.
    let home = bench.scratch.path().join("empty");
    std::fs::create_dir_all(&home).unwrap();
    let serve = bench.project.join("src/churn/serve.py");
    let text = std::fs::read_to_string(&serve).unwrap();
    std::fs::write(&serve, format!("{text}\n# changed\n")).unwrap();
    let mut mlrails = Mlrails::new(&home).project(&bench.project);
    for (name, value) in bench.road.sources() {
        mlrails = mlrails.env(name, value);
    }
    mlrails = mlrails.args([
        "image",
        "--base",
        &base,
        "--tag",
        &name,
        "--push",
        "--allow-stale",
    ]);
    let sent = bench.registry.sent();
    mlrails.run().expect(0);
    let asked = bench.asked();
    assert!(!asked.iter().any(|line| line.contains(&debian)), "{asked:#?}");
    assert!(asked.len() <= 30, "{asked:#?}");
    assert!(bench.registry.sent() - sent < 1_000_000);
    let pushed: Value = serde_json::from_slice(&bench.registry.manifest("churn", "1").unwrap()).unwrap();
    assert_eq!(pushed["layers"][0]["digest"], json!(debian));
    assert_ne!(pushed, manifest);
}

#[test]
fn bases_that_will_not_do_are_refused() {
    let Some(bench) = Bench::new("bases that will not do") else {
        return;
    };
    let empty = tar_of(&[("usr/bin/python3.10", "x"), ("etc/os-release", "x")]);
    bench.put("base/old", "1", &[(&empty, Digest::of(&empty), "tar")], &[]);
    bench
        .image(&["--base", &bench.name("base/old:1")])
        .expect(1)
        .says(&["it has no python3.11 (it has /usr/bin/python3.10)", "base-python"]);

    let bare = tar_of(&[("usr/bin/python3.11", "x")]);
    bench.put("base/bare", "1", &[(&bare, Digest::of(&bare), "tar")], &[]);
    bench
        .image(&["--base", &bench.name("base/bare:1")])
        .expect(1)
        .says(&["no C library is found in it", "base-glibc"]);

    // Every layer must be what its name says.
    let claimed = Digest::of(b"something else");
    bench.put("base/lying", "1", &[(&bare, claimed, "tar.gzip")], &[]);
    bench
        .image(&["--base", &bench.name("base/lying:1")])
        .expect(1)
        .says(&["cannot be read"]);

    bench
        .image(&["--base", &bench.name("base/python:none")])
        .expect(1)
        .says(&["does not exist"]);
    bench
        .image(&["--base", "not a reference"])
        .expect(1)
        .says(&["the base cannot be named so", "it holds a blank"]);
    bench
        .image(&["--base", &bench.name("base/bare:1"), "--platform", "linux/arm64"])
        .expect(1)
        .says(&["is for linux/amd64, and linux/arm64 is built"]);
}

#[test]
fn what_the_project_says_of_its_base_is_not_looked_for() {
    let Some(bench) = Bench::new("a base that the project describes") else {
        return;
    };
    let bare = tar_of(&[("hello", "x")]);
    bench.put("base/bare", "1", &[(&bare, Digest::of(&bare), "tar")], &[]);
    let base = bench.name("base/bare:1");
    let pyproject = bench.project.join("pyproject.toml");
    let text = std::fs::read_to_string(&pyproject).unwrap();
    let image = format!(
        "\n[tool.mlrails.image]\nbase = \"{base}\"\nbase-python = \"/opt/python/bin/python3.11\"\nbase-glibc = \"2.35\"\n"
    );
    std::fs::write(&pyproject, format!("{text}{image}")).unwrap();
    bench.image(&[]).expect(0);
    let locked = bench.locked();
    assert_eq!(locked["python-path"].as_str(), Some("/opt/python/bin/python3.11"));
    assert_eq!(locked["glibc"].as_str(), Some("2.35"));
    let (manifest, _) = image_of(&bench.project.join("dist/churn"));
    assert_eq!(manifest["layers"][0]["digest"], json!(Digest::of(&bare)));

    // Said otherwise, it is locked otherwise; and what is no path and no version is refused.
    for (said, words) in [
        ("base-python = \"python3.11\"", "which is no absolute path"),
        (
            "base-glibc = \"new\"",
            "neither a version such as 2.36 nor `musl`",
        ),
    ] {
        let image = format!("\n[tool.mlrails.image]\nbase = \"{base}\"\n{said}\n");
        std::fs::write(&pyproject, format!("{text}{image}")).unwrap();
        bench.image(&[]).expect(1).says(&[words]);
    }
}

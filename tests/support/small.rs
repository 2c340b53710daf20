//! A small project for several platforms, with nothing from anywhere: what it needs is made by the process that tests it.

use std::fs;
use std::path::{Path, PathBuf};

use mlrails::digest::Digest;
use mlrails::lock::Lock;
use mlrails::lock::base::Base;
use serde_json::json;

use super::debian::Published;
use super::driver::Mlrails;
use super::index::{Server, Shelf};
use super::road::image_of;
use super::validator::{merged, validate};

/// A project of its own with a trained value, an index and a Debian archive, all of this process.
pub struct Small {
    home: tempfile::TempDir,
    pub folder: PathBuf,
    index: Server,
    debian: Published,
}

impl Small {
    pub fn new(dependencies: &str, format: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("demo");
        let index = Shelf::default()
            .wheel("lightgbm", "4.6.0", &[])
            .wheel("xgboost", "3.0.0", &[])
            .wheel("boosted", "1.0", &["Requires-Dist: lightgbm"])
            .wheel("transformers", "4.50", &[])
            .wheel("granian", "2.8.7", &[])
            .wheel("msgspec", "0.20", &[])
            .serve();
        let debian = Published::new();
        debian.bookworm();
        let bench = Self {
            home,
            folder,
            index,
            debian,
        };
        fs::write(bench.home.path().join("keyring"), bench.debian.key.public()).unwrap();
        bench.write("pyproject.toml", &format!("[project]\nname = \"demo\"\nversion = \"1\"\nrequires-python = \">=3.11\"\ndependencies = [{dependencies}]\n"));
        bench.write(".python-version", "3.11\n");
        bench.write("src/demo/__init__.py", "");
        bench.write("src/demo/train.py", "def model(rows):\n    return 1\n");
        bench.write("src/demo/data.py", "def rows():\n    return [1]\n");
        bench.write(
            "src/demo/serve.py",
            "def predict(model, request: list[dict]) -> list[float]:\n    return [1.0 for _ in request]\n",
        );
        let value = "a tree";
        bench.write("artifacts/model.txt", value);
        let files = json!({ "schema": 1, "values": { "model": {
            "file": "model.txt", "format": format, "sha256": Digest::of(value.as_bytes()).hex(), "size": value.len(),
        } } });
        bench.write("artifacts/files.json", &files.to_string());
        let run = json!({
            "schema": 1, "mlrails": "0.1.0", "python": "3.11.2", "nodes": {},
            "request": { "node": "predict", "kind": "records", "columns": [] },
        });
        bench.write("artifacts/run.json", &run.to_string());
        bench
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn on(&self, words: &[&str]) -> Mlrails {
        let debian = format!("file://{}", self.debian.path("debian").display());
        self.from(self.home.path(), &self.index.index(), &debian, words)
    }

    /// The same, on a machine of that home, where packages come from there.
    pub fn from(&self, home: &Path, index: &str, debian: &str, words: &[&str]) -> Mlrails {
        Mlrails::new(home)
            .env("UV_DEFAULT_INDEX", index)
            .env("MLRAILS_DEBIAN_MIRROR", debian)
            .env("MLRAILS_DEBIAN_SNAPSHOT", "off")
            .env("MLRAILS_DEBIAN_KEYRING", self.home.path().join("keyring"))
            .project(&self.folder)
            .args(words)
    }

    /// Whether the locked base has the Debian package, on each platform.
    pub fn has(&self, package: &str) -> Vec<bool> {
        let lock = Lock::read(&self.folder.join("pylock.toml")).unwrap().unwrap();
        let Base::Debian(base) = Base::from_table(&lock.mlrails.base.unwrap()).unwrap() else {
            panic!("a base of another kind");
        };
        let lists = base.packages.values();
        lists
            .map(|debs| debs.iter().any(|deb| deb.name == package))
            .collect()
    }

    /// The paths and the environment of the image.
    pub fn image(&self) -> (Vec<String>, Vec<String>) {
        self.on(&["image", "--no-bytecode", "--allow-stale"])
            .run()
            .expect(0);
        let layout = self.folder.join("dist/demo");
        let (_, config) = image_of(&layout);
        let environment = config["config"]["Env"].as_array().unwrap().iter();
        let environment = environment.map(|set| set.as_str().unwrap().to_owned()).collect();
        (merged(&validate(&layout)).into_keys().collect(), environment)
    }
}

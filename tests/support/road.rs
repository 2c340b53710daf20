//! The example project, locked and built once, on this machine's loopback alone: what the tests of the road start from.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mlrails::digest::Digest;
use serde_json::Value;

use super::debian::Server;
use super::driver::{Mlrails, copy_of, repository};
use super::store::{WheelIndex, covered, shared_folder};

/// What `lock` and `image` of the example project need of tests/store.
const PARTS: [&str; 3] = ["wheels/", "debian/dists", "debian-security/dists"];

/// How the example project is locked here: the store holds the wheels of this platform and Python.
pub const LOCK: [&str; 5] = ["lock", "--platform", "linux/amd64", "--python", "3.11"];

/// The example project with its image. Tests read it, or work on a copy.
pub struct Road {
    /// The home, with the cache, of every command that is not about an empty one.
    home: PathBuf,
    pub project: PathBuf,
    index: WheelIndex,
    debian: Server,
    /// What `image` said, as JSON.
    pub built: Value,
}

/// The road, or None (and a line that says so) where it or `more` is not here.
pub fn road(what: &str, more: &[&str]) -> Option<&'static Road> {
    static ROAD: OnceLock<Road> = OnceLock::new();
    let parts = [&PARTS[..], more].concat();
    covered(what, &parts).then(|| ROAD.get_or_init(Road::build))
}

impl Road {
    fn build() -> Self {
        let folder = shared_folder("road");
        let mut road = Self {
            home: folder.join("home"),
            project: fresh(&folder),
            index: WheelIndex::start(&repository("tests/store/wheels")),
            debian: Server::start(&repository("tests/store")),
            built: Value::Null,
        };
        std::fs::create_dir_all(&road.home).unwrap();
        road.here(&LOCK).run().expect(0);
        road.built = road.here(&["--format", "json", "image"]).run().expect(0).json();
        road
    }

    /// Where packages come from, for a command of any kind.
    pub fn sources(&self) -> [(&'static str, String); 3] {
        let debian = &self.debian.url;
        [
            ("UV_DEFAULT_INDEX", self.index.url.clone()),
            (
                "MLRAILS_DEBIAN_MIRROR",
                format!("{debian}/debian {debian}/debian-security"),
            ),
            ("MLRAILS_DEBIAN_SNAPSHOT", "off".to_owned()),
        ]
    }

    /// A command line on `project`, with the cache that holds everything already.
    pub fn on(&self, project: &Path, words: &[&str]) -> Mlrails {
        let mut mlrails = Mlrails::new(&self.home);
        for (name, value) in self.sources() {
            mlrails = mlrails.env(name, value);
        }
        mlrails.project(project).args(words)
    }

    fn here(&self, words: &[&str]) -> Mlrails {
        self.on(&self.project, words)
    }

    /// A copy of the locked project, without the image.
    pub fn copy(&self, into: &Path) -> PathBuf {
        let target = into.join("churn");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&self.project)
            .arg(&target)
            .status()
            .unwrap();
        assert!(copied.success());
        std::fs::remove_dir_all(target.join("dist")).unwrap();
        target
    }

    pub fn layout(&self) -> PathBuf {
        self.project.join("dist/churn")
    }

    pub fn digest(&self) -> &str {
        self.built["digest"].as_str().unwrap()
    }

    /// What training recorded.
    pub fn record(&self) -> Value {
        read_json(&self.project.join("artifacts/run.json"))
    }
}

/// The example project as it is checked out, but for the environments it is locked for.
pub fn fresh(into: &Path) -> PathBuf {
    let project = copy_of("fixtures/churn", into);
    let environment =
        "sys_platform == 'linux' and platform_machine == 'x86_64' and python_full_version < '3.12'";
    let mut pyproject = std::fs::OpenOptions::new()
        .append(true)
        .open(project.join("pyproject.toml"))
        .unwrap();
    writeln!(pyproject, "\n[tool.uv]\nenvironments = [\"{environment}\"]").unwrap();
    project
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A blob of an OCI layout.
pub fn blob(layout: &Path, digest: &str) -> PathBuf {
    let (algorithm, hex) = digest.split_once(':').unwrap();
    layout.join("blobs").join(algorithm).join(hex)
}

/// The manifest and the config of a layout's one image; each is the bytes that its digest names.
pub fn image_of(layout: &Path) -> (Value, Value) {
    let index = read_json(&layout.join("index.json"));
    let listed = index["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{index}");
    let checked = |digest: &Value| {
        let digest = digest.as_str().unwrap();
        let bytes = std::fs::read(blob(layout, digest)).unwrap();
        assert_eq!(Digest::of(&bytes).to_string(), digest);
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let manifest = checked(&listed[0]["digest"]);
    let config = checked(&manifest["config"]["digest"]);
    (manifest, config)
}

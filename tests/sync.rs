//! `mlrails sync`: .venv is what the lock says, whoever looks at it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlrails::digest::Digest;

use crate::lock::asks_for_a;
use crate::support::driver::{Mlrails, Outcome};
use crate::support::index::Shelf;
use crate::support::wheels::MakeWheel;

/// A project with a lock of local wheels, a home for the cache, and an interpreter that only says what it is.
struct Project {
    home: tempfile::TempDir,
    root: PathBuf,
    packages: Vec<String>,
}

impl Project {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("my project");
        fs::create_dir_all(root.join("src/demo")).unwrap();
        fs::create_dir_all(root.join("wheels")).unwrap();
        fs::write(root.join("src/demo/__init__.py"), "ANSWER = 42\n").unwrap();
        let manifest = "[project]\nname = \"demo\"\nversion = \"0.1\"\nrequires-python = \">=3.8\"\n";
        fs::write(root.join("pyproject.toml"), manifest).unwrap();
        let project = Self {
            home,
            root,
            packages: Vec::new(),
        };
        project.interpreter("3.11.7");
        project
    }

    /// Puts an interpreter on this project's PATH.
    fn interpreter(&self, version: &str) -> PathBuf {
        let bin = self.home.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let minor = version.rsplit_once('.').unwrap().0;
        let path = bin.join(format!("python{minor}"));
        let text = format!(
            "#!/bin/sh\nprintf 'cpython\\n{version}\\n%s\\nglibc 2.36\\n' \"{}\"\n",
            path.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Locks a wheel, beside those that were locked before.
    fn lock(&mut self, wheel: &MakeWheel, more: &str) -> &mut Self {
        let bytes = wheel.build();
        let file = wheel.file_name();
        fs::write(self.root.join("wheels").join(&file), &bytes).unwrap();
        self.packages.push(format!(
            "[[packages]]\nname = \"{}\"\nversion = \"{}\"\n{more}wheels = [{{ path = \"wheels/{file}\", size = {}, hashes = {{ sha256 = \"{}\" }} }}]\n",
            wheel.name,
            wheel.version,
            bytes.len(),
            Digest::of(&bytes).hex()
        ));
        self.write_lock()
    }

    fn write_lock(&mut self) -> &mut Self {
        let text = format!(
            "lock-version = \"1.0\"\ncreated-by = \"tests\"\nrequires-python = \">=3.8\"\ndependency-groups = [\"dev\", \"docs\"]\n\n{}\n\
             [tool.mlrails]\npython = \"3.11\"\n",
            self.packages.join("\n")
        );
        fs::write(self.root.join("pylock.toml"), text).unwrap();
        self
    }

    fn sync(&self, arguments: &[&str]) -> Outcome {
        let path = format!("{}:/usr/bin:/bin", self.home.path().join("bin").display());
        Mlrails::new(self.home.path())
            .env("PATH", path)
            .project(&self.root)
            .args(["--format", "json", "sync"])
            .args(arguments)
            .run()
    }

    fn site(&self) -> PathBuf {
        self.root.join(".venv/lib/python3.11/site-packages")
    }

    fn has(&self, path: &str) -> bool {
        self.site().join(path).exists()
    }
}

fn tool(version: &str) -> MakeWheel {
    MakeWheel::new("tool", version)
        .file(
            "tool/__init__.py",
            format!("VERSION = '{version}'\ndef main(): print('tool', VERSION)\n"),
        )
        .file(&format!("tool/only_{}.py", version.replace('.', "_")), "")
        .file(
            &format!("tool-{version}.data/scripts/tool-old"),
            "#!python\nprint('old')\n",
        )
        .file(&format!("tool-{version}.data/data/share/tool/x"), "x")
        .entry_points("[console_scripts]\ntool = tool:main\n")
}

#[test]
fn the_environment_is_made_changed_and_left_alone() {
    let mut project = Project::new();
    project
        .lock(&tool("1.0"), "")
        .lock(&MakeWheel::new("other", "2").file("other.py", ""), "");
    let done = project.sync(&[]).expect(0).json();
    assert_eq!(done["installed"], serde_json::json!(["other 2", "tool 1.0"]));
    let venv = project.root.join(".venv");
    let config = fs::read_to_string(venv.join("pyvenv.cfg")).unwrap();
    assert!(
        config.contains("version = 3.11.7\ninclude-system-site-packages = false\n"),
        "{config}"
    );
    assert_eq!(
        fs::read_link(venv.join("bin/python3.11")).unwrap(),
        Path::new("python")
    );
    // The folder has a blank in its name, which the kernel would divide at.
    let script = fs::read_to_string(venv.join("bin/tool")).unwrap();
    let start = format!(
        "#!/bin/sh\n'''exec' '{}/bin/python' \"$0\" \"$@\"\n",
        venv.canonicalize().unwrap().display()
    );
    assert!(script.starts_with(&start), "{script}");
    let mode = fs::metadata(venv.join("bin/tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    assert!(
        fs::read_to_string(project.site().join("_mlrails_project.pth"))
            .unwrap()
            .ends_with("my project/src\n")
    );

    let again = project.sync(&[]).expect(0).json();
    assert_eq!(
        (&again["installed"], &again["unchanged"]),
        (&serde_json::json!([]), &serde_json::json!(2))
    );

    // Somebody else's package stays; ours follow the lock.
    let foreign = project.site().join("foreign-1.dist-info");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("INSTALLER"), "pip\n").unwrap();
    fs::write(foreign.join("RECORD"), "foreign-1.dist-info/RECORD,,\n").unwrap();
    project.packages.clear();
    project.lock(&tool("2.0"), "");
    let cache = project.site().join("tool/__pycache__");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("only_1_0.cpython-311.pyc"), "").unwrap();
    let changed = project.sync(&[]).expect(0).json();
    assert_eq!(changed["removed"], serde_json::json!(["other 2"]));
    assert_eq!(changed["installed"], serde_json::json!(["tool 2.0"]));
    assert!(!project.has("other.py") && !project.has("other-2.dist-info"));
    assert!(
        !project.has("tool/only_1_0.py")
            && !project.has("tool/__pycache__")
            && !project.has("tool-1.0.dist-info")
    );
    assert!(project.has("tool/only_2_0.py") && foreign.exists());

    // An uninstall behind our back is noticed.
    fs::remove_file(project.site().join("tool-2.0.dist-info/RECORD")).unwrap();
    assert_eq!(
        project.sync(&[]).expect(0).json()["installed"],
        serde_json::json!(["tool 2.0"])
    );
    assert!(project.has("tool-2.0.dist-info/RECORD"));
}

#[test]
fn a_removal_stays_inside_and_spares_what_others_share() {
    let mut project = Project::new();
    let shared = |name: &str| {
        MakeWheel::new(name, "1")
            .file(&format!("{name}.py"), "")
            .file("tests/__init__.py", "")
    };
    project.lock(&shared("one"), "").lock(&shared("two"), "");
    project.sync(&[]).expect(0);
    let precious = project.root.join("precious.txt");
    fs::write(&precious, "").unwrap();
    let record = project.site().join("one-1.dist-info/RECORD");
    let mut text = fs::read_to_string(&record).unwrap();
    text.push_str(&format!(
        "../../../../precious.txt,,\n{},,\n../../../pyvenv.cfg,,\n",
        precious.display()
    ));
    fs::write(&record, text).unwrap();
    project.packages.remove(0);
    project.write_lock();
    project.sync(&[]).expect(0);
    assert!(precious.exists() && project.root.join(".venv/pyvenv.cfg").exists());
    assert!(!project.has("one.py") && project.has("tests/__init__.py"));
}

#[test]
fn groups_choose() {
    let mut project = Project::new();
    let plain = |name: &str| MakeWheel::new(name, "1").file(&format!("{name}.py"), "");
    project
        .lock(&plain("always"), "")
        .lock(&plain("development"), "marker = \"'dev' in dependency_groups\"\n")
        .lock(&plain("documents"), "marker = \"'docs' in dependency_groups\"\n");
    let installed = |arguments: &[&str]| {
        project.sync(arguments).expect(0);
        ["always", "development", "documents"].map(|name| project.has(&format!("{name}.py")))
    };
    assert_eq!(installed(&[]), [true, true, false]);
    assert_eq!(installed(&["--no-dev"]), [true, false, false]);
    assert_eq!(installed(&["--group", "docs"]), [true, true, true]);
    assert_eq!(
        installed(&["--all-groups", "--no-group", "dev"]),
        [true, false, true]
    );
    project
        .sync(&["--group", "nothing"])
        .expect(1)
        .says(&["no dependency group `nothing`"]);
}

#[test]
fn what_cannot_be_is_said() {
    let mut project = Project::new();
    project
        .sync(&[])
        .expect(1)
        .says(&["there is no pylock.toml", "hint: run `mlrails lock`"]);
    project.lock(&tool("1.0"), "");
    // Another minor is not the locked one.
    fs::remove_file(project.home.path().join("bin/python3.11")).unwrap();
    let other = project.interpreter("3.12.1");
    let arguments = ["--python", other.to_str().unwrap()];
    project
        .sync(&arguments)
        .expect(1)
        .says(&["is Python 3.12.1, and the lock is for 3.11"]);
    project.interpreter("3.11.9");
    fs::create_dir_all(project.root.join(".venv")).unwrap();
    fs::write(project.root.join(".venv/notes.txt"), "mine").unwrap();
    project.sync(&[]).expect(1).says(&[
        ".venv is there, and is no Python environment",
        "hint: move it away",
    ]);
    assert!(project.root.join(".venv/notes.txt").exists());
    fs::remove_dir_all(project.root.join(".venv")).unwrap();

    let wheel = project.root.join("wheels/tool-1.0-py3-none-any.whl");
    let mut bytes = fs::read(&wheel).unwrap();
    bytes[40] ^= 1;
    fs::write(&wheel, bytes).unwrap();
    project.sync(&[]).expect(1).says(&["tool-1.0-py3-none-any.whl"]);
    assert!(!project.has("tool"));
}

#[test]
fn a_hostile_wheel_is_not_installed() {
    let mut project = Project::new();
    project.lock(
        &MakeWheel::new("evil", "1").file("../../../../../evil.txt", "x"),
        "",
    );
    project.sync(&[]).expect(1).says(&[
        "evil-1-py3-none-any.whl",
        "../../../../../evil.txt",
        "leads elsewhere",
    ]);
    assert_eq!(
        fs::read_dir(project.site()).map_or(0, |entries| entries.count()),
        1,
        "only the project's link"
    );
}

#[test]
fn a_damaged_cache_is_remade() {
    let mut project = Project::new();
    project.lock(&tool("1.0"), "");
    project.sync(&[]).expect(0);
    let wheel = fs::read(project.root.join("wheels/tool-1.0-py3-none-any.whl")).unwrap();
    let store = mlrails::store::Store::open(&project.home.path().join("cache")).unwrap();
    let path = store.blob_path(&Digest::of(&wheel));
    let mut bytes = wheel.clone();
    bytes[50] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(project.root.join(".venv")).unwrap();
    project.sync(&[]).expect(0);
    assert!(project.has("tool/__init__.py"));
    assert_eq!(fs::read(&path).unwrap(), wheel);
}

#[test]
fn a_real_interpreter_runs_what_was_installed() {
    let Ok(python) = Command::new("python3")
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        .output()
    else {
        return;
    };
    let minor = String::from_utf8(python.stdout).unwrap().trim().to_owned();
    let mut project = Project::new();
    project.lock(&tool("1.0"), "");
    let lock = project.root.join("pylock.toml");
    let text = fs::read_to_string(&lock)
        .unwrap()
        .replace("python = \"3.11\"", &format!("python = \"{minor}\""));
    fs::write(&lock, text).unwrap();
    let executable = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    let executable = String::from_utf8(executable.stdout).unwrap();
    project.sync(&["--python", executable.trim()]).expect(0);
    let bin = project.root.join(".venv/bin");
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(bin.join(program))
            .args(arguments)
            .env_remove("PYTHONPATH")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(output("tool", &[]), "tool 1.0\n");
    assert_eq!(output("tool-old", &[]), "old\n");
    let code = "import sys, demo, importlib.metadata as m; print(demo.ANSWER, m.version('tool'), sys.prefix != sys.base_prefix, \
                all(f.locate().exists() for f in m.files('tool')))";
    assert_eq!(output("python", &["-c", code]), "42 1.0 True True\n");
}

#[test]
fn a_lock_that_the_project_has_outgrown_is_refused() {
    let server = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("b", "1.0", &[])
        .serve();
    let bench = asks_for_a();
    let refused = |parts: &[&str]| {
        let outcome = bench.run(&["sync"]).expect(1).says(parts);
        assert!(!bench.path(".venv").exists(), "{}", outcome.stderr);
    };
    refused(&["there is no pylock.toml", "hint: run `mlrails lock`"]);
    bench.lock(&server, &[]).expect(0);
    bench.write("dependencies = [\"a\", \"b\"]");
    refused(&[
        "pylock.toml is out of date: the project needs `b`",
        "hint: run `mlrails lock`",
    ]);
    bench.write("dependencies = [\"a>=2\"]");
    refused(&["pylock.toml is out of date: the project needs `a>=2`"]);
    bench.write("dependencies = [\"a\"]\n[dependency-groups]\ndev = [\"b\"]");
    refused(&["pylock.toml is out of date: the group `dev` needs `b`"]);
    let lock = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
    std::fs::write(
        bench.path("pylock.toml"),
        lock.replace("created-by = \"mlrails\"", "created-by = \"other\""),
    )
    .unwrap();
    refused(&["pylock.toml is out of date"]);
    // What still answers for the project is installed; the interpreter comes after the lock is judged.
    bench.write("dependencies = [\"a\"]");
    let outcome = bench.run(&["sync", "--python", "/bin/false"]).expect(1);
    assert!(!outcome.stderr.contains("out of date"), "{}", outcome.stderr);
}

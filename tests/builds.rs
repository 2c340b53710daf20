//! Source archives that have to be built: what `lock`, `sync` and images make of them.

use std::fs;
use std::path::{Path, PathBuf};

use mlrails::lock::Lock;

use crate::lock::Bench;
use crate::support::driver::Outcome;
use crate::support::index::{Server, Shelf};
use crate::support::road::{LOCK, road};
use crate::support::sdists::{BACKEND, PREPARE, Tar, count, gzip, in_tree, sdist};
use crate::support::store::covered;
use crate::support::validator::{merged, validate};

/// A project, an index on loopback, and a file in which builds count their hooks.
pub struct Site {
    pub bench: Bench,
    pub scratch: tempfile::TempDir,
}

impl Site {
    pub fn new(requirements: &str) -> Self {
        let bench = Bench::new(&format!("dependencies = [{requirements}]\n"));
        // Built and installed for the interpreter that is here.
        fs::write(bench.path(".python-version"), here()).unwrap();
        Self {
            bench,
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn ran(&self) -> PathBuf {
        self.scratch.path().join("ran")
    }

    /// The hooks that ran since the last call.
    fn hooks(&self) -> Vec<String> {
        let text = fs::read_to_string(self.ran()).unwrap_or_default();
        let _ = fs::remove_file(self.ran());
        text.lines().map(str::to_owned).collect()
    }

    pub fn run(&self, server: &Server, words: &[&str]) -> Outcome {
        self.bench
            .command(words)
            .env("UV_DEFAULT_INDEX", server.index())
            .run()
    }

    pub fn lock(&self) -> Lock {
        Lock::read(&self.bench.path("pylock.toml")).unwrap().unwrap()
    }

    fn built(&self, name: &str) -> Option<Vec<String>> {
        let lock = self.lock();
        let package = lock.packages.iter().find(|package| package.name.as_str() == name);
        package.unwrap().built.clone()
    }

    /// What .venv's own interpreter prints.
    pub fn python(&self, script: &str) -> String {
        let output = std::process::Command::new(self.bench.path(".venv/bin/python"))
            .args(["-c", script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// The minor of this machine's Python, as commands in a home of their own find it.
pub fn here() -> String {
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let output = std::process::Command::new("/usr/bin/env")
        .args(["python3", "-c", script])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn lock_words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["lock"], more].concat()
}

#[test]
fn what_only_a_build_can_tell_is_built_once_and_installed() {
    let site = Site::new("\"thing\"");
    let before = count(&site.ran());
    let thing = in_tree(
        "thing",
        "1.0",
        &[
            ("requires.txt", "other>=1\n"),
            ("before.py", &before),
            ("thing.py", "import other\nX = 7\n"),
        ],
    );
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing)
        .wheel("other", "1.5", &[])
        .serve();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(site.bench.locked(), ["other 1.5", "thing 1.0"]);
    // No prepare hook: the wheel itself was made, and is kept.
    assert_eq!(site.hooks(), ["get_requires", "build_wheel"]);
    assert_eq!(site.built("thing"), Some(Vec::new()));
    assert_eq!(site.built("other"), None);
    let package = &site.lock().packages[1];
    assert_eq!(package.imports, ["thing"]);
    let written = fs::read_to_string(site.bench.path("pylock.toml")).unwrap();
    assert!(written.contains("built = []"), "{written}");

    site.run(&server, &["sync"]).expect(0);
    assert_eq!(
        site.hooks(),
        Vec::<String>::new(),
        "the wheel of before is installed"
    );
    assert_eq!(site.python("import thing; print(thing.X)"), "7");
    let again = site.run(&server, &["--format", "json", "sync"]).expect(0).json();
    assert_eq!(again["unchanged"], 2);
    // Locked again from nothing, it is the same, and nothing runs.
    fs::remove_file(site.bench.path("pylock.toml")).unwrap();
    site.run(&server, &["--offline", "lock"]).expect(0);
    assert_eq!(
        fs::read_to_string(site.bench.path("pylock.toml")).unwrap(),
        written
    );
    assert_eq!(site.hooks(), Vec::<String>::new());

    // A cache that lost the wheel, or whose copy is damaged, gets it by another build.
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[40] ^= 1;
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let state = fs::read_to_string(site.bench.path(".venv/mlrails.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let digest = state["packages"]["thing"]["digest"].as_str().unwrap();
    let hex = digest.trim_start_matches("sha256:").to_owned();
    damage(
        &site
            .bench
            .home()
            .join(format!("cache/v1/blobs/sha256/{}/{hex}", &hex[..2])),
    );
    fs::remove_dir_all(site.bench.path(".venv")).unwrap();
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.hooks(), ["build_wheel"]);
    assert_eq!(site.python("import thing; print(thing.X)"), "7");
}

#[test]
fn a_hook_that_tells_is_asked_before_a_wheel_is_built() {
    let site = Site::new("\"thing\"");
    let backend = format!("{BACKEND}{PREPARE}");
    let info = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n";
    let thing = in_tree(
        "thing",
        "1.0",
        &[
            ("backend.py", &backend),
            ("before.py", &count(&site.ran())),
            ("requires.txt", "other\n"),
            ("PKG-INFO", info),
            ("thing.egg-info/top_level.txt", "thing\n"),
        ],
    );
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing)
        .wheel("other", "1.5", &[])
        .serve();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(site.hooks(), ["get_requires", "prepare"]);
    assert_eq!(site.lock().packages[1].imports, ["thing"]);
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.hooks(), ["build_wheel"]);
}

#[test]
fn what_a_build_needs_is_solved_and_installed_for_it_alone() {
    let site = Site::new("\"thing\"");
    let pyproject = "[build-system]\nrequires = [\"tool>=1\"]\nbuild-backend = \"tool\"\n";
    let checked = "import sys, helper\nassert 'site-packages' in helper.__file__\n\
                   assert not any('other' in name for name in sys.modules)\n";
    let thing = sdist(
        "thing",
        "1.0",
        &[
            ("pyproject.toml", pyproject),
            ("name.txt", "thing 1.0"),
            ("needs.txt", "helper\n"),
            ("before.py", "if hook == 'build_wheel':\n    import helper\n"),
            ("other.txt", checked),
        ],
    );
    let (tool, other) = (tool(), in_tree("helper", "2", &[]));
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing)
        .file("tool", "tool-1.0-py3-none-any.whl", tool)
        // What a build needs may have to be built itself.
        .file("helper", "helper-2.tar.gz", other)
        .serve();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(site.bench.locked(), ["thing 1.0"]);
    let with = vec!["helper==2".to_owned(), "tool==1.0".to_owned()];
    assert_eq!(site.built("thing"), Some(with));
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.VERSION)"), "1.0");
    assert_eq!(
        site.python("import importlib.util as u; print(u.find_spec('tool'))"),
        "None"
    );
}

/// The tests' backend as a wheel of its own.
fn tool() -> Vec<u8> {
    crate::support::wheels::MakeWheel::new("tool", "1.0")
        .file("tool.py", BACKEND)
        .build()
}

#[test]
fn what_a_build_was_done_with_is_taken_again() {
    let site = Site::new("\"thing\"");
    let pyproject = "[build-system]\nrequires = [\"tool\"]\nbuild-backend = \"tool\"\n";
    let thing = || {
        sdist(
            "thing",
            "1.0",
            &[("pyproject.toml", pyproject), ("name.txt", "thing 1.0")],
        )
    };
    let newer =
        crate::support::wheels::MakeWheel::new("tool", "2.0").file("tool.py", "raise SystemExit('new')");
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing())
        .file("tool", "tool-1.0-py3-none-any.whl", tool())
        .serve();
    site.run(&server, &["lock"]).expect(0);
    let later = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing())
        .file("tool", "tool-1.0-py3-none-any.whl", tool())
        .file("tool", "tool-2.0-py3-none-any.whl", newer.build())
        .serve();
    // Another machine: an empty cache, the lock, and an index that has gone on.
    fs::remove_dir_all(site.bench.home().join("cache")).unwrap();
    let lock = fs::read_to_string(site.bench.path("pylock.toml")).unwrap();
    fs::write(
        site.bench.path("pylock.toml"),
        lock.replace(&server.url, &later.url),
    )
    .unwrap();
    site.run(&later, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.VERSION)"), "1.0");
}

#[test]
fn what_is_too_new_for_the_project_is_too_new_for_its_builds() {
    let site = Site::new("\"thing\"");
    let pyproject = "[project]\nname = \"thing\"\nversion = \"1.0\"\n\
                     [build-system]\nrequires = [\"tool\"]\nbuild-backend = \"tool\"\n";
    // Its metadata is final: nothing is built while locking, and so the lock does not say with what.
    let thing = sdist(
        "thing",
        "1.0",
        &[
            ("pyproject.toml", pyproject),
            ("name.txt", "thing 1.0"),
            ("thing.egg-info/top_level.txt", "thing\n"),
        ],
    );
    let newer =
        crate::support::wheels::MakeWheel::new("tool", "2.0").file("tool.py", "raise SystemExit('new')");
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing)
        .file("tool", "tool-1.0-py3-none-any.whl", tool())
        .file("tool", "tool-2.0-py3-none-any.whl", newer.build())
        .edit(|asked, mut answer| {
            if asked.path == "/simple/tool/" {
                let mut page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                page["files"][1]["upload-time"] = "2025-06-01T00:00:00Z".into();
                answer.body = page.to_string().into_bytes();
            }
            answer
        })
        .serve();
    site.run(&server, &["lock", "--exclude-newer", "2025-01-01"])
        .expect(0);
    assert_eq!(site.built("thing"), None);
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.VERSION)"), "1.0");
}

#[test]
fn nothing_runs_where_builds_are_forbidden() {
    let site = Site::new("\"thing\"");
    let thing = in_tree("thing", "1.0", &[("before.py", &count(&site.ran()))]);
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", thing)
        .wheel("thing", "0.9", &[])
        .serve();
    for flags in [&["--no-build"][..], &["--no-build-package", "thing"]] {
        site.run(&server, &lock_words(flags)).expect(0);
        assert_eq!(site.bench.locked(), ["thing 0.9"]);
        fs::remove_file(site.bench.path("pylock.toml")).unwrap();
    }
    assert_eq!(site.hooks(), Vec::<String>::new());
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(site.bench.locked(), ["thing 1.0"]);
    site.hooks();
    for flags in [
        &["sync", "--no-build"][..],
        &["sync", "--no-build-package", "thing"],
    ] {
        site.run(&server, flags)
            .expect(1)
            .says(&["thing 1.0 would have to be built", "hint: allow it"]);
    }
    assert_eq!(site.hooks(), Vec::<String>::new());
    site.run(&server, &["sync"]).expect(0);
}

#[test]
fn no_binary_builds_what_has_a_wheel() {
    let site = Site::new("\"thing\"");
    let thing = in_tree("thing", "1.0", &[("thing.py", "FROM = 'source'\n")]);
    let server = Shelf::default()
        .wheel("thing", "1.0", &[])
        .file("thing", "thing-1.0.tar.gz", thing)
        .serve();
    site.run(&server, &["lock", "--no-binary-package", "thing"])
        .expect(0);
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.FROM)"), "source");
}

#[test]
fn a_locked_folder_is_built_from_a_copy_and_again_when_it_changes() {
    let site = Site::new("\"thing\"");
    let folder = site.bench.path("libs/thing");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write(
        "pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
    );
    write("backend.py", BACKEND);
    write("name.txt", "thing 1.0");
    write("thing.py", "X = 1\n");
    write(
        "before.py",
        &format!("{}open('left-behind', 'w').write('x')\n", count(&site.ran())),
    );
    let lock = format!(
        "lock-version = \"1.0\"\ncreated-by = \"tests\"\nrequires-python = \">=3.11\"\n\n[[packages]]\nname = \"thing\"\n\
         directory = {{ path = \"libs/thing\" }}\n\n[tool.mlrails]\npython = \"{}\"\n",
        here()
    );
    fs::write(site.bench.path("pylock.toml"), lock).unwrap();
    let server = Shelf::default().serve();
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.X)"), "1");
    assert_eq!(site.hooks(), ["get_requires", "build_wheel"]);
    assert!(!folder.join("left-behind").exists(), "it was built in a copy");
    let again = site.run(&server, &["--format", "json", "sync"]).expect(0).json();
    assert_eq!(again["unchanged"], 1);
    assert_eq!(site.hooks(), Vec::<String>::new());
    write("thing.py", "X = 2\n");
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import thing; print(thing.X)"), "2");
}

#[test]
fn what_a_build_makes_must_be_what_was_asked_for() {
    let check = |files: &[(&str, &str)], parts: &[&str]| {
        let site = Site::new("\"thing\"");
        let server = Shelf::default()
            .file("thing", "thing-1.0.tar.gz", in_tree("thing", "1.0", files))
            .serve();
        site.run(&server, &["lock"]).expect(1).says(parts);
        assert!(!site.bench.path("pylock.toml").exists());
    };
    check(
        &[("name.txt", "evil 1.0")],
        &["thing-1.0.tar.gz", "it is evil, and thing was asked for"],
    );
    check(
        &[("name.txt", "thing 2.0")],
        &["it is thing 2.0, and its archive says 1.0"],
    );
    let edited = |from: &str, to: &str| {
        assert!(BACKEND.contains(from), "{from}");
        BACKEND.replace(from, to)
    };
    check(
        &[(
            "backend.py",
            &edited("    return name\n", "    return '../' + name\n"),
        )],
        &["no answer to it"],
    );
    check(
        &[("backend.py", &edited("    return name\n", "    return 5\n"))],
        &["no answer to it"],
    );
    check(
        &[("backend.py", &edited("    return name\n", "    return 'x.whl'\n"))],
        &["x.whl is not there"],
    );
    let link = "    os.rename(os.path.join(folder, name), '/tmp/mlrails-' + name)\n    os.symlink('/etc/hosts', os.path.join(folder, name))\n    os.remove('/tmp/mlrails-' + name)\n    return name\n";
    check(
        &[("backend.py", &edited("    return name\n", link))],
        &["a symbolic link"],
    );
    check(
        &[(
            "backend.py",
            &edited("    record = \"\"\n", "    record = 'extra.py,,\\n'\n"),
        )],
        &["made a wheel that is refused", "RECORD"],
    );
    check(
        &[(
            "backend.py",
            &edited(
                "    wheel.writestr(path, text)\n",
                "    wheel.writestr('../' + path, text)\n",
            ),
        )],
        &["made a wheel that is refused"],
    );
    check(&[("before.py", "raise SystemExit(3)\n")], &["it ended Python"]);
    check(
        &[("before.py", "import os; os._exit(0)\n")],
        &["Python ended with exit status: 0"],
    );
    check(
        &[("before.py", "import os; os.kill(os.getpid(), 9)\n")],
        &["signal: 9"],
    );
    check(
        &[("backend.py", "import nothing_of_that_name\n")],
        &["ModuleNotFoundError: No module named 'nothing_of_that_name'"],
    );
    check(
        &[(
            "pyproject.toml",
            "[build-system]\nrequires = []\nbuild-backend = \"json\"\nbackend-path = [\".\"]\n",
        )],
        &["is not in backend-path"],
    );
    check(
        &[(
            "pyproject.toml",
            "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\"../..\"]\n",
        )],
        &["backend-path names `../..`", "nothing of it was run"],
    );
    check(
        &[(
            "pyproject.toml",
            "[build-system]\nrequires = [\"nowhere\"]\nbuild-backend = \"nowhere\"\n",
        )],
        &["cannot find what the build of thing-1.0.tar.gz needs", "nowhere"],
    );
}

#[test]
fn old_projects_that_say_little_in_latin_1_are_built() {
    let site = Site::new("\"thing\"");
    let files: [(&str, &[u8]); 4] = [
        (
            "pyproject.toml",
            b"[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        ),
        (
            "PKG-INFO",
            b"Metadata-Version: 1.0\nName: thing\nVersion: 1.0\nAuthor: Andr\xe9\n",
        ),
        ("backend.py", BACKEND.as_bytes()),
        ("name.txt", b"thing 1.0"),
    ];
    let mut tar = Tar::default();
    for (path, content) in files {
        tar = tar.entry(b'0', &format!("thing-1.0/{path}"), "", content);
    }
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", gzip(&tar.end()))
        .serve();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(site.built("thing"), Some(Vec::new()));
}

#[test]
fn without_a_python_nothing_is_built_and_it_says_so() {
    let site = Site::new("\"thing\"");
    let server = Shelf::default()
        .file("thing", "thing-1.0.tar.gz", in_tree("thing", "1.0", &[]))
        .serve();
    site.bench
        .command(&["lock"])
        .env("UV_DEFAULT_INDEX", server.index())
        .env("PATH", "/nowhere")
        .run()
        .expect(1)
        .says(&[
            "cannot build thing-1.0.tar.gz: no Python",
            &format!("hint: get it with `uv python install {}`", here()),
        ]);
}

#[test]
fn builds_that_need_each_other_are_told_so() {
    let of = |name: &str, needs: &str| {
        let pyproject = format!("[build-system]\nrequires = [\"{needs}\"]\nbuild-backend = \"{needs}\"\n");
        sdist(name, "1", &[("pyproject.toml", &pyproject)])
    };
    let site = Site::new("\"one\"");
    let server = Shelf::default()
        .file("one", "one-1.tar.gz", of("one", "two"))
        .file("two", "two-1.tar.gz", of("two", "one"))
        .serve();
    site.run(&server, &["lock"])
        .expect(1)
        .says(&["it would have to be built first (one → two → one)"]);
}

#[test]
fn a_setup_py_with_machine_code_is_built_by_the_real_setuptools() {
    if !covered("builds by setuptools", &["wheels/"]) {
        return;
    }
    let wheels = crate::support::wheels::real();
    let is_it = |path: &&PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("setuptools-")
    };
    let setuptools = wheels.iter().find(is_it).unwrap();
    let site = Site::new("\"native\"");
    let setup = "from setuptools import setup, Extension\n\
                 setup(name='native', version='1.0', ext_modules=[Extension('native', ['native.c'])])\n";
    let code = "#include <Python.h>\n#include <math.h>\n\
                static PyObject *f(PyObject *s, PyObject *a) { return PyFloat_FromDouble(sqrt(PyFloat_AsDouble(a))); }\n\
                static PyMethodDef m[] = {{\"root\", f, METH_O, \"\"}, {0}};\n\
                static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, \"native\", 0, -1, m};\n\
                PyMODINIT_FUNC PyInit_native(void) { return PyModule_Create(&d); }\n";
    let archive = sdist("native", "1.0", &[("setup.py", setup), ("native.c", code)]);
    let name = setuptools.file_name().unwrap().to_str().unwrap().to_owned();
    let server = Shelf::default()
        .file("native", "native-1.0.tar.gz", archive)
        .file("setuptools", &name, fs::read(setuptools).unwrap())
        .serve();
    site.run(&server, &["lock"]).expect(0);
    let with = site.built("native").unwrap();
    assert!(with.len() == 1 && with[0].starts_with("setuptools=="), "{with:?}");
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import native; print(native.root(9.0))"), "3.0");
    let tags =
        site.python("import importlib.metadata as m; print(m.distribution('native').read_text('WHEEL'))");
    assert!(tags.contains("-linux_"), "{tags}");
}

#[test]
fn an_image_holds_what_was_built_if_it_runs_there() {
    let Some(road) = road("an image with what was built from source", &[]) else {
        return;
    };
    let image = |files: &[(&str, &str)], flags: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        fs::create_dir(project.join("links")).unwrap();
        fs::write(
            project.join("links/thing-1.0.tar.gz"),
            in_tree("thing", "1.0", files),
        )
        .unwrap();
        let pyproject = fs::read_to_string(project.join("pyproject.toml")).unwrap();
        let pyproject = pyproject
            .replace("dependencies = [", "dependencies = [\n    \"thing\",")
            .replace("[tool.uv]", "[tool.uv]\nfind-links = [\"links\"]");
        fs::write(project.join("pyproject.toml"), pyproject).unwrap();
        fs::write(
            project.join("mlrails.toml"),
            "[dependencies]\nkeep = [\"thing\"]\n",
        )
        .unwrap();
        road.on(&project, &LOCK).run().expect(0);
        let outcome = road.on(&project, &[&["image"], flags].concat()).run();
        let paths = (outcome.code == 0).then(|| merged(&validate(&project.join("dist/churn"))));
        (outcome, paths)
    };
    let (outcome, paths) = image(&[], &[]);
    assert!(
        !outcome.stderr.contains("was built on this machine"),
        "{}",
        outcome.stderr
    );
    assert!(
        paths
            .unwrap()
            .contains_key("opt/venv/lib/python3.11/site-packages/thing.py")
    );
    image(&[], &["--no-build"])
        .0
        .expect(1)
        .says(&["thing 1.0 would have to be built"]);

    let here = "cp311-cp311-linux_x86_64";
    let (outcome, paths) = image(&[("tag.txt", here), ("lib.so", "\x7fELF GLIBC_2.17\0")], &[]);
    outcome.expect(0).says(&[
        "thing 1.0 has no wheel for linux/amd64",
        "it was built on this machine",
    ]);
    assert!(
        paths
            .unwrap()
            .contains_key("opt/venv/lib/python3.11/site-packages/thing_lib.so")
    );
    let newer = [("tag.txt", here), ("lib.so", "\x7fELF GLIBC_2.17\0GLIBC_2.99\0")];
    image(&newer, &[]).0.expect(1).says(&[
        "needs glibc 2.99; the image has glibc 2.36",
        "hint: build on a machine as old",
    ]);
    image(&[("tag.txt", "cp312-cp312-linux_x86_64")], &[])
        .0
        .expect(1)
        .says(&["no locked wheel of thing 1.0 fits"]);
}

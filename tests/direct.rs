//! Packages from a URL, a path or a repository: what is locked of them, when that moves, and what is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mlrails::lock::{Location, Source};

use crate::builds::Site;
use crate::support::index::{Server, Shelf};
use crate::support::road::{LOCK, road};
use crate::support::sdists::BACKEND;
use crate::support::validator::{merged, validate};
use crate::support::wheels::MakeWheel;

const SYSTEM: &str = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";

/// A project `name` in `folder`, whose metadata is final in its pyproject.toml, and which its own tree can build.
fn project(folder: &Path, name: &str, version: &str, requires: &str) {
    fs::create_dir_all(folder).unwrap();
    let text = format!(
        "[project]\nname = \"{name}\"\nversion = \"{version}\"\ndependencies = [{requires}]\n{SYSTEM}"
    );
    fs::write(folder.join("pyproject.toml"), text).unwrap();
    fs::write(folder.join("backend.py"), BACKEND).unwrap();
    fs::write(folder.join("name.txt"), format!("{name} {version}")).unwrap();
    let lines = requires.split(',').map(|line| line.trim().trim_matches('"'));
    fs::write(folder.join("requires.txt"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(
        folder.join(format!("{name}.py")),
        format!("VERSION = '{version}'\n"),
    )
    .unwrap();
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t.example",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(folder: &Path) -> String {
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-q", "-m", "more"]);
    git(folder, &["rev-parse", "HEAD"])
}

fn shelf() -> Server {
    Shelf::default()
        .wheel("other", "1.0", &[])
        .wheel("other", "2.0", &[])
        .wheel("mine", "9.0", &[])
        .wheel("wheeled", "1.0", &["Requires-Dist: other<2"])
        .serve()
}

fn labels(site: &Site) -> Vec<String> {
    site.lock()
        .packages
        .iter()
        .map(mlrails::lock::Package::label)
        .collect()
}

fn source(site: &Site, name: &str) -> Source {
    let lock = site.lock();
    let package = lock.packages.iter().find(|package| package.name.as_str() == name);
    package.unwrap().source.clone()
}

#[test]
fn a_folder_of_the_project_is_locked_by_what_it_says_and_installed() {
    let site = Site::new("\"mine>=1\"");
    let pyproject = fs::read_to_string(site.bench.path("pyproject.toml")).unwrap();
    fs::write(
        site.bench.path("pyproject.toml"),
        format!("{pyproject}\n[tool.uv.sources]\nmine = {{ path = \"libs/mine\" }}\n"),
    )
    .unwrap();
    project(&site.bench.path("libs/mine"), "mine", "1.5", "\"other<2\"");
    let server = shelf();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(labels(&site), ["mine 1.5", "other 1.0"]);
    assert_eq!(
        source(&site, "mine"),
        Source::Directory {
            path: "libs/mine".into(),
            editable: false
        }
    );
    let written = fs::read_to_string(site.bench.path("pylock.toml")).unwrap();
    assert!(
        !written.contains(&*site.bench.path("").to_string_lossy()),
        "{written}"
    );
    site.run(&server, &["lock", "--check"]).expect(0);
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import mine, other; print(mine.VERSION)"), "1.5");

    // What it says of itself changed: that is noticed, and nothing else moves.
    project(&site.bench.path("libs/mine"), "mine", "1.6", "\"other\"");
    site.run(&server, &["lock", "--check"]).expect(1);
    site.run(&server, &["sync"])
        .expect(1)
        .says(&["is out of date", "direct mine @ libs/mine"]);
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(labels(&site), ["mine 1.6", "other 1.0"]);
}

#[test]
fn a_wheel_at_a_url_is_locked_with_its_hash() {
    let server = shelf();
    let url = server
        .index()
        .replace("/simple/", "/files/wheeled-1.0-py3-none-any.whl");
    let site = Site::new(&format!("\"wheeled @ {url}\""));
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(labels(&site), ["other 1.0", "wheeled 1.0"]);
    let Source::Archive(file) = source(&site, "wheeled") else {
        panic!("{:?}", source(&site, "wheeled"));
    };
    assert_eq!(file.location, Location::Url(url.parse().unwrap()));
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import wheeled, other; print(1)"), "1");
    // The same text again, and nothing is asked.
    server.asked();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(server.asked(), Vec::<String>::new());

    let wrong = "0".repeat(64);
    let site = Site::new(&format!("\"wheeled @ {url}#sha256={wrong}\""));
    site.run(&server, &["lock"])
        .expect(1)
        .says(&["is not what its URL promises", &wrong]);
    let site = Site::new(&format!("\"renamed @ {url}\""));
    site.run(&server, &["lock"])
        .expect(1)
        .says(&["is `wheeled`, and was asked for as `renamed`"]);
}

#[test]
fn a_branch_becomes_a_commit_once() {
    let scratch = tempfile::tempdir().unwrap();
    let inner = scratch.path().join("inner");
    project(&inner, "inner", "0.1", "");
    git(&inner, &["init", "-q"]);
    commit(&inner);
    let repository = scratch.path().join("repository");
    let at_inner = format!("\"inner @ git+file://{}\"", inner.display());
    project(&repository.join("python"), "mine", "1.0", &at_inner);
    git(&repository, &["init", "-q"]);
    let first = commit(&repository);

    let server = shelf();
    let url = format!("git+file://{}@main#subdirectory=python", repository.display());
    let site = Site::new(&format!("\"mine @ {url}\""));
    site.run(&server, &["lock"]).expect(0);
    // What it requires by URL comes from there too.
    assert_eq!(labels(&site), ["inner 0.1", "mine 1.0"]);
    let locked = || match source(&site, "mine") {
        Source::Vcs {
            kind,
            commit,
            subdirectory,
            ..
        } => (kind, commit, subdirectory),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        locked(),
        ("git".to_owned(), first.clone(), Some("python".to_owned()))
    );
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(
        site.python("import mine, inner; print(mine.VERSION, inner.VERSION)"),
        "1.0 0.1"
    );

    project(&repository.join("python"), "mine", "1.1", &at_inner);
    let second = commit(&repository);
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(locked().1, first, "a branch that moved is no reason");
    site.run(&server, &["lock", "--upgrade-package", "mine"])
        .expect(0);
    assert_eq!(locked().1, second);
    assert_eq!(labels(&site), ["inner 0.1", "mine 1.1"]);
}

#[test]
fn places_that_cannot_be_are_refused() {
    let server = shelf();
    let refused = |requirements: &str, sources: &str, says: &[&str]| {
        let site = Site::new(requirements);
        let pyproject = fs::read_to_string(site.bench.path("pyproject.toml")).unwrap();
        let text = format!("{pyproject}\n[tool.uv.sources]\n{sources}\n");
        fs::write(site.bench.path("pyproject.toml"), text).unwrap();
        site.run(&server, &["lock"]).expect(1).says(says);
    };
    refused(
        "\"mine\"",
        "mine = { path = \"libs/none\" }",
        &["libs/none, where there is nothing"],
    );
    refused(
        "\"mine\"",
        "mine = { path = \"..\" }",
        &["outside of the project"],
    );
    refused(
        "\"mine\"",
        "mine = { git = \"https://h.example/x\", rev = \"--upload-pack=x\" }",
        &["cannot be a git reference"],
    );
    refused(
        "\"mine\"",
        "mine = { git = \"ext::sh -c x\" }",
        &["is none of https, http, ssh and file"],
    );
    refused("\"mine\"", "mine = { workspace = true }", &["from the workspace"]);
    refused(
        "\"mine @ https://h.example/a\"",
        "",
        &["neither a wheel nor a source archive"],
    );
    refused(
        "\"mine @ https://h.example/mine-1.0-py3-none-any.whl\"",
        "mine = { path = \"libs/mine\" }",
        &["`mine` comes from two places"],
    );
}

#[test]
fn a_place_may_hold_where_a_marker_does() {
    let site = Site::new("\"mine\"");
    let pyproject = fs::read_to_string(site.bench.path("pyproject.toml")).unwrap();
    fs::write(
        site.bench.path("pyproject.toml"),
        format!("{pyproject}\n[tool.uv.sources]\nmine = {{ path = \"libs/mine\", marker = \"sys_platform == 'linux'\" }}\n"),
    )
    .unwrap();
    project(&site.bench.path("libs/mine"), "mine", "1.5", "");
    let server = shelf();
    site.run(&server, &["lock"]).expect(0);
    assert_eq!(labels(&site), ["mine 1.5", "mine 9.0"]);
    site.run(&server, &["sync"]).expect(0);
    assert_eq!(site.python("import mine; print(mine.VERSION)"), "1.5");
}

#[test]
fn an_image_holds_what_came_from_folders_repositories_and_files() {
    let Some(road) = road("an image with packages from folders, repositories and files", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let at = road.copy(scratch.path());
    project(&at.join("libs/near"), "near", "1.0", "");
    let repository = scratch.path().join("repository");
    project(&repository, "far", "2.0", "");
    git(&repository, &["init", "-q"]);
    commit(&repository);
    let wheel = MakeWheel::new("packed", "3.0").file("packed.py", "");
    fs::create_dir(at.join("files")).unwrap();
    fs::write(at.join("files").join(wheel.file_name()), wheel.build()).unwrap();
    let text = fs::read_to_string(at.join("pyproject.toml")).unwrap().replace(
        "dependencies = [",
        &format!(
            "dependencies = [\n    \"near\", \"packed\", \"far @ git+file://{}\",",
            repository.display()
        ),
    );
    let sources = format!(
        "{text}\n[tool.uv.sources]\nnear = {{ path = \"libs/near\" }}\npacked = {{ path = \"files/{}\" }}\n",
        wheel.file_name()
    );
    fs::write(at.join("pyproject.toml"), sources).unwrap();
    fs::write(
        at.join("mlrails.toml"),
        "[dependencies]\nkeep = [\"near\", \"far\", \"packed\"]\n",
    )
    .unwrap();
    road.on(&at, &LOCK).run().expect(0);
    road.on(&at, &["image"]).run().expect(0);
    let paths = merged(&validate(&at.join("dist/churn")));
    for module in ["near", "far", "packed"] {
        let path = format!("opt/venv/lib/python3.11/site-packages/{module}.py");
        assert!(paths.contains_key(&path), "{module}");
    }
}

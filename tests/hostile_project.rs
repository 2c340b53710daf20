//! Project files that mean harm, or had an accident: each refused by name and rule, without a hang, a panic or an overflow.
//!
//! | what is tried | where |
//! |---|---|
//! | brackets without end | `a_hundred_thousand_brackets`, `source_that_no_stack_bears`, `records_that_lie`; `hostile_lock` for other tools' files |
//! | 100 MB, a million dependencies, mistakes without number | `sizes_have_limits`, `mistakes_without_number_are_counted` |
//! | NUL, no UTF-8, duplicate keys | `bytes_that_are_no_text_have_a_place`, `sources_that_are_strange_and_sound` |
//! | project names, versions beyond counting | `names_that_are_none`, `a_version_beyond_counting` |
//! | readme, licence, include, backend-path leading out | `paths_that_lead_out` |
//! | names of scripts | `scripts_that_are_no_file_names` |
//! | cycles and doubling of groups, markers that explode | `markers_and_groups_that_explode`, `a_marker_of_ten_thousand_brackets` |
//! | credentials, hosts in disguise, weak hashes | `credentials_are_accepted_and_never_shown`, `hashes_that_can_be_forged` |
//! | links out, in circles, to nowhere | `links_out_in_circles_and_to_nowhere`, `folders_that_are_none`, `folders_of_ours_that_lead_out`, `hostile_lock` |
//! | FIFO, socket, device | `pipes_and_sockets_do_not_hang`, `folders_that_are_none`, `hostile_lock` |
//! | 1 TB of nothing, too many files, too deep | `a_terabyte_of_nothing`, `too_many_files_and_folders_too_deep` |
//! | secrets, reserved names | `secrets_stay_and_are_named`, `names_that_images_reserve_or_cannot_hold` |
//! | pickles | `pickle.rs` |
//! | noise in every format | `noise.rs` |

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mlrails::project::files::{self, Limits};

use crate::support::driver::{Mlrails, Outcome, copy_of};

/// A sound project in a folder of its own, and a way to spoil it.
struct Spoiled {
    _home: tempfile::TempDir,
    folder: PathBuf,
}

impl Spoiled {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = copy_of("fixtures/shadow", home.path());
        Self { _home: home, folder }
    }

    fn write(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Adds lines to `[project]`.
    fn project(self, lines: &str) -> Self {
        let text = fs::read_to_string(self.folder.join("pyproject.toml")).unwrap();
        self.write("pyproject.toml", text + lines + "\n")
    }

    fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let path = self.folder.join(path);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn fifo(self, path: &str) -> Self {
        let path = self.folder.join(path);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            0o644.into(),
            0,
        )
        .unwrap();
        self
    }

    fn check(&self) -> Outcome {
        let home = tempfile::tempdir().unwrap();
        Mlrails::new(home.path())
            .project(&self.folder)
            .args(["check"])
            .run()
    }

    #[track_caller]
    fn refused(self, parts: &[&str]) {
        let outcome = self.check().expect(1).says(parts);
        assert!(
            outcome.stderr.len() < 20_000,
            "a wall of {} bytes",
            outcome.stderr.len()
        );
    }
}

#[test]
fn the_project_itself_is_sound() {
    Spoiled::new().check().expect(0);
}

#[test]
fn a_hundred_thousand_brackets() {
    let brackets = format!("a = {}", "[".repeat(100_000));
    for file in ["pyproject.toml", "mlrails.toml", "config/base.toml"] {
        Spoiled::new()
            .write(file, &brackets)
            .refused(&["brackets nest deeper than 64", &format!("{file}:1:")]);
    }
    let tables = format!("a = {}", "{ b = ".repeat(100_000));
    Spoiled::new()
        .write("mlrails.toml", tables)
        .refused(&["brackets nest deeper"]);
}

#[test]
fn sizes_have_limits() {
    for file in [
        "pyproject.toml",
        "mlrails.toml",
        "config/base.toml",
        "sql/q.sql",
        ".python-version",
        "src/shop/big.py",
    ] {
        let spoiled = Spoiled::new().write(file, "");
        let handle = fs::OpenOptions::new()
            .write(true)
            .open(spoiled.folder.join(file))
            .unwrap();
        handle.set_len(100 << 20).unwrap();
        spoiled.refused(&[&format!("`{file}` is 104857600 bytes")]);
    }
    let many = format!(
        "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [{}]\n",
        "\"a\",".repeat(10_001)
    );
    Spoiled::new()
        .write("pyproject.toml", many)
        .refused(&["lists more than 10000 entries"]);
    let million = format!(
        "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [{}]\n",
        "\"a\",".repeat(1_050_000)
    );
    Spoiled::new()
        .write("pyproject.toml", million)
        .refused(&["at most 4194304 are read"]);
}

#[test]
fn mistakes_without_number_are_counted() {
    let wrong = format!(
        "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\n{}]\n",
        "\"a >> 1\",\n".repeat(5_000)
    );
    let outcome = Spoiled::new().write("pyproject.toml", wrong).check().expect(1);
    assert!(
        outcome.stderr.contains("and 4900 mistakes more"),
        "{}",
        outcome.stderr.len()
    );
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    Spoiled::new()
        .write("mlrails.toml", b"# a\n# \xff\n")
        .refused(&["not UTF-8", "mlrails.toml:2:3"]);
    Spoiled::new()
        .write("mlrails.toml", b"# a\n#\0\n")
        .refused(&["NUL", "mlrails.toml:2:2"]);
    Spoiled::new()
        .write("src/shop/features.py", b"x = 1\ny = '\xe9'\n")
        .refused(&["not UTF-8", "features.py:2:6"]);
    Spoiled::new()
        .write("sql/q.sql", b"select\0")
        .refused(&["NUL", "sql/q.sql:1:7"]);
    Spoiled::new()
        .write("mlrails.toml", "[image]\nbase = \"a\"\nbase = \"b\"\n")
        .refused(&["duplicate key", "mlrails.toml:3:1"]);
    Spoiled::new()
        .project("name = \"again\"")
        .refused(&["duplicate key", "pyproject.toml:"]);
}

#[test]
fn names_that_are_none() {
    for name in ["", "../shop", "a\\nb", "/etc/passwd", "-a", "a b", "..", "a/../b"] {
        let text = format!("[project]\nname = \"{name}\"\nversion = \"1\"\n");
        Spoiled::new()
            .write("pyproject.toml", text)
            .refused(&["is not a project name", "pyproject.toml:2:8"]);
    }
}

#[test]
fn a_version_beyond_counting() {
    let text = "[project]\nname = \"shop\"\nversion = \"18446744073709551615\"\n";
    Spoiled::new()
        .write("pyproject.toml", text)
        .refused(&["is not a version", "pyproject.toml:3:11"]);
    let text = "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"a<18446744073709551615\"]\n";
    Spoiled::new()
        .write("pyproject.toml", text)
        .refused(&["is not a requirement", "pyproject.toml:4:"]);
}

#[test]
fn scripts_that_are_no_file_names() {
    for (lines, said) in [
        (
            "[project.scripts]\n\"../x\" = \"shop.serve:main\"",
            "`../x` of [project.scripts] has a name that is no plain file name",
        ),
        (
            "[project.gui-scripts]\n\"a/b\" = \"shop.serve:main\"",
            "`a/b` of [project.gui-scripts] has a name that is no plain file name",
        ),
        (
            "[project.scripts]\n\"a\\nb\" = \"shop.serve:main\"",
            "`a\\nb` of [project.scripts] has a name that no entry point can have",
        ),
        (
            "[project.scripts]\npython3 = \"shop.serve:main\"",
            "`python3` of [project.scripts] would replace the interpreter",
        ),
        (
            "[project.scripts]\nshop = \"import os; os:_exit\"",
            "`shop` of [project.scripts] is not of the form \"package.module:function\"",
        ),
        ("[project.scripts]\nshop = 3", "`shop` must be a text"),
        (
            "[project.entry-points.\"a.b\"]\nx = \"../y\"",
            "`x` of [project.entry-points.a.b] is not of the form",
        ),
        ("[project.entry-points]\nx = \"y\"", "`x` must be a table"),
    ] {
        Spoiled::new().project(lines).refused(&[said, "pyproject.toml:"]);
    }
    let sound = "[project.scripts]\nshop = \"shop.serve:main\"\n[project.entry-points.\"a.b\"]\n\"x/y\" = \"shop.serve\"\nz = \"shop.serve:Z.z [extra]\"";
    Spoiled::new().project(sound).check().expect(0);
}

#[test]
fn paths_that_lead_out() {
    for line in [
        "readme = \"../README.md\"",
        "readme = \"/etc/hostname\"",
        "readme = { file = \"a/../../b\" }",
        "license = { file = \"../LICENSE\" }",
        "license-files = [\"../*\"]",
    ] {
        Spoiled::new()
            .project(line)
            .refused(&["lies outside the project", "pyproject.toml:6:"]);
    }
    Spoiled::new()
        .project("readme = \"out.md\"")
        .link("out.md", "/etc/hostname")
        .refused(&["`out.md` lies outside the project"]);
    Spoiled::new()
        .project("\n[build-system]\nrequires = []\nbackend-path = [\"..\"]")
        .refused(&["`..` lies outside the project"]);
    for include in ["..", "/etc", "data/../../x", ""] {
        let text = format!("[image]\ninclude = [\"{include}\"]\n");
        Spoiled::new()
            .write("mlrails.toml", text)
            .refused(&["lies outside the project", "mlrails.toml:2:12"]);
    }
    Spoiled::new()
        .write("mlrails.toml", "[image]\ninclude = [\"hosts\"]\n")
        .link("hosts", "/etc/hosts")
        .refused(&["`hosts` lies outside the project"]);
}

#[test]
fn credentials_are_accepted_and_never_shown() {
    let with =
        |line: &str| format!("[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"{line}\"]\n");
    let url = "pandas @ https://someone:s3cret@host.example/pandas-1.0-py3-none-any.whl";
    let outcome = Spoiled::new()
        .write("pyproject.toml", with(url))
        .check()
        .expect(0);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("s3cret"));
    let outcome = Spoiled::new()
        .write("pyproject.toml", with(&format!("{url} ; nonsense")))
        .check()
        .expect(1);
    assert!(
        !outcome.stderr.contains("s3cret") && outcome.stderr.contains("@host.example"),
        "{}",
        outcome.stderr
    );
    let disguised = "pandas @ https://good@evil/pandas-1.0-py3-none-any.whl";
    Spoiled::new()
        .write("pyproject.toml", with(disguised))
        .refused(&["the host of this URL is `evil`"]);
    let index = "\n[[tool.uv.index]]\nurl = \"https://good@evil/simple\"";
    Spoiled::new()
        .project(index)
        .refused(&["the host of this URL is `evil`"]);
}

#[test]
fn a_marker_of_ten_thousand_brackets() {
    let marker = format!("{}os_name == 'posix'{}", "(".repeat(10_000), ")".repeat(10_000));
    let text = format!("[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"a ; {marker}\"]\n");
    Spoiled::new()
        .write("pyproject.toml", text)
        .refused(&["is not a requirement"]);
}

#[test]
fn links_out_in_circles_and_to_nowhere() {
    for file in [
        "src/shop/hosts.txt",
        "config/base.toml",
        "sql/q.sql",
        "mlrails.toml",
        ".python-version",
        "artifacts/run.json",
    ] {
        Spoiled::new()
            .link(file, "/etc/hosts")
            .refused(&[&format!("`{file}`"), "leads out of the project"]);
        Spoiled::new()
            .link(file, "nowhere")
            .refused(&[&format!("`{file}`"), "leads nowhere"]);
        let name = Path::new(file).file_name().unwrap();
        Spoiled::new()
            .link(file, name)
            .refused(&[&format!("`{file}`"), "leads in circles"]);
    }
    Spoiled::new()
        .link("src/shop/zero", "/dev/zero")
        .refused(&["leads out of the project"]);
    Spoiled::new()
        .link("src/shop/up", "..")
        .refused(&["`src/shop/up`", "a folder"]);
    let spoiled = Spoiled::new();
    fs::rename(spoiled.folder.join("src"), spoiled.folder.join("elsewhere")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("shop")).unwrap();
    spoiled
        .link("src", outside.path())
        .refused(&["`src/shop` is a symbolic link"]);
    // One that stays inside is what it leads to.
    let inside = Spoiled::new()
        .write("shared/rates.csv", "rate\n")
        .link("src/shop/rates.csv", "../../shared/rates.csv");
    inside.check().expect(0);
}

#[test]
fn pipes_and_sockets_do_not_hang() {
    for file in [
        "pyproject.toml",
        "mlrails.toml",
        "config/base.toml",
        "sql/q.sql",
        ".python-version",
        "src/shop/pipe",
        "src/shop/pipe.py",
        "artifacts/run.json",
    ] {
        Spoiled::new()
            .fifo(file)
            .refused(&[&format!("`{file}` is a FIFO, not a file")]);
    }
    let spoiled = Spoiled::new();
    let _socket = std::os::unix::net::UnixListener::bind(spoiled.folder.join("src/shop/sock")).unwrap();
    spoiled.refused(&["`src/shop/sock` is a socket, not a file"]);
    Spoiled::new()
        .fifo("pipe")
        .link("src/shop/data.csv", "../../pipe")
        .refused(&["is a FIFO"]);
}

#[test]
fn a_terabyte_of_nothing() {
    let spoiled = Spoiled::new().write("src/shop/huge.bin", "");
    let handle = fs::OpenOptions::new()
        .write(true)
        .open(spoiled.folder.join("src/shop/huge.bin"))
        .unwrap();
    handle.set_len(1 << 40).unwrap();
    spoiled.refused(&["`src/shop/huge.bin` is 1099511627776 bytes"]);
}

#[test]
fn too_many_files_and_folders_too_deep() {
    let spoiled = Spoiled::new();
    let mut deep = spoiled.folder.join("src/shop");
    for _ in 0..70 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    spoiled.refused(&["lies deeper than 64 folders"]);
    let spoiled = Spoiled::new();
    for number in 0..300 {
        fs::write(spoiled.folder.join(format!("src/shop/{number}.txt")), "").unwrap();
    }
    let list = |limit: usize| {
        let limits = Limits {
            files: limit,
            ..Limits::default()
        };
        let mut mistakes = Vec::new();
        let package = Path::new("src/shop");
        let found = files::list(
            &spoiled.folder,
            package,
            Path::new("shop"),
            Some("shop"),
            limits,
            &mut mistakes,
        );
        (
            found.found.len(),
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    assert_eq!(list(305), (305, vec![]));
    assert_eq!(list(304).1, ["the package has more than 304 files"]);
}

#[test]
fn secrets_stay_and_are_named() {
    let spoiled = Spoiled::new()
        .write("src/shop/.env", "KEY=1")
        .write("src/shop/.env.production", "KEY=1")
        .write("src/shop/keys/id_rsa", "-")
        .write("src/shop/.netrc", "-")
        .write("src/shop/.git/config", "-")
        .write("src/shop/harmless.txt", "-")
        .link("src/shop/innocent.txt", ".env");
    let outcome = spoiled.check().expect(0);
    for name in [
        ".env ",
        ".env.production ",
        "keys/id_rsa ",
        ".netrc ",
        ".git ",
        "innocent.txt ",
    ] {
        assert!(
            outcome.stdout.contains(&format!("  src/shop/{name} (")),
            "{name}\n{}",
            outcome.stdout
        );
    }
    assert!(!outcome.stdout.contains("harmless"), "{}", outcome.stdout);
    let project = mlrails::project::load(&spoiled.folder).unwrap();
    let (shipped, _) = project.shipped(&project.closure(&[])).unwrap();
    let shipped: Vec<_> = shipped.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(
        shipped,
        [
            "shop/__init__.py",
            "shop/features.py",
            "shop/harmless.txt",
            "shop/serve.py"
        ]
    );
}

#[test]
fn names_that_images_reserve_or_cannot_hold() {
    Spoiled::new()
        .write("src/shop/.wh.data.py", "")
        .refused(&["`src/shop/.wh.data.py` has a name that the image format reserves"]);
    for name in ["a\nb", "a\u{1b}[2Jb", "a\\b"] {
        Spoiled::new()
            .write(&format!("src/shop/{name}"), "")
            .refused(&[&format!("`src/shop/{}` has a name", name.escape_debug())]);
    }
    let spoiled = Spoiled::new();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"src/shop/\xff.txt");
    fs::write(spoiled.folder.join(name), "").unwrap();
    spoiled.refused(&["has a name that is not UTF-8"]);
}

#[test]
fn source_that_no_stack_bears() {
    let deep = |open: &str, close: &str| format!("x = {}1{}\n", open.repeat(100_000), close.repeat(100_000));
    for source in [
        deep("(", ")"),
        deep("-", ""),
        deep("[", "]"),
        deep("f(", ")"),
        deep("lambda: ", ""),
        deep("not ", ""),
        deep("1 if 1 else ", ""),
        deep("*", ""),
        format!("x = 1{}", " + 1".repeat(100_000)),
        format!("x = a{}", " + a".repeat(100_000)),
        format!("x = 1{}", " < 1".repeat(100_000)),
        format!("x = a{}", ".a".repeat(100_000)),
        format!("x = a{}", "[0]".repeat(100_000)),
        format!("x = a{}", "()".repeat(100_000)),
        format!("x: {}", "list[".repeat(100_000)),
        format!("del {}", "(".repeat(100_000)),
        format!("with {}", "(".repeat(100_000)),
    ] {
        Spoiled::new()
            .write("src/shop/features.py", source)
            .refused(&["nests deeper than 1000", "src/shop/features.py:1:"]);
    }
    // Under the limit, it is walked and dropped on the process's own stack.
    let bearable = format!(
        "def X(customers, spend_stats):\n    return customers{}\n",
        " + 1".repeat(900)
    );
    Spoiled::new()
        .write("src/shop/features.py", bearable)
        .check()
        .expect(0);
}

#[test]
fn records_that_lie() {
    let deep = format!("{{\"schema\":1,\"request\":{}", "[".repeat(100_000));
    Spoiled::new()
        .write("artifacts/run.json", deep)
        .refused(&["run.json cannot be understood", "recursion limit"]);
    Spoiled::new()
        .write("artifacts/run.json", "{\"schema\":1}")
        .refused(&["run.json cannot be understood", "missing field"]);
    for (damage, said) in [
        ("\"golden\":3", "`golden` must be an object, not a number"),
        (
            "\"golden\":{\"rows\":[{}]}",
            "`golden.predictions` has 0 answers for the 1 records",
        ),
        (
            "\"response\":\"list\"",
            "`response` must be an object, not a text",
        ),
        (
            "\"request\":{\"columns\":[3]}",
            "`request.columns[0]` is no column",
        ),
    ] {
        let record =
            format!("{{\"schema\":1,\"mlrails\":\"0\",\"python\":\"3.11\",\"nodes\":{{}},{damage}}}");
        Spoiled::new().write("artifacts/run.json", record).refused(&[
            "artifacts/run.json cannot be understood: ",
            said,
            "restore it from version control",
        ]);
    }
    let newer = "{\"schema\":9,\"mlrails\":\"7.0\",\"python\":\"3.11\",\"nodes\":{}}";
    Spoiled::new()
        .write("artifacts/run.json", newer)
        .refused(&["written by mlrails 7.0"]);
    let spoiled = Spoiled::new();
    for file in ["../../etc/passwd", "/etc/passwd", "", "a\\nb"] {
        let record = format!(
            "{{\"schema\":1,\"values\":{{\"model\":{{\"file\":\"{file}\",\"format\":\"json\",\"sha256\":\"\",\"size\":1}}}}}}"
        );
        let spoiled = Spoiled::new().write("artifacts/files.json", record);
        let refused = mlrails::project::record::files(&spoiled.folder.canonicalize().unwrap()).unwrap_err();
        assert!(
            refused.to_string().contains("lies outside the project"),
            "{refused}"
        );
    }
    drop(spoiled);
    Spoiled::new()
        .write("artifacts/files.json", "{}")
        .refused(&["artifacts/files.json cannot be understood", "missing field"]);
}

#[test]
fn a_folder_that_is_no_project() {
    let home = tempfile::tempdir().unwrap();
    let empty = home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let run = |folder: &Path| {
        Mlrails::new(home.path())
            .project(folder)
            .args(["check"])
            .run()
            .expect(1)
    };
    run(&empty).says(&["is not a project: it has no pyproject.toml", "--project DIR"]);
    run(&home.path().join("absent")).says(&["absent"]);
}

#[test]
fn folders_that_are_none() {
    for (folder, inner) in [
        ("config", "base.toml"),
        ("sql", "q.sql"),
        ("artifacts", "run.json"),
    ] {
        let clean = || {
            let spoiled = Spoiled::new();
            let _ = fs::remove_dir_all(spoiled.folder.join(folder));
            spoiled
        };
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join(inner), "").unwrap();
        let named = format!("`{folder}`");
        clean()
            .link(folder, outside.path())
            .refused(&[&named, "leads out of the project"]);
        clean()
            .link(folder, "nowhere")
            .refused(&[&named, "leads nowhere"]);
        clean()
            .link(folder, folder)
            .refused(&[&named, "leads in circles"]);
        clean().fifo(folder).refused(&[&named, "is a FIFO, not a folder"]);
        clean()
            .write(folder, "x")
            .refused(&[&named, "is a file, not a folder"]);
    }
}

/// What a command writes is written inside the project, wherever links lead.
#[test]
fn folders_of_ours_that_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    for (folder, words) in [
        (".mlrails", &["run"][..]),
        (".mlrails/run", &["run"]),
        (".venv", &["sync"]),
    ] {
        for (target, rule) in [
            (outside.path(), "leads out of the project"),
            (Path::new("nowhere"), "leads nowhere"),
        ] {
            let spoiled = Spoiled::new()
                .write(
                    "pylock.toml",
                    "lock-version = \"1.0\"\ncreated-by = \"x\"\npackages = []\n",
                )
                .write("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1\"\n")
                .link(folder, target);
            let home = tempfile::tempdir().unwrap();
            Mlrails::new(home.path())
                .project(&spoiled.folder)
                .args(words)
                .run()
                .expect(1)
                .says(&[rule, folder]);
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn hashes_that_can_be_forged() {
    let with = |fragment: &str| {
        format!(
            "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"pandas @ https://h.example/pandas-1-py3-none-any.whl#{fragment}\"]\n"
        )
    };
    for weak in ["md5=00", "sha1=00", "egg=x&md5=00"] {
        Spoiled::new()
            .write("pyproject.toml", with(weak))
            .refused(&["can be forged: give its sha256", "pyproject.toml:4:"]);
    }
    Spoiled::new()
        .write("pyproject.toml", with("md5=00&sha256=00"))
        .check()
        .expect(0);
}

#[test]
fn markers_and_groups_that_explode() {
    let pairs: Vec<String> = (0..300)
        .map(|at| format!("('{at}' in os_name and '{at}' in sys_platform)"))
        .collect();
    let text = format!(
        "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"a ; {}\"]\n",
        pairs.join(" or ")
    );
    Spoiled::new()
        .write("pyproject.toml", text)
        .refused(&["joins too many extras, groups or `in`"]);
    let chain: String = (1..9000)
        .map(|at| format!("g{at} = [{{ include-group = \"g{}\" }}]\n", at - 1))
        .collect();
    Spoiled::new()
        .project(&format!("[dependency-groups]\ng0 = [\"a\"]\n{chain}"))
        .refused(&["`[dependency-groups]` lists more than 200 entries"]);
    let doubled: String = (1..100)
        .map(|at| {
            let include = format!("{{ include-group = \"g{}\" }}", at - 1);
            format!("g{at} = [{include}, {include}]\n")
        })
        .collect();
    Spoiled::new()
        .project(&format!("[dependency-groups]\ng0 = [\"a\"]\n{doubled}"))
        .refused(&["lists more than 20000 entries"]);
    Spoiled::new()
        .project("[dependency-groups]\na = [{ include-group = \"b\" }]\nb = [{ include-group = \"A\" }]")
        .refused(&["groups include each other"]);
}

/// Encodings and line ends that Python accepts; and long, flat files, which nest nowhere.
#[test]
fn sources_that_are_strange_and_sound() {
    let body = "def X(customers, spend_stats):\n    return customers\n";
    for text in [
        format!("\u{feff}{body}"),
        body.replace('\n', "\r\n"),
        body.replace('\n', "\r"),
        format!("# -*- coding: utf-8 -*-\n{body}"),
        format!("\u{c}\n{body}"),
        format!("{body}x = 1; {}\n", "x = 1; ".repeat(50_000)),
        format!("{body}x = \"{}\"\n", "a".repeat(4_000_000)),
        format!("{body}x = {}\n", "9".repeat(100_000)),
        format!("{}{body}", "@decorated\ndef f(): pass\n".repeat(20_000)),
        format!("{body}{}def f(): pass\n", "@decorated\n".repeat(100_000)),
        format!("{body}if x: pass\n{}", "elif x: pass\n".repeat(100_000)),
        format!("{}{body}", "\n".repeat(4_000_000)),
        // Names that lead on and on: followed with a limit, or without recursion.
        (0..20_000)
            .map(|at| format!("def f{at}(): return f{}()\n", at + 1))
            .collect::<String>()
            + &body.replace("return", "return f0() or"),
        (0..20_000)
            .map(|at| format!("a{} = a{at}\n", at + 1))
            .collect::<String>()
            + &body.replace("return", "return a20000 or"),
    ] {
        let outcome = Spoiled::new().write("src/shop/features.py", &text).check();
        assert_eq!(outcome.code, 0, "{}\n{}", &text[..40], outcome.stderr);
    }
    for (text, rule) in [
        (b"# coding: latin-1\nx = '\xe9'\n".to_vec(), "not UTF-8"),
        (b"\xff\xfex\0=\x001\0".to_vec(), "not UTF-8"),
        (b"x = 1\n\x1a".to_vec(), "features.py:2:1"),
        (b"x = '\xed\xa0\x80'\n".to_vec(), "not UTF-8"),
    ] {
        Spoiled::new()
            .write("src/shop/features.py", text)
            .refused(&[rule]);
    }
}

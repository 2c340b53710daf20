//! Where packages come from: several indexes, pins, folders and pages on disk, credentials, proxies, and no network at all.

use base64::Engine as _;
use mlrails::lock::{Location, Lock, Package};

use crate::lock::{Bench, asks_for_a};
use crate::support::index::{Answer, Shelf};

const NOWHERE: &str = "http://127.0.0.1:1/simple";

fn packages(bench: &Bench) -> Vec<Package> {
    Lock::read(&bench.path("pylock.toml")).unwrap().unwrap().packages
}

/// `name version [marker] from index`, and where the first file is, of what was locked.
fn origins(bench: &Bench) -> Vec<String> {
    packages(bench)
        .iter()
        .map(|package| {
            let marker = package.marker.try_to_string().map(|text| format!(" [{text}]"));
            let index = package.index.clone().unwrap_or_default();
            format!("{}{} from {index}", package.label(), marker.unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_package_is_pinned_to_an_index_where_its_marker_holds() {
    let cpu = Shelf::default()
        .wheel_tagged("torch", "2.0+cpu", "cp311-cp311-manylinux_2_17_x86_64", &[])
        .wheel("a", "6.6.6", &[])
        .serve();
    let public = Shelf::default()
        .wheel("torch", "2.0", &["Requires-Dist: cuda ; sys_platform == 'linux'"])
        .wheel("cuda", "1.0", &[])
        .wheel("a", "1.0", &["Requires-Dist: torch"])
        .serve();
    let table = format!(
        "[tool.uv.sources]\ntorch = [{{ index = \"cpu\", marker = \"sys_platform == 'linux'\" }}]\n\
         [[tool.uv.index]]\nname = \"cpu\"\nurl = \"{}\"\nexplicit = true",
        cpu.index()
    );
    let expected = [
        format!("a 1.0 from {}", public.index().trim_end_matches('/')),
        format!(
            "torch 2.0 [sys_platform != 'linux'] from {}",
            public.index().trim_end_matches('/')
        ),
        format!(
            "torch 2.0+cpu [sys_platform == 'linux'] from {}",
            cpu.index().trim_end_matches('/')
        ),
    ];
    for dependencies in ["\"a\", \"torch\"", "\"a\""] {
        let bench = Bench::new(&format!("dependencies = [{dependencies}]\n{table}"));
        bench.lock(&public, &[]).expect(0);
        assert_eq!(origins(&bench), expected);
        assert!(
            cpu.asked().iter().all(|path| path.contains("torch")),
            "an explicit index is asked for what is pinned to it alone"
        );
        let bytes = std::fs::read(bench.path("pylock.toml")).unwrap();
        bench.lock(&public, &["--check"]).expect(0);
        std::fs::remove_file(bench.path("pylock.toml")).unwrap();
        bench.lock(&public, &[]).expect(0);
        assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), bytes);
    }
}

#[test]
fn one_version_from_two_indexes_is_two_entries() {
    let here = Shelf::default().wheel("a", "1.0", &["Requires-Dist: b"]).serve();
    let there = Shelf::default()
        .wheel("a", "1.0", &[])
        .wheel("b", "1.0", &[])
        .serve();
    let bench = Bench::new(&format!(
        "dependencies = [\"a\"]\n[tool.uv.sources]\na = {{ index = \"here\", marker = \"python_version < '3.12'\" }}\n\
         [[tool.uv.index]]\nname = \"here\"\nurl = \"{}\"\nexplicit = true",
        here.index()
    ));
    bench.lock(&there, &[]).expect(0);
    let (here, there) = (here.index(), there.index());
    let (here, there) = (here.trim_end_matches('/'), there.trim_end_matches('/'));
    let mut found = origins(&bench);
    found.sort();
    assert_eq!(
        found,
        [
            format!("a 1.0 [python_full_version < '3.12'] from {here}"),
            format!("a 1.0 [python_full_version >= '3.12'] from {there}"),
            format!("b 1.0 [python_full_version < '3.12'] from {there}"),
        ]
    );
}

#[test]
fn a_pin_to_an_index_that_nobody_defined() {
    let server = Shelf::default().wheel("a", "1.0", &[]).serve();
    let bench = Bench::new("dependencies = [\"a\"]\n[tool.uv.sources]\na = { index = \"nightly\" }");
    let outcome = bench.lock(&server, &[]).expect(1);
    assert_eq!(
        outcome.stderr,
        "error: `a` is to come from the index `nightly`, which is not defined\n\
         hint: add [[tool.uv.index]] with name = \"nightly\" and its url to pyproject.toml\n"
    );
}

#[test]
fn the_accelerator_chooses_among_builds_of_torch() {
    let tags = "cp311-cp311-manylinux_2_17_x86_64";
    let cpu = Shelf::default()
        .wheel_tagged("torch", "2.9.0+cpu", tags, &["Requires-Dist: sympy"])
        .wheel("sympy", "6.6.6", &[])
        .edit(|asked, answer| match asked.path.strip_prefix("/whl/cpu/") {
            Some(name) => Answer::new(302, "text/plain", "").header("Location", &format!("/simple/{name}")),
            None => answer,
        })
        .serve();
    let public = Shelf::default()
        .wheel(
            "torch",
            "2.9.0",
            &["Requires-Dist: nvidia-cublas ; sys_platform == 'linux'"],
        )
        .wheel("nvidia-cublas", "13.0", &[])
        .wheel("torchvision", "1.0", &["Requires-Dist: torch"])
        .wheel("sympy", "1.0", &[])
        .serve();
    let bench = Bench::new("dependencies = [\"torch\", \"torchvision\"]");
    std::fs::write(bench.path("mlrails.toml"), "[image]\naccelerator = \"cpu\"\n").unwrap();
    let lock = || {
        let (base, index) = (format!("{}/whl/", cpu.url), public.index());
        bench
            .command(&["lock", "--index-url", &index])
            .env("MLRAILS_TORCH_INDEX", base)
            .run()
    };
    lock().expect(0);
    assert_eq!(
        bench.locked(),
        [
            "sympy 1.0 [sys_platform != 'darwin']",
            "torch 2.9.0 [sys_platform == 'darwin']",
            "torch 2.9.0+cpu [sys_platform != 'darwin']",
            "torchvision 1.0",
        ]
    );
    std::fs::write(bench.path("mlrails.toml"), "[image]\naccelerator = \"../cpu\"\n").unwrap();
    lock().expect(1).says(&[
        "accelerator = \"../cpu\" is no build of torch",
        "hint: write \"cpu\"",
    ]);
}

#[test]
fn folders_and_pages_on_disk_are_indexes() {
    let shelf = Shelf::default()
        .wheel("a", "1.0", &["Requires-Dist: b"])
        .wheel("b", "1.0", &[]);
    // A flat folder, a flat page, a folder for each project, a page for each project: all named as a project would.
    let flat = |url: &str| {
        format!(
            "dependencies = [\"a\"]\n[[tool.uv.index]]\nurl = \"{url}\"\nformat = \"flat\"\ndefault = true"
        )
    };
    let default =
        |url: &str| format!("dependencies = [\"a\"]\n[[tool.uv.index]]\nurl = \"{url}\"\ndefault = true");
    let links = |url: &str| {
        format!("dependencies = [\"a\"]\n[tool.uv]\nfind-links = [\"{url}\"]\nindex-url = \"simple\"")
    };
    let pyprojects = [
        flat("wheels"),
        flat("./wheels/index.html"),
        default("simple"),
        default("pages"),
        links("wheels"),
    ];
    for pyproject in pyprojects {
        let bench = Bench::new(&pyproject);
        shelf.write(&bench.path("wheels"));
        let all: String = shelf
            .files
            .keys()
            .map(|file| format!("<a href=\"{file}\">{file}</a>"))
            .collect();
        std::fs::write(bench.path("wheels/index.html"), all).unwrap();
        std::fs::create_dir_all(bench.path("simple")).unwrap();
        for (file, (name, content, _)) in &shelf.files {
            if !pyproject.contains("find-links") {
                std::fs::create_dir_all(bench.path(&format!("simple/{name}"))).unwrap();
                std::fs::write(bench.path(&format!("simple/{name}/{file}")), content).unwrap();
            }
            std::fs::create_dir_all(bench.path(&format!("pages/{name}"))).unwrap();
            let page = format!("<title>Links for {name}</title><a href=\"../../wheels/{file}\">{file}</a>");
            std::fs::write(bench.path(&format!("pages/{name}/index.html")), page).unwrap();
        }
        bench.run(&["lock"]).expect(0);
        assert_eq!(bench.locked(), ["a 1.0", "b 1.0"], "{pyproject}");
        for package in packages(&bench) {
            let place = &package.wheels()[0].location;
            assert!(
                matches!(place, Location::Path(path) if bench.path(&path.to_string_lossy()).is_file()),
                "{place:?}"
            );
        }
        let written = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
        let here = bench.path("").to_string_lossy().into_owned();
        assert!(
            !written.contains(&here),
            "a lock names no folder of one machine:\n{written}"
        );
        bench.run(&["lock", "--check"]).expect(0);
        // The same by the folder's whole address, from the command line.
        std::fs::remove_file(bench.path("pylock.toml")).unwrap();
        let url = format!("file://{}", bench.path("wheels").display());
        bench
            .run(&["lock", "--index-url", NOWHERE, "--find-links", &url, "--offline"])
            .expect(3)
            .says(&["`"]);
    }
}

#[test]
fn without_an_index_packages_come_from_the_folder_alone() {
    let shelf = Shelf::default()
        .wheel("a", "1.0", &["Requires-Dist: b"])
        .wheel("b", "1.0", &[]);
    let bench = Bench::new("dependencies = [\"a\"]\n[tool.uv]\nfind-links = [\"wheels\"]");
    shelf.write(&bench.path("wheels"));
    let ways = [
        bench.command(&["lock", "--index-url", NOWHERE, "--no-index"]),
        bench
            .command(&["lock", "--index-url", NOWHERE])
            .env("PIP_NO_INDEX", "1"),
        bench
            .command(&["lock", "--index-url", NOWHERE])
            .env("UV_NO_INDEX", "true"),
    ];
    for way in ways {
        way.run().expect(0);
        assert_eq!(bench.locked(), ["a 1.0", "b 1.0"]);
        std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    }
    bench.write("dependencies = [\"a\"]\n[tool.uv]\nfind-links = [\"wheels\"]\nno-index = true");
    bench.run(&["lock"]).expect(0);
    bench.run(&["lock", "--check"]).expect(0);
    bench.write("dependencies = [\"c\"]\n[tool.uv]\nfind-links = [\"wheels\"]\nno-index = true");
    bench.run(&["lock"]).expect(1).says(&["`c`"]);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let bench = Bench::new("dependencies = [\"a\"]\n[tool.uv]\nindex-url = \"wheels\"");
    let outcome = bench.run(&["lock"]).expect(1);
    let path = bench.path("wheels");
    assert_eq!(
        outcome.stderr,
        format!(
            "error: cannot read {}: entity not found\nhint: a relative place is looked for beside the file that names it\n",
            path.display()
        )
    );
}

#[test]
fn a_page_from_the_network_names_no_file_of_this_machine() {
    let server = Shelf::default()
        .edit(|_, _| {
            Answer::new(
                200,
                "text/html",
                "<title>Links for a</title><a href=\"file:///etc/a-1.0.tar.gz\">a-1.0.tar.gz</a>",
            )
        })
        .serve();
    asks_for_a()
        .lock(&server, &[])
        .expect(1)
        .says(&["neither http nor https"]);
}

fn basic(pair: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// An index that answers only to `me` with the secret.
fn guarded() -> crate::support::index::Server {
    let expected = basic("me:hunter2");
    Shelf::default()
        .wheel("a", "1.0", &[])
        .edit(move |asked, answer| match asked.headers.get("authorization") {
            Some(sent) if *sent == expected => answer,
            _ => Answer::new(401, "text/plain", "who are you?"),
        })
        .serve()
}

#[test]
fn credentials_from_every_place_work_and_are_never_shown() {
    let server = guarded();
    let index = server.index();
    let with_user = index.replace("http://", "http://me:hunter2@");
    let table = format!("[[tool.uv.index]]\nname = \"my-own.1\"\nurl = \"{index}\"\ndefault = true");
    let netrc = format!(
        "machine {} login me password hunter2\n",
        server.url.trim_start_matches("http://")
    );
    type Case<'a> = (&'a str, Vec<&'a str>, Vec<(&'a str, &'a str)>);
    let cases: [Case; 6] = [
        ("", vec!["--index-url", &with_user], vec![]),
        ("", vec![], vec![("UV_DEFAULT_INDEX", &with_user)]),
        ("", vec![], vec![("PIP_INDEX_URL", &with_user)]),
        (
            &table,
            vec![],
            vec![
                ("UV_INDEX_MY_OWN_1_USERNAME", "me"),
                ("UV_INDEX_MY_OWN_1_PASSWORD", "hunter2"),
            ],
        ),
        ("", vec!["--index-url", &index], vec![("netrc", &netrc)]),
        ("", vec!["--index-url", &index], vec![]),
    ];
    for (at, (table, flags, variables)) in cases.into_iter().enumerate() {
        let bench = Bench::new(&format!("dependencies = [\"a\"]\n{table}"));
        let mut command = bench.command(&["lock", "--verbose"]).args(flags);
        for (name, value) in variables {
            if name == "netrc" {
                std::fs::write(bench.path("netrc"), value).unwrap();
                command = command.env("NETRC", bench.path("netrc"));
            } else {
                command = command.env(name, value);
            }
        }
        let outcome = command.run();
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
        if at == 5 {
            outcome
                .expect(1)
                .says(&["401", "who are you?", "UV_INDEX_<NAME>_USERNAME", "netrc"]);
            continue;
        }
        outcome.expect(0);
        let written = std::fs::read_to_string(bench.path("pylock.toml")).unwrap();
        assert!(
            !written.contains("hunter2") && !written.contains("me:"),
            "{written}"
        );
    }
    // Wrong ones are not shown either.
    let wrong = index.replace("http://", "http://me:hunter3@");
    let outcome = asks_for_a().lock_at(&wrong, &["--verbose"]).expect(1);
    assert!(!outcome.stderr.contains("hunter3"), "{}", outcome.stderr);
}

#[test]
fn proxies_come_from_the_environment() {
    let proxy = Shelf::default()
        .wheel("a", "1.0", &[])
        .edit(|asked, answer| match asked.headers.get("proxy-authorization") {
            Some(sent) if *sent == basic("who:hunter2") => answer,
            _ => Answer::new(407, "text/plain", "the proxy wants to know you"),
        })
        .serve();
    let lock = |bench: &Bench, index: &str, variables: &[(&str, &str)]| {
        let mut command = bench.command(&["lock", "--verbose", "--index-url", index]);
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let outcome = command.run();
        assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
        outcome
    };
    let with_user = proxy.url.replace("http://", "http://who:hunter2@");
    let index = "http://index.test/simple";
    for variable in ["http_proxy", "all_proxy", "ALL_PROXY"] {
        let bench = asks_for_a();
        lock(&bench, index, &[(variable, &with_user)]).expect(0);
        assert_eq!(bench.locked(), ["a 1.0"]);
        assert!(
            proxy
                .asked()
                .iter()
                .all(|target| target.starts_with("http://index.test/")),
            "a proxy is told the whole address"
        );
    }
    lock(&asks_for_a(), index, &[("http_proxy", &proxy.url)])
        .expect(1)
        .says(&["407"]);
    proxy.asked();
    // What NO_PROXY names is reached directly.
    let direct = Shelf::default().wheel("a", "2.0", &[]).serve();
    let bench = asks_for_a();
    lock(
        &bench,
        &direct.index(),
        &[("http_proxy", &with_user), ("NO_PROXY", "other.test,127.0.0.1")],
    )
    .expect(0);
    assert_eq!(bench.locked(), ["a 2.0"]);
    assert_eq!(proxy.asked(), Vec::<String>::new());
    // https goes through a tunnel, which this proxy has not.
    let bench = asks_for_a();
    lock(
        &bench,
        "https://index.test/simple",
        &[("https_proxy", &with_user)],
    )
    .expect(3)
    .says(&["cannot reach https://index.test/simple/a/", "hint: "]);
    let asked = proxy.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|target| target == "index.test:443"),
        "{asked:?}"
    );
}

#[test]
fn offline_says_what_is_missing_and_does_with_what_is_there() {
    let proxy = Shelf {
        metadata: true,
        ..Shelf::default()
            .wheel("a", "1.0", &["Requires-Dist: b"])
            .wheel("a", "2.0", &["Requires-Dist: b"])
    }
    .wheel("b", "1.0", &[])
    .wheel("b", "2.0", &[])
    .wheel("c", "1.0", &[])
    .serve();
    let index = "http://index.test/simple";
    let bench = Bench::new("dependencies = [\"a<2\", \"b<2\"]");
    let lock = |more: &[&str]| {
        bench
            .command(&["lock", "--index-url", index])
            .args(more)
            .env("http_proxy", &proxy.url)
            .run()
    };
    let missing = |what: &str, url: &str| {
        format!(
            "error: cannot read {what}: {url} is needed, and the network is switched off (--offline)\n\
             hint: run once without --offline to fill the cache\n"
        )
    };
    let outcome = lock(&["--offline"]).expect(3);
    assert_eq!(
        outcome.stderr,
        missing("the page of `a`", "http://index.test/simple/a/")
    );
    lock(&[]).expect(0);
    let bytes = std::fs::read(bench.path("pylock.toml")).unwrap();
    std::fs::remove_file(bench.path("pylock.toml")).unwrap();
    proxy.asked();
    lock(&["--offline"]).expect(0);
    assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), bytes);
    bench.write("dependencies = [\"a\", \"b<2\"]");
    let outcome = lock(&["--offline", "--upgrade"]).expect(3);
    assert_eq!(
        outcome.stderr,
        missing(
            "the metadata of a-2.0-py3-none-any.whl",
            "http://index.test/files/a-2.0-py3-none-any.whl.metadata"
        )
    );
    bench.write("dependencies = [\"a<2\", \"b<2\", \"c\"]");
    let outcome = lock(&["--offline"]).expect(3);
    assert_eq!(
        outcome.stderr,
        missing("the page of `c`", "http://index.test/simple/c/")
    );
    assert_eq!(proxy.asked(), Vec::<String>::new(), "offline is offline");
}

#[test]
fn extras_choose_among_indexes() {
    let tags = "cp311-cp311-manylinux_2_17_x86_64";
    let build = |local: &str| {
        Shelf::default()
            .wheel_tagged("torch", &format!("2.9.0+{local}"), tags, &[])
            .serve()
    };
    let (cpu, cu130) = (build("cpu"), build("cu130"));
    let public = Shelf::default()
        .wheel("torch", "2.9.0", &[])
        .wheel("a", "1.0", &["Requires-Dist: torch"])
        .serve();
    let index = |name: &str, server: &crate::support::index::Server| {
        format!(
            "[[tool.uv.index]]\nname = \"{name}\"\nurl = \"{}\"\nexplicit = true\n",
            server.index()
        )
    };
    let bench = Bench::new(&format!(
        "dependencies = [\"a\"]\n[project.optional-dependencies]\ncpu = [\"torch\"]\ncu130 = [\"torch\"]\n\
         [tool.uv]\nconflicts = [[{{ extra = \"cpu\" }}, {{ extra = \"cu130\" }}]]\n\
         [tool.uv.sources]\ntorch = [{{ index = \"cpu\", extra = \"cpu\" }}, {{ index = \"cu130\", extra = \"cu130\" }}]\n{}{}",
        index("cpu", &cpu),
        index("cu130", &cu130)
    ));
    bench.lock(&public, &[]).expect(0);
    let lock = Lock::read(&bench.path("pylock.toml")).unwrap().unwrap();
    let target = mlrails::python::target::Target {
        platform: mlrails::python::target::Platform::LinuxAmd64,
        python: mlrails::python::target::PythonVersion::new(3, 11),
        libc: mlrails::python::target::Libc::Glibc { major: 2, minor: 36 },
    };
    let torch = |extras: &[&str]| {
        let extras: Vec<_> = extras.iter().map(|extra| extra.parse().unwrap()).collect();
        let selected = lock.select(&target, &[], &extras).unwrap();
        selected
            .iter()
            .find(|package| package.name.as_ref() == "torch")
            .unwrap()
            .label()
    };
    assert_eq!(torch(&[]), "torch 2.9.0");
    assert_eq!(torch(&["cpu"]), "torch 2.9.0+cpu");
    assert_eq!(torch(&["cu130"]), "torch 2.9.0+cu130");
}

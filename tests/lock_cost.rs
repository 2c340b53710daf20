//! What a lock says beyond its versions: megabytes by requirement, CUDA libraries that no GPU asked for, wheels that numpy 2 breaks.

use serde_json::Value;

use crate::lock::Bench;
use crate::support::index::{Answer, Asked, Server, Shelf};

const LINUX: &str = "cp313-cp313-manylinux_2_17_x86_64";

/// The same page with other sizes, in megabytes; `None` where the index does not say.
fn sized(sizes: &'static [(&'static str, Option<u64>)]) -> impl Fn(&Asked, Answer) -> Answer {
    move |asked, answer| {
        let name = asked.path.trim_start_matches("/simple/").trim_end_matches('/');
        let Some((_, size)) = sizes.iter().find(|(known, _)| *known == name) else {
            return answer;
        };
        let mut page: Value = serde_json::from_slice(&answer.body).unwrap();
        for file in page["files"].as_array_mut().unwrap() {
            file["size"] = size.map_or(Value::Null, |size| (size * 1_000_000).into());
        }
        Answer {
            body: page.to_string().into_bytes(),
            ..answer
        }
    }
}

/// torch with CUDA's libraries, of which one is another package's too.
fn shelf() -> Server {
    let libraries = [
        "Requires-Dist: nvidia-cublas ; sys_platform == 'linux'",
        "Requires-Dist: triton ; sys_platform == 'linux'",
        "Requires-Dist: sympy",
    ];
    Shelf {
        metadata: true,
        ..Shelf::default().wheel_tagged("torch", "2.9.0", LINUX, &libraries)
    }
    .wheel_tagged("torch", "2.9.0", "cp313-cp313-macosx_14_0_arm64", &libraries)
    .wheel("nvidia-cublas", "13.0", &[])
    .wheel("nvidia-nccl", "2.0", &[])
    .wheel("triton", "3.0", &[])
    .wheel("sympy", "1.0", &[])
    .wheel(
        "xgboost",
        "3.0",
        &["Requires-Dist: nvidia-nccl", "Requires-Dist: sympy"],
    )
    .edit(sized(&[
        ("torch", Some(900)),
        ("nvidia-cublas", Some(1400)),
        ("nvidia-nccl", Some(200)),
        ("triton", Some(150)),
        ("sympy", Some(6)),
        ("xgboost", None),
    ]))
    .serve()
}

#[test]
fn megabytes_by_requirement() {
    let server = shelf();
    let bench =
        Bench::new("dependencies = [\"torch\", \"xgboost\"]\n[dependency-groups]\ndev = [\"triton\"]");
    let expected = "\
linux/amd64, CPython 3.13: 2,656.0 MB +1 of wheels, before what serving does not reach is left out
         alone     with shared
    2,450.0 MB      2,456.0 MB  torch
   200.0 MB +1     206.0 MB +1  xgboost
        6.0 MB                  brought by more than one
+ 1 wheel: the index does not say how large they are
";
    for _ in 0..2 {
        let outcome = bench.lock(&server, &["--explain-size"]).expect(0);
        assert_eq!(outcome.stdout, expected, "{}", outcome.stdout);
    }
    let outcome = bench.lock(&server, &[]).expect(0);
    assert_eq!(outcome.stdout, "", "only when it is asked for");
    let outcome = bench
        .lock(&server, &["--explain-size", "--format", "json"])
        .expect(0);
    let cost = &outcome.json()["sizes"][0]["cost"];
    assert_eq!(cost["total"]["bytes"], 2_656_000_000u64);
    assert_eq!(cost["rows"][0]["own"]["bytes"], 2_450_000_000u64);
    assert_eq!(cost["cuda"][2]["name"], "triton");
}

#[test]
fn cuda_without_an_accelerator_is_a_warning() {
    let server = shelf();
    let bench = Bench::new("dependencies = [\"torch\", \"xgboost\"]");
    let outcome = bench.lock(&server, &[]).expect(0);
    let said: Vec<&str> = outcome.stderr.lines().take(3).collect();
    assert_eq!(
        said,
        [
            "warning: linux/amd64: 1,750.0 MB of 2,656.0 MB +1 are CUDA libraries (nvidia-cublas, nvidia-nccl, triton), \
             brought by torch, xgboost, and no [image] accelerator says that there is a GPU",
            "  accelerator = \"cpu\" in [image] would save at least 1,550.0 MB; \"cu130\" or the like keeps them without this warning",
            "  no accelerator leaves out nvidia-nccl",
        ]
    );
    // A project that says what it runs on is not told, nor one that has no such library, nor a tool's.
    let told = |pyproject: &str, config: &str| {
        let bench = Bench::new(pyproject);
        std::fs::write(bench.path("mlrails.toml"), config).unwrap();
        let index = server.index();
        let outcome = bench
            .command(&["lock", "--index-url", &index])
            .env("MLRAILS_TORCH_INDEX", &server.url)
            .run()
            .expect(0);
        outcome.stderr.contains("CUDA")
    };
    assert!(told("dependencies = [\"torch\"]", ""));
    assert!(!told(
        "dependencies = [\"torch\"]",
        "[image]\naccelerator = \"cu130\"\n"
    ));
    assert!(!told(
        "dependencies = [\"sympy\"]\n[dependency-groups]\ndev = [\"torch\"]",
        ""
    ));
}

/// A wheel with a module that asks numpy for an interface by `names`, amid a megabyte of other code.
fn compiled(shelf: Shelf, name: &str, version: &str, names: &[&str], lines: &[&str]) -> Shelf {
    let mut code: Vec<u8> = (0..(1u32 << 20) - 12)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for name in names {
        code.extend_from_slice(name.as_bytes());
        code.push(0);
    }
    let module = format!("{name}/_core.cpython-313-x86_64-linux-gnu.so");
    shelf.wheel_with(name, version, LINUX, lines, &[(&module, code)])
}

#[test]
fn wheels_that_numpy_2_breaks_are_a_warning() {
    const OLD: &str = "numpy.core._multiarray_umath";
    const NEW: &str = "numpy._core._multiarray_umath";
    let needs = "Requires-Dist: numpy>=1.23";
    let world = |without_ranges: bool| {
        let shelf = Shelf {
            without_ranges,
            metadata: !without_ranges,
            ..Shelf::default()
                .wheel("numpy", "1.26.4", &[])
                .wheel("numpy", "2.3.1", &[])
        };
        let shelf = compiled(shelf, "olden", "2.1.0", &[OLD], &[needs]);
        let shelf = compiled(shelf, "newer", "2.2.3", &[NEW, OLD], &[needs]);
        let shelf = compiled(shelf, "other", "1.0", &[], &[needs]);
        compiled(shelf, "alone", "1.0", &[OLD], &[]).wheel("plain", "1.0", &[needs])
    };
    let all = "dependencies = [\"olden\", \"newer\", \"other\", \"alone\", \"plain\"]";
    let warnings = |bench: &Bench, server: &Server| -> Vec<String> {
        let outcome = bench.lock(server, &[]).expect(0);
        let lines = outcome
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "));
        lines.map(str::to_owned).collect()
    };
    // Wheels that had to be downloaded for their metadata are read.
    let server = world(true).serve();
    assert_eq!(
        warnings(&Bench::new(all), &server),
        [
            "warning: olden 2.1.0 is built against numpy 1 and does not load with numpy 2.3.1; ask for a newer olden, or for numpy<2"
        ]
    );
    let bounded = all.replace("\"plain\"", "\"plain\", \"numpy<2\"");
    assert_eq!(warnings(&Bench::new(&bounded), &server), Vec::<String>::new());
    // Of others only their age is known, where the index says it.
    assert_eq!(
        warnings(&Bench::new(all), &world(false).serve()),
        Vec::<String>::new()
    );
    let aged = world(false).edit(|asked, answer| match asked.path.contains("/simple/olden") {
        true => Answer {
            body: String::from_utf8_lossy(&answer.body)
                .replace("2024-03-24", "2023-08-30")
                .into_bytes(),
            ..answer
        },
        false => answer,
    });
    assert_eq!(
        warnings(&Bench::new(all), &aged.serve()),
        [
            "warning: olden 2.1.0 needs numpy and is older than numpy 2: if it is compiled against numpy 1, \
             it does not load with numpy 2.3.1; ask for a newer olden, or for numpy<2"
        ]
    );
}

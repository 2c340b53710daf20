//! `batch --engine` on real clusters of two workers on loopback, and on them the wheel of the example project.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::driver::repository;
use crate::support::peers::succeeds;
use crate::support::road::{Road, road};
use crate::support::store::covered;

/// A folder with the example project's wheel as pip installs it, out of its bundle, and the rows that it was trained with.
fn installed(road: &Road, into: &Path) -> (PathBuf, PathBuf) {
    let project = road.copy(into);
    let outcome = road.on(&project, &["wheel", "--bundle"]).run().expect(0);
    let bundle = into.join("bundle");
    let python = repository("tests/store/venv-pip/bin/python");
    succeeds(
        Command::new(&python)
            .args(["-m", "zipfile", "-e", outcome.stdout.trim()])
            .arg(&bundle),
    );
    let folder = into.join("installed");
    succeeds(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "-q",
                "--no-index",
                "--no-deps",
                "--target",
            ])
            .arg(&folder)
            .arg(bundle.join("churn-0.1.0-py3-none-any.whl")),
    );
    (folder, project.join("data/customers.csv"))
}

fn on(what: &str, case: &str) {
    if !covered(
        what,
        &[
            "venv-engines/bin/ray",
            "venv-engines/bin/dask",
            "venv-pip/bin/python",
        ],
    ) {
        return;
    }
    let Some(road) = road(what, &[]) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (folder, rows) = installed(road, scratch.path());
    let output = Command::new(repository("tests/store/venv-engines/bin/python"))
        .args(["-m", "unittest"])
        .args([
            format!("tests.test_engines.{case}"),
            "tests.test_engines.Sent".to_owned(),
        ])
        .env("MLRAILS_BUNDLE", folder)
        .env("MLRAILS_ROWS", rows)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository("templates/runtime"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("Ran 12 tests") && !said.contains("skipped"),
        "{said}"
    );
}

#[test]
fn a_ray_cluster_makes_what_one_process_makes() {
    on("batch on Ray", "OnRay");
}

#[test]
fn a_dask_cluster_makes_what_one_process_makes() {
    on("batch on Dask", "OnDask");
}

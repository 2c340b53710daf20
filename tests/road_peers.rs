//! What comes out of the road is taken by the tools that people have: podman runs the image, skopeo and a registry carry it,
//! umoci unpacks it, pip and uv install the lock.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::driver::repository;
use crate::support::peers::{DockerRegistry, Podman, request, succeeds};
use crate::support::road::{Road, road};

#[test]
fn podman_runs_the_image_and_it_answers_as_training_did() {
    let Some(road) = road("the image in podman", &["podman", "runc", "root"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let name = format!("localhost/mlrails-road:{}", std::process::id());
    let archive = scratch.path().join("churn.tar");
    let words = ["image", "--tag", &name, "--output", archive.to_str().unwrap()];
    let built = road.on(&project, &words).run().expect(0);
    assert_eq!(
        built.stdout.trim(),
        road.digest(),
        "a name does not change an image"
    );

    let podman = Podman::new(scratch.path(), &name);
    podman.load(&archive);
    let port = podman.run(&["--read-only", "--user", "65532", "--network", "bridge"]);
    for path in [
        "/livez",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/metadata",
        "/metrics",
    ] {
        assert_eq!(request(port, "GET", path, "").unwrap().status, 200, "{path}");
    }

    let golden = &road.record()["golden"];
    let expected: Vec<f64> = numbers(&golden["predictions"]);
    assert!(expected.len() >= 20, "{} golden rows", expected.len());
    let together = request(port, "POST", "/predict", &golden["rows"].to_string()).unwrap();
    assert_eq!(together.status, 200, "{}", together.body);
    assert_near(&numbers(&together.json()["predictions"]), &expected);
    for (row, expected) in golden["rows"].as_array().unwrap().iter().zip(&expected).take(10) {
        let one = request(port, "POST", "/predict", &row.to_string()).unwrap();
        assert_near(&numbers(&one.json()["predictions"]), &[*expected]);
    }

    let mut rows = golden["rows"].as_array().unwrap()[..3].to_vec();
    rows[1]["tenure_months"] = json!("long");
    rows[2].as_object_mut().unwrap().remove("monthly_spend");
    let refused = request(port, "POST", "/predict", &json!(rows).to_string()).unwrap();
    assert_eq!(refused.status, 422, "{}", refused.body);
    let errors = refused.json()["errors"].clone();
    let named = |row: u64, column: &str| {
        let errors = errors.as_array().unwrap();
        let found = errors
            .iter()
            .find(|error| error["row"] == row && error["column"] == column);
        found.unwrap_or_else(|| panic!("{errors:?}"))["rule"].clone()
    };
    assert!(named(1, "tenure_months").is_string());
    assert_eq!(named(2, "monthly_spend"), "required");
    assert_eq!(errors.as_array().unwrap().len(), 2, "{errors}");
    assert!(!refused.body.contains("Traceback"));

    assert_eq!(podman.stop(), 0, "{}", podman.logs());
    assert!(!podman.logs().contains("Traceback"), "{}", podman.logs());
}

#[test]
fn an_engine_takes_the_image_through_its_socket() {
    let Some(road) = road("the image through podman's socket", &["podman", "runc", "root"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let name = format!("localhost/mlrails-socket:{}", std::process::id());
    let podman = Podman::new(scratch.path(), &name);
    let service = podman.service(scratch.path());
    for variable in ["DOCKER_HOST", "CONTAINER_HOST"] {
        let built = road
            .on(&project, &["image", "--load", "--tag", &name])
            .env(variable, &service.address)
            .run()
            .expect(0)
            .says(&[&format!("podman run -p 8080:8080 {name}")]);
        assert_eq!(built.stdout.trim(), road.digest());
    }
    let port = podman.run(&["--read-only", "--network", "bridge"]);
    let golden = &road.record()["golden"];
    let answer = request(port, "POST", "/predict", &golden["rows"].to_string()).unwrap();
    assert_near(
        &numbers(&answer.json()["predictions"]),
        &numbers(&golden["predictions"]),
    );
    assert!(!project.join("dist").exists(), "nothing but what was asked for");
}

fn numbers(list: &serde_json::Value) -> Vec<f64> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list}"));
    list.iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_near(answered: &[f64], expected: &[f64]) {
    assert_eq!(answered.len(), expected.len());
    for (row, (answered, expected)) in answered.iter().zip(expected).enumerate() {
        assert!(
            (answered - expected).abs() <= 1e-9,
            "row {row}: {answered} is not {expected}"
        );
    }
}

#[test]
fn skopeo_carries_the_layout_to_a_registry() {
    let Some(road) = road(
        "the image through skopeo to a registry",
        &["skopeo", "docker-registry"],
    ) else {
        return;
    };
    let registry = DockerRegistry::start();
    let target = format!("docker://127.0.0.1:{}/churn:1", registry.port);
    let source = format!("oci:{}:latest", road.layout().display());
    let policy = "--insecure-policy";
    succeeds(Command::new("skopeo").args([
        policy,
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &source,
        &target,
    ]));
    let format = ["--tls-verify=false", "--format", "{{.Digest}}"];
    let digest = succeeds(
        Command::new("skopeo")
            .args([policy, "inspect"])
            .args(format)
            .arg(&target),
    );
    assert_eq!(digest.trim(), road.digest(), "carried as it is");
}

#[test]
fn umoci_unpacks_the_layout() {
    let Some(road) = road("the image unpacked by umoci", &["umoci"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let bundle = scratch.path().join("bundle");
    let image = format!("{}:latest", road.layout().display());
    succeeds(
        Command::new("umoci")
            .args(["unpack", "--rootless", "--image", &image])
            .arg(&bundle),
    );
    let rootfs = bundle.join("rootfs");
    let site = "opt/venv/lib/python3.11/site-packages";
    let there = [
        "app/churn/serve.py",
        "app/churn/regions.json",
        "app/artifacts/model.joblib",
        "usr/bin/python3.11",
    ];
    for path in there.into_iter().chain([
        &*format!("{site}/pandas/__init__.py"),
        &*format!("{site}/mlrails_runtime/web.py"),
    ]) {
        assert!(rootfs.join(path).is_file(), "{path}");
    }
    let absent = [
        "app/churn/train.py",
        "app/data",
        "usr/bin/sh",
        "usr/bin/dpkg",
        "usr/bin/apt",
    ];
    for path in absent.into_iter().chain([
        &*format!("{site}/matplotlib"),
        &*format!("{site}/mlflow"),
        &*format!("{site}/pip"),
    ]) {
        assert!(!rootfs.join(path).exists(), "{path}");
    }
}

const IMPORTS: &str =
    "import churn.serve, churn.features, churn.train, pandas, sklearn; print(pandas.__version__)";

/// An environment of this machine's 3.11, with nothing in it.
fn environment(folder: &Path) -> std::path::PathBuf {
    let python = repository("tests/store/venv-3.11/bin/python");
    succeeds(
        Command::new(python)
            .args(["-m", "venv", "--without-pip"])
            .arg(folder),
    );
    folder.join("bin/python")
}

/// The tool sees the lock and loopback, and none of the machine's own configuration.
fn alone(program: &Path, home: &Path, project: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
        .env("HOME", home)
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("UV_NO_CONFIG", "1");
    command
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .current_dir(project);
    command
}

fn imports(road: &Road, python: &Path) {
    let mut command = Command::new(python);
    command
        .args(["-c", IMPORTS])
        .env("PYTHONPATH", "src")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let version = succeeds(
        command
            .env("MPLCONFIGDIR", std::env::temp_dir())
            .current_dir(&road.project),
    );
    assert_eq!(
        version.trim(),
        road.record()["versions"]["pandas"].as_str().unwrap()
    );
}

#[test]
fn pip_installs_the_lock() {
    let Some(road) = road(
        "the lock installed by pip",
        &["venv-pip/bin/python", "venv-3.11/bin/python"],
    ) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let python = environment(&scratch.path().join("venv"));
    let mut pip = alone(
        &repository("tests/store/venv-pip/bin/python"),
        scratch.path(),
        &road.project,
    );
    pip.args(["-m", "pip", "--python"]).arg(&python);
    pip.args([
        "install",
        "--quiet",
        "--no-cache-dir",
        "--no-compile",
        "--no-deps",
        "-r",
        "pylock.toml",
    ]);
    succeeds(&mut pip);
    imports(road, &python);
}

#[test]
fn uv_installs_the_lock() {
    let Some(road) = road(
        "the lock installed by uv",
        &["venv-uv/bin/uv", "venv-3.11/bin/python"],
    ) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let python = environment(&scratch.path().join("venv"));
    let mut uv = alone(
        &repository("tests/store/venv-uv/bin/uv"),
        scratch.path(),
        &road.project,
    );
    uv.args(["pip", "sync", "--quiet", "pylock.toml", "--cache-dir"])
        .arg(scratch.path().join("uv"));
    uv.arg("--python").arg(&python);
    succeeds(&mut uv);
    imports(road, &python);
}

//! The road end to end: the example project becomes an image, the same everywhere, and refuses what would ship wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mlrails::digest::Digest;

use crate::support::driver::{Mlrails, repository};
use crate::support::road::{LOCK, blob, fresh, image_of, road};
use crate::support::store::is_root;
use crate::support::validator::{merged, validate};

#[test]
fn what_serving_reaches_is_in_the_image_and_nothing_else() {
    let Some(road) = road("the image of the example project", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let again = road.on(&project, &["image", "--explain"]).run().expect(0);
    assert_eq!(
        again.stdout.trim(),
        road.digest(),
        "the second build is the first"
    );
    let again = again.says(&[
        "scikit-learn requires it",
        "the table `customers` of the request",
        "left out",
    ]);
    let (included, left_out) = again.stderr.split_once("left out").unwrap();
    for name in ["pandas", "scikit-learn", "joblib", "granian"] {
        assert!(included.contains(&format!("  {name} ")), "{included}");
    }
    let titles = road.built["layers"].to_string();
    for name in ["matplotlib", "mlflow", "jupyterlab", "pytest"] {
        assert!(!included.contains(&format!("  {name} ")), "{included}");
        assert!(left_out.contains(name), "{left_out}");
        assert!(!titles.contains(name), "{titles}");
    }
    let (_, config) = image_of(&road.layout());
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert!(config["config"]["Entrypoint"].is_array(), "exec form: {config}");
    assert_eq!(config["config"]["Labels"].get("dev.mlrails.stale"), None);
}

/// Every digest, size, diff_id, entry order, path, mode, owner and time (the validator's own business); and nothing that a server does not need.
#[test]
fn the_image_is_exactly_what_the_specification_says() {
    let Some(road) = road("the image's bytes", &[]) else {
        return;
    };
    let image = validate(&road.layout());
    for layer in &image.layers {
        let what = &layer.created_by;
        assert!(
            layer.entries.iter().all(|entry| entry.mtime == 0),
            "{what}: a time"
        );
    }
    let paths = merged(&image);
    for absent in [
        "bin/sh",
        "usr/bin/sh",
        "usr/bin/bash",
        "usr/bin/dpkg",
        "usr/bin/apt",
        "usr/bin/perl",
    ] {
        assert!(!paths.contains_key(absent), "{absent}");
    }
    for present in [
        "app/artifacts/run.json",
        "app/churn/serve.py",
        "etc/passwd",
        "opt/venv/bin/python",
        "opt/venv/pyvenv.cfg",
    ] {
        assert!(paths.contains_key(present), "{present}");
    }
    assert_eq!(image.config["created"], "1970-01-01T00:00:00Z");
    assert_eq!(
        image.manifest["layers"].as_array().unwrap().len(),
        image.layers.len()
    );
}

/// Another user, folder, umask and time zone, no home, an empty cache, and nothing of mlrails but the binary: the same image,
/// from the same lock.
#[test]
fn the_binary_alone_makes_the_same_image_for_another_user() {
    let Some(road) = road("the binary alone, as another user", &[]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let place = folder.path().join("deeper/a place of its own");
    std::fs::create_dir_all(&place).unwrap();
    let binary = place.join("mlrails");
    std::fs::copy(env!("CARGO_BIN_EXE_mlrails"), &binary).unwrap();
    let project = fresh(&place);
    let cache = place.join("cache");
    let run = |words: &[&str]| {
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
                command.arg("sh");
                command
            }
            false => Command::new("sh"),
        };
        command
            .args(["-c", "umask 077; exec \"$@\"", "sh"])
            .arg(&binary)
            .args(words);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command
            .envs(road.sources())
            .env("MLRAILS_CACHE_DIR", &cache)
            .env("TZ", "Asia/Kathmandu");
        let output = command
            .current_dir(&project)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    if is_root() {
        let owned = Command::new("chown")
            .args(["-R", "1000:1000"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(owned.success());
    }
    run(&LOCK);
    let lock = |project: &Path| std::fs::read_to_string(project.join("pylock.toml")).unwrap();
    assert_eq!(lock(&project), lock(&road.project));
    assert_eq!(run(&["image"]).trim(), road.digest());
    let sums = |project: &Path| std::fs::read_to_string(project.join("mlrails.sum")).unwrap();
    assert_eq!(sums(&project), sums(&road.project));
}

/// Reads a layer twice, by seeking and as a stream, and prints what both saw.
const TARFILE: &str = r#"
import hashlib, sys, tarfile
seen = []
for mode in ("r:gz", "r|gz"):
    hasher, count = hashlib.sha256(), 0
    with tarfile.open(sys.argv[1], mode) as tar:
        for member in tar:
            hasher.update(repr((member.name, member.size, member.mode, member.uid, member.gid, member.mtime, member.linkname)).encode())
            if member.isreg():
                hasher.update(tar.extractfile(member).read())
            count += 1
    seen.append((count, hasher.hexdigest()))
assert seen[0] == seen[1], seen
print(seen[0][0])
"#;

#[test]
fn every_layer_is_read_by_gzip_tar_and_python() {
    let Some(road) = road(
        "layers read by gzip, tar and Python",
        &["gzip", "tar", "venv-3.11/bin/python"],
    ) else {
        return;
    };
    let (manifest, config) = image_of(&road.layout());
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    let python = repository("tests/store/venv-3.11/bin/python");
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let path = blob(&road.layout(), layer["digest"].as_str().unwrap());
        assert_eq!(layer["size"], std::fs::metadata(&path).unwrap().len());
        let output = |command: &mut Command| {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
            output.stdout
        };
        let input = || Stdio::from(std::fs::File::open(&path).unwrap());
        let tested = Command::new("gzip").arg("-t").stdin(input()).output().unwrap();
        assert!(tested.status.success() && tested.stderr.is_empty(), "{tested:?}");
        let tar = Command::new("gzip")
            .arg("-dc")
            .stdin(input())
            .output()
            .unwrap()
            .stdout;
        assert_eq!(Digest::of(&tar).to_string(), diff_id.as_str().unwrap());
        let listed = output(
            Command::new("tar")
                .arg("-tzf")
                .arg(&path)
                .args(["--quoting-style", "escape"]),
        );
        let listed = String::from_utf8(listed).unwrap().lines().count();
        let read = output(Command::new(&python).args(["-I", "-c", TARFILE]).arg(&path));
        assert_eq!(String::from_utf8(read).unwrap().trim(), listed.to_string());
        assert!(listed > 0);
    }
}

#[test]
fn without_a_lock_the_command_that_makes_one_is_named() {
    let Some(road) = road("refusals on the road", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    std::fs::remove_file(project.join("pylock.toml")).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["there is no pylock.toml", "hint: run `mlrails lock`"]);
    std::fs::remove_file(project.join("artifacts/run.json")).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["artifacts/run.json is missing", "`mlrails run`"]);
}

#[test]
fn what_other_code_trained_ships_only_when_asked_and_labelled() {
    let Some(road) = road("stale artifacts", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let train = project.join("src/churn/train.py");
    let text = std::fs::read_to_string(&train).unwrap();
    // Comments and layout are not what was trained.
    std::fs::write(
        &train,
        text.replace("\n\ndef model", "\n\n# a remark\n\ndef model"),
    )
    .unwrap();
    road.on(&project, &["image"]).run().expect(0);
    let edited = text.replace("max_iter=1000", "max_iter=50");
    assert_ne!(edited, text);
    std::fs::write(&train, edited).unwrap();
    let refused = road
        .on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["stale", "`model`", "--allow-stale"]);
    assert!(!refused.stderr.contains("`spend_stats`"), "{}", refused.stderr);
    let allowed = road
        .on(&project, &["image", "--allow-stale"])
        .run()
        .expect(0)
        .says(&["`model`"]);
    assert_ne!(allowed.stdout.trim(), road.digest());
    let (_, config) = image_of(&project.join("dist/churn"));
    assert_eq!(config["config"]["Labels"]["dev.mlrails.stale"], "true");
}

#[test]
fn values_that_are_not_those_of_training_are_refused() {
    let Some(road) = road("altered artifacts", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let model = project.join("artifacts/model.joblib");
    let mut bytes = std::fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["model.joblib"]);
    assert!(!project.join("dist").exists(), "nothing was written");
    std::fs::remove_file(&model).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["model.joblib"]);
}

#[test]
fn a_layer_that_differs_from_mlrails_sum_is_refused() {
    let Some(road) = road("an altered mlrails.sum", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let path = project.join("mlrails.sum");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("pandas")).unwrap();
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    words[1] = Digest::of(b"another").to_string();
    std::fs::write(&path, text.replace(line, &words.join(" "))).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["pandas", "mlrails.sum"]);
    std::fs::write(&path, text.replace(line, "not a line")).unwrap();
    road.on(&project, &["image"])
        .run()
        .expect(1)
        .says(&["mlrails.sum:"]);
}

#[test]
fn a_destination_that_cannot_be_written_is_named() {
    let Some(road) = road("a destination that cannot be written", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let dist = project.join("dist");
    if is_root() {
        // Root may write everywhere but where there is nothing to write to.
        std::os::unix::fs::symlink("/proc/self", &dist).unwrap();
    } else {
        std::fs::create_dir(&dist).unwrap();
        std::fs::set_permissions(&dist, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let refused = road.on(&project, &["image"]).run();
    assert!([1, 3].contains(&refused.code), "{refused:?}");
    assert_eq!(refused.stdout, "", "no digest of what is not there");
    refused.says(&["error: ", "dist"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_fault() {
    let Some(road) = road("a closed standard output", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    for words in [
        &["--format", "json", "image"][..],
        &["graph"],
        &["check", "--format", "json"],
    ] {
        let mut command = road.on(&project, words).into_command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !said.contains("panicked") && !said.contains("Broken pipe"),
            "{words:?}: {said}"
        );
        assert!(output.status.code().is_some(), "{words:?}: {:?}", output.status);
    }
    assert!(project.join("dist/churn/index.json").exists());
}

#[test]
fn offline_with_a_full_cache_is_enough() {
    let Some(road) = road("an image without any network", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let built = road
        .on(&project, &["--offline", "image", "--locked"])
        .run()
        .expect(0);
    assert_eq!(built.stdout.trim(), road.digest());
    let empty: Mlrails = Mlrails::new(scratch.path())
        .project(&project)
        .args(["--offline", "image"]);
    let refused = empty.run();
    assert_eq!(refused.code, 3, "{refused:?}");
    refused.says(&["error: ", "offline"]);
}

/// What stands where a trained value or the sums should be; a size that lies; a base whose packages are elsewhere.
#[test]
fn files_beside_the_code_that_are_none() {
    let Some(road) = road("hostile artifacts", &[]) else {
        return;
    };
    let refused = |spoil: &dyn Fn(&Path), parts: &[&str]| {
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        spoil(&project);
        road.on(&project, &["image"]).run().expect(1).says(parts);
        assert!(!project.join("dist").exists());
    };
    let instead = |file: &'static str, make: fn(&Path)| {
        move |project: &Path| {
            let path = project.join(file);
            std::fs::remove_file(&path).unwrap();
            make(&path);
        }
    };
    let fifo = |path: &Path| {
        use rustix::fs::{CWD, FileType, mknodat};
        mknodat(CWD, path, FileType::Fifo, 0o644.into(), 0).unwrap();
    };
    let out = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    let sparse = |path: &Path| std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    for file in [
        "artifacts/model.joblib",
        "artifacts/spend_stats.json",
        "mlrails.sum",
    ] {
        refused(&instead(file, fifo), &[file, "it is a FIFO, not a file"]);
        refused(&instead(file, out), &[file, "leads out of the project"]);
    }
    refused(
        &instead("artifacts/spend_stats.json", sparse),
        &["artifacts/spend_stats.json", "found 1099511627776"],
    );
    refused(
        &instead("artifacts/model.joblib", sparse),
        &["artifacts/model.joblib"],
    );
    refused(&instead("mlrails.sum", sparse), &["it is 1099511627776 bytes"]);
    let edited = |file: &'static str, from: &'static str, to: &'static str| {
        move |project: &Path| {
            let path = project.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
        }
    };
    refused(
        &edited("artifacts/files.json", "\"size\": ", "\"size\": 9"),
        &["is not what files.json says", "bytes"],
    );
    refused(
        &edited("pylock.toml", "\"pool/main/", "\"../../pool/main/"),
        &["is no path inside the archive"],
    );
    refused(
        &edited("pylock.toml", "\"pool/main/", "\"..%2f..%2fpool/main/"),
        &["is no path inside the archive"],
    );
    refused(
        &|project| {
            let text = "[image]\ninclude = [\"hosts\"]\n";
            std::fs::write(project.join("mlrails.toml"), text).unwrap();
            std::os::unix::fs::symlink("/etc/hosts", project.join("hosts")).unwrap();
        },
        &["`hosts`"],
    );
}

#[test]
fn an_image_is_not_written_through_a_link() {
    let Some(road) = road("links where images go", &[]) else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    for place in ["dist", "dist/churn"] {
        let scratch = tempfile::tempdir().unwrap();
        let project = road.copy(scratch.path());
        let path = project.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path(), path).unwrap();
        let words: &[&str] = if place == "dist" {
            &["image", "wheel"]
        } else {
            &["image"]
        };
        for word in words {
            road.on(&project, &[word])
                .run()
                .expect(1)
                .says(&["leads out of the project"]);
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

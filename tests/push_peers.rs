//! Other people's registry takes what is pushed, and other people's tools read it back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlrails::digest::Digest;

use crate::push::{Bench, MIB, image, layer};
use crate::support::driver::Outcome;
use crate::support::peers::{DockerRegistry, succeeds};
use crate::support::road::{Road, image_of, road};
use crate::support::store::covered;

const POLICY: &str = "--insecure-policy";

fn pushes(road: &Road, project: &Path, words: &[&str]) -> Outcome {
    let words = [&["--format", "json", "image", "--push"][..], words].concat();
    road.on(project, &words).run().expect(0)
}

#[test]
fn a_registry_takes_the_image_and_skopeo_reads_it_back() {
    let Some(road) = road("a push to docker-registry", &["skopeo", "docker-registry"]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let registry = DockerRegistry::start();
    let name = format!("127.0.0.1:{}/churn", registry.port);
    let tags = [
        format!("{name}:1"),
        format!("{name}:latest"),
        format!("127.0.0.1:{}/other:1", registry.port),
    ];
    let words = ["--tag", &*tags[0], "--tag", &*tags[1], "--tag", &*tags[2]];
    let outcome = pushes(road, &project, &words);
    assert_eq!(outcome.json()["digest"], road.digest());
    assert_eq!(
        outcome.json()["destinations"][0],
        format!("{name}@{}", road.digest())
    );
    assert!(!project.join("dist").exists(), "nothing but what was asked for");

    for tag in &tags {
        let format = ["--tls-verify=false", "--format", "{{.Digest}}"];
        let digest = succeeds(
            Command::new("skopeo")
                .args([POLICY, "inspect"])
                .args(format)
                .arg(format!("docker://{tag}")),
        );
        assert_eq!(digest.trim(), road.digest(), "{tag}");
    }
    let layout = scratch.path().join("back");
    succeeds(Command::new("skopeo").args([
        POLICY,
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &format!("docker://{}", tags[0]),
        &format!("oci:{}:1", layout.display()),
    ]));
    assert_eq!(image_of(&layout), image_of(&road.layout()));

    // Once more: nothing is sent. And for people, in one line.
    let words = ["image", "--push", "--tag", &*tags[0]];
    let count = image_of(&road.layout()).0["layers"].as_array().unwrap().len();
    road.on(&project, &words).run().expect(0).says(&[
        &format!(
            "pushed    {name}@{}   ({count} layers reused, 0 sent: 0.0 MB)",
            road.digest()
        ),
        &format!("podman run -p 8080:8080 {name}@{}", road.digest()),
    ]);
}

#[test]
fn mistakes_of_a_push_are_told_before_anything_is_built() {
    let Some(road) = road("mistakes of a push", &[]) else {
        return;
    };
    let check = |words: &[&str], code: i32, parts: &[&str]| {
        let words = [&["image", "--push"][..], words].concat();
        road.on(&road.project, &words).run().expect(code).says(parts);
    };
    check(&[], 2, &["--push needs a --tag", "hint"]);
    check(
        &["--tag", "churn:1"],
        2,
        &["Docker Hub", "registry.example/churn:1"],
    );
    check(
        &["--tag", "user:hunter2@h.example/x"],
        2,
        &["credentials do not belong"],
    );
    let digest = format!("h.example/x@{}", road.digest());
    check(&["--tag", &digest], 2, &["holds a digest", "h.example/x:latest"]);
    let port = crate::support::peers::free_port();
    let nobody = format!("127.0.0.1:{port}/churn:1");
    check(
        &["--tag", &nobody],
        3,
        &[
            "cannot push",
            &format!("127.0.0.1:{port}/churn"),
            "5 tries",
            "hint",
        ],
    );
}

/// A line to `port` that is cut after so many bytes have gone out on one connection, `cuts` times. Its own port.
fn bad_line(port: u16, bytes: usize, cuts: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let left = Arc::new(AtomicUsize::new(cuts));
    let counter = left.clone();
    std::thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let there = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut back, mut home) = (there.try_clone().unwrap(), here.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut home);
                let _ = home.shutdown(Shutdown::Both);
            });
            let left = counter.clone();
            std::thread::spawn(move || {
                let (mut here, mut there, mut total) = (here, there, 0);
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = here.read(&mut buffer) {
                    total += count;
                    let spend = |left: usize| left.checked_sub(1);
                    let is_cut = total > bytes
                        && left
                            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
                            .is_ok();
                    if is_cut || there.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = there.shutdown(Shutdown::Both);
                let _ = here.shutdown(Shutdown::Both);
            });
        }
    });
    (own, left)
}

#[test]
fn a_real_registry_is_reached_over_a_bad_line() {
    if !covered("a push to docker-registry over a bad line", &["docker-registry"]) {
        return;
    }
    let registry = DockerRegistry::start();
    let (port, left) = bad_line(registry.port, 3 * MIB, 3);
    let bench = Bench::new();
    let made = image(vec![layer(1, 8 * MIB), layer(2, 4 * MIB), layer(3, 100)]);
    let pushed = bench.push_to(&format!("127.0.0.1:{port}/churn"), &made).unwrap();
    assert_eq!((pushed.sent_layers, left.load(Ordering::SeqCst)), (3, 0));

    // Read back over the sound line: the same manifest, and layers that are what it says.
    let pulled = bench
        .pull_from(&format!("127.0.0.1:{}/churn:1", registry.port))
        .unwrap();
    assert_eq!(pulled.manifest(), made.manifest());
    for layer in pulled.layers() {
        assert_eq!(Digest::of(&bench.bytes(layer).unwrap()), layer.digest);
    }
    // Another repository of it gets them by mounting.
    let pushed = bench
        .push_to(&format!("127.0.0.1:{}/other", registry.port), &pulled)
        .unwrap();
    assert_eq!((pushed.reused_layers, pushed.sent_layers), (3, 0));
}

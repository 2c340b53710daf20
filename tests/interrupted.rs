//! Commands that are stopped in the middle, politely or not: the right exit code, nothing half-written, and the next run is none the wiser.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::lock::{Bench, asks_for_a};
use crate::support::driver::Mlrails;
use crate::support::index::{Server, Shelf};
use crate::support::road::{image_of, road};
use crate::support::store::amount;

/// An index that says when a path that contains `at` is asked for, and does not answer before it is told to.
struct Slow {
    server: Server,
    asked: Receiver<()>,
    go_on: Sender<()>,
}

impl Slow {
    fn new(at: &'static str) -> Self {
        let (tell, asked) = channel();
        let (go_on, wait) = channel();
        let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
        let server = Shelf::default()
            .wheel("a", "1.0", &[])
            .edit(move |asked, answer| {
                if asked.path.contains(at) {
                    let _ = tell.lock().unwrap().send(());
                    // A sender that is gone lets everybody pass.
                    let _ = wait.lock().unwrap().recv();
                }
                answer
            })
            .serve();
        Self { server, asked, go_on }
    }

    /// Stops a command when it has asked; answers with its exit code. The next one is not held up.
    fn stop(self, command: Mlrails, signal: Signal) -> (Option<i32>, Server) {
        let mut child = start(command);
        self.asked.recv().unwrap();
        send(&child, signal);
        let code = child.wait().unwrap().code();
        drop(self.go_on);
        (code, self.server)
    }
}

fn start(command: Mlrails) -> Child {
    let mut command = command.into_command();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn lock_stops_while_it_waits_for_an_index() {
    for (signal, code) in [
        (Signal::INT, Some(130)),
        (Signal::TERM, Some(143)),
        (Signal::KILL, None),
    ] {
        let slow = Slow::new("/simple/a/");
        let bench = asks_for_a();
        let index = slow.server.index();
        let (ended, server) = slow.stop(bench.command(&["lock", "--index-url", &index]), signal);
        assert_eq!(ended, code);
        assert_eq!(names(&bench.path(".")), ["pyproject.toml".to_owned()].into());
        bench.lock(&server, &[]).expect(0);
    }
}

/// An interpreter that only says what it is.
fn interpreter(bench: &Bench) -> String {
    let path = bench.path("python3.11");
    let text = format!(
        "#!/bin/sh\nprintf 'cpython\\n3.11.7\\n%s\\nglibc 2.36\\n' '{}'\n",
        path.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn sync_stops_while_it_waits_for_a_wheel() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let slow = Slow::new("/files/a-1.0-py3-none-any.whl");
        let bench = asks_for_a();
        let index = slow.server.index();
        let (go_on, asked) = (slow.go_on.clone(), &slow.asked);
        // The lock looks into the wheel too.
        let mut locking = start(bench.command(&["lock", "--python", "3.11", "--index-url", &index]));
        while locking.try_wait().unwrap().is_none() {
            if asked.try_recv().is_ok() {
                go_on.send(()).unwrap();
            }
            std::thread::yield_now();
        }
        drop(go_on);
        let python = interpreter(&bench);
        let before = std::fs::read(bench.path("pylock.toml")).unwrap();
        let words = ["sync", "--python", &python];
        let (ended, _server) = slow.stop(bench.command(&words), signal);
        assert_eq!(ended, code);
        assert_eq!(std::fs::read(bench.path("pylock.toml")).unwrap(), before);
        let known = [".venv", "pylock.toml", "pyproject.toml", "python3.11"];
        assert!(
            names(&bench.path("."))
                .iter()
                .all(|name| known.contains(&name.as_str()))
        );
        bench.run(&words).expect(0).says(&["1 installed"]);
        assert!(bench.path(".venv/lib/python3.11/site-packages/a").exists());
    }
}

/// The same image, whenever the builds before it were stopped, by Ctrl-C or by the kernel.
#[test]
fn an_image_stops_at_any_moment() {
    let Some(road) = road("images that are stopped", &[]) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let project = road.copy(scratch.path());
    let cache = scratch.path().join("cache");
    let image = || road.on(&project, &["image"]).env("MLRAILS_CACHE_DIR", &cache);
    let before = names(&project);
    let layout = project.join("dist/churn");
    let count = |inner: &str| count_below(&cache.join("v1").join(inner));
    let layouts = || count_below(&layout);
    let moments: [(&str, &dyn Fn() -> usize, usize); 6] = [
        ("blobs", &|| count("blobs"), 8),
        ("layers", &|| count("records/layer-1"), 1),
        ("a layout's first file", &layouts, 1),
        ("a download", &|| count("tmp"), 1),
        ("more blobs", &|| count("blobs"), 40),
        ("a layout's files", &layouts, 4),
    ];
    for (at, (moment, measure, more)) in moments.iter().take(amount(3, 6) as usize).enumerate() {
        let signal = if at % 2 == 0 { Signal::INT } else { Signal::KILL };
        let _ = std::fs::remove_dir_all(project.join("dist"));
        let least = measure() + more;
        let mut child = start(image());
        let ended = loop {
            if measure() >= least {
                send(&child, signal);
                break child.wait().unwrap();
            }
            // It was faster: then there is nothing to stop.
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::yield_now();
        };
        let code = ended.code();
        let polite = signal == Signal::INT && code == Some(130);
        assert!(
            polite || code == Some(0) || (signal == Signal::KILL && code.is_none()),
            "{moment}: {ended}"
        );
        let mut found = names(&project);
        found.retain(|name| !["dist", "mlrails.sum"].contains(&name.as_str()));
        let mut known = before.clone();
        known.remove("mlrails.sum");
        assert_eq!(found, known, "{moment}");
    }
    let outcome = image().run().expect(0);
    assert_eq!(outcome.stdout.trim(), road.digest());
    image_of(&layout);
    let strays = |folder: &Path| names(folder).into_iter().any(|name| name.starts_with('.'));
    assert!(!strays(&layout) && !strays(&layout.join("blobs/sha256")));
    assert_eq!(names(&layout), names(&road.layout()));
    assert_eq!(
        names(&layout.join("blobs/sha256")),
        names(&road.layout().join("blobs/sha256"))
    );
}

fn count_below(folder: &Path) -> usize {
    let mut found = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(entry.path()),
                false => found += 1,
            }
        }
    }
    found
}

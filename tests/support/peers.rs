//! Other people's programs, started on free ports and stopped by their own ids when the test is over.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Runs a program to its end with `PATH` and nothing else of this process's environment but what `command` sets.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = finished(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn finished(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("loopback");
    probe.local_addr().expect("an address").port()
}

/// An answer of a server on loopback.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own; an error where nobody answers.
pub fn request(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or(std::io::ErrorKind::InvalidData)?,
        body: body.to_owned(),
    })
}

/// Asks until `path` answers 200; `alive` says whether there is still somebody to wait for.
pub fn wait_for(port: u16, path: &str, mut alive: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = request(port, "GET", path, "");
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        if let Err(why) = alive() {
            panic!("{path} will never answer: {why}");
        }
        assert!(Instant::now() < deadline, "{path} does not answer: {answer:?}");
        // A foreign process says nothing when it is ready: it is asked again.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A docker-registry with an empty store.
pub struct DockerRegistry {
    process: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl DockerRegistry {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let settings = folder.path().join("config.yml");
        let store = folder.path().join("store");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            store.display()
        );
        std::fs::write(&settings, text).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("docker-registry starts");
        wait_for(port, "/v2/", || match process.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!("{ended:?}")),
        });
        Self {
            process,
            port,
            _folder: folder,
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Podman with settings that need no systemd; what it loaded and started goes with it.
pub struct Podman {
    settings: PathBuf,
    image: String,
    container: String,
    /// Its store is the machine's: a layer that one test removes may be one that another is loading.
    _alone: MutexGuard<'static, ()>,
}

static PODMAN: Mutex<()> = Mutex::new(());

impl Podman {
    /// `image` is the name under which a test will load its image.
    pub fn new(folder: &Path, image: &str) -> Self {
        let settings = folder.join("containers.conf");
        let text = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n\
                    [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        std::fs::write(&settings, text).expect("a file");
        Self {
            settings,
            image: image.to_owned(),
            // Images of one test run have names of their own, and so have their containers.
            container: image.replace(['/', ':'], "-"),
            _alone: PODMAN.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Podman's own socket for Docker's API, below `folder`.
    pub fn service(&self, folder: &Path) -> Service {
        let socket = folder.join("podman.sock");
        let address = format!("unix://{}", socket.display());
        let mut process = self
            .podman(&["system", "service", "--time", "0", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("podman starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(
                process.try_wait().is_ok_and(|ended| ended.is_none()),
                "podman ended"
            );
            assert!(Instant::now() < deadline, "podman opens no socket");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Service { process, address }
    }

    fn podman(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.args(words).env("CONTAINERS_CONF", &self.settings);
        command
    }

    #[track_caller]
    pub fn load(&self, archive: &Path) {
        succeeds(self.podman(&["load", "--quiet", "--input"]).arg(archive));
    }

    /// Starts the image in the background with `options`, its port 8080 on a free one, and waits until it is ready.
    #[track_caller]
    pub fn run(&self, options: &[&str]) -> u16 {
        let port = free_port();
        let published = format!("127.0.0.1:{port}:8080");
        let mut words = vec![
            "run",
            "--detach",
            "--name",
            &self.container,
            "--publish",
            &published,
        ];
        words.extend(options);
        words.push(&self.image);
        succeeds(&mut self.podman(&words));
        wait_for(port, "/readyz", || {
            let state =
                succeeds(&mut self.podman(&["inspect", "--format", "{{.State.Status}}", &self.container]));
            match state.trim() {
                "running" | "created" | "initialized" => Ok(()),
                _ => Err(self.logs()),
            }
        });
        port
    }

    pub fn logs(&self) -> String {
        let output = finished(&mut self.podman(&["logs", &self.container]));
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    /// SIGTERM, as an orchestrator does it; the exit code.
    #[track_caller]
    pub fn stop(&self) -> i32 {
        succeeds(&mut self.podman(&["stop", "--time", "20", &self.container]));
        let code =
            succeeds(&mut self.podman(&["inspect", "--format", "{{.State.ExitCode}}", &self.container]));
        code.trim().parse().expect("an exit code")
    }
}

/// An engine behind a socket.
pub struct Service {
    process: Child,
    /// `unix://…`, as `DOCKER_HOST` has it.
    pub address: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = finished(&mut self.podman(&["rm", "--force", "--time", "0", &self.container]));
        let _ = finished(&mut self.podman(&["rmi", "--force", &self.image]));
    }
}

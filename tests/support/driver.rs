//! Runs the real binary, cut off from the machine's own configuration, and keeps all it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the binary left.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A command line to run. Its cache and home are in a folder of the test's own.
pub struct Mlrails {
    command: Command,
}

impl Mlrails {
    /// `home` holds the cache (`home/cache`) and stands for the user's home.
    pub fn new(home: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlrails"));
        let kept = [
            "PATH",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "TMPDIR",
            "LD_LIBRARY_PATH",
        ];
        command.env_clear();
        for name in kept {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", home)
            .env("MLRAILS_CACHE_DIR", home.join("cache"))
            // Broken servers are tried again at once: tests do not sleep.
            .env("MLRAILS_HTTP_PAUSE_MS", "0")
            .stdin(Stdio::null());
        Self { command }
    }

    pub fn project(mut self, folder: &Path) -> Self {
        self.command.arg("--project").arg(folder);
        self
    }

    pub fn args<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(mut self, words: I) -> Self {
        self.command.args(words);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The command itself, for tests that need to start it and go on.
    pub fn into_command(self) -> Command {
        self.command
    }

    pub fn run(mut self) -> Outcome {
        let output = self.command.output().expect("the binary starts");
        let outcome = Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(
            !outcome.stderr.contains("panicked at"),
            "a panic is a bug:\n{}",
            outcome.stderr
        );
        if outcome.code == 0 {
            prove(&self.command);
        }
        outcome
    }
}

/// Whatever `lock` writes in a test holds: the same command line asks the verifier, which asks nothing of the network.
fn prove(locked: &Command) {
    let words: Vec<&std::ffi::OsStr> = locked.get_args().collect();
    let is = |word: &&std::ffi::OsStr, names: &[&str]| names.iter().any(|name| **word == **name);
    // `--project DIR lock …`: the command is the first word that is neither an option nor a value of one.
    let at = if words.first().is_some_and(|word| is(word, &["--project"])) {
        2
    } else {
        0
    };
    let asks_otherwise = words.iter().any(|word| is(word, &["--check", "--help", "-h"]));
    if words.get(at).is_none_or(|word| !is(word, &["lock"])) || asks_otherwise {
        return;
    }
    let mut command = Command::new(locked.get_program());
    command.env_clear().stdin(Stdio::null());
    command.envs(locked.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = locked.get_current_dir() {
        command.current_dir(folder);
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if is(&word, &["--upgrade-package"]) {
            words.next();
        } else if !is(&word, &["--upgrade", "--upgrade-base", "--offline"]) {
            command.arg(word);
        }
    }
    let output = command
        .args(["--check", "--prove", "--offline"])
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success(),
        "what was locked does not hold:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Outcome {
    /// Fails the test unless the exit code is `code`; shows what was said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless stderr contains all of `parts`.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "stderr lacks `{part}`:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A folder of the repository: `fixtures/churn`.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A copy of a fixture that the test may write to, without what earlier runs left in it.
pub fn copy_of(fixture: &str, into: &Path) -> PathBuf {
    let target = into.join(Path::new(fixture).file_name().expect("a named fixture"));
    copy_tree(&repository(fixture), &target);
    target
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("the fixture can be read");
        let name = entry.file_name();
        if [
            "dist",
            ".venv",
            ".mlrails",
            "__pycache__",
            "pylock.toml",
            "mlrails.sum",
        ]
        .iter()
        .any(|left| name == *left)
        {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        match entry.file_type().expect("the fixture can be read") {
            kind if kind.is_dir() => copy_tree(&source, &target),
            kind if kind.is_symlink() => {
                let link = std::fs::read_link(&source).expect("a link can be read");
                std::os::unix::fs::symlink(link, &target).expect("a link can be made");
            }
            _ => {
                std::fs::copy(&source, &target).expect("a file can be copied");
            }
        }
    }
}

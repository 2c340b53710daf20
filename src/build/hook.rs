//! One call of a build backend: in a clean environment, within limits, its output in a log.
//!
//! Takes the build's interpreter, the unpacked tree and the hook's name; gives what the hook returned. What runs is
//! templates/build/hook.py, which knows the backend; this side knows the machine.
//!
//! Source: PEP 517, "Build backend interface".

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::process::{self, End, Excess, Limits};
use super::system::System;

const HOOK: &str = include_str!("../../templates/build/hook.py");

/// How much of the log's end is told with a failure.
const SHOWN: u64 = 4 << 10;
const SHOWN_LINES: usize = 25;

/// A backend that can be called.
pub struct Backend<'a> {
    pub system: &'a System,
    /// The project's folder.
    pub root: &'a Path,
    /// The build's environment.
    pub environment: &'a Path,
    /// Made for this build: the backend's home, its temporary files, the answers.
    pub scratch: &'a Path,
    pub log: &'a Path,
    pub limits: &'a Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("cannot start its build")]
    Start(#[source] std::io::Error),
    /// The backend raised, or ended Python.
    #[error("its build failed in {hook}: {reason}")]
    Failed { hook: String, reason: String, log: Log },
    #[error("its build was stopped in {hook}: {excess}")]
    Stopped { hook: String, excess: Excess, log: Log },
    #[error("its build backend answered {hook} with what is no answer to it")]
    Answer { hook: String },
}

/// Where all of the output is, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub path: PathBuf,
    pub end: String,
}

/// What hook.py writes.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    failed: Option<String>,
    missing: bool,
    value: Value,
}

impl Backend<'_> {
    /// Calls `hook`; `None` if the backend has none of that name.
    pub fn call(&self, hook: &str, arguments: Value) -> Result<Option<Value>, HookError> {
        let answer = self.scratch.join("answer.json");
        let _ = std::fs::remove_file(&answer);
        let asked = json!({
            "backend": self.system.backend,
            "paths": self.system.paths,
            "hook": hook,
            "arguments": arguments,
            "answer": answer,
        });
        let runner = self.scratch.join("hook.py");
        std::fs::write(&runner, HOOK).map_err(HookError::Start)?;
        for folder in ["home", "tmp"] {
            std::fs::create_dir_all(self.scratch.join(folder)).map_err(HookError::Start)?;
        }
        let mut command = Command::new(self.environment.join("bin/python"));
        command.arg("-I").arg(&runner).current_dir(self.root);
        clean(&mut command, self.environment, self.scratch);
        let end = process::run(&mut command, asked.to_string().as_bytes(), self.log, self.limits)
            .map_err(HookError::Start)?;
        let failed = |reason: String| HookError::Failed {
            hook: hook.to_owned(),
            reason,
            log: self.log(),
        };
        let status = match end {
            End::Stopped(excess) => {
                return Err(HookError::Stopped {
                    hook: hook.to_owned(),
                    excess,
                    log: self.log(),
                });
            }
            End::Ended(status) => status,
        };
        // It comes from the build: it is read as what it is, a file that anybody may have written.
        let text = crate::regular::text(&answer, 8 << 20);
        let found: Option<Answer> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
        match found {
            None => Err(failed(format!("Python ended with {status}"))),
            Some(Answer {
                failed: Some(reason), ..
            }) => Err(failed(reason)),
            Some(Answer { missing: true, .. }) => Ok(None),
            Some(Answer { value, .. }) => Ok(Some(value)),
        }
    }

    /// As [`Backend::call`], for hooks that answer with a file's name in `folder`. The path is real and inside.
    pub fn call_for_name(&self, hook: &str, arguments: Value) -> Result<Option<String>, HookError> {
        let Some(value) = self.call(hook, arguments)? else {
            return Ok(None);
        };
        let name = value
            .as_str()
            .filter(|name| crate::python::is_plain_file_name(name));
        match name {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(HookError::Answer {
                hook: hook.to_owned(),
            }),
        }
    }

    fn log(&self) -> Log {
        Log {
            path: self.log.to_owned(),
            end: end_of(self.log).unwrap_or_default(),
        }
    }
}

/// The last lines of a log.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    // Control characters would move somebody's cursor.
    Ok(lines[lines.len().saturating_sub(SHOWN_LINES)..]
        .join("\n")
        .chars()
        .filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        .collect())
}

/// What a build may know of the environment that it was asked from: how to reach the network, which compiler to use. Credentials,
/// Python's own variables and the user's home are not among it.
const KEPT: [&str; 22] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
    "PKG_CONFIG_PATH",
    "CUDA_HOME",
    "CC",
    "CXX",
    "FC",
    "CFLAGS",
    "CXXFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
];

/// The part of it that may change what is built, in one line; empty for most.
pub fn flags() -> String {
    let said: Vec<String> = KEPT
        .iter()
        .filter(|name| matches!(**name, "CC" | "CXX" | "FC") || name.ends_with("FLAGS"))
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .collect();
    said.join(" ")
}

fn clean(command: &mut Command, environment: &Path, scratch: &Path) {
    let kept: Vec<(&str, OsString)> = KEPT
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)))
        .collect();
    let mut path = environment.join("bin").into_os_string();
    if let Some(machine) = std::env::var_os("PATH") {
        path.push(":");
        path.push(machine);
    }
    // rustup's shims find their toolchains in the user's home; cargo's credentials are there too, and are not handed on.
    let rustup = std::env::var_os("RUSTUP_HOME").or_else(|| {
        let folder = PathBuf::from(std::env::var_os("HOME")?).join(".rustup");
        folder.is_dir().then(|| folder.into_os_string())
    });
    command
        .env_clear()
        .envs(kept)
        .envs(rustup.map(|folder| ("RUSTUP_HOME", folder)))
        .env("PATH", path)
        .env("VIRTUAL_ENV", environment)
        .env("HOME", scratch.join("home"))
        .env("TMPDIR", scratch.join("tmp"))
        .env("LANG", "C.UTF-8")
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONNOUSERSITE", "1")
        // The same source gives the same wheel: 1980 is where the clock of zip files begins.
        .env("SOURCE_DATE_EPOCH", "315532800");
}

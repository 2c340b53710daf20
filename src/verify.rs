//! Parity, proven: the golden rows of training, replayed through an image that was built, without an engine and without root.
//!
//! Takes an image whose layers are on this machine; unpacks them to a temporary folder and runs the image's own
//! interpreter there, through the image's own loader, with the image's own environment. What answers is what will
//! answer in production, less the container around it. It works for images of this machine's architecture.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::interrupt::Program;
use crate::layers::unpack::{UnpackError, find, unpack};
use crate::oci::Image;

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("an image for {image} cannot run on this machine ({machine})")]
    Foreign { image: String, machine: String },
    #[error("a folder to unpack the image to cannot be made")]
    Folder(std::io::Error),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("the image's config cannot be read")]
    Config(serde_json::Error),
    #[error("the image's interpreter {path} cannot be started")]
    Start { path: String, source: std::io::Error },
    #[error("the golden rows could not be replayed in the image:\n{said}")]
    Replay { said: String },
    #[error("{differing} of {rows} golden rows are answered differently by the image:\n{said}")]
    Differs {
        differing: usize,
        rows: usize,
        said: String,
    },
}

/// What the replay found, when it found nothing wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub rows: usize,
    /// Whether answers were recorded that these were compared with.
    pub compared: bool,
}

/// The report that `python -m mlrails_runtime verify` prints.
#[derive(Debug, Deserialize)]
struct Report {
    rows: usize,
    #[serde(default = "recorded")]
    compared: bool,
    together: Vec<serde_json::Value>,
    one_by_one: Vec<serde_json::Value>,
}

/// Older runtimes only knew rows with answers.
fn recorded() -> bool {
    true
}

#[derive(Debug, Deserialize)]
struct ConfigFile {
    config: Launched,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Launched {
    #[serde(default)]
    env: Vec<String>,
    entrypoint: Vec<String>,
}

/// Replays the golden rows through `image`. `scratch` is where it may be unpacked; nothing stays there.
pub fn verify(image: &Image, scratch: &Path) -> Result<Verified, VerifyError> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    if image.platform.os != std::env::consts::OS || image.platform.architecture != machine {
        return Err(VerifyError::Foreign {
            image: format!("{}/{}", image.platform.os, image.platform.architecture),
            machine: format!("{}/{machine}", std::env::consts::OS),
        });
    }
    let config: ConfigFile = serde_json::from_slice(&image.config).map_err(VerifyError::Config)?;
    let folder = tempfile::Builder::new()
        .prefix("verify-")
        .tempdir_in(scratch)
        .map_err(VerifyError::Folder)?;
    let root = folder.path();
    unpack(&image.layers, root)?;

    let python = config.config.entrypoint.first().cloned().unwrap_or_default();
    let interpreter = find(root, &python).ok_or_else(|| VerifyError::Start {
        path: python.clone(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let (loader, libraries) = match machine {
        "amd64" => ("lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
        _ => ("lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
    };
    let loader = find(root, loader).ok_or_else(|| VerifyError::Start {
        path: loader.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let at = |path: &str| root.join(path.trim_start_matches('/')).display().to_string();
    let search = [
        format!("/usr/lib/{libraries}"),
        format!("/lib/{libraries}"),
        "/usr/lib".to_owned(),
        // Where an interpreter that no distribution packaged has its own library.
        "/usr/local/lib".to_owned(),
    ];
    let search: Vec<String> = search.iter().map(|path| at(path)).collect();
    let home = interpreter.parent().and_then(Path::parent).unwrap_or(root);
    // A virtual environment is found by its own path, which is another one here: its packages are named instead.
    let mut paths = vec![at("/app")];
    let venv = root.join("opt/venv/lib");
    for entry in std::fs::read_dir(&venv).into_iter().flatten().flatten() {
        paths.push(entry.path().join("site-packages").display().to_string());
    }
    let mut command = Command::new(&loader);
    command
        .arg("--library-path")
        .arg(search.join(":"))
        .arg(&interpreter)
        .args(["-m", "mlrails_runtime", "verify"]);
    command.env_clear();
    for variable in &config.config.env {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    command
        .env("PYTHONHOME", home)
        .env("PYTHONPATH", paths.join(":"))
        .env("MLRAILS_APP", at("/app"))
        .current_dir(at("/app"))
        .stdin(Stdio::null());
    let output = output(&mut command).map_err(|source| VerifyError::Start {
        path: interpreter.display().to_string(),
        source,
    })?;
    let said = tail(&String::from_utf8_lossy(&output.stderr));
    let report: Report = match serde_json::from_slice(&output.stdout) {
        Ok(report) => report,
        Err(_) => return Err(VerifyError::Replay { said }),
    };
    let differing = report.together.len().max(report.one_by_one.len());
    if differing > 0 {
        let first = report.together.iter().chain(&report.one_by_one).next();
        let said = first.map(ToString::to_string).unwrap_or(said);
        return Err(VerifyError::Differs {
            differing,
            rows: report.rows,
            said,
        });
    }
    if !output.status.success() {
        return Err(VerifyError::Replay { said });
    }
    Ok(Verified {
        rows: report.rows,
        compared: report.compared,
    })
}

/// What a program says and how it ends; it ends with this process.
fn output(command: &mut Command) -> std::io::Result<Output> {
    let mut program = Program::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stderr = program.child().stderr.take();
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.map_or(Ok(0), |mut stream| stream.read_to_end(&mut said))?;
        std::io::Result::Ok(said)
    });
    let mut stdout = Vec::new();
    if let Some(mut stream) = program.child().stdout.take() {
        stream.read_to_end(&mut stdout)?;
    }
    let stderr = reading.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok(Output {
        status: program.child().wait()?,
        stdout,
        stderr,
    })
}

/// The last lines of what a process said.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

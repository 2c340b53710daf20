//! The interpreter of the project's `.venv`, and the worker package that it is given: embedded in this binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{RunError, Scratch};
use crate::project::Project;

/// Each file of the worker's packages, by its path on sys.path. A test compares the list with the folder.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$((
            concat!("mlrails_worker/", $path),
            include_str!(concat!("../../templates/worker/mlrails_worker/", $path)),
        )),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "__init__.py",
    "accelerate.py",
    "answers.py",
    "equal.py",
    "failure.py",
    "freeze.py",
    "golden.py",
    "hidden.py",
    "main.py",
    "nodes.py",
    "query.py",
    "recording.py",
    "replay.py",
    "spool.py",
    "table.py",
    "versions.py",
];

macro_rules! shared {
    ($($path:literal),* $(,)?) => {
        &[$((
            concat!("mlrails_runtime/", $path),
            include_str!(concat!("../../templates/runtime/mlrails_runtime/", $path)),
        )),*]
    };
}

/// Of the serving runtime only what training shares with it: how values are saved and loaded, and the fast paths that are proven here.
const SHARED: &[(&str, &str)] = shared![
    "accelerate/__init__.py",
    "accelerate/boosters.py",
    "accelerate/features.py",
    "accelerate/models.py",
    "accelerate/plan.py",
    "accelerate/source.py",
    "accelerate/trees.py",
    "flavours.py",
    "values.py",
];

/// `-I` keeps the machine's own Python settings and folders out; the two paths are arguments.
const START: &str =
    "import sys; sys.path.insert(0, sys.argv[1]); from mlrails_worker.main import main; main(sys.argv[2])";

/// The project's interpreter, ready to run workers.
#[derive(Debug)]
pub struct Interpreter {
    pub executable: PathBuf,
    root: PathBuf,
    packages: PathBuf,
    plan: PathBuf,
}

impl Interpreter {
    /// That of `.venv`; the worker package is laid out in `scratch`.
    pub fn of(project: &Project, scratch: &Scratch) -> Result<Self, RunError> {
        let executable = project.root().join(".venv/bin/python");
        if !executable.exists() {
            return Err(RunError::NoEnvironment { python: executable });
        }
        let empty = [("mlrails_runtime/__init__.py", "")];
        for (path, text) in FILES.iter().chain(SHARED).chain(&empty) {
            scratch.write(&Path::new("python").join(path), text.as_bytes())?;
        }
        Ok(Self {
            executable,
            root: project.root().to_path_buf(),
            packages: scratch.path().join("python"),
            plan: scratch.path().join("plan.json"),
        })
    }

    /// A worker, not yet started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(["-I", "-c", START])
            .arg(&self.packages)
            .arg(&self.plan)
            .current_dir(&self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn every_file_of_the_worker_is_embedded() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/worker/mlrails_worker");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".py"))
            .collect();
        found.sort();
        let listed: Vec<&str> = FILES
            .iter()
            .map(|(path, _)| path.trim_start_matches("mlrails_worker/"))
            .collect();
        assert_eq!(found, listed);
    }
}

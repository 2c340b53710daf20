//! This machine's interpreters, as commands look for them.

use std::path::PathBuf;

use crate::layers::environment::interpreter::{self, Interpreter};
use crate::python::target::PythonVersion;
use crate::store::Store;

/// Minors that are tried when neither the lock nor the project names one.
pub const NEWEST_FIRST: [u8; 6] = [14, 13, 12, 11, 10, 9];

/// The interpreter of that minor (and that patch, where `wanted` has one) on PATH, pyenv's or uv's.
pub fn on_machine(store: &Store, wanted: PythonVersion) -> Option<Interpreter> {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map_or_else(Vec::new, |path| std::env::split_paths(&path).collect());
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    interpreter::find(store, wanted, &folders, home.as_deref(), pyenv.as_deref())
}

/// What to do where there is none: `version` is `3.11`, or `3`.
pub fn advice(version: &str) -> String {
    format!(
        "get it with `uv python install {version}` or `pyenv install {version}`, or from your distribution (python{version})"
    )
}

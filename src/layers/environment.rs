//! The project's environment, `.venv`: made without running Python, brought to what a lock says, and left as pip expects
//! to find one.
//!
//! It owns what is in that folder: `pyvenv.cfg` and the interpreter's links, what was installed (`mlrails.json`, beside the
//! RECORDs that are any installer's), removal by RECORD. It does not know locks: it is told which wheels should be there.
//!
//! Sources: PEP 405 (environments), "Recording installed projects".

pub mod interpreter;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::install::{self, INSTALLER, InstallError, Placed, Scheme};
use crate::digest::Digest;
use crate::python::record;
use crate::python::wheel::Wheel;
use crate::store::Store;
use interpreter::Interpreter;

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("{path} is there, and is no Python environment")]
    NotOne { path: String },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: String,
        source: io::Error,
    },
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Layer(#[from] super::LayerError),
}

fn fault<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EnvironmentError + 'a {
    move |source| EnvironmentError::Io {
        action,
        path: path.display().to_string(),
        source,
    }
}

/// What mlrails has put into an environment. Written last, removed first: it never claims what is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    pub interpreter: Interpreter,
    /// By normalised name.
    pub packages: BTreeMap<String, Package>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    pub version: String,
    /// The wheel's.
    pub digest: Digest,
    pub dist_info: String,
}

const STATE: &str = "mlrails.json";
const VERSION: u32 = 1;
/// Makes the project's own package importable.
const PROJECT_PTH: &str = "_mlrails_project.pth";

/// An environment's folder, whether it exists or not.
#[derive(Debug, Clone)]
pub struct Environment {
    root: PathBuf,
}

/// What a change did, by `name version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub installed: Vec<String>,
    pub removed: Vec<String>,
    /// How many were as they should be.
    pub unchanged: usize,
    /// Files that two of the wheels bring with different content: the later wheel's is there.
    pub overwritten: Vec<String>,
}

impl Environment {
    /// The environment at `root`, an absolute path.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is installed, if mlrails made this environment and its interpreter is still there. A package whose RECORD
    /// somebody removed is not installed.
    pub fn state(&self) -> Option<State> {
        let mut state: State = serde_json::from_slice(&fs::read(self.root.join(STATE)).ok()?).ok()?;
        let site = self.site_packages(&state.interpreter);
        state
            .packages
            .retain(|_, package| site.join(&package.dist_info).join("RECORD").is_file());
        let whole = state.version == VERSION
            && self.root.join("pyvenv.cfg").is_file()
            // Follows the link: an interpreter that was uninstalled is a reason to start over.
            && self.root.join("bin/python").is_file();
        whole.then_some(state)
    }

    fn site_packages(&self, interpreter: &Interpreter) -> PathBuf {
        self.root.join(self.scheme(interpreter).site_packages())
    }

    /// How wheels are installed here.
    fn scheme(&self, interpreter: &Interpreter) -> Scheme {
        Scheme {
            python: interpreter.version.minor_only(),
            interpreter: self.root.join("bin/python").display().to_string(),
        }
    }

    /// Makes the environment for `interpreter`; one of another interpreter is removed first. A folder that is no
    /// environment is not touched.
    pub fn make(&self, interpreter: &Interpreter) -> Result<(), EnvironmentError> {
        let config = self.root.join("pyvenv.cfg");
        let home = interpreter.executable.parent().unwrap_or(Path::new("/"));
        let text = install::pyvenv(&home.display().to_string(), interpreter.version);
        let link = self.root.join("bin/python");
        let same_config = fs::read_to_string(&config).is_ok_and(|known| known == text);
        if same_config && fs::read_link(&link).is_ok_and(|target| target == interpreter.executable) {
            return Ok(());
        }
        let is_empty = fs::read_dir(&self.root).map_or(true, |mut entries| entries.next().is_none());
        if config.is_file() {
            fs::remove_dir_all(&self.root).map_err(fault("remove", &self.root))?;
        } else if !is_empty || self.root.is_file() {
            return Err(EnvironmentError::NotOne {
                path: self.root.display().to_string(),
            });
        }
        let site = self.site_packages(interpreter);
        for folder in [&self.root.join("bin"), &site] {
            fs::create_dir_all(folder).map_err(fault("make", folder))?;
        }
        // Python's own `venv` has it too: some projects still install into lib64.
        let lib64 = self.root.join("lib64");
        symlink("lib", &lib64).map_err(fault("make", &lib64))?;
        let executable = interpreter.executable.display().to_string();
        for (name, target) in install::interpreter_links(&executable, interpreter.version) {
            let path = self.root.join("bin").join(name);
            symlink(target, &path).map_err(fault("make", &path))?;
        }
        self.write("bin/activate", &activate(&self.root))?;
        // What is installed is no part of the project.
        self.write(".gitignore", "*\n")?;
        // Last: without it the folder is no environment.
        self.write("pyvenv.cfg", &text)
    }

    fn write(&self, relative: &str, text: &str) -> Result<(), EnvironmentError> {
        let path = self.root.join(relative);
        fs::write(&path, text).map_err(fault("write", &path))
    }

    /// Makes modules in `folder` importable, and no other folder of a project.
    pub fn link_project(&self, interpreter: &Interpreter, folder: &Path) -> Result<(), EnvironmentError> {
        let path = self.site_packages(interpreter).join(PROJECT_PTH);
        let text = format!("{}\n", folder.display());
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        fs::write(&path, text).map_err(fault("write", &path))
    }

    /// Brings the environment to exactly `wanted`, whose bytes `store` has: what mlrails installed and is not wanted any
    /// more is removed, what somebody else installed is left alone unless a wanted wheel takes its place.
    ///
    /// `done` is told about installed bytes as they are written.
    pub fn install(
        &self,
        store: &Store,
        interpreter: &Interpreter,
        wanted: &[Wheel],
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<Change, EnvironmentError> {
        let state = self.state().filter(|state| state.interpreter == *interpreter);
        let known = state.map(|state| state.packages).unwrap_or_default();
        let state_path = self.root.join(STATE);
        match fs::remove_file(&state_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fault("remove", &state_path)(error));
            }
            _ => {}
        }
        let packages: BTreeMap<String, Package> = wanted
            .iter()
            .map(|wheel| (wheel.name.to_string(), package(wheel)))
            .collect();
        let (keep, new): (Vec<&Wheel>, Vec<&Wheel>) = wanted.iter().partition(|wheel| {
            known
                .get(wheel.name.as_ref())
                .is_some_and(|known| *known == package(wheel))
        });
        let mut change = Change {
            unchanged: keep.len(),
            ..Change::default()
        };

        let site = self.site_packages(interpreter);
        let kept: HashSet<&str> = keep.iter().map(|wheel| wheel.dist_info.as_str()).collect();
        let mut gone = Vec::new();
        for found in installed(&site)? {
            let replaced = new.iter().any(|wheel| wheel.name.as_ref() == found.name);
            if !kept.contains(found.dist_info.as_str()) && (found.is_ours || replaced) {
                if !replaced {
                    change.removed.push(format!("{} {}", found.name, found.version));
                }
                gone.push(found.dist_info);
            }
        }
        self.remove(&site, &gone)?;

        let scheme = self.scheme(interpreter);
        let placed = place_all(store, &new, &scheme)?;
        let installations: Vec<(&Wheel, &[Placed])> = placed
            .iter()
            .map(|(wheel, _, placed)| (*wheel, &placed[..]))
            .collect();
        change.overwritten = install::collisions(&installations)
            .iter()
            .map(ToString::to_string)
            .collect();
        for (wheel, file, placed) in &placed {
            install::into_folder(wheel, file, placed, &self.root, done)?;
            change.installed.push(wheel.label());
        }
        let state = State {
            version: VERSION,
            interpreter: interpreter.clone(),
            packages,
        };
        let text = serde_json::to_string_pretty(&state).unwrap_or_default();
        let temporary = self.root.join("mlrails.json.new");
        fs::write(&temporary, text).map_err(fault("write", &temporary))?;
        fs::rename(&temporary, &state_path).map_err(fault("write", &state_path))?;
        Ok(change)
    }

    /// Removes installations by their RECORD. Files that another one lists too stay, and so does everything outside of the
    /// environment, whatever a RECORD says.
    fn remove(&self, site: &Path, dist_infos: &[String]) -> Result<(), EnvironmentError> {
        if dist_infos.is_empty() {
            return Ok(());
        }
        let files = |dist_info: &str| -> Vec<PathBuf> {
            let text = fs::read_to_string(site.join(dist_info).join("RECORD")).unwrap_or_default();
            let rows = record::parse(&text).unwrap_or_default();
            rows.iter()
                .filter_map(|row| self.inside(site, &row.path))
                .collect()
        };
        let shared: HashSet<PathBuf> = installed(site)?
            .iter()
            .filter(|found| !dist_infos.contains(&found.dist_info))
            .flat_map(|found| files(&found.dist_info))
            .collect();
        let mut folders = BTreeSet::new();
        for dist_info in dist_infos {
            let record = site.join(dist_info).join("RECORD");
            for path in files(dist_info) {
                // Its own RECORD goes last: an interrupted removal can be continued.
                if path == record || shared.contains(&path) {
                    continue;
                }
                remove_file(&path)?;
                if path.extension().is_some_and(|extension| extension == "py") {
                    remove_bytecode(&path);
                }
                folders.extend(path.parent().map(Path::to_owned));
            }
            remove_file(&record)?;
            folders.insert(site.join(dist_info));
        }
        // Folders that became empty, from the inside out.
        for folder in folders.iter().rev() {
            let mut folder = folder.as_path();
            while folder != site && folder != self.root && folder.starts_with(&self.root) {
                let _ = fs::remove_dir(folder.join("__pycache__"));
                if fs::remove_dir(folder).is_err() {
                    break;
                }
                let Some(parent) = folder.parent() else { break };
                folder = parent;
            }
        }
        Ok(())
    }

    /// A path of a RECORD in this environment; `None` if it leads out of it, or to what is the environment's own.
    fn inside(&self, site: &Path, row: &str) -> Option<PathBuf> {
        let mut path = site.to_owned();
        for part in Path::new(row).components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => {
                    path.pop();
                }
                _ => return None,
            }
        }
        let relative = path.strip_prefix(&self.root).ok()?;
        let own = relative == Path::new("pyvenv.cfg")
            || relative == Path::new("bin/python")
            || relative == Path::new("");
        (!own).then_some(path)
    }
}

/// The wheels with their bytes and the places of their files, opened in parallel.
type Placement<'a> = (&'a Wheel, fs::File, Vec<Placed>);

fn place_all<'a>(
    store: &Store,
    wheels: &[&'a Wheel],
    scheme: &Scheme,
) -> Result<Vec<Placement<'a>>, EnvironmentError> {
    use rayon::prelude::*;
    wheels
        .par_iter()
        .map(|wheel| {
            let (file, placed) = super::wheels::placed(store, wheel, scheme)?;
            Ok((*wheel, file, placed))
        })
        .collect()
}

fn package(wheel: &Wheel) -> Package {
    Package {
        version: wheel.version.to_string(),
        digest: wheel.digest,
        dist_info: wheel.dist_info.clone(),
    }
}

/// One distribution in an environment, as its `.dist-info` says.
struct Installed {
    name: String,
    version: String,
    dist_info: String,
    is_ours: bool,
}

fn installed(site: &Path) -> Result<Vec<Installed>, EnvironmentError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(site).map_err(fault("read", site))? {
        let entry = entry.map_err(fault("read", site))?;
        let file_name = entry.file_name();
        let Some(dist_info) = file_name.to_str() else {
            continue;
        };
        let Some((name, version)) = dist_info
            .strip_suffix(".dist-info")
            .and_then(|stem| stem.rsplit_once('-'))
        else {
            continue;
        };
        let Ok(name) = name.parse::<uv_normalize::PackageName>() else {
            continue;
        };
        let installer = fs::read_to_string(entry.path().join("INSTALLER"));
        found.push(Installed {
            name: name.to_string(),
            version: version.to_owned(),
            // RECORD comes first: one without INSTALLER is ours, interrupted.
            is_ours: installer.map_or(true, |text| text.trim() == INSTALLER),
            dist_info: dist_info.to_owned(),
        });
    }
    found.sort_by(|one, other| one.dist_info.cmp(&other.dist_info));
    Ok(found)
}

fn remove_file(path: &Path) -> Result<(), EnvironmentError> {
    match fs::remove_file(path) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(fault("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The compiled forms of a module, in `__pycache__` beside it.
fn remove_bytecode(module: &Path) {
    let (Some(folder), Some(stem)) = (module.parent(), module.file_stem().and_then(|stem| stem.to_str()))
    else {
        return;
    };
    let start = format!("{stem}.");
    for entry in fs::read_dir(folder.join("__pycache__"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(&start) && name.ends_with(".pyc"))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// For `source .venv/bin/activate`, in the shells that read POSIX.
fn activate(root: &Path) -> String {
    let quoted = root.display().to_string().replace('\'', "'\"'\"'");
    format!(
        "# source this file; `deactivate` undoes it\n\
         if command -v deactivate >/dev/null 2>&1; then deactivate; fi\n\
         MLRAILS_OLD_PATH=$PATH\n\
         MLRAILS_OLD_PS1=${{PS1:-}}\n\
         VIRTUAL_ENV='{quoted}'\n\
         PATH=$VIRTUAL_ENV/bin:$PATH\n\
         PS1=\"(.venv) ${{PS1:-}}\"\n\
         export VIRTUAL_ENV PATH\n\
         deactivate() {{\n    \
             PATH=$MLRAILS_OLD_PATH\n    \
             PS1=$MLRAILS_OLD_PS1\n    \
             export PATH\n    \
             unset VIRTUAL_ENV MLRAILS_OLD_PATH MLRAILS_OLD_PS1\n    \
             unset -f deactivate\n\
         }}\n\
         hash -r 2>/dev/null || true\n"
    )
}

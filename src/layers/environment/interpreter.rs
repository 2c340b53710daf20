//! Finds the machine's interpreter of one Python minor, and asks it what it is: where pyenv and uv keep theirs, and on
//! PATH. Nothing of a project is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::python::target::{Libc, Platform, PythonVersion, Target};
use crate::store::{Stamp, Store};

/// An interpreter on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Absolute; of the installation itself, not of an environment made from it.
    pub executable: PathBuf,
    /// With its patch.
    pub version: PythonVersion,
    pub libc: Libc,
}

impl Interpreter {
    /// What is installed for it; `None` on a platform that is none of ours.
    pub fn target(&self) -> Option<Target> {
        Some(Target {
            platform: Platform::host()?,
            python: self.version,
            libc: self.libc,
        })
    }
}

/// What an interpreter is asked, one answer per line.
const QUESTION: &str = "\
import sys, os
print(sys.implementation.name)
print('%d.%d.%d' % sys.version_info[:3])
print(getattr(sys, '_base_executable', None) or sys.executable)
try:
    print(os.confstr('CS_GNU_LIBC_VERSION') or '')
except (AttributeError, OSError, ValueError):
    print('')
";

const RECORD: &str = "interpreter-1";

/// The interpreter of that minor (and that patch, where `wanted` has one); the first that is found. `folders` is what PATH
/// holds, `home` the user's folder, `pyenv` pyenv's own (else below the home).
pub fn find(
    store: &Store,
    wanted: PythonVersion,
    folders: &[PathBuf],
    home: Option<&Path>,
    pyenv: Option<&Path>,
) -> Option<Interpreter> {
    let fits = |found: &Interpreter| {
        found.version.minor_only() == wanted.minor_only()
            && wanted
                .patch
                .is_none_or(|patch| found.version.patch == Some(patch))
    };
    candidates(wanted, folders, home, pyenv)
        .iter()
        .filter_map(|path| ask(store, path))
        .find(fits)
}

/// Where that minor could be, best first: what the user put on PATH, then what pyenv and uv installed, newest first.
fn candidates(
    wanted: PythonVersion,
    folders: &[PathBuf],
    home: Option<&Path>,
    pyenv: Option<&Path>,
) -> Vec<PathBuf> {
    let minor = wanted.minor_only();
    let name = format!("python{minor}");
    // pyenv's shims choose by the current folder; what they choose from is looked at below.
    let on_path = folders.iter().filter(|folder| !folder.ends_with("shims"));
    let mut found: Vec<PathBuf> = on_path
        .clone()
        .map(|folder| folder.join(&name))
        .chain(on_path.flat_map(|folder| [folder.join("python3"), folder.join("python")]))
        .collect();
    let pyenv = pyenv
        .map(Path::to_owned)
        .or_else(|| home.map(|home| home.join(".pyenv")));
    let mut kept: Vec<PathBuf> = pyenv.map(|root| root.join("versions")).into_iter().collect();
    kept.extend(home.map(|home| home.join(".local/share/uv/python")));
    for folder in kept {
        let mut versions: Vec<(PythonVersion, PathBuf)> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                // `3.11.7`, or uv's `cpython-3.11.7-linux-x86_64-gnu`.
                let file_name = entry.file_name();
                let text = file_name.to_str()?.trim_start_matches("cpython-");
                let version: PythonVersion = text.split('-').next()?.parse().ok()?;
                (version.minor_only() == minor).then(|| (version, entry.path().join("bin").join(&name)))
            })
            .collect();
        versions.sort_by(|one, other| other.cmp(one));
        found.extend(versions.into_iter().map(|(_, path)| path));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| path.is_file() && fs::canonicalize(path).is_ok_and(|real| seen.insert(real)));
    found
}

/// Asks the interpreter at `path` what it is, once per file: the answer is kept as long as the file does not change.
pub fn ask(store: &Store, path: &Path) -> Option<Interpreter> {
    let path = std::path::absolute(path).ok()?;
    let real = fs::canonicalize(&path).ok()?;
    let stamp = serde_json::to_string(&Stamp::of(&real)?).ok()?;
    let key = format!("{} {stamp}", path.display());
    if let Some(known) = store.record::<Interpreter>(RECORD, &key)
        && known.executable.is_file()
    {
        return Some(known);
    }
    let output = Command::new(&path)
        .args(["-I", "-S", "-c", QUESTION])
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let found = answer(&String::from_utf8(output.stdout).ok()?)?;
    // It is asked again next time, and that is all that is lost.
    let _ = store.keep_record(RECORD, &key, &found);
    Some(found)
}

fn answer(text: &str) -> Option<Interpreter> {
    let mut lines = text.lines();
    if lines.next()? != "cpython" {
        return None;
    }
    let version = lines.next()?.parse().ok()?;
    let executable = PathBuf::from(lines.next()?);
    // `glibc 2.36`; elsewhere musl, whose wheels ask for 1.1 or 1.2. On macOS it says nothing.
    let libc = match lines
        .next()?
        .strip_prefix("glibc ")
        .and_then(|text| text.split_once('.'))
    {
        Some((major, minor)) => Libc::Glibc {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        None => Libc::Musl { major: 1, minor: 2 },
    };
    Some(Interpreter {
        executable,
        version,
        libc,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let found = answer("cpython\n3.11.7\n/usr/bin/python3.11\nglibc 2.36\n").unwrap();
        assert_eq!(found.version.to_string(), "3.11.7");
        assert_eq!(found.libc, Libc::Glibc { major: 2, minor: 36 });
        assert_eq!(
            answer("cpython\n3.12.1\n/x\n\n").unwrap().libc,
            Libc::Musl { major: 1, minor: 2 }
        );
        assert!(answer("pypy\n3.11.7\n/x\n\n").is_none());
        assert!(answer("").is_none());
    }

    #[test]
    fn a_patch_that_is_asked_for_is_found_where_pyenv_keeps_it() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let versions = home.path().join(".local/share/uv/python");
        for version in ["3.11.4", "3.11.9", "3.12.1"] {
            let bin = versions.join(format!("cpython-{version}-linux-x86_64-gnu/bin"));
            fs::create_dir_all(&bin).unwrap();
            let path = bin.join(format!("python{}", &version[..4]));
            let script = format!(
                "#!/bin/sh\nprintf 'cpython\\n{version}\\n{}\\nglibc 2.36\\n'\n",
                path.display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let check = |wanted: &str| {
            let found = find(&store, wanted.parse().unwrap(), &[], Some(home.path()), None);
            found.map(|found| found.version.to_string())
        };
        assert_eq!(check("3.11").as_deref(), Some("3.11.9"));
        assert_eq!(check("3.11.4").as_deref(), Some("3.11.4"));
        assert_eq!(check("3.12").as_deref(), Some("3.12.1"));
        assert_eq!(check("3.13"), None);
    }
}

//! Where a wheel's files go: the installer, for a layer and for a folder on this machine alike.
//!
//! It takes a validated wheel and a scheme, and gives a list of placed files: the wheel's own, the generated scripts, a
//! RECORD that is true of the result. A list is made into a layer by [`super`], into an environment by [`into_folder`].
//! It does not know locks, nor which wheels belong together.
//!
//! Source: the "Binary distribution format" specification, "Installing a wheel"; "Recording installed projects".

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rayon::prelude::*;

use crate::digest::Digest;
use crate::python::archive::ReadAt;
use crate::python::entry_point;
use crate::python::record::{self, Row};
use crate::python::target::PythonVersion;
use crate::python::wheel::{self, ContentError, Entry, Script, Wheel, WheelError};
use crate::tree::{PLAIN, Tree, TreeError};

/// An environment's own places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    /// Major and minor name the folder of site-packages.
    pub python: PythonVersion,
    /// What scripts start with: the environment's interpreter, as an absolute path.
    pub interpreter: String,
}

/// One file of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Below the environment's folder.
    pub path: String,
    pub content: Content,
    pub executable: bool,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// As it is in the wheel: an index into its entries.
    Entry(usize),
    /// Made here.
    Bytes(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Wheel(#[from] WheelError),
    #[error("the wheel {wheel} is refused: `{path}` is the environment's own")]
    Reserved { wheel: String, path: String },
    #[error("the wheel {wheel} is refused: it has two files for {path}")]
    Twice { wheel: String, path: String },
    /// Two wheels want different content at one path.
    #[error("{one} and {other} both bring {path}, with different content")]
    Collision {
        path: String,
        one: String,
        other: String,
    },
    #[error("cannot install {wheel}: entry `{entry}`")]
    Entry {
        wheel: String,
        entry: String,
        source: ContentError,
    },
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
}

/// What stands in INSTALLER.
pub const INSTALLER: &str = "mlrails";

/// Scripts larger than this are programs, whose first line is not rewritten.
const LARGEST_SCRIPT: u64 = 1 << 20;

impl Scheme {
    /// The environment in an image.
    pub fn image(python: PythonVersion) -> Self {
        Self {
            python: python.minor_only(),
            interpreter: format!("/{}/bin/python", super::recipe::PREFIX),
        }
    }

    /// `lib/python3.11/site-packages`.
    pub fn site_packages(&self) -> String {
        format!(
            "lib/python{}.{}/site-packages",
            self.python.major, self.python.minor
        )
    }
}

/// Where each of the wheel's files goes: in the wheel's order, then what is made here, RECORD last.
pub fn place<S: ReadAt + ?Sized>(
    wheel: &Wheel,
    source: &S,
    scheme: &Scheme,
) -> Result<Vec<Placed>, InstallError> {
    let site = scheme.site_packages();
    let dist_info = format!("{site}/{}", wheel.dist_info);
    let mut placed = Vec::with_capacity(wheel.entries.len() + wheel.scripts.len() + 2);
    for (index, entry) in wheel.entries.iter().enumerate() {
        if is_replaced(wheel, entry) {
            continue;
        }
        let Some(digest) = entry.digest else { continue };
        let (path, is_script) = path_of(wheel, &entry.name, &site, scheme);
        if is_script && entry.size <= LARGEST_SCRIPT {
            let bytes = wheel.read(source, entry)?;
            if let Some(bytes) = with_interpreter(&bytes, &scheme.interpreter) {
                placed.push(made(path, bytes, true));
                continue;
            }
        }
        placed.push(Placed {
            path,
            content: Content::Entry(index),
            executable: entry.executable || is_script,
            digest,
            size: entry.size,
        });
    }
    for script in &wheel.scripts {
        let text = format!("{}{}", shebang(&scheme.interpreter), launcher(script));
        placed.push(made(format!("bin/{}", script.name), text.into_bytes(), true));
    }
    placed.push(made(
        format!("{dist_info}/INSTALLER"),
        format!("{INSTALLER}\n").into_bytes(),
        false,
    ));
    let mut paths = HashMap::with_capacity(placed.len());
    for file in &placed {
        let own = file.path == "pyvenv.cfg"
            || file
                .path
                .strip_prefix("bin/")
                .is_some_and(entry_point::is_interpreter);
        if own {
            return Err(InstallError::Reserved {
                wheel: wheel.file_name.clone(),
                path: file.path.clone(),
            });
        }
        if paths.insert(file.path.as_str(), ()).is_some() {
            return Err(InstallError::Twice {
                wheel: wheel.file_name.clone(),
                path: file.path.clone(),
            });
        }
    }
    let record = format!("{dist_info}/RECORD");
    let text = record_of(&placed, &site, &record);
    placed.push(made(record, text.into_bytes(), false));
    Ok(placed)
}

fn made(path: String, bytes: Vec<u8>, executable: bool) -> Placed {
    Placed {
        path,
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        content: Content::Bytes(bytes),
        executable,
    }
}

/// Whether the installer writes this file itself, or leaves it out: what a wheel says of its own installation is not true.
fn is_replaced(wheel: &Wheel, entry: &Entry) -> bool {
    entry
        .name
        .strip_prefix(&wheel.dist_info)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|name| {
            matches!(
                name,
                "RECORD" | "RECORD.jws" | "RECORD.p7s" | "INSTALLER" | "REQUESTED" | "direct_url.json"
            )
        })
}

/// Where `name` goes, and whether that is among the scripts.
fn path_of(wheel: &Wheel, name: &str, site: &str, scheme: &Scheme) -> (String, bool) {
    // purelib and platlib are one folder in every environment that we make.
    let below = wheel
        .data
        .as_ref()
        .and_then(|data| name.strip_prefix(data.as_str())?.strip_prefix('/'));
    match below.and_then(|below| below.split_once('/')) {
        Some(("scripts", rest)) => (format!("bin/{rest}"), true),
        Some(("data", rest)) => (rest.to_owned(), false),
        Some(("headers", rest)) => (
            format!(
                "include/site/python{}.{}/{}/{rest}",
                scheme.python.major,
                scheme.python.minor,
                wheel.name.as_dist_info_name()
            ),
            false,
        ),
        Some((_, rest)) => (format!("{site}/{rest}"), false),
        None => (format!("{site}/{name}"), false),
    }
}

/// A script whose first line asks for Python ("#!python", PEP 427), with the environment's interpreter in it.
fn with_interpreter(bytes: &[u8], interpreter: &str) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(b"#!python")?;
    let rest = rest.strip_prefix(b"w").unwrap_or(rest);
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let arguments = rest[..end].trim_ascii();
    // Arguments behind it (`-E`) go only where the plain form fits.
    let mut text = shebang(interpreter);
    if !arguments.is_empty() && text.lines().count() == 1 {
        text.truncate(text.len() - 1);
        text.push(' ');
        text.push_str(std::str::from_utf8(arguments).ok()?);
        text.push('\n');
    }
    Some([text.as_bytes(), &rest[end + 1..]].concat())
}

/// The first line of a script. The kernel reads at most 127 bytes and divides at blanks: beyond that, a shell starts the
/// interpreter, in a form that Python reads as a string.
fn shebang(interpreter: &str) -> String {
    if interpreter.len() + 2 <= 127 && !interpreter.contains([' ', '\t']) {
        return format!("#!{interpreter}\n");
    }
    let quoted = interpreter.replace('\'', "'\"'\"'");
    format!("#!/bin/sh\n'''exec' '{quoted}' \"$0\" \"$@\"\n' '''\n")
}

fn launcher(script: &Script) -> String {
    let Script {
        module, attribute, ..
    } = script;
    let imported = attribute.split('.').next().unwrap_or_default();
    format!(
        "import sys\nfrom {module} import {imported}\nif __name__ == \"__main__\":\n    \
         sys.argv[0] = sys.argv[0].removesuffix(\".exe\")\n    sys.exit({attribute}())\n"
    )
}

/// RECORD of an installation: paths relative to site-packages, sorted, itself without a digest.
fn record_of(placed: &[Placed], site: &str, record: &str) -> String {
    let up = "../".repeat(site.split('/').count());
    let relative = |path: &str| match path.strip_prefix(site).and_then(|rest| rest.strip_prefix('/')) {
        Some(inside) => inside.to_owned(),
        None => format!("{up}{path}"),
    };
    let mut rows: Vec<Row> = placed
        .iter()
        .map(|file| Row {
            path: relative(&file.path),
            digest: Some(file.digest),
            size: Some(file.size),
        })
        .collect();
    rows.push(Row {
        path: relative(record),
        digest: None,
        size: None,
    });
    rows.sort_by(|one, other| one.path.cmp(&other.path));
    record::write(&rows)
}

/// Every pair of wheels that would overwrite each other: different content at one path, or a file where the other has a
/// folder. Equal content at one path is fine.
pub fn collisions(installations: &[(&Wheel, &[Placed])]) -> Vec<InstallError> {
    let mut owners: HashMap<&str, (usize, &Placed)> = HashMap::new();
    let mut found = Vec::new();
    let mut collide = |path: &str, one: usize, other: usize| {
        found.push(InstallError::Collision {
            path: path.to_owned(),
            one: installations[one].0.label(),
            other: installations[other].0.label(),
        });
    };
    for (index, (_, placed)) in installations.iter().enumerate() {
        for file in *placed {
            match owners.get(file.path.as_str()) {
                Some((owner, other))
                    if (other.digest, other.executable) != (file.digest, file.executable) =>
                {
                    collide(&file.path, *owner, index);
                }
                Some(_) => {}
                None => {
                    owners.insert(&file.path, (index, file));
                }
            }
        }
    }
    for (index, (_, placed)) in installations.iter().enumerate() {
        for file in *placed {
            let mut folders = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
            if let Some((folder, (owner, _))) = folders.find_map(|folder| Some((folder, owners.get(folder)?)))
            {
                collide(folder, *owner, index);
            }
        }
    }
    found
}

/// The folders that hold `placed`, parents first, each once; not the environment's own.
pub fn folders<'a>(placed: impl IntoIterator<Item = &'a Placed>) -> BTreeSet<&'a str> {
    placed
        .into_iter()
        .flat_map(|file| file.path.match_indices('/').map(|(at, _)| &file.path[..at]))
        .collect()
}

/// An environment without anything installed, below `opt/venv`: pyvenv.cfg and the links to the base's interpreter.
/// `python` is its absolute path in the image.
pub fn venv_tree(python: &str, version: PythonVersion) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    let prefix = super::recipe::PREFIX;
    let home = python.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let text = pyvenv(home, version);
    tree.insert_file(&format!("{prefix}/pyvenv.cfg"), text.into_bytes(), PLAIN)?;
    for (name, target) in interpreter_links(python, version) {
        tree.insert_symlink(&format!("{prefix}/bin/{name}"), &target)?;
    }
    tree.insert_dir(&format!("{prefix}/{}", Scheme::image(version).site_packages()))?;
    Ok(tree)
}

/// pyvenv.cfg, which makes a folder an environment (PEP 405). `home` is the folder of the interpreter.
pub fn pyvenv(home: &str, version: PythonVersion) -> String {
    format!(
        "home = {home}\nimplementation = CPython\nversion = {version}\ninclude-system-site-packages = false\n"
    )
}

/// The names that `bin/` has for the interpreter `python`, with what each links to.
pub fn interpreter_links(python: &str, version: PythonVersion) -> [(String, String); 3] {
    [
        ("python".to_owned(), python.to_owned()),
        ("python3".to_owned(), "python".to_owned()),
        (
            format!("python{}.{}", version.major, version.minor),
            "python".to_owned(),
        ),
    ]
}

/// Writes an installation into the environment `root`, whose folders are made where they are missing. A file that is there
/// is replaced by a new one, never written into: it may be a link to elsewhere. RECORD is written first, so that an
/// installation that was interrupted can be removed.
pub fn into_folder(
    wheel: &Wheel,
    source: &File,
    placed: &[Placed],
    root: &Path,
    done: &(dyn Fn(u64) + Sync),
) -> Result<(), InstallError> {
    for folder in folders(placed) {
        let path = root.join(folder);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(write_error(&path)(error));
            }
            _ => {}
        }
    }
    if let Some(record) = placed.last() {
        write(wheel, source, record, root)?;
    }
    placed[..placed.len().saturating_sub(1)]
        .par_iter()
        .with_min_len(16)
        .try_for_each(|file| {
            write(wheel, source, file, root)?;
            done(file.size);
            Ok(())
        })
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> InstallError + '_ {
    move |source| InstallError::Write {
        path: path.display().to_string(),
        source,
    }
}

fn write(wheel: &Wheel, source: &File, placed: &Placed, root: &Path) -> Result<(), InstallError> {
    let path = root.join(&placed.path);
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if placed.executable { 0o777 } else { 0o666 })
            .open(&path)
    };
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&path).and_then(|()| create())
        }
        other => other,
    }
    .map_err(write_error(&path))?;
    let index = match &placed.content {
        Content::Bytes(bytes) => return file.write_all(bytes).map_err(write_error(&path)),
        Content::Entry(index) => *index,
    };
    let entry = &wheel.entries[index];
    wheel::read_entry(source, entry, &mut |piece| file.write_all(piece)).map_err(|error| match error {
        ContentError::Write(source) => write_error(&path)(source),
        source => InstallError::Entry {
            wheel: wheel.file_name.clone(),
            entry: entry.name.clone(),
            source,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_blank_interpreter_is_started_by_a_shell() {
        assert_eq!(shebang("/opt/venv/bin/python"), "#!/opt/venv/bin/python\n");
        let long = format!("/{}/python", "x".repeat(140));
        assert!(shebang(&long).starts_with("#!/bin/sh\n'''exec' '/x"));
        assert!(shebang("/my project/python").starts_with("#!/bin/sh\n"));
    }

    #[test]
    fn scripts_that_ask_for_python_get_the_environments() {
        let check = |script: &str, expected: Option<&str>| {
            let made = with_interpreter(script.as_bytes(), "/v/bin/python");
            assert_eq!(made.as_deref(), expected.map(str::as_bytes));
        };
        check("#!python\nx\n", Some("#!/v/bin/python\nx\n"));
        check("#!python -E\r\nx\n", Some("#!/v/bin/python -E\nx\n"));
        check("#!pythonw\nx\n", Some("#!/v/bin/python\nx\n"));
        check("#!/bin/sh\nx\n", None);
        check("\x7fELF", None);
    }
}

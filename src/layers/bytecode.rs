//! Bytecode made beforehand, by the base's own interpreter: what makes a cold start three times faster.
//!
//! It takes modules (a path in the image, a source) in units that change together, a wheel each, and gives the files of their
//! `__pycache__` folders. Another build of the same minor version compiles some modules differently, so it is the base's own
//! ([`Interpreter`]); and bytecode is the same on every architecture: amd64's interpreter serves every platform.
//!
//! A unit is compiled once per interpreter, ever; results are kept in the store. Where the interpreter cannot run (another
//! system, another architecture, a folder mounted noexec) there is no bytecode, and whoever asked is told why. A `.pyc` says by
//! "unchecked hash" that it never looks at its source's time: image layers have none (PEP 552).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::interpreter::{Interpreter, LOADER, PLATFORM, TRIPLE};
use super::kept::{KeepError, Kept};
use super::unpack::UnpackError;
use crate::debian::DebianError;
use crate::digest::{Digest, Hasher};
use crate::interrupt::Program;
use crate::reporter::{Reporter, Unit as Counted};
use crate::store::{Store, StoreError};
use crate::tree::Packed;

pub(super) const SCRIPT: &str = include_str!("../../templates/bytecode/compile.py");

/// The store's bucket of compiled units.
pub(super) const RECORD: &str = "bytecode";

/// Modules that one copy of the interpreter compiles, neighbours within a unit. What an interpreter has seen before can show in a
/// module's bytecode, so it is part of the key; a copy for each would cost as much as compiling does.
pub(super) const CHUNK: usize = 16;

/// An answer longer than this is not a module's bytecode.
const LONGEST_ANSWER: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BytecodeError {
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error(transparent)]
    Image(#[from] UnpackError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot unpack the interpreter to {path}")]
    Unpack { path: PathBuf, source: io::Error },
    #[error("the base has no {path}, which its interpreter needs")]
    Absent { path: String },
    #[error("cannot read {path} of {unit} to compile it")]
    Source {
        unit: String,
        path: String,
        source: io::Error,
    },
    #[error("cannot keep the bytecode of {unit}")]
    Keep { unit: String, source: KeepError },
}

/// Modules that change together: those of one wheel, or the base's standard library.
pub struct Unit<'a> {
    /// For people: `pandas 2.2.3`.
    pub what: String,
    /// Of what the sources come from (a wheel); with the paths it says all about them.
    pub digest: Digest,
    /// The modules' absolute paths in the image, `/opt/venv/lib/python3.11/site-packages/pandas/__init__.py`.
    pub paths: Vec<String>,
    /// The source of one of `paths`. Called from many threads, and only for units that are not in the store.
    #[allow(clippy::type_complexity)] // One closure, and a name for its type would hide what it takes.
    pub read: Box<dyn Fn(&str) -> io::Result<Bytes> + Sync + Send + 'a>,
}

/// What became of the modules.
#[derive(Debug)]
pub enum Bytecode {
    /// One map per unit, in their order: by path relative to the image's root,
    /// `opt/venv/…/__pycache__/__init__.cpython-311.pyc`.
    Made(Vec<BTreeMap<String, Packed>>),
    /// There is none, for this reason.
    Impossible(String),
}

/// Compiles what the store does not have yet, on all cores. CPU work: call it from blocking code.
pub fn compile(
    interpreter: &Interpreter<'_>,
    units: &[Unit<'_>],
    reporter: &dyn Reporter,
) -> Result<Bytecode, BytecodeError> {
    let store = interpreter.store;
    let tag = format!("cpython-{}", interpreter.minor.replace('.', ""));
    let mut made: Vec<BTreeMap<String, Packed>> = vec![BTreeMap::new(); units.len()];
    let (mut missing, mut places) = (Vec::new(), Vec::new());
    for (place, unit) in units.iter().enumerate() {
        match stored(store, &unit.key(interpreter.key))? {
            Some(files) => add(&mut made[place], files, &tag),
            None => {
                missing.push(unit);
                places.push(place);
            }
        }
    }
    if missing.is_empty() {
        return Ok(Bytecode::Made(made));
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(Bytecode::Impossible(format!(
            "the base's interpreter for {PLATFORM} does not run on this machine"
        )));
    }
    let root = match interpreter.root() {
        Ok(root) => root,
        Err(error @ BytecodeError::Absent { .. }) => return Ok(Bytecode::Impossible(error.to_string())),
        Err(error) => return Err(error),
    };
    let python = Python {
        root,
        minor: interpreter.minor.clone(),
    };
    // In the order of their paths, whatever order they came in.
    let sorted: Vec<Vec<&str>> = missing
        .iter()
        .map(|unit| {
            let mut paths: Vec<&str> = unit.paths.iter().map(String::as_str).collect();
            paths.sort_unstable();
            paths
        })
        .collect();
    let work: Vec<Chunk<'_>> = sorted
        .iter()
        .enumerate()
        .flat_map(|(owner, paths)| paths.chunks(CHUNK).map(move |paths| Chunk { owner, paths }))
        .collect();
    // A first worker, alone: whether the interpreter runs here at all is found out before the work is handed out.
    let first = match python.start() {
        Ok(worker) => worker,
        Err(error) => {
            return Ok(Bytecode::Impossible(format!(
                "the base's interpreter does not run on this machine: {error}"
            )));
        }
    };
    let total: usize = missing.iter().map(|unit| unit.paths.len()).sum();
    let task = reporter.start("compiling modules", Counted::Items, Some(total as u64));
    let outcome = all(&python, first, &missing, &work, &|count| {
        reporter.advance(task, count as u64)
    });
    reporter.finish(task);
    let results = outcome?;
    let mut refused = 0;
    for (index, unit) in missing.iter().enumerate() {
        let mut files = Vec::new();
        for (chunk, results) in work
            .iter()
            .zip(&results)
            .filter(|(chunk, _)| chunk.owner == index)
        {
            for (path, result) in chunk.paths.iter().zip(results) {
                match result {
                    Some(bytecode) => files.push(((*path).to_owned(), bytecode.clone())),
                    None => refused += 1,
                }
            }
        }
        keep(store, &unit.key(interpreter.key), unit, &files)?;
        add(&mut made[places[index]], files, &tag);
    }
    if refused > 0 {
        reporter.note(&format!(
            "{refused} files of {total} are no modules of Python {} and have no bytecode",
            python.minor
        ));
    }
    Ok(Bytecode::Made(made))
}

/// `/a/b.py` → `a/__pycache__/b.cpython-311.pyc` (PEP 3147).
fn cached_path(path: &str, tag: &str) -> String {
    let path = path.trim_start_matches('/');
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.strip_suffix(".py").unwrap_or(file);
    let folder = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    format!("{folder}__pycache__/{stem}.{tag}.pyc")
}

fn add(made: &mut BTreeMap<String, Packed>, files: Vec<(String, Packed)>, tag: &str) {
    for (path, bytecode) in files {
        made.insert(cached_path(&path, tag), bytecode);
    }
}

impl Unit<'_> {
    /// What the bytecode follows from: the interpreter and this script, the sources, and where they will lie.
    fn key(&self, interpreter: Digest) -> String {
        let mut hasher = Hasher::new();
        for path in &self.paths {
            hasher.update(path.as_bytes());
            hasher.update(b"\0");
        }
        format!("{interpreter} {} {}", self.digest, hasher.finish())
    }
}

fn stored(store: &Store, key: &str) -> Result<Option<Vec<(String, Packed)>>, StoreError> {
    store
        .record::<Kept>(RECORD, key)
        .map_or(Ok(None), |kept| kept.load(store))
}

fn keep(store: &Store, key: &str, unit: &Unit<'_>, files: &[(String, Packed)]) -> Result<(), BytecodeError> {
    let files = files.iter().map(|(path, packed)| (path.as_str(), packed));
    let kept = Kept::keep(store, files).map_err(|source| BytecodeError::Keep {
        unit: unit.what.clone(),
        source,
    })?;
    Ok(store.keep_record(RECORD, key, &kept)?)
}

/// Modules that are compiled together, in their order.
struct Chunk<'a> {
    /// The place of their unit.
    owner: usize,
    paths: &'a [&'a str],
}

/// Compiles every module; `None` for what is none. Workers take the next chunk when they are free: the answers do not
/// depend on who gave them, since each chunk is compiled by a copy that has seen nothing else.
fn all(
    python: &Python,
    first: Worker,
    units: &[&Unit<'_>],
    work: &[Chunk<'_>],
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<Option<Packed>>>, BytecodeError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Vec<Option<Packed>>>> = Mutex::new(vec![Vec::new(); work.len()]);
    let failure: Mutex<Option<BytecodeError>> = Mutex::new(None);
    let run = |mut worker: Option<Worker>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = work.get(index) else {
                return;
            };
            let sources = match sources(units[chunk.owner], chunk) {
                Ok(sources) => sources,
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                    next.store(work.len(), Ordering::Relaxed);
                    return;
                }
            };
            // Encoded here, on every core, rather than when the layer is written.
            let answers = python.answers(&mut worker, &sources);
            lock(&results)[index] = answers
                .into_iter()
                .map(|answer| answer.map(Packed::new))
                .collect();
            done(chunk.paths.len());
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(work.len().max(1));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| run(None));
        }
        run(Some(first));
    });
    match failure
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

/// A module's path and its text.
type Module<'a> = (&'a str, Bytes);

fn sources<'a>(unit: &Unit<'_>, chunk: &Chunk<'a>) -> Result<Vec<Module<'a>>, BytecodeError> {
    let read = |path: &&'a str| {
        let source = (unit.read)(path).map_err(|source| BytecodeError::Source {
            unit: unit.what.clone(),
            path: (*path).to_owned(),
            source,
        })?;
        Ok((*path, source))
    };
    chunk.paths.iter().map(read).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The unpacked interpreter.
struct Python {
    root: PathBuf,
    /// `3.11`
    minor: String,
}

/// A running interpreter that compiles one module at a time. Dropped, it ends.
struct Worker {
    _program: Program,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Python {
    /// The bytecode of each module, where there is any, from `worker`, or from a new one where there is none. A module that kills its
    /// interpreter has no bytecode; its neighbours are compiled one by one then, and by another interpreter.
    fn answers(&self, worker: &mut Option<Worker>, modules: &[Module<'_>]) -> Vec<Option<Bytes>> {
        let Some(mut running) = worker.take().or_else(|| self.start().ok()) else {
            return vec![None; modules.len()];
        };
        match running.compile(modules) {
            Ok(answers) => {
                *worker = Some(running);
                answers
            }
            Err(_) if modules.len() == 1 => vec![None],
            Err(_) => {
                drop(running);
                let each = modules.iter().map(std::slice::from_ref);
                each.flat_map(|module| self.answers(worker, module)).collect()
            }
        }
    }

    /// Starts an interpreter and has it compile an empty module: a worker that is returned works.
    fn start(&self) -> io::Result<Worker> {
        let libraries = self.root.join("usr/lib").join(TRIPLE);
        let mut command = Command::new(libraries.join(LOADER));
        command
            .arg("--library-path")
            .arg(&libraries)
            .arg(self.root.join(format!("usr/bin/python{}", self.minor)))
            // No site, no user site, no bytecode of its own, no folder of ours on its path. Not -I: that would also ignore
            // the two variables below.
            .args(["-S", "-s", "-B", "-P", "-W", "ignore", "-c", SCRIPT])
            .env_clear()
            .env("PYTHONHOME", self.root.join("usr"))
            // Sets of strings inside code objects are written in the order of their hashes.
            .env("PYTHONHASHSEED", "0")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut program = Program::start(&mut command)?;
        let child = program.child();
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut worker = Worker {
            _program: program,
            input: Some(input),
            output,
        };
        match worker.compile(&[("/probe.py", Bytes::new())])?.pop() {
            Some(Some(_)) => Ok(worker),
            _ => Err(io::Error::other("it cannot compile an empty module")),
        }
    }
}

impl Worker {
    /// For each module its bytecode, or nothing where the source is no module of this Python; an error if the interpreter is gone.
    fn compile(&mut self, modules: &[Module<'_>]) -> io::Result<Vec<Option<Bytes>>> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let number =
            |size: usize| Ok::<_, io::Error>(u32::try_from(size).map_err(io::Error::other)?.to_le_bytes());
        // Whole before it is answered: neither side waits for the other with a full pipe.
        input.write_all(&number(modules.len())?)?;
        for (path, source) in modules {
            for part in [path.as_bytes(), source] {
                input.write_all(&number(part.len())?)?;
                input.write_all(part)?;
            }
        }
        input.flush()?;
        modules.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> io::Result<Option<Bytes>> {
        let mut head = [0; 5];
        self.output.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LONGEST_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        self.output.read_exact(&mut answer)?;
        Ok((head[0] == 0).then(|| answer.into()))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its input's end is its signal to leave; one that hangs in a module is killed with the rest.
        self.input = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_lies_where_the_import_system_looks() {
        assert_eq!(
            cached_path("/a/b/c.py", "cpython-311"),
            "a/b/__pycache__/c.cpython-311.pyc"
        );
        assert_eq!(
            cached_path("/c.py", "cpython-313"),
            "__pycache__/c.cpython-313.pyc"
        );
    }
}

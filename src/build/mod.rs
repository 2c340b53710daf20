//! Source code into wheels: PEP 517 builds, each in an environment of its own that is thrown away.
//!
//! It takes a [`SourceTree`] and gives its metadata or a wheel that is in the store, built at most once per source and build
//! environment. What a build needs is solved and installed as a project's own dependencies are; no other installer takes part. It
//! does not know who asks: the solver (through [`SourceMetadata`]), `sync` or an image.
//!
//! A build runs code that nobody here has read. It gets a clean environment and limits (`process`), and what comes out is checked as
//! any wheel is; it is not a sandbox, and `--no-build` is the way to run none.
//!
//! Sources: PEP 517, 518, 643, 660 (not used: nothing here is editable).

mod folder;
mod hook;
pub mod native;
pub mod process;
mod requirements;
mod system;
mod tarball;
pub mod unpack;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;
use uv_distribution_filename::{SourceDistExtension, SourceDistFilename};
use uv_normalize::PackageName;
use uv_pep440::Version;

use crate::digest::Digest;
use crate::index::source::final_metadata;
use crate::index::{IndexError, Network, SourceError, SourceMetadata, SourcePlace, SourceTree};
use crate::layers::environment::EnvironmentError;
use crate::layers::environment::interpreter::Interpreter;
use crate::layers::{LayerError, open_wheel};
use crate::lock::{File, Location};
use crate::python::metadata::{LARGEST, Metadata};
use crate::python::requirement::{self, Requirement};
use crate::python::target::Target;
use crate::python::wheel::Wheel;
use crate::regular;
use crate::reporter::{Reporter, Unit};
use crate::resolve::{Never, ResolveError};
use crate::store::{Store, StoreError};

pub use hook::{HookError, Log};
pub use process::Limits;
pub use unpack::UnpackError;

use hook::Backend;
use requirements::{Solved, install, solve};
use system::System;
use unpack::Unpacked;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// `--no-build` and its like: nothing was run.
    #[error("{tree} would have to be built, and builds of {name} are not allowed")]
    Forbidden { tree: String, name: PackageName },
    #[error("cannot build {tree}: no Python{wanted} on this machine")]
    NoInterpreter { tree: String, wanted: String },
    /// Its download is another step's business.
    #[error("the source archive {tree} is not in the cache")]
    Missing { tree: String },
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("cannot build {tree}: {rule}")]
    Tree { tree: String, rule: String },
    #[error("cannot build {tree}: to build it, it would have to be built first ({chain})")]
    Circle { tree: String, chain: String },
    #[error("cannot find what the build of {tree} needs")]
    Requirements { tree: String, source: ResolveError },
    #[error("cannot install what the build of {tree} needs")]
    Installed { tree: String, source: LayerError },
    #[error("cannot make an environment for a build")]
    Environment(#[from] EnvironmentError),
    #[error("cannot build {tree}")]
    Hook { tree: String, source: HookError },
    /// What the build made is no wheel that anybody may install.
    #[error("the build of {tree} made a wheel that is refused")]
    Wheel { tree: String, source: LayerError },
    #[error("the build of {tree} made something else: {rule}")]
    Result { tree: String, rule: String },
    #[error("cannot get {file}")]
    Download { file: String, source: Arc<IndexError> },
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What decides about builds beyond the source itself.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub limits: Limits,
    pub no_build: Never,
    /// As for a project's own requirements.
    pub exclude_newer: Option<i64>,
    /// What builds of these were done with before, `name==version` each: taken again where it fits.
    pub known: BTreeMap<PackageName, Vec<String>>,
}

/// Looks for the interpreter that builds, once and only if something is built. The error says which Python was looked for.
pub type Find = Box<dyn Fn() -> Result<Interpreter, String> + Send + Sync>;

/// Builds, and remembers in the store what it built.
pub struct Builder {
    store: Arc<Store>,
    network: Network,
    runtime: Handle,
    reporter: Arc<dyn Reporter>,
    settings: Settings,
    find: Find,
    found: OnceLock<Result<Interpreter, String>>,
    /// What was built or asked in this run, with what.
    told: Mutex<BTreeMap<PackageName, Vec<String>>>,
}

/// A wheel that was built, in the store and validated.
#[derive(Debug, Clone)]
pub struct Built {
    pub wheel: Wheel,
    /// As a lock's file; its place is that of no download.
    pub file: File,
    /// `name==version` of what the build environment had.
    pub with: Vec<String>,
}

/// What the store remembers of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    file_name: String,
    digest: Digest,
    with: Vec<String>,
}

/// What the store remembers of a metadata hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    headers: String,
    with: Vec<String>,
}

/// The numbers are part of the key: another way to build is another build.
const WHEEL_RECORD: &str = "built-1";
const METADATA_RECORD: &str = "built-metadata-1";
const SYSTEM_RECORD: &str = "build-system-1";
const REQUIRES_RECORD: &str = "built-requires-1";

/// Builds that wait for a build: each is needed by the one above it.
pub struct Stack<'a> {
    tree: &'a SourceTree,
    above: Option<&'a Stack<'a>>,
}

impl Stack<'_> {
    fn shown(&self) -> String {
        self.tree.shown()
    }

    fn chain(&self) -> Vec<&PackageName> {
        let mut chain = self.above.map(Stack::chain).unwrap_or_default();
        chain.push(&self.tree.name);
        chain
    }
}

/// A builder, asked from within a build.
struct Within<'a> {
    builder: &'a Builder,
    stack: &'a Stack<'a>,
}

impl SourceMetadata for Within<'_> {
    fn metadata(&self, tree: &SourceTree) -> Result<Arc<Metadata>, SourceError> {
        Ok(self.builder.metadata_within(tree, Some(self.stack))?)
    }
}

impl SourceMetadata for Builder {
    fn metadata(&self, tree: &SourceTree) -> Result<Arc<Metadata>, SourceError> {
        Ok(self.metadata_within(tree, None)?)
    }
}

impl Builder {
    /// Must be called inside the tokio runtime that `network` was made in; used from threads that may block.
    pub fn new(
        store: Arc<Store>,
        network: Network,
        reporter: Arc<dyn Reporter>,
        settings: Settings,
        find: Find,
    ) -> Self {
        Self {
            store,
            network,
            runtime: Handle::current(),
            reporter,
            settings,
            find,
            found: OnceLock::new(),
            told: Mutex::default(),
        }
    }

    /// The wheel of `tree`: the one that was built before with what would be used now, else built now.
    pub fn wheel(&self, tree: &SourceTree) -> Result<Built, BuildError> {
        self.wheel_within(tree, None)
    }

    /// With what `name` was built, or asked what it needs, since this builder was made: `name==version` each, sorted.
    pub fn built_with(&self, name: &PackageName) -> Option<Vec<String>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(name).cloned()
    }

    fn tell(&self, name: &PackageName, with: &[String]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(name.clone(), with.to_vec());
    }

    fn interpreter(&self, tree: &str) -> Result<&Interpreter, BuildError> {
        let found = self.found.get_or_init(|| (self.find)());
        found.as_ref().map_err(|wanted| BuildError::NoInterpreter {
            tree: tree.to_owned(),
            wanted: wanted.clone(),
        })
    }

    fn target(&self, tree: &str) -> Result<Target, BuildError> {
        self.interpreter(tree)?.target().ok_or_else(|| BuildError::Tree {
            tree: tree.to_owned(),
            rule: "this machine's platform is not one that wheels are built for".to_owned(),
        })
    }

    fn download(&self, files: &[&File]) -> Result<(), BuildError> {
        for file in files {
            self.runtime
                .block_on(self.network.download(file, Path::new("/")))
                .map_err(|source| BuildError::Download {
                    file: file.name.clone(),
                    source: Arc::new(source),
                })?;
        }
        Ok(())
    }

    fn allow(&self, tree: &SourceTree, above: Option<&Stack<'_>>) -> Result<(), BuildError> {
        if self.settings.no_build.holds(&tree.name) {
            return Err(BuildError::Forbidden {
                tree: tree.shown(),
                name: tree.name.clone(),
            });
        }
        let chain = above.map(Stack::chain).unwrap_or_default();
        if chain.contains(&&tree.name) {
            let names: Vec<&str> = chain.iter().map(|name| name.as_str()).collect();
            return Err(BuildError::Circle {
                tree: tree.shown(),
                chain: format!("{} → {}", names.join(" → "), tree.name),
            });
        }
        Ok(())
    }

    fn metadata_within(
        &self,
        tree: &SourceTree,
        above: Option<&Stack<'_>>,
    ) -> Result<Arc<Metadata>, BuildError> {
        let mut work = Work::new(self, tree, above);
        if let SourcePlace::Folder(_) = tree.place
            && let Some(metadata) = work.final_metadata()?
        {
            return Ok(Arc::new(metadata));
        }
        self.allow(tree, above)?;
        let solved = work.solve()?;
        let key = work.key(&solved.pins())?;
        let parse = |headers: &str| Metadata::parse(headers.as_bytes()).ok();
        if let Some(told) = self.store.record::<Told>(METADATA_RECORD, &key)
            && let Some(metadata) = parse(&told.headers)
        {
            self.tell(&tree.name, &told.with);
            return Ok(Arc::new(metadata));
        }
        let metadata = match work.prepare(&solved)? {
            Some(metadata) => metadata,
            None => {
                let built = work.build(&solved, &key)?;
                work.metadata_of(&built.wheel)?
            }
        };
        work.agrees(&metadata.name, &metadata.version)?;
        let told = Told {
            headers: metadata.to_headers(),
            with: solved.pins(),
        };
        self.store.keep_record(METADATA_RECORD, &key, &told)?;
        self.tell(&tree.name, &told.with);
        Ok(Arc::new(metadata))
    }

    fn wheel_within(&self, tree: &SourceTree, above: Option<&Stack<'_>>) -> Result<Built, BuildError> {
        let mut work = Work::new(self, tree, above);
        // What was built before runs no code, and so is not forbidden; but it is not taken from a source that is.
        self.allow(tree, above)?;
        let solved = work.solve()?;
        let key = work.key(&solved.pins())?;
        let built = match work.remembered(&key)? {
            Some(built) => built,
            None => work.build(&solved, &key)?,
        };
        self.tell(&tree.name, &built.with);
        Ok(built)
    }
}

/// One source on its way to be built; each step is done once, when it is needed.
struct Work<'a> {
    builder: &'a Builder,
    tree: &'a SourceTree,
    stack: Stack<'a>,
    unpacked: Option<(tempfile::TempDir, Unpacked)>,
    /// The environment has exactly these.
    installed: Option<Vec<String>>,
}

impl<'a> Work<'a> {
    fn new(builder: &'a Builder, tree: &'a SourceTree, above: Option<&'a Stack<'a>>) -> Self {
        Self {
            builder,
            tree,
            stack: Stack { tree, above },
            unpacked: None,
            installed: None,
        }
    }

    fn shown(&self) -> String {
        self.tree.shown()
    }

    fn wrong(&self, rule: impl Into<String>) -> BuildError {
        BuildError::Tree {
            tree: self.shown(),
            rule: rule.into(),
        }
    }

    fn other(&self, rule: impl Into<String>) -> BuildError {
        BuildError::Result {
            tree: self.shown(),
            rule: rule.into(),
        }
    }

    /// The scratch folder with the source in it.
    fn unpacked(&mut self) -> Result<(PathBuf, &Unpacked), BuildError> {
        if self.unpacked.is_none() {
            let scratch = self.builder.store.temporary_folder()?;
            let into = scratch.path().join("source");
            fs::create_dir(&into).map_err(|source| BuildError::Write {
                path: into.display().to_string(),
                source,
            })?;
            let unpacked = match &self.tree.place {
                SourcePlace::Archive { file_name, digest } => {
                    let file = self.builder.store.verified(digest)?;
                    let file = file.ok_or_else(|| BuildError::Missing { tree: self.shown() })?;
                    unpack::archive(file_name, &file, &into)?
                }
                SourcePlace::Folder(path) => unpack::folder(path, &into)?,
            };
            self.unpacked = Some((scratch, unpacked));
        }
        match &self.unpacked {
            Some((scratch, unpacked)) => Ok((scratch.path().to_owned(), unpacked)),
            None => Err(self.wrong("it was not unpacked")),
        }
    }

    /// The project's folder in the scratch folder.
    fn root(&mut self) -> Result<PathBuf, BuildError> {
        let below = self.tree.subdirectory.clone();
        let root = self.unpacked()?.1.root.clone();
        let Some(below) = below else { return Ok(root) };
        match regular::folder(&root, &below) {
            Ok(Some(folder)) => Ok(folder),
            Ok(None) => Err(self.wrong(format!("it has no folder {}", below.display()))),
            Err(irregular) => Err(self.wrong(format!("its folder {}: {irregular}", below.display()))),
        }
    }

    /// The source by its content.
    fn content(&mut self) -> Result<Digest, BuildError> {
        match &self.tree.place {
            SourcePlace::Archive { digest, .. } => Ok(*digest),
            SourcePlace::Folder(_) => Ok(self.unpacked()?.1.content),
        }
    }

    fn system(&mut self) -> Result<System, BuildError> {
        let root = self.root()?;
        System::of(&root).map_err(|rule| self.wrong(rule))
    }

    /// What the tree asks for. Remembered by content: a source that was built before is not unpacked to be found again.
    fn requires(&mut self) -> Result<Vec<Requirement>, BuildError> {
        let key = format!("{} {:?}", self.content()?, self.tree.subdirectory);
        let store = &self.builder.store;
        if let Some(known) = store.record::<Vec<String>>(SYSTEM_RECORD, &key)
            && let Ok(known) = known.iter().map(|text| requirement::parse(text)).collect()
        {
            return Ok(known);
        }
        let requires = self.system()?.requires;
        let texts: Vec<String> = requires.iter().map(ToString::to_string).collect();
        self.builder.store.keep_record(SYSTEM_RECORD, &key, &texts)?;
        Ok(requires)
    }

    /// What is final without a build.
    fn final_metadata(&mut self) -> Result<Option<Metadata>, BuildError> {
        let root = self.root()?;
        let info = system::text(&root, "PKG-INFO").map_err(|rule| self.wrong(rule))?;
        let pyproject = system::text(&root, "pyproject.toml").map_err(|rule| self.wrong(rule))?;
        let found = final_metadata(info.as_deref().map(str::as_bytes), pyproject.as_deref())
            .map_err(|error| self.wrong(error.to_string()))?;
        if let Some(found) = &found {
            self.agrees(&found.name, &found.version)?;
        }
        Ok(found)
    }

    /// Everything that the build's outcome depends on: the source, the interpreter, the machine, what was installed.
    fn key(&mut self, pins: &[String]) -> Result<String, BuildError> {
        let content = self.content()?;
        let target = self.builder.target(&self.shown())?;
        let below = self.tree.subdirectory.as_ref();
        Ok(format!(
            "{content} {} python {} {} {} [{}] {}",
            below.map(|path| path.display().to_string()).unwrap_or_default(),
            target.python.minor_only(),
            target.platform,
            target.libc,
            pins.join(" "),
            hook::flags(),
        ))
    }

    /// What the build environment has: what the tree asks for, and what its backend asks for besides.
    fn solve(&mut self) -> Result<Solved, BuildError> {
        let builder = self.builder;
        let target = builder.target(&self.shown())?;
        let known = builder
            .settings
            .known
            .get(&self.tree.name)
            .cloned()
            .unwrap_or_default();
        let mut requires = self.requires()?;
        let first = solve(builder, target, &requires, &known, &self.stack)?;
        let key = self.key(&first.pins())?;
        let more: Vec<String> = match builder.store.record(REQUIRES_RECORD, &key) {
            Some(more) => more,
            None => {
                let system = self.system()?;
                let answer = self.with_backend(&system, &first, |backend| {
                    backend.call("get_requires_for_build_wheel", json!([null]))
                })?;
                let more = match answer {
                    None => Vec::new(),
                    Some(value) => serde_json::from_value(value).map_err(|_| {
                        self.other("get_requires_for_build_wheel did not answer with a list of strings")
                    })?,
                };
                builder.store.keep_record(REQUIRES_RECORD, &key, &more)?;
                more
            }
        };
        if more.is_empty() {
            return Ok(first);
        }
        for text in &more {
            let parsed = requirement::parse(text);
            requires.push(parsed.map_err(|error| self.other(error.to_string()))?);
        }
        let mut known = known;
        known.extend(first.pins());
        solve(builder, target, &requires, &known, &self.stack)
    }

    fn log(&self) -> PathBuf {
        let content = Digest::of(format!("{:?}", self.tree).as_bytes()).hex();
        let name = format!("build-{}-{}.log", self.tree.name, &content[..12]);
        self.builder.store.folder().join("tmp").join(name)
    }

    fn with_backend<T>(
        &mut self,
        system: &System,
        solved: &Solved,
        work: impl FnOnce(&Backend<'_>) -> Result<T, HookError>,
    ) -> Result<T, BuildError> {
        let root = self.root()?;
        let scratch = self.unpacked()?.0;
        let environment = scratch.join("environment");
        if self.installed.as_ref() != Some(&solved.pins()) {
            install(self.builder, solved, &environment, &self.stack)?;
            self.installed = Some(solved.pins());
        }
        let backend = Backend {
            system,
            root: &root,
            environment: &environment,
            scratch: &scratch,
            log: &self.log(),
            limits: &self.builder.settings.limits,
        };
        let task = self
            .builder
            .reporter
            .start(&format!("building {}", self.shown()), Unit::Items, None);
        let done = work(&backend);
        self.builder.reporter.finish(task);
        done.map_err(|source| BuildError::Hook {
            tree: self.shown(),
            source,
        })
    }

    /// An empty folder for what a hook makes.
    fn output(&mut self, name: &str) -> Result<PathBuf, BuildError> {
        let folder = self.unpacked()?.0.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(|source| BuildError::Write {
            path: folder.display().to_string(),
            source,
        })?;
        folder.canonicalize().map_err(|source| BuildError::Write {
            path: folder.display().to_string(),
            source,
        })
    }

    /// The metadata that the backend tells without building; `None` if it cannot.
    fn prepare(&mut self, solved: &Solved) -> Result<Option<Metadata>, BuildError> {
        let system = self.system()?;
        let folder = self.output("metadata")?;
        let name = self.with_backend(&system, solved, |backend| {
            backend.call_for_name("prepare_metadata_for_build_wheel", json!([folder, null]))
        })?;
        let Some(name) = name else { return Ok(None) };
        let path = Path::new(&name).join("METADATA");
        let bytes = match regular::locate(&folder, &path) {
            Ok(Some(path)) => regular::bytes(&path, LARGEST),
            Ok(None) => return Err(self.other(format!("{name}/METADATA is not there"))),
            Err(irregular) => Err(irregular),
        }
        .map_err(|irregular| self.other(format!("its METADATA: {irregular}")))?;
        Metadata::parse(&bytes)
            .map(Some)
            .map_err(|error| self.other(format!("its METADATA: {error}")))
    }

    fn remembered(&mut self, key: &str) -> Result<Option<Built>, BuildError> {
        let store = &self.builder.store;
        let Some(known) = store.record::<Remembered>(WHEEL_RECORD, key) else {
            return Ok(None);
        };
        // Hashed every time: what is damaged is built again, and nobody has another copy.
        if store.verified(&known.digest)?.is_none() {
            return Ok(None);
        }
        let wheel =
            open_wheel(store, &known.file_name, &known.digest).map_err(|source| BuildError::Wheel {
                tree: self.shown(),
                source,
            })?;
        Ok(Some(built(wheel, known.with)))
    }

    fn build(&mut self, solved: &Solved, key: &str) -> Result<Built, BuildError> {
        // Another process that builds the same is waited for, and then has built it.
        let _guard = self.builder.store.lock(&format!("build {key}"))?;
        if let Some(built) = self.remembered(key)? {
            return Ok(built);
        }
        let system = self.system()?;
        let folder = self.output("wheel")?;
        let name = self.with_backend(&system, solved, |backend| {
            backend.call_for_name("build_wheel", json!([folder, null, null]))
        })?;
        let name = name.ok_or_else(|| self.wrong("its build backend has no build_wheel"))?;
        let wheel = self.enter(&folder, &name)?;
        self.agrees(&wheel.name, &wheel.version)?;
        let remembered = Remembered {
            file_name: wheel.file_name.clone(),
            digest: wheel.digest,
            with: solved.pins(),
        };
        self.builder.store.keep_record(WHEEL_RECORD, key, &remembered)?;
        Ok(built(wheel, remembered.with))
    }

    /// A wheel that a build left enters the store, if it is one.
    fn enter(&self, folder: &Path, name: &str) -> Result<Wheel, BuildError> {
        let read = |irregular: regular::Irregular| self.other(format!("{name}: {irregular}"));
        let path = regular::locate(folder, Path::new(name)).map_err(read)?;
        let path = path.ok_or_else(|| self.other(format!("{name} is not there")))?;
        let mut file = regular::open(&path).map_err(read)?;
        let mut writer = self.builder.store.writer()?;
        std::io::copy(&mut file, &mut writer).map_err(|source| BuildError::Write {
            path: path.display().to_string(),
            source,
        })?;
        let (digest, _) = writer.commit()?;
        open_wheel(&self.builder.store, name, &digest).map_err(|source| {
            let _ = self.builder.store.discard(&digest);
            BuildError::Wheel {
                tree: self.shown(),
                source,
            }
        })
    }

    fn metadata_of(&self, wheel: &Wheel) -> Result<Metadata, BuildError> {
        let fault = |source| BuildError::Wheel {
            tree: self.shown(),
            source,
        };
        let file = crate::layers::wheel_file(&self.builder.store, wheel).map_err(fault)?;
        let text = wheel
            .metadata_file(&file, "METADATA")
            .map_err(|error| fault(error.into()))?
            .unwrap_or_default();
        Metadata::parse(&text).map_err(|error| self.other(format!("its METADATA: {error}")))
    }

    /// Refuses what speaks of another project or version than it was asked for as.
    fn agrees(&self, name: &PackageName, version: &Version) -> Result<(), BuildError> {
        if *name != self.tree.name {
            return Err(self.other(format!("it is {name}, and {} was asked for", self.tree.name)));
        }
        let SourcePlace::Archive { file_name, .. } = &self.tree.place else {
            return Ok(());
        };
        let form = match file_name.ends_with(".zip") {
            true => SourceDistExtension::Zip,
            false => SourceDistExtension::TarGz,
        };
        let said = SourceDistFilename::parse(file_name, form, name);
        match said {
            // A build may add the local part, and no other.
            Ok(said) if said.version != *version && said.version != version.clone().without_local() => {
                Err(self.other(format!(
                    "it is {name} {version}, and its archive says {}",
                    said.version
                )))
            }
            _ => Ok(()),
        }
    }
}

fn built(wheel: Wheel, with: Vec<String>) -> Built {
    let file = File {
        name: wheel.file_name.clone(),
        // It has no place but the store: whoever looks for it there finds it, and nobody downloads it.
        location: Location::Path(PathBuf::from(&wheel.file_name)),
        size: Some(wheel.size),
        upload_time: None,
        digest: wheel.digest,
    };
    Built { wheel, file, with }
}

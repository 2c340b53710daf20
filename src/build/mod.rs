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

mod hook;
pub mod native;
pub mod process;
mod requirements;
mod system;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use uv_normalize::PackageName;
use uv_pep440::VersionSpecifiers;

use crate::digest::Digest;
use crate::index::{IndexError, Network, SourceError, SourceMetadata, SourcePlace, SourceTree};
use crate::layers::LayerError;
use crate::layers::environment::EnvironmentError;
use crate::layers::environment::interpreter::Interpreter;
use crate::lock::File;
use crate::python::metadata::Metadata;
use crate::python::wheel::Wheel;
use crate::reporter::Reporter;
use crate::resolve::{Never, ResolveError};
use crate::sdist;
use crate::store::{Store, StoreError};

pub use hook::{HookError, Log};
pub use process::Limits;

use work::Work;

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
    Source(#[from] sdist::SourceError),
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

/// Looks for the interpreter that builds, only if something is built: the one that should, or one of these versions where the source
/// is not for that one. The error says which Python was looked for.
pub type Find = Box<dyn Fn(Option<&VersionSpecifiers>) -> Result<Interpreter, String> + Send + Sync>;

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
    told: Mutex<HashMap<SourceTree, Vec<String>>>,
    /// Asked again and again by a solver that goes back and forth.
    metadata: Mutex<HashMap<SourceTree, Arc<Metadata>>>,
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
const ORIGIN_RECORD: &str = "built-from-1";
const FINAL_RECORD: &str = "source-metadata-1";
const METADATA_RECORD: &str = "built-metadata-1";
const SYSTEM_RECORD: &str = "build-system-2";
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
            metadata: Mutex::default(),
        }
    }

    /// The wheel of `tree`: the one that was built before with what would be used now, else built now.
    pub fn wheel(&self, tree: &SourceTree) -> Result<Built, BuildError> {
        self.wheel_within(tree, None)
    }

    /// Whether the store has a source archive, so that it costs no download to look into it.
    pub fn has(&self, archive: &Digest) -> bool {
        self.store.blob_size(archive).is_some()
    }

    /// With what `tree` was built, or asked what it needs, since this builder was made: `name==version` each, sorted.
    pub fn built_with(&self, tree: &SourceTree) -> Option<Vec<String>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(tree).cloned()
    }

    fn tell(&self, tree: &SourceTree, with: &[String]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(tree.clone(), with.to_vec());
    }

    /// The names that a wheel of `tree` makes importable: as the tree's last build wrote down, else those of a wheel.
    pub fn imports(&self, tree: &SourceTree) -> Result<Vec<String>, BuildError> {
        let key = match &tree.place {
            SourcePlace::Archive { digest, .. } => Some(digest.hex()),
            SourcePlace::Folder(_) => None,
        };
        if let Some(known) = key.as_ref().and_then(|key| self.store.record("imports", key)) {
            return Ok(known);
        }
        let mut names = Work::new(self, tree, None).top_level()?;
        if names.is_empty() {
            names = self.wheel(tree)?.wheel.imports;
        }
        if let Some(key) = key {
            self.store.keep_record("imports", &key, &names)?;
        }
        Ok(names)
    }

    /// The interpreter for a source that says which versions it is for. Where none of those is here, the first choice is as good as
    /// any: what it says is often stricter than what it needs.
    fn interpreter(&self, tree: &str, admits: Option<&VersionSpecifiers>) -> Result<Interpreter, BuildError> {
        let found = self.found.get_or_init(|| (self.find)(None));
        let first = found.as_ref().map_err(|wanted| BuildError::NoInterpreter {
            tree: tree.to_owned(),
            wanted: wanted.clone(),
        })?;
        let other = admits
            .filter(|admits| !admits.contains(&first.version.full()))
            .and_then(|admits| (self.find)(Some(admits)).ok());
        Ok(other.unwrap_or_else(|| first.clone()))
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
        let memory = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = memory().get(tree) {
            return Ok(known.clone());
        }
        let metadata = Arc::new(self.find_metadata(tree, above)?);
        memory().insert(tree.clone(), metadata.clone());
        Ok(metadata)
    }

    fn find_metadata(&self, tree: &SourceTree, above: Option<&Stack<'_>>) -> Result<Metadata, BuildError> {
        let mut work = Work::new(self, tree, above);
        let place = format!("{} {:?}", work.content()?, tree.subdirectory);
        let known = self.store.record::<Option<String>>(FINAL_RECORD, &place);
        let known = known.map(|headers| headers.and_then(|text| Metadata::parse(text.as_bytes()).ok()));
        let found = match known {
            Some(found) => found,
            None => {
                let found = work.final_metadata()?;
                let headers = found.as_ref().map(Metadata::to_headers);
                self.store.keep_record(FINAL_RECORD, &place, &headers)?;
                found
            }
        };
        if let Some(metadata) = found {
            work.agrees(&metadata.name, &metadata.version)?;
            return Ok(metadata);
        }
        self.allow(tree, above)?;
        let solved = work.solve()?;
        let key = work.key(&solved.pins())?;
        let parse = |headers: &str| Metadata::parse(headers.as_bytes()).ok();
        if let Some(told) = self.store.record::<Told>(METADATA_RECORD, &key)
            && let Some(metadata) = parse(&told.headers)
        {
            self.tell(tree, &told.with);
            return Ok(metadata);
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
        self.tell(tree, &told.with);
        Ok(metadata)
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
        self.tell(tree, &built.with);
        Ok(built)
    }
}

/// Whether `wheel` was built here from the source archive `sdist`.
pub fn is_built_from(store: &Store, wheel: &Digest, sdist: &Digest) -> bool {
    store
        .record::<()>(ORIGIN_RECORD, &origin_key(wheel, sdist))
        .is_some()
}

fn origin_key(wheel: &Digest, sdist: &Digest) -> String {
    format!("{wheel} of {sdist}")
}

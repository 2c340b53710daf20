//! One source on its way to be built: unpacked, asked what it needs, given that, and called. Each step is taken once, when the next
//! one needs it, so that what is remembered costs none of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use uv_distribution_filename::{SourceDistExtension, SourceDistFilename};
use uv_normalize::PackageName;
use uv_pep440::{Version, VersionSpecifiers};

use super::hook::{self, Backend};
use super::requirements::{self, Solved, install, solve};
use super::system::{self, System};
use super::{
    BuildError, Builder, Built, HookError, ORIGIN_RECORD, REQUIRES_RECORD, Remembered, SYSTEM_RECORD, Stack,
    WHEEL_RECORD, origin_key,
};
use crate::digest::Digest;
use crate::index::source::final_metadata;
use crate::index::{SourcePlace, SourceTree};
use crate::layers::environment::interpreter::Interpreter;
use crate::layers::open_wheel;
use crate::lock::{File, Location};
use crate::python::metadata::{LARGEST, Metadata};
use crate::python::requirement;
use crate::python::wheel::Wheel;
use crate::regular;
use crate::reporter::Unit;
use crate::sdist::{self, Unpacked};

/// One source on its way to be built; each step is done once, when it is needed.
pub(super) struct Work<'a> {
    builder: &'a Builder,
    tree: &'a SourceTree,
    stack: Stack<'a>,
    unpacked: Option<(tempfile::TempDir, Unpacked)>,
    interpreter: Option<Interpreter>,
    /// The environment has exactly these.
    installed: Option<Vec<String>>,
}

/// What a tree asks of whoever builds it, before its backend is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Asked {
    requires: Vec<String>,
    python: Option<String>,
}

impl<'a> Work<'a> {
    pub fn new(builder: &'a Builder, tree: &'a SourceTree, above: Option<&'a Stack<'a>>) -> Self {
        Self {
            builder,
            tree,
            stack: Stack { tree, above },
            unpacked: None,
            interpreter: None,
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
                    // What is refused is kept by nobody.
                    sdist::unpack(file_name, &file, &into).inspect_err(|error| {
                        if error.is_refused() {
                            let _ = self.builder.store.discard(digest);
                        }
                    })?
                }
                SourcePlace::Folder(path) => sdist::copy(path, &into)?,
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
    pub fn content(&mut self) -> Result<Digest, BuildError> {
        match &self.tree.place {
            SourcePlace::Archive { digest, .. } => Ok(*digest),
            SourcePlace::Folder(_) => Ok(self.unpacked()?.1.content),
        }
    }

    /// The import names in the tree's own `top_level.txt`, which setuptools puts beside a source distribution's metadata.
    pub fn top_level(&mut self) -> Result<Vec<String>, BuildError> {
        let root = self.root()?;
        let mut found = Vec::new();
        for folder in [root.clone(), root.join("src")] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let is_info = entry.file_name().as_encoded_bytes().ends_with(b".egg-info");
                if is_info && let Ok(text) = system::text(&entry.path(), "top_level.txt") {
                    found.extend(
                        text.unwrap_or_default()
                            .lines()
                            .map(|line| line.trim().to_owned()),
                    );
                }
            }
        }
        found.retain(|name| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || letter == '_')
        });
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn system(&mut self) -> Result<System, BuildError> {
        let root = self.root()?;
        System::of(&root).map_err(|rule| self.wrong(rule))
    }

    /// What the tree asks for. Remembered by content: a source that was built before is not unpacked to be found again.
    fn asked(&mut self) -> Result<Asked, BuildError> {
        let key = format!("{} {:?}", self.content()?, self.tree.subdirectory);
        if let Some(known) = self.builder.store.record(SYSTEM_RECORD, &key) {
            return Ok(known);
        }
        let requires = self.system()?.requires;
        let asked = Asked {
            requires: requires.iter().map(ToString::to_string).collect(),
            python: self.requires_python()?,
        };
        self.builder.store.keep_record(SYSTEM_RECORD, &key, &asked)?;
        Ok(asked)
    }

    /// The Pythons that the tree says it is for, wherever it says so: a hint, whether a build could change it or not.
    fn requires_python(&mut self) -> Result<Option<String>, BuildError> {
        let root = self.root()?;
        let info = system::bytes(&root, "PKG-INFO").map_err(|rule| self.wrong(rule))?;
        let info = info.and_then(|bytes| Metadata::parse(&bytes).ok()?.requires_python);
        if let Some(said) = info {
            return Ok(Some(said.to_string()));
        }
        let table = system::pyproject(&root).map_err(|rule| self.wrong(rule))?;
        let said = table
            .as_ref()
            .and_then(|table| table.get("project")?.get("requires-python")?.as_str());
        Ok(said.map(str::to_owned))
    }

    /// The interpreter that builds it.
    fn interpreter(&mut self) -> Result<Interpreter, BuildError> {
        if let Some(known) = &self.interpreter {
            return Ok(known.clone());
        }
        let admits: Option<VersionSpecifiers> = self.asked()?.python.and_then(|text| text.parse().ok());
        let found = self.builder.interpreter(&self.shown(), admits.as_ref())?;
        self.interpreter = Some(found.clone());
        Ok(found)
    }

    /// What is final without a build.
    pub fn final_metadata(&mut self) -> Result<Option<Metadata>, BuildError> {
        let root = self.root()?;
        let info = system::bytes(&root, "PKG-INFO").map_err(|rule| self.wrong(rule))?;
        let pyproject = system::text(&root, "pyproject.toml").map_err(|rule| self.wrong(rule))?;
        final_metadata(info.as_deref(), pyproject.as_deref()).map_err(|error| self.wrong(error.to_string()))
    }

    /// Everything that the build's outcome depends on: the source, the interpreter, the machine, what was installed.
    pub fn key(&mut self, pins: &[String]) -> Result<String, BuildError> {
        let content = self.content()?;
        let target = requirements::target(&self.interpreter()?, &self.shown())?;
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
    pub fn solve(&mut self) -> Result<Solved, BuildError> {
        let builder = self.builder;
        let interpreter = self.interpreter()?;
        let known = builder
            .settings
            .known
            .get(&self.tree.name)
            .cloned()
            .unwrap_or_default();
        let mut requires = Vec::new();
        for text in &self.asked()?.requires {
            let parsed = requirement::parse(text);
            requires.push(parsed.map_err(|error| self.wrong(error.to_string()))?);
        }
        let first = solve(builder, &interpreter, &requires, &known, &self.stack)?;
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
        solve(builder, &interpreter, &requires, &known, &self.stack)
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
    pub fn prepare(&mut self, solved: &Solved) -> Result<Option<Metadata>, BuildError> {
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

    pub fn remembered(&mut self, key: &str) -> Result<Option<Built>, BuildError> {
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

    pub fn build(&mut self, solved: &Solved, key: &str) -> Result<Built, BuildError> {
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
        let store = &self.builder.store;
        store.keep_record(WHEEL_RECORD, key, &remembered)?;
        if let SourcePlace::Archive { digest, .. } = &self.tree.place {
            store.keep_record(ORIGIN_RECORD, &origin_key(&wheel.digest, digest), &())?;
        }
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

    pub fn metadata_of(&self, wheel: &Wheel) -> Result<Metadata, BuildError> {
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
    pub fn agrees(&self, name: &PackageName, version: &Version) -> Result<(), BuildError> {
        if *name != self.tree.name {
            return Err(self.other(format!("it is {name}, and {} was asked for", self.tree.name)));
        }
        let SourcePlace::Archive { file_name, .. } = &self.tree.place else {
            return Ok(());
        };
        let said = SourceDistExtension::from_path(file_name)
            .ok()
            .and_then(|form| SourceDistFilename::parse(file_name, form, name).ok());
        match said {
            // A build may add the local part, and no other.
            Some(said) if said.version != *version && said.version != version.clone().without_local() => {
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

//! Which modules are compiled beforehand: those that serving loads, of the wheels, the runtime and the standard library.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::decide::Plan;
use super::make::Below;
use super::previous::Network;
use super::{Failure, Session};
use crate::base_image;
use crate::cli::fetch;
use crate::debian::BaseFiles;
use crate::digest::{Digest, Hasher};
use crate::layers::bytecode::{Bytecode, BytecodeError, Unit, compile};
use crate::layers::interpreter::{self, Interpreter, PLATFORM};
use crate::layers::recipe::{LAYOUT, PREFIX};
use crate::layers::{self, MadeLayer, install, keyed_layer};
use crate::lock::base::{Base, Registry};
use crate::oci::{Layer, LayerBytes};
use crate::plan::Included;
use crate::project::Project;
use crate::python::target::PythonVersion;
use crate::python::wheel::Wheel;
use crate::serving::runtime;
use crate::store::Store;
use crate::tree::{PLAIN, Tree};

/// What one layer of bytecode is made from: the wheels of one layer, or the standard library and the runtime. Each layer of
/// wheels has its own, so that a distribution which leaves takes its bytecode along and nothing else is made again.
pub struct Part {
    pub key: Digest,
    title: String,
    /// Of the plan's distributions; none for the standard library and the runtime.
    wheels: Option<Vec<usize>>,
    wanted: Wanted,
}

/// The layers of bytecode that belong to `groups` of the plan's distributions, from the lock and the record of the run alone; or
/// why there are none.
pub fn parts(project: &Project, plan: &Plan, groups: &[Vec<usize>]) -> Result<Vec<Part>, &'static str> {
    if matches!(plan.base, Base::Registry(_)) && !project.manifest.config.image.base_bytecode {
        return Err(
            "the base is an image, whose interpreter is run on this machine only where [image] base-bytecode = true",
        );
    }
    let interpreter = interpreter::key(&plan.base)?;
    let python = plan.production.target.python.minor_only();
    let wanted = Wanted::of(project);
    let mut parts = vec![Part {
        key: plan.form.key(own_key(interpreter, python)),
        title: "bytecode of the standard library and the runtime".to_owned(),
        wheels: None,
        wanted: Wanted(Some(BTreeSet::new())),
    }];
    for group in groups {
        let members: Vec<&Included> = group
            .iter()
            .map(|index| &plan.production.included[*index])
            .collect();
        let wanted = wanted.within(&members);
        let serves = |one: &&Included| SERVER.contains(&one.package.name.as_ref());
        if wanted.is_nothing() && !members.iter().any(serves) {
            continue;
        }
        let first = members.first().map(|one| one.package.label()).unwrap_or_default();
        let title = match members.len() {
            1 => format!("bytecode of {first}"),
            count => format!("bytecode of {first} and {} more", count - 1),
        };
        parts.push(Part {
            key: plan.form.key(wheels_key(interpreter, python, &members, &wanted)),
            title,
            wheels: Some(group.clone()),
            wanted,
        });
    }
    Ok(parts)
}

/// The layers of `parts`, in their order; `found` are those that need not be made. None at all, and a line that says why, where the
/// interpreter does not run.
pub fn layers(
    project: &Project,
    plan: &Plan,
    (parts, found): (&[Part], Vec<Option<MadeLayer>>),
    below: &Below<'_>,
    network: &Network<'_>,
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    if found.iter().all(Option::is_some) {
        return Ok(found.into_iter().flatten().collect());
    }
    let key = interpreter::key(&plan.base).map_err(Failure::new)?;
    // Whatever is built for, it is this platform's interpreter that compiles.
    match (below, &plan.base) {
        (Below::Debian(files), _) => {
            let of_compiler = BaseFiles::new(files.store, files.base, PLATFORM);
            let files = if files.platform == PLATFORM {
                files
            } else {
                &of_compiler
            };
            fetch::base(&project.manifest, files, session)?;
            made(
                project,
                plan,
                (parts, found),
                &Interpreter::of_debian(files, key),
                session,
            )
        }
        (Below::Registry(..), Base::Registry(base)) => {
            let store = session.store()?;
            let layers = match interpreter::is_unpacked(&store, &key) {
                true => Vec::new(),
                false => base_layers(base, &store, network, session)?,
            };
            let interpreter = Interpreter::of_image(&store, base, layers, key);
            made(project, plan, (parts, found), &interpreter, session)
        }
        (Below::Registry(..), Base::Debian(_)) => Ok(Vec::new()),
    }
}

/// The layers of the base's image whose interpreter compiles, on this machine.
fn base_layers(
    base: &Registry,
    store: &Store,
    network: &Network<'_>,
    session: &Session,
) -> Result<Vec<Layer>, Failure> {
    let (registry, reporter) = (network.registry()?, session.reporter());
    session.block_on(async {
        let mut image = base_image::locked(&registry, store, base, PLATFORM).await?;
        for layer in &mut image.layers {
            if matches!(layer.bytes, LayerBytes::Remote(_)) {
                layer.bytes = LayerBytes::File(registry.layer(layer, store, &*reporter).await?);
            }
        }
        Ok::<_, Failure>(image.layers)
    })?
}

fn made(
    project: &Project,
    plan: &Plan,
    (parts, found): (&[Part], Vec<Option<MadeLayer>>),
    interpreter: &Interpreter<'_>,
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    let (store, reporter) = (&*session.store()?, session.reporter());
    let python = plan.production.target.python.minor_only();
    let missing: Vec<(usize, &Part)> = parts
        .iter()
        .enumerate()
        .filter(|(index, _)| found[*index].is_none())
        .collect();
    let mut opened = Vec::new();
    for (index, part) in &missing {
        let Some(wheels) = &part.wheels else { continue };
        let wheels: Vec<_> = wheels
            .iter()
            .map(|index| &plan.production.included[*index].wheel)
            .collect();
        fetch::files(&project.manifest, &wheels, session)?;
        for file in wheels {
            let wheel = layers::open_wheel(store, &file.name, &file.digest)?;
            let source = layers::wheel_file(store, &wheel)?;
            opened.push((*index, &part.wanted, wheel, source));
        }
    }
    // Compiled in one go, whatever layer they go to: the interpreter starts once per core.
    let (mut units, mut owners) = (Vec::new(), Vec::new());
    for (index, part) in &missing {
        if part.wheels.is_none() {
            let library = match library(interpreter) {
                Ok(library) => library,
                Err(error @ BytecodeError::Absent { .. }) => return Ok(none(&error.to_string(), session)),
                Err(error) => return Err(error.into()),
            };
            units.extend([library, own_runtime(python)]);
            owners.extend([*index, *index]);
        }
    }
    for (index, wanted, wheel, source) in &opened {
        if let Some(unit) = wheel_unit(wheel, source, python, wanted)? {
            units.push(unit);
            owners.push(*index);
        }
    }
    let made = match compile(interpreter, &units, &*reporter)? {
        Bytecode::Made(made) => made,
        Bytecode::Impossible(why) => return Ok(none(&why, session)),
    };
    let mut trees: BTreeMap<usize, Tree> = missing.iter().map(|(index, _)| (*index, Tree::new())).collect();
    for (owner, files) in owners.into_iter().zip(made) {
        let tree = trees.entry(owner).or_default();
        for (path, bytes) in files {
            tree.insert_file(&path, bytes, PLAIN)?;
        }
    }
    let mut layers = Vec::with_capacity(parts.len());
    for (index, (part, found)) in parts.iter().zip(found).enumerate() {
        layers.push(match found {
            Some(layer) => layer,
            None => {
                let tree = trees.remove(&index).unwrap_or_default();
                keyed_layer::<Failure>(store, (part.key, plan.form), 0, &part.title, || Ok(tree))?
            }
        });
    }
    Ok(layers)
}

fn none(why: &str, session: &Session) -> Vec<MadeLayer> {
    session.printer().say(&format!("no bytecode layers: {why}"));
    Vec::new()
}

/// The distributions' modules that serving was seen to load, as `pandas/core/frame` paths without endings; `None`: not recorded, so
/// all. Records of older versions also list the standard library's, which are in nobody's wheel.
struct Wanted(Option<BTreeSet<String>>);

impl Wanted {
    fn of(project: &Project) -> Self {
        let loaded = project
            .run
            .as_ref()
            .and_then(|run| run.serving.get("loaded")?.as_object());
        let Some(loaded) = loaded else {
            return Self(None);
        };
        let mut wanted = BTreeSet::new();
        for (top, rest) in loaded {
            wanted.insert(top.clone());
            for name in rest.as_str().unwrap_or_default().split_whitespace() {
                wanted.insert(format!("{top}/{}", name.replace('.', "/")));
            }
        }
        Self(Some(wanted))
    }

    /// Those of `members`, as far as the lock knows what they provide: what another distribution is loaded for changes nothing here.
    fn within(&self, members: &[&Included]) -> Self {
        let Some(wanted) = &self.0 else {
            return Self(None);
        };
        let unknown = members.iter().any(|one| one.package.imports.is_empty());
        let heads: BTreeSet<&str> = members
            .iter()
            .flat_map(|one| &one.package.imports)
            .filter_map(|module| module.split('.').next())
            .collect();
        let is_theirs =
            |module: &&String| unknown || heads.contains(module.split('/').next().unwrap_or_default());
        Self(Some(wanted.iter().filter(is_theirs).cloned().collect()))
    }

    fn is_nothing(&self) -> bool {
        self.0.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Whether the module at `path` below site-packages is worth compiling.
    fn has(&self, path: &str) -> bool {
        let module = path.strip_suffix(".py").unwrap_or(path);
        let module = module.strip_suffix("/__init__").unwrap_or(module);
        self.0.as_ref().is_none_or(|wanted| wanted.contains(module))
    }
}

/// What is under the server is loaded by every image, and by no replay.
const SERVER: [&str; 2] = ["granian", "msgspec"];

/// Of the standard library and the runtime: the same for every project on a base.
fn own_key(interpreter: Digest, python: PythonVersion) -> Digest {
    let mut hasher = begun(interpreter, python);
    hasher.update(format!("{}\n", LIBRARY.join(" ")).as_bytes());
    for (path, text) in runtime::FILES {
        hasher.update(format!("{path} {}\n", Digest::of(text.as_bytes())).as_bytes());
    }
    hasher.finish()
}

fn wheels_key(interpreter: Digest, python: PythonVersion, members: &[&Included], wanted: &Wanted) -> Digest {
    let mut hasher = begun(interpreter, python);
    for one in members {
        hasher.update(one.wheel.digest.bytes());
    }
    match &wanted.0 {
        Some(wanted) => {
            for module in wanted {
                hasher.update(format!("{module}\n").as_bytes());
            }
        }
        None => hasher.update(b"*\n"),
    }
    hasher.finish()
}

fn begun(interpreter: Digest, python: PythonVersion) -> Hasher {
    let mut hasher = Hasher::new();
    let version = env!("CARGO_PKG_VERSION");
    hasher.update(format!("bytecode {LAYOUT} {PREFIX} {python} {version}\n").as_bytes());
    hasher.update(interpreter.bytes());
    hasher
}

/// Packages of the standard library that servers and numerical libraries load, parts of them or all; the rest (GUI, tests,
/// installers, parsers of rare formats) is compiled by nobody.
const LIBRARY: [&str; 24] = [
    "asyncio",
    "collections",
    "compression",
    "concurrent",
    "ctypes",
    "email",
    "encodings",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "pathlib",
    "re",
    "sqlite3",
    "string",
    "sysconfig",
    "tomllib",
    "unittest",
    "urllib",
    "xml",
    "zipfile",
    "zoneinfo",
];

/// The standard library's modules outside of packages, and those of [`LIBRARY`]: the same for every project on a base.
fn library<'a>(interpreter: &'a Interpreter<'_>) -> Result<Unit<'a>, BytecodeError> {
    let (mut unit, folder) = interpreter.standard_library()?;
    let folder = format!("/{folder}/");
    unit.paths.retain(|path| {
        let below = path.strip_prefix(&folder).unwrap_or(path);
        below
            .split_once('/')
            .is_none_or(|(package, _)| LIBRARY.contains(&package))
    });
    Ok(unit)
}

fn own_runtime(python: PythonVersion) -> Unit<'static> {
    let site = site_packages(python);
    let prefix = site.clone();
    let mut hasher = Hasher::new();
    let mut paths = Vec::new();
    for (path, text) in runtime::FILES.iter().filter(|(path, _)| path.ends_with(".py")) {
        hasher.update(Digest::of(text.as_bytes()).bytes());
        paths.push(format!("{site}/{path}"));
    }
    Unit {
        what: "the serving runtime".to_owned(),
        digest: hasher.finish(),
        paths,
        read: Box::new(move |path| {
            let below = path.strip_prefix(&format!("{prefix}/")).unwrap_or(path);
            let found = runtime::FILES.iter().find(|(name, _)| *name == below);
            found
                .map(|(_, text)| Bytes::from_static(text.as_bytes()))
                .ok_or_else(|| std::io::ErrorKind::NotFound.into())
        }),
    }
}

fn site_packages(python: PythonVersion) -> String {
    format!("/{PREFIX}/{}", install::Scheme::image(python).site_packages())
}

/// The wheel's modules that are worth it; `None` if there are none.
fn wheel_unit<'a>(
    wheel: &'a Wheel,
    source: &'a std::fs::File,
    python: PythonVersion,
    wanted: &Wanted,
) -> Result<Option<Unit<'a>>, Failure> {
    let site = site_packages(python);
    let scheme = install::Scheme::image(python);
    let below = format!("{}/", scheme.site_packages());
    let server = SERVER.contains(&wheel.name.as_str());
    let mut entries = std::collections::HashMap::new();
    for placed in install::place(wheel, source, &scheme)? {
        let Some(path) = placed.path.strip_prefix(&below) else {
            continue;
        };
        if path.ends_with(".py")
            && (server || wanted.has(path))
            && let install::Content::Entry(index) = placed.content
        {
            entries.insert(format!("{site}/{path}"), index);
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut paths: Vec<String> = entries.keys().cloned().collect();
    paths.sort();
    Ok(Some(Unit {
        what: wheel.label(),
        digest: wheel.digest,
        paths,
        read: Box::new(move |path| {
            let index = entries.get(path).ok_or(std::io::ErrorKind::NotFound)?;
            let bytes = wheel
                .read(source, &wheel.entries[*index])
                .map_err(std::io::Error::other)?;
            Ok(bytes.into())
        }),
    }))
}

//! Which modules are compiled beforehand: those that serving loads, of the wheels, the runtime and the standard library.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::decide::Plan;
use super::{Failure, Session};
use crate::cli::fetch;
use crate::debian::BaseFiles;
use crate::digest::{Digest, Hasher};
use crate::layers::bytecode::{Bytecode, PLATFORM, Unit, compile, interpreter, standard_library};
use crate::layers::recipe::{LAYOUT, PREFIX};
use crate::layers::{self, MadeLayer, install, keyed_layer};
use crate::project::Project;
use crate::python::target::PythonVersion;
use crate::python::wheel::Wheel;
use crate::serving::runtime;
use crate::tree::{PLAIN, Tree};

/// The bytecode layer, or none where it cannot be made; `None` is said, not an error.
pub fn layer(
    project: &Project,
    plan: &Plan,
    files: Option<&BaseFiles<'_>>,
    session: &Session,
) -> Result<Option<MadeLayer>, Failure> {
    let Some(files) = files else {
        session
            .printer()
            .say("no bytecode layer: the base's interpreter is not Debian's");
        return Ok(None);
    };
    // Whatever is built for, it is this platform's interpreter that compiles.
    let (store, base, reporter) = (files.store, files.base, session.reporter());
    let of_compiler = BaseFiles::new(store, base, PLATFORM);
    let files = if files.platform == PLATFORM {
        files
    } else {
        &of_compiler
    };
    let python = plan.production.target.python.minor_only();
    let wanted = Wanted::of(project);
    let Some(interpreter) = interpreter(base) else {
        session
            .printer()
            .say("no bytecode layer: the lock's base has no linux/amd64, whose interpreter compiles");
        return Ok(None);
    };
    let key = key(interpreter, plan, &wanted);
    if let Some(layer) = layers::stored_layer(store, &key) {
        return Ok(Some(layer));
    }
    fetch::base(&project.manifest, files, session)?;
    let wheels: Vec<_> = plan.production.included.iter().map(|one| &one.wheel).collect();
    fetch::files(&project.manifest, &wheels, session)?;
    let opened = wheels
        .iter()
        .map(|file| {
            let wheel = layers::open_wheel(store, &file.name, &file.digest)?;
            let source = layers::wheel_file(store, &wheel)?;
            Ok((wheel, source))
        })
        .collect::<Result<Vec<_>, layers::LayerError>>()?;
    let mut units = vec![library(files)?, own_runtime(python)];
    for (wheel, source) in &opened {
        units.extend(wheel_unit(wheel, source, python, &wanted)?);
    }
    let made = match compile(files, &units, &*reporter)? {
        Bytecode::Made(made) => made,
        Bytecode::Impossible(why) => {
            session.printer().say(&format!("no bytecode layer: {why}"));
            return Ok(None);
        }
    };
    let title = format!("bytecode of {} modules", made.len());
    keyed_layer::<Failure>(store, key, 0, &title, || {
        let mut tree = Tree::new();
        for (path, bytes) in made {
            tree.insert_file(&path, bytes, PLAIN)?;
        }
        Ok(tree)
    })
    .map(Some)
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

    /// Whether the module at `path` below site-packages is worth compiling.
    fn has(&self, path: &str) -> bool {
        let module = path.strip_suffix(".py").unwrap_or(path);
        let module = module.strip_suffix("/__init__").unwrap_or(module);
        self.0.as_ref().is_none_or(|wanted| wanted.contains(module))
    }
}

/// What is under the server is loaded by every image, and by no replay.
const SERVER: [&str; 2] = ["granian", "msgspec"];

fn key(interpreter: Digest, plan: &Plan, wanted: &Wanted) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(format!("bytecode {LAYOUT} {PREFIX} {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    hasher.update(interpreter.bytes());
    for one in &plan.production.included {
        hasher.update(one.wheel.digest.bytes());
    }
    hasher.update(format!("{}\n", LIBRARY.join(" ")).as_bytes());
    match &wanted.0 {
        Some(wanted) => {
            for module in wanted {
                hasher.update(format!("{module}\n").as_bytes());
            }
        }
        None => hasher.update(b"*\n"),
    }
    for (path, text) in runtime::FILES {
        hasher.update(format!("{path} {}\n", Digest::of(text.as_bytes())).as_bytes());
    }
    hasher.finish()
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
fn library<'a>(files: &'a BaseFiles<'a>) -> Result<Unit<'a>, Failure> {
    let mut unit = standard_library(files)?;
    let folder = format!("{}/", files.base.stdlib());
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

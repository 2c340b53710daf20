//! `mlrails sync`: the project's environment in .venv becomes what pylock.toml says, and nothing else.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use rayon::prelude::*;
use serde_json::json;
use uv_normalize::{ExtraName, GroupName};

use super::build::{self, BuildArgs};
use super::interpreter::{NEWEST_FIRST, advice, on_machine};
use super::{Exit, Failure, Session, fetch};
use crate::layers::environment::interpreter::{self, Interpreter};
use crate::layers::environment::{Change, Environment, State};
use crate::layers::open_wheel;
use crate::lock::{File, Lock, Package, SERVING_GROUP, Source};
use crate::project::Manifest;
use crate::project::uv::Conflict;
use crate::python::target::PythonVersion;
use crate::python::wheel::Wheel;
use crate::reporter::Unit;
use crate::store::Store;

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Installs what pylock.toml says into .venv, with every hash checked, and removes what it installed before and is
not locked any more. The project's own package is importable there, from its sources. A lock that pyproject.toml has
outgrown is refused: `mlrails lock` brings it up to date.

Examples:
  mlrails sync                      the dependencies, the default groups (dev), and what serving needs
  mlrails sync --no-dev             without the default groups
  mlrails sync --group docs         another group too
  mlrails sync --offline            from the cache alone"
)]
pub struct Args {
    /// Install this dependency group too; may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<GroupName>,
    /// Leave this dependency group out; may be repeated
    #[arg(long, value_name = "GROUP")]
    no_group: Vec<GroupName>,
    /// Install every dependency group
    #[arg(long, conflicts_with = "no_dev")]
    all_groups: bool,
    /// Leave the default groups out
    #[arg(long, visible_alias = "no-default-groups")]
    no_dev: bool,
    /// Install this extra of the project; may be repeated
    #[arg(long, value_name = "EXTRA")]
    extra: Vec<ExtraName>,
    /// Install every extra of the project
    #[arg(long)]
    all_extras: bool,
    /// The interpreter to make .venv with [default: that minor on PATH, pyenv's, uv's]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let started = Instant::now();
    let manifest = crate::project::read(session.project_folder())?;
    // As `image` does: what is installed is what the project asks for today, or nothing.
    let lock = super::lock::installable(&manifest)?;
    let environment = Environment::at(manifest.folder(".venv")?);
    let store = session.store()?;
    // Two at once would install over each other.
    let _guard = store.lock(&format!("environment {}", environment.root().display()))?;
    let state = environment.state();
    let interpreter = interpreter(&args, &manifest, &lock, state.as_ref(), session)?;
    let says_default = manifest.pyproject.uv.default_groups.is_some();
    let selected = selection(
        &args,
        &lock,
        &interpreter,
        says_default,
        &manifest.pyproject.uv.conflicts,
    )?;

    environment.make(&interpreter)?;
    environment.link_project(&interpreter, &sources(&manifest))?;
    if let Some(state) = &state
        && state.interpreter == interpreter
        && is_unchanged(state, &selected, &store)
    {
        let change = Change {
            unchanged: selected.len(),
            ..Change::default()
        };
        report(session, &interpreter, &change, started);
        return Ok(Exit::Done);
    }

    let files = built(&args, &manifest, &lock, &interpreter, selected, session)?;
    let wheels = wheels(&manifest, &files, session)?;
    let reporter = session.reporter();
    let total = wheels.iter().map(Wheel::expanded_size).sum();
    let task = reporter.start("installing", Unit::Bytes, Some(total));
    let install = || {
        environment.install(&store, &interpreter, &wheels, &|count| {
            reporter.advance(task, count)
        })
    };
    let mut change = install();
    // Was it a wheel, or the cache's copy of one? A damaged copy is gone once it is looked at, and comes anew.
    if change.is_err() && any_damaged(&store, &wheels)? {
        fetch::files(&manifest, &files.iter().collect::<Vec<_>>(), session)?;
        change = install();
    }
    reporter.finish(task);
    let change = change?;
    for collision in change.overwritten.iter().take(5) {
        reporter.warn(&format!("{collision}; an image with both is refused"));
    }
    report(session, &interpreter, &change, started);
    Ok(Exit::Done)
}

/// Where the project's package is importable from.
fn sources(manifest: &Manifest) -> PathBuf {
    if let Some(code) = manifest
        .model
        .as_ref()
        .and_then(|model| model.flavour.code.as_ref())
    {
        return manifest.root.join(code);
    }
    let src = manifest.root.join("src");
    if src.is_dir() { src } else { manifest.root.clone() }
}

/// The environment's own interpreter where it is still right, else one of the locked minor on this machine.
fn interpreter(
    args: &Args,
    manifest: &Manifest,
    lock: &Lock,
    state: Option<&State>,
    session: &Session,
) -> Result<Interpreter, Failure> {
    let store = session.store()?;
    let pinned: Option<PythonVersion> = manifest
        .python_version
        .as_ref()
        .and_then(|text| text.parse().ok());
    // The lock decided once, for training and serving; .python-version can add a patch.
    let minor = lock.mlrails.python.or(pinned).map(PythonVersion::minor_only);
    let admits = |version: PythonVersion| match minor {
        Some(minor) => version.minor_only() == minor,
        None => lock
            .requires_python
            .as_ref()
            .is_none_or(|specifiers| specifiers.contains(&version.full())),
    };
    if let Some(path) = &args.python {
        let found = interpreter::ask(&store, path)
            .ok_or_else(|| Failure::new(format!("{} is no CPython that answers", path.display())))?;
        return if admits(found.version) {
            Ok(found)
        } else {
            let wanted = minor.map_or_else(|| "another version".to_owned(), |minor| minor.to_string());
            Err(Failure::new(format!(
                "{} is Python {}, and the lock is for {wanted}",
                path.display(),
                found.version
            ))
            .hint("lock for it with `mlrails lock --python VERSION`"))
        };
    }
    let patch = pinned.filter(|pinned| minor.is_none_or(|minor| pinned.minor_only() == minor));
    if let Some(state) = state
        && admits(state.interpreter.version)
        && patch.is_none_or(|pinned| pinned.patch.is_none() || pinned == state.interpreter.version)
    {
        return Ok(state.interpreter.clone());
    }
    let find = |wanted| on_machine(&store, wanted);
    let exact = patch.filter(|pinned| pinned.patch.is_some()).and_then(find);
    let minors: Vec<PythonVersion> = match minor {
        Some(minor) => vec![minor],
        None => NEWEST_FIRST.map(|minor| PythonVersion::new(3, minor)).to_vec(),
    };
    let found = exact.or_else(|| {
        minors
            .into_iter()
            .filter_map(find)
            .find(|found| admits(found.version))
    });
    let found = found.ok_or_else(|| {
        let version = minor.map_or_else(|| "3".to_owned(), |minor| minor.to_string());
        Failure::new(format!("no Python {version} on this machine"))
            .hint(format!("{}; or name one with --python", advice(&version)))
    })?;
    if let Some(pinned) = patch.filter(|pinned| pinned.patch.is_some() && *pinned != found.version) {
        session.reporter().warn(&format!(
            ".python-version asks for {pinned}, which is not here: {} is taken",
            found.version
        ));
    }
    Ok(found)
}

/// The wheel of every package that is installed there, in the lock's order. `says_default`: the project itself says which
/// groups are installed by default.
fn selection<'lock>(
    args: &Args,
    lock: &'lock Lock,
    interpreter: &Interpreter,
    says_default: bool,
    conflicts: &[Vec<Conflict>],
) -> Result<Vec<Selected<'lock>>, Failure> {
    let target = interpreter
        .target()
        .ok_or_else(|| Failure::new("this machine's platform is not one that wheels are chosen for"))?;
    let mut groups: Vec<GroupName> = Vec::new();
    if args.all_groups {
        groups.extend(lock.dependency_groups.iter().cloned());
    } else if !args.no_dev {
        groups.extend(lock.default_groups.iter().cloned());
        // As uv does: a group of that name is meant for whoever works on the project.
        if !says_default {
            groups.extend(
                lock.dependency_groups
                    .iter()
                    .filter(|group| group.as_ref() == "dev")
                    .cloned(),
            );
        }
    }
    groups.extend(args.group.iter().cloned());
    groups.retain(|group| !args.no_group.contains(group));
    // `serve` and the golden rows' replay run here as well.
    groups.extend(
        lock.dependency_groups
            .iter()
            .filter(|group| group.as_ref() == SERVING_GROUP)
            .cloned(),
    );
    groups.sort();
    groups.dedup();
    let extras = if args.all_extras {
        &lock.extras
    } else {
        &args.extra
    };
    for set in conflicts {
        let chosen = set.iter().filter(|conflict| match conflict {
            Conflict::Extra(name) => extras.contains(name),
            Conflict::Group(name) => groups.contains(name),
        });
        let names: Vec<String> = chosen
            .map(|conflict| super::prove::scope(conflict).to_string())
            .collect();
        if names.len() > 1 {
            return Err(Failure::new(format!(
                "{} exclude each other: [tool.uv] conflicts says so",
                names.join(" and ")
            ))
            .hint("choose one of them"));
        }
    }
    // What a Mac runs is not asked: its wheels are those that the lock has for any.
    let tags = target.tags_of_any_macos();
    let selected = lock.select(&target, &groups, extras)?;
    selected
        .into_iter()
        .map(|package| {
            let file = package.wheel_for_tags(&tags);
            if file.is_none() && !package.has_source() {
                return Err(no_wheel(package, &target.to_string()));
            }
            Ok((package, file))
        })
        .collect()
}

/// What is installed: a package with its wheel for this interpreter, or without one, and then built from its source.
type Selected<'lock> = (&'lock Package, Option<&'lock File>);

/// The wheel of each; those that no index has are built here.
fn built(
    args: &Args,
    manifest: &Manifest,
    lock: &Lock,
    interpreter: &Interpreter,
    selected: Vec<Selected<'_>>,
    session: &Session,
) -> Result<Vec<File>, Failure> {
    let missing: Vec<&Package> = selected
        .iter()
        .filter(|(_, file)| file.is_none())
        .map(|(package, _)| *package)
        .collect();
    let interpreter = interpreter.clone();
    let find: crate::build::Find = Box::new(move |_| Ok(interpreter.clone()));
    let mut built = build::wheels(manifest, lock, &missing, find, &args.build, session)?
        .into_iter()
        .map(|built| built.file);
    let files = selected
        .into_iter()
        .filter_map(|(_, file)| file.cloned().or_else(|| built.next()));
    Ok(files.collect())
}

fn no_wheel(package: &Package, target: &str) -> Failure {
    let label = package.label();
    match &package.source {
        Source::Vcs { .. } => Failure::new(format!("{label} is a checkout, and sync installs wheels only")),
        Source::Directory { .. } => {
            Failure::new(format!("{label} is a folder, and sync installs wheels only"))
        }
        _ => Failure::new(format!("no locked wheel of {label} fits {target}"))
            .hint("it has no source archive either: pin a version that has one of the two for this platform"),
    }
}

fn is_unchanged(state: &State, selected: &[Selected<'_>], store: &Store) -> bool {
    state.packages.len() == selected.len()
        && selected.iter().all(|(package, file)| {
            let known = state.packages.get(package.name.as_ref());
            known.is_some_and(|known| match file {
                Some(file) => known.digest == file.digest,
                None => build::is_from(store, package, &known.digest),
            })
        })
}

/// The wheels, in the store and validated. One that was damaged there is downloaded once more.
fn wheels(manifest: &Manifest, files: &[File], session: &Session) -> Result<Vec<Wheel>, Failure> {
    use crate::layers::LayerError::Missing;
    let store = session.store()?;
    let wanted: Vec<&File> = files.iter().collect();
    let open = || -> Result<Vec<Wheel>, crate::layers::LayerError> {
        wanted
            .par_iter()
            .map(|file| open_wheel(&store, &file.name, &file.digest))
            .collect()
    };
    fetch::files(manifest, &wanted, session)?;
    match open() {
        Err(Missing { .. }) => {
            fetch::files(manifest, &wanted, session)?;
            Ok(open()?)
        }
        other => Ok(other?),
    }
}

fn any_damaged(store: &Store, wheels: &[Wheel]) -> Result<bool, Failure> {
    let mut damaged = false;
    for wheel in wheels {
        damaged |= store.verified(&wheel.digest)?.is_none();
    }
    Ok(damaged)
}

fn report(session: &Session, interpreter: &Interpreter, change: &Change, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let printer = session.printer();
    if session.is_json() {
        printer.json(&json!({
            "python": interpreter.version.to_string(),
            "interpreter": interpreter.executable,
            "installed": change.installed,
            "removed": change.removed,
            "unchanged": change.unchanged,
            "seconds": seconds,
        }));
        return;
    }
    for name in &change.removed {
        printer.say(&format!("  - {name}"));
    }
    for name in &change.installed {
        printer.detail(&format!("  + {name}"));
    }
    let total = change.installed.len() + change.unchanged;
    if change.installed.is_empty() && change.removed.is_empty() {
        printer.say(&format!(
            ".venv is what the lock says: {total} packages for Python {} ({seconds:.2} s)",
            interpreter.version
        ));
    } else {
        printer.say(&format!(
            ".venv: {} installed, {} removed, {} unchanged, for Python {} ({seconds:.2} s)",
            change.installed.len(),
            change.removed.len(),
            change.unchanged,
            interpreter.version
        ));
        printer.say("next: `mlrails run`");
    }
}

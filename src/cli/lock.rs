//! `mlrails lock`: requirements become exact versions, for every platform and Python that the project admits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use uv_normalize::PackageName;

mod asked;
mod before;

use self::asked::{inputs, options, serves};
use self::before::{keep_imports, preferences};
use super::base::{self, Upgrade};
use super::build;
use super::cost::{self, Weighed};
use super::direct;
use super::indexes::{IndexArgs, accelerator, locations};
use super::prove;
use super::{Exit, Failure, Session};
use crate::build::Builder;
use crate::index::{Network, WithDirect, WithSources};
use crate::lock::diff::{Change, diff};
use crate::lock::held::{self, Held};
use crate::lock::reach::Scope;
use crate::lock::satisfies::{Wanted, package_markers, refreshed};
use crate::lock::{CREATED_BY, FILE_NAME, File, Location, Lock, SERVING_GROUP, Source};

use crate::project::Manifest;
use crate::python::target::PythonVersion;
use crate::resolve;
use crate::targets::{self, Asked};

#[derive(Debug, Default, ClapArgs)]
#[command(after_help = "Examples:
  mlrails lock                              solve, or confirm that the lock still holds
  mlrails lock --check                      say whether the lock is up to date, and change nothing
  mlrails lock --explain-size               how many MB each requirement brings to production
  mlrails lock --check --prove              try it out in every environment, without the resolver
  mlrails lock --upgrade-package pandas     let one package move, keep the others
  mlrails lock --platform linux/amd64 --platform linux/arm64
                                            make sure that both have wheels

The lock is standard (PEP 751): `pip install --no-deps -r pylock.toml` and `uv pip sync pylock.toml` install it.
Indexes are found as pip and uv find them: flags, PIP_INDEX_URL, UV_DEFAULT_INDEX, [tool.uv], pip.conf.")]
pub struct Args {
    /// Only say whether the lock is up to date (exit 1 if it is not)
    #[arg(long, conflicts_with_all = ["upgrade", "upgrade_package", "upgrade_base"])]
    check: bool,
    /// Try the lock out as well, in every environment that it is for: versions, requirements, interpreters, files
    #[arg(long, requires = "check")]
    prove: bool,
    /// Forget the locked versions: take the newest that fit
    #[arg(long)]
    upgrade: bool,
    /// Forget the locked version of one package
    #[arg(long, value_name = "PACKAGE")]
    upgrade_package: Vec<PackageName>,
    /// Take the base's newest packages (security updates), whatever the lock has
    #[arg(long)]
    upgrade_base: bool,
    /// A registry, of the base's image, that is reached by plain http; may be given several times
    #[arg(long = "insecure-registry", value_name = "HOST")]
    insecure_registries: Vec<String>,
    /// Say how many MB each of the project's requirements brings to production
    #[arg(long)]
    explain_size: bool,
    /// Where the lock is read and written [default: pylock.toml in the project]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    /// Which of the versions that fit is taken
    #[arg(long, value_enum)]
    resolution: Option<ResolutionArg>,
    /// Whether prereleases are taken
    #[arg(long, value_enum)]
    prerelease: Option<PrereleaseArg>,
    /// Act as if nothing had been published after this moment (2026-01-31, or with a time)
    #[arg(long, value_name = "TIME")]
    exclude_newer: Option<String>,
    /// A platform that production runs on: linux/amd64, or a manylinux name such as x86_64-manylinux_2_28
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// The Python minor that production runs
    #[arg(long, value_name = "VERSION")]
    python: Option<PythonVersion>,
    /// An environment in which everything that reaches it must have a file, as a marker
    #[arg(long, value_name = "MARKER")]
    required_environment: Vec<String>,
    /// Take no source archives
    #[arg(long)]
    no_build: bool,
    /// Take no source archive of one package
    #[arg(long, value_name = "PACKAGE")]
    no_build_package: Vec<PackageName>,
    /// Take no wheels
    #[arg(long)]
    no_binary: bool,
    /// Take no wheel of one package
    #[arg(long, value_name = "PACKAGE")]
    no_binary_package: Vec<PackageName>,
    /// Whether older Pythons get older versions, or all get the same
    #[arg(long, value_enum)]
    fork_strategy: Option<ForkArg>,
    /// Where packages ask for different versions of another on different platforms or Pythons, lock each where it holds
    #[arg(long)]
    split_conflicts: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ResolutionArg {
    Highest,
    Lowest,
    LowestDirect,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrereleaseArg {
    Disallow,
    Allow,
    IfNecessary,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ForkArg {
    RequiresPython,
    Fewest,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let started = Instant::now();
    let manifest = crate::project::read(session.project_folder())?;
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| manifest.root.join(FILE_NAME));
    let inputs = inputs(&manifest, &args)?;
    let options = options(&manifest, &args)?;
    let locations = locations(&manifest, &args.index)?;
    let direct = direct::asked(&manifest)?;
    let mut lines = locations.lines();
    lines.extend(direct::lines(&manifest, &direct));
    let text = Lock::text(&path)?;
    let moves = args.upgrade || args.upgrade_base || !args.upgrade_package.is_empty();
    let wanted = inputs.wanted(&options, &lines)?;
    let key = text.as_ref().map(|text| held::key(text.as_bytes(), &wanted));
    let cache = session.store().ok();
    let cache = cache.as_deref();
    if let (Some(key), Some(cache), false) = (&key, cache, moves || args.explain_size || args.prove)
        && let Some(held) = cache.record(HELD, key)
    {
        report(session, &path, &held, &[], &[], started, "is up to date");
        return Ok(Exit::Done);
    }
    let shown = path.display().to_string();
    let old = text.map(|text| Lock::parse(&text, &shown)).transpose()?;

    if let (Some(old), false) = (&old, moves) {
        match refreshed(old, &wanted) {
            Ok(fresh) if fresh == *old && args.prove => {
                let asked = prove::asked(&inputs, &options, &lines, &manifest.pyproject.uv.conflicts)?;
                return prove::run(session, &path, old, &asked, locations);
            }
            Ok(fresh) if fresh == *old => {
                let held = Held::of(old);
                if let (Some(key), Some(cache)) = (&key, cache) {
                    // A cache that cannot be written slows the next run down and breaks nothing.
                    let _ = cache.keep_record(HELD, key, &held);
                }
                let weighed = match args.explain_size {
                    true => cost::weigh(old, &inputs, &options, session)?,
                    false => Vec::new(),
                };
                report(session, &path, &held, &[], &weighed, started, "is up to date");
                return Ok(Exit::Done);
            }
            Ok(fresh) if !args.check && resolve::covers(&fresh, &inputs, &options, &lines)? => {
                fresh.write(&path)?;
                let mut weighed = cost::weigh(&fresh, &inputs, &options, session)?;
                cost::warn(&weighed, accelerator(&manifest), session);
                weighed.retain(|_| args.explain_size);
                report(
                    session,
                    &path,
                    &Held::of(&fresh),
                    &diff(Some(old), &fresh),
                    &weighed,
                    started,
                    "was brought up to date without solving",
                );
                return Ok(Exit::Done);
            }
            Ok(_) if args.check => {
                return Ok(outdated(session, &path, "markers or unused packages changed"));
            }
            // What was a tool's is production's now, and lacks a wheel there.
            Ok(_) => {}
            Err(why) if args.check => return Ok(outdated(session, &path, &why.to_string())),
            Err(why) => session.printer().detail(&format!("solving again: {why}")),
        }
    }
    if args.check {
        return Ok(outdated(session, &path, "there is no lock"));
    }

    let preferences = preferences(&manifest, old.as_ref(), &args, session)?;
    let client = session.client(&[])?;
    let (store, reporter) = (session.store()?, session.reporter());
    let task = reporter.start("Resolving", crate::reporter::Unit::Items, None);
    let settings = build::settings(old.as_ref(), options.no_build.clone(), options.exclude_newer)?;
    let find = build::finder(store.clone(), options.python, inputs.requires_python.clone());
    let kept_locations = locations.clone();
    let solved = session.block_on(async {
        let network = Network::new(client, store.clone(), locations, reporter.clone());
        let builder = Builder::new(store, network.clone(), reporter.clone(), settings, find);
        let builder = Arc::new(builder);
        let (index, folder) = (network.clone(), manifest.root.clone());
        let places = tokio::task::block_in_place(|| {
            direct::find(
                direct,
                &manifest,
                old.as_ref(),
                moves,
                &kept_locations,
                &builder,
                session,
            )
        })?;
        let sources = builder.clone();
        let (inputs, options) = (inputs.clone(), options.clone());
        let solved = tokio::task::spawn_blocking(move || {
            let index = WithSources {
                index: &index,
                sources: &*sources,
            };
            let index = WithDirect::new(&index, places);
            resolve::resolve(&inputs, &options, &preferences, &index, &lines)
        })
        .await
        .map_err(|error| Failure::new(format!("the resolver stopped: {error}")))?;
        let mut solved = solved?;
        session
            .printer()
            .detail(&format!("solved after {:.2} s", started.elapsed().as_secs_f64()));
        if let Some(old) = &old {
            keep_imports(old, &mut solved.lock);
        }
        // Offline, the cache still knows the names of wheels that were looked at before.
        network.fill_imports(&mut solved.lock.packages, &folder).await;
        session.printer().detail(&format!(
            "import names after {:.2} s",
            started.elapsed().as_secs_f64()
        ));
        // The process ends soon: giving a hundred pages back takes as long as writing the lock.
        std::mem::forget(network);
        Ok::<_, Failure>((solved, builder))
    });
    reporter.finish(task);
    let (solved, builder) = solved??;
    let mut lock = solved.lock;
    build::note_built(&builder, &mut lock, &manifest.root, session)?;
    lock.mlrails.base = old.as_ref().and_then(|old| old.mlrails.base.clone());
    if serves(&manifest) {
        attach_base(&manifest, &args, &mut lock, session)?;
    }
    near_files(&mut lock, path.parent().unwrap_or(&manifest.root));
    for note in &solved.notes {
        session.printer().warn(note);
    }
    lock.write(&path)?;
    // Of a first lock everything is new: the file says it better.
    let changes = old.as_ref().map_or_else(Vec::new, |old| diff(Some(old), &lock));
    let before = old.map(|old| cost::weigh(&old, &inputs, &options, session));
    let before = before.transpose()?.unwrap_or_default();
    let mut weighed = cost::weigh(&lock, &inputs, &options, session)?;
    let totals = cost::totals(&before, &weighed);
    cost::warn(&weighed, accelerator(&manifest), session);
    weighed.retain(|_| args.explain_size);
    report(
        session,
        &path,
        &Held::of(&lock),
        &changes,
        &weighed,
        started,
        "was written",
    );
    if !session.is_json() {
        totals.iter().for_each(|line| session.printer().say(line));
    }
    Ok(Exit::Done)
}

/// Files below the lock's folder are named from there: such a lock holds on another machine too.
fn near_files(lock: &mut Lock, folder: &Path) {
    let Ok(folder) = std::path::absolute(folder) else {
        return;
    };
    let near = |file: &mut File| {
        if let Location::Url(url) = &file.location
            && url.scheme() == "file"
            && let Ok(path) = url.to_file_path()
            && let Ok(below) = path.strip_prefix(&folder)
        {
            file.location = Location::Path(below.to_owned());
        }
    };
    for package in &mut lock.packages {
        match &mut package.source {
            Source::Files { sdist, wheels } => sdist.iter_mut().chain(wheels).for_each(near),
            Source::Archive(file) => near(file),
            Source::Vcs { .. } | Source::Directory { .. } => {}
        }
    }
}

/// Locks the base for the locked Python. Without its mirror the rest of the lock is still worth having: `image` tries again.
fn attach_base(manifest: &Manifest, args: &Args, lock: &mut Lock, session: &Session) -> Result<(), Failure> {
    let asked = Asked {
        platforms: args
            .platform
            .iter()
            .filter(|name| name.contains('/'))
            .cloned()
            .collect(),
        base: None,
        python: lock.mlrails.python.map(|python| python.to_string()),
    };
    let targets = targets::choose(manifest, &asked)?;
    let upgrade = if args.upgrade_base {
        Upgrade::Newest
    } else {
        Upgrade::Keep
    };
    match base::attach(
        session,
        manifest,
        &targets,
        lock,
        upgrade,
        &args.insecure_registries,
    ) {
        Ok(()) => Ok(()),
        Err(failure) if failure.code() == 3 && !args.upgrade_base => {
            let why = failure.message().unwrap_or_default();
            session
                .printer()
                .warn(&format!("the base is not locked yet: {why}"));
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// The project's lock, if it still answers for what pyproject.toml asks. For the commands that install from it: they
/// ask no index, so the index that it was made with is not compared.
pub fn current(manifest: &Manifest) -> Result<Lock, Failure> {
    let lock = there(manifest)?;
    let wanted = wanted(manifest, &lock)?;
    direct::agrees(manifest, &lock)?;
    refreshed(&lock, &wanted).map_err(|why| outgrown(&why))
}

/// The project's lock for whoever only installs it: as [`current`], and a lock that another tool wrote is taken as well. That one
/// does not say what its packages require, so it is judged by the project's own lines alone.
pub fn installable(manifest: &Manifest) -> Result<Lock, Failure> {
    let lock = there(manifest)?;
    let mut wanted = wanted(manifest, &lock)?;
    if lock.created_by == CREATED_BY {
        direct::agrees(manifest, &lock)?;
        return refreshed(&lock, &wanted).map_err(|why| outgrown(&why));
    }
    let serving = |scope: &Scope| matches!(scope, Scope::Group(name) if name.as_ref() == SERVING_GROUP);
    wanted.requirements.retain(|(scope, _)| !serving(scope));
    match package_markers(&wanted, &lock.packages) {
        Ok(_) => Ok(lock),
        Err(why) => Err(outgrown(&why)),
    }
}

fn there(manifest: &Manifest) -> Result<Lock, Failure> {
    Lock::read(&manifest.root.join(FILE_NAME))?.ok_or_else(|| {
        Failure::new(format!("there is no {FILE_NAME} in {}", manifest.root.display())).hint(HINT)
    })
}

fn wanted(manifest: &Manifest, lock: &Lock) -> Result<Wanted, Failure> {
    let args = Args::default();
    let wanted = inputs(manifest, &args)?.wanted(&options(manifest, &args)?, &[])?;
    Ok(Wanted {
        options: lock.mlrails.inputs.clone(),
        ..wanted
    })
}

pub(super) fn outgrown(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{FILE_NAME} is out of date: {why}")).hint(HINT)
}

const HINT: &str = "run `mlrails lock`";

fn outdated(session: &Session, path: &Path, why: &str) -> Exit {
    if session.is_json() {
        session
            .printer()
            .json(&json!({ "up_to_date": false, "path": path, "why": why }));
    } else {
        session
            .printer()
            .say(&format!("{} is out of date: {why}", path.display()));
        session.printer().say("run `mlrails lock`");
    }
    Exit::Refused
}

/// The cache's bucket of locks that held.
const HELD: &str = "held";

fn report(
    session: &Session,
    path: &Path,
    held: &Held,
    changes: &[Change],
    weighed: &[Weighed],
    started: Instant,
    what: &str,
) {
    let printer = session.printer();
    let seconds = started.elapsed().as_secs_f64();
    if session.is_json() {
        let mut said = json!({
            "up_to_date": true, "path": path, "packages": held.packages, "changes": changes,
            "python": held.python, "seconds": seconds,
        });
        if !weighed.is_empty() {
            said["sizes"] = cost::as_json(weighed);
        }
        printer.json(&said);
        return;
    }
    for change in changes {
        let (was, is) = (change.was.join(", "), change.is.join(", "));
        let line = match (was.is_empty(), is.is_empty()) {
            (true, _) => format!("  {} {} {is}", printer.paint("+", "32"), change.name),
            (_, true) => format!("  {} {} {was}", printer.paint("-", "31"), change.name),
            _ => format!("  {} {} {was} -> {is}", printer.paint("~", "33"), change.name),
        };
        printer.say(&line);
    }
    printer.say(&format!(
        "{} {what}: {} packages in {seconds:.2} s",
        path.file_name().unwrap_or_default().to_string_lossy(),
        held.packages
    ));
    cost::explain(weighed, session);
}

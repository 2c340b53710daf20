//! What an image is decided from: freshness, the lock, and the plan for one platform.

use std::collections::BTreeMap;

use uv_normalize::PackageName;

use super::{Args, Failure, Session, base};
use crate::cli::build::{self, BuildArgs};
use crate::layers::recipe::{Form, UnknownForm};
use crate::lock::base::Base;
use crate::lock::{FILE_NAME, Lock};
use crate::plan::{Launch, PlanError, Production, Reason, Roots, production};
use crate::project::record::{FilesRecord, RunRecord};
use crate::project::source::cut::Request;
use crate::project::source::distributions::Distributions;
use crate::project::source::imports::Closure;
use crate::project::values::{self, Needs};
use crate::project::{Manifest, Mistakes, Project};
use crate::python::target::{Platform, Target};
use crate::serving::runtime::REQUIREMENTS;
use crate::targets::buildpack::Facts;
use crate::targets::{self, Asked, Targets};
use crate::wheel;

/// Distributions that are a cluster's client.
const ENGINES: [&str; 3] = ["ray", "dask", "distributed"];

/// Everything that is decided for one platform.
pub struct Plan {
    pub platform: Platform,
    /// How layers are compressed.
    pub form: Form,
    /// About the most that one layer of wheels weighs, in bytes.
    pub max_layer_size: u64,
    pub base: Base,
    pub production: Production,
    pub launch: Launch,
    pub closure: Closure,
    pub files: FilesRecord,
    /// Names of the trained values that serving needs.
    pub frozen: Vec<String>,
    /// What the pipeline needs without a server around it, by name, with its version.
    pub locked: BTreeMap<String, String>,
}

/// What serving reaches, on one target.
pub struct Reached {
    pub production: Production,
    pub closure: Closure,
    pub files: FilesRecord,
    /// Names of the trained values that serving needs.
    pub frozen: Vec<String>,
    /// What the pipeline needs without a server around it, by name, with its version.
    pub locked: BTreeMap<String, String>,
}

/// Whether the artifacts are as new as the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// `--allow-stale`; the image's label says so.
    Stale,
}

pub fn asked(args: &Args) -> Asked {
    Asked {
        platforms: args.platforms.clone(),
        base: args.base.clone(),
        python: None,
    }
}

/// Refuses what was trained by other code, and what cannot ship.
pub fn freshness(project: &Project, allow_stale: bool, session: &Session) -> Result<Freshness, Failure> {
    if let (None, Some(entry)) = (&project.run, project.graph.plain()) {
        return Err(Failure::new(format!(
            "nothing is recorded of `{}:{}` yet: {} is missing",
            entry.module,
            entry.function,
            project.run_file()
        ))
        .hint("`mlrails sync`, then `mlrails run`: nothing is trained, its examples are answered and its schema is recorded"));
    }
    if project.run.is_none() {
        return Err(
            Failure::new("there is nothing to serve yet: artifacts/run.json is missing")
                .hint("train first: `mlrails sync`, then `mlrails run`"),
        );
    }
    let mut mistakes = Vec::new();
    project.data_ships(&project.closure(&[]), &mut mistakes);
    project.settings_agree(&mut mistakes);
    Mistakes::check(mistakes)?;
    if let Some(how) = project.run.as_ref().and_then(overridden) {
        session.printer().warn(&format!(
            "what was trained is an experiment's, `mlrails run {how}` (`mlrails run` trains with the project's own settings)"
        ));
    }
    let stale = project.stale()?;
    if stale.is_empty() {
        if project.graph.plain().is_some() && !project.golden_is_current()? {
            session.printer().warn("the function, or code that it uses, has changed since its answers were recorded (`mlrails run` records them again)");
        } else if !project.golden_is_current()? {
            session.printer().warn("code that only `predict` reaches has changed since the golden rows were recorded (`mlrails run` records them again)");
        }
        return Ok(Freshness::Fresh);
    }
    if project.model().is_some() {
        let why: Vec<&str> = stale.iter().map(|stale| stale.why.as_str()).collect();
        let what = format!("the recorded answers are stale: {}", why.join("; "));
        if allow_stale {
            session.printer().warn(&what);
            return Ok(Freshness::Stale);
        }
        return Err(Failure::new(what).hint(format!(
            "`mlrails run` records what this model answers; without {} nothing is compared",
            project.run_file()
        )));
    }
    let lines: Vec<String> = stale
        .iter()
        .map(|stale| format!("`{}`: {}", stale.node, stale.why))
        .collect();
    if allow_stale {
        session
            .printer()
            .warn(&format!("the artifacts are stale: {}", lines.join("; ")));
        return Ok(Freshness::Stale);
    }
    Err(Failure::new(format!("the artifacts are stale: {}", lines.join("; ")))
        .hint("`mlrails run` trains again; --allow-stale builds from them as they are, and says so in the image"))
}

/// The flags of a run that was not made with the project's own settings.
fn overridden(run: &RunRecord) -> Option<String> {
    let environment = run.environment.iter().map(|name| format!("--env {name}"));
    let set = run
        .set
        .iter()
        .map(|(name, value)| format!("--set {name}={value}"));
    let flags: Vec<String> = environment.chain(set).collect();
    (!flags.is_empty()).then(|| flags.join(" "))
}

/// The lock, if it still answers for the project, with a base for these targets in it.
pub fn locked(project: &Project, targets: &Targets, args: &Args, session: &Session) -> Result<Lock, Failure> {
    let mut lock = super::super::lock::current(&project.manifest)?;
    let locked = lock.mlrails.base.as_ref().map(Base::from_table).transpose()?;
    let packages = base::packages(&project.manifest)?;
    if locked.is_some_and(|locked| base::fits(&locked, targets, &packages)) {
        return Ok(lock);
    }
    if args.locked {
        return Err(Failure::new(format!(
            "{FILE_NAME} has no base for these platforms, and --locked forbids to choose one"
        ))
        .hint("`mlrails lock` chooses one"));
    }
    base::attach(
        session,
        &project.manifest,
        targets,
        &mut lock,
        base::Upgrade::Keep,
        &args.insecure_registries,
    )?;
    lock.write(&project.root().join(FILE_NAME))?;
    Ok(lock)
}

/// What every registry and engine is known to take.
const MAX_LAYER_SIZE: u64 = 2 << 30;

/// How layers are compressed: what the command line says, else what the project says, else gzip.
pub fn form(manifest: &Manifest, asked: Option<&str>) -> Result<Form, Failure> {
    let wrong = |source: &str, error| Failure::usage(format!("{source}: {error}"));
    match (asked, &manifest.config.image.compression) {
        (Some(text), _) => text
            .parse()
            .map_err(|error: UnknownForm| wrong("--compression", error)),
        (None, Some(text)) => {
            let parsed = text.value.parse();
            parsed.map_err(|error: UnknownForm| Failure::new(format!("[image] compression: {error}")))
        }
        (None, None) => Ok(Form::default()),
    }
}

/// What goes in for one platform, and how it starts.
pub fn plan(
    project: &Project,
    lock: &Lock,
    platform: Platform,
    args: &Args,
    session: &Session,
) -> Result<Plan, Failure> {
    let base = match &lock.mlrails.base {
        Some(table) => Base::from_table(table)?,
        None => return Err(Failure::new("the lock has no base")),
    };
    let target = targets::target(platform, base.python(), base.glibc()).ok_or_else(|| {
        Failure::new("the locked base names no Python or C library that wheels could be chosen for")
    })?;
    let reached = reached(project, lock, &target, &REQUIREMENTS, &args.build, session)?;
    let included = reached.production.included.iter();
    let formats = reached
        .frozen
        .iter()
        .filter_map(|name| Some(reached.files.values.get(name)?.format.clone()));
    let facts = Facts {
        distributions: included.map(|one| one.package.name.clone()).collect(),
        formats: formats.collect(),
        has_entry: project.manifest.config.serve.entry.is_some(),
        root: Some(project.root()),
    };
    let launch = Launch::serving(&base::applying(&project.manifest, &facts)?.environment);
    Ok(Plan {
        platform,
        form: match args.lazy {
            true => Form::Lazy,
            false => form(&project.manifest, args.compression.as_deref())?,
        },
        max_layer_size: project
            .manifest
            .config
            .image
            .max_layer_size
            .unwrap_or(MAX_LAYER_SIZE),
        base,
        production: reached.production,
        launch,
        closure: reached.closure,
        files: reached.files,
        frozen: reached.frozen,
        locked: reached.locked,
    })
}

/// The production set for `target`, and what it was decided from. `runtime` is what our own part of it requires.
pub fn reached(
    project: &Project,
    lock: &Lock,
    target: &Target,
    runtime: &[&str],
    builds: &BuildArgs,
    session: &Session,
) -> Result<Reached, Failure> {
    let files = project.trained()?.unwrap_or_default();
    let frozen = project.frozen(&files);
    let needs = needs(project, lock, &files, &frozen)?;
    let own: Vec<String> = needs.own.iter().cloned().collect();
    let closure = project.closure(&own);
    let mut roots = roots(project, &closure, needs, runtime);
    for (requirement, name) in base::additions(&project.manifest)?.requirements {
        roots.added.push((requirement.name, Reason::Buildpack { name }));
    }
    let bare = without_server(&roots);
    let (production, bare) = match production(lock, target, &roots) {
        Ok(whole) => (whole, production(lock, target, &bare)?),
        Err(errors) => {
            let without: Vec<_> = errors.iter().filter_map(without_wheel).collect();
            if without.len() < errors.len() {
                return Err(errors.into());
            }
            // What no index has a wheel of is built from its source.
            let manifest = &project.manifest;
            let lock = build::for_image(manifest, lock, &without, target, builds, session)?;
            (
                production(&lock, target, &roots)?,
                production(&lock, target, &bare)?,
            )
        }
    };
    let versions = bare.included.into_iter().filter_map(|one| {
        let version = one.package.version.as_ref()?.to_string();
        Some((one.package.name.to_string(), version))
    });
    Ok(Reached {
        locked: versions.collect(),
        production,
        closure,
        files,
        frozen,
    })
}

/// The roots of the pipeline alone, as it runs in processes that are not of the image: without the server, and without the client of a
/// cluster that was kept for `batch --engine`, which compares its own version.
fn without_server(roots: &Roots) -> Roots {
    let mut bare = roots.clone();
    let decoder = wheel::decoder();
    let is_decoder = |name: &PackageName| decoder.iter().any(|text| text.starts_with(name.as_ref()));
    bare.added
        .retain(|(name, why)| !matches!(why, Reason::Runtime) || is_decoder(name));
    bare.kept.retain(|name| !ENGINES.contains(&name.as_ref()));
    bare
}

/// Warns of what serving names without importing it, and does not get.
pub fn named(project: &Project, lock: &Lock, reached: (&Production, &Closure), session: &Session) {
    let (production, closure) = reached;
    let included = |name: &PackageName| production.included.iter().any(|one| one.package.name == *name);
    for unmet in project.unmet(closure, &modules(lock), &included) {
        session
            .printer()
            .warn(&super::super::diagnostics::project::unmet(&unmet));
    }
}

fn without_wheel(error: &PlanError) -> Option<PackageName> {
    match error {
        PlanError::NoWheel { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// Refuses versions under which nobody has seen the golden rows answered as in training.
pub fn proven(project: &Project, plan: &Plan, allow_stale: bool, session: &Session) -> Result<(), Failure> {
    let Some(run) = &project.run else { return Ok(()) };
    let versions = plan
        .production
        .included
        .iter()
        .filter_map(|one| {
            Some((
                one.package.name.to_string(),
                one.package.version.as_ref()?.to_string(),
            ))
        })
        .collect();
    match run.proven_with(plan.production.target.python.minor, &versions) {
        Ok(()) => Ok(()),
        Err((name, then, now)) => {
            let what = format!("the model was trained with {name} {then}, and {now} is locked");
            if allow_stale {
                session.printer().warn(&what);
                return Ok(());
            }
            Err(Failure::new(what).hint(
                "`mlrails sync` and `mlrails run --replay` prove that it answers the same there; `mlrails run` trains again",
            ))
        }
    }
}

/// The modules that the locked distributions provide.
pub fn modules(lock: &Lock) -> Distributions {
    let packages = lock.packages.iter();
    Distributions::locked(packages.map(|package| (&package.name, package.imports.as_slice())))
}

/// What the trained values are made of. Their pickles are read, never loaded.
fn needs(project: &Project, lock: &Lock, files: &FilesRecord, frozen: &[String]) -> Result<Needs, Failure> {
    let own = project.sources.iter().map(|module| module.name.clone()).collect();
    let locked = modules(lock);
    let provided = |module: &str| match locked.of(module).is_empty() {
        false => Some(true),
        true => locked.complete.then_some(false),
    };
    let folder = project.values_folder();
    Ok(values::needs(
        project.root(),
        folder,
        files,
        frozen,
        &own,
        &provided,
    )?)
}

/// Where reachability starts: imports, what the values are made of, what the replay saw, the runtime.
fn roots(project: &Project, closure: &Closure, needs: Needs, runtime: &[&str]) -> Roots {
    let mut imports: Vec<(String, String)> = Vec::new();
    for import in closure.imports.iter().filter(|import| !import.optional) {
        imports.push((import.module.clone(), import.place.to_string()));
    }
    // The runtime makes a table of the request with pandas, and what trained values name is imported with them.
    if let Request::Table(node) = &project.cut.request {
        let node = project.graph.node(*node);
        imports.push((
            "pandas".to_owned(),
            format!("the table `{}` of the request", node.name),
        ));
    }
    imports.extend(needs.others);
    let replayed = project
        .run
        .iter()
        .flat_map(|run| {
            run.serving
                .get("modules")
                .and_then(|modules| modules.as_array())
                .cloned()
                .unwrap_or_default()
        })
        .filter_map(|module| module.as_str().map(str::to_owned))
        .collect();
    let declared = project
        .manifest
        .pyproject
        .all_declared()
        .map(|declared| declared.requirement.clone())
        .collect();
    let keep = &project.manifest.config.dependencies.keep;
    let kept = keep.iter().filter_map(|name| name.value.parse().ok()).collect();
    // What MLflow loads by itself may import anything that it was logged with: its code is in a pickle.
    let logged = project
        .model()
        .filter(|model| model.flavour.is_whole())
        .into_iter()
        .flat_map(|_| &project.manifest.pyproject.dependencies)
        .map(|declared| (declared.requirement.name.clone(), Reason::Logged));
    let added = runtime
        .iter()
        .filter_map(|requirement| crate::python::requirement::parse(requirement).ok())
        .map(|requirement| (requirement.name, Reason::Runtime))
        .chain(logged)
        .collect();
    Roots {
        imports,
        declared,
        kept,
        replayed,
        added,
    }
}

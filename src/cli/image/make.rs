//! The layers of one platform's image, lowest first: base, wheels, runtime, bytecode, values, record, code.
//!
//! Whatever the store has is neither downloaded nor made: recipes follow from the lock alone, so wheels are fetched and
//! opened only for layers that are missing.

use super::decide::Plan;
use super::{Failure, Session};
use crate::cli::fetch;
use crate::debian::BaseFiles;
use crate::digest::Digest;
use crate::layers::recipe::{PREFIX, Recipe};
use crate::layers::sums::{Sum, Sums};
use crate::layers::{self, Ingredients, MadeLayer, Origin, group, install, pipeline};
use crate::lock::File;
use crate::lock::base::Base;
use crate::project::Project;
use crate::project::settings::Overrides;
use crate::project::source::graph::Half;
use crate::python::target::PythonVersion;
use crate::serving::{self, render, runtime};
use crate::tree::PLAIN;

/// How many layers are ours; what is left of an engine's 127 is the base's.
const BUDGET: usize = 60;
/// Ours besides the wheels': runtime, bytecode, values, record, code.
const OTHERS: usize = 5;

/// All layers, each finished.
pub fn layers(
    project: &Project,
    plan: &Plan,
    bytecode: bool,
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    let python: PythonVersion = plan.production.target.python.minor_only();
    // First what is made in no time: a mistake there is told before anything is downloaded.
    let (environment, own) = (environment(plan, python, session)?, own(project, plan, session)?);
    // The three that take long wait for different things: for the network, for a decoder, for an interpreter.
    let store = session.store()?;
    let files = match &plan.base {
        Base::Debian(debian) => Some(BaseFiles::new(&store, debian, plan.platform.name())),
        Base::Registry(_) => None,
    };
    let (base, wheels, bytecode) = std::thread::scope(|threads| {
        let base = threads.spawn(|| base(project, plan, files.as_ref(), session));
        let bytecode = threads.spawn(|| match bytecode {
            true => super::bytecode::layer(project, plan, files.as_ref(), session),
            false => Ok(None),
        });
        let wheels = wheels(project, plan, python, session);
        (joined(base), wheels, joined(bytecode))
    });
    let mut made = vec![base?];
    made.extend(wheels?);
    made.push(environment);
    made.extend(bytecode?);
    made.extend(own);
    Ok(made)
}

/// What a thread came to; its panic is this one's.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The environment's frame and the runtime in it.
fn environment(plan: &Plan, python: PythonVersion, session: &Session) -> Result<MadeLayer, Failure> {
    let mut tree = install::venv_tree(&plan.base.python_path(), python)?;
    let site_packages = format!("{PREFIX}/{}", install::Scheme::image(python).site_packages());
    tree.merge(pipeline::runtime(&site_packages, runtime::FILES)?)?;
    let store = session.store()?;
    Ok(layers::layer_from_tree(
        &store,
        &tree,
        0,
        "environment and serving runtime",
    )?)
}

/// The project's own: trained values, the record of the run, code.
fn own(project: &Project, plan: &Plan, session: &Session) -> Result<[MadeLayer; 3], Failure> {
    let store = session.store()?;
    let epoch = super::describe::epoch()?;
    pipeline::check_values(project.root(), &plan.files, &plan.frozen)?;
    let values_key = pipeline::values_key(&plan.files, &plan.frozen, epoch);
    let values = layers::keyed_layer(&store, values_key, epoch, "trained values", || {
        Ok::<_, Failure>(pipeline::values(project.root(), &plan.files, &plan.frozen)?)
    })?;
    let record = layers::layer_from_tree(
        &store,
        &pipeline::run_record(project.root())?,
        epoch,
        "record of the run",
    )?;
    let settings = project.resolve(Half::Serving, &Overrides::from_process(None, Vec::new()))?;
    let app = serving::app(project, &settings, &plan.files, serving::openapi::of(project))?;
    let (shipped, _) = project.shipped(&plan.closure)?;
    let mut code = pipeline::code(&shipped)?;
    for (path, bytes) in render::files(&app, "artifacts") {
        code.insert_file(&format!("{}/{path}", pipeline::APP), bytes, PLAIN)?;
    }
    let code = layers::layer_from_tree(&store, &code, epoch, "project code")?;
    Ok([values, record, code])
}

fn base(
    project: &Project,
    plan: &Plan,
    files: Option<&BaseFiles<'_>>,
    session: &Session,
) -> Result<MadeLayer, Failure> {
    match (&plan.base, files) {
        (Base::Registry(base), _) => Err(Failure::new(format!(
            "the base {} cannot be built on yet",
            base.reference
        ))),
        (Base::Debian(_), None) => Err(Failure::new("the base has no files for this platform")),
        (Base::Debian(debian), Some(files)) => {
            if let Some(layer) = layers::base::stored(files.store, debian, files.platform)? {
                return Ok(layer);
            }
            fetch::base(&project.manifest, files, session)?;
            Ok(layers::base::layer(files)?)
        }
    }
}

/// The wheels' layers: heavy ones alone, the tail together.
fn wheels(
    project: &Project,
    plan: &Plan,
    python: PythonVersion,
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    let (store, reporter) = (session.store()?, session.reporter());
    let included = &plan.production.included;
    let items: Vec<group::Item<'_>> = included
        .iter()
        .map(|one| group::Item {
            name: one.package.name.as_ref(),
            size: one.wheel.size.unwrap_or_default(),
        })
        .collect();
    let groups = group::group(&items, BUDGET - OTHERS);
    let keys: Vec<Digest> = groups
        .iter()
        .map(|group| Recipe::new(python, group.iter().map(|index| included[*index].wheel.digest)).key())
        .collect();
    let stored: Vec<Option<MadeLayer>> = keys.iter().map(|key| layers::stored_layer(&store, key)).collect();
    let all: Vec<Digest> = included.iter().map(|one| one.wheel.digest).collect();
    if stored.iter().all(Option::is_some) && layers::known_apart(&store, python, &all) {
        return Ok(stored.into_iter().flatten().collect());
    }
    // Collisions are between any two, so all are opened; the bytes of those that were opened before are not needed.
    let files: Vec<&File> = included.iter().map(|one| &one.wheel).collect();
    fetch::files(&project.manifest, &files, session)?;
    let opened = files
        .iter()
        .map(|file| layers::open_wheel(&store, &file.name, &file.digest))
        .collect::<Result<Vec<_>, _>>()?;
    layers::refuse_collisions(&store, python, &opened.iter().collect::<Vec<_>>())?;
    let recipes: Vec<Ingredients<'_>> = groups
        .iter()
        .map(|group| Ingredients::new(python, group.iter().map(|index| &opened[*index]).collect()))
        .collect();
    Ok(layers::layers_from_wheels(&store, &recipes, &*reporter)?)
}

/// Adds what was made to mlrails.sum; with `locked`, refuses what it does not vouch for.
pub fn vouch(made: &[MadeLayer], locked: bool, sums: &mut Sums) -> Result<(), Failure> {
    for layer in made {
        let Some(key) = layer.key else { continue };
        if locked && sums.vouched(&key).is_none() && layer.origin != Origin::Made {
            return Err(Failure::new(format!(
                "mlrails.sum does not vouch for the layer {}",
                layer.title
            ))
            .hint("build once without --locked and commit mlrails.sum"));
        }
        let sum = Sum {
            digest: layer.layer.digest,
            diff_id: layer.layer.diff_id,
            size: layer.layer.size,
            title: layer.title.clone(),
        };
        sums.add(key, sum)?;
    }
    Ok(())
}

//! The layers of one platform's image, lowest first: base, wheels, runtime, bytecode, values, record, code.
//!
//! Whatever the store has is neither downloaded nor made: recipes follow from the lock alone, so wheels are fetched and
//! opened only for layers that are missing.

use super::decide::Plan;
use super::{Failure, Session};
use crate::cli::{base as locked_base, fetch};
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
    let store = session.store()?;
    let python: PythonVersion = plan.production.target.python.minor_only();
    let mut made = vec![base(project, plan, session)?];
    made.extend(wheels(project, plan, python, session)?);

    let mut tree = install::venv_tree(&plan.base.python_path(), python)?;
    let site_packages = format!("{PREFIX}/{}", install::Scheme::image(python).site_packages());
    tree.merge(pipeline::runtime(&site_packages, runtime::FILES)?)?;
    made.push(layers::layer_from_tree(
        &store,
        &tree,
        0,
        "environment and serving runtime",
    )?);
    if bytecode && let Some(layer) = super::bytecode::layer(project, plan, session)? {
        made.push(layer);
    }

    let epoch = super::describe::epoch()?;
    pipeline::check_values(project.root(), &plan.files, &plan.frozen)?;
    let values_key = pipeline::values_key(&plan.files, &plan.frozen, epoch);
    made.push(layers::keyed_layer(
        &store,
        values_key,
        epoch,
        "trained values",
        || Ok::<_, Failure>(pipeline::values(project.root(), &plan.files, &plan.frozen)?),
    )?);
    made.push(layers::layer_from_tree(
        &store,
        &pipeline::run_record(project.root())?,
        epoch,
        "record of the run",
    )?);
    let settings = project.resolve(Half::Serving, &Overrides::from_process(None, Vec::new()))?;
    let app = serving::app(project, &settings, &plan.files, serving::openapi::of(project))?;
    let (shipped, _) = project.shipped(&plan.closure)?;
    let mut code = pipeline::code(&shipped)?;
    for (path, bytes) in render::files(&app, "artifacts") {
        code.insert_file(&format!("{}/{path}", pipeline::APP), bytes, PLAIN)?;
    }
    made.push(layers::layer_from_tree(&store, &code, epoch, "project code")?);
    Ok(made)
}

fn base(project: &Project, plan: &Plan, session: &Session) -> Result<MadeLayer, Failure> {
    let (store, reporter) = (session.store()?, session.reporter());
    match &plan.base {
        Base::Debian(debian) => {
            let platform = plan.platform.name();
            if let Some(layer) = layers::base::stored(&store, debian, platform)? {
                return Ok(layer);
            }
            let archive = locked_base::archive(&project.manifest)?;
            let client = session.client(&[])?;
            session.block_on(crate::debian::fetch(
                &client,
                &store,
                &archive.mirror,
                debian,
                platform,
                &*reporter,
            ))??;
            Ok(layers::base::layer(&store, debian, platform)?)
        }
        Base::Registry(base) => Err(Failure::new(format!(
            "the base {} cannot be built on yet",
            base.reference
        ))),
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

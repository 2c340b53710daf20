//! The layers of one platform's image, lowest first: base, wheels, runtime, bytecode, values, record, code.
//!
//! Whatever the store or a previous image has is neither downloaded nor made: recipes follow from the lock alone, so wheels are fetched and
//! opened only for layers that are missing.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::ahead::Ahead;
use super::decide::Plan;
use super::previous::Network;
use super::{Failure, Session, bytecode};
use crate::base_image;
use crate::cli::fetch;
use crate::debian::BaseFiles;
use crate::digest::Digest;
use crate::layers::pipeline::PipelineError;
use crate::layers::recipe::{Form, PREFIX, Part, Recipe};
use crate::layers::reuse::{self, Previous};
use crate::layers::sums::{Sum, Sums};
use crate::layers::{self, MadeLayer, Ordered, Origin, group, install, pipeline};
use crate::lock::File;
use crate::lock::base::Base;
use crate::oci::manifest::MOST_LAYERS;
use crate::oci::media::Family;
use crate::oci::{Image, Layer, LayerBytes};
use crate::project::Project;
use crate::project::settings::Overrides;
use crate::project::source::graph::Half;
use crate::python::target::PythonVersion;
use crate::python::wheel::Wheel;
use crate::serving::{self, render, runtime};
use crate::store::Store;
use crate::tree::PLAIN;

/// How many layers are ours; what is left of an engine's 127 is the base's.
const BUDGET: usize = 60;
/// Ours besides those of wheels and their bytecode: environment, the library's bytecode, values, record, code.
const OTHERS: usize = 5;

/// What is known of the keyed layers before anything is made: from the lock, files.json and run.json alone.
struct Keys {
    base: Option<Digest>,
    /// Of the plan's distributions, one layer each.
    groups: Vec<Vec<usize>>,
    wheels: Vec<WheelsKey>,
    bytecode: Vec<bytecode::Part>,
    values: Digest,
}

/// A layer of wheels: of which group, the whole of it or a part.
struct WheelsKey {
    key: Digest,
    group: usize,
    part: Option<Part>,
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Digest> {
        let bytecode = self.bytecode.iter().map(|part| &part.key);
        self.base
            .iter()
            .chain(self.wheels.iter().map(|one| &one.key))
            .chain(bytecode)
            .chain([&self.values])
    }
}

fn keys(
    project: &Project,
    plan: &Plan,
    with_bytecode: bool,
    below: &Below<'_>,
    session: &Session,
) -> Result<Keys, Failure> {
    let files = below.files();
    let included = &plan.production.included;
    let python = plan.production.target.python.minor_only();
    let items: Vec<group::Item<'_>> = included
        .iter()
        .map(|one| group::Item {
            name: one.package.name.as_ref(),
            size: one.wheel.size.unwrap_or_default(),
        })
        .collect();
    // Each layer of wheels may have one of bytecode beside it.
    let budget = BUDGET.min(MOST_LAYERS.saturating_sub(below.layers()));
    let groups = group::group(&items, budget.saturating_sub(OTHERS).max(2) / 2);
    let wheels = groups
        .iter()
        .enumerate()
        .flat_map(|(number, group)| {
            let wheels = group.iter().map(|index| included[*index].wheel.digest);
            let recipe = Recipe::new(python, wheels).in_form(plan.form);
            // Only a wheel that is alone is divided: the tail's are small.
            let parts = match &group[..] {
                [one] => Part::all(items[*one].size, plan.max_layer_size),
                _ => vec![None],
            };
            parts.into_iter().map(move |part| WheelsKey {
                key: recipe.clone().in_part(part).key(),
                group: number,
                part,
            })
        })
        .collect();
    let bytecode = match with_bytecode {
        true => bytecode::parts(project, plan, &groups).unwrap_or_else(|why| {
            session.printer().say(&format!("no bytecode layers: {why}"));
            Vec::new()
        }),
        false => Vec::new(),
    };
    let base = files
        .map(|files| layers::base::key(files.base, files.platform))
        .transpose()?
        .map(|key| plan.form.key(key));
    Ok(Keys {
        base,
        groups,
        wheels,
        bytecode,
        values: plan.form.key(pipeline::values_key(
            &plan.files,
            &plan.frozen,
            super::describe::epoch()?,
        )),
    })
}

/// What all our layers stand on.
pub(super) enum Below<'a> {
    Debian(BaseFiles<'a>),
    /// An image of the registry's, and its name.
    Registry(Box<Image>, &'a str),
}

impl<'a> Below<'a> {
    fn new(
        plan: &'a Plan,
        store: &'a Store,
        network: &Network<'_>,
        session: &Session,
    ) -> Result<Self, Failure> {
        match &plan.base {
            Base::Debian(debian) => Ok(Self::Debian(BaseFiles::new(store, debian, plan.platform.name()))),
            Base::Registry(base) => {
                let registry = network.registry()?;
                let image = base_image::locked(&registry, store, base, plan.platform.name());
                Ok(Self::Registry(
                    Box::new(session.block_on(image)??),
                    &base.reference,
                ))
            }
        }
    }

    fn files(&self) -> Option<&BaseFiles<'a>> {
        match self {
            Self::Debian(files) => Some(files),
            Self::Registry(..) => None,
        }
    }

    fn layers(&self) -> usize {
        match self {
            Self::Debian(_) => 1,
            Self::Registry(image, _) => image.layers.len(),
        }
    }

    fn family(&self) -> Family {
        match self {
            Self::Debian(_) => Family::Oci,
            Self::Registry(image, _) => image.family(),
        }
    }
}

/// Layers that need not be made.
struct Past<'a> {
    store: &'a Store,
    form: Form,
    previous: Vec<Previous>,
    /// In a registry, and in no image that was read.
    kept: BTreeMap<Digest, MadeLayer>,
    sums: &'a Sums,
}

impl Past<'_> {
    /// This machine's own copy first: it needs no network.
    fn layer(&self, key: &Digest) -> Option<MadeLayer> {
        layers::stored_layer(self.store, key)
            .or_else(|| reuse::layer(&self.previous, key, self.form, self.sums))
            .or_else(|| self.kept.get(key).cloned())
    }
}

/// All layers, each finished, and whose media types they are described with.
pub fn layers(
    project: &Project,
    plan: &Plan,
    (network, ahead): (&Network<'_>, &Ahead<'_>),
    sums: &Sums,
    session: &Session,
) -> Result<(Vec<MadeLayer>, Family), Failure> {
    let python: PythonVersion = plan.production.target.python.minor_only();
    let store = session.store()?;
    let below = Below::new(plan, &store, network, session)?;
    let keys = keys(project, plan, network.with_bytecode(), &below, session)?;
    // First what is made in no time: a mistake there is told before anything is downloaded.
    let (environment, [record, code]) = (environment(plan, python, session)?, own(project, plan, session)?);
    let missing: Vec<Digest> = keys
        .all()
        .filter(|key| layers::stored_layer(&store, key).is_none())
        .copied()
        .collect();
    let mut past = Past {
        store: &store,
        form: plan.form,
        previous: Vec::new(),
        kept: BTreeMap::new(),
        sums,
    };
    if !missing.is_empty() {
        past.previous = network.previous(project, plan, sums)?;
        let offered = |key: &&Digest| past.previous.iter().any(|image| image.has(key));
        let elsewhere = missing.iter().filter(|key| !offered(key));
        past.kept = network.kept(elsewhere, plan.form, sums)?.into_iter().collect();
    }
    let values = values(project, plan, keys.values, &past)?;
    // Nothing leaves before images that were tampered with are refused.
    for layer in [&environment, &values, &record, &code] {
        ahead.send(layer, sums);
    }
    // The three that take long wait for different things: for the network, for a decoder, for an interpreter.
    let (base, wheels, bytecode) = std::thread::scope(|threads| {
        let base = threads.spawn(|| {
            let layers = base(project, &below, &past, session)?;
            layers.iter().for_each(|layer| ahead.send(layer, sums));
            Ok::<_, Failure>(layers)
        });
        let bytecode = threads.spawn(|| {
            let found = keys.bytecode.iter().map(|part| past.layer(&part.key)).collect();
            let parts = (&keys.bytecode[..], found);
            let layers = bytecode::layers(project, plan, parts, &below, network, session)?;
            layers.iter().for_each(|layer| ahead.send(layer, sums));
            Ok::<_, Failure>(layers)
        });
        let wheels = wheels(project, plan, &keys, (&past, ahead), session);
        (joined(base), wheels, joined(bytecode))
    });
    let mut made = base?;
    made.extend(wheels?);
    made.push(environment);
    made.extend(bytecode?);
    made.extend([values, record, code]);
    Ok((made, below.family()))
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
        plan.form,
        0,
        "environment and serving runtime",
    )?)
}

/// The trained values. Where a previous image has them, they need not be on this machine.
fn values(project: &Project, plan: &Plan, key: Digest, past: &Past<'_>) -> Result<MadeLayer, Failure> {
    let found = past.layer(&key);
    match (pipeline::check_values(project, &plan.files, &plan.frozen), found) {
        (Err(PipelineError::Missing { .. }), Some(layer))
            if matches!(layer.origin, Origin::Reused { .. }) =>
        {
            Ok(layer)
        }
        (Err(error), _) => Err(error.into()),
        (Ok(()), Some(layer)) => Ok(layer),
        (Ok(()), None) => {
            let epoch = super::describe::epoch()?;
            layers::keyed_layer(past.store, (key, plan.form), epoch, "trained values", || {
                Ok(pipeline::values(project, &plan.files, &plan.frozen)?)
            })
        }
    }
}

/// The project's own that is made at every build: the record of the run, the code.
fn own(project: &Project, plan: &Plan, session: &Session) -> Result<[MadeLayer; 2], Failure> {
    let store = session.store()?;
    let epoch = super::describe::epoch()?;
    let record = layers::layer_from_tree(
        &store,
        &pipeline::run_record(project, &plan.files)?,
        plan.form,
        epoch,
        "record of the run",
    )?;
    let settings = project.resolve(Half::Serving, &Overrides::from_process(None, Vec::new()))?;
    let mut app = serving::app(project, &settings, &plan.files, serving::openapi::of(project))?;
    app.locked = plan.locked.clone();
    let (shipped, _) = project.shipped(&plan.closure)?;
    let mut code = pipeline::code(&shipped)?;
    for (path, bytes) in render::files(&app, "artifacts") {
        code.insert_file(&format!("{}/{path}", pipeline::APP), bytes, PLAIN)?;
    }
    let code = layers::layer_from_tree(&store, &code, plan.form, epoch, "project code")?;
    Ok([record, code])
}

fn base(
    project: &Project,
    below: &Below<'_>,
    past: &Past<'_>,
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    match below {
        Below::Registry(image, name) => Ok(image
            .layers
            .iter()
            .map(|layer| of_base(layer, name, past))
            .collect()),
        Below::Debian(files) => {
            if let Some(layer) = past.layer(&past.form.key(layers::base::key(files.base, files.platform)?)) {
                return Ok(vec![layer]);
            }
            fetch::base(&project.manifest, files, session)?;
            Ok(vec![layers::base::layer(files, past.form)?])
        }
    }
}

/// A layer of the base `name`. Its digest is its name, so where an image that was read has it, it need not travel.
fn of_base(layer: &Layer, name: &str, past: &Past<'_>) -> MadeLayer {
    let mut layer = layer.clone();
    if let LayerBytes::Remote(repositories) = &mut layer.bytes {
        let holders = past
            .previous
            .iter()
            .filter_map(|image| image.holds(&layer.digest));
        repositories.extend(holders.map(str::to_owned));
    }
    MadeLayer {
        key: None,
        origin: Origin::Base {
            from: name.to_owned(),
        },
        uncompressed_size: 0,
        title: layer.title(),
        layer,
    }
}

/// The wheels' layers: heavy ones alone, the tail together.
fn wheels(
    project: &Project,
    plan: &Plan,
    keys: &Keys,
    (past, ahead): (&Past<'_>, &Ahead<'_>),
    session: &Session,
) -> Result<Vec<MadeLayer>, Failure> {
    let (store, reporter) = (past.store, session.reporter());
    let python = plan.production.target.python.minor_only();
    let included = &plan.production.included;
    let found: Vec<Option<MadeLayer>> = keys.wheels.iter().map(|one| past.layer(&one.key)).collect();
    let sums = past.sums;
    found.iter().flatten().for_each(|layer| ahead.send(layer, sums));
    let all: Vec<Digest> = included.iter().map(|one| one.wheel.digest).collect();
    // What is in one image together was found apart when that was made.
    let apart = || {
        layers::known_apart(store, python, &all) || past.previous.iter().any(|image| image.has_wheels(&all))
    };
    if found.iter().all(Option::is_some) && apart() {
        return Ok(found.into_iter().flatten().collect());
    }
    // Collisions are between any two, so all are opened; the bytes of those that were opened before are not needed.
    let files: Vec<&File> = included.iter().map(|one| &one.wheel).collect();
    let opened: Vec<OnceLock<Wheel>> = files.iter().map(|_| OnceLock::new()).collect();
    let missing: Vec<Ordered> = keys
        .wheels
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(one, _)| {
            let wheels = keys.groups[one.group].clone();
            let digests = wheels.iter().map(|index| files[*index].digest);
            let size: u64 = wheels.iter().filter_map(|index| files[*index].size).sum();
            Ordered {
                recipe: Recipe::new(python, digests).in_form(plan.form).in_part(one.part),
                wheels,
                size: size / one.part.map_or(1, |part| part.of),
            }
        })
        .collect();
    let feed = |arrived: &mut dyn FnMut(&[usize]) -> bool| {
        arriving(project, &files, &opened, session, &mut |places| arrived(places))
    };
    let each = |layer: &MadeLayer| ahead.send(layer, sums);
    let mut made = layers::layers_from_wheels(store, &opened, &missing, feed, &each, &*reporter)?.into_iter();
    let opened: Vec<&Wheel> = opened.iter().filter_map(OnceLock::get).collect();
    layers::refuse_collisions(store, python, &opened)?;
    Ok(found
        .into_iter()
        .filter_map(|found| found.or_else(|| made.next()))
        .collect())
}

/// Brings `files` here and opens each as it comes, while others are still on their way.
fn arriving(
    project: &Project,
    files: &[&File],
    opened: &[OnceLock<Wheel>],
    session: &Session,
    arrived: &mut dyn FnMut(&[usize]) -> bool,
) -> Result<(), Failure> {
    use rayon::prelude::*;
    let store = session.store()?;
    let (sender, places) = std::sync::mpsc::channel::<Vec<usize>>();
    std::thread::scope(|threads| {
        let fetching = threads.spawn(move || {
            fetch::arriving(&project.manifest, files, session, &mut |places| {
                sender.send(places).is_ok()
            })
        });
        for places in &places {
            places.par_iter().try_for_each(|place| {
                let file = files[*place];
                let wheel = layers::open_wheel(&store, &file.name, &file.digest)?;
                opened[*place].get_or_init(|| wheel);
                Ok::<_, Failure>(())
            })?;
            if !arrived(&places) {
                break;
            }
        }
        // Nobody listens any more: what is still on its way is not waited for.
        drop(places);
        joined(fetching)
    })
}

/// Adds what was made to mlrails.sum; with `locked`, refuses what it does not vouch for. What was reused unproven is said, and not
/// added: only what was made from bytes is.
pub fn vouch(made: &[MadeLayer], locked: bool, sums: &mut Sums, session: &Session) -> Result<(), Failure> {
    for layer in made {
        let Some(key) = layer.key else { continue };
        if locked && sums.vouched(&key).is_none() && layer.origin != Origin::Made {
            return Err(Failure::new(format!(
                "mlrails.sum does not vouch for the layer {}",
                layer.title
            ))
            .hint(
                "build once without --locked and commit mlrails.sum; --no-reuse makes it from its wheels",
            ));
        }
        if let Origin::Reused { from, vouched } = &layer.origin {
            if !vouched {
                session.printer().warn(&format!(
                    "the layer {} is reused from {from} unproven: mlrails.sum does not know it",
                    layer.title
                ));
            }
            continue;
        }
        let sum = Sum {
            digest: layer.layer.digest,
            diff_id: layer.layer.diff_id,
            size: layer.layer.size,
            uncompressed_size: layer.uncompressed_size,
            title: layer.title.clone(),
        };
        sums.add(key, sum)?;
    }
    Ok(())
}

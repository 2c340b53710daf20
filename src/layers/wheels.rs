//! Layers of wheels: opened and validated once, found apart once, spliced once per recipe.
//!
//! It takes wheels that the store has; it gives layers whose blobs are in the store, each under its recipe's key.

use std::fs::File;
use std::sync::OnceLock;

use super::install::{self, Content, Placed, Scheme};
use super::recipe::{Part, Recipe};
use super::schedule;
use super::splice::{SpliceError, Splicer, Threads, splice};
use super::{LAYER_RECORD, LayerError, LayerRecord, MadeLayer, Origin, stored_layer};
use crate::digest::Digest;
use crate::python::wheel::{self, ContentCheck, ContentError, Wheel};
use crate::reporter::{Reporter, Unit};
use crate::store::{Store, StoreError};
use crate::tree::{EXECUTABLE, PLAIN};

/// Validation is repeated when its rules change: the number is part of a wheel's record.
pub(super) const WHEEL_RECORD: &str = "wheel-1";
pub(super) const COLLISION_RECORD: &str = "apart-1";
/// Wheels whose every file was once what RECORD says. A layer that is made again from one checks size and CRC: what may
/// have happened since is damage, which is no attempt to deceive.
pub(super) const PROVEN_RECORD: &str = "proven-1";

/// The validated wheel `file_name`, whose bytes the store has: hashed and parsed the first time, from its record later.
pub fn open_wheel(store: &Store, file_name: &str, digest: &Digest) -> Result<Wheel, LayerError> {
    let key = format!("{file_name} {digest}");
    if let Some(wheel) = known_wheel(store, file_name, digest) {
        return Ok(wheel);
    }
    let file = store.verified(digest)?.ok_or_else(|| LayerError::Missing {
        wheel: file_name.to_owned(),
    })?;
    let wheel = wheel::validate(file_name, *digest, &file)?;
    store.keep_record(WHEEL_RECORD, &key, &wheel)?;
    Ok(wheel)
}

/// What [`open_wheel`] found, if it ever did; the wheel may be gone since.
pub fn known_wheel(store: &Store, file_name: &str, digest: &Digest) -> Option<Wheel> {
    store.record(WHEEL_RECORD, &format!("{file_name} {digest}"))
}

/// The bytes of a wheel. They are not hashed here: whoever reads an entry checks it against the record.
pub fn wheel_file(store: &Store, wheel: &Wheel) -> Result<File, LayerError> {
    File::open(store.blob_path(&wheel.digest)).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => LayerError::Missing {
            wheel: wheel.file_name.clone(),
        },
        _ => LayerError::Read {
            wheel: wheel.file_name.clone(),
            source,
        },
    })
}

/// A wheel's bytes and the places of its files. Some are read for it (scripts, RECORD): if they are not what was promised, a copy in the
/// cache that was damaged since is told from a wheel that never was right.
pub(super) fn placed(
    store: &Store,
    wheel: &Wheel,
    scheme: &Scheme,
) -> Result<(File, Vec<Placed>), LayerError> {
    let file = wheel_file(store, wheel)?;
    match install::place(wheel, &file, scheme) {
        Ok(placed) => Ok((file, placed)),
        Err(error) if store.verified(&wheel.digest)?.is_some() => Err(error.into()),
        Err(_) => Err(LayerError::Damaged {
            wheel: wheel.file_name.clone(),
        }),
    }
}

/// A recipe whose wheels are at hand.
#[derive(Debug, Clone)]
pub struct Ingredients<'a> {
    pub recipe: Recipe,
    /// In the recipe's order.
    pub wheels: Vec<&'a Wheel>,
}

impl<'a> Ingredients<'a> {
    pub fn new(python: crate::python::target::PythonVersion, wheels: Vec<&'a Wheel>) -> Self {
        Self {
            recipe: Recipe::new(python, wheels.iter().map(|wheel| wheel.digest)),
            wheels,
        }
    }
}

/// A layer that is to be made when its wheels are there.
#[derive(Debug, Clone)]
pub struct Ordered {
    pub recipe: Recipe,
    /// In the recipe's order, by their place among all wheels.
    pub wheels: Vec<usize>,
    /// About how large it is, in bytes of any kind.
    pub size: u64,
}

/// One layer for each of `ordered`, in their order; those that are not in the store are made, at once where there are processors, and
/// while other wheels are still arriving: `feed` opens wheels into `wheels` and tells their places, and is answered whether to go on. The
/// bytes of those that were told must be in the store. `each` is told of every layer as soon as it is there.
pub fn layers_from_wheels<E: From<LayerError> + Send>(
    store: &Store,
    wheels: &[OnceLock<Wheel>],
    ordered: &[Ordered],
    feed: impl FnOnce(&mut dyn FnMut(&[usize]) -> bool) -> Result<(), E>,
    each: &(dyn Fn(&MadeLayer) + Sync),
    reporter: &dyn Reporter,
) -> Result<Vec<MadeLayer>, E> {
    let sizes: Vec<u64> = ordered.iter().map(|one| one.size).collect();
    let feed = |ready: &dyn Fn(&[usize]) -> bool| {
        let mut waiting: Vec<usize> = (0..ordered.len()).collect();
        feed(&mut |_| {
            let is_there = |wheel: &usize| wheels[*wheel].get().is_some();
            let (complete, others) = std::mem::take(&mut waiting)
                .into_iter()
                .partition(|index| ordered[*index].wheels.iter().all(is_there));
            waiting = others;
            ready(&complete)
        })
    };
    let made = schedule::run(&sizes, feed, |index, threads| {
        let Ordered {
            recipe, wheels: of, ..
        } = &ordered[index];
        let ingredients = Ingredients {
            recipe: recipe.clone(),
            wheels: of.iter().filter_map(|wheel| wheels[*wheel].get()).collect(),
        };
        let made = layer(store, &ingredients, threads, reporter)?;
        each(&made);
        Ok(made)
    })?;
    // What was not told of was not there, and whoever feeds has said why.
    Ok(made.into_iter().flatten().collect())
}

/// The layer of one recipe: from the store, else made and kept there.
pub fn layer_from_wheels(
    store: &Store,
    ingredients: &Ingredients<'_>,
    reporter: &dyn Reporter,
) -> Result<MadeLayer, LayerError> {
    layer(store, ingredients, Threads::Two, reporter)
}

fn layer(
    store: &Store,
    ingredients: &Ingredients<'_>,
    threads: Threads,
    reporter: &dyn Reporter,
) -> Result<MadeLayer, LayerError> {
    let key = ingredients.recipe.key();
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    // Another process that wants the same layer waits, and finds it.
    let _guard = store.lock(&format!("layer {key}"))?;
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    let mut title = title(&ingredients.wheels);
    if let Some(Part { index, of }) = ingredients.recipe.part {
        title = format!("{title}, part {} of {of}", index + 1);
    }
    let total = ingredients.wheels.iter().map(|wheel| wheel.expanded_size()).sum();
    let task = reporter.start(&format!("layer {title}"), Unit::Bytes, Some(total));
    let outcome = make(store, ingredients, (title, threads), &|count| {
        reporter.advance(task, count)
    });
    reporter.finish(task);
    let record = outcome?;
    store.keep_record(LAYER_RECORD, &key.to_string(), &record)?;
    Ok(record.into_layer(store, Some(key), Origin::Made))
}

fn title(wheels: &[&Wheel]) -> String {
    match wheels {
        [] => "nothing".to_owned(),
        [one] => one.label(),
        [first, rest @ ..] => format!("{} and {} more", first.label(), rest.len()),
    }
}

/// A wheel with its bytes and the places of its files.
struct Opened<'a> {
    wheel: &'a Wheel,
    file: File,
    placed: Vec<Placed>,
    proven: bool,
}

fn make(
    store: &Store,
    ingredients: &Ingredients<'_>,
    (title, threads): (String, Threads),
    done: &dyn Fn(u64),
) -> Result<LayerRecord, LayerError> {
    let scheme = Scheme::image(ingredients.recipe.python);
    let mut opened = Vec::with_capacity(ingredients.wheels.len());
    for wheel in &ingredients.wheels {
        let (file, mut placed) = placed(store, wheel, &scheme)?;
        if let Some(part) = ingredients.recipe.part {
            placed = within(part, wheel, placed);
        }
        opened.push(Opened {
            wheel,
            file,
            placed,
            proven: store.record(PROVEN_RECORD, &wheel.digest.hex()) == Some(true),
        });
    }
    let prefix = &ingredients.recipe.prefix;
    let mut all = false;
    let form = ingredients.recipe.form;
    let outcome = splice(store.writer()?, form, 0, threads, |splicer| {
        all = fill(splicer, prefix, &opened, done)?;
        Ok(())
    });
    let (spliced, writer) = match outcome {
        Ok(done) => done,
        Err(SpliceError::Entry { wheel, entry, source }) => {
            return Err(blame(store, ingredients, wheel, entry, source)?);
        }
        Err(error) => return Err(error.into()),
    };
    let (digest, size) = writer.commit()?;
    for wheel in opened
        .iter()
        .filter(|one| all && ingredients.recipe.part.is_none() && !one.proven)
        .map(|one| one.wheel)
    {
        store.keep_record(PROVEN_RECORD, &wheel.digest.hex(), &true)?;
    }
    Ok(LayerRecord {
        digest,
        diff_id: spliced.diff_id,
        size,
        uncompressed_size: spliced.tar_size,
        title,
        media_type: form.layer_type(),
        toc: spliced.toc,
    })
}

/// Those of `placed` that are in `part`: by path, so that what belongs together stays together, and about as heavy as the others.
fn within(part: Part, wheel: &Wheel, placed: Vec<Placed>) -> Vec<Placed> {
    let weight = |one: &Placed| match one.content {
        Content::Bytes(_) => one.size,
        Content::Entry(index) => wheel.entries[index].compressed_size,
    };
    let total: u64 = placed.iter().map(&weight).sum::<u64>().max(1);
    let mut order: Vec<usize> = (0..placed.len()).collect();
    order.sort_by(|one, other| placed[*one].path.cmp(&placed[*other].path));
    let mut before = 0;
    let mut inside = vec![false; placed.len()];
    for index in order {
        let weight = weight(&placed[index]);
        // Where its middle lies decides; a weight of 2^60 bytes would still not overflow.
        let middle = u128::from(2 * before + weight) * u128::from(part.of) / (2 * u128::from(total));
        inside[index] = middle.min(u128::from(part.of - 1)) == u128::from(part.index);
        before += weight;
    }
    let mut inside = inside.into_iter();
    placed
        .into_iter()
        .filter(|_| inside.next() == Some(true))
        .collect()
}

/// An entry that is not what was promised: is the wheel so, or has the cache's copy changed since it was validated?
fn blame(
    store: &Store,
    ingredients: &Ingredients<'_>,
    wheel: String,
    entry: String,
    source: ContentError,
) -> Result<LayerError, StoreError> {
    let known = ingredients.wheels.iter().find(|known| known.file_name == wheel);
    if let Some(known) = known
        && store.verified(&known.digest)?.is_none()
    {
        return Ok(LayerError::Damaged { wheel });
    }
    Ok(SpliceError::Entry { wheel, entry, source }.into())
}

/// Folders first, then each wheel's files in the order of their bytes in it. A path that two wheels share is written once. Gives
/// whether every file of every wheel was read.
fn fill(
    splicer: &mut Splicer<'_>,
    prefix: &str,
    opened: &[Opened<'_>],
    done: &dyn Fn(u64),
) -> Result<bool, SpliceError> {
    // Explicit entries for what is above, so that a link in a base does not lead elsewhere.
    for (at, _) in prefix.match_indices('/') {
        splicer.directory(&prefix[..at], EXECUTABLE)?;
    }
    splicer.directory(prefix, EXECUTABLE)?;
    for folder in install::folders(opened.iter().flat_map(|one| &one.placed)) {
        splicer.directory(&format!("{prefix}/{folder}"), EXECUTABLE)?;
    }
    let mut written = std::collections::HashSet::new();
    let mut all = true;
    for Opened {
        wheel,
        file,
        placed,
        proven,
    } in opened
    {
        for one in placed {
            if !written.insert(one.path.as_str()) {
                all = false;
                continue;
            }
            let path = format!("{prefix}/{}", one.path);
            let mode = if one.executable { EXECUTABLE } else { PLAIN };
            match &one.content {
                Content::Bytes(bytes) => splicer.file(&path, mode, bytes)?,
                Content::Entry(index) => {
                    let entry = &wheel.entries[*index];
                    let check = match proven {
                        true => ContentCheck::of_proven(entry),
                        false => ContentCheck::new(entry),
                    };
                    splicer.entry(&path, mode, &wheel.file_name, file, check)?;
                }
            }
            done(one.size);
        }
    }
    Ok(all)
}

/// Whether wheels with these digests were found apart before, so that none needs to be opened for it.
pub fn known_apart(store: &Store, python: crate::python::target::PythonVersion, wheels: &[Digest]) -> bool {
    store.record::<bool>(COLLISION_RECORD, &apart_key(python, wheels.to_vec())) == Some(true)
}

fn apart_key(python: crate::python::target::PythonVersion, mut wheels: Vec<Digest>) -> String {
    wheels.sort();
    Recipe::new(python, wheels).key().to_string()
}

/// Refuses wheels of one image that would overwrite each other's files. What was found apart once is not looked at again.
pub fn refuse_collisions(
    store: &Store,
    python: crate::python::target::PythonVersion,
    wheels: &[&Wheel],
) -> Result<(), LayerError> {
    let key = apart_key(python, wheels.iter().map(|wheel| wheel.digest).collect());
    if store.record::<bool>(COLLISION_RECORD, &key) == Some(true) {
        return Ok(());
    }
    let scheme = Scheme::image(python);
    let places = wheels
        .iter()
        .map(|wheel| Ok(placed(store, wheel, &scheme)?.1))
        .collect::<Result<Vec<_>, LayerError>>()?;
    let installations: Vec<(&Wheel, &[Placed])> = wheels
        .iter()
        .zip(&places)
        .map(|(wheel, places)| (*wheel, &places[..]))
        .collect();
    if let Some(first) = install::collisions(&installations).into_iter().next() {
        return Err(first.into());
    }
    Ok(store.keep_record(COLLISION_RECORD, &key, &true)?)
}

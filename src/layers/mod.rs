//! Layers: bytes that are finished when made, and made once per recipe, ever.
//!
//! It takes wheels that the store has, and trees; it gives [`oci::Layer`](Layer)s whose blobs are in the store. A layer of
//! wheels has a key, its recipe's; a second build finds the record under that key and reads no wheel. Layers of trees are
//! made each time: their bytes are the project's.

pub mod base;
pub mod bytecode;
pub mod environment;
pub mod group;
pub mod install;
pub mod kept;
pub mod pipeline;
pub mod recipe;
pub mod reuse;
pub mod splice;
pub mod sums;
pub mod unpack;

use std::collections::BTreeMap;
use std::fs::File;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::oci::image::LayerType;
use crate::oci::{Layer, LayerBytes};
use crate::python::wheel::{self, ContentCheck, ContentError, Wheel, WheelError};
use crate::reporter::{Reporter, Unit};
use crate::store::{Store, StoreError};
use crate::tree::{EXECUTABLE, Node, PLAIN, Source, Tree};
use install::{Content, InstallError, Placed, Scheme};
use recipe::{Form, Part, Recipe};
use splice::{SpliceError, Splicer, splice};

/// A layer with what is known of its making.
#[derive(Debug, Clone)]
pub struct MadeLayer {
    /// The recipe's key; layers of trees have none.
    pub key: Option<Digest>,
    pub layer: Layer,
    pub origin: Origin,
    /// Of the uncompressed tar, in bytes.
    pub uncompressed_size: u64,
    /// What it holds, in a few words: `numpy 2.1.0`, `click 8.1.7 and 12 more`.
    pub title: String,
}

/// Where a layer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From its contents, now.
    Made,
    /// The store had it.
    Stored,
    /// Of the image `from` that everything stands on; the lock names its digest.
    Base { from: String },
    /// From the image `from`, without its bytes. `vouched`: mlrails.sum has it, so that `from` is not believed in anything.
    Reused { from: String, vouched: bool },
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Wheel(#[from] WheelError),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Splice(#[from] SpliceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its download is another step's business.
    #[error("the wheel {wheel} is not in the cache")]
    Missing { wheel: String },
    /// Its bytes in the cache had changed; it was removed from there.
    #[error("the wheel {wheel} was damaged in the cache")]
    Damaged { wheel: String },
    #[error("cannot read the wheel {wheel} from the cache")]
    Read { wheel: String, source: std::io::Error },
}

/// Validation is repeated when its rules change: the number is part of a wheel's record.
const WHEEL_RECORD: &str = "wheel-1";
/// By which an eStargz layer is known.
pub const TOC_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";
const LAYER_RECORD: &str = "layer-1";
const COLLISION_RECORD: &str = "apart-1";
/// Wheels whose every file was once what RECORD says. A layer that is made again from one checks size and CRC: what may
/// have happened since is damage, which is no attempt to deceive.
const PROVEN_RECORD: &str = "proven-1";

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
fn placed(store: &Store, wheel: &Wheel, scheme: &Scheme) -> Result<(File, Vec<Placed>), LayerError> {
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

    /// The same, for a layer of another form.
    pub fn in_form(self, form: Form) -> Self {
        Self {
            recipe: self.recipe.in_form(form),
            ..self
        }
    }

    /// The same, for one of several layers.
    pub fn in_part(self, part: Option<Part>) -> Self {
        Self {
            recipe: self.recipe.in_part(part),
            ..self
        }
    }
}

/// What the store keeps of a layer that was made.
#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    digest: Digest,
    diff_id: Digest,
    size: u64,
    uncompressed_size: u64,
    title: String,
    #[serde(default, skip_serializing_if = "is_gzip")]
    media_type: LayerType,
    /// Of the table of contents of an eStargz layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    toc: Option<Digest>,
}

fn is_gzip(kind: &LayerType) -> bool {
    *kind == LayerType::Gzip
}

/// The layer that the store has for `key`, if it has one, blob and all.
pub fn stored_layer(store: &Store, key: &Digest) -> Option<MadeLayer> {
    stored(store, &key.to_string()).map(|record| record.into_layer(store, Some(*key), Origin::Stored))
}

fn stored(store: &Store, key: &str) -> Option<LayerRecord> {
    let record: LayerRecord = store.record(LAYER_RECORD, key)?;
    (store.blob_size(&record.digest)? == record.size).then_some(record)
}

/// Removes every layer that was made; what they were made from stays. Gives the bytes that are free now.
pub fn forget_layers(store: &Store) -> Result<u64, StoreError> {
    let mut freed = 0;
    for record in store.records::<LayerRecord>(LAYER_RECORD)? {
        freed += discard(store, &record.digest)?;
    }
    store.forget_bucket(LAYER_RECORD)?;
    Ok(freed)
}

/// Removes all that was made here, so that only downloads stay: layers, bytecode, the base's encoded files, and what was found out of
/// wheels. Gives the bytes that are free now.
pub fn forget_made(store: &Store) -> Result<u64, StoreError> {
    let mut freed = forget_layers(store)?;
    let bytecode = store.records::<kept::Kept>(bytecode::RECORD)?;
    let bases = store.records::<base::KeptBase>(base::RECORD)?;
    for kept in bytecode.iter().chain(bases.iter().map(|base| &base.files)) {
        for digest in kept.blobs() {
            freed += discard(store, &digest)?;
        }
    }
    for bucket in [
        bytecode::RECORD,
        base::RECORD,
        PROVEN_RECORD,
        COLLISION_RECORD,
        WHEEL_RECORD,
    ] {
        store.forget_bucket(bucket)?;
    }
    Ok(freed)
}

fn discard(store: &Store, digest: &Digest) -> Result<u64, StoreError> {
    let size = store.blob_size(digest).unwrap_or_default();
    store.discard(digest)?;
    Ok(size)
}

impl LayerRecord {
    fn into_layer(self, store: &Store, key: Option<Digest>, origin: Origin) -> MadeLayer {
        MadeLayer {
            key,
            layer: Layer {
                media_type: self.media_type,
                digest: self.digest,
                size: self.size,
                diff_id: self.diff_id,
                created_by: format!("mlrails: {}", self.title),
                annotations: annotations(self.toc, self.uncompressed_size),
                bytes: LayerBytes::File(store.blob_path(&self.digest)),
            },
            origin,
            uncompressed_size: self.uncompressed_size,
            title: self.title,
        }
    }
}

/// What a manifest says of an eStargz layer: a snapshotter believes the table of contents that has this digest.
fn annotations(toc: Option<Digest>, uncompressed_size: u64) -> BTreeMap<String, String> {
    let Some(toc) = toc else {
        return BTreeMap::new();
    };
    BTreeMap::from([
        (TOC_ANNOTATION.to_owned(), toc.to_string()),
        (
            "io.containers.estargz.uncompressed-size".to_owned(),
            uncompressed_size.to_string(),
        ),
    ])
}

/// One layer per recipe, in their order; those that are not in the store are made, at once where there are processors, and the
/// largest first: one that begins last would keep a single processor busy.
/// Every wheel's bytes must be in the store.
pub fn layers_from_wheels(
    store: &Store,
    recipes: &[Ingredients<'_>],
    reporter: &dyn Reporter,
) -> Result<Vec<MadeLayer>, LayerError> {
    use rayon::prelude::*;
    let size = |index: &usize| -> u64 {
        recipes[*index]
            .wheels
            .iter()
            .map(|wheel| wheel.expanded_size())
            .sum()
    };
    let mut order: Vec<usize> = (0..recipes.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(size(index)));
    // Not in halves, as a slice is shared out: whoever is free takes the next.
    let mut made = order
        .into_iter()
        .par_bridge()
        .map(|index| Ok((index, layer_from_wheels(store, &recipes[index], reporter)?)))
        .collect::<Result<Vec<_>, LayerError>>()?;
    made.sort_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, layer)| layer).collect())
}

/// The layer of one recipe: from the store, else made and kept there.
pub fn layer_from_wheels(
    store: &Store,
    ingredients: &Ingredients<'_>,
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
    let outcome = make(store, ingredients, title, &|count| reporter.advance(task, count));
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
    title: String,
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
    let outcome = splice(store.writer()?, form, 0, |splicer| {
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
    splicer: &mut Splicer,
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

/// The layer that `key` names in `form`: from the store, else made from the tree that `tree` gives and kept under that key.
pub fn keyed_layer<E: From<LayerError>>(
    store: &Store,
    (key, form): (Digest, Form),
    mtime: u64,
    title: &str,
    tree: impl FnOnce() -> Result<Tree, E>,
) -> Result<MadeLayer, E> {
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    let _guard = store.lock(&format!("layer {key}")).map_err(LayerError::from)?;
    if let Some(layer) = stored_layer(store, &key) {
        return Ok(layer);
    }
    let record = tree_record(store, &tree()?, form, mtime, title)?;
    store
        .keep_record(LAYER_RECORD, &key.to_string(), &record)
        .map_err(LayerError::from)?;
    Ok(record.into_layer(store, Some(key), Origin::Made))
}

/// A layer that holds `tree`, every time `mtime` (seconds since 1970); `title` says what it is. Its blob is in the store. A tree that is
/// in memory is remembered by its content: it is not compressed twice.
pub fn layer_from_tree(
    store: &Store,
    tree: &Tree,
    form: Form,
    mtime: u64,
    title: &str,
) -> Result<MadeLayer, LayerError> {
    let key = content_key(tree, mtime).map(|key| form.key(key).to_string());
    let known = |key: &String| stored(store, key).filter(|record| record.title == title);
    if let Some(record) = key.as_ref().and_then(known) {
        return Ok(record.into_layer(store, None, Origin::Stored));
    }
    let record = tree_record(store, tree, form, mtime, title)?;
    if let Some(key) = key {
        store.keep_record(LAYER_RECORD, &key, &record)?;
    }
    Ok(record.into_layer(store, None, Origin::Made))
}

/// What identifies a layer of `tree`, if its files are in memory.
fn content_key(tree: &Tree, mtime: u64) -> Option<Digest> {
    let mut hasher = Hasher::new();
    hasher.update(format!("tree {} {mtime}\n", recipe::LAYOUT).as_bytes());
    for (path, node) in tree.iter() {
        let said = match node {
            Node::Directory { mode } => format!("folder {mode:o}"),
            Node::Symlink { target } => format!("link {target}"),
            Node::File {
                source: Source::Bytes(bytes),
                mode,
            } => format!("file {mode:o} {}", Digest::of(bytes)),
            Node::File { .. } => return None,
        };
        // With lengths: a path or a target may hold whatever would otherwise end it.
        hasher.update(format!("{} {path} {} {said}\n", path.len(), said.len()).as_bytes());
    }
    Some(hasher.finish())
}

fn tree_record(
    store: &Store,
    tree: &Tree,
    form: Form,
    mtime: u64,
    title: &str,
) -> Result<LayerRecord, LayerError> {
    let (spliced, writer) = splice(store.writer()?, form, mtime, |splicer| {
        for (path, node) in tree.iter() {
            match node {
                Node::Directory { mode } => splicer.directory(path, *mode)?,
                Node::File { source, mode } => splicer.source(path, *mode, source)?,
                Node::Symlink { target } => splicer.symlink(path, target)?,
            }
        }
        Ok(())
    })?;
    let (digest, size) = writer.commit()?;
    Ok(LayerRecord {
        digest,
        diff_id: spliced.diff_id,
        size,
        uncompressed_size: spliced.tar_size,
        title: title.to_owned(),
        media_type: form.layer_type(),
        toc: spliced.toc,
    })
}

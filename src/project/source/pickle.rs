//! Pickles read as opcodes, never loaded: which names they would import, and that nothing else is in them.
//!
//! Takes the bytes of a frozen value: a pickle of any protocol, what joblib writes (arrays between the opcodes, compressed or not),
//! or torch's zip. Gives [`PickleFacts`]; [`check_globals`] judges the names. This finds mistakes and missing dependencies; it is no
//! sandbox: whoever may write a pickle may write one that only calls what is allowed, to no good.
//!
//! Source: CPython's `Lib/pickletools.py` for the opcodes, PEP 307, 3154 and 574 for their meaning; joblib's `numpy_pickle.py` for
//! arrays; numpy's `dtype.__reduce__` for their size.

mod allowed;
mod array;
mod machine;
mod skops;
mod stream;
mod value;

use std::collections::BTreeSet;
use std::fmt;
use std::io;

pub use allowed::{GlobalProblem, check_globals, is_standard};
use machine::Machine;
pub use skops::inspect_skops;
use stream::{Input, Window};

use crate::python::archive::{self, ArchiveError, Method, ReadAt};

/// A name that loading would import: `sklearn.linear_model._logistic` and `LogisticRegression`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Global {
    pub module: String,
    /// Possibly dotted: `Outer.Inner`.
    pub name: String,
}

impl fmt::Display for Global {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.module, self.name)
    }
}

/// What a pickle is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PickleFacts {
    pub globals: BTreeSet<Global>,
    /// The highest protocol that its streams declare; 0 for one that declares none.
    pub protocol: u8,
    /// Pickles in it: one, and one more for each array of objects.
    pub streams: usize,
    /// joblib's arrays.
    pub arrays: usize,
    /// Bytes of all streams and arrays, decompressed.
    pub size: u64,
    /// `zlib`, `gzip`, `xz`, `lzma`.
    pub compression: Option<&'static str>,
}

impl PickleFacts {
    /// The modules that loading imports, each once.
    pub fn modules(&self) -> BTreeSet<&str> {
        self.globals.iter().map(|global| global.module.as_str()).collect()
    }
}

/// Why a pickle is refused. `at` is a byte of the decompressed stream.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is compressed with {0}, which cannot be read here")]
    Compression(&'static str),
    #[error("it ends in the middle of the pickle, at byte {at}")]
    Truncated { at: u64 },
    #[error("byte {at} is not a pickle's opcode ({byte:#04x})")]
    Opcode { at: u64, byte: u8 },
    #[error("there are bytes after the end of the pickle, at byte {at}")]
    Trailing { at: u64 },
    #[error("at byte {at}, {rule}")]
    Rule { at: u64, rule: &'static str },
    #[error("at byte {at}, it needs more than is allowed: {what} may be {limit} at most")]
    Limit { at: u64, what: &'static str, limit: u64 },
    #[error("it is not an archive that skops writes: {0}")]
    Skops(&'static str),
    #[error("it is not an archive that torch writes: {0}")]
    Torch(&'static str),
    #[error("it is not an archive that can be trusted")]
    Archive(#[from] ArchiveError),
}

/// Reads all of `source`. Every byte of it belongs to an opcode, an operand, an array or a compression's frame, or it is refused.
pub fn inspect<S: ReadAt + ?Sized>(source: &S) -> Result<PickleFacts, PickleError> {
    let length = source.length().map_err(PickleError::Read)?;
    let mut magic = [0; 6];
    let known = length.min(magic.len() as u64) as usize;
    source
        .read_exact_at(&mut magic[..known], 0)
        .map_err(PickleError::Read)?;
    if magic.starts_with(b"PK\x03\x04") {
        return torch(source);
    }
    let mut facts = PickleFacts::default();
    let window = Window::new(source, 0, length);
    let (input, compression) = Input::open(window, &magic[..known])?;
    facts.compression = compression;
    whole(input, Persistent::Refused, &mut facts)?;
    Ok(facts)
}

/// Whether persistent ids, by which torch refers to tensors beside the pickle, are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Persistent {
    Refused,
    Taken,
}

fn whole(mut input: Input<'_>, persistent: Persistent, facts: &mut PickleFacts) -> Result<(), PickleError> {
    Machine::new(persistent).run(&mut input, facts)?;
    input.end()?;
    facts.size += input.position();
    Ok(())
}

/// torch's zip: every member that ends in `.pkl` is a pickle, the others are tensors and notes.
fn torch<S: ReadAt + ?Sized>(source: &S) -> Result<PickleFacts, PickleError> {
    let members = archive::members(source)?;
    let mut facts = PickleFacts::default();
    let mut found = false;
    for member in &members {
        if !member.name.ends_with(".pkl") {
            continue;
        }
        if member.method != Method::Stored {
            return Err(PickleError::Torch("its pickle is compressed"));
        }
        found |= member.name.split('/').next_back() == Some("data.pkl");
        let window = Window::new(source, member.data_offset, member.size);
        whole(Input::plain(window), Persistent::Taken, &mut facts)?;
    }
    if !found {
        return Err(PickleError::Torch("it has no data.pkl"));
    }
    Ok(facts)
}

//! What the pickle machine knows of a value: text and numbers that names and sizes are made of, joblib's wrappers, and little else.
//!
//! What neither a name nor an array's size needs is [`Value::Opaque`]. Nothing here reads the stream.
//!
//! Source: CPython's `Lib/pickle.py`; joblib's `numpy_pickle.py`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::array::Dtype;
use super::stream::Input;
use super::{Global, PickleError};

/// The longest text that is kept, in bytes: names and dtype codes are short.
pub(super) const LONGEST_TEXT: u64 = 1024;
/// The most items of a tuple, and entries of a dict, that are kept: numpy's arrays have at most 64 dimensions.
pub(super) const MOST_ITEMS: usize = 64;
/// How deep tuples nest before their items are forgotten: dropping them recurses.
const DEEPEST: u8 = 8;
/// joblib's wrappers, the current one and its predecessors with files of their own.
pub(super) const WRAPPERS: [&str; 3] = ["NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper"];

#[derive(Debug, Clone)]
pub(super) enum Value {
    Opaque,
    None,
    Int(i128),
    Text(Rc<str>),
    Tuple(Rc<Tuple>),
    Dict(Rc<RefCell<Dict>>),
    Global(Rc<Global>),
    /// `None` once it has a state that is not understood.
    Dtype(Rc<RefCell<Option<Dtype>>>),
    /// joblib's wrapper of an array; whether its array was read.
    Wrapper(Rc<Cell<bool>>),
}

#[derive(Debug)]
pub(super) struct Tuple {
    pub items: Vec<Value>,
    pub depth: u8,
}

/// A small dict with text keys; anything else makes it `complete: false`.
#[derive(Debug)]
pub(super) struct Dict {
    entries: Vec<(Rc<str>, Value)>,
    pub complete: bool,
}

impl Default for Dict {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            complete: true,
        }
    }
}

impl Dict {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let found = self.entries.iter().find(|(name, _)| &**name == key);
        found.map(|(_, value)| value)
    }

    pub(super) fn set(&mut self, key: &Value, value: Value) {
        let Value::Text(key) = key else {
            self.complete = false;
            return;
        };
        if let Some(entry) = self.entries.iter_mut().find(|(name, _)| name == key) {
            entry.1 = value;
        } else if self.entries.len() < MOST_ITEMS {
            self.entries.push((key.clone(), value));
        } else {
            self.complete = false;
        }
    }
}

impl Value {
    pub(super) fn is(&self, module: &str, name: &str) -> bool {
        matches!(self, Self::Global(global) if global.module == module && global.name == name)
    }

    pub(super) fn is_wrapper_class(&self) -> bool {
        matches!(self, Self::Global(global) if is_wrapper(global))
    }

    /// What a container keeps of a value: nothing that could make a circle or a chain.
    pub(super) fn kept(self) -> Self {
        match self {
            Self::Dict(_) => Self::Opaque,
            Self::Tuple(tuple) if tuple.depth >= DEEPEST => Self::Opaque,
            other => other,
        }
    }
}

pub(super) fn is_wrapper(global: &Global) -> bool {
    let first = global.name.split('.').next().unwrap_or_default();
    global.module.starts_with("joblib.") && WRAPPERS.contains(&first)
}

/// Refuses joblib's wrapper class as a value among others. Whoever could make a wrapper out of our sight would have bytes read as an
/// array that were read as opcodes here.
pub(super) fn no_wrapper(values: &[Value], input: &Input<'_>) -> Result<(), PickleError> {
    let mentions = values.iter().any(|value| match value {
        Value::Tuple(tuple) => no_wrapper(&tuple.items, input).is_err(),
        // An unread wrapper that is passed on could be built elsewhere.
        Value::Wrapper(is_read) => !is_read.get(),
        other => other.is_wrapper_class(),
    });
    if mentions {
        return Err(input.rule("an array is described in a way that joblib does not write"));
    }
    Ok(())
}

/// INT and LONG: digits, an `L` at the end of a long; `00` and `01` are booleans.
pub(super) fn number_line(line: &[u8]) -> Option<Value> {
    if line == b"00" || line == b"01" {
        return Some(Value::Opaque);
    }
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.strip_suffix('L').unwrap_or(text);
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().map_or(Value::Opaque, Value::Int))
}

/// STRING: quoted as Python's `repr` does. One with an escape is not kept.
pub(super) fn quoted(line: &[u8]) -> Option<Value> {
    let inner = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return None,
    };
    Some(text_line(inner))
}

pub(super) fn text_line(line: &[u8]) -> Value {
    match std::str::from_utf8(line) {
        Ok(text) if line.len() as u64 <= LONGEST_TEXT && !text.contains('\\') => Value::Text(text.into()),
        _ => Value::Opaque,
    }
}

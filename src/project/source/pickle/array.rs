//! The arrays that joblib writes between the opcodes: how long each is, from its wrapper's state.
//!
//! Source: `NumpyArrayWrapper.write_array` in joblib's `numpy_pickle.py`; `dtype.__reduce__` and `__setstate__` of numpy.

use super::PickleError;
use super::stream::Input;
use super::value::{Dict, Value};

/// As much of a numpy dtype as its size needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype {
    /// Bytes per item.
    pub size: u64,
    /// Items are Python objects: the array is a pickle of its own.
    pub has_objects: bool,
}

/// numpy's NPY_ITEM_HASOBJECT.
const HAS_OBJECT: i128 = 1;

impl Dtype {
    /// From numpy's code: `i8`, `U12`, `O8`, `V24`.
    pub(super) fn from_code(code: &str) -> Option<Self> {
        let (kind, number) = code.split_at_checked(1)?;
        let number: u64 = number.parse().ok()?;
        let size = match kind {
            "U" => number.checked_mul(4)?,
            "b" | "i" | "u" | "f" | "c" | "m" | "M" | "O" | "S" | "V" => number,
            _ => return None,
        };
        Some(Self {
            size,
            has_objects: kind == "O",
        })
    }

    /// With the state that BUILD gives it: `(version, order, subarray, names, fields, size, alignment, flags …)`.
    pub(super) fn with_state(self, state: &[Value]) -> Option<Self> {
        let size = match state.get(5)? {
            Value::Int(-1) => self.size,
            Value::Int(size) => u64::try_from(*size).ok()?,
            _ => return None,
        };
        // Two sizes for one item would be two readings of the file.
        if size != self.size {
            return None;
        }
        let flags = match state.get(7) {
            Some(Value::Int(flags)) => *flags,
            None => 0,
            Some(_) => return None,
        };
        Some(Self {
            has_objects: self.has_objects || flags & HAS_OBJECT != 0,
            ..self
        })
    }
}

/// What follows a wrapper in the file.
pub(super) enum Follows {
    /// Nothing more: the array's bytes were skipped.
    Array,
    /// A pickle of its own.
    Pickle,
}

/// Skips the array that `state` describes.
pub(super) fn skip(state: &Dict, input: &mut Input<'_>) -> Result<Follows, PickleError> {
    let unknown = |input: &Input<'_>| input.rule("an array is described in a way that joblib does not write");
    let Some(Value::Dtype(dtype)) = state.get("dtype") else {
        return Err(unknown(input));
    };
    let dtype = dtype.borrow().ok_or_else(|| unknown(input))?;
    input.between_frames()?;
    if dtype.has_objects {
        return Ok(Follows::Pickle);
    }
    let Some(Value::Tuple(shape)) = state.get("shape") else {
        return Err(unknown(input));
    };
    let mut size = dtype.size;
    for length in &shape.items {
        let Value::Int(length) = length else {
            return Err(unknown(input));
        };
        size = u64::try_from(*length)
            .ok()
            .and_then(|length| size.checked_mul(length))
            .ok_or_else(|| unknown(input))?;
    }
    // joblib up to 1.1 wrote no padding and no alignment.
    match state.get("numpy_array_alignment_bytes") {
        None | Some(Value::None) => {}
        Some(Value::Int(1..=255)) => {
            let [padding] = input.array::<1>()?;
            if input.bytes(padding.into())?.iter().any(|byte| *byte != 0xff) {
                return Err(input.rule("an array's padding holds something"));
            }
        }
        Some(_) => return Err(unknown(input)),
    }
    input.skip(size)?;
    Ok(Follows::Array)
}

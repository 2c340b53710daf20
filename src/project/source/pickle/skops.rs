//! skops' archives: what they name, read from their schema. No pickle is in them, and no array is opened.
//!
//! Takes a zip of `schema.json` and of arrays in NumPy's own format. Gives the same facts as a pickle: each type, function and method that
//! loading looks up. Source: skops' "Secure persistence" documentation and `skops/io/_general.py` for the nodes.

use std::collections::BTreeSet;
use std::io::{Cursor, Read};

use serde_json::Value;

use super::{Global, PickleError, PickleFacts};
use crate::python::archive::{self, Method, ReadAt};

const SCHEMA: &str = "schema.json";
/// The largest schema, in bytes: a forest's is a few MB, for its trees are arrays.
const LARGEST: u64 = 256 << 20;

/// Reads the schema; members that are neither it nor arrays are refused.
pub fn inspect_skops<S: ReadAt + ?Sized>(source: &S) -> Result<PickleFacts, PickleError> {
    let members = archive::members(source)?;
    let mut facts = PickleFacts {
        streams: 1,
        ..PickleFacts::default()
    };
    let mut schema = None;
    for member in &members {
        facts.size = facts.size.saturating_add(member.size);
        if member.name == SCHEMA {
            schema = Some(member);
        } else if member.name.ends_with(".npy") {
            facts.arrays += 1;
        } else if !member.name.ends_with(".npz") {
            return Err(PickleError::Skops("it holds more than a schema and arrays"));
        }
    }
    let schema = schema.ok_or(PickleError::Skops("it has no schema.json"))?;
    if schema.size > LARGEST || schema.compressed_size > LARGEST {
        return Err(PickleError::Limit {
            at: 0,
            what: "bytes of its schema",
            limit: LARGEST,
        });
    }
    let mut bytes = vec![0; usize::try_from(schema.compressed_size).unwrap_or_default()];
    source
        .read_exact_at(&mut bytes, schema.data_offset)
        .map_err(PickleError::Read)?;
    let text = match schema.method {
        Method::Stored => bytes,
        Method::Deflated => {
            let mut text = Vec::new();
            let inflated = flate2::read::DeflateDecoder::new(Cursor::new(bytes));
            inflated
                .take(LARGEST + 1)
                .read_to_end(&mut text)
                .map_err(PickleError::Read)?;
            text
        }
    };
    if text.len() as u64 != schema.size || crc32fast::hash(&text) != schema.crc32 {
        return Err(PickleError::Skops("its schema.json is damaged"));
    }
    // serde_json refuses more than 128 levels by itself; a step of a pipeline is eight of them.
    let document: Value = serde_json::from_slice(&text)
        .map_err(|_| PickleError::Skops("its schema.json is not JSON, or nests too deeply"))?;
    facts.globals = globals(&document);
    Ok(facts)
}

/// Every name that a node looks up.
fn globals(document: &Value) -> BTreeSet<Global> {
    let mut found = BTreeSet::new();
    let mut open = vec![document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                let text = |key: &str| fields.get(key).and_then(Value::as_str);
                for (module, name) in [("__module__", "__class__"), ("module_path", "function")] {
                    if let (Some(module), Some(name)) = (text(module), text(name)) {
                        found.insert(Global {
                            module: module.to_owned(),
                            name: name.to_owned(),
                        });
                    }
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

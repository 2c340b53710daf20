//! The rows of a model's input example, as records of its signature.
//!
//! Takes the JSON file that MLflow writes beside a model; gives records, or why the file's rows are none. Source: `_Example` in MLflow's
//! `models/utils.py`: a frame as `{"columns", "data"}` or as records, an array as nested lists, anything else as it was given.

use serde_json::{Map, Value};

use super::signature::{Shape, Signature};
use crate::project::source::schema::{Column, ColumnType};

/// The most rows that are kept: as many as golden rows.
pub const MOST: usize = 100;

/// The first rows, or what is wrong with them.
pub fn records(text: &str, signature: &Signature, most: usize) -> Result<Vec<Value>, String> {
    let document: Value = serde_json::from_str(&without_nan(text)).map_err(|error| error.to_string())?;
    let columns = &signature.columns;
    let rows = rows(document, signature)?;
    if rows.is_empty() {
        return Err("it has no rows".to_owned());
    }
    let rows = rows.into_iter().take(most).enumerate();
    rows.map(|(at, row)| {
        fits(columns, &row).map_err(|why| format!("row {at}: {why}"))?;
        Ok(Value::Object(row))
    })
    .collect()
}

fn rows(document: Value, signature: &Signature) -> Result<Vec<Map<String, Value>>, String> {
    let columns = &signature.columns;
    match document {
        Value::Object(mut fields) => {
            if let (Some(Value::Array(names)), Some(Value::Array(_))) =
                (fields.get("columns"), fields.get("data"))
            {
                let names: Vec<String> = names.iter().map(name).collect();
                let Some(Value::Array(data)) = fields.remove("data") else {
                    return Ok(Vec::new());
                };
                let names = match signature.shape {
                    // The frame's own name for it is a number.
                    Shape::Unnamed if names.len() == 1 => vec![columns[0].name.clone()],
                    _ => names,
                };
                return data
                    .into_iter()
                    .map(|row| match row {
                        Value::Array(cells) if cells.len() == names.len() => {
                            Ok(picked(columns, &names, cells))
                        }
                        _ => Err("a row of `data` is not as long as `columns`".to_owned()),
                    })
                    .collect();
            }
            // TensorFlow Serving's form, which older versions wrote.
            for key in ["inputs", "instances"] {
                if fields.len() == 1 && fields.contains_key(key) {
                    return rows(fields.remove(key).unwrap_or_default(), signature);
                }
            }
            let lists = columns.iter().all(|column| {
                column.kind != ColumnType::Object && fields.get(&column.name).is_some_and(Value::is_array)
            });
            if lists {
                return by_column(columns, &fields);
            }
            Ok(vec![kept(columns, fields)])
        }
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::Object(fields) if signature.shape != Shape::Values => Ok(kept(columns, fields)),
                Value::Array(cells) if cells.len() == columns.len() && signature.shape != Shape::Values => {
                    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
                    Ok(picked(columns, &names, cells))
                }
                one if columns.len() == 1 => Ok(Map::from_iter([(columns[0].name.clone(), one)])),
                _ => Err(format!("a row is no record of {} columns", columns.len())),
            })
            .collect(),
        one if columns.len() == 1 => Ok(vec![Map::from_iter([(columns[0].name.clone(), one)])]),
        _ => Err("it is neither a frame, a list of rows nor a record".to_owned()),
    }
}

/// pandas' columns may be numbers.
fn name(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn picked(columns: &[Column], names: &[String], cells: Vec<Value>) -> Map<String, Value> {
    kept(columns, names.iter().cloned().zip(cells).collect())
}

/// The signature's columns, in its order; what else the example has is not read.
fn kept(columns: &[Column], mut fields: Map<String, Value>) -> Map<String, Value> {
    let found = columns.iter().filter_map(|column| {
        let value = fields.remove(&column.name)?;
        Some((column.name.clone(), value))
    });
    found.collect()
}

fn by_column(columns: &[Column], fields: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, String> {
    let lists: Vec<(&String, &Vec<Value>)> = columns
        .iter()
        .filter_map(|column| Some((&column.name, fields.get(&column.name)?.as_array()?)))
        .collect();
    let count = lists.first().map_or(0, |(_, list)| list.len());
    if lists.iter().any(|(_, list)| list.len() != count) {
        return Err("its columns are not equally long".to_owned());
    }
    let row = |at: usize| {
        lists
            .iter()
            .map(|(name, list)| ((*name).clone(), list[at].clone()))
            .collect()
    };
    Ok((0..count).map(row).collect())
}

/// Whether a request with this row would be taken, as far as it can be told here.
fn fits(columns: &[Column], row: &Map<String, Value>) -> Result<(), String> {
    for column in columns {
        let value = row.get(&column.name).unwrap_or(&Value::Null);
        let right = match (column.kind, value) {
            (_, Value::Null) => {
                if column.required {
                    return Err(format!(
                        "`{}` is missing, and the signature requires it",
                        column.name
                    ));
                }
                true
            }
            (ColumnType::Boolean, Value::Bool(_)) | (ColumnType::Object, _) => true,
            (ColumnType::Integer, Value::Number(number)) => {
                number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            (ColumnType::Number, Value::Number(_)) => true,
            (ColumnType::String | ColumnType::Datetime, Value::String(_)) => true,
            _ => false,
        };
        if !right {
            return Err(format!("`{}` is not what the signature says", column.name));
        }
    }
    Ok(())
}

/// What Python's json writes for numbers that JSON has none for, outside of strings, as null.
fn without_nan(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        made.push_str(before);
        let word = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|word| from.starts_with(word));
        let length = match word {
            Some(word) => {
                made.push_str("null");
                word.len()
            }
            None => {
                let length = if from.starts_with('"') { string(from) } else { 1 };
                made.push_str(&from[..length]);
                length
            }
        };
        rest = &from[length..];
    }
    made.push_str(rest);
    made
}

/// How long the string is that `text` begins with, quotes included.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_for_missing_numbers_becomes_null() {
        assert_eq!(
            without_nan(r#"{"NaN \" NaN": [NaN, -1, -Infinity, Infinity], "I": -2.5}"#),
            r#"{"NaN \" NaN": [null, -1, null, null], "I": -2.5}"#
        );
        assert_eq!(without_nan("\"open \\"), "\"open \\");
    }
}

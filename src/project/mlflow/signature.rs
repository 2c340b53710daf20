//! A model's signature as this project's schemas: what a request brings, what an answer is.
//!
//! Takes the texts of JSON that MLmodel holds under `signature`. Gives columns as run.json has them. A type that no request can bring, or
//! whose meaning would be a guess, is a mistake. Source: MLflow's `types/schema.py`, "Model signatures" in its documentation.

use serde_json::{Map, Value, json};

use super::yaml::Yaml;
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::Place;
use crate::project::source::schema::{Column, ColumnType};

/// The widest table, and the widest row of a tensor: what the schema names one by one.
const MOST_COLUMNS: usize = 10_000;
/// What a lone column without a name is called here.
pub const UNNAMED: &str = "input";

/// What a request brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    pub shape: Shape,
    pub columns: Vec<Column>,
    /// The answer's schema, as run.json has it.
    pub response: Value,
    pub place: Place,
}

/// How the model takes its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A DataFrame with these columns.
    Table,
    /// An array: rows by columns, or of one dimension.
    Array { dtype: String, flat: bool },
    /// A list with one value per row: a model whose type hint says so.
    Values,
    /// A list with one object per row.
    Records,
    /// A DataFrame whose one column has no name.
    Unnamed,
}

/// Reads `signature` of MLmodel. `hinted`: whether MLflow made it from a type hint of the model's own `predict`.
pub fn read(signature: &Yaml, hinted: bool, mistakes: &mut Vec<Mistake>) -> Option<Signature> {
    let place = signature
        .get("inputs")
        .map_or_else(|| signature.place.clone(), |inputs| inputs.place.clone());
    let inputs = specs(signature, "inputs", mistakes)?;
    if inputs.is_empty() {
        mistakes.push(Mistake::new(Rule::NoSignature).at(place));
        return None;
    }
    let before = mistakes.len();
    let (shape, columns) = inputs_of(&inputs, hinted, &place, mistakes)?;
    let response = match signature.get("outputs") {
        Some(outputs) => {
            let place = outputs.place.clone();
            let outputs = specs(signature, "outputs", mistakes)?;
            json!({ "kind": "list", "items": answer(&outputs, &place, mistakes) })
        }
        None => json!({ "kind": "list", "items": {} }),
    };
    (mistakes.len() == before).then_some(Signature {
        shape,
        columns,
        response,
        place,
    })
}

/// The list of JSON that stands as a text at `key`.
fn specs(
    signature: &Yaml,
    key: &'static str,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Map<String, Value>>> {
    let Some(found) = signature.get(key) else {
        return Some(Vec::new());
    };
    let mut refuse = |reason: String| {
        let what = format!("`{key}` of the signature cannot be understood: {reason}");
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(found.place.clone()));
    };
    let Some(text) = found.text() else {
        refuse("it must be a text of JSON".to_owned());
        return None;
    };
    // serde_json refuses more than 128 levels by itself.
    match serde_json::from_str::<Vec<Map<String, Value>>>(text) {
        Ok(list) if list.len() > MOST_COLUMNS => {
            refuse(format!(
                "it has {} entries, and at most {MOST_COLUMNS} are read",
                list.len()
            ));
            None
        }
        Ok(list) => Some(list),
        Err(error) => {
            refuse(error.to_string());
            None
        }
    }
}

fn inputs_of(
    inputs: &[Map<String, Value>],
    hinted: bool,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Shape, Vec<Column>)> {
    let mut refuse = |input: &str, why: String| {
        let rule = Rule::UnservedType {
            input: input.to_owned(),
            why,
        };
        mistakes.push(Mistake::new(rule).at(place.clone()));
    };
    if inputs.iter().any(|spec| spec.contains_key("tensor-spec")) {
        return match inputs {
            [one] if !one.contains_key("name") => match tensor(one) {
                Ok(found) => Some(found),
                Err(why) => {
                    refuse("the tensor", why);
                    None
                }
            },
            _ => {
                refuse(
                    "the tensor",
                    "has a name, and only one tensor without a name can be made of a request's rows"
                        .to_owned(),
                );
                None
            }
        };
    }
    if let [one] = inputs
        && !one.contains_key("name")
    {
        let fields = one.get("properties").and_then(Value::as_object);
        if let Some(fields) = fields.filter(|_| hinted) {
            let specs = fields.iter().map(|(name, spec)| (name.clone(), spec.as_object()));
            let mut columns = Vec::new();
            for (name, spec) in specs {
                match spec.map(|spec| column(&name, spec)) {
                    Some(Ok(column)) => columns.push(column),
                    Some(Err(why)) => refuse(&format!("`{name}`"), why),
                    None => refuse(&format!("`{name}`"), "has no type".to_owned()),
                }
            }
            return Some((Shape::Records, columns));
        }
        let shape = if hinted { Shape::Values } else { Shape::Unnamed };
        return match column(UNNAMED, one) {
            Ok(column) => Some((shape, vec![column])),
            Err(why) => {
                refuse("the one column", why);
                None
            }
        };
    }
    let mut columns: Vec<Column> = Vec::new();
    for (at, spec) in inputs.iter().enumerate() {
        let Some(name) = spec.get("name").and_then(Value::as_str) else {
            refuse(
                &format!("column {at}"),
                "has no name, and a request names its columns".to_owned(),
            );
            return None;
        };
        match column(name, spec) {
            Ok(column) => columns.push(column),
            Err(why) => refuse(&format!("`{}`", name.escape_debug()), why),
        }
    }
    let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        refuse(
            &format!("`{}`", pair[0].escape_debug()),
            "is there twice".to_owned(),
        );
    }
    Some((Shape::Table, columns))
}

fn column(name: &str, spec: &Map<String, Value>) -> Result<Column, String> {
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let (kind, dtype) = match kind {
        "boolean" => (ColumnType::Boolean, "bool"),
        "integer" => (ColumnType::Integer, "int32"),
        "long" => (ColumnType::Integer, "int64"),
        "float" => (ColumnType::Number, "float32"),
        "double" => (ColumnType::Number, "float64"),
        "string" => (ColumnType::String, "object"),
        "datetime" => (ColumnType::Datetime, "datetime64[ns]"),
        "array" | "object" | "map" | "any" => (ColumnType::Object, "object"),
        "binary" => {
            return Err(
                "is binary: JSON and CSV have no bytes; let the model take text in base64, as a string"
                    .to_owned(),
            );
        }
        "sparse_vector" | "spark_vector" => return Err(format!("is a {kind}, which only Spark makes")),
        other => {
            return Err(format!(
                "is of the type `{}`, which is not known here",
                other.escape_debug()
            ));
        }
    };
    // MLflow itself marks a column optional when its data had missing values.
    let required = match spec.get("required") {
        Some(Value::Bool(required)) => *required,
        _ => spec.get("optional") != Some(&Value::Bool(true)),
    };
    Ok(Column {
        name: name.to_owned(),
        kind,
        dtype: dtype.to_owned(),
        required,
        nullable: !required,
        minimum: None,
        maximum: None,
        mean: None,
        categories: None,
        example: None,
    })
}

/// Of one tensor without a name: as many columns as a row has values.
fn tensor(spec: &Map<String, Value>) -> Result<(Shape, Vec<Column>), String> {
    let (dtype, shape) = tensor_spec(spec)?;
    let (kind, type_name) = element(&dtype)?;
    let width = match shape.as_slice() {
        [-1] => None,
        [-1, width] if (1..=MOST_COLUMNS as i64).contains(width) => usize::try_from(*width).ok(),
        [-1, -1] => return Err("has rows of any length: how many values a row has must be known".to_owned()),
        [-1, ..] => {
            return Err(format!(
                "has the shape {shape:?}: rows of up to {MOST_COLUMNS} plain values are served, (-1) or (-1, n)"
            ));
        }
        _ => {
            return Err(format!(
                "has the shape {shape:?}, whose first dimension does not count rows (-1)"
            ));
        }
    };
    let make = |name: String| Column {
        name,
        kind,
        dtype: type_name.to_owned(),
        required: true,
        nullable: false,
        minimum: None,
        maximum: None,
        mean: None,
        categories: None,
        example: None,
    };
    let columns = match width {
        None => vec![make(UNNAMED.to_owned())],
        Some(width) => (0..width).map(|at| make(format!("x{at}"))).collect(),
    };
    let flat = width.is_none();
    Ok((Shape::Array { dtype, flat }, columns))
}

fn tensor_spec(spec: &Map<String, Value>) -> Result<(String, Vec<i64>), String> {
    let inner = spec.get("tensor-spec").and_then(Value::as_object);
    let inner = inner.ok_or("has no tensor-spec")?;
    let dtype = inner.get("dtype").and_then(Value::as_str).unwrap_or_default();
    let shape = inner
        .get("shape")
        .and_then(Value::as_array)
        .ok_or("has no shape")?;
    let shape: Option<Vec<i64>> = shape.iter().map(Value::as_i64).collect();
    Ok((
        dtype.to_owned(),
        shape.ok_or("has a shape that is no list of numbers")?,
    ))
}

fn element(dtype: &str) -> Result<(ColumnType, &'static str), String> {
    const INTEGERS: [&str; 8] = [
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    ];
    if let Some(name) = INTEGERS.iter().find(|name| **name == dtype) {
        return Ok((ColumnType::Integer, name));
    }
    match dtype {
        "float16" | "float32" => Ok((ColumnType::Number, "float32")),
        "float64" => Ok((ColumnType::Number, "float64")),
        "bool" => Ok((ColumnType::Boolean, "bool")),
        "str" | "object" => Ok((ColumnType::String, "object")),
        other => Err(format!(
            "is of `{}`, which no request can bring",
            other.escape_debug()
        )),
    }
}

/// The schema of one row's answer. What cannot be told is anything.
fn answer(outputs: &[Map<String, Value>], place: &Place, mistakes: &mut Vec<Mistake>) -> Value {
    match outputs {
        [] => json!({}),
        [one] if one.contains_key("tensor-spec") => match tensor_spec(one) {
            Ok((dtype, shape)) => {
                let kind = element(&dtype).map_or(json!({}), |(kind, _)| json!({ "type": kind }));
                // An array per dimension behind the first.
                shape
                    .iter()
                    .skip(1)
                    .fold(kind, |items, _| json!({ "type": "array", "items": items }))
            }
            Err(why) => {
                let what = format!("`outputs` of the signature cannot be understood: the tensor {why}");
                mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place.clone()));
                json!({})
            }
        },
        [one] if !one.contains_key("name") => value_schema(one),
        several => {
            let fields = several.iter().filter_map(|spec| {
                let name = spec.get("name").and_then(Value::as_str)?;
                Some((name.to_owned(), value_schema(spec)))
            });
            json!({ "type": "object", "properties": Value::Object(fields.collect()) })
        }
    }
}

/// A column's type as JSON Schema, as far as run.json's answers say it.
fn value_schema(spec: &Map<String, Value>) -> Value {
    let kind = match spec.get("type").and_then(Value::as_str).unwrap_or_default() {
        "boolean" => "boolean",
        "integer" | "long" => "integer",
        "float" | "double" => "number",
        "string" | "datetime" | "binary" => "string",
        "array" => {
            let items = spec.get("items").and_then(Value::as_object);
            return json!({ "type": "array", "items": items.map_or(json!({}), value_schema) });
        }
        "object" => {
            let fields = spec.get("properties").and_then(Value::as_object);
            let fields = fields
                .into_iter()
                .flatten()
                .filter_map(|(name, spec)| Some((name.clone(), value_schema(spec.as_object()?))));
            return json!({ "type": "object", "properties": Value::Object(fields.collect()) });
        }
        _ => return json!({}),
    };
    let optional = spec.get("required") == Some(&Value::Bool(false));
    match optional {
        true => json!({ "type": kind, "nullable": true }),
        false => json!({ "type": kind }),
    }
}

//! The schemas that a training run records in run.json: the request's columns with their statistics, and the answer.
//!
//! Read and written as they are; keys that are not known pass, for a newer mlrails may have written them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Schema;

/// What a request brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestSchema {
    /// The node that the rows stand in for.
    #[serde(default)]
    pub node: String,
    pub kind: Kind,
    pub columns: Vec<Column>,
}

/// What the pipeline gets: a DataFrame that mlrails builds, or the records themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Table,
    Records,
}

/// One column, or one field of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// pandas' name of it: `int64`, `category`, `datetime64[ns]`.
    #[serde(default)]
    pub dtype: String,
    pub required: bool,
    pub nullable: bool,
    /// The smallest and the largest value of training, which are no rule: others are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// The values of training, of a column that has few; a rule only where the dtype is `category`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<Value>>,
    /// Made from statistics; never of one row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    Boolean,
    Integer,
    Number,
    String,
    Datetime,
    Object,
}

/// What an answer holds per row: JSON Schema's `type`, `items`, `properties`, and `nullable`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseSchema {
    #[serde(default)]
    pub items: Value,
}

impl RequestSchema {
    /// From run.json; `None` where no run has recorded columns.
    pub fn read(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }

    /// One made-up record.
    pub fn example(&self) -> Map<String, Value> {
        let columns = self.columns.iter();
        columns
            .map(|column| (column.name.clone(), column.made_up()))
            .collect()
    }
}

impl Column {
    /// Whether null is taken.
    pub fn takes_null(&self) -> bool {
        self.nullable || !self.required
    }

    /// Whether only the recorded categories are taken: in pandas any other would become a missing value.
    pub fn is_closed(&self) -> bool {
        self.dtype == "category" && self.categories.as_ref().is_some_and(|known| !known.is_empty())
    }

    /// A value from statistics: what was recorded as the example, a category, the mean.
    pub fn made_up(&self) -> Value {
        let recorded = self
            .example
            .iter()
            .chain(self.categories.iter().flatten().take(1));
        let mut recorded = recorded.filter(|value| !value.is_null()).cloned();
        let value = recorded.next();
        match self.kind {
            ColumnType::Datetime => json!(zoned(
                value
                    .as_ref()
                    .and_then(Value::as_str)
                    .unwrap_or("2024-01-01T00:00:00")
            )),
            _ if value.is_some() => value.unwrap_or_default(),
            ColumnType::Boolean => json!(false),
            ColumnType::Integer => json!(self.middle().round() as i64),
            ColumnType::Number => json!(self.middle()),
            ColumnType::String => json!("text"),
            ColumnType::Object => Value::Null,
        }
    }

    fn middle(&self) -> f64 {
        let minimum = self.minimum.as_ref().and_then(Value::as_f64);
        self.mean.or(minimum).unwrap_or(0.0)
    }
}

/// A time with its offset, as RFC 3339 wants it; one without is taken as UTC.
fn zoned(text: &str) -> String {
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let has_offset = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
    format!("{day}T{time}{}", if has_offset { "" } else { "Z" })
}

impl ResponseSchema {
    pub fn read(value: &Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    /// JSON Schema of one row's answer. What `predict` is annotated with says more than the answers that were seen; without a hint,
    /// those do. A number may always be null: JSON has no NaN, and null stands for it.
    pub fn item(&self, hint: &Schema) -> Value {
        match hint {
            Schema::List(items, _) if **items != Schema::Any => with_nan(items.to_json()),
            _ => with_nan(recorded(&self.items)),
        }
    }
}

/// run.json's `nullable` as JSON Schema's `null` type.
fn recorded(items: &Value) -> Value {
    let Value::Object(keys) = items else {
        return json!({});
    };
    let mut schema = Map::new();
    for (key, value) in keys {
        match (key.as_str(), value) {
            ("items", inner) => {
                schema.insert(key.clone(), recorded(inner));
            }
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter().map(|(name, field)| (name.clone(), recorded(field)));
                schema.insert(key.clone(), Value::Object(fields.collect()));
            }
            ("type", kind) if keys.get("nullable") == Some(&Value::Bool(true)) => {
                schema.insert(key.clone(), json!([kind, "null"]));
            }
            ("type", kind) => {
                schema.insert(key.clone(), kind.clone());
            }
            _ => {}
        }
    }
    Value::Object(schema)
}

fn with_nan(schema: Value) -> Value {
    match schema {
        Value::Object(keys) => {
            let is_number = keys.get("type").and_then(Value::as_str) == Some("number");
            let entries = keys.into_iter().map(|(key, value)| match key.as_str() {
                "type" if is_number => (key, json!(["number", "null"])),
                "properties" => {
                    let Value::Object(fields) = value else {
                        return (key, value);
                    };
                    let fields = fields.into_iter().map(|(name, field)| (name, with_nan(field)));
                    (key, Value::Object(fields.collect()))
                }
                "items" | "prefixItems" | "anyOf" | "additionalProperties" => (key, with_nan(value)),
                _ => (key, value),
            });
            Value::Object(entries.collect())
        }
        Value::Array(items) => items.into_iter().map(with_nan).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_come_from_statistics() {
        let request = RequestSchema::read(&json!({ "node": "customers", "kind": "table", "columns": [
            {"name": "age", "type": "integer", "dtype": "int64", "required": true, "nullable": false, "mean": 44.6},
            {"name": "plan", "type": "string", "dtype": "object", "required": true, "nullable": false,
             "categories": ["a", "b"], "example": "b"},
            {"name": "since", "type": "datetime", "dtype": "datetime64[ns]", "required": true, "nullable": false,
             "example": "2024-05-31T10:00:00", "new key": 1},
            {"name": "notes", "type": "object", "dtype": "object", "required": false, "nullable": true},
        ]}))
        .unwrap();
        let example = Value::Object(request.example());
        let expected = json!({ "age": 45, "plan": "b", "since": "2024-05-31T10:00:00Z", "notes": null });
        assert_eq!(example, expected);
        assert!(RequestSchema::read(&Value::Null).is_none());
    }

    #[test]
    fn a_number_may_be_null_and_a_hint_says_more_than_what_was_seen() {
        let seen = ResponseSchema::read(&json!({ "kind": "list", "items": {
            "type": "object", "properties": { "p": { "type": "number" }, "why": { "type": "string", "nullable": true } } } }));
        let expected = json!({ "type": "object", "properties": {
            "p": { "type": ["number", "null"] }, "why": { "type": ["string", "null"] } } });
        assert_eq!(seen.item(&Schema::Any), expected);
        let hint = Schema::List(Box::new(Schema::Integer(Default::default())), Default::default());
        assert_eq!(seen.item(&hint), json!({ "type": "integer" }));
        assert_eq!(ResponseSchema::default().item(&Schema::Any), json!({}));
    }
}

//! What a request and an answer look like: from type hints, read from the source, and from what training recorded.
//!
//! [`of`] turns an annotation of the project's into a [`Schema`]: TypedDict, dataclass, pydantic model, Enum, Literal, Annotated,
//! builtin generics. A type that is not known is [`Schema::Any`]: an opaque object, never an error. `recorded` holds the schemas of
//! run.json.

mod annotation;
mod recorded;

use serde_json::{Map, Value, json};

pub use annotation::of;
pub use recorded::{Column, ColumnType, Kind, RequestSchema, ResponseSchema};

/// The shape of a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Schema {
    /// Anything: a type that is not known, or `Any`.
    Any,
    Null,
    Boolean,
    Integer(Limits),
    Number(Limits),
    Text(Limits),
    /// ISO 8601, as a string.
    Datetime,
    Date,
    /// One of these.
    Literal(Vec<Value>),
    List(Box<Schema>, Limits),
    /// A list of exactly these.
    Tuple(Vec<Schema>),
    /// An object with any keys.
    Map(Box<Schema>),
    Record(Record),
    Union(Vec<Schema>),
}

/// What pydantic's `Field` and annotated-types say beyond the type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub minimum: Option<Value>,
    pub maximum: Option<Value>,
    pub above: Option<Value>,
    pub below: Option<Value>,
    pub shortest: Option<u64>,
    pub longest: Option<u64>,
    pub pattern: Option<String>,
    pub multiple_of: Option<Value>,
}

/// A class with fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The class's name, and the module that defines it.
    pub name: String,
    pub module: String,
    pub kind: RecordKind,
    pub fields: Vec<Field>,
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    TypedDict,
    Dataclass,
    Pydantic,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As JSON has it: a pydantic alias, where there is one.
    pub name: String,
    pub schema: Schema,
    pub required: bool,
    pub description: Option<String>,
}

impl Schema {
    /// The record of `list[Customer]`, or of `Customer`.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::List(items, _) => items.record(),
            _ => None,
        }
    }

    /// Whether `null` is one of its values.
    pub fn takes_null(&self) -> bool {
        match self {
            Self::Any | Self::Null => true,
            Self::Literal(values) => values.contains(&Value::Null),
            Self::Union(options) => options.iter().any(Self::takes_null),
            _ => false,
        }
    }

    /// As JSON Schema (draft 2020-12).
    pub fn to_json(&self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Null => json!({ "type": "null" }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Integer(limits) => limits.on(json!({ "type": "integer" })),
            Self::Number(limits) => limits.on(json!({ "type": "number" })),
            Self::Text(limits) => limits.on(json!({ "type": "string" })),
            Self::Datetime => json!({ "type": "string", "format": "date-time" }),
            Self::Date => json!({ "type": "string", "format": "date" }),
            Self::Literal(values) => json!({ "enum": values }),
            Self::List(items, limits) => {
                let mut list = json!({ "type": "array", "items": items.to_json() });
                limits.sizes(&mut list, "minItems", "maxItems");
                list
            }
            Self::Tuple(items) => json!({
                "type": "array",
                "prefixItems": items.iter().map(Self::to_json).collect::<Vec<_>>(),
                "minItems": items.len(),
                "maxItems": items.len(),
            }),
            Self::Map(values) => json!({ "type": "object", "additionalProperties": values.to_json() }),
            Self::Record(record) => record.to_json(),
            Self::Union(options) => union(options),
        }
    }
}

/// `["number", "null"]` where that says it all, else `anyOf`.
fn union(options: &[Schema]) -> Value {
    if let [one, Schema::Null] | [Schema::Null, one] = options {
        let mut one = one.to_json();
        if let Some(Value::String(kind)) = one.get("type").cloned() {
            one["type"] = json!([kind, "null"]);
            return one;
        }
    }
    json!({ "anyOf": options.iter().map(Schema::to_json).collect::<Vec<_>>() })
}

impl Limits {
    fn on(&self, mut schema: Value) -> Value {
        let numbers = [
            ("minimum", &self.minimum),
            ("maximum", &self.maximum),
            ("exclusiveMinimum", &self.above),
            ("exclusiveMaximum", &self.below),
            ("multipleOf", &self.multiple_of),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                schema[key] = value.clone();
            }
        }
        self.sizes(&mut schema, "minLength", "maxLength");
        if let Some(pattern) = &self.pattern {
            schema["pattern"] = json!(pattern);
        }
        schema
    }

    fn sizes(&self, schema: &mut Value, shortest: &str, longest: &str) {
        for (key, value) in [(shortest, self.shortest), (longest, self.longest)] {
            if let Some(value) = value {
                schema[key] = json!(value);
            }
        }
    }
}

impl Record {
    fn to_json(&self) -> Value {
        let mut properties = Map::new();
        for field in &self.fields {
            let mut schema = field.schema.to_json();
            if let (Some(description), Value::Object(keys)) = (&field.description, &mut schema) {
                keys.insert("description".to_owned(), json!(description));
            }
            properties.insert(field.name.clone(), schema);
        }
        let required: Vec<&str> = self
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| field.name.as_str())
            .collect();
        let mut schema = json!({ "type": "object", "title": self.name });
        if let Some(description) = &self.description {
            schema["description"] = json!(description);
        }
        schema["properties"] = Value::Object(properties);
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

//! The service as an OpenAPI 3.1 document: what `/predict` takes and answers, and the routes beside it.
//!
//! Takes schemas; gives JSON, the same for the same schemas. It says what the runtime does (`templates/runtime`: `decode`, `columns`,
//! `protocols/own`, `web`), nothing stricter and nothing laxer where JSON Schema can say it. Examples are made up from statistics.
//!
//! Source: OpenAPI 3.1.1, JSON Schema 2020-12, RFC 9457 for errors.

mod contracts;

use serde_json::{Map, Value, json};

use crate::project::Project;
use crate::project::source::cut::Request;
use crate::project::source::graph::Node;
use crate::project::source::schema::{
    self, Column, ColumnType, Record, RecordKind, RequestSchema, ResponseSchema, Schema,
};

/// What the document is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Service<'a> {
    pub name: &'a str,
    pub version: Option<&'a str>,
    pub description: Option<&'a str>,
    pub request: &'a RequestSchema,
    /// What serve.py says that the records are: its limits hold when it is a pydantic model.
    pub record: Option<&'a Record>,
    pub response: &'a ResponseSchema,
    /// What `predict` is annotated with; [`Schema::Any`] without a hint.
    pub answer: &'a Schema,
}

/// The document of a trained project; `None` when no run has recorded a request.
pub fn of(project: &Project) -> Option<Value> {
    let run = project.run.as_ref()?;
    let request = RequestSchema::read(&run.request)?;
    let response = ResponseSchema::read(&run.response);
    let predict = project.graph.node(project.cut.predict);
    let hint = |node: &Node, text: Option<&str>| {
        text.map_or(Schema::Any, |text| {
            schema::of(&project.sources, &node.module, text)
        })
    };
    let rows = match &project.cut.request {
        Request::Table(_) => Schema::Any,
        Request::Functions(takers) => {
            let taker = project.graph.node(*takers.first()?);
            let input = taker.inputs.iter().find(|input| input.is_request)?;
            hint(taker, input.annotation.as_deref())
        }
    };
    let pyproject = &project.manifest.pyproject;
    let version = pyproject.version.as_ref().map(ToString::to_string);
    Some(document(&Service {
        name: &pyproject.display_name,
        version: version.as_deref(),
        description: pyproject.description.as_deref(),
        request: &request,
        record: rows.record(),
        response: &response,
        answer: &hint(predict, predict.returns.as_deref()),
    }))
}

/// The document.
pub fn document(service: &Service<'_>) -> Value {
    let mut info = json!({
        "title": service.name,
        "version": service.version.unwrap_or("0"),
    });
    if let Some(description) = service.description {
        info["description"] = json!(description);
    }
    let mut paths = json!({
            "/predict": { "post": predict(service) },
            "/livez": { "get": get("live", "Whether the process is up", json!({ "200": status("up") })) },
            "/readyz": { "get": ready("ready") },
            "/healthz": { "get": ready("healthy") },
            "/metrics": { "get": get("metrics", "Counts and latencies, as Prometheus reads them", json!({
                "200": answer("Metrics", "text/plain", json!({ "type": "string" })),
            })) },
            "/metadata": { "get": get("metadata", "What is served: schemas, an example, versions", json!({
                "200": answer("Facts", "application/json", metadata()),
            })) },
            "/openapi.json": { "get": get("openapi", "This document", json!({
                "200": answer("OpenAPI", "application/json", json!({ "type": "object" })),
            })) },
            "/docs": { "get": get("docs", "This document, for people", json!({
                "200": answer("A page", "text/html", json!({ "type": "string" })),
            })) },
    });
    if let Value::Object(paths) = &mut paths {
        paths.extend(contracts::paths(service));
        for (path, item) in paths.iter_mut() {
            guard(path, item);
        }
    }
    json!({
        "openapi": "3.1.1",
        "info": info,
        "paths": paths,
        "components": { "schemas": {
            "Record": record(service),
            "Predictions": {
                "type": "object",
                "properties": { "predictions": {
                    "type": "array",
                    "description": "One answer per row, in the order of the rows.",
                    "items": service.response.item(service.answer),
                } },
                "required": ["predictions"],
            },
            "Problem": problem(),
        }, "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer", "description": "One of those in the file that MLRAILS_TOKEN_FILE names." },
        } },
    })
}

/// What says whether the process is well: probes have no token to show, so these are open when one is needed (`web.py`).
const PROBES: [&str; 7] = [
    "/livez", "/readyz", "/healthz", "/ping", "/health", "/live", "/ready",
];

/// Adds what a token means for a path. The runtime takes it away where none is needed.
fn guard(path: &str, item: &mut Value) {
    let open = PROBES.iter().any(|probe| path.ends_with(probe)) || contracts::is_open(path);
    let Value::Object(operations) = item else { return };
    for (method, operation) in operations {
        if open {
            operation["security"] = json!([]);
        } else {
            let schema = json!({ "$ref": "#/components/schemas/Problem" });
            operation["responses"]["401"] = match path {
                path if method == "post" && contracts::answers_plainly(path) => answer(
                    "A token is needed",
                    "application/json",
                    json!({ "type": "object" }),
                ),
                _ => answer("A token is needed", "application/problem+json", schema),
            };
        }
    }
}

/// Taken and answered where pyarrow is installed; the runtime strikes them out elsewhere (`openapi.py`).
const ARROW: &str = "application/vnd.apache.arrow.stream";
const PARQUET: &str = "application/vnd.apache.parquet";

fn predict(service: &Service<'_>) -> Value {
    let example = service.request.example();
    let names: Vec<&String> = example.keys().collect();
    let values: Vec<&Value> = example.values().collect();
    let mut bodies = vec![];
    let mut examples = json!({
        "one": { "summary": "One record", "value": example },
        "many": { "summary": "A list of records", "value": [example] },
    });
    let columns = &service.request.columns;
    // With columns of both names, an object that has them is a record like any other.
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let has_split = !(has("columns") && has("data"));
    if has_split {
        bodies.push(json!({
            "$ref": "#/components/schemas/Record",
            "not": { "required": ["columns", "data"] },
        }));
    } else {
        bodies.push(json!({ "$ref": "#/components/schemas/Record" }));
    }
    bodies.push(json!({ "type": "array", "items": { "$ref": "#/components/schemas/Record" } }));
    if has_split {
        bodies.push(split(service));
        examples["split"] = json!({
            "summary": "Columns once, then the rows",
            "value": { "columns": names, "data": [values] },
        });
    }
    let media = |schema: Value| json!({ "schema": schema });
    let mut json_body = media(json!({ "anyOf": bodies }));
    json_body["examples"] = examples;
    let mut csv_body = media(json!({ "type": "string" }));
    csv_body["example"] = json!(csv(&example));
    let refusals = [
        ("400", "The body is not what its media type says"),
        ("408", "The body did not come in time"),
        ("413", "The body is too large"),
        ("415", "The media type is not taken"),
        (
            "422",
            "Rows do not fit the schema: one entry per value, with row, column and rule",
        ),
        ("500", "The pipeline failed"),
        (
            "503",
            "Too many requests are waiting, or the model is still loading",
        ),
    ];
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "One answer per row",
            "headers": { "x-mlrails-ignored": {
                "description": "Names that are no column's, percent-encoded, where a row left an optional column out: one may be the other misspelt.",
                "schema": { "type": "string" },
            } },
            "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Predictions" } },
                "text/csv": { "schema": { "type": "string" } },
                ARROW: {},
                PARQUET: {},
            },
        }),
    );
    for (code, description) in refusals {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let mut refusal = answer(description, "application/problem+json", schema);
        if code == "503" {
            let seconds = json!({ "description": "Seconds to wait", "schema": { "type": "string" } });
            refusal["headers"] = json!({ "retry-after": seconds });
        }
        responses.insert(code.to_owned(), refusal);
    }
    json!({
        "operationId": "predict",
        "summary": "One answer per row",
        "requestBody": {
            "required": true,
            "description": "One record, a list of records, columns and data, or CSV with a header line. Fields that the \
                            pipeline does not read are ignored. A missing value is null, or an empty cell.",
            "content": {
                "application/json": json_body,
                "text/csv": csv_body,
                ARROW: {},
                PARQUET: {},
            },
        },
        "responses": responses,
    })
}

/// `{"columns": [...], "data": [[...]]}` with all columns in order. Other orders are taken too, which no schema can say.
fn split(service: &Service<'_>) -> Value {
    let columns = &service.request.columns;
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let items: Vec<Value> = columns.iter().map(|one| column(one, service.record)).collect();
    let mut row = json!({ "type": "array", "minItems": items.len(), "maxItems": items.len() });
    if !items.is_empty() {
        row["prefixItems"] = Value::Array(items);
    }
    json!({
        "type": "object",
        "properties": {
            "columns": { "const": names, "description": "Any order is taken, and optional columns may be left out." },
            "data": { "type": "array", "items": row },
        },
        "required": ["columns", "data"],
    })
}

/// The example as a CSV file of one row (RFC 4180).
fn csv(example: &Map<String, Value>) -> String {
    let quoted = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    let header: Vec<String> = example.keys().map(|name| quoted(name)).collect();
    let row: Vec<String> = example.values().map(cell).collect();
    format!("{}\n{}\n", header.join(","), row.join(","))
}

fn record(service: &Service<'_>) -> Value {
    let columns = &service.request.columns;
    let properties = columns
        .iter()
        .map(|one| (one.name.clone(), column(one, service.record)));
    let required: Vec<&str> = columns
        .iter()
        .filter(|column| column.required)
        .map(|column| column.name.as_str())
        .collect();
    let mut schema = json!({ "type": "object", "properties": Value::Object(properties.collect()) });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if let Some(text) = service.record.and_then(|record| record.description.as_ref()) {
        schema["description"] = json!(text);
    }
    schema
}

/// One column as `columns.py` checks it. What training saw and no rule demands is told in words.
fn column(column: &Column, record: Option<&Record>) -> Value {
    let kind = match column.kind {
        ColumnType::Boolean => "boolean",
        ColumnType::Integer => "integer",
        ColumnType::Number => "number",
        ColumnType::String | ColumnType::Datetime => "string",
        ColumnType::Object => "",
    };
    let mut schema = match (kind, column.takes_null()) {
        ("", true) => json!({}),
        ("", false) => json!({ "not": { "type": "null" } }),
        (kind, true) => json!({ "type": [kind, "null"] }),
        (kind, false) => json!({ "type": kind }),
    };
    let mut notes = Vec::new();
    let hint = record.and_then(|record| record.fields.iter().find(|field| field.name == column.name));
    notes.extend(hint.and_then(|field| field.description.clone()));
    if column.kind == ColumnType::Integer {
        let (low, high) = bounds(&column.dtype);
        schema["minimum"] = low;
        schema["maximum"] = high;
    }
    // A float64 holds what JSON's numbers are read as.
    let most = match column.dtype.as_str() {
        "float16" => Some(65504.0),
        "float32" => Some(f64::from(f32::MAX)),
        _ => None,
    };
    if let (ColumnType::Number, Some(most)) = (column.kind, most) {
        schema["minimum"] = json!(-most);
        schema["maximum"] = json!(most);
    }
    if column.kind == ColumnType::Datetime {
        schema["format"] = json!("date-time");
        let years = if column.dtype.starts_with("datetime64[ns") {
            ", from 1677 to 2262"
        } else {
            ""
        };
        notes.push(format!(
            "ISO 8601{years}; a time without an offset is taken as UTC."
        ));
    }
    if let Some(known) = &column.categories {
        if column.is_closed() {
            let nothing = column.takes_null().then_some(&Value::Null);
            schema["enum"] = known.iter().chain(nothing).cloned().collect();
        } else {
            let shown: Vec<String> = known.iter().take(20).map(shown).collect();
            let more = if known.len() > shown.len() { ", …" } else { "" };
            notes.push(format!("In training: {}{more}.", shown.join(", ")));
        }
    } else if let (Some(low), Some(high)) = (&column.minimum, &column.maximum) {
        notes.push(format!("In training: {} to {}.", shown(low), shown(high)));
    }
    // Only pydantic checks what its fields say; a TypedDict's or dataclass' hints are hints.
    if record.is_some_and(|record| record.kind == RecordKind::Pydantic)
        && let (Some(field), Value::Object(keys)) = (hint, &mut schema)
    {
        tighten(keys, &field.schema);
    }
    if !notes.is_empty() {
        schema["description"] = json!(notes.join(" "));
    }
    let example = column.made_up();
    if !example.is_null() || column.takes_null() {
        schema["examples"] = json!([example]);
    }
    schema
}

/// Adds what a pydantic field demands beyond its type.
fn tighten(schema: &mut Map<String, Value>, field: &Schema) {
    let Value::Object(demanded) = field.to_json() else {
        return;
    };
    for (key, value) in demanded {
        if !matches!(
            key.as_str(),
            "type" | "format" | "anyOf" | "title" | "description"
        ) {
            schema.insert(key, value);
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What an integer column holds, by its dtype; without one, what any of numpy's integers does.
fn bounds(dtype: &str) -> (Value, Value) {
    let name = dtype.to_ascii_lowercase();
    let (signed, bits) = match name.strip_prefix("uint") {
        Some(bits) => (false, bits),
        None => (true, name.strip_prefix("int").unwrap_or_default()),
    };
    let bits: u32 = match bits {
        "8" => 8,
        "16" => 16,
        "32" => 32,
        "64" => 64,
        _ => return (json!(i64::MIN), json!(u64::MAX)),
    };
    match signed {
        true => (json!(i64::MIN >> (64 - bits)), json!(i64::MAX >> (64 - bits))),
        false => (json!(0), json!(u64::MAX >> (64 - bits))),
    }
}

fn get(id: &str, summary: &str, responses: Value) -> Value {
    json!({ "operationId": id, "summary": summary, "responses": responses })
}

fn ready(id: &str) -> Value {
    let mut not_yet = answer(
        "Still loading, or draining",
        "application/json",
        json!({
            "type": "object",
            "properties": { "status": { "enum": ["loading", "draining"] } },
            "required": ["status"],
        }),
    );
    let seconds = json!({ "description": "Seconds to wait", "schema": { "type": "string" } });
    not_yet["headers"] = json!({ "retry-after": seconds });
    let summary = "Whether the model is loaded and has answered a golden row";
    get(id, summary, json!({ "200": status("ready"), "503": not_yet }))
}

fn status(word: &str) -> Value {
    answer(
        "Yes",
        "application/json",
        json!({
            "type": "object",
            "properties": { "status": { "const": word } },
            "required": ["status"],
        }),
    )
}

fn answer(description: &str, media: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { media: { "schema": schema } } })
}

fn metadata() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "version": { "type": "string" },
            "request": { "type": "object" },
            "response": { "type": "object" },
            "example": { "type": "object" },
            "versions": { "type": "object", "additionalProperties": { "type": "string" } },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        },
        "required": ["name"],
    })
}

/// RFC 9457, with one entry per value that does not fit.
fn problem() -> Value {
    json!({
        "type": "object",
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "errors": { "type": "array", "items": {
                "type": "object",
                "properties": {
                    "row": { "type": "integer", "description": "Counted from 0." },
                    "column": { "type": ["string", "null"] },
                    "rule": { "type": "string" },
                    "message": { "type": "string" },
                },
                "required": ["row", "column", "rule", "message"],
            } },
            "more_errors": { "type": "integer", "description": "How many errors are not listed." },
            "request_id": { "type": "string" },
        },
        "required": ["type", "title", "status"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(column_json: Value, expected: Value) {
        let one: Column = serde_json::from_value(column_json).unwrap();
        let mut schema = column(&one, None);
        schema.as_object_mut().unwrap().shift_remove("description");
        assert_eq!(schema, expected);
    }

    #[test]
    fn columns_say_what_the_runtime_checks() {
        check(
            json!({"name": "a", "type": "integer", "dtype": "int8", "required": true, "nullable": false, "mean": 3.2, "minimum": 0, "maximum": 9}),
            json!({"type": "integer", "minimum": -128, "maximum": 127, "examples": [3]}),
        );
        check(
            json!({"name": "a", "type": "integer", "dtype": "UInt16", "required": false, "nullable": false, "example": 4}),
            json!({"type": ["integer", "null"], "minimum": 0, "maximum": 65535, "examples": [4]}),
        );
        check(
            json!({"name": "a", "type": "string", "dtype": "category", "required": true, "nullable": true, "categories": ["x", "y"]}),
            json!({"type": ["string", "null"], "enum": ["x", "y", null], "examples": ["x"]}),
        );
        // Words seen in training are no rule: a new one is taken.
        check(
            json!({"name": "a", "type": "string", "dtype": "object", "required": true, "nullable": false, "categories": ["x"]}),
            json!({"type": "string", "examples": ["x"]}),
        );
        check(
            json!({"name": "a", "type": "datetime", "dtype": "datetime64[ns]", "required": true, "nullable": false}),
            json!({"type": "string", "format": "date-time", "examples": ["2024-01-01T00:00:00Z"]}),
        );
        check(
            json!({"name": "a", "type": "object", "dtype": "object", "required": true, "nullable": false}),
            json!({"not": {"type": "null"}}),
        );
    }
}

//! Whether the free-form parts of run.json are what `run` writes: a damaged record must be told when it is read, not by the server.
//!
//! Takes the record; gives the first key that is wrong, and why. Keys that are not known pass.

use serde_json::Value;

use super::RunRecord;
use crate::project::source::schema::{Column, Kind};

/// The first fault: `` `golden.rows[3]` must be a record, not a number ``.
pub(super) fn fault(record: &RunRecord) -> Option<String> {
    request(&record.request)
        .and_then(|()| response(&record.response))
        .and_then(|()| golden(&record.golden))
        .and_then(|()| serving(&record.serving))
        .err()
}

fn request(value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    object("request", value)?;
    if let Some(kind) = value.get("kind") {
        serde_json::from_value::<Kind>(kind.clone())
            .map_err(|_| format!("`request.kind` is {kind}, and neither \"table\" nor \"records\""))?;
    }
    let Some(columns) = value.get("columns").filter(|columns| !columns.is_null()) else {
        return Ok(());
    };
    for (at, column) in list("request.columns", columns)?.iter().enumerate() {
        serde_json::from_value::<Column>(column.clone())
            .map_err(|error| format!("`request.columns[{at}]` is no column: {error}"))?;
    }
    Ok(())
}

fn response(value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    object("response", value)?;
    match value.get("kind") {
        None | Some(Value::String(_)) => {}
        Some(other) => return Err(must("response.kind", "a text", other)),
    }
    match value.get("items") {
        None | Some(Value::Null) => Ok(()),
        Some(items) => object("response.items", items),
    }
}

fn golden(value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    object("golden", value)?;
    let each = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(found) => list(&format!("golden.{key}"), found).map(Some),
    };
    let rows = each("rows")?.map_or(&[][..], Vec::as_slice);
    let predictions = each("predictions")?.map_or(&[][..], Vec::as_slice);
    for (at, row) in rows.iter().enumerate() {
        if !row.is_object() {
            return Err(must(&format!("golden.rows[{at}]"), "a record", row));
        }
    }
    match rows.len() == predictions.len() {
        true => Ok(()),
        false => Err(format!(
            "`golden.predictions` has {} answers for the {} records of `golden.rows`",
            predictions.len(),
            rows.len()
        )),
    }
}

fn serving(value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    object("serving", value)?;
    if let Some(modules) = value.get("modules") {
        for (at, module) in list("serving.modules", modules)?.iter().enumerate() {
            if !module.is_string() {
                return Err(must(&format!("serving.modules[{at}]"), "a module's name", module));
            }
        }
    }
    if let Some(loaded) = value.get("loaded") {
        object("serving.loaded", loaded)?;
    }
    Ok(())
}

fn object(key: &str, value: &Value) -> Result<(), String> {
    match value.is_object() {
        true => Ok(()),
        false => Err(must(key, "an object", value)),
    }
}

fn list<'v>(key: &str, value: &'v Value) -> Result<&'v Vec<Value>, String> {
    value.as_array().ok_or_else(|| must(key, "a list", value))
}

fn must(key: &str, expected: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("`{key}` must be {expected}, not {found}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: Value, expected: Option<&str>) {
        let mut record = json!({ "schema": 1, "mlrails": "0.1.0", "python": "3.11.7", "nodes": {} });
        record
            .as_object_mut()
            .unwrap()
            .extend(text.as_object().unwrap().clone());
        let record: RunRecord = serde_json::from_value(record).unwrap();
        assert_eq!(fault(&record).as_deref(), expected);
    }

    #[test]
    fn what_run_writes_passes_and_newer_keys_too() {
        check(json!({}), None);
        check(
            json!({ "request": { "columns": [] }, "golden": { "rows": [] }, "response": {}, "new": 1 }),
            None,
        );
        let column =
            json!({ "name": "a", "type": "number", "required": true, "nullable": false, "unit": "EUR" });
        check(
            json!({
                "request": { "kind": "table", "columns": [column] }, "golden": { "rows": [{}], "predictions": [null] },
                "response": { "kind": "list", "items": {} }, "serving": { "modules": ["a.b"], "loaded": {} },
            }),
            None,
        );
    }

    #[test]
    fn damage_is_named_by_its_key() {
        check(
            json!({ "golden": 3 }),
            Some("`golden` must be an object, not a number"),
        );
        check(
            json!({ "golden": { "rows": {} } }),
            Some("`golden.rows` must be a list, not an object"),
        );
        check(
            json!({ "golden": { "rows": [{}, 1] } }),
            Some("`golden.rows[1]` must be a record, not a number"),
        );
        check(
            json!({ "golden": { "rows": [{}, {}], "predictions": [1] } }),
            Some("`golden.predictions` has 1 answers for the 2 records of `golden.rows`"),
        );
        check(
            json!({ "response": "list" }),
            Some("`response` must be an object, not a text"),
        );
        check(
            json!({ "response": { "items": [] } }),
            Some("`response.items` must be an object, not a list"),
        );
        check(
            json!({ "response": { "kind": 1 } }),
            Some("`response.kind` must be a text, not a number"),
        );
        check(
            json!({ "request": { "kind": "frame" } }),
            Some("`request.kind` is \"frame\", and neither \"table\" nor \"records\""),
        );
        check(
            json!({ "request": { "columns": [{ "type": "number" }] } }),
            Some("`request.columns[0]` is no column: missing field `name`"),
        );
        check(
            json!({ "serving": { "modules": [1] } }),
            Some("`serving.modules[0]` must be a module's name, not a number"),
        );
        check(
            json!({ "serving": { "loaded": [] } }),
            Some("`serving.loaded` must be an object, not a list"),
        );
    }
}

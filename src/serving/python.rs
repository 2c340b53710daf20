//! JSON values and names as Python source.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

/// A JSON value as a Python expression.
pub fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        // Each of JSON's escapes means the same in a Python string.
        Value::String(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let mut text = String::from("{");
            for (at, (key, value)) in fields.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                let key = Value::String(key.clone());
                let _ = write!(text, "{comma}{key}: {}", literal(value));
            }
            text.push('}');
            text
        }
    }
}

/// `wanted`, or it with underscores appended until nothing else is called that; takes the name.
pub fn free(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_written_as_python() {
        let check = |value: Value, python: &str| assert_eq!(literal(&value), python);
        check(json!(null), "None");
        check(
            json!([true, false, 1, 1.5, 1e300]),
            "[True, False, 1, 1.5, 1e+300]",
        );
        check(json!("a\"b\\\n\u{1}é"), r#""a\"b\\\n\u0001é""#);
        check(json!({"a": {"b": []}}), r#"{"a": {"b": []}}"#);
    }
}

//! Python literals as JSON, where the two agree; the source's text where they do not.

use ruff_python_ast::{Expr, Number, UnaryOp};

/// `None` where the expression is no literal, or one that JSON has no equal for (bytes, sets, complex, keys that are no strings).
pub fn json(expression: &Expr) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match expression {
        Expr::NoneLiteral(_) => Value::Null,
        Expr::BooleanLiteral(literal) => Value::Bool(literal.value),
        Expr::StringLiteral(literal) => Value::String(literal.value.to_str().to_owned()),
        Expr::NumberLiteral(literal) => number(&literal.value)?,
        Expr::UnaryOp(unary) => match (unary.op, json(&unary.operand)?) {
            (UnaryOp::USub, Value::Number(number)) => match number.as_i64() {
                Some(integer) => integer.checked_neg()?.into(),
                None => serde_json::Number::from_f64(-number.as_f64()?)?.into(),
            },
            (UnaryOp::UAdd, Value::Number(number)) => Value::Number(number),
            _ => return None,
        },
        Expr::List(list) => list.elts.iter().map(json).collect::<Option<_>>()?,
        Expr::Tuple(tuple) => tuple.elts.iter().map(json).collect::<Option<_>>()?,
        Expr::Dict(dict) => {
            let mut entries = serde_json::Map::new();
            for item in &dict.items {
                let Some(Expr::StringLiteral(key)) = &item.key else {
                    return None;
                };
                entries.insert(key.value.to_str().to_owned(), json(&item.value)?);
            }
            Value::Object(entries)
        }
        _ => return None,
    })
}

fn number(number: &Number) -> Option<serde_json::Value> {
    match number {
        Number::Int(int) => Some(int.as_i64()?.into()),
        Number::Float(float) => Some(serde_json::Number::from_f64(*float)?.into()),
        Number::Complex { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_json_can_say() {
        let check = |text: &str| {
            let parsed = ruff_python_parser::parse_expression(text).unwrap();
            super::json(&parsed.syntax().body).map(|value| value.to_string())
        };
        assert_eq!(check("-1.5").as_deref(), Some("-1.5"));
        assert_eq!(check("(1, 'a' 'b', None)").as_deref(), Some(r#"[1,"ab",null]"#));
        assert_eq!(check("{'a': [True]}").as_deref(), Some(r#"{"a":[true]}"#));
        assert_eq!(check("{1: 2}"), None);
        assert_eq!(check("DEFAULT"), None);
        assert_eq!(check("f'{x}'"), None);
    }
}

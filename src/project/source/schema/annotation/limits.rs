//! Limits that annotations set: `ge=0, le=10, max_length=3`, and what of a schema they apply to.
//!
//! Source: annotated-types; pydantic 2's `Field`.

use ruff_python_ast::{Arguments, Expr};
use serde_json::Value;

use crate::project::source::literal;
use crate::project::source::schema::{Limits, Schema};

/// `schema` with `limits` on whatever of it they apply to.
pub(super) fn limited(schema: Schema, limits: &Limits) -> Schema {
    let merged = |own: Limits| Limits {
        minimum: limits.minimum.clone().or(own.minimum),
        maximum: limits.maximum.clone().or(own.maximum),
        above: limits.above.clone().or(own.above),
        below: limits.below.clone().or(own.below),
        shortest: limits.shortest.or(own.shortest),
        longest: limits.longest.or(own.longest),
        pattern: limits.pattern.clone().or(own.pattern),
        multiple_of: limits.multiple_of.clone().or(own.multiple_of),
    };
    match schema {
        Schema::Integer(own) => Schema::Integer(merged(own)),
        Schema::Number(own) => Schema::Number(merged(own)),
        Schema::Text(own) => Schema::Text(merged(own)),
        Schema::List(items, own) => Schema::List(items, merged(own)),
        Schema::Union(options) => Schema::Union(
            options
                .into_iter()
                .map(|option| limited(option, limits))
                .collect(),
        ),
        other => other,
    }
}

/// `ge=0, le=10, max_length=3 …`
pub(super) fn limits(arguments: &Arguments) -> Limits {
    let number = |name: &str| {
        keyword(arguments, name)
            .and_then(literal::json)
            .filter(Value::is_number)
    };
    let length = |name: &str| number(name).and_then(|value| value.as_u64());
    Limits {
        minimum: number("ge"),
        maximum: number("le"),
        above: number("gt"),
        below: number("lt"),
        shortest: length("min_length"),
        longest: length("max_length"),
        pattern: text(arguments, "pattern"),
        multiple_of: number("multiple_of"),
    }
}

pub(super) fn keyword<'e>(arguments: &'e Arguments, name: &str) -> Option<&'e Expr> {
    let found = arguments
        .keywords
        .iter()
        .find(|keyword| keyword.arg.as_ref().is_some_and(|known| known.as_str() == name));
    found.map(|keyword| &keyword.value)
}

pub(super) fn text(arguments: &Arguments, name: &str) -> Option<String> {
    match keyword(arguments, name)? {
        Expr::StringLiteral(text) => Some(text.value.to_str().to_owned()),
        _ => None,
    }
}

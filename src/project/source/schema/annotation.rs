//! Annotations as schemas: names are followed through imports and aliases to classes of the project, or to types that are known.
//!
//! Nothing is evaluated. What cannot be followed is [`Schema::Any`], and so is what refers to itself or nests too deep.
//!
//! Source: PEP 484, 586, 589, 593, 604, 655; `dataclasses`; pydantic 2's models and `Field`.

mod classes;
mod limits;
mod named;

use std::cell::{Cell, RefCell};

use classes::Options;
use limits::{limited, limits};
use named::Named;
use ruff_python_ast::{Expr, ExprCall, Operator};
use serde_json::Value;

use super::{Limits, Schema};
use crate::project::source::{Module, Sources, literal};

/// The longest annotation that is read, in bytes: it may come out of a string, where nothing has limited it.
const LONGEST: usize = 4096;
/// The most brackets in one.
const MOST_BRACKETS: usize = 200;
/// How deep types may contain each other.
const DEEPEST: usize = 24;
/// How many types are looked at for one annotation: classes that name each other often would multiply.
const MOST_STEPS: usize = 20_000;

/// What `annotation`, as it is written in `module`, says.
pub fn of(sources: &Sources, module: &str, annotation: &str) -> Schema {
    let Some(module) = sources.get(module) else {
        return Schema::Any;
    };
    let progress = Progress {
        steps: Cell::new(0),
        open: RefCell::default(),
    };
    let reader = Reader {
        sources,
        progress: &progress,
        depth: 0,
    };
    reader.text(module, annotation)
}

#[derive(Clone, Copy)]
struct Reader<'a, 'p> {
    sources: &'a Sources,
    progress: &'p Progress,
    depth: usize,
}

/// How far the reading is.
struct Progress {
    steps: Cell<usize>,
    /// Classes whose fields are being read: module and name.
    open: RefCell<Vec<(String, String)>>,
}

impl<'a> Reader<'a, '_> {
    fn text(self, module: &'a Module, text: &str) -> Schema {
        let brackets = text.bytes().filter(|byte| b"[({".contains(byte)).count();
        if text.len() > LONGEST || brackets > MOST_BRACKETS {
            return Schema::Any;
        }
        match ruff_python_parser::parse_expression(text) {
            Ok(parsed) => self.expression(module, &parsed.syntax().body),
            Err(_) => Schema::Any,
        }
    }

    fn expression(self, module: &'a Module, expression: &Expr) -> Schema {
        let Some(reader) = self.deeper() else {
            return Schema::Any;
        };
        match expression {
            Expr::NoneLiteral(_) => Schema::Null,
            Expr::StringLiteral(text) => reader.text(module, text.value.to_str()),
            Expr::BinOp(union) if union.op == Operator::BitOr => {
                let options = [&union.left, &union.right].map(|side| reader.expression(module, side));
                either(options)
            }
            Expr::Name(_) | Expr::Attribute(_) => reader.named(module, expression, &[]),
            Expr::Subscript(subscript) => {
                let arguments: Vec<&Expr> = match &*subscript.slice {
                    Expr::Tuple(tuple) => tuple.elts.iter().collect(),
                    one => vec![one],
                };
                reader.named(module, &subscript.value, &arguments)
            }
            // `conint(ge=0)`.
            Expr::Call(call) => reader.constrained(module, call),
            _ => Schema::Any,
        }
    }

    fn deeper(self) -> Option<Self> {
        let steps = self.progress.steps.get() + 1;
        self.progress.steps.set(steps);
        (self.depth < DEEPEST && steps < MOST_STEPS).then_some(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn named(self, module: &'a Module, name: &Expr, arguments: &[&Expr]) -> Schema {
        match self.resolve(module, name) {
            Some(Named::Class(module, class)) => self.class(module, class),
            Some(Named::Alias(module, value)) => self.expression(module, value),
            Some(Named::External(name)) => self.known(module, &name, arguments),
            None => Schema::Any,
        }
    }

    /// Types of builtins, typing and their neighbours.
    fn known(self, module: &'a Module, name: &str, arguments: &[&Expr]) -> Schema {
        let each = || -> Vec<Schema> { arguments.iter().map(|one| self.expression(module, one)).collect() };
        let first = || {
            arguments
                .first()
                .map_or(Schema::Any, |one| self.expression(module, one))
        };
        let (package, last) = name.rsplit_once('.').unwrap_or(("builtins", name));
        let at_least = |limit: i64| Limits {
            minimum: Some(limit.into()),
            ..Limits::default()
        };
        let above = |limit: i64| Limits {
            above: Some(limit.into()),
            ..Limits::default()
        };
        match (package, last) {
            ("builtins", "bool") | ("pydantic", "StrictBool") => Schema::Boolean,
            ("builtins", "int") | ("pydantic", "StrictInt") => Schema::Integer(Limits::default()),
            ("builtins", "float") | ("pydantic", "StrictFloat" | "FiniteFloat") => {
                Schema::Number(Limits::default())
            }
            ("builtins", "str") | ("pydantic", "StrictStr") => Schema::Text(Limits::default()),
            ("pydantic", "PositiveInt") => Schema::Integer(above(0)),
            ("pydantic", "NonNegativeInt") => Schema::Integer(at_least(0)),
            ("pydantic", "PositiveFloat") => Schema::Number(above(0)),
            ("pydantic", "NonNegativeFloat") => Schema::Number(at_least(0)),
            ("datetime", "datetime") | ("pandas", "Timestamp") => Schema::Datetime,
            ("datetime", "date") => Schema::Date,
            ("numpy", "float16" | "float32" | "float64" | "double" | "floating") => {
                Schema::Number(Limits::default())
            }
            ("numpy", "bool_" | "bool") => Schema::Boolean,
            ("numpy", "integer" | "int8" | "int16" | "int32" | "int64") => Schema::Integer(Limits::default()),
            ("typing" | "typing_extensions", "Optional") => either([first(), Schema::Null]),
            ("typing" | "typing_extensions", "Union") => either(each()),
            ("typing" | "typing_extensions", "Literal") => {
                let values: Option<Vec<Value>> = arguments.iter().map(|one| literal::json(one)).collect();
                values.map_or(Schema::Any, Schema::Literal)
            }
            ("typing" | "typing_extensions", "Required" | "NotRequired" | "ReadOnly" | "Final") => first(),
            ("typing" | "typing_extensions", "Annotated") => {
                let mut limits = Limits::default();
                for note in arguments.iter().skip(1) {
                    if let Expr::Call(call) = note {
                        self.note(module, call, &mut Options::default(), &mut limits);
                    }
                }
                limited(first(), &limits)
            }
            ("builtins", "list" | "set" | "frozenset") | ("typing", "List" | "Set" | "FrozenSet") => {
                Schema::List(Box::new(first()), Limits::default())
            }
            ("typing" | "collections.abc", "Sequence" | "Iterable" | "Collection" | "Iterator") => {
                Schema::List(Box::new(first()), Limits::default())
            }
            ("builtins", "tuple") | ("typing", "Tuple") => match arguments {
                [] => Schema::List(Box::new(Schema::Any), Limits::default()),
                [one, Expr::EllipsisLiteral(_)] => {
                    Schema::List(Box::new(self.expression(module, one)), Limits::default())
                }
                _ => Schema::Tuple(each()),
            },
            ("builtins", "dict")
            | ("typing", "Dict" | "Mapping" | "MutableMapping")
            | ("collections.abc", "Mapping" | "MutableMapping") => match arguments {
                [_, values] => Schema::Map(Box::new(self.expression(module, values))),
                _ => Schema::Map(Box::new(Schema::Any)),
            },
            _ => Schema::Any,
        }
    }

    /// `pydantic.conint(ge=0)` and its like.
    fn constrained(self, module: &'a Module, call: &ExprCall) -> Schema {
        let Some(Named::External(name)) = self.resolve(module, &call.func) else {
            return Schema::Any;
        };
        let limits = limits(&call.arguments);
        match name.as_str() {
            "pydantic.conint" => Schema::Integer(limits),
            "pydantic.confloat" => Schema::Number(limits),
            "pydantic.constr" => Schema::Text(limits),
            _ => Schema::Any,
        }
    }
}

/// A union without unions in it, and each option once.
fn either(options: impl IntoIterator<Item = Schema>) -> Schema {
    let mut flat: Vec<Schema> = Vec::new();
    for option in options {
        let parts = match option {
            Schema::Union(parts) => parts,
            one => vec![one],
        };
        for part in parts {
            if !flat.contains(&part) {
                flat.push(part);
            }
        }
    }
    if flat.contains(&Schema::Any) {
        return Schema::Any;
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => Schema::Union(flat),
    }
}

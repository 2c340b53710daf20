//! Classes as records: which are TypedDicts, dataclasses, pydantic's models or enums, and their fields with all that is said of them.
//!
//! Source: PEP 557, 589, 655; `dataclasses`; pydantic 2's models and `Field`.

use ruff_python_ast::{Expr, ExprCall, Stmt, StmtAnnAssign, StmtClassDef};
use serde_json::Value;

use super::Reader;
use super::limits::{keyword, limited, limits, text};
use super::named::Named;
use crate::project::source::schema::{Field, Limits, Record, RecordKind, Schema};
use crate::project::source::{Module, literal};

/// How a field is written in its class.
#[derive(Default)]
pub(super) struct Options {
    has_default: bool,
    alias: Option<String>,
    description: Option<String>,
    limits: Limits,
}

impl<'a> Reader<'a, '_> {
    pub(super) fn class(self, module: &'a Module, class: &'a StmtClassDef) -> Schema {
        let Some(reader) = self.deeper() else {
            return Schema::Any;
        };
        if reader.is_enum(module, class) {
            return members(class).map_or(Schema::Any, Schema::Literal);
        }
        let Some(kind) = reader.kind(module, class) else {
            return Schema::Any;
        };
        let key = (module.name.clone(), class.name.to_string());
        if self.progress.open.borrow().contains(&key) {
            return Schema::Any;
        }
        self.progress.open.borrow_mut().push(key);
        let mut fields = Vec::new();
        reader.fields(module, class, kind, &mut fields);
        self.progress.open.borrow_mut().pop();
        Schema::Record(Record {
            name: class.name.to_string(),
            module: module.name.clone(),
            kind,
            fields,
            description: docstring(class),
        })
    }

    fn is_enum(self, module: &'a Module, class: &StmtClassDef) -> bool {
        class.bases().iter().any(|base| match self.resolve(module, base) {
            Some(Named::External(name)) => {
                matches!(name.as_str(), "enum.Enum" | "enum.IntEnum" | "enum.StrEnum")
            }
            _ => false,
        })
    }

    fn kind(self, module: &'a Module, class: &'a StmtClassDef) -> Option<RecordKind> {
        for decorator in &class.decorator_list {
            let name = match &decorator.expression {
                Expr::Call(call) => &call.func,
                other => other,
            };
            match self.resolve(module, name) {
                Some(Named::External(name)) if name == "dataclasses.dataclass" => {
                    return Some(RecordKind::Dataclass);
                }
                Some(Named::External(name)) if name == "pydantic.dataclasses.dataclass" => {
                    return Some(RecordKind::Pydantic);
                }
                _ => {}
            }
        }
        class
            .bases()
            .iter()
            .find_map(|base| match self.resolve(module, base)? {
                Named::External(name) => match name.as_str() {
                    "typing.TypedDict" | "typing_extensions.TypedDict" => Some(RecordKind::TypedDict),
                    "pydantic.BaseModel" => Some(RecordKind::Pydantic),
                    _ => None,
                },
                // A dataclass' child is one only if it says so itself.
                Named::Class(module, class) => self
                    .deeper()?
                    .kind(module, class)
                    .filter(|kind| *kind != RecordKind::Dataclass),
                Named::Alias(..) => None,
            })
    }

    /// The class's fields after its parents', a field of the same name in its parent's place.
    fn fields(self, module: &'a Module, class: &'a StmtClassDef, kind: RecordKind, fields: &mut Vec<Field>) {
        let Some(reader) = self.deeper() else {
            return;
        };
        for base in class.bases() {
            if let Some(Named::Class(module, parent)) = reader.resolve(module, base) {
                reader.fields(module, parent, kind, fields);
            }
        }
        for statement in &class.body {
            let Stmt::AnnAssign(assignment) = statement else {
                continue;
            };
            let Some(field) = reader.field(module, class, kind, assignment) else {
                continue;
            };
            match fields.iter_mut().find(|known| known.name == field.name) {
                Some(known) => *known = field,
                None => fields.push(field),
            }
        }
    }

    fn field(
        self,
        module: &'a Module,
        class: &StmtClassDef,
        kind: RecordKind,
        assignment: &StmtAnnAssign,
    ) -> Option<Field> {
        let Expr::Name(target) = &*assignment.target else {
            return None;
        };
        let name = target.id.as_str();
        let head = match &*assignment.annotation {
            Expr::Subscript(subscript) => &subscript.value,
            other => other,
        };
        let marker = match self.resolve(module, head) {
            Some(Named::External(name)) => name.rsplit('.').next().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let is_hidden = kind == RecordKind::Pydantic && (name.starts_with('_') || name == "model_config");
        if is_hidden || marker == "ClassVar" || marker == "KW_ONLY" {
            return None;
        }
        let mut options = Options::default();
        if let Some(value) = assignment.value.as_deref() {
            options.has_default = !value.is_ellipsis_literal_expr();
            if let Expr::Call(call) = value
                && !self.default(module, call, &mut options)
            {
                return None;
            }
        }
        // `Annotated[int, Field(ge=0, description="…")]`
        if marker == "Annotated"
            && let Expr::Subscript(subscript) = &*assignment.annotation
            && let Expr::Tuple(parts) = &*subscript.slice
        {
            for part in parts.elts.iter().skip(1) {
                if let Expr::Call(call) = part {
                    let mut ignored = Limits::default();
                    self.note(module, call, &mut options, &mut ignored);
                }
            }
        }
        let required = match (kind, marker.as_str()) {
            (RecordKind::TypedDict, "Required") => true,
            (RecordKind::TypedDict, "NotRequired") => false,
            (RecordKind::TypedDict, _) => is_total(class),
            _ => !options.has_default,
        };
        Some(Field {
            schema: limited(self.expression(module, &assignment.annotation), &options.limits),
            name: options.alias.unwrap_or_else(|| name.to_owned()),
            required,
            description: options.description,
        })
    }

    /// A field's default that is a call: `Field(...)`, `field(default_factory=list)`. False when it is no field of `__init__`.
    fn default(self, module: &'a Module, call: &ExprCall, options: &mut Options) -> bool {
        let Some(Named::External(name)) = self.resolve(module, &call.func) else {
            return true;
        };
        if name != "pydantic.Field" && name != "dataclasses.field" {
            return true;
        }
        let mut limits = Limits::default();
        self.note(module, call, options, &mut limits);
        options.limits = limits;
        let arguments = &call.arguments;
        let default = arguments
            .args
            .first()
            .filter(|_| name == "pydantic.Field")
            .or_else(|| keyword(arguments, "default"));
        options.has_default = default.is_some_and(|default| !default.is_ellipsis_literal_expr())
            || keyword(arguments, "default_factory").is_some();
        !matches!(keyword(arguments, "init"), Some(Expr::BooleanLiteral(init)) if !init.value)
    }

    /// One of the notes of `Annotated`, or `Field` as a default.
    pub(super) fn note(self, module: &'a Module, call: &ExprCall, options: &mut Options, into: &mut Limits) {
        let Some(Named::External(name)) = self.resolve(module, &call.func) else {
            return;
        };
        let arguments = &call.arguments;
        let first = || arguments.args.first().and_then(literal::json);
        match name.as_str() {
            "pydantic.Field" => {
                *into = limits(arguments);
                options.alias = text(arguments, "validation_alias").or_else(|| text(arguments, "alias"));
                options.description = text(arguments, "description");
                options.has_default |= keyword(arguments, "default_factory").is_some();
            }
            "annotated_types.Ge" => into.minimum = first(),
            "annotated_types.Gt" => into.above = first(),
            "annotated_types.Le" => into.maximum = first(),
            "annotated_types.Lt" => into.below = first(),
            "annotated_types.MinLen" => into.shortest = first().and_then(|value| value.as_u64()),
            "annotated_types.MaxLen" => into.longest = first().and_then(|value| value.as_u64()),
            "annotated_types.Interval" | "annotated_types.Len" | "pydantic.StringConstraints" => {
                *into = limits(arguments);
            }
            _ => {}
        }
    }
}

/// `class Customer(TypedDict, total=False)`
fn is_total(class: &StmtClassDef) -> bool {
    let total = class
        .arguments
        .as_ref()
        .and_then(|arguments| keyword(arguments, "total"));
    !matches!(total, Some(Expr::BooleanLiteral(total)) if !total.value)
}

/// An Enum's values, if all of them are literals.
fn members(class: &StmtClassDef) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for statement in &class.body {
        let Stmt::Assign(assign) = statement else {
            continue;
        };
        let [Expr::Name(name)] = assign.targets.as_slice() else {
            continue;
        };
        if !name.id.starts_with('_') {
            values.push(literal::json(&assign.value)?);
        }
    }
    (!values.is_empty()).then_some(values)
}

/// The first paragraph of the class's docstring, in one line.
fn docstring(class: &StmtClassDef) -> Option<String> {
    let Some(Stmt::Expr(statement)) = class.body.first() else {
        return None;
    };
    let Expr::StringLiteral(text) = &*statement.value else {
        return None;
    };
    let paragraph = text.value.to_str().trim().split("\n\n").next()?;
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

//! Annotations as schemas: names are followed through imports and aliases to classes of the project, or to types that are known.
//!
//! Nothing is evaluated. What cannot be followed is [`Schema::Any`], and so is what refers to itself or nests too deep.
//!
//! Source: PEP 484, 586, 589, 593, 604, 655; `dataclasses`; pydantic 2's models and `Field`.

use std::cell::{Cell, RefCell};

use ruff_python_ast::{Arguments, Expr, ExprCall, Operator, Stmt, StmtAnnAssign, StmtClassDef};
use serde_json::Value;

use super::{Field, Limits, Record, RecordKind, Schema};
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

/// What a name stands for.
enum Named<'a> {
    /// A class of the project.
    Class(&'a Module, &'a StmtClassDef),
    /// An alias of the project: `Customers = list[Customer]`.
    Alias(&'a Module, &'a Expr),
    /// Something of someone else's: `typing.Optional`.
    External(String),
}

/// How a field is written in its class.
#[derive(Default)]
struct Options {
    has_default: bool,
    alias: Option<String>,
    description: Option<String>,
    limits: Limits,
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

    fn class(self, module: &'a Module, class: &'a StmtClassDef) -> Schema {
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
    fn note(self, module: &'a Module, call: &ExprCall, options: &mut Options, into: &mut Limits) {
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

    /// What a name or a dotted name means in `module`.
    fn resolve(self, module: &'a Module, expression: &Expr) -> Option<Named<'a>> {
        let dotted = dotted(expression)?;
        let (first, rest) = dotted.split_once('.').unwrap_or((&dotted, ""));
        let reader = self.deeper()?;
        match reader.binding(module, first) {
            Some(Named::External(path)) if rest.is_empty() => reader.path(&path),
            Some(Named::External(path)) => reader.path(&format!("{path}.{rest}")),
            Some(found) => rest.is_empty().then_some(found),
            None if rest.is_empty() => Some(Named::External(format!("builtins.{first}"))),
            None => None,
        }
    }

    /// An absolute dotted name: of the project, followed to its definition, or of someone else.
    fn path(self, path: &str) -> Option<Named<'a>> {
        if !self.sources.is_own(path) {
            return Some(Named::External(path.to_owned()));
        }
        let (module, name) = path.rsplit_once('.')?;
        let module = self.sources.get(module)?;
        match self.binding(module, name)? {
            Named::External(path) => self.deeper()?.path(&path),
            found => Some(found),
        }
    }

    /// The last top-level statement of `module` that gives `name` a meaning.
    fn binding(self, module: &'a Module, name: &str) -> Option<Named<'a>> {
        module.body().iter().rev().find_map(|statement| match statement {
            Stmt::ClassDef(class) if class.name.as_str() == name => Some(Named::Class(module, class)),
            Stmt::TypeAlias(alias) if is_name(&alias.name, name) => Some(Named::Alias(module, &alias.value)),
            Stmt::Assign(assign) if assign.targets.iter().any(|target| is_name(target, name)) => {
                Some(Named::Alias(module, &assign.value))
            }
            Stmt::Import(import) => import.names.iter().find_map(|alias| {
                let path = alias.name.as_str();
                match &alias.asname {
                    Some(bound) => (bound.as_str() == name).then(|| Named::External(path.to_owned())),
                    None => {
                        let top = path.split('.').next().unwrap_or(path);
                        (top == name).then(|| Named::External(top.to_owned()))
                    }
                }
            }),
            Stmt::ImportFrom(from) => from.names.iter().find_map(|alias| {
                let bound = alias.asname.as_ref().unwrap_or(&alias.name);
                if bound.as_str() != name {
                    return None;
                }
                let module_name = from.module.as_ref().map(|module| module.as_str());
                let base = match (from.level, module_name) {
                    (0, Some(absolute)) => absolute.to_owned(),
                    (level, Some(relative)) => format!("{}.{relative}", module.relative_base(level)?),
                    (level, None) => module.relative_base(level)?,
                };
                Some(Named::External(format!("{base}.{}", alias.name)))
            }),
            // `if TYPE_CHECKING:` imports types.
            _ => None,
        })
    }
}

fn is_name(expression: &Expr, name: &str) -> bool {
    matches!(expression, Expr::Name(found) if found.id.as_str() == name)
}

/// `a.b.c`, if it is that and nothing else.
fn dotted(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Name(name) => Some(name.id.to_string()),
        Expr::Attribute(attribute) => Some(format!("{}.{}", dotted(&attribute.value)?, attribute.attr)),
        _ => None,
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

/// `schema` with `limits` on whatever of it they apply to.
fn limited(schema: Schema, limits: &Limits) -> Schema {
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
fn limits(arguments: &Arguments) -> Limits {
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

fn keyword<'e>(arguments: &'e Arguments, name: &str) -> Option<&'e Expr> {
    let found = arguments
        .keywords
        .iter()
        .find(|keyword| keyword.arg.as_ref().is_some_and(|known| known.as_str() == name));
    found.map(|keyword| &keyword.value)
}

fn text(arguments: &Arguments, name: &str) -> Option<String> {
    match keyword(arguments, name)? {
        Expr::StringLiteral(text) => Some(text.value.to_str().to_owned()),
        _ => None,
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

//! `[serve] entry`: a function that answers, where there are no phases, or outside of them.
//!
//! Finds what `package.module:function` names, and decides from its one parameter how a request's rows are given to it: as records, as a
//! DataFrame, as a list per column, as an array. What cannot be decided is a mistake with its place. The other parameters have defaults and
//! are settings, as those of any node.

use std::collections::BTreeSet;

use ruff_python_ast::{Stmt, StmtFunctionDef};
use serde_json::json;

use super::graph::{self, Default as SettingDefault, Input, Node, Phase, Setting};
use super::names::{self, Part};
use super::schema::{self, Column, ColumnType, Field, Schema};
use super::{Module, Sources};
use crate::project::document::Placed;
use crate::project::mistake::{EntryFault, Mistake, Rule};
use crate::project::place::Place;

/// The runtime's module that turns records into what the function takes.
const FLAVOURS: &str = "mlrails_runtime.flavours";

/// What the entry comes to, when it is a function outside the phases.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub module: String,
    pub function: String,
    /// The parameter that is given the request's rows; `None` where parameters name nodes.
    pub parameter: Option<Place>,
    /// `examples` of the same module.
    pub examples: Option<Place>,
    /// The columns that the parameter's type hint names.
    pub columns: Vec<Column>,
}

/// Adds the entry's node to `nodes`, and one for its rows where they are not the records. `in_phases`: the modules that are phases.
pub fn add(
    nodes: &mut Vec<Node>,
    sources: &Sources,
    entry: &Placed<String>,
    is_phase: &dyn Fn(&str) -> bool,
    mistakes: &mut Vec<Mistake>,
) -> Option<Entry> {
    let (module_name, name) = entry.value.split_once(':')?;
    let mut refuse = |why: EntryFault, place: Option<Place>| {
        let rule = Rule::Entry {
            entry: entry.value.clone(),
            why,
        };
        let mistake = Mistake::new(rule);
        mistakes.push(match place {
            Some(place) => mistake.at(place).with(entry.place.clone(), "it is named here"),
            None => mistake.at(entry.place.clone()),
        });
        None
    };
    let Some(module) = sources.get(module_name) else {
        let known = sources.iter().map(|module| module.name.clone()).collect();
        return refuse(EntryFault::NoModule { known }, None);
    };
    let function = match definition(module, name) {
        Found::Function(function) => function,
        Found::Class(place) => return refuse(EntryFault::Class, Some(place)),
        Found::Value(place) => return refuse(EntryFault::Value, Some(place)),
        Found::Nothing => {
            let known = functions(module)
                .map(|function| function.name.to_string())
                .collect();
            return refuse(EntryFault::Nothing { known }, None);
        }
    };
    if is_phase(module_name) {
        return None;
    }
    let mut node = graph::node(module, Phase::Serve, function);
    if let Some(kind) = node.unnamed_parameters {
        return refuse(EntryFault::Unnamed { kind }, Some(node.place));
    }
    let examples = functions(module)
        .find(|function| function.name.as_str() == "examples")
        .map(|function| module.place(&function.name));
    let mut found = Entry {
        module: module_name.to_owned(),
        function: name.to_owned(),
        parameter: None,
        examples,
        columns: Vec::new(),
    };
    let known: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    if node
        .inputs
        .iter()
        .any(|input| known.contains(input.parameter.as_str()))
    {
        // It is a node of the pipeline that stands outside of serve.py.
        nodes.push(node);
        return Some(found);
    }
    let [input] = node.inputs.as_mut_slice() else {
        let parameters: Vec<String> = node.inputs.iter().map(|input| input.parameter.clone()).collect();
        let place = node
            .inputs
            .get(1)
            .map_or(&node.place, |input| &input.place)
            .clone();
        return refuse(EntryFault::Parameters { parameters }, Some(place));
    };
    let hint = input.annotation.as_deref();
    let parameter = input.parameter.clone();
    let place = input.place.clone();
    let made = match shape(sources, module, hint) {
        Ok(Shape::Records) => {
            input.is_request = true;
            None
        }
        Ok(other) if parameter == "request" => {
            let kind = other.name().to_owned();
            return refuse(EntryFault::RequestIsRecords { kind }, Some(place));
        }
        Ok(Shape::Table) => Some(rows(&parameter, Phase::Data, "", &place)),
        Ok(Shape::Columns) => Some(rows(&parameter, Phase::Serve, "columns", &place)),
        Ok(Shape::Array) => Some(rows(&parameter, Phase::Serve, "array", &place)),
        Err(kind) => return refuse(EntryFault::OneRow { parameter, kind }, Some(place)),
    };
    found.columns = hint.map_or_else(Vec::new, |hint| columns(&schema::of(sources, module_name, hint)));
    found.parameter = Some(place);
    nodes.extend(made);
    nodes.push(node);
    Some(found)
}

enum Found<'a> {
    Function(&'a StmtFunctionDef),
    Class(Place),
    /// Assigned or imported.
    Value(Place),
    Nothing,
}

/// The last statement of the module's top level that gives `name` a value, as Python's own last one wins.
fn definition<'a>(module: &'a Module, name: &str) -> Found<'a> {
    for statement in module.body().iter().rev() {
        match statement {
            Stmt::FunctionDef(function) if function.name.as_str() == name => {
                return Found::Function(function);
            }
            Stmt::ClassDef(class) if class.name.as_str() == name => {
                return Found::Class(module.place(&class.name));
            }
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => {}
            other if names::uses(module, other, Part::Whole).binds.contains(name) => {
                return Found::Value(module.place(other));
            }
            _ => {}
        }
    }
    Found::Nothing
}

fn functions(module: &Module) -> impl Iterator<Item = &StmtFunctionDef> {
    module.body().iter().filter_map(|statement| match statement {
        Stmt::FunctionDef(function) => Some(function),
        _ => None,
    })
}

/// How rows are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Records,
    Table,
    Columns,
    Array,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Table => "a DataFrame",
            Self::Columns => "a list per column",
            Self::Array => "an array",
        }
    }
}

/// By the type hint; records without one. A hint of one row is told back.
fn shape(sources: &Sources, module: &Module, hint: Option<&str>) -> Result<Shape, String> {
    let Some(hint) = hint else {
        return Ok(Shape::Records);
    };
    let text = hint.trim().trim_matches(['"', '\'']).trim();
    let (head, inner) = text.split_once('[').unwrap_or((text, ""));
    match head.trim().rsplit('.').next().unwrap_or(head) {
        "DataFrame" => return Ok(Shape::Table),
        "ndarray" | "NDArray" => return Ok(Shape::Array),
        "dict" | "Dict" | "Mapping" => {
            let value = inner.split_once(',').map_or("", |(_, value)| value.trim());
            let lists = [
                "list",
                "List",
                "Sequence",
                "np.ndarray",
                "numpy.ndarray",
                "tuple",
                "Iterable",
            ];
            return match lists.iter().any(|list| value.starts_with(list)) {
                true => Ok(Shape::Columns),
                false => Err(text.to_owned()),
            };
        }
        "str" | "int" | "float" | "bool" | "bytes" => return Err(text.to_owned()),
        _ => {}
    }
    match schema::of(sources, &module.name, text) {
        Schema::Record(_) => Err(text.to_owned()),
        _ => Ok(Shape::Records),
    }
}

/// The node that gives the function its rows, named after its parameter.
fn rows(parameter: &str, phase: Phase, function: &str, place: &Place) -> Node {
    let is_made = phase == Phase::Serve;
    let request = Input {
        parameter: "request".to_owned(),
        annotation: None,
        place: place.clone(),
        is_request: true,
    };
    let dtype = Setting {
        name: "dtype".to_owned(),
        default: SettingDefault::Literal(json!("float64")),
        place: place.clone(),
    };
    Node {
        name: parameter.to_owned(),
        phase,
        module: if is_made {
            FLAVOURS.to_owned()
        } else {
            String::new()
        },
        function: function.to_owned(),
        place: place.clone(),
        inputs: if is_made { vec![request] } else { Vec::new() },
        settings: if function == "array" {
            vec![dtype]
        } else {
            Vec::new()
        },
        docstring: None,
        returns: None,
        is_async: false,
        unnamed_parameters: None,
    }
}

/// The columns that `list[Customer]` names.
fn columns(hint: &Schema) -> Vec<Column> {
    let fields = hint.record().map_or(&[][..], |record| &record.fields);
    fields.iter().map(column).collect()
}

fn column(field: &Field) -> Column {
    let (schema, nullable) = without_null(&field.schema);
    let (kind, dtype) = match schema {
        Schema::Boolean => (ColumnType::Boolean, "bool"),
        Schema::Integer(_) => (ColumnType::Integer, "int64"),
        Schema::Number(_) => (ColumnType::Number, "float64"),
        Schema::Text(_) | Schema::Date => (ColumnType::String, "object"),
        Schema::Literal(values) if values.iter().all(serde_json::Value::is_string) => {
            (ColumnType::String, "object")
        }
        Schema::Datetime => (ColumnType::Datetime, "datetime64[us]"),
        _ => (ColumnType::Object, "object"),
    };
    Column {
        name: field.name.clone(),
        kind,
        dtype: dtype.to_owned(),
        required: field.required,
        nullable,
        minimum: None,
        maximum: None,
        mean: None,
        categories: match schema {
            Schema::Literal(values) => Some(values.clone()),
            _ => None,
        },
        example: None,
    }
}

/// What `T | None` is beside null.
fn without_null(schema: &Schema) -> (&Schema, bool) {
    let Schema::Union(parts) = schema else {
        return (schema, *schema == Schema::Any);
    };
    let mut others = parts.iter().filter(|part| **part != Schema::Null);
    let has_null = parts.contains(&Schema::Null);
    match (others.next(), others.next()) {
        (Some(one), None) => (one, has_null),
        _ => (schema, has_null),
    }
}

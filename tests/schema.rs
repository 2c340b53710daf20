//! Type hints as schemas, and a service as an OpenAPI document.

use mlrails::project::SourceText;
use mlrails::project::source::Sources;
use mlrails::project::source::schema::{self, RequestSchema, ResponseSchema, Schema};
use mlrails::serving::openapi::{self, Service};
use serde_json::{Value, json};

const TYPES: &str = r#"
import datetime as dt
import enum
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NotRequired, Optional, TypedDict, Union

import annotated_types
import pydantic
from pydantic import BaseModel, Field


class Plan(enum.Enum):
    FREE = "free"
    PAID = "paid"


class Person(TypedDict):
    """Who it is.

    More.
    """

    age: int
    name: NotRequired[str]


class Customer(Person, total=False):
    plan: Plan
    age: float


@dataclass
class Point:
    x: float
    tags: list[str] = field(default_factory=list)
    label: Optional[str] = None
    hidden: int = field(init=False)
    count: ClassVar[int] = 0


class Base(BaseModel):
    id: int


class Order(Base):
    model_config = {}
    _private: int = 0
    amount: float = Field(gt=0, le=1e6, description="In euros")
    code: Annotated[str, Field(min_length=1, max_length=8, pattern="^[A-Z]+$", alias="Code")]
    stars: Annotated[int, annotated_types.Ge(1), annotated_types.Le(5)] = 3
    note: str | None = Field(default=None, max_length=3)
    must: int = Field(...)
    when: dt.datetime
    quantity: pydantic.conint(ge=1)


class Node(TypedDict):
    value: int
    children: "list[Node]"


Customers = list[Customer]
"#;

fn sources() -> Sources {
    let serve = "from .types import Customer, Order as Bought\nfrom . import types\nimport churn.types as t\nimport pandas as pd\n";
    let files = [
        ("churn", true, ""),
        ("churn.types", false, TYPES),
        ("churn.serve", false, serve),
    ];
    let files = files.map(|(name, is_package, text)| {
        (
            name.to_owned(),
            is_package,
            SourceText::new(format!("{name}.py"), text),
        )
    });
    let mut mistakes = Vec::new();
    let sources = Sources::parse("churn", files.into(), &mut mistakes);
    assert!(mistakes.is_empty());
    sources
}

#[track_caller]
fn check(annotation: &str, expected: Value) {
    let schema = schema::of(&sources(), "churn.serve", annotation);
    assert_eq!(schema.to_json(), expected, "{annotation}");
}

#[track_caller]
fn check_type(annotation: &str, expected: Value) {
    let schema = schema::of(&sources(), "churn.types", annotation);
    assert_eq!(schema.to_json(), expected, "{annotation}");
}

#[test]
fn builtins_and_typing() {
    check_type(
        "list[float]",
        json!({"type": "array", "items": {"type": "number"}}),
    );
    check_type("Optional[int]", json!({"type": ["integer", "null"]}));
    check_type("int | None", json!({"type": ["integer", "null"]}));
    check_type(
        "Union[int, str]",
        json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    );
    check_type("Literal['a', 'b', 1]", json!({"enum": ["a", "b", 1]}));
    check_type(
        "dict[str, bool]",
        json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
    );
    check_type(
        "tuple[int, str]",
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}),
    );
    check_type(
        "tuple[int, ...]",
        json!({"type": "array", "items": {"type": "integer"}}),
    );
    check_type("dt.datetime", json!({"type": "string", "format": "date-time"}));
    check_type("Plan", json!({"enum": ["free", "paid"]}));
    check_type(
        "pydantic.PositiveInt",
        json!({"type": "integer", "exclusiveMinimum": 0}),
    );
    check_type(
        "list['Plan']",
        json!({"type": "array", "items": {"enum": ["free", "paid"]}}),
    );
}

#[test]
fn classes_of_the_project() {
    let customer = json!({
        "type": "object", "title": "Customer",
        "properties": { "age": {"type": "number"}, "name": {"type": "string"}, "plan": {"enum": ["free", "paid"]} },
    });
    check_type("Customer", customer.clone());
    check_type("Customers", json!({"type": "array", "items": customer.clone()}));
    check_type(
        "Person",
        json!({"type": "object", "title": "Person", "description": "Who it is.",
               "properties": {"age": {"type": "integer"}, "name": {"type": "string"}}, "required": ["age"]}),
    );
    check_type(
        "Point",
        json!({"type": "object", "title": "Point", "properties": {
            "x": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string"}}, "label": {"type": ["string", "null"]},
        }, "required": ["x"]}),
    );
    check_type(
        "Order",
        json!({"type": "object", "title": "Order", "properties": {
            "id": {"type": "integer"},
            "amount": {"type": "number", "maximum": 1e6, "exclusiveMinimum": 0, "description": "In euros"},
            "Code": {"type": "string", "minLength": 1, "maxLength": 8, "pattern": "^[A-Z]+$"},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "note": {"type": ["string", "null"], "maxLength": 3},
            "must": {"type": "integer"},
            "when": {"type": "string", "format": "date-time"},
            "quantity": {"type": "integer", "minimum": 1},
        }, "required": ["id", "amount", "Code", "must", "when", "quantity"]}),
    );
    // The same class by every way of naming it.
    for name in ["Customer", "types.Customer", "t.Customer", "'Customer'"] {
        check(name, customer.clone());
    }
    let record = schema::of(&sources(), "churn.serve", "list[Bought]");
    assert_eq!(record.record().map(|record| record.name.as_str()), Some("Order"));
}

#[test]
fn what_is_not_known_is_opaque() {
    for annotation in [
        "pd.DataFrame",
        "Missing",
        "types.Missing",
        "Any",
        "f(x)[0]",
        "not python",
        "lambda: 0",
    ] {
        check(annotation, json!({}));
    }
    check("int | pd.DataFrame", json!({}));
    check("list[pd.Series]", json!({"type": "array", "items": {}}));
    // A class that contains itself.
    check(
        "types.Node",
        json!({"type": "object", "title": "Node", "properties": {
            "value": {"type": "integer"}, "children": {"type": "array", "items": {}},
        }, "required": ["value", "children"]}),
    );
    let deep = format!("'{}int{}'", "list[".repeat(5000), "]".repeat(5000));
    check(&deep, json!({}));
}

fn request() -> RequestSchema {
    RequestSchema::read(&json!({ "node": "customers", "kind": "table", "columns": [
        {"name": "age", "type": "integer", "dtype": "int64", "required": true, "nullable": false, "minimum": 18, "maximum": 97, "example": 44},
        {"name": "plan, old", "type": "string", "dtype": "object", "required": false, "nullable": true, "categories": ["x\"y", "b"]},
    ]}))
    .unwrap()
}

fn document(request: &RequestSchema) -> Value {
    openapi::document(&Service {
        name: "churn",
        version: Some("0.1.0"),
        description: None,
        request,
        record: None,
        response: &ResponseSchema::read(&json!({"kind": "list", "items": {"type": "number"}})),
        answer: &Schema::Any,
    })
}

#[test]
fn the_document_describes_the_service() {
    let request = request();
    let document = document(&request);
    assert_eq!(document["openapi"], "3.1.1");
    assert_eq!(document["info"], json!({"title": "churn", "version": "0.1.0"}));
    let post = &document["paths"]["/predict"]["post"];
    let content = &post["requestBody"]["content"];
    let examples = &content["application/json"]["examples"];
    let one = json!({"age": 44, "plan, old": "x\"y"});
    assert_eq!(examples["one"]["value"], one);
    assert_eq!(
        examples["split"]["value"],
        json!({"columns": ["age", "plan, old"], "data": [[44, "x\"y"]]})
    );
    assert_eq!(
        content["text/csv"]["example"],
        "age,\"plan, old\"\n44,\"x\"\"y\"\n"
    );
    let record = &document["components"]["schemas"]["Record"];
    assert_eq!(record["required"], json!(["age"]));
    // Bounds are the dtype's: training's are told in words, because the service takes others.
    assert_eq!(record["properties"]["age"]["maximum"], json!(i64::MAX));
    assert_eq!(
        record["properties"]["age"]["description"],
        "In training: 18 to 97."
    );
    let codes: Vec<&String> = post["responses"].as_object().unwrap().keys().collect();
    assert_eq!(
        codes,
        ["200", "400", "408", "413", "415", "422", "500", "503", "401"]
    );
    for path in [
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/metadata",
        "/openapi.json",
        "/docs",
    ] {
        assert!(
            document["paths"][path]["get"]["responses"]["200"].is_object(),
            "{path}"
        );
    }
    assert_eq!(document.to_string(), self::document(&request).to_string());
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(keys) => {
                for (key, value) in keys {
                    match (key.as_str(), value) {
                        ("$ref", Value::String(target)) => found.push(target.clone()),
                        _ => walk(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let document = document(&request());
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn columns_called_columns_and_data_leave_no_room_for_the_split_form() {
    let request = RequestSchema::read(&json!({ "kind": "table", "columns": [
        {"name": "columns", "type": "integer", "dtype": "int64", "required": true, "nullable": false},
        {"name": "data", "type": "integer", "dtype": "int64", "required": true, "nullable": false},
    ]}))
    .unwrap();
    let document = document(&request);
    let body = &document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(body["schema"]["anyOf"].as_array().unwrap().len(), 2);
    assert!(body["examples"]["split"].is_null());
}

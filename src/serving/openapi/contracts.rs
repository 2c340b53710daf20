//! The other platforms' contracts as OpenAPI paths: KServe 1, Open Inference Protocol 2, MLflow and SageMaker.
//!
//! Takes the service; gives paths. It says what `templates/runtime`'s `protocols/{kserve,oip,mlflow}` do. Their rows are those of
//! `/predict`; what JSON Schema cannot say of them (that a tensor's data fills its shape) is refused with a 400 or 422.

use serde_json::{Map, Value, json};

use super::{Service, answer, get};

/// Paths, in the order in which a reader meets them.
pub fn paths(service: &Service<'_>) -> Map<String, Value> {
    let name = service.name;
    let version = service.version.unwrap_or("1");
    let mut paths = Map::new();
    let mut add = |path: String, method: &str, operation: Value| {
        paths.insert(path, json!({ method: operation }));
    };
    add("/invocations".to_owned(), "post", invocations());
    for (path, id) in [("/ping", "ping"), ("/health", "health")] {
        let up = json!({ "200": empty("Yes"), "503": empty("Still loading, or draining") });
        add(
            path.to_owned(),
            "get",
            get(id, "Whether predictions are answered", up),
        );
    }
    let text = json!({ "200": answer("The project's version", "text/plain", json!({ "type": "string" })) });
    add(
        "/version".to_owned(),
        "get",
        get("version", "What is served", text),
    );
    let limits = json!({
        "type": "object",
        "properties": {
            "MaxConcurrentTransforms": { "type": "integer" },
            "BatchStrategy": { "type": "string" },
            "MaxPayloadInMB": { "type": "integer" },
        },
    });
    let parameters = json!({ "200": answer("Limits", "application/json", limits) });
    let summary = "What SageMaker's batch transform may send";
    add(
        "/execution-parameters".to_owned(),
        "get",
        get("executionParameters", summary, parameters),
    );

    add(
        "/v1/models".to_owned(),
        "get",
        get("listModels", "What is served", facts()),
    );
    add(
        format!("/v1/models/{name}"),
        "get",
        get("modelReady", "Whether predictions are answered", facts()),
    );
    add(format!("/v1/models/{name}:predict"), "post", instances());

    add(
        "/v2".to_owned(),
        "get",
        get("server", "Which extensions are known", facts()),
    );
    add(
        "/v2/health/live".to_owned(),
        "get",
        get("serverLive", "Whether the process is up", facts()),
    );
    add("/v2/health/ready".to_owned(), "get", ready("serverReady"));
    let base = format!("/v2/models/{name}");
    for (path, id) in [
        (base.clone(), ""),
        (format!("{base}/versions/{version}"), "Version"),
    ] {
        add(
            path.clone(),
            "get",
            get(
                &format!("model{id}"),
                "Names, datatypes and shapes of its tensors",
                facts(),
            ),
        );
        add(format!("{path}/ready"), "get", ready(&format!("model{id}Ready")));
        add(format!("{path}/infer"), "post", infer(&format!("infer{id}")));
    }
    paths
}

/// Whether a path that is no probe by its name is one: KServe asks for the model itself.
pub fn is_open(path: &str) -> bool {
    path.starts_with("/v1/models/") && !path.ends_with(":predict")
}

/// Whether what a path's POST refuses is JSON of the contract's own, and no problem document.
pub fn answers_plainly(path: &str) -> bool {
    path.starts_with("/v1/") || path.starts_with("/v2/") || path == "/invocations"
}

fn facts() -> Value {
    json!({ "200": answer("Facts", "application/json", json!({ "type": "object" })) })
}

fn empty(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": {} } })
}

fn ready(id: &str) -> Value {
    let state = || json!({ "type": "object", "properties": { "ready": { "type": "boolean" } }, "required": ["ready"] });
    let responses = json!({
        "200": answer("Yes", "application/json", state()),
        "503": answer("Still loading, or draining", "application/json", state()),
    });
    get(id, "Whether predictions are answered", responses)
}

/// A POST that takes JSON (and other media) and refuses in JSON. `rows`: the status of rows that do not fit the schema.
fn post(id: &str, summary: &str, content: Value, answered: Value, rows: &str, refusal: &Value) -> Value {
    let mut responses = json!({ "200": answered });
    let refusals = [
        ("400", "The body is not what its media type says"),
        ("408", "The body did not come in time"),
        ("413", "The body is too large"),
        ("415", "The media type is not taken"),
        (rows, "Rows do not fit the schema"),
        ("500", "The pipeline failed"),
        (
            "503",
            "Too many requests are waiting, or the model is still loading",
        ),
    ];
    for (code, description) in refusals {
        responses[code] = answer(description, "application/json", refusal.clone());
    }
    json!({
        "operationId": id,
        "summary": summary,
        "requestBody": { "required": true, "content": content },
        "responses": responses,
    })
}

fn predictions() -> Value {
    answer(
        "One answer per row",
        "application/json",
        json!({ "$ref": "#/components/schemas/Predictions" }),
    )
}

/// An object whose `fields` are texts (and what else it may hold).
fn refusal(fields: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "type": "string" })))
        .collect();
    json!({ "type": "object", "properties": properties, "required": fields })
}

fn instances() -> Value {
    let body = json!({
        "type": "object",
        "properties": { "instances": {
            "type": "array",
            "description": "Records, or lists of values in the order of the columns.",
            "items": { "$ref": "#/components/schemas/Record" },
        } },
        "required": ["instances"],
    });
    let content = json!({ "application/json": { "schema": body } });
    let refused = refusal(&["error"]);
    post(
        "predictInstances",
        "KServe 1 and Vertex AI: one answer per instance",
        content,
        predictions(),
        "422",
        &refused,
    )
}

fn invocations() -> Value {
    let record = json!({ "$ref": "#/components/schemas/Record" });
    // One of them shuts out the others, whatever these hold.
    let one = |name: &str, schema: Value| {
        let shapes = ["dataframe_records", "dataframe_split", "instances", "inputs"];
        let mut properties: Map<String, Value> = shapes
            .map(|shape| (shape.to_owned(), json!(false)))
            .into_iter()
            .collect();
        properties.insert(name.to_owned(), schema);
        json!({ "type": "object", "properties": properties, "required": [name] })
    };
    let records = |name: &str| one(name, json!({ "type": "array", "items": record }));
    let split = one(
        "dataframe_split",
        json!({
            "type": "object",
            "properties": {
                "columns": { "type": "array", "items": { "type": "string" }, "uniqueItems": true },
                "data": { "type": "array", "items": { "type": "array" } },
                "index": { "type": "array" },
            },
            "required": ["columns", "data"],
        }),
    );
    let inputs = one("inputs", json!({ "type": ["array", "object"] }));
    let body = json!({
        "description": "Exactly one of these four, and optional params.",
        "oneOf": [records("dataframe_records"), split, records("instances"), inputs],
    });
    let content = json!({
        "application/json": { "schema": body },
        "text/csv": { "schema": { "type": "string" } },
        "application/jsonlines": { "schema": { "type": "string" } },
    });
    let refused = refusal(&["error_code", "message"]);
    post(
        "invocations",
        "MLflow and SageMaker: one answer per row; in JSON lines where Accept asks for application/jsonlines",
        content,
        predictions(),
        "400",
        &refused,
    )
}

fn infer(id: &str) -> Value {
    let tensor = |data: Value| {
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string" },
                "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
                "datatype": { "enum": [
                    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
                ] },
                "parameters": { "type": "object" },
                "data": data,
            },
            "required": ["name", "shape", "datatype"],
        })
    };
    let body = json!({
        "type": "object",
        "properties": {
            "id": { "type": "string" },
            "parameters": { "type": "object" },
            "inputs": { "type": "array", "minItems": 1, "items": tensor(json!({ "type": "array" })), "description": "One tensor per column." },
            "outputs": { "type": "array", "items": { "type": "object" } },
        },
        "required": ["inputs"],
    });
    let mut answered = answer(
        "One tensor of answers, or one per key of theirs",
        "application/json",
        json!({
            "type": "object",
            "properties": {
                "model_name": { "type": "string" },
                "model_version": { "type": "string" },
                "outputs": { "type": "array", "items": tensor(json!({ "type": "array" })) },
            },
            "required": ["model_name", "outputs"],
        }),
    );
    // JSON first, then the tensors: Inference-Header-Content-Length says where the one ends.
    answered["content"]["application/octet-stream"] = json!({});
    let content = json!({ "application/json": { "schema": body }, "application/octet-stream": {} });
    let refused = refusal(&["error"]);
    let summary = "Open Inference Protocol 2: a tensor per column";
    let mut operation = post(id, summary, content, answered, "400", &refused);
    operation["parameters"] = json!([{
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Where the JSON ends and the tensors in bytes begin; without it there are none.",
        "schema": { "type": "integer", "minimum": 0 },
    }]);
    operation
}

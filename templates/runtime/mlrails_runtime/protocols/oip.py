"""The Open Inference Protocol, version 2, in JSON: a table is one tensor per column.

Tensor data is row-major, nested or flat; -1 stands for the number of rows.
"""

from __future__ import annotations

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.decode import parse
from mlrails_runtime.protocols import JSON, Reading, require
from mlrails_runtime.service import plain

LABEL = "/v2"
ERROR_TYPE = JSON
_DATATYPES = {"BOOL", "BYTES", "FP16", "FP32", "FP64"} | {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}


def posts(service):
    version = service.version or "1"
    read = _reader(service, version)
    base = f"/v2/models/{service.name}"
    return {f"{base}/infer": read, f"{base}/versions/{version}/infer": read}


def gets(service):
    version = service.version or "1"
    base = f"/v2/models/{service.name}"
    model = msgspec.json.encode(
        {
            "name": service.name,
            "versions": [version],
            "platform": "mlrails",
            "inputs": [{"name": column.name, "datatype": datatype(column), "shape": [-1]} for column in service.columns],
            "outputs": [{"name": "predictions", "datatype": _response_datatype(service.response), "shape": [-1]}],
        }
    )
    server = msgspec.json.encode({"name": "mlrails", "version": version, "extensions": []})

    def state(key):
        def answer(health):
            return (200 if health.ready else 503), JSON, msgspec.json.encode({key: health.ready})

        return answer

    routes = {
        "/v2": lambda health: (200, JSON, server),
        "/v2/health/live": lambda health: (200, JSON, b'{"live":true}'),
        "/v2/health/ready": state("ready"),
    }
    for path in (base, f"{base}/versions/{version}"):
        routes[path] = lambda health: (200, JSON, model)
        routes[f"{path}/ready"] = state("ready")
    return routes


def datatype(column):
    """The protocol's name for a column's type. A time travels as ISO 8601 text, in BYTES."""
    if column.type == "boolean":
        return "BOOL"
    if column.type == "integer":
        name = column.dtype.upper()
        return name if name in _DATATYPES else "INT64"
    if column.type == "number":
        return {"float16": "FP16", "float32": "FP32"}.get(column.dtype, "FP64")
    return "BYTES"


def _response_datatype(response):
    items = response.get("items") or {}
    return {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}.get(items.get("type"), "BYTES")


def _reader(service, version):
    decoder = service.decoder
    columns = {column.name: column for column in service.columns}

    def read(call):
        if call.headers.get("inference-header-content-length") is not None:
            raise problem.unsupported("tensors in binary form are not taken; send JSON")
        require(call.media, JSON)
        document = parse(call.body)
        inputs = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
            raise problem.shape('expected an object with "inputs", a list of tensors')
        tensors = [_tensor(tensor) for tensor in inputs]
        name, shape, data = tensors[0]
        if len(tensors) == 1 and len(shape) == 2 and name not in columns and shape[1] == len(decoder.names):
            width = shape[1]
            rows = decoder.split(decoder.names, [data[at : at + width] for at in range(0, len(data), width)])
        else:
            count = tensors[0][1][0] if tensors[0][1] else 1
            for name, shape, data in tensors:
                if len(data) != count:
                    raise problem.shape(f"the tensor {name!r} holds {len(data)} values for {count} rows")
            rows = decoder.by_column({name: data for name, _, data in tensors}, count)
        wanted = _wanted(document)

        def render(answers):
            outputs = [output for output in _outputs(answers) if wanted is None or output["name"] in wanted]
            answer = {"model_name": service.name, "model_version": version, "outputs": outputs}
            if document.get("id") is not None:
                answer["id"] = document["id"]
            return JSON, msgspec.json.encode(answer, enc_hook=plain)

        return Reading(rows, render)

    return read


def _tensor(tensor):
    """(name, shape, flat values) of one input, after its datatype, shape and data agreed."""
    name, shape, kind = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(name, str):
        raise problem.shape("a tensor has a name")
    if kind not in _DATATYPES:
        raise problem.shape(f"the tensor {name!r} has no known datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise problem.shape(f"the tensor {name!r} has no shape")
    data = tensor.get("data")
    if not isinstance(data, list):
        raise problem.shape(f"the tensor {name!r} has no data")
    while data and isinstance(data[0], list):
        if not all(isinstance(item, list) for item in data):
            raise problem.shape(f"the data of the tensor {name!r} is ragged")
        data = [value for item in data for value in item]
    size = 1
    for length in shape:
        size *= length
    if size != len(data):
        raise problem.shape(f"the tensor {name!r} holds {len(data)} values and its shape says {size}")
    return name, shape, data


def _wanted(document):
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        return None
    return {output.get("name") for output in outputs if isinstance(output, dict)} or None


def _outputs(answers):
    """One tensor of the answers; one per key when they are objects of the same keys; lists of one length become a matrix."""
    answers = msgspec.to_builtins(answers, enc_hook=plain)
    first = answers[0] if answers else None
    if isinstance(first, dict) and all(isinstance(item, dict) and item.keys() == first.keys() for item in answers):
        return [_output(key, [item[key] for item in answers]) for key in first]
    return [_output("predictions", answers)]


def _output(name, values):
    shape = [len(values)]
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        shape.append(len(values[0]))
        values = [item for value in values for item in value]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        kind = "BOOL"
    elif kinds <= {int}:
        kind = "INT64"
    elif kinds <= {int, float}:
        kind = "FP64"
    else:
        kind = "BYTES"
        values = [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]
    return {"name": name, "datatype": kind, "shape": shape, "data": values}


def error(refused, request_id):
    # The protocol knows 400 for input it cannot use, and one text.
    text = str(refused)
    if refused.errors:
        first = refused.errors[0]
        text += f" (row {first['row']}, column {first['column']}: {first['message']})"
    return (400 if refused.status == 422 else refused.status), msgspec.json.encode({"error": text})

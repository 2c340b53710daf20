"""The Open Inference Protocol, version 2: a table is one tensor per column, in JSON or (its binary extension) in bytes after the JSON.

Tensor data is row-major, nested or flat; -1 stands for the number of rows.
"""

from __future__ import annotations

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.decode import parse_with_nan
from mlrails_runtime.protocols import JSON, Reading, require, tensors
from mlrails_runtime.service import plain

LABEL = "/v2"
ERROR_TYPE = JSON
BINARY = "application/octet-stream"


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
    server = msgspec.json.encode({"name": "mlrails", "version": version, "extensions": ["binary_tensor_data"]})

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
        return name if name in tensors.DATATYPES else "INT64"
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
        length = call.headers.get(tensors.HEADER)
        if length is None:
            require(call.media, JSON)
            head, source = call.body, tensors.Source(b"", decoder.most_values)
        else:
            require(call.media, JSON, BINARY)
            head, rest = tensors.split(call.body, length)
            source = tensors.Source(rest, decoder.most_values)
        document = parse_with_nan(head)
        inputs = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
            raise problem.shape('expected an object with "inputs", a list of tensors')
        given = [tensors.read(tensor, source) for tensor in inputs]
        source.done()
        name, shape, data = given[0]
        if len(given) == 1 and len(shape) == 2 and name not in columns and shape[1] == len(decoder.names) > 0:
            width = shape[1]
            rows = decoder.split(decoder.names, [data[at : at + width] for at in range(0, len(data), width)])
        else:
            count = shape[0] if shape else 1
            for name, _, data in given:
                if len(data) != count:
                    raise problem.shape(f"the tensor {name!r} holds {len(data)} values for {count} rows")
            if len({name for name, _, _ in given}) != len(given):
                raise problem.shape("a tensor is there twice")
            rows = decoder.by_column({name: data for name, _, data in given}, count)
        reading = Reading(rows, None)
        wanted, binary = _wanted(document)

        def render(answers):
            outputs = _outputs(answers)
            if wanted is not None:
                missing = wanted.keys() - {output["name"] for output in outputs}
                if missing:
                    raise problem.shape(f"there is no output {sorted(missing)[0][:100]!r}")
                outputs = [output for output in outputs if output["name"] in wanted]
            answer = {"model_name": service.name, "model_version": version, "outputs": outputs}
            if document.get("id") is not None:
                answer["id"] = document["id"]
            packed = [_packed(output) for output in outputs if (wanted or {}).get(output["name"], binary)]
            body = msgspec.json.encode(answer, enc_hook=plain)
            if not packed:
                return JSON, body
            reading.headers.append((tensors.HEADER, str(len(body))))
            return BINARY, b"".join((body, *packed))

        reading.render = render
        return reading

    return read


def _wanted(document):
    """({output: whether in bytes} or None for all, whether the others are in bytes)."""
    binary = _parameter(document, "binary_data_output") is True
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        return None, binary
    wanted = {}
    for output in outputs:
        if isinstance(output, dict) and isinstance(output.get("name"), str):
            own = _parameter(output, "binary_data")
            wanted[output["name"]] = binary if own is None else own is True
    return wanted or None, binary


def _parameter(document, name):
    parameters = document.get("parameters")
    return parameters.get(name) if isinstance(parameters, dict) else None


def _packed(output):
    """Takes the values out of an output, as bytes; those that bytes have no form for stay where they are."""
    data = tensors.pack(output)
    if data is None:
        return b""
    del output["data"]
    output["parameters"] = {"binary_data_size": len(data)}
    return data


def _outputs(answers):
    """One tensor of the answers; one per key when they are objects of the same keys."""
    answers = msgspec.to_builtins(answers, enc_hook=plain)
    first = answers[0] if answers else None
    if isinstance(first, dict) and all(isinstance(item, dict) and item.keys() == first.keys() for item in answers):
        return [tensors.output(key, [item[key] for item in answers]) for key in first]
    return [tensors.output("predictions", answers)]


def error(refused, request_id):
    # The protocol knows 400 for input it cannot use, and one text.
    text = str(refused)
    if refused.errors:
        first = refused.errors[0]
        text += f" (row {first['row']}, column {first['column']}: {first['message']})"
    return (400 if refused.status == 422 else refused.status), msgspec.json.encode({"error": text})

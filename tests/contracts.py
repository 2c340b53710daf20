"""Asks a running service for its golden rows over every contract and encoding, one by one and together, and compares with training.

Usage: contracts.py ADDRESS PROJECT, with pyarrow. Prints how many answers were compared, by contract; exits 1 at the first that differs.
"""

import csv
import http.client
import io
import json
import math
import pathlib
import struct
import sys

import pyarrow
from pyarrow import ipc, parquet

ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
JSON = {"content-type": "application/json"}
# By type: datatype of a tensor, its code in bytes, an Arrow type.
KINDS = {
    "boolean": ("BOOL", "?", pyarrow.bool_()),
    "integer": ("INT64", "q", pyarrow.int64()),
    "number": ("FP64", "d", pyarrow.float64()),
    "string": ("BYTES", None, pyarrow.string()),
    "datetime": ("BYTES", None, pyarrow.timestamp("us")),
}


class Project:
    """What training recorded: columns, golden rows, predictions."""

    def __init__(self, folder):
        record = json.loads((pathlib.Path(folder) / "artifacts/run.json").read_text())
        self.columns = record["request"]["columns"]
        self.names = [column["name"] for column in self.columns]
        self.rows, self.predictions = record["golden"]["rows"], record["golden"]["predictions"]
        assert self.rows and len(self.rows) == len(self.predictions)


# Rows as bodies: each gives (headers, body).


def document(make):
    """A JSON document made of rows."""
    return lambda project, rows: (JSON, json.dumps(make(project, rows)).encode())


def values(project, rows):
    return [[row[name] for name in project.names] for row in rows]


def split(project, rows):
    return {"columns": project.names, "data": values(project, rows)}


def by_column(project, rows):
    return {name: [row[name] for row in rows] for name in project.names}


def as_csv(project, rows):
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(project.names)
    # In pandas' own spelling.
    writer.writerows([cell if not isinstance(cell, bool) else str(cell) for cell in row] for row in values(project, rows))
    return {"content-type": "text/csv"}, file.getvalue().encode()


def table(project, rows):
    arrays = []
    for column in project.columns:
        array = pyarrow.array([row[column["name"]] for row in rows], pyarrow.string() if column["type"] == "datetime" else KINDS[column["type"]][2])
        if column["type"] == "datetime":
            array = array.cast(KINDS["datetime"][2])
        if column["dtype"] == "category":
            array = array.dictionary_encode()
        if column["dtype"] == "float32":
            array = array.cast(pyarrow.float32())
        arrays.append(array)
    return pyarrow.table(arrays, names=project.names)


def as_arrow(project, rows):
    made = table(project, rows)
    sink = pyarrow.BufferOutputStream()
    with ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return {"content-type": ARROW}, sink.getvalue().to_pybytes()


def as_parquet(project, rows):
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table(project, rows), sink)
    return {"content-type": PARQUET}, sink.getvalue().to_pybytes()


def tensors(nested):
    def make(project, rows):
        inputs = []
        for column in project.columns:
            data = [row[column["name"]] for row in rows]
            shape = [len(rows), 1] if nested else [len(rows)]
            data = [[value] for value in data] if nested else data
            inputs.append({"name": column["name"], "shape": shape, "datatype": KINDS[column["type"]][0], "data": data})
        return {"id": "golden", "inputs": inputs}

    return document(make)


def in_bytes(project, rows):
    """Tensors after the JSON; what bytes have no form for (a missing text) stays in it."""
    inputs, pieces = [], []
    for column in project.columns:
        data = [row[column["name"]] for row in rows]
        kind, code, _ = KINDS[column["type"]]
        if None in data and column["type"] == "integer":
            kind, code = "FP64", "d"
        tensor = {"name": column["name"], "shape": [len(rows)], "datatype": kind}
        if kind == "FP64":
            data = [math.nan if value is None else value for value in data]
        if None in data:
            tensor["data"] = data
        else:
            if code is None:
                packed = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in data)
            else:
                packed = struct.pack(f"<{len(data)}{code}", *data)
            tensor["parameters"] = {"binary_data_size": len(packed)}
            pieces.append(packed)
        inputs.append(tensor)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return headers, b"".join([head, *pieces])


# Answers: each gives predictions.


def predictions(headers, body):
    return json.loads(body)["predictions"]


def from_csv(headers, body):
    header, *rows = csv.reader(io.StringIO(body.decode()))
    assert header == ["prediction"], header
    return [float(row[0]) for row in rows]


def from_arrow(headers, body):
    assert headers["content-type"] == ARROW, headers
    return ipc.open_stream(body).read_all()["prediction"].to_pylist()


def from_parquet(headers, body):
    assert headers["content-type"] == PARQUET, headers
    return parquet.read_table(pyarrow.BufferReader(body))["prediction"].to_pylist()


def outputs(headers, body):
    answer = json.loads(body)
    (output,) = answer["outputs"]
    assert answer["id"] == "golden" and output["shape"] == [len(output["data"])], answer
    return output["data"]


def out_of_bytes(headers, body):
    end = int(headers["inference-header-content-length"])
    (output,) = json.loads(body[:end])["outputs"]
    assert output["datatype"] == "FP64" and output["parameters"]["binary_data_size"] == len(body) - end, output
    return list(struct.unpack(f"<{output['shape'][0]}d", body[end:]))


def accepting(media, encode):
    def made(project, rows):
        headers, body = encode(project, rows)
        return {**headers, "accept": media}, body

    return made


RECORDS = document(lambda project, rows: rows)
# Path, how rows are sent, how answers are read. `{}` is the model's name.
CONTRACTS = {
    "a list of records": ("/predict", RECORDS, predictions),
    "columns and data": ("/predict", document(split), predictions),
    "CSV": ("/predict", as_csv, predictions),
    "CSV, both ways": ("/predict", accepting("text/csv", as_csv), from_csv),
    "Arrow": ("/predict", accepting("application/json", as_arrow), predictions),
    "Arrow, both ways": ("/predict", accepting(ARROW, as_arrow), from_arrow),
    "Parquet": ("/predict", accepting("application/json", as_parquet), predictions),
    "Parquet, both ways": ("/predict", accepting(PARQUET, as_parquet), from_parquet),
    "records, answered in Parquet": ("/predict", accepting(PARQUET, RECORDS), from_parquet),
    "OIP, flat": ("/v2/models/{}/infer", tensors(nested=False), outputs),
    "OIP, nested": ("/v2/models/{}/versions/0.1.0/infer", tensors(nested=True), outputs),
    "OIP, in bytes": ("/v2/models/{}/infer", in_bytes, out_of_bytes),
    "KServe, records": ("/v1/models/{}:predict", document(lambda project, rows: {"instances": rows}), predictions),
    "KServe, lists": ("/v1/models/{}:predict", document(lambda project, rows: {"instances": values(project, rows)}), predictions),
    "MLflow, dataframe_split": ("/invocations", document(lambda project, rows: {"dataframe_split": split(project, rows)}), predictions),
    "MLflow, dataframe_records": ("/invocations", document(lambda project, rows: {"dataframe_records": rows}), predictions),
    "MLflow, instances": ("/invocations", document(lambda project, rows: {"instances": rows}), predictions),
    "MLflow, inputs": ("/invocations", document(lambda project, rows: {"inputs": by_column(project, rows)}), predictions),
    "MLflow and SageMaker, CSV": ("/invocations", as_csv, predictions),
    "Vertex AI": ("/vertex", document(lambda project, rows: {"instances": rows, "parameters": {}}), predictions),
}
ONE = ("/predict", document(lambda project, rows: rows[0]), predictions)


def check(connection, project, name, contract, rows, expected):
    """One request; every answer within 1e-9 of training's."""
    path, encode, decode = contract
    headers, body = encode(project, rows)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        sys.exit(f"{name}, {len(rows)} rows: {answer.status} {content[:500]!r}")
    got = decode({key.lower(): value for key, value in answer.getheaders()}, content)
    if len(got) != len(expected):
        sys.exit(f"{name}: {len(got)} answers for {len(expected)} rows")
    for row, want, found in zip(rows, expected, got):
        if not math.isclose(want, found, rel_tol=1e-9, abs_tol=1e-9):
            sys.exit(f"{name}, {len(rows)} rows: {found!r} instead of {want!r} for {row}")
    return len(got)


def main(address, folder):
    project = Project(folder)
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/v1/models")
    (model,) = json.load(connection.getresponse())["models"]
    count = len(project.rows)
    for name, (path, encode, decode) in {"one record": ONE, **CONTRACTS}.items():
        contract = (path.format(model), encode, decode)
        compared = 0
        sizes = [1] if name == "one record" else [1, 7, count]
        for size in sizes:
            for at in range(0, count, size):
                rows, expected = project.rows[at : at + size], project.predictions[at : at + size]
                compared += check(connection, project, name, contract, rows, expected)
        print(f"{name}: {compared}")


if __name__ == "__main__":
    main(*sys.argv[1:])

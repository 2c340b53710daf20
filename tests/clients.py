"""Clients that others wrote ask a running service for its golden rows: Triton's of the Open Inference Protocol, MLflow's of its scoring server.

Usage: clients.py ADDRESS PROJECT. Prints how many answers were compared, by client and way of sending; exits 1 at the first that differs.
"""

import http.client
import json
import math
import pathlib
import sys

import numpy
import pandas
import tritonclient.http as triton
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from tritonclient.utils import InferenceServerException


def compare(name, expected, got):
    if len(got) != len(expected):
        sys.exit(f"{name}: {len(got)} answers for {len(expected)} rows")
    for want, found in zip(expected, got):
        if not math.isclose(want, found, rel_tol=1e-9, abs_tol=1e-9):
            sys.exit(f"{name}: {found!r} instead of {want!r}")
    print(f"{name}: {len(got)}")


def tensors(columns, rows, binary):
    """What the model's metadata asks for, as the client makes tensors."""
    made = []
    for column in columns:
        cells, kind = [row[column["name"]] for row in rows], column["datatype"]
        if None in cells and kind != "BYTES":
            # Only floats have a place for what is missing.
            kind = "FP64"
            cells = [math.nan if cell is None else cell for cell in cells]
        if kind == "BYTES":
            array = numpy.array([b"" if cell is None else cell.encode() for cell in cells], dtype=object)
        else:
            types = {"BOOL": numpy.bool_, "INT64": numpy.int64, "FP64": numpy.float64, "FP32": numpy.float32}
            array = numpy.array(cells, dtype=types[kind])
        tensor = triton.InferInput(column["name"], [len(rows)], kind)
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


def refused(name, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() in ("400", "404") and error.message(), error
        return
    sys.exit(f"{name}: not refused")


def by_triton(address, rows, expected, needed):
    """`needed`: a column that must be there and is a number."""
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert {"name", "version", "extensions"} <= metadata.keys() and "binary_tensor_data" in metadata["extensions"], metadata
    name = model_name(address)
    model = client.get_model_metadata(name)
    (version,) = model["versions"]
    assert client.is_model_ready(name) and client.is_model_ready(name, version)
    assert client.get_model_metadata(name, version) == model
    # The client has no text that is missing: those rows are MLflow's and contracts.py's.
    words = [column["name"] for column in model["inputs"] if column["datatype"] == "BYTES"]
    whole = [at for at, row in enumerate(rows) if all(row[word] is not None for word in words)]
    rows, expected = [rows[at] for at in whole], [expected[at] for at in whole]

    def ask(rows, binary, version="", **options):
        output = triton.InferRequestedOutput(model["outputs"][0]["name"], binary_data=binary)
        answer = client.infer(name, tensors(model["inputs"], rows, binary), version, [output], **options)
        assert answer.get_response()["model_name"] == name
        return answer.as_numpy(model["outputs"][0]["name"]).tolist()

    for way, binary in (("JSON", False), ("bytes", True)):
        compare(f"Triton, {way}, together", expected, ask(rows, binary))
        compare(f"Triton, {way}, one by one", expected, [ask([row], binary)[0] for row in rows])
        compare(f"Triton, {way}, of a version", expected, ask(rows, binary, version, request_id="golden"))
    # Whatever outputs there are, where none is asked for; several requests at once.
    waiting = [client.async_infer(name, tensors(model["inputs"], [row], True)) for row in rows]
    compare("Triton, async", expected, [float(one.get_result().as_numpy(model["outputs"][0]["name"])[0]) for one in waiting])
    refused("another model", lambda: client.infer("other", tensors(model["inputs"], rows[:1], True)))
    others = [column for column in model["inputs"] if column["name"] != needed]
    refused("no column", lambda: client.infer(name, tensors(others, rows[:1], False)))
    wrong = triton.InferInput(needed, [1], "BYTES")
    wrong.set_data_from_numpy(numpy.array([b"x"], dtype=object))
    refused("a text for a number", lambda: client.infer(name, [wrong, *tensors(others, rows[:1], True)]))


def by_mlflow(address, rows, expected):
    host, port = address.split(":")
    client = ScoringServerClient(host, port)
    client.wait_server_ready(timeout=5)
    assert client.get_version()
    frame = pandas.DataFrame(rows)
    compare("MLflow, a frame", expected, list(client.invoke(frame).get_predictions()[0]))
    compare("MLflow, a frame, one by one", expected, [float(client.invoke(frame[at : at + 1]).get_predictions().iloc[0, 0]) for at in range(len(rows))])
    matrix = frame.astype(object).where(frame.notna(), None).to_numpy()
    compare("MLflow, an array", expected, list(client.invoke(matrix).get_predictions()[0]))


def model_name(address):
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/v1/models")
    return json.load(connection.getresponse())["models"][0]


def main(address, folder):
    record = json.loads((pathlib.Path(folder) / "artifacts/run.json").read_text())
    golden = record["golden"]
    needed = next(column["name"] for column in record["request"]["columns"] if column["required"] and column["type"] in ("integer", "number"))
    by_triton(address, golden["rows"], golden["predictions"], needed)
    by_mlflow(address, golden["rows"], golden["predictions"])


if __name__ == "__main__":
    main(*sys.argv[1:])

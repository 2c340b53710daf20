"""Every dtype in every encoding: the table of docs/serving.md, cell by cell, and that the table says no more and no less."""

import csv
import datetime
import io
import itertools
import json
import pathlib
import struct
import types
import unittest

from mlrails_runtime import frame, tables
from mlrails_runtime.columns import Column
from mlrails_runtime.decode import Decoder
from mlrails_runtime.problem import Problem
from mlrails_runtime.protocols import Call, kserve, mlflow, oip, own, tensors

try:
    import pyarrow
    from pyarrow import parquet
except ImportError:
    pyarrow = None

NOON = datetime.datetime(2024, 5, 31, 12, 0, 0, 250000)
UTC = NOON.replace(tzinfo=datetime.timezone.utc)
NONE = object()


class Case:
    """A column's type and dtype, a value as JSON has it, and what it is in a row; in CSV, Arrow and tensors where they differ."""

    def __init__(self, kind, dtype, value, row=NONE, *, cell=None, arrow=None, tensor=None, **schema):
        self.column = Column.from_schema({"name": "c", "type": kind, "dtype": dtype, "required": True, "nullable": value is None, **schema})
        self.name = f"{kind} {dtype} {value!r}"
        self.value = value
        self.row = value if row is NONE else row
        self.cell = ("" if value is None else str(value)) if cell is None else cell
        # From the module to an array, and what comes of it where that is not the same.
        self.arrow = arrow or (lambda pyarrow: pyarrow.array([value, value], pyarrow.uint64() if value == 2**63 else None))
        # The datatype, and the value as bytes; None where bytes have no form for it.
        self.tensor = tensor


def number(kind, code, value):
    return kind, struct.pack(f"<{code}", value)


def text(value):
    return "BYTES", struct.pack("<I", len(value.encode())) + value.encode()


CASES = [
    Case("boolean", "bool", True, cell="true", tensor=number("BOOL", "?", True)),
    Case("boolean", "bool", False, cell="0", tensor=number("BOOL", "?", False)),
    Case("boolean", "boolean", None, tensor=("BOOL", None)),
    Case("integer", "int8", -128, tensor=number("INT8", "b", -128), arrow=lambda pa: pa.array([-128] * 2, pa.int8())),
    Case("integer", "uint8", 255, tensor=number("UINT8", "B", 255)),
    Case("integer", "int32", 5, tensor=number("FP32", "f", 5.0), arrow=lambda pa: pa.array([5.0] * 2)),
    Case("integer", "int64", 2**63 - 1, tensor=number("INT64", "q", 2**63 - 1)),
    Case("integer", "int64", -(2**63), tensor=number("INT64", "q", -(2**63))),
    Case("integer", "uint64", 2**64 - 1, tensor=number("UINT64", "Q", 2**64 - 1), arrow=lambda pa: pa.array([2**64 - 1] * 2, pa.uint64())),
    Case("integer", "Int64", 2**53 + 1, tensor=number("INT64", "q", 2**53 + 1)),
    Case("integer", "Int64", None, tensor=("INT64", None)),
    Case("number", "float64", 0.1, tensor=number("FP64", "d", 0.1)),
    Case("number", "float64", 3, 3.0, tensor=number("INT64", "q", 3)),
    Case("number", "float64", 2.5, arrow=lambda pa: pa.array([__import__("decimal").Decimal("2.5")] * 2), tensor=number("FP16", "e", 2.5)),
    Case("number", "float32", 1.5, tensor=number("FP32", "f", 1.5), arrow=lambda pa: pa.array([1.5] * 2, pa.float32())),
    Case("number", "float64", None, tensor=number("FP64", "d", float("nan"))),
    Case("number", "float64", None, cell="nan", tensor=number("FP32", "f", float("nan")), arrow=lambda pa: pa.array([float("nan")] * 2)),
    Case("string", "object", 'ä, "b"\nc', tensor=text('ä, "b"\nc')),
    Case("string", "object", None, tensor=("BYTES", None)),
    Case("string", "string", "a", tensor=text("a"), arrow=lambda pa: pa.array(["a", "a"], pa.large_string())),
    Case("string", "category", "b", categories=["a", "b"], tensor=text("b"), arrow=lambda pa: pa.array(["b", "b"]).dictionary_encode()),
    Case("string", "category", None, categories=["a", "b"], tensor=("BYTES", None)),
    Case("datetime", "datetime64[ns]", "2024-05-31T12:00:00.250000", NOON, tensor=text("2024-05-31T12:00:00.250000"),
         arrow=lambda pa: pa.array([NOON] * 2, pa.timestamp("ns"))),
    Case("datetime", "datetime64[ns]", "2024-05-31T14:00:00.250000+02:00", NOON, tensor=text("2024-05-31T14:00:00.250000+02:00"),
         arrow=lambda pa: pa.array([UTC] * 2, pa.timestamp("us", tz="Europe/Berlin"))),
    Case("datetime", "datetime64[ns, UTC]", "2024-05-31T12:00:00.250000Z", UTC, tensor=text("2024-05-31T12:00:00.250000Z"),
         arrow=lambda pa: pa.array([UTC] * 2, pa.timestamp("ms", tz="UTC"))),
    Case("datetime", "datetime64[ns]", "2024-05-31", datetime.datetime(2024, 5, 31), tensor=text("2024-05-31"),
         arrow=lambda pa: pa.array([NOON.date()] * 2)),
    Case("datetime", "datetime64[ns]", None, tensor=("BYTES", None), arrow=lambda pa: pa.array([None, None], pa.timestamp("ns"))),
    Case("object", "object", {"a": [1, None]}, cell=NONE, tensor=("BYTES", None)),
    Case("object", "object", "text", tensor=text("text")),
]

# What the table calls the types; each of them has a case.
ROWS = {"boolean": "boolean", "integer": "integer", "number": "number", "string": "string", "category": "string", "datetime": "datetime", "object": "object"}


def service(case):
    columns = [case.column]
    return types.SimpleNamespace(
        name="m", version="1", columns=columns, decoder=Decoder(columns), response={}, max_body=1 << 20,
        tables=tables.Tables(columns, 1 << 20) if pyarrow else None,
    )


def call(media, body, **headers):
    return Call(media, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def as_json(value):
    return "application/json", json.dumps(value).encode()


def record(case):
    return "/predict", own, *as_json([{"c": case.value}] * 2)


def split(case):
    return "/predict", own, *as_json({"columns": ["c"], "data": [[case.value]] * 2})


def instances(case):
    return "/v1/models/m:predict", kserve, *as_json({"instances": [{"c": case.value}] * 2})


def inputs(case):
    return "/invocations", mlflow, *as_json({"inputs": {"c": [case.value] * 2}})


def comma_separated(case):
    if case.cell is NONE:
        return None
    file = io.StringIO()
    # With a second column, a missing value is no blank line.
    csv.writer(file).writerows([["c", "other"], [case.cell, 1], [case.cell, 1]])
    return "/predict", own, "text/csv", file.getvalue().encode()


def arrow(case):
    table = pyarrow.table({"c": case.arrow(pyarrow)})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return "/predict", own, tables.ARROW, sink.getvalue().to_pybytes()


def parquet_file(case):
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table({"c": case.arrow(pyarrow)}), sink)
    return "/predict", own, tables.PARQUET, sink.getvalue().to_pybytes()


def tensor(case):
    kind, _ = case.tensor
    if case.column.type == "object" and not isinstance(case.value, str):
        return None
    value = case.value
    if kind.startswith("FP") and value is not None:
        value = float(value)
    given = {"name": "c", "datatype": kind, "shape": [2], "data": [value] * 2}
    return "/v2/models/m/infer", oip, *as_json({"inputs": [given]})


def tensor_in_bytes(case):
    kind, data = case.tensor
    if data is None:
        return None
    given = {"name": "c", "datatype": kind, "shape": [2, 1], "parameters": {"binary_data_size": 2 * len(data)}}
    head = json.dumps({"inputs": [given]}).encode()
    return "/v2/models/m/infer", oip, oip.BINARY, head + data * 2, len(head)


ENCODINGS = [record, split, instances, inputs, comma_separated, tensor, tensor_in_bytes] + ([arrow, parquet_file] if pyarrow else [])


class Cells(unittest.TestCase):
    def test_a_value_is_the_same_in_every_encoding(self):
        for case in CASES:
            served = service(case)
            build = frame.table(served.columns)
            for encoding in ENCODINGS:
                made = encoding(case)
                if made is None:
                    continue
                with self.subTest(case.name, encoding=encoding.__name__):
                    path, contract, media, body, *length = made
                    headers = {tensors.HEADER: str(length[0])} if length else {}
                    rows = contract.posts(served)[path](call(media, body, **headers)).rows
                    self.assertEqual(rows, [(case.row,)] * 2)
                    self.assertEqual([type(row[0]) for row in rows], [type(case.row)] * 2)
                    self.assertEqual(str(build(rows)["c"].dtype), case.column.dtype)

    def test_nothing_infinite_and_nothing_of_another_type_is_taken(self):
        wrong = [
            (Case("number", "float64", 1.5), [record, comma_separated, tensor_in_bytes, arrow], [float("inf"), True]),
            (Case("integer", "int64", 1), [record, comma_separated, arrow], [1.5, "x", 2**63]),
            (Case("string", "object", "a"), [record, arrow], [1, True]),
            (Case("boolean", "bool", True), [record, comma_separated, arrow], [2, "yes"]),
            (Case("datetime", "datetime64[ns]", ""), [record, comma_separated, arrow], ["noon", 5]),
        ]
        for case, encodings, values in wrong:
            served = service(case)
            for value in values:
                for encoding in encodings:
                    if encoding is arrow and not pyarrow or (value is True and encoding is comma_separated):
                        continue
                    if encoding is tensor_in_bytes and value is True:
                        continue
                    bad = Case(case.column.type, case.column.dtype, value, tensor=number("FP64", "d", value) if value == float("inf") else None)
                    with self.subTest(case.name, value=value, encoding=encoding.__name__):
                        path, contract, media, body, *length = encoding(bad)
                        with self.assertRaises(Problem) as caught:
                            contract.posts(served)[path](call(media, body, **({tensors.HEADER: str(length[0])} if length else {})))
                        # Infinity is no JSON at all.
                        self.assertIn(caught.exception.status, (400, 422))

    def test_the_documents_table_has_these_types_and_encodings(self):
        text = (pathlib.Path(__file__).parents[3] / "docs/serving.md").read_text()
        lines = text[text.index("<!-- encodings -->") :].splitlines()[1:]
        table = itertools.takewhile(lambda line: line.startswith("|"), lines)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
        self.assertEqual(rows[0], ["dtype", "JSON", "CSV", "Arrow, Parquet", "OIP in JSON", "OIP in bytes"])
        named = [row[0].strip("`").split("`")[0].split(" ")[0] for row in rows[2:] if row[0] != "missing"]
        self.assertEqual({ROWS[name] for name in named}, {case.column.type for case in CASES})
        self.assertTrue(all(len(row) == 6 and all(row) for row in rows))


@unittest.skipUnless(pyarrow, "pyarrow is not installed")
class Tables(unittest.TestCase):
    def refuses(self, media, body, status):
        case = Case("number", "float64", 1.5)
        with self.assertRaises(Problem) as caught:
            own.posts(service(case))["/predict"](call(media, body))
        self.assertEqual(caught.exception.status, status, caught.exception)

    def stream(self, table, **options):
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(self):
        many = pyarrow.table({"c": pyarrow.array([1.5] * 2_000_000)})
        for codec in ("zstd", "lz4"):
            body = self.stream(many, compression=codec)
            self.assertLess(len(body), 1 << 17)
            self.refuses(tables.ARROW, body, 413)
        words = pyarrow.table({"c": pyarrow.array(["x" * 9_000_000]).dictionary_encode()})
        self.refuses(tables.ARROW, self.stream(words, compression="zstd"), 413)
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(many, sink)
        self.refuses(tables.PARQUET, sink.getvalue().to_pybytes(), 413)
        self.refuses(tables.ARROW, self.stream(pyarrow.table({"c": pyarrow.nulls(1 << 26)})), 413)

    def test_what_is_broken_is_refused(self):
        body = self.stream(pyarrow.table({"c": [1.5, 2.5]}), compression="zstd")
        read = own.posts(service(Case("number", "float64", 1.5)))["/predict"]
        refused = 0
        for end in range(len(body)):
            try:
                # Between messages a stream may end: that is how the format has it.
                self.assertIn(read(call(tables.ARROW, body[:end])).rows, ([], [(1.5,), (2.5,)]))
            except Problem as problem:
                self.assertEqual(problem.status, 400)
                refused += 1
        self.assertGreater(refused, len(body) * 0.9)
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table({"c": [1.5, 2.5]}), sink)
        whole = sink.getvalue().to_pybytes()
        for end in range(0, len(whole), 17):
            self.refuses(tables.PARQUET, whole[:end], 400)
        twice = pyarrow.Table.from_arrays([pyarrow.array([1.5])] * 2, names=["c", "c"])
        self.refuses(tables.ARROW, self.stream(twice), 422)

    def test_flipped_bytes_never_raise_anything_else(self):
        body = bytearray(self.stream(pyarrow.table({"c": [1.5, 2.5]}), compression="zstd"))
        read = own.posts(service(Case("number", "float64", 1.5)))["/predict"]
        for at in range(len(body)):
            for flip in (1, 0x80, 0xFF):
                changed = bytes(body[:at]) + bytes([body[at] ^ flip]) + bytes(body[at + 1 :])
                try:
                    read(call(tables.ARROW, changed))
                except Problem:
                    pass

    def test_answers_are_tables(self):
        numbers, objects, mixed = [0.25, 1, None], [{"p": 0.5, "label": "a"}, {"p": 1, "label": None}], [1, "a", None]
        for media in tables.MEDIA_TYPES:
            for answers, expected in [
                (numbers, {"prediction": [0.25, 1.0, None]}),
                (objects, {"p": [0.5, 1.0], "label": ["a", None]}),
                (mixed, {"prediction": ["1", '"a"', None]}),
                ([], {"prediction": []}),
            ]:
                said, body = own.as_table(media, answers)
                self.assertEqual(said, media)
                source = pyarrow.BufferReader(body)
                table = pyarrow.ipc.open_stream(source).read_all() if media == tables.ARROW else parquet.read_table(source)
                self.assertEqual(table.to_pydict(), expected)


if __name__ == "__main__":
    unittest.main()

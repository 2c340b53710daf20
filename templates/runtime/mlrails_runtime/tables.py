"""Arrow IPC streams and Parquet files as bodies and as answers; only where the project brings pyarrow.

Takes bytes that anyone may have sent. Both formats are compressed and repeat values for free, so a small body may say that it is terabytes:
what it unpacks to is counted before it is unpacked, as far as the format tells, and refused above `Limits`. A missing value is a null or,
since data frames write it so, a NaN. Answers are one column `prediction`, or one per key when the answers are objects.

Source: Arrow columnar format 1.5 (encapsulated messages, Message.fbs), Parquet format 2.x.
"""

from __future__ import annotations

import datetime
import decimal
import importlib.util
import math
import struct

from mlrails_runtime import problem

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
MEDIA_TYPES = (ARROW, PARQUET)

# What a body may unpack to, in multiples of the largest body: of bytes, and (divided) of values, each of which is a Python object.
_BYTES_FACTOR, VALUES_DIVISOR = 8, 4
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def available():
    """Whether pyarrow is there. Importing it waits until it is needed."""
    return importlib.util.find_spec("pyarrow") is not None


class Tables:
    """`max_body`: bytes of the largest body, from which the limits of what it unpacks to follow."""

    def __init__(self, columns, max_body):
        self._columns = {column.name: column for column in columns}
        self._bytes = max_body * _BYTES_FACTOR
        self._values = max_body // VALUES_DIVISOR

    def read(self, media, body):
        """({column: values as a JSON decoder gives them}, rows). Columns that are not the schema's have no values."""
        import pyarrow

        try:
            batches, schema, names = self._arrow(body) if media == ARROW else self._parquet(body)
            if len(set(names)) != len(names):
                raise problem.shape("a column is there twice")
            table = pyarrow.Table.from_batches(batches, schema)
            table.validate(full=True)
            lists = {name: [] for name in names}
            for name, values in zip(schema.names, table.columns):
                if name in self._columns:
                    lists[name] = plain(self._columns[name], values)
            return lists, table.num_rows
        except problem.Problem:
            raise
        except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError, NotImplementedError, struct.error, IndexError):
            what = "an Arrow IPC stream" if media == ARROW else "a Parquet file"
            # The library's own words may quote values.
            raise problem.malformed(f"not {what} that can be read") from None

    def _arrow(self, body):
        from pyarrow import ipc

        size = 0
        for message in ipc.MessageReader.open_stream(body):
            size += _unpacked(bytes(message.metadata), message.body)
            self._within(size, 0)
        with ipc.open_stream(body) as reader:
            batches, rows = [], 0
            for batch in reader:
                rows += batch.num_rows
                self._within(0, rows * max(1, batch.num_columns))
                batches.append(batch)
            return batches, reader.schema, reader.schema.names

    def _parquet(self, body):
        import pyarrow
        from pyarrow import parquet

        with parquet.ParquetFile(pyarrow.BufferReader(body)) as file:
            metadata = file.metadata
            schema = file.schema_arrow
            names = [name for name in schema.names if name in self._columns]
            self._within(sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups)), 0)
            self._within(0, metadata.num_rows * max(1, len(names)))
            batches = list(file.iter_batches(columns=names, use_threads=False))
        return batches, pyarrow.schema([schema.field(name) for name in names]), schema.names

    def _within(self, size, values):
        if size > self._bytes or values > self._values:
            detail = f"unpacked, at most {self._bytes} bytes and {self._values} values (MLRAILS_MAX_BODY)"
            raise problem.Problem(413, "The body is too large", detail, kind="urn:mlrails:too-large")


def _unpacked(metadata, body):
    """Bytes that a message's buffers become. Compressed ones begin with their length, -1 where one is stored as it is."""
    # A flatbuffer: a table begins with the distance back to its vtable, which has the place of each field.
    root = struct.unpack_from("<I", metadata)[0]
    kind = _field(metadata, root, 1)
    if kind is None or metadata[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = _follow(metadata, _field(metadata, root, 2))
    if metadata[kind] == _DICTIONARY_BATCH:
        batch = _follow(metadata, _field(metadata, batch, 1))
    if _field(metadata, batch, 3) is None:
        return body.size if body is not None else 0
    buffers = _follow(metadata, _field(metadata, batch, 2))
    count = struct.unpack_from("<I", metadata, buffers)[0]
    view, size = memoryview(body), 0
    for at in range(count):
        start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * at)
        if length >= 8:
            stated = struct.unpack_from("<q", view, start)[0]
            size += length if stated < 0 else stated
    return size


def _field(metadata, table, number):
    """The place of a table's field, or None."""
    if table is None:
        raise ValueError("a table is missing")
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    length = struct.unpack_from("<H", metadata, vtable)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", metadata, vtable + at)[0] if at < length else 0
    return table + offset if offset else None


def _follow(metadata, place):
    if place is None:
        raise ValueError("a field is missing")
    return place + struct.unpack_from("<I", metadata, place)[0]


def plain(column, values):
    """A column's values as a JSON decoder would have given them."""
    import pyarrow

    kind = values.type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if pyarrow.types.is_timestamp(kind):
        # Nanoseconds have no place in a datetime; those of a column in UTC say so.
        values = values.cast(pyarrow.timestamp("us", tz="UTC" if kind.tz else None), safe=False)
    found = values.to_pylist()
    if pyarrow.types.is_floating(kind):
        return [None if value is None or math.isnan(value) else value for value in found]
    if pyarrow.types.is_temporal(kind):
        return [value if value is None or not hasattr(value, "isoformat") else value.isoformat() for value in found]
    if pyarrow.types.is_decimal(kind):
        return [None if value is None else _number(value) for value in found]
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        raise problem.shape(f"the column {column.name!r} is binary; text travels as strings")
    return found if column.type != "object" else [_json(value) for value in found]


def _number(value):
    return int(value) if value == value.to_integral_value() else float(value)


def _json(value):
    """A nested value as JSON would have had it."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(media, answers):
    """Answers, plain values, as a table in this media type."""
    import pyarrow

    if answers and all(isinstance(answer, dict) for answer in answers):
        names = list(dict.fromkeys(name for answer in answers for name in answer))
        table = pyarrow.table({name: array([answer.get(name) for answer in answers]) for name in names})
    else:
        table = pyarrow.table({"prediction": array(answers)})
    sink = pyarrow.BufferOutputStream()
    if media == ARROW:
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        from pyarrow import parquet

        parquet.write_table(table, sink)
    return media, sink.getvalue().to_pybytes()


def array(values):
    """Numbers stay numbers, even when some are whole; what no one column holds is JSON text."""
    import msgspec
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pyarrow.array([None if value is None else float(value) for value in values])
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError):
        return pyarrow.array([None if value is None else msgspec.json.encode(value).decode() for value in values])

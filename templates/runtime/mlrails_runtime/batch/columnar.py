"""Parquet and Arrow IPC: read row group by row group, written and put together. Only where the project brings pyarrow.

The same parts as text.py has. Memory holds the pages of one row group at most, and the rows of one chunk.

Source: Parquet format 2.x (row groups), Arrow columnar format 1.5 (IPC files and streams).
"""

from __future__ import annotations

import datetime

import msgspec
import pyarrow
from pyarrow import ipc, parquet

from mlrails_runtime import tables
from mlrails_runtime.batch.chunks import Chunk, generic
from mlrails_runtime.batch.refused import Refused

# Rows of a row group that is written: large enough to be read quickly, small enough to be held.
_GROUP = 1 << 17
_MAGIC = b"ARROW1"


class TableChunk(Chunk):
    def __init__(self, start, table, known):
        super().__init__(start, table.num_rows)
        self._table, self._known = table, known
        self._values = {}

    def _column(self, name, keep):
        column = self._table.column(name)
        return column if keep is None else column.take(pyarrow.array(keep, pyarrow.int64()))

    def values(self, name, keep):
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = tables.plain(self._known.get(name) or generic(name), self._table.column(name))
        return found if keep is None else [found[at] for at in keep]

    def _rows(self, decoder, keep):
        lists = {name: self.values(name, keep) for name in self._table.column_names if name in self._known}
        return decoder.by_column(lists, len(self.indices(keep)))

    def arrays(self, name, kind, keep):
        return self._column(name, keep).cast(kind)

    def original(self, at):
        return {name: self.values(name, [at])[0] for name in self._table.column_names}


class _Reader:
    """`row`: how many rows are behind. `names`: the columns."""

    offset = None

    def __init__(self, source, decoder, schema):
        self.source, self.row, self.schema = source, 0, schema
        self.names = schema.names
        self._known = {column.name: column for column in decoder.columns}
        self._batches, self._rest = None, None

    def read(self, most):
        try:
            return self._read(most)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise Refused(f"{self.source}: after {self.row} rows: it cannot be read: {error}") from None

    def _read(self, most):
        pieces, count = [], 0
        while count < most:
            if self._rest is None or not self._rest.num_rows:
                if self._batches is None:
                    self._batches = self._from(self.row)
                self._rest = next(self._batches, None)
                if self._rest is None:
                    break
                continue
            piece = self._rest.slice(0, most - count)
            self._rest = self._rest.slice(piece.num_rows)
            pieces.append(piece)
            count += piece.num_rows
        table = pyarrow.Table.from_batches(pieces, self.schema)
        # Offsets that point nowhere crash whoever follows them.
        table.validate(full=True)
        chunk = TableChunk(self.row, table, self._known)
        self.row += count
        return chunk

    def seek(self, row, offset=None):
        if row != self.row:
            self.row, self._batches, self._rest = row, None, None

    def skip(self, count):
        total = self.total()
        self.seek(self.row + count if total is None else min(total, self.row + count))

    def close(self):
        self._batches = self._rest = None
        self._file.close()


class ParquetReader(_Reader):
    def __init__(self, place, source, decoder, most):
        try:
            self._file = place.open()
            # Pages are read as they are needed, and not whole columns of a row group.
            self._parquet = parquet.ParquetFile(self._file, buffer_size=1 << 20, pre_buffer=False)
        except (pyarrow.ArrowException, ValueError) as error:
            raise Refused(f"{source}: not a Parquet file that can be read: {error}") from None
        self._most = most
        super().__init__(source, decoder, self._parquet.schema_arrow.remove_metadata())

    def total(self):
        return self._parquet.metadata.num_rows

    def _from(self, row):
        first = 0
        for group in range(self._parquet.num_row_groups):
            count = self._parquet.metadata.row_group(group).num_rows
            if first + count > row:
                skipped = max(0, row - first)
                for batch in self._parquet.iter_batches(self._most, row_groups=[group], use_threads=False):
                    away = min(skipped, batch.num_rows)
                    skipped -= away
                    if away < batch.num_rows:
                        yield batch.slice(away).replace_schema_metadata(None)
            first += count


class ArrowReader(_Reader):
    """An IPC file or an IPC stream, by how it begins. A stream is read again from its start to come to a row."""

    def __init__(self, place, source, decoder, most):
        self._place, self._streamed = place, place is None
        try:
            self._file = place.read() if place is not None else source.file
            self._reader = self._open(place is not None)
        except (pyarrow.ArrowException, ValueError) as error:
            raise Refused(f"{source}: not Arrow IPC that can be read: {error}") from None
        self._fresh = True
        super().__init__(source, decoder, self._reader.schema.remove_metadata())

    def _open(self, whole):
        if whole:
            start = self._file.read(len(_MAGIC))
            self._file.seek(0)
            if start == _MAGIC:
                self._streamed = False
                return ipc.open_file(self._file)
        self._streamed = True
        return ipc.open_stream(self._file)

    def total(self):
        return None

    def skip(self, count):
        # How many rows there are is known only at the end.
        while count:
            passed = self.read(min(count, 1 << 16)).count
            if not passed:
                return
            count -= passed

    def _from(self, row):
        if self._streamed and not self._fresh:
            self._file.seek(0)
            self._reader = self._open(True)
        self._fresh = False
        if self._streamed:
            batches = iter(self._reader)
        else:
            batches = (self._reader.get_batch(at) for at in range(self._reader.num_record_batches))
        for batch in batches:
            away = min(row, batch.num_rows)
            row -= away
            if away < batch.num_rows:
                yield batch.slice(away).replace_schema_metadata(None)


def typed(layout, decoder, schema):
    """The layout with the types of an Arrow output: the input's own, else the columns', else text."""
    known = {column.name: column for column in decoder.columns}
    fields = []
    for name in layout.names:
        if schema is not None and name in schema.names:
            kind = schema.field(name).type
            fields.append((name, kind.value_type if pyarrow.types.is_dictionary(kind) else kind))
        else:
            fields.append((name, _type_of(known.get(name))))
    kinds = {"number": pyarrow.float64(), "integer": pyarrow.int64(), "boolean": pyarrow.bool_()}
    fields += [(name, kinds.get(kind, pyarrow.string())) for name, kind in zip(layout.answers, layout.kinds)]
    layout.schema = pyarrow.schema(fields)
    return layout


def _type_of(column):
    if column is None:
        return pyarrow.string()
    if column.type == "datetime":
        return pyarrow.timestamp("us", tz="UTC" if "," in column.dtype else None)
    if column.type == "integer" and column.dtype.lower() == "uint64":
        return pyarrow.uint64()
    known = {"number": pyarrow.float64(), "integer": pyarrow.int64(), "boolean": pyarrow.bool_()}
    return known.get(column.type, pyarrow.string())


def _array(name, values, kind):
    """Values as a JSON decoder gives them, as an array of this type."""
    if pyarrow.types.is_string(kind):
        values = [value if value is None or type(value) is str else msgspec.json.encode(value).decode() for value in values]
    elif pyarrow.types.is_timestamp(kind):
        values = [value if value is None else _time(value) for value in values]
    elif pyarrow.types.is_floating(kind):
        values = [value if value is None else float(value) for value in values]
    elif pyarrow.types.is_integer(kind):
        values = [int(value) if type(value) is float and value.is_integer() else value for value in values]
    try:
        return pyarrow.array(values, kind)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise Refused(f"the output's column {name!r} is {kind}, and a value is not: {error}") from None


def _time(text):
    # Before Python 3.11 `fromisoformat` knows no "Z".
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)


class _Writer:
    def __init__(self, file, layout, header):
        self._layout, self._held, self._count = layout, [], 0
        self._sink = self._open(file, layout.schema)

    def write(self, chunk, keep, answers):
        layout, schema = self._layout, self._layout.schema
        arrays = []
        for name in layout.names:
            kind = schema.field(name).type
            if isinstance(chunk, TableChunk):
                arrays.append(chunk.arrays(name, kind, keep))
            else:
                arrays.append(_array(name, chunk.values(name, keep), kind))
        for name, values in zip(layout.answers, layout.split(answers)):
            arrays.append(_array(name, values, schema.field(name).type))
        self._held.append(pyarrow.Table.from_arrays(arrays, schema=schema))
        self._count += self._held[-1].num_rows
        if self._count >= _GROUP:
            self._flush()

    def finish(self):
        self._flush()
        self._sink.close()

    def _flush(self):
        if self._held:
            self._put(pyarrow.concat_tables(self._held).combine_chunks())
        self._held, self._count = [], 0


class _Sink(parquet.ParquetWriter):
    def __del__(self):
        """What was not finished is thrown away. Its end would be written to a file that is closed, on a disk that may be full."""


class ParquetWriter(_Writer):
    @staticmethod
    def _open(file, schema):
        return _Sink(file, schema)

    def _put(self, table):
        self._sink.write_table(table, row_group_size=_GROUP)


class ArrowWriter(_Writer):
    @staticmethod
    def _open(file, schema):
        return ipc.new_file(file, schema)

    def _put(self, table):
        self._sink.write_table(table)


class StreamWriter(ArrowWriter):
    @staticmethod
    def _open(file, schema):
        return ipc.new_stream(file, schema)


def join_parquet(parts, file, layout):
    with _Sink(file, layout.schema) as sink:
        for part in parts:
            with part.open() as piece, parquet.ParquetFile(piece) as read:
                for group in range(read.num_row_groups):
                    sink.write_table(read.read_row_group(group, use_threads=False))


def join_arrow(parts, file, layout, kind=ipc.new_file, opened=ipc.open_file):
    with kind(file, layout.schema) as sink:
        for part in parts:
            with part.open() as piece, opened(piece) as read:
                if opened is ipc.open_file:
                    for at in range(read.num_record_batches):
                        sink.write_batch(read.get_batch(at))
                else:
                    for batch in read:
                        sink.write_batch(batch)


def join_stream(parts, file, layout):
    join_arrow(parts, file, layout, ipc.new_stream, ipc.open_stream)

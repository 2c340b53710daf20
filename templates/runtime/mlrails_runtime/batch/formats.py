"""The formats of rows by their names: who reads each, who writes it, who puts its parts together."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

from mlrails_runtime.batch import text
from mlrails_runtime.batch.refused import Misused, Refused

_SUFFIXES = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrows",
}
NAMES = ("csv", "jsonl", "parquet", "arrow", "arrows")
_COLUMNAR = ("parquet", "arrow", "arrows")


def of(name, said=None):
    """The format of a file, by its name unless it was said."""
    if said:
        return said
    bare = name[:-3] if name.endswith(".gz") else name
    for suffix, format in _SUFFIXES.items():
        if bare.lower().endswith(suffix):
            return format
    raise Misused(f"{name}: which format? {', '.join(_SUFFIXES)} are known, with .gz for text; or say --input-format, --output-format")


def needs(format, what):
    """Refuses a columnar format where the project has no pyarrow."""
    if format in _COLUMNAR and importlib.util.find_spec("pyarrow") is None:
        raise Refused(
            f"{what}: {format} needs pyarrow, which is not here: put it among the project's dependencies, and in `[dependencies] keep`"
            " when no module that serving reaches imports it"
        )


@dataclasses.dataclass
class Standard:
    """stdin as a file."""

    file: object

    def __str__(self):
        return "stdin"


def reader(place, format, decoder, most):
    """The rows of one file; None is stdin."""
    needs(format, place or "stdin")
    if place is None:
        source = Standard(sys.stdin.buffer)
        if format == "parquet":
            raise Misused("Parquet is read from its end, which stdin does not have; `arrows` is for that")
    else:
        source = place
    if format == "sql":
        from mlrails_runtime.batch import sql

        return sql.SqlReader(source, decoder)
    if format == "csv":
        return text.CsvReader(place.read() if place else source.file, source, decoder)
    if format == "jsonl":
        return text.LinesReader(place.read() if place else source.file, source, decoder)
    from mlrails_runtime.batch import columnar

    kind = columnar.ParquetReader if format == "parquet" else columnar.ArrowReader
    return kind(place, source, decoder, most)


def writer(format, file, layout, header):
    return _part(format, "writer")(file, layout, header)


def join(format, parts, file, layout):
    _part(format, "join")(parts, file, layout)


def _part(format, role):
    if format in _COLUMNAR:
        from mlrails_runtime.batch import columnar as c

        found = {"parquet": (c.ParquetWriter, c.join_parquet), "arrow": (c.ArrowWriter, c.join_arrow), "arrows": (c.StreamWriter, c.join_stream)}
    else:
        found = {"csv": (text.CsvWriter, text.join), "jsonl": (text.LinesWriter, text.join)}
    return found[format][0 if role == "writer" else 1]


def typed(format, layout, decoder, reader):
    """The layout, with types where the format has them."""
    if format not in _COLUMNAR:
        return layout
    from mlrails_runtime.batch import columnar

    return columnar.typed(layout, decoder, getattr(reader, "schema", None))

"""Rows as they were read, some thousand at a time: what the decoder takes of them, and what each kind of output does.

A chunk knows its rows by index. `keep` is a list of indices, or None for all; `bad` are those that could not be read at all.
"""

from __future__ import annotations

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.columns import Column
from mlrails_runtime.decode import parse

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class BadRows(Exception):
    """Rows that the schema refuses: {index in the chunk: [{column, rule, message}]}."""

    def __init__(self, errors):
        super().__init__(f"{len(errors)} rows")
        self.errors = errors


class Chunk:
    """`start`: how many rows of the file came before. `bad`: {index: [error]}."""

    def __init__(self, start, count, bad=None):
        self.start, self.count, self.bad = start, count, bad or {}

    def indices(self, keep):
        return range(self.count) if keep is None else keep

    def rows(self, decoder, keep):
        """The decoder's rows of `keep`, or `BadRows`."""
        try:
            return self._rows(decoder, keep)
        except problem.Problem as refused:
            if not refused.errors or any(error["row"] is None for error in refused.errors):
                raise
            places, bad = self.indices(keep), {}
            for error in refused.errors:
                told = {key: error[key] for key in ("column", "rule", "message")}
                bad.setdefault(places[error["row"]], []).append(told)
            raise BadRows(bad) from None

    def records(self, names, keep):
        """Each row as a dict with these fields; None: with all it has."""
        columns = [self.values(name, keep) for name in names]
        return [dict(zip(names, values)) for values in zip(*columns)] if names else [{} for _ in self.indices(keep)]

    def cells(self, names, keep):
        """Each row as the list of its CSV cells."""
        if not names:
            return [[] for _ in self.indices(keep)]
        return list(map(list, zip(*([cell(value) for value in self.values(name, keep)] for name in names))))


class CsvChunk(Chunk):
    """`table`: a list of cells per row, as long as the header unless the row is bad."""

    def __init__(self, start, table, bad, header, known):
        super().__init__(start, len(table), bad)
        self._table, self._header, self._known = table, header, known
        self._places = {name: at for at, name in enumerate(header)}
        self._kept = self._columns = None

    def _by_column(self, keep):
        if self._columns is None or self._kept is not keep:
            rows = self._table if keep is None else [self._table[at] for at in keep]
            self._kept, self._columns = keep, list(zip(*rows)) or [()] * len(self._header)
        return self._columns

    def _rows(self, decoder, keep):
        columns = self._by_column(keep)
        texts = {name: self._known[name].from_texts(columns[at]) for name, at in self._places.items() if name in self._known}
        return decoder.by_column(texts, len(self.indices(keep)))

    def values(self, name, keep):
        texts = self._by_column(keep)[self._places[name]]
        return self._known[name].from_texts(texts) if name in self._known else list(texts)

    def cells(self, names, keep):
        """What came, untouched."""
        if names == self._header:
            return [list(row) for row in self._table] if keep is None else [list(self._table[at]) for at in keep]
        columns = self._by_column(keep)
        return list(map(list, zip(*(columns[self._places[name]] for name in names)))) if names else super().cells(names, keep)

    def original(self, at):
        row = self._table[at]
        if len(row) == len(self._header):
            return {name: _printable(text) for name, text in zip(self._header, row)}
        return [_printable(text) for text in row]


class LinesChunk(Chunk):
    """JSON lines."""

    def __init__(self, start, lines):
        super().__init__(start, len(lines))
        self._lines = lines

    def _rows(self, decoder, keep):
        lines = [self._lines[at] for at in self.indices(keep)]
        try:
            return decoder.lines(lines)
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            pass
        records, bad = [], {}
        for at, line in zip(self.indices(keep), lines):
            try:
                records.append(parse(line))
            except problem.Problem as refused:
                bad[at] = [{"column": None, "rule": "json", "message": refused.detail}]
        if bad:
            raise BadRows(bad)
        return decoder.records(records)

    def values(self, name, keep):
        return [parse(record[name]) if name in record else None for record in self._fields(keep)]

    def records(self, names, keep):
        """What came, to the last digit of its numbers."""
        fields = self._fields(keep)
        return fields if names is None else [{name: record.get(name) for name in names} for record in fields]

    def _fields(self, keep):
        return [_raw.decode(self._lines[at]) for at in self.indices(keep)]

    def original(self, at):
        try:
            return parse(self._lines[at])
        except problem.Problem:
            return _printable(self._lines[at].decode("utf-8", "surrogateescape").rstrip("\r\n"))


def cell(value):
    """A value as the text of a CSV cell, or as what csv makes it of."""
    if value is None or value != value:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return msgspec.json.encode(value).decode()
    return value


def generic(name):
    """The column of a name that is not the schema's: anything."""
    return Column(name=name, required=False, nullable=True)


def _printable(text):
    """Text that was not UTF-8, with U+FFFD where it was not."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

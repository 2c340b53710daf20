"""Bodies to rows: one record, a list of records, {"columns", "data"}, lists of values, CSV.

One row type, made from the schema, is checked by msgspec while it parses: that is the path of valid requests. What it refuses is
parsed again without types and checked value by value, which either accepts it after all (5.0 for a whole number) or names every
row, column and rule. Rows come out as tuples in column order; unknown fields are ignored.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.columns import Broken, Column

_as_tuple = msgspec.structs.astuple
ABSENT = msgspec.UNSET


class Decoder:
    """`columns`: the request's. `absent`: what stands for an optional column that a row does not have."""

    def __init__(self, columns: list[Column], absent=None):
        self.columns = columns
        self.names = [column.name for column in columns]
        self.absent = absent
        self._known = set(self.names)
        self._times = [at for at, column in enumerate(columns) if column.type == "datetime"]
        fields, names = [], {}
        for at, column in enumerate(columns):
            # Column names are any text; the fields that stand for them are not.
            names[f"c{at}"] = column.name
            fields.append((f"c{at}", column.fast_type()) if column.required else (f"c{at}", column.fast_type(), absent))
        # Required fields may come after optional ones only as keywords.
        row = msgspec.defstruct("Row", fields, rename=names, kw_only=True, gc=False)
        self._many = msgspec.json.Decoder(list[row])
        # A record is told from {"columns", "data"} by these two, unless the project has columns of those names.
        extra = [(key, msgspec.Raw, msgspec.UNSET) for key in ("columns", "data") if key not in self._known]
        self._probes = len(extra)
        self._one = msgspec.json.Decoder(msgspec.defstruct("Record", fields + extra, rename=names, kw_only=True, gc=False))
        self._row = row
        self._wrapped = {}

    def json(self, body):
        """Rows of our own contract: one record, a list of records, or {"columns", "data"}."""
        try:
            if body[:1] == b"{":
                values = _as_tuple(self._one.decode(body))
                if self._probes:
                    if any(value is not ABSENT for value in values[-self._probes :]):
                        return self.value(parse(body))
                    values = values[: -self._probes]
                rows = [values]
            else:
                rows = list(map(_as_tuple, self._many.decode(body)))
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            return self.value(parse(body))
        return self._timed(rows) if self._times else rows

    def wrapped(self, body, key):
        """Rows of a contract that holds a list under `key`, and the whole document when it had to be looked at."""
        decoder = self._wrapped.get(key)
        if decoder is None:
            kind = msgspec.defstruct("Wrapped", [("rows", list[self._row])], rename={"rows": key})
            decoder = self._wrapped[key] = msgspec.json.Decoder(kind)
        try:
            rows = list(map(_as_tuple, decoder.decode(body).rows))
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            document = parse(body)
            if not isinstance(document, dict) or key not in document:
                raise problem.shape(f'expected an object with "{key}"') from None
            return self.instances(document[key])
        return self._timed(rows) if self._times else rows

    def value(self, document):
        """Rows of a parsed document of our own contract."""
        if isinstance(document, dict):
            if {"columns", "data"} <= document.keys() and not {"columns", "data"} <= self._known:
                return self.split(document["columns"], document["data"])
            return self.records([document])
        if isinstance(document, list):
            return self.records(document)
        raise problem.shape('expected a record, a list of records, or {"columns": [...], "data": [[...]]}')

    def instances(self, rows):
        """A list whose items are records, or lists of values in column order, or (one column) bare values."""
        if not isinstance(rows, list):
            raise problem.shape("expected a list of rows")
        if rows and isinstance(rows[0], list):
            return self.split(self.names, rows)
        if rows and len(self.columns) == 1 and not isinstance(rows[0], dict):
            return self.split(self.names, [[value] for value in rows])
        return self.records(rows)

    def records(self, records):
        errors, rows = [], []
        for at, record in enumerate(records):
            if not isinstance(record, dict):
                errors.append(_error(at, None, "record", "expected an object with a field per column"))
                continue
            rows.append(tuple(self._field(at, column, record.get(column.name, ABSENT), errors) for column in self.columns))
        if errors:
            raise problem.invalid(errors)
        return rows

    def split(self, names, data):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise problem.shape('"columns" is a list of names')
        if not isinstance(data, list):
            raise problem.shape('"data" is a list of rows')
        if len(set(names)) != len(names):
            raise problem.shape('"columns" names a column twice')
        place = {name: at for at, name in enumerate(names)}
        errors, rows = [], []
        for at, values in enumerate(data):
            if not isinstance(values, list) or len(values) != len(names):
                errors.append(_error(at, None, "length", f"expected a list of {len(names)} values"))
                continue
            rows.append(
                tuple(
                    self._field(at, column, values[place[column.name]] if column.name in place else ABSENT, errors)
                    for column in self.columns
                )
            )
        if errors:
            raise problem.invalid(errors)
        return rows

    def by_column(self, columns, count):
        """Rows from one list per column, as tensors give them."""
        names = [name for name in columns if name in self._known]
        return self.split(names, [list(row) for row in zip(*(columns[name] for name in names))] if names else [[]] * count)

    def csv(self, body):
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise problem.malformed(f"not UTF-8 at byte {error.start}") from None
        rows = []
        try:
            for chunk in self.csv_rows(io.StringIO(text, newline="")):
                rows.append(chunk)
        except csv.Error as error:
            raise problem.malformed(f"not CSV: {error}") from None
        return self.split(rows[0], rows[1:])

    def csv_rows(self, file):
        """The header, then each row with its cells as JSON would have had them. Blank lines are skipped."""
        reader = csv.reader(file, strict=True)
        header = next((row for row in reader if row), None)
        if header is None:
            raise problem.malformed("not CSV: there is no header line")
        yield header
        known = {column.name: column for column in self.columns}
        parse_cell = [known[name].from_text if name in known else _as_it_is for name in header]
        for row in reader:
            if row:
                # A row of the wrong length goes on as it is: `split` names it.
                yield [parse(cell) for parse, cell in zip(parse_cell, row)] if len(row) == len(header) else row

    def _field(self, at, column, value, errors):
        if value is ABSENT:
            if not column.required:
                return self.absent
            errors.append(_error(at, column.name, "required", "the column is missing"))
            return None
        try:
            value = column.check(value)
            return column.check_time(value) if column.type == "datetime" else value
        except Broken as broken:
            errors.append(_error(at, column.name, broken.rule, str(broken)))
            return None

    def _timed(self, rows):
        errors, timed = [], []
        for at, row in enumerate(rows):
            values = list(row)
            for place in self._times:
                if values[place] is ABSENT:
                    continue
                try:
                    values[place] = self.columns[place].check_time(values[place])
                except Broken as broken:
                    errors.append(_error(at, self.names[place], broken.rule, str(broken)))
            timed.append(tuple(values))
        if errors:
            raise problem.invalid(errors)
        return timed


def parse(body) -> Any:
    """JSON as RFC 8259 has it: no NaN, no Infinity. The nesting depth is bounded by the parser."""
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise problem.malformed("JSON that is nested too deeply") from None
    except msgspec.ValidationError:
        raise problem.malformed("a JSON number out of range") from None
    except msgspec.DecodeError as error:
        raise problem.malformed(str(error)) from None


def _as_it_is(cell):
    return cell


def _error(row, column, rule, message):
    return {"row": row, "column": column, "rule": rule, "message": message}

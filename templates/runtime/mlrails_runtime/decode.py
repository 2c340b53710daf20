"""Bodies to rows: one record, a list of records, {"columns", "data"}, lists of values, lists per column, CSV.

One row type, made from the schema, is checked by msgspec while it parses: that is the path of valid requests. What it refuses is
parsed again without types and checked value by value, which either accepts it after all (5.0 for a whole number) or names every
row, column and rule. Rows come out as tuples in column order. Unknown fields are ignored, as training data has columns that serving never
reads; but where an optional column is left out, they may be its name misspelt, and `Rows` tells of them.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from typing import Any

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.columns import Broken, Column

# A text may be as long as a body, which has a limit of its own.
csv.field_size_limit((1 << 31) - 1)
_as_tuple = msgspec.structs.astuple
ABSENT = msgspec.UNSET


class Rows(list):
    """Rows of which some left an optional column out. `ignored`: the names they had instead that are no column's."""

    ignored: tuple = ()


class Decoder:
    """`columns`: the request's. `absent`: what stands for an optional column that a row does not have."""

    def __init__(self, columns: list[Column], absent=None):
        self.columns = columns
        self.names = [column.name for column in columns]
        self.absent = absent
        self._known = set(self.names)
        # Of one request, where anyone may send it: how many values it may have, and how many wrong ones are told apart. To say of
        # each of a million rows what is wrong takes gigabytes.
        self.most_values = self.most_errors = None
        # Changes whenever an optional column was left out: two threads may decode, so neither can set a flag back.
        self._absences = itertools.count()
        self._absence = 0
        self._times = [at for at, column in enumerate(columns) if column.type == "datetime"]
        fields, names = [], {}
        for at, column in enumerate(columns):
            # Column names are any text; the fields that stand for them are not.
            names[f"c{at}"] = column.name
            if column.required:
                fields.append((f"c{at}", column.fast_type()))
            else:
                fields.append((f"c{at}", column.fast_type(), msgspec.field(default_factory=self._left_out)))
        # Required fields may come after optional ones only as keywords.
        row = msgspec.defstruct("Row", fields, rename=names, kw_only=True, gc=False)
        self._many = msgspec.json.Decoder(list[row])
        # A record is told from {"columns", "data"} by these two, unless the project has columns of those names.
        extra = [(key, msgspec.Raw, msgspec.UNSET) for key in ("columns", "data") if key not in self._known]
        self._probes = len(extra)
        self._one = msgspec.json.Decoder(msgspec.defstruct("Record", fields + extra, rename=names, kw_only=True, gc=False))
        self._line = msgspec.json.Decoder(row)
        self._row = row
        self._wrapped = {}
        self._values = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
        self._value = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._tuples = list[tuple[tuple(column.fast_type() for column in columns)]] if columns else None
        self._numbers = [at for at, column in enumerate(columns) if column.type == "number"]

    def json(self, body):
        """Rows of our own contract: one record, a list of records, or {"columns", "data"}."""
        absence = self._absence
        if self._may_be_too_many(body):
            return self.value(parse(body))
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
        if self._times:
            rows = self._timed(rows)
        if absence != self._absence:
            records = [self._value.decode(body)] if body[:1] == b"{" else self._values.decode(body)
            return self._told(rows, set().union(*records))
        return rows

    def lines(self, lines):
        """Rows of records, each a document of its own. Raises what msgspec does at the first that is not as most are."""
        absence = self._absence
        rows = list(map(_as_tuple, map(self._line.decode, lines)))
        if self._times:
            rows = self._timed(rows)
        return rows if absence == self._absence else self._told(rows, set().union(*map(self._value.decode, lines)))

    def wrapped(self, body, key):
        """Rows of a contract that holds a list under `key`, and the whole document when it had to be looked at."""
        decoder = self._wrapped.get(key)
        if decoder is None:
            kind = msgspec.defstruct("Wrapped", [("rows", list[self._row])], rename={"rows": key})
            decoder = self._wrapped[key] = msgspec.json.Decoder(kind)
        absence = self._absence
        try:
            if self._may_be_too_many(body):
                raise msgspec.ValidationError
            rows = list(map(_as_tuple, decoder.decode(body).rows))
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
            document = parse(body)
            if not isinstance(document, dict) or key not in document:
                raise problem.shape(f'expected an object with "{key}"') from None
            return self.instances(document[key])
        if self._times:
            rows = self._timed(rows)
        if absence != self._absence:
            return self._told(rows, set().union(*parse(body)[key]))
        return rows

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
        self.within(len(records))
        errors, rows = [], []
        for at, record in enumerate(records):
            if not isinstance(record, dict):
                self._wrong(errors, _error(at, None, "record", "expected an object with a field per column"))
                continue
            rows.append(tuple(self._field(at, column, record.get(column.name, ABSENT), errors) for column in self.columns))
        if errors:
            raise problem.invalid(errors)
        if all(self._known <= record.keys() for record in records):
            return rows
        return self._told(rows, set().union(*records))

    def split(self, names, data):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise problem.shape('"columns" is a list of names')
        if not isinstance(data, list):
            raise problem.shape('"data" is a list of rows')
        if len(set(names)) != len(names):
            raise problem.shape('"columns" names a column twice')
        place = {name: at for at, name in enumerate(names)}
        missing = [column.name for column in self.columns if column.required and column.name not in place]
        if missing and not data:
            # No row could say so; it is most likely not what was meant to be sent.
            raise problem.shape(f"there are no rows, and no columns {', '.join(missing[:10])}")
        self.within(len(data))
        errors, rows = [], []
        for at, values in enumerate(data):
            if not isinstance(values, list) or len(values) != len(names):
                self._wrong(errors, _error(at, None, "length", f"expected a list of {len(names)} values"))
                continue
            rows.append(
                tuple(
                    self._field(at, column, values[place[column.name]] if column.name in place else ABSENT, errors)
                    for column in self.columns
                )
            )
        if errors:
            raise problem.invalid(errors)
        return rows if self._known <= place.keys() else self._told(rows, place)

    def by_column(self, columns, count):
        """Rows from one list of `count` values per column, as tensors and tables give them."""
        self.within(count)
        if self._tuples and not self._times and self._known <= columns.keys():
            try:
                rows = msgspec.convert(list(zip(*(columns[name] for name in self.names))), self._tuples)
                if all(_finite(columns[self.names[at]]) for at in self._numbers):
                    return rows
            except (msgspec.ValidationError, OverflowError):
                pass  # judged value by value below
        names = [name for name in columns if name in self._known]
        rows = self.split(names, [list(row) for row in zip(*(columns[name] for name in names))] if names else [[]] * count)
        return rows if len(names) == len(self.names) else self._told(rows, columns)

    def csv(self, body):
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise problem.malformed(f"not UTF-8 at byte {error.start}") from None
        rows = []
        try:
            for chunk in self.csv_rows(io.StringIO(text, newline="")):
                rows.append(chunk)
                self.within(len(rows) - 1)
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

    def within(self, rows):
        """Raises the 413 of more rows than one request may have."""
        if self.most_values is not None and rows * max(1, len(self.columns)) > self.most_values:
            raise problem.too_many_values(self.most_values)

    def _may_be_too_many(self, body):
        """Whether to count records before rows are made of them."""
        return self.most_values is not None and body.count(b"{") * max(1, len(self.columns)) > self.most_values

    def _wrong(self, errors, error):
        errors.append(error)
        if self.most_errors is not None and len(errors) > self.most_errors:
            raise problem.invalid(errors, all_of_them=False)

    def _left_out(self):
        self._absence = next(self._absences) + 1
        return self.absent

    def _told(self, rows, names):
        ignored = sorted(set(names) - self._known)
        if ignored:
            rows = Rows(rows)
            rows.ignored = ignored
        return rows

    def _field(self, at, column, value, errors):
        if value is ABSENT:
            if not column.required:
                return self.absent
            self._wrong(errors, _error(at, column.name, "required", "the column is missing"))
            return None
        try:
            value = column.check(value)
            return column.check_time(value) if column.type == "datetime" else value
        except Broken as broken:
            self._wrong(errors, _error(at, column.name, broken.rule, str(broken)))
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
                    self._wrong(errors, _error(at, self.names[place], broken.rule, str(broken)))
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


def parse_with_nan(body) -> Any:
    """JSON; and NaN for a missing value, which is no JSON, but is what MLflow's own client makes of a data frame and Triton's of a tensor."""
    if b"NaN" not in body:
        return parse(body)
    try:
        return parse(body)
    except problem.Problem:
        pass
    try:
        # Infinity becomes one, which the schema refuses.
        document = json.loads(body, parse_constant=lambda word: None if word == "NaN" else float(word))
        # Half of a surrogate pair is taken by this parser, and is no text.
        json.dumps(document, ensure_ascii=False).encode()
        return document
    except (ValueError, RecursionError):
        # UnicodeError is one of them. Whatever else is wrong was named above.
        return parse(body)


def _finite(values):
    return all(math.isfinite(value) for value in values if value is not None)


def _as_it_is(cell):
    return cell


def _error(row, column, rule, message):
    return {"row": row, "column": column, "rule": rule, "message": message}

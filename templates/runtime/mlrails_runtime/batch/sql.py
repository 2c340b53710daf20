"""Rows of a database by a query, where the project brings SQLAlchemy and a driver.

The query says the order: a part is known by the places of its rows, so the same query must give the same rows in the same order when a
job goes on. Rows are taken from the server's cursor as they are needed.
"""

from __future__ import annotations

import datetime
import decimal
import importlib.util
import re

from mlrails_runtime import problem
from mlrails_runtime.batch.chunks import Chunk
from mlrails_runtime.batch.places import shown
from mlrails_runtime.batch.refused import Misused, Refused
from mlrails_runtime.settings import Refused as Unset
from mlrails_runtime.settings import secret

_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


class Query:
    """An input as `Job` knows them: a URL, or `env:NAME` or `file:PATH` of one, and a query of it."""

    name = "query.sql"

    def __init__(self, url, query):
        if importlib.util.find_spec("sqlalchemy") is None:
            raise Refused("--query needs sqlalchemy and a driver among the project's dependencies, and in `[dependencies] keep`")
        if not _ORDER.search(query):
            raise Misused("--query: without `order by` a job that was killed cannot go on where it was")
        try:
            self.url = secret(url) if url.startswith(("env:", "file:")) else url
        except (Unset, OSError) as error:
            raise Refused(f"--input {url}: {error}") from None
        self.query = query
        # What is printed, and part of the fingerprint: no password.
        self.text = shown(self.url)

    def __str__(self):
        return self.text

    def identity(self):
        return [self.query]

    def size(self):
        return 0


class SqlReader:
    """`row`: how many rows are behind. `names`: the result's columns."""

    offset = None

    def __init__(self, source, decoder):
        import sqlalchemy

        self.source, self.row = source, 0
        self._known = {column.name: column for column in decoder.columns}
        self._errors = sqlalchemy.exc.SQLAlchemyError
        self._text = sqlalchemy.text(source.query)
        try:
            self._engine = sqlalchemy.create_engine(source.url)
        except (self._errors, ImportError) as error:
            raise Refused(f"{source}: {_words(error)}") from None
        self._connection = None
        self._execute()
        self.names = list(self._result.keys())

    def _execute(self):
        if self._connection is not None:
            self._connection.close()
        try:
            self._connection = self._engine.connect().execution_options(stream_results=True)
            self._result = self._connection.execute(self._text)
        except (self._errors, ImportError) as error:
            raise Refused(f"{self.source}: {_words(error)}") from None

    def _fetch(self, most):
        try:
            return self._result.fetchmany(most)
        except self._errors as error:
            raise Refused(f"{self.source}: after {self.row} rows: {_words(error)}") from None

    def seek(self, row, offset=None):
        if row < self.row:
            self._execute()
            self.row = 0
        self.skip(row - self.row)

    def skip(self, count):
        while count:
            passed = len(self._fetch(min(count, 4096)))
            if not passed:
                return
            self.row += passed
            count -= passed

    def read(self, most):
        chunk = SqlChunk(self.row, self._fetch(most), self.names, self._known)
        self.row += chunk.count
        return chunk

    def close(self):
        self._connection.close()
        self._engine.dispose()


class SqlChunk(Chunk):
    def __init__(self, start, rows, names, known):
        super().__init__(start, len(rows))
        self._columns = dict(zip(names, zip(*rows))) if rows else {name: () for name in names}
        self._known, self._plain = known, {}

    def values(self, name, keep):
        found = self._plain.get(name)
        if found is None:
            column = self._known.get(name)
            truth = column is not None and column.type == "boolean"
            found = self._plain[name] = [_plain(name, value, truth) for value in self._columns[name]]
        return found if keep is None else [found[at] for at in keep]

    def _rows(self, decoder, keep):
        lists = {name: self.values(name, keep) for name in self._columns if name in self._known}
        return decoder.by_column(lists, len(self.indices(keep)))

    def original(self, at):
        return {name: self.values(name, [at])[0] for name in self._columns}


def _plain(name, value, truth):
    """A driver's value as a JSON decoder would have given it. Databases without truth values have 0 and 1."""
    kind = type(value)
    if truth and kind is int and value in (0, 1):
        return bool(value)
    if kind is float:
        return None if value != value else value
    if value is None or kind in (int, str, bool, list, dict):
        return value
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise problem.shape(f"the column {name!r} is binary; text travels as strings")
    return str(value)


def _words(error):
    """The driver's own words: SQLAlchemy's quote the statement."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]

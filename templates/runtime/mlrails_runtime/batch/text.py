"""CSV and JSON lines: read from any row on, written and put together.

A reader is for one file: `names` (None where each row has its own), `seek`, `read`, `skip`. Places are row numbers, with the byte where the
row begins when that is known.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import shutil

import msgspec

from mlrails_runtime.batch import lines
from mlrails_runtime.batch.chunks import CsvChunk, LinesChunk, cell
from mlrails_runtime.batch.refused import Refused

_NOT_UTF8 = [{"column": None, "rule": "utf8", "message": "not UTF-8"}]


class _Reader:
    """`row`: how many rows are behind."""

    def __init__(self, file, source, decoder):
        self.source, self.row = source, 0
        self._lines = lines.Lines(file, source)
        self._decoder = decoder

    @property
    def offset(self):
        return self._lines.offset

    def seek(self, row, offset=None):
        if row == self.row:
            return
        if offset is not None:
            self._lines.seek(offset)
            self.row = row
        else:
            self.skip(row - self.row)

    def skip(self, count):
        """Goes on by `count` rows, or to the end."""
        while count:
            passed = self._lines.skip_plain(count, self._blank)
            if not passed:
                passed = len(self._take(min(count, 1000)))
                if not passed:
                    return
            count -= passed
            self.row += passed

    def close(self):
        self._lines.close()


class CsvReader(_Reader):
    _blank = staticmethod(lines.blank_csv)

    def __init__(self, file, source, decoder):
        super().__init__(file, source, decoder)
        self._known = {column.name: column for column in decoder.columns}
        self._damaged = False
        self._bad = {}
        try:
            self.names = next(filter(None, self._csv()), None)
        except csv.Error as error:
            raise Refused(f"{source}: not CSV: {error}") from None
        if self.names is None:
            raise Refused(f"{source}: not CSV: there is no header line")
        if self._damaged:
            raise Refused(f"{source}: the header is not UTF-8")

    def read(self, most):
        """The next rows as a chunk, at most so many; an empty one at the end."""
        self._damaged, self._bad = False, {}
        table, width = self._take(most), len(self.names)
        for at, row in enumerate(table):
            if len(row) != width and at not in self._bad:
                self._bad[at] = [{"column": None, "rule": "length", "message": f"{len(row)} cells under a header of {width}"}]
        if self._damaged:
            for at, row in enumerate(table):
                if any("\udc80" <= letter <= "\udcff" for text in row for letter in text):
                    self._bad.setdefault(at, _NOT_UTF8)
        chunk = CsvChunk(self.row, table, self._bad, self.names, self._known)
        self.row += len(table)
        return chunk

    def _take(self, most):
        rows = []
        while len(rows) < most:
            try:
                rows.extend(itertools.islice(filter(None, self._csv()), most - len(rows)))
                break
            except csv.Error as error:
                # The line that cannot be read is behind; the reader goes on after it.
                self._bad[len(rows)] = [{"column": None, "rule": "csv", "message": f"not CSV: {error}"}]
                rows.append([])
        return rows

    def _csv(self):
        """A reader takes no more lines than its rows have, so that another may go on."""
        return csv.reader(self._texts(), strict=True)

    def _texts(self):
        for line in self._lines:
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self._damaged = True
                yield line.decode("utf-8", "surrogateescape")


class LinesReader(_Reader):
    _blank = staticmethod(lines.blank_json)
    names = None

    def read(self, most):
        found = self._take(most)
        chunk = LinesChunk(self.row, found)
        self.row += len(found)
        return chunk

    def first_names(self):
        """The fields of the first record that is one, for outputs that have a header."""
        for line in self._lines:
            try:
                return list(msgspec.json.decode(line, type=dict))
            except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
                continue
        return [column.name for column in self._decoder.columns]

    def _take(self, most):
        return list(itertools.islice((line for line in self._lines if line.strip()), most))


class CsvWriter:
    """`header`: whether the names come first."""

    def __init__(self, file, layout, header):
        self._file, self._layout = file, layout
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer, lineterminator="\n")
        if header:
            self._writer.writerow(layout.names + layout.answers)

    def write(self, chunk, keep, answers):
        rows = chunk.cells(self._layout.names, keep)
        for row, values in zip(rows, self._layout.columns_of(answers)):
            row.extend(values)
        self._writer.writerows(rows)
        self._flush()

    def finish(self):
        self._flush()

    def _flush(self):
        self._file.write(self._buffer.getvalue().encode())
        self._buffer.seek(0)
        self._buffer.truncate()


class LinesWriter:
    def __init__(self, file, layout, header):
        self._file, self._names = file, layout.names
        self._encode = msgspec.json.Encoder().encode

    def write(self, chunk, keep, answers):
        records = chunk.records(self._names, keep)
        for record, answer in zip(records, answers):
            record["prediction"] = answer
        self._file.write(b"".join(self._encode(record) + b"\n" for record in records))

    def finish(self):
        pass


def join(parts, file, layout):
    """One after the other; what is packed stays packed, since packed files may follow one another."""
    for part in parts:
        with part.open() as piece:
            shutil.copyfileobj(piece, file, 1 << 20)


def texts(answers):
    """Answers as CSV has them, one each."""
    if all(type(value) is float for value in answers) and math.isfinite(sum(answers)):
        return answers
    return [cell(value) for value in answers]


def checked_header(reader, decoder):
    """Refuses what every row of the file would be refused for."""
    names = reader.names
    if len(set(names)) != len(names):
        raise Refused(f"{reader.source}: the header names a column twice")
    missing = [column.name for column in decoder.columns if column.required and column.name not in names]
    if missing:
        raise Refused(f"{reader.source}: there is no column {', '.join(missing[:10])}; it has {', '.join(names[:20])}")

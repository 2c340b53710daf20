"""A job: inputs cut into parts, each scored chunk by chunk and written whole, then put together.

Parts and chunks begin at multiples of their sizes in each file, so that a part is the same bytes whichever process makes it, and whether
or not the one before was killed. Memory holds one chunk, and what a writer holds for a row group.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import typing

from mlrails_runtime.batch import formats, layout, ledger, places, sql, stdout
from mlrails_runtime.batch.judge import judge
from mlrails_runtime.batch.refused import Misused, Refused, RowsRejected
from mlrails_runtime.batch.text import checked_header

MOST_REPORTED = 20


@dataclasses.dataclass
class Totals:
    """`scored` and `rejected` of the whole job; `made`: rows that this run read. `parts`: places in order."""

    scored: int = 0
    rejected: int = 0
    made: int = 0
    resumed: int = 0
    examples: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)
    rejected_parts: list = dataclasses.field(default_factory=list)

    def add(self, note):
        self.scored += note["scored"]
        self.rejected += note["rejected"]
        self.examples = (self.examples + note["examples"])[:MOST_REPORTED]


class Job:
    """`_stream`: the one writer of an Arrow stream to stdout."""

    ledger: typing.Any = None
    id = None
    _stream = None

    def __init__(self, service, chosen):
        self.service, self.chosen = service, chosen
        self.piped = chosen.input == ["-"]
        if chosen.query is not None:
            if len(chosen.input) > 1 or self.piped or chosen.input_format:
                raise Misused("--query is of one database: --input URL, env:NAME or file:PATH")
            self.inputs, self.formats = [sql.Query(chosen.input[0], chosen.query)], ["sql"]
        else:
            self.inputs = [None] if self.piped else [one for text in chosen.input for one in places.place(text).matches()]
            self.formats = [formats.of("stdin.csv" if one is None else one.name, chosen.input_format) for one in self.inputs]
        self.chunk = chosen.chunk
        self.rows = -(-chosen.part_rows // chosen.chunk) * chosen.chunk
        if service.document.get("alone"):
            # Rows that belong together: a file is scored whole.
            self.chunk = self.rows = sys.maxsize
        self._output()
        self._layout()

    def _output(self):
        chosen, text = self.chosen, self.chosen.output
        self.streams = text == "-"
        self.output = None if self.streams else places.place(text)
        self.folder = not self.streams and (text.endswith("/") or self.output.is_folder())
        if self.streams or self.folder:
            self.format = chosen.output_format or ("csv" if chosen.query is not None else self.formats[0])
        else:
            self.format = formats.of(self.output.name, chosen.output_format)
        formats.needs(self.format, "the output")
        self.rejected = places.place(chosen.rejected) if chosen.rejected else None
        if self.streams and (self.format == "parquet" or self.rejected is not None or chosen.partition[1] > 1):
            raise Misused("stdout takes csv, jsonl and arrows, the whole of it, and no --rejected")
        if self.streams and self.format == "arrow":
            self.format = "arrows"
        if chosen.partition[1] > 1 and not self.folder and chosen.worker is None:
            raise Misused("a job for several machines writes a folder: --output DIR/")
        packed = not self.streams and not self.folder and self.output.name.endswith(".gz")
        self.suffix = f".{self.format}{'.gz' if packed else ''}"
        if packed and self.format not in ("csv", "jsonl"):
            raise Misused("only text is packed with .gz; the others are by themselves")

    def _layout(self):
        first = self._reader(0)
        flat = self.format != "jsonl"
        names = first.names
        if names is None and flat:
            names = first.first_names()
        keep = self.chosen.keep
        self.layout = formats.typed(self.format, layout.of(self.service.response, names, keep, flat), self.service.decoder, first)
        self._first = first if self.piped else None
        if not self.piped:
            first.close()
        if self.piped and first.names is None and flat:
            raise Misused("JSON lines from stdin are written as jsonl: a header cannot be known before they were read")

    def _reader(self, at):
        reader = formats.reader(self.inputs[at], self.formats[at], self.service.decoder, min(self.chunk, 1 << 16))
        if reader.names is not None:
            checked_header(reader, self.service.decoder)
        return reader

    def open(self):
        """The ledger; needed only where parts are written."""
        if self.streams:
            return None
        chosen = self.chosen
        # A pipe cannot be read again; whatever was noted of an earlier one is no help.
        options = [self.format, self.formats, self.chunk, self.rows, chosen.on_error, self.layout.names, self.folder, bool(chosen.rejected)]
        if self.id is None:
            self.id = "piped" if self.piped else ledger.fingerprint(self.service, self.inputs, options)
        self.work = self.output.child("_parts") if self.folder else places.place(f"{self.chosen.output}.parts")
        if self.piped:
            self.work.remove_all()
        notes = self.work.child(self.id)
        parts = self.output if self.folder else notes
        rejected = self.rejected if self.folder else (notes if self.rejected is not None else None)
        self.ledger = ledger.Ledger(notes.child("notes"), parts, rejected, self.suffix)
        return self.ledger

    def score(self, model, progress, stop=lambda: None):
        """Makes the parts of this partition that are not there."""
        totals = Totals()

        def make(reader, file, at):
            return self.part(model, reader, file, at, totals, progress, stop)

        for file, at, note, there in self.parts(make):
            totals.resumed += there
            totals.add(note)
            totals.notes.append((file, at))
            if note["size"] is not None:
                totals.parts.append(self.ledger.part(file, at))
            if note["rejected_size"] is not None:
                totals.rejected_parts.append(self.ledger.rejected(file, at))
        return totals

    def parts(self, make):
        """The parts of this partition in order: (file, at, note, whether it was there). Those that others make are passed over.

        `make(reader, file, at)` gives the note of one that is not there: the reader stands at its first row, and afterwards behind its last.
        """
        mine, of = self.chosen.partition
        for file in range(len(self.inputs)):
            at, row, offset, last, reader = 0, 0, None, False, None
            try:
                while not last:
                    wanted = (file + at) % of == mine
                    note = self.ledger.note(file, at) if self.ledger is not None and not self.piped else None
                    there = note is not None
                    if not there:
                        if reader is None:
                            reader = self.opened(file)
                        reader.seek(row, offset)
                        note = make(reader, file, at) if wanted else self.passed(reader)
                    if wanted:
                        yield file, at, note, there
                    row, offset, last = note["row"], note["offset"], note["last"]
                    at += 1
            finally:
                if reader is not None:
                    reader.close()

    def opened(self, file):
        """A reader of an input that has the columns which the output needs of it."""
        reader = self._first or self._reader(file)
        self._matching(reader)
        return reader

    def passed(self, reader):
        """Where the next part begins, for one that is not made here."""
        start = reader.row
        reader.skip(self.rows)
        return {"row": reader.row, "offset": reader.offset, "last": reader.row < start + self.rows}

    def _matching(self, reader):
        names = self.layout.names
        missing = [] if names is None or reader.names is None else [name for name in names if name not in reader.names]
        if missing:
            raise Refused(f"{reader.source}: there is no column {', '.join(missing[:10])}, which the first input has")

    def part(self, model, reader, file, at, totals, progress, stop=lambda: None):
        """Makes one part, from where the reader stands, and its note."""
        start, scored, rejected, examples = reader.row, 0, 0, []
        name = str(reader.source)
        # The first part of a file is there even without rows, for its header; a later one without rows is none.
        chunk = reader.read(min(self.chunk, self.rows))
        empty = at > 0 and not chunk.count
        with contextlib.ExitStack() as stack:
            if not empty:
                place = self.ledger and self.ledger.part(file, at)
                out = stack.enter_context(place.writing()) if place else _Piped(stdout.take())
                header = self.folder or (file, at) == (0, 0)
                if place is None and self.format == "arrows" and self._stream is not None:
                    writer = self._stream
                else:
                    writer = formats.writer(self.format, out, self.layout, header)
                if place is None and self.format == "arrows":
                    self._stream = writer
            refused = None
            while chunk.count:
                keep, answers, bad = judge(model, chunk)
                if bad:
                    rejected += len(bad)
                    for index in sorted(bad)[: MOST_REPORTED - len(examples)]:
                        examples.append(_told(name, chunk.start + index, bad[index]))
                    if self.chosen.on_error == "fail":
                        raise RowsRejected(len(bad), examples)
                    if self.ledger is not None and self.ledger.rejected(file, at) is not None:
                        if refused is None:
                            refused = stack.enter_context(self.ledger.rejected(file, at).writing())
                        for index in sorted(bad):
                            refused.write(_line(name, chunk, index, bad[index]))
                if answers:
                    writer.write(chunk, keep, answers)
                scored += len(answers)
                totals.made += chunk.count
                progress.tell(totals.made, f"{name} row {reader.row:,}")
                stop()
                left = start + self.rows - reader.row
                if not left or chunk.count < self.chunk:
                    break
                chunk = reader.read(min(self.chunk, left))
            if not empty and self._stream is None:
                writer.finish()
        note = {"row": reader.row, "offset": reader.offset, "last": reader.row < start + self.rows}
        note.update(scored=scored, rejected=rejected, examples=examples, size=None, rejected_size=None)
        if self.ledger is not None:
            if not empty:
                note["size"] = self.ledger.part(file, at).size()
            if refused is not None:
                note["rejected_size"] = self.ledger.rejected(file, at).size()
            self.ledger.write(file, at, note)
        else:
            stdout.take().flush()
        return note

    def finish(self, totals):
        """What was made becomes the output."""
        if self.streams:
            if self._stream is not None:
                self._stream.finish()
                stdout.take().flush()
            return
        if self.folder:
            if self.chosen.query is not None:
                # What a database holds has no fingerprint: the next run of this command is another job.
                self.ledger.forget(totals.notes)
            if self.chosen.partition[1] == 1:
                # Parts of an earlier job that had more of them.
                there = {place.name for place in totals.parts + totals.rejected_parts}
                for folder, start in ((self.output, "part-"), (self.rejected, "rejected-")):
                    for child in folder.children() if folder is not None else []:
                        if child.name.startswith(start) and child.name not in there:
                            child.remove()
            return
        if self.rejected is not None:
            with self.rejected.writing() as out:
                formats.join("jsonl", totals.rejected_parts, out, self.layout)
        with self.output.appending() as out:
            formats.join(self.format, totals.parts, out, self.layout)
        self.work.remove_all()

    def abandon(self):
        """After rows were rejected: nothing of a single output stays."""
        if self.ledger is not None and not self.folder:
            self.work.remove_all()


class _Piped:
    """stdout for writers, which must not close it."""

    closed = False

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush

    def writable(self):
        return True

    def close(self):
        pass


def _told(name, row, errors):
    first = errors[0]
    where = f"column {first['column']}: " if first["column"] is not None else ""
    return f"{name}: row {row + 1}: {where}{first['message']}"


def _line(name, chunk, index, errors):
    document = {"input": name, "row": chunk.start + index + 1, "errors": errors, "record": chunk.original(index)}
    return json.dumps(document, ensure_ascii=False, default=str).encode() + b"\n"

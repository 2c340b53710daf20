"""`batch`: scores a file, CSV or JSON lines, in chunks; memory does not grow with its length.

Output rows are the input's with `prediction` added (an answer that is an object adds its keys to a CSV). The output appears under
its name only when it is whole.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import sys
import time

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.decode import parse
from mlrails_runtime.service import Model, Service, Unusable, plain

MOST_REPORTED = 20


def run(settings, words):
    """0: done; 1: rows were rejected under --on-error fail, or the input cannot be read; 2: usage."""
    parser = argparse.ArgumentParser(prog="batch", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="rows.csv, rows.jsonl, or - (CSV on stdin)")
    parser.add_argument("--output", required=True, help="answers.csv, answers.jsonl, or - (as the input)")
    parser.add_argument("--on-error", choices=["fail", "skip"], default="fail", help="what a row that breaks the schema does")
    parser.add_argument("--chunk", type=int, default=4096, help="rows in memory at a time")
    chosen = parser.parse_args(words)
    try:
        model = Model(Service(settings.app), fast=settings.accelerate)
        return _Run(model, chosen).run()
    except (Unusable, OSError, csv.Error) as error:
        print(f"error: {error}", file=sys.stderr)
    except problem.Problem as refused:
        print(f"error: {chosen.input}: {refused}", file=sys.stderr)
    return 1


class _Run:
    def __init__(self, model, chosen):
        self.model = model
        self.decoder = model.service.decoder
        self.chosen = chosen
        self.rejected = []
        self.rejected_count = 0
        self.scored = 0

    def run(self):
        source, target = self.chosen.input, self.chosen.output
        lines = source.endswith((".jsonl", ".ndjson"))
        lines_out = lines if target == "-" else target.endswith((".jsonl", ".ndjson"))
        started = said = time.monotonic()
        with _reading(source) as file, _writing(target) as out:
            rows = _json_lines(file) if lines else _csv_rows(file, self.decoder)
            writer = _JsonLines(out) if lines_out else _Csv(out)
            while chunk := list(itertools.islice(rows, max(1, self.chosen.chunk))):
                kept, decoded = self._decode(chunk)
                if self.rejected_count and self.chosen.on_error == "fail":
                    break
                if decoded:
                    answers = msgspec.to_builtins(self.model.score(decoded), enc_hook=plain)
                    writer.write(kept, answers)
                    self.scored += len(kept)
                if time.monotonic() - said > 5:
                    said = time.monotonic()
                    print(f"{self.scored} rows, {self.scored / (said - started):.0f} per second", file=sys.stderr)
            refused = self.rejected_count and self.chosen.on_error == "fail"
            if refused:
                out.abandon()
        for line in self.rejected:
            print(line, file=sys.stderr)
        if self.rejected_count > len(self.rejected):
            print(f"… and {self.rejected_count - len(self.rejected)} more", file=sys.stderr)
        print(
            json.dumps({"scored": self.scored, "rejected": self.rejected_count, "seconds": round(time.monotonic() - started, 3)}),
            file=sys.stderr,
        )
        if refused:
            print("error: rows were rejected and nothing was written; --on-error skip leaves them out", file=sys.stderr)
        return 1 if refused else 0

    def _decode(self, chunk):
        """The rows that fit the schema, as (originals, decoded). A chunk is judged at once and, if need be, row by row."""
        originals = [record for _, record, _ in chunk]
        if all(message is None for _, _, message in chunk):
            try:
                return originals, self.decoder.records(originals)
            except problem.Problem:
                pass
        kept, decoded = [], []
        for number, record, message in chunk:
            try:
                if message is not None:
                    raise problem.malformed(message)
                decoded.extend(self.decoder.records([record]))
                kept.append(record)
            except problem.Problem as refused:
                self.rejected_count += 1
                if len(self.rejected) < MOST_REPORTED:
                    first = refused.errors[0] if refused.errors else {"column": None, "message": refused.detail}
                    where = f"column {first['column']}: " if first["column"] is not None else ""
                    self.rejected.append(f"{self.chosen.input}: row {number}: {where}{first['message']}")
        return kept, decoded


def _csv_rows(file, decoder):
    rows = decoder.csv_rows(file)
    header = next(rows)
    for number, row in enumerate(rows, 1):
        message = None if len(row) == len(header) else f"{len(row)} cells under a header of {len(header)}"
        yield number, dict(zip(header, row)), message


def _json_lines(file):
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, parse(line), None
        except problem.Problem as refused:
            yield number, {}, refused.detail


class _JsonLines:
    def __init__(self, out):
        self._out = out

    def write(self, records, answers):
        for record, answer in zip(records, answers):
            self._out.write(msgspec.json.encode({**record, "prediction": answer}).decode() + "\n")


class _Csv:
    def __init__(self, out):
        self._writer = csv.writer(out, lineterminator="\n")
        self._names = None

    def write(self, records, answers):
        for record, answer in zip(records, answers):
            fields = answer if isinstance(answer, dict) else {"prediction": answer}
            if self._names is None:
                self._names = list(record), list(fields)
                self._writer.writerow(self._names[0] + self._names[1])
            cells = [record.get(name) for name in self._names[0]] + [fields.get(name) for name in self._names[1]]
            self._writer.writerow(["" if cell is None else cell for cell in cells])


@contextlib.contextmanager
def _reading(path):
    if path == "-":
        yield sys.stdin
        return
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield file


@contextlib.contextmanager
def _writing(path):
    """A file that takes its name when it is whole, and never when it was abandoned."""
    if path == "-":
        yield _Output(sys.stdout)
        sys.stdout.flush()
        return
    part = f"{path}.part"
    done = False
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            out = _Output(file)
            yield out
            done = not out.abandoned
        if done:
            os.replace(part, path)
    finally:
        if not done:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)


class _Output:
    def __init__(self, file):
        self.write = file.write
        self.abandoned = False

    def abandon(self):
        self.abandoned = True

"""`batch`: scores files in chunks; memory does not grow with their length, and a run that was killed goes on where it was.

Output rows are the input's with `prediction` added (an answer that is an object adds its keys where there are columns).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import zlib

from mlrails_runtime import problem
from mlrails_runtime import settings as environment
from mlrails_runtime.batch import formats, stdout, workers
from mlrails_runtime.batch.job import Job
from mlrails_runtime.batch.progress import Progress
from mlrails_runtime.batch.refused import Misused, Refused, RowsRejected, code_of
from mlrails_runtime.engines import drive
from mlrails_runtime.service import Model, Service, Unusable

# Which process of how many this is, as platforms tell the ones they start side by side.
PLATFORMS = [("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"), ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT")]

# A process more is worth its start for this many bytes of input.
_BYTES_PER_WORKER = 64 << 20

EPILOG = """examples:
  batch --input rows.csv --output answers.csv
  batch --input 'days/*.parquet' --output answers/ --rejected rejected/ --on-error skip
  batch --input s3://bucket/rows.parquet --output s3://bucket/answers/ --partition 3/8
  batch --input env:DATABASE_URL --query 'select * from customers order by id' --output answers.parquet
  batch --input /shared/rows.parquet --output /shared/answers/ --engine ray --engine-address head:6379
  zcat rows.csv.gz | batch --input - --output - --keep id

Run the same command again after it was killed: parts that are there are not made again.
"""


def run(settings, words):
    """0: done; 1: rows were rejected under --on-error fail, or something cannot be read; 2: usage; 3: the same command may do later (a full
    disk, a cluster that is not there); 130, 143: interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        chosen = _parser().parse_args(words)
        if chosen.engine_address and not chosen.engine:
            raise Misused("--engine-address is of a cluster; which kind? --engine ray or dask")
        stdout.take()
        chosen.partition = _partition(chosen.partition)
        if chosen.worker is not None:
            at, of = chosen.worker
            chosen.partition = (chosen.partition[0] + chosen.partition[1] * at, chosen.partition[1] * of)
        return _run(settings, chosen, words)
    except (Misused, Unusable, Refused, problem.Problem, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return code_of(error)
    except (EOFError, zlib.error) as error:
        print(f"error: an input that is packed breaks off or is damaged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _run(settings, chosen, words):
    if chosen.engine:
        drive.check(chosen)
    worker = chosen.worker is not None
    progress = Progress(workers.report if worker else None)
    service = Service(settings.app)
    job = Job(service, chosen)
    count = 1 if worker or job.piped or job.streams or chosen.engine else _processes(settings, chosen, job)
    report = None
    try:
        job.open()
        if chosen.engine:
            report = drive.run(job, chosen, _wanted(chosen, job), progress)
            # What they made is there; this only counts it.
            job.open()
        if worker:
            workers.end_with_parent()
        if count > 1:
            code = workers.run(words, count, progress)
            if code:
                if code == 1 and chosen.on_error == "fail":
                    job.abandon()
                return code
            # What they made is there; this only counts it.
            job.open()
        model = _Later(settings, service)
        totals = job.score(model, progress)
        if not worker:
            job.finish(totals)
    except RowsRejected as refused:
        progress.end()
        for line in refused.lines:
            print(line, file=sys.stderr)
        if refused.count > len(refused.lines):
            print(f"… and {refused.count - len(refused.lines)} more in these {chosen.chunk} rows", file=sys.stderr)
        left = "the parts before them stay" if job.folder else "nothing was written"
        if job.streams:
            left = "the rows before them were"
        print(f"error: rows were rejected and {left}; --on-error skip leaves them out", file=sys.stderr)
        if not worker:
            job.abandon()
        return 1
    progress.end()
    if worker:
        return 0
    for line in totals.examples:
        print(line, file=sys.stderr)
    if totals.rejected > len(totals.examples):
        print(f"… and {totals.rejected - len(totals.examples)} more", file=sys.stderr)
    summary = {"scored": totals.scored, "rejected": totals.rejected, "seconds": round(progress.seconds, 3)}
    if report is not None:
        summary["parts_there"] = report.there
        summary["engine"] = {"name": chosen.engine, "parts": report.made, "workers": len(report.names), "lost": report.lost}
        if report.peak is not None:
            summary["engine"]["largest_process_mib"] = round(report.peak / (1 << 20))
    elif totals.resumed and count == 1:
        summary["parts_there"] = totals.resumed
    print(json.dumps(summary), file=sys.stderr)
    return 0


class _Later:
    """The model, loaded when the first row is scored: who finds all parts made needs none."""

    def __init__(self, settings, service):
        self._settings, self.service, self._model = settings, service, None

    def _loaded(self):
        if self._model is None:
            self._model = Model(self.service, fast=self._settings.accelerate)
        return self._model

    def check(self, rows):
        self._loaded().check(rows)

    def score(self, rows):
        return self._loaded().score(rows)


def _processes(settings, chosen, job):
    """As many as the machine has cores for, and the input work for."""
    if chosen.workers:
        return chosen.workers
    size = sum(place.size() for place in job.inputs)
    return min(environment.workers(settings), max(1, size // _BYTES_PER_WORKER // chosen.partition[1]))


def _wanted(chosen, job):
    """How many processes of a cluster: no more than the input has work for."""
    size = sum(place.size() for place in job.inputs)
    return chosen.workers or max(1, size // _BYTES_PER_WORKER // chosen.partition[1])


def _partition(said):
    """(which, of how many), counted from 0."""
    if said is not None:
        return said
    for index, count in PLATFORMS:
        if os.environ.get(index, "") == "":
            continue
        if os.environ.get(count, "") == "":
            raise Misused(f"{index} is set and {count} is not: set it to the number of completions, or say --partition {os.environ[index]}/N")
        try:
            return _share(f"{os.environ[index]}/{os.environ[count]}")
        except argparse.ArgumentTypeError as error:
            raise Misused(f"{index}, {count}: {error}") from None
    return 0, 1


def _share(text):
    which, _, of = text.partition("/")
    if not (which.isdecimal() and of.isdecimal() and int(which) < int(of)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, I from 0 to N-1")
    return int(which), int(of)


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least 1")
    return int(text)


def _names(text):
    return [name for name in text.split(",") if name]


def _parser():
    parser = argparse.ArgumentParser(
        prog="batch", description=__doc__.split("\n")[0], epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, nargs="+", action="extend", metavar="PATH", help="files, folders, patterns or URLs; - is stdin")
    add("--query", metavar="SQL", help="rows of a database: --input is its SQLAlchemy URL, or env:NAME or file:PATH of it; needs `order by`")
    add("--output", required=True, metavar="PATH", help="a file, or a folder (DIR/) with a file per part; - is stdout")
    add("--input-format", choices=formats.NAMES, help="where names do not say it (default: by the name; stdin is csv)")
    add("--output-format", choices=formats.NAMES, help="the same for the output (default: as the input)")
    add("--on-error", choices=["fail", "skip"], default="fail", help="what a row that breaks the schema does")
    add("--rejected", metavar="PATH", help="where rejected rows go with their reasons, as JSON lines; a folder when the output is one")
    add("--keep", type=_names, metavar="A,B", help="input columns that the output has (default: all)")
    add("--partition", type=_share, metavar="I/N", help="this machine's share of the parts (default: what Kubernetes or Cloud Run say)")
    add("--workers", type=_count, metavar="N", help="processes, of a cluster with --engine (default: by cores and size)")
    add("--engine", choices=sorted(drive.ENGINES), help="score on the workers of a cluster that is there; files have to be on storage they share")
    add("--engine-address", metavar="ADDRESS", help="which cluster (default: RAY_ADDRESS, DASK_SCHEDULER_ADDRESS)")
    add("--chunk", type=_count, default=4096, help="rows in memory at a time (4096)")
    add("--part-rows", type=_count, default=1 << 18, help="rows of a part, which is made again when it was not finished (262144)")
    add("--worker", type=_share, help=argparse.SUPPRESS)
    return parser


def _terminated(number, frame):
    print("terminated; the same command goes on from here", file=sys.stderr)
    sys.exit(128 + number)

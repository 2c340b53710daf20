"""The pipeline's own process on a cluster's worker: checks where it is, loads the model, and makes the parts that it is told.

Documents come as JSON lines over stdin, the job first and then one per part; each gets one line of answer. The end of stdin is the end: then
what is half-written is removed. Before versions were compared only the standard library is used, since what is there may not be ours.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import queue
import shutil
import signal
import sys
import threading

# Seconds without work until it is taken to be forgotten.
_FORGOTTEN = 120
# Seconds to leave nothing half-written once nobody wants it.
_LAST = 4


def main():
    out, lines = os.fdopen(os.dup(1), "wb"), queue.SimpleQueue()
    # What the project's code prints goes where the worker logs.
    os.dup2(2, 1)
    # Whoever started the worker may have told it, and so this, to ignore signals, and a thread of Ray's blocks them.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    finished, spec = threading.Event(), {}
    threading.Thread(target=_listen, args=(lines, finished), daemon=True).start()

    def say(reply):
        out.write(json.dumps(reply).encode() + b"\n")
        out.flush()

    try:
        spec = _document(lines)
        with _told(say):
            maker = _Maker(spec)
            say({"ready": maker.golden})
            while True:
                order = _document(lines)
                with _told(say):
                    say(maker.make(order))
    except (queue.Empty, KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        finished.set()
        shutil.rmtree(spec.get("folder", ""), ignore_errors=True)
    return 0


def _document(lines):
    line = lines.get(timeout=_FORGOTTEN)
    if line is None:
        raise KeyboardInterrupt
    return json.loads(line)


def _listen(lines, finished):
    for line in sys.stdin.buffer:
        lines.put(line)
    # It ends by itself where it waits for work; where it works, as by Ctrl-C; and where a library's own code does not let it, hard.
    lines.put(None)
    if not finished.wait(0.2):
        # A signal, not only a flag: it may wait in a call of the system's.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        if not finished.wait(_LAST):
            os._exit(1)


class _Refused(Exception):
    """Before anything of ours could be imported."""


@contextlib.contextmanager
def _told(say):
    """What goes wrong becomes the answer."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError, queue.Empty, SystemExit):
        raise
    except MemoryError:
        say({"lost": "its process had no memory left"})
    except _Refused as error:
        say({"refused": str(error), "code": 1})
    except Exception as error:
        from mlrails_runtime.batch.refused import RowsRejected, code_of, words

        if isinstance(error, RowsRejected):
            say({"rejected": error.count, "lines": error.lines})
        else:
            say({"refused": words(error), "code": code_of(error)})


def differences(expected):
    """What is not here as it was locked, one line each."""
    lines = []
    here = "{}.{}".format(*sys.version_info)
    if here != expected["python"]:
        lines.append(f"Python is {here} there and {expected['python']} here")
    for name, version in expected["locked"].items():
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is missing there, {version} is locked")
            continue
        if there != version:
            lines.append(f"{name} is {there} there, {version} is locked")
    return lines


class _Maker:
    """`golden`: how many rows it answered as training did."""

    def __init__(self, spec):
        wrong = differences(spec["expected"])
        if wrong:
            raise _Refused("; ".join(wrong))
        from mlrails_runtime import settings
        from mlrails_runtime.service import Model, Service, Unusable, replay

        chosen = settings.read()
        settings.prepare_process(chosen)
        service = Service(chosen.app)
        self._model = Model(service, fast=chosen.accelerate)
        unlike = replay(self._model)
        if unlike:
            first = unlike[0]
            raise Unusable(
                f"{len(unlike)} golden rows are answered differently than in training: row {first['row']} expected"
                f" {first['expected']!r}, got {first['got']!r}"
            )
        self.golden = len(service.golden()[0])
        self._job = _job(service, spec)
        self._file, self._reader = None, None

    def make(self, order):
        from mlrails_runtime.batch.job import Totals
        from mlrails_runtime.batch.progress import Progress
        from mlrails_runtime.batch.refused import Refused

        place = self._job.inputs[order["file"]]
        if order["identity"] != json.loads(json.dumps(place.identity(), default=str)):
            raise Refused(f"{place} is another file there: size and time are {place.identity()}, and here {order['identity']}")
        reader, self._reader = self._reader, None
        if reader is not None and (self._file != order["file"] or reader.row > order["row"]):
            reader.close()
            reader = None
        if reader is None:
            self._file, reader = order["file"], self._job.opened(order["file"])
        reader.seek(order["row"], order["offset"])
        note = self._job.part(self._model, reader, order["file"], order["at"], Totals(), Progress(quiet=True))
        # Only one that came to its end stands where it should.
        self._reader = reader
        return {"note": note, "peak": _peak()}


def _job(service, spec):
    import argparse

    from mlrails_runtime.batch.job import Job

    chosen = argparse.Namespace(**spec["chosen"])
    job = Job(service, chosen)
    for place, told in zip(job.inputs, spec["told"]):
        place.told = told
    job.id = spec["job"]
    job.open()
    return job


def _peak():
    """Bytes of memory that this process had at most; None where the system does not tell. (`getrusage` counts what its parent had, too.)"""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return None


if __name__ == "__main__":
    sys.exit(main())

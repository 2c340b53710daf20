"""Several processes of this machine on one job: each makes every n-th part, this one puts them together.

A worker is the same command with a number; what it tells comes as JSON lines over its stdout.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time

from mlrails_runtime.batch import stdout

# Seconds that the others have to end by themselves when one has failed.
_LAST = 1.0


def run(words, count, progress):
    """0 when all ended well, else the exit code of the first that did not; the others are ended."""
    children = []
    try:
        for at in range(count):
            command = [sys.executable, "-m", "mlrails_runtime", "batch", *words, "--worker", f"{at}/{count}"]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL))
        return _watch(children, progress)
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            child.wait()
            child.stdout.close()


def _watch(children, progress):
    rows = [0] * len(children)
    with selectors.DefaultSelector() as selector:
        for at, child in enumerate(children):
            selector.register(child.stdout, selectors.EVENT_READ, at)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()
                if line:
                    told = json.loads(line)
                    rows[key.data] = told["rows"]
                    progress.tell(sum(rows), told["where"])
                    continue
                selector.unregister(key.fileobj)
                code = children[key.data].wait()
                if code:
                    _settle(children)
                    return code if code > 0 else 128 - code
    return 0


def _settle(children):
    """A full disk stops all of them at once: those that are clearing up are not to be disturbed."""
    until = time.monotonic() + _LAST
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0, until - time.monotonic()))


def report(told):
    """From a worker to who started it; it ends when nobody listens."""
    out = stdout.take()
    try:
        out.write(json.dumps(told).encode() + b"\n")
        out.flush()
    except BrokenPipeError:
        os._exit(1)


def end_with_parent():
    """A worker whose parent was killed is not wanted any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

"""What the worker processes of one service know of each other: states and counters, in memory that all of them share.

The memory is anonymous (a memfd, else an unlinked temporary file), so a read-only root is no obstacle. Each worker writes only
its own slot; anyone may read all. Without it /metrics would tell of whichever worker happened to answer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import time

STARTING, READY, FAILED = 1.0, 2.0, 3.0
_PROCESS, _STATE, _EVER_READY, _CLAIMS, _FIRST = 0, 1, 2, 3, 4
_DRAINING = 0
_HEAD = 8


class Board:
    """Made before the workers are forked. `cells`: how many counters each worker has."""

    def __init__(self, workers, cells):
        self.workers = workers
        self.started = time.time()
        self._stride = _FIRST + cells
        self._fd = _anonymous_file()
        size = (_HEAD + workers * self._stride) * 8
        os.ftruncate(self._fd, size)
        self._cells = memoryview(mmap.mmap(self._fd, size)).cast("d")

    def claim(self):
        """This process's slot: the first that no living process has. The counters of a dead one go on, as Prometheus wants."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            for slot in range(self.workers):
                base = self._base(slot)
                owner = int(self._cells[base + _PROCESS])
                if owner and owner != os.getpid() and _alive(owner):
                    continue
                self._cells[base + _PROCESS] = os.getpid()
                self._cells[base + _STATE] = STARTING
                self._cells[base + _CLAIMS] += 1.0
                return Slot(self, slot)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        raise RuntimeError("more workers than slots")

    @property
    def draining(self):
        return self._cells[_DRAINING] != 0

    def drain(self):
        self._cells[_DRAINING] = 1.0

    def failed(self):
        return any(self._cells[self._base(slot) + _STATE] == FAILED for slot in range(self.workers))

    def all_were_ready(self):
        return all(self._cells[self._base(slot) + _EVER_READY] for slot in range(self.workers))

    def ready(self):
        """How many workers answer."""
        states = (self._base(slot) for slot in range(self.workers))
        return sum(self._cells[base + _STATE] == READY and _alive(int(self._cells[base + _PROCESS])) for base in states)

    def restarts(self):
        return int(sum(max(0.0, self._cells[self._base(slot) + _CLAIMS] - 1.0) for slot in range(self.workers)))

    def processes(self):
        return [process for slot in range(self.workers) if (process := int(self._cells[self._base(slot) + _PROCESS]))]

    def total(self, cell):
        return sum(self._cells[self._base(slot) + _FIRST + cell] for slot in range(self.workers))

    def _base(self, slot):
        return _HEAD + slot * self._stride


class Slot:
    """One worker's part. `cells[i]` is its counter i: a float64 that only this process writes."""

    def __init__(self, board, slot):
        self.board = board
        base = board._base(slot)
        self._head = board._cells[base : base + _FIRST]
        self.cells = board._cells[base + _FIRST : base + board._stride]

    @property
    def state(self):
        return self._head[_STATE]

    @property
    def respawned(self):
        """Whether a worker that died was ready here: the service is up, so this one must not listen before it can answer."""
        return self._head[_EVER_READY] != 0

    def ready(self):
        self._head[_STATE] = READY
        self._head[_EVER_READY] = 1.0

    def fail(self):
        self._head[_STATE] = FAILED

    def is_ready(self):
        """This worker answers, every worker did at least once, and nobody asked to stop."""
        return self.state == READY and not self.board.draining and self.board.all_were_ready()


def _anonymous_file():
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mlrails-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

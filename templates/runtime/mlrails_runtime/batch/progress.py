"""How far a job is, on stderr: in place on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time


class Progress:
    """`report`: where a process that works for another one tells it, instead."""

    def __init__(self, report=None, quiet=False):
        self._report, self._quiet = report, quiet
        self._terminal = report is None and sys.stderr.isatty()
        self._every = 0.5 if self._terminal or report else 5.0
        self.started = self._said = time.monotonic()

    def tell(self, rows, where):
        """`rows`: scored by this run until now."""
        now = time.monotonic()
        if self._quiet or now - self._said < self._every:
            return
        self._said = now
        if self._report is not None:
            self._report({"rows": rows, "where": where})
            return
        line = f"{rows:,} rows, {rows / (now - self.started):,.0f} per second, {where}"
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def end(self):
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @property
    def seconds(self):
        return time.monotonic() - self.started

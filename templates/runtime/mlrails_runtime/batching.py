"""Zero-wait batching: one thread scores together whatever queued while it was busy.

There is no timer: an idle worker scores a single request at once, a busy one takes all that waits. Requests share a batch only if
their options are equal (their columns always are: the decoder made them so). When a batch fails, each request is scored
alone, so that a bad row fails its own request and no other. Who was cancelled or has expired leaves before scoring.
"""

from __future__ import annotations

import collections
import queue
import threading
import time

from mlrails_runtime import problem
from mlrails_runtime.service import NotPerRow


class Job:
    """One request's rows on their way. `future` belongs to the loop's thread; the scoring thread only looks whether it is done."""

    __slots__ = ("rows", "key", "future", "deadline", "answer", "error")

    def __init__(self, rows, key, future, deadline):
        self.rows = rows
        self.key = key
        self.future = future
        self.deadline = deadline
        self.answer = None
        self.error = None


class Batcher:
    """`load()` gives `score(rows) -> list`; it runs first, in the scoring thread, so that the process answers probes meanwhile.

    `observe(rows, seconds)` is told of each call of `score`; `loaded()` and `failed(error)` are called once, in the scoring thread.
    """

    def __init__(self, load, loop, *, queue_limit, batch_rows, timeout, observe=None, loaded=None, failed=None):
        self._load = load
        self._loop = loop
        self._queue = queue.SimpleQueue()
        self._limit = queue_limit
        self._batch_rows = batch_rows
        self._timeout = timeout
        self._observe = observe or (lambda rows, seconds: None)
        self._loaded = loaded or (lambda: None)
        self._failed = failed or (lambda error: None)
        self._accepted = collections.deque()
        self.waiting = 0
        self.per_row = True
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def start(self):
        self._thread.start()
        self._loop.call_later(0.25, self._expire)

    def submit(self, rows, key=None):
        """A future for one answer per row. Raises the 503 when too many wait. In the loop's thread only."""
        if self.waiting >= self._limit:
            raise problem.overloaded()
        job = Job(rows, key, self._loop.create_future(), time.monotonic() + self._timeout)
        self.waiting += 1
        self._accepted.append(job)
        self._queue.put(job)
        return job.future

    def stop(self):
        self._queue.put(None)

    # The loop's thread.

    def _deliver(self, batch):
        self.waiting -= len(batch)
        for job in batch:
            job.rows = None
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.answer)

    def _expire(self):
        """Answers those whose time is up, even while a score call hangs. All deadlines are equally long, so the oldest is first."""
        now = time.monotonic()
        while self._accepted and (self._accepted[0].future.done() or self._accepted[0].deadline <= now):
            job = self._accepted.popleft()
            if not job.future.done():
                job.future.set_exception(problem.overloaded("the prediction took too long"))
        self._loop.call_later(0.25, self._expire)

    # The scoring thread.

    def _run(self):
        try:
            score = self._load()
        except BaseException as error:  # whatever a project's import raises, SystemExit too
            self._failed(error)
            return
        self._loaded()
        held = None
        while True:
            job = held or self._queue.get()
            held = None
            if job is None:
                return
            batch, count = [job], len(job.rows)
            while count < self._batch_rows and self.per_row:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None or job.key != batch[0].key or count + len(job.rows) > self._batch_rows:
                    held = job
                    if job is None:
                        self._queue.put(None)
                    break
                batch.append(job)
                count += len(job.rows)
            self._score(score, batch)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _score(self, score, batch):
        now = time.monotonic()
        live = []
        for job in batch:
            if job.deadline <= now:
                job.error = problem.overloaded("the prediction took too long")
            elif not job.future.done():
                live.append(job)
        if not live:
            return
        if len(live) == 1:
            self._alone(score, live[0])
            return
        rows = []
        for job in live:
            rows.extend(job.rows)
        try:
            answers = score(rows)
        except BaseException:
            for job in live:
                self._alone(score, job)
            return
        self._observe(len(rows), time.monotonic() - now)
        at = 0
        for job in live:
            end = at + len(job.rows)
            job.answer = answers[at:end]
            at = end

    def _alone(self, score, job):
        started = time.monotonic()
        try:
            job.answer = score(job.rows)
        except NotPerRow as error:
            self.per_row = False
            job.error = error
        except BaseException as error:
            job.error = error
        self._observe(len(job.rows), time.monotonic() - started)



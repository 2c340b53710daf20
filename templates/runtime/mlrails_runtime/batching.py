"""Zero-wait batching: whatever queued while a worker was busy is scored together.

There is no timer: an idle worker scores a single request at once, a busy one takes all that waits. Requests share a batch only if
their options are equal (their columns always are: the decoder made them so). When a batch fails, each request is scored
alone, so that a bad row fails its own request and no other. Who was cancelled or has expired leaves before scoring. A request of more
rows than a batch holds is scored in pieces, and what is small goes between them.

Two threads may score, never both at once. The scoring thread loads the model and takes what may last: the loop answers probes and
deadlines meanwhile. What is known to last no longer than `QUICK` the loop's thread scores itself, because handing over costs more than
much of what is handed over. It may once it was seen to give the same answers (libraries keep settings per thread) without waiting for
anything; what is about to wait after all is stopped and given to the scoring thread (`guard`).
"""

from __future__ import annotations

import collections
import queue
import threading
import time

from mlrails_runtime import problem
from mlrails_runtime.guard import guarded, idles
from mlrails_runtime.service import NotPerRow

# Seconds for which the loop's thread may be kept from everything else.
QUICK = 0.025
# Seconds, at most, for which a quick batch waits for requests that have begun to come: not one for a request that is alone.
_GATHER = 0.004
# Requests that only the scoring thread could answer, until it gets all of them.
_STRIKES = 3


class Job:
    """One request's rows on their way. `future` belongs to the loop's thread; who scores only looks whether it is done."""

    __slots__ = ("rows", "key", "future", "deadline", "answer", "error", "again")

    def __init__(self, rows, key, future, deadline):
        self.rows = rows
        self.key = key
        self.future = future
        self.deadline = deadline
        # The answers so far: all of them once it is as long as `rows` was.
        self.answer = []
        self.error = None
        # Whether it failed in the loop's thread and is scored again in the other.
        self.again = False


class Batcher:
    """`load()` gives `score(rows) -> list`; it runs first, in the scoring thread, so that the process answers probes meanwhile.

    `trial()`, after it, gives rows by which the loop's thread is tried, and `agree(one, other)` compares answers; without them only the
    scoring thread scores. `observe(rows, seconds)` is told of each call of `score`; `loaded()` and `failed(error)` are called once, in
    the scoring thread. `reading` is how many requests are about to submit: whoever submits keeps it.
    """

    def __init__(
        self, load, loop, *, queue_limit, batch_rows, timeout, observe=None, loaded=None, failed=None, trial=None, agree=None
    ):
        self._load = load
        self._loop = loop
        self._queue = queue.SimpleQueue()
        self._limit = queue_limit
        self._batch_rows = batch_rows
        self._timeout = timeout
        self._observe = observe or (lambda rows, seconds: None)
        self._loaded = loaded or (lambda: None)
        self._failed = failed or (lambda error: None)
        self._trial = trial
        self._agree = agree or (lambda one, other: one == other)
        self._accepted = collections.deque()
        self._costs = Costs()
        self._score = None
        # The loop's thread: requests that it will score itself, and how many it has given to the scoring thread.
        self._fresh = collections.deque()
        self._seen = self._slow = 0
        self._until = 0.0
        self._given = 0
        self._strikes = 0
        self.quick_here = False
        self.reading = 0
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
        if self.quick_here and not self._given:
            self._fresh.append(job)
            if len(self._fresh) == 1:
                self._until = time.monotonic() + _GATHER
                self._loop.call_soon(self._flush)
        else:
            self._give(job)
        return job.future

    def stop(self):
        self._queue.put(None)

    # The loop's thread.

    def _flush(self):
        """Scores what has come, at once or by the scoring thread."""
        # Who has begun to send is a turn or two of the loop away from being in this batch; who sends slowly is not waited for again.
        self._slow = min(self._slow, self.reading)
        if (self.reading > self._slow or len(self._fresh) > self._seen) and time.monotonic() < self._until:
            self._seen = len(self._fresh)
            self._loop.call_soon(self._flush)
            return
        self._slow, self._seen = self.reading, 0
        fresh = self._fresh
        batch = [fresh.popleft()]
        count = len(batch[0].rows)
        while fresh and self.per_row and fresh[0].key == batch[0].key and count + len(fresh[0].rows) <= self._batch_rows:
            batch.append(fresh.popleft())
            count += len(batch[-1].rows)
        if self._given or not self._costs.quick(count):
            for job in (*batch, *fresh):
                self._give(job)
            fresh.clear()
            return
        started = time.monotonic()
        self._score_batch(batch, guarded)
        if time.monotonic() - started > 10 * QUICK:
            self.quick_here = False
        for job in batch:
            if job.error is not None:
                # It may be this thread that the pipeline does not like.
                job.error, job.again = None, True
                self._give(job)
        self._deliver([job for job in batch if not job.again], 0)
        if fresh:
            # Between batches, everything else has its turn.
            self._until = time.monotonic() + _GATHER
            self._loop.call_soon(self._flush)

    def _give(self, job):
        self._given += 1
        self._queue.put(job)

    def _deliver(self, batch, given):
        self.waiting -= len(batch)
        self._given -= given
        for job in batch:
            job.rows = None
            if job.again and job.error is None:
                self._strikes += 1
                self.quick_here = self.quick_here and self._strikes < _STRIKES
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

    def _try_here(self, rows, expected, tried):
        try:
            self.quick_here = bool(self._agree(expected, guarded(self._score, rows))) and not idles(self._score, rows)
        except BaseException:
            self.quick_here = False
        tried.set()

    # The scoring thread.

    def _run(self):
        try:
            self._score = self._load()
            self._prove_here()
        except BaseException as error:  # whatever a project's import raises, SystemExit too
            self._failed(error)
            return
        self._loaded()
        try:
            self._serve()
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _prove_here(self):
        """Times the pipeline for one row and for a batch, and lets the loop's thread answer the same rows."""
        rows = self._trial() if self._trial else None
        if not rows:
            return
        expected = self._score(rows[:1])
        for several in (rows[:1], rows):
            for _ in range(3):
                started = time.monotonic()
                self._score(several)
                self._costs.note(len(several), time.monotonic() - started)
        if self._costs.quick(1):
            tried = threading.Event()
            self._loop.call_soon_threadsafe(self._try_here, rows[:1], expected, tried)
            tried.wait(10)

    def _serve(self):
        large, held = collections.deque(), None
        while True:
            job = held or self._take(not large)
            held = None
            if job is _STOP:
                return
            if job is not None and len(job.rows) > self._batch_rows and self.per_row:
                large.append(job)
                job = None
            if job is not None:
                batch, count = [job], len(job.rows)
                while count < self._batch_rows and self.per_row:
                    job = self._take(False)
                    if job is None:
                        break
                    if job is _STOP or job.key != batch[0].key or count + len(job.rows) > self._batch_rows:
                        held = job
                        break
                    batch.append(job)
                    count += len(job.rows)
                self._score_batch(batch)
                self._loop.call_soon_threadsafe(self._deliver, batch, len(batch))
            if large and self._piece(large[0]):
                job = large.popleft()
                self._loop.call_soon_threadsafe(self._deliver, [job], 1)

    def _take(self, wait):
        """The next job; None when there is none and nobody may wait."""
        try:
            job = self._queue.get(wait)
        except queue.Empty:
            return None
        return _STOP if job is None else job

    def _piece(self, job):
        """Scores the next rows of a large request; whether it is done."""
        if job.future.done() or job.deadline <= time.monotonic():
            job.error = problem.overloaded("the prediction took too long")
            return True
        at = len(job.answer)
        try:
            job.answer.extend(self._timed(job.rows[at : at + self._batch_rows]))
        except BaseException as error:
            job.error = error
            return True
        return len(job.answer) >= len(job.rows)

    # Either.

    def _score_batch(self, batch, how=None):
        """Fills in answers and errors."""
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
            self._alone(live[0], how)
            return
        rows = []
        for job in live:
            rows.extend(job.rows)
        try:
            answers = self._timed(rows, how)
        except BaseException:
            for job in live:
                self._alone(job, how)
            return
        at = 0
        for job in live:
            end = at + len(job.rows)
            job.answer = answers[at:end]
            at = end

    def _alone(self, job, how):
        try:
            job.answer = self._timed(job.rows, how)
        except BaseException as error:
            if isinstance(error, NotPerRow):
                self.per_row = False
            job.error = error

    def _timed(self, rows, how=None):
        started = time.monotonic()
        try:
            return how(self._score, rows) if how else self._score(rows)
        finally:
            seconds = time.monotonic() - started
            self._costs.note(len(rows), seconds)
            self._observe(len(rows), seconds)


class Costs:
    """How long batches take, by the power of two that their rows fill."""

    def __init__(self):
        self._seconds = {}

    def note(self, rows, seconds):
        place = max(0, rows - 1).bit_length()
        known = self._seconds.get(place)
        self._seconds[place] = seconds if known is None else known + (seconds - known) * 0.2

    def quick(self, rows):
        """Whether so many rows are expected within `QUICK`. What was never seen is no quicker than in proportion to something smaller, and
        no slower than something larger."""
        place = max(0, rows - 1).bit_length()
        known = self._seconds.get(place)
        if known is not None:
            return known <= QUICK
        if any(seconds <= QUICK for at, seconds in self._seconds.items() if at > place):
            return True
        smaller = max((at for at in self._seconds if at < place), default=None)
        return smaller is not None and self._seconds[smaller] * 2 ** (place - smaller) <= QUICK


_STOP = object()

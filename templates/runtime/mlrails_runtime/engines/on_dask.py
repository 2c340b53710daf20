"""Dask: a task for each part. The scheduler places them, and gives those of a lost worker to another by itself.

A task starts a pipeline process on its worker or takes one that waits there. Processes end when the job ends, or when they were forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import uuid
import warnings

from mlrails_runtime.batch.refused import Misused, Refused, Unavailable
from mlrails_runtime.engines import sent

_SECONDS = 10
# Seconds until a cluster that has no worker is given up.
_WORKERLESS = 60
# What has to be the same for a worker to understand this process at all.
_PACKAGES = ("distributed", "dask")


def connect(address, wanted):
    import distributed
    from distributed.versions import VersionMismatchWarning

    # It warns of many; those that matter are refused below.
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    for name in ("distributed", "distributed.comm", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    class Client(distributed.Client):
        def __del__(self):
            """It would wait for a loop that has ended; `close` is always called where a client came to be."""

    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False, name="mlrails-batch")
    except ValueError as error:
        raise Misused(f"--engine-address {address}: {error}") from None
    except OSError as error:
        raise Unavailable(f"no Dask scheduler answers at {address}: {error or type(error).__name__}") from None
    except Exception as error:
        # Another server's words, read as lengths and names, fail in any way.
        raise Unavailable(f"what answers at {address} is no Dask scheduler ({type(error).__name__})") from None
    try:
        return _Cluster(client, address, wanted)
    except BaseException:
        client.close(timeout=_SECONDS)
        raise


class _Cluster:
    def __init__(self, client, address, wanted):
        self._client, self.name = client, f"dask cluster at {address}"
        try:
            client.wait_for_workers(1, timeout=_WORKERLESS)
        except (asyncio.TimeoutError, TimeoutError):
            raise Unavailable(f"the Dask cluster at {address} has no workers") from None
        _compare(client.get_versions())
        room = client.nthreads()
        self.slots = min(wanted or sum(room.values()), sum(room.values()))
        self._addresses = sorted(room)[: self.slots]
        self._source, self._came, self._flying = sent.remote(), queue.SimpleQueue(), 0
        self._id = uuid.uuid4().hex[:12]

    def begin(self, spec):
        self._job = (spec["job"], spec["run"])
        # Small enough to travel with each task: what is large lies in the storage.
        self._spec = spec
        replies = self._client.run(sent.call_aside, self._source, "begin", spec, workers=self._addresses, on_error="return")
        for address, reply in replies.items():
            if isinstance(reply, Exception):
                reply = {"lost": _words(reply), "worker": address}
            self._came.put((None, reply))

    def free(self):
        return self._flying < self.slots

    def send(self, key, order):
        self._flying += 1
        # Each is a name of its own: what the scheduler keeps under an old one is no answer.
        name = f"mlrails-part-{self._id}-{key[0]}-{key[1]}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(sent.call, self._source, "make", self._spec, order, key=name, pure=False)
        future.add_done_callback(lambda done: self._came.put((key, done)))

    def wait(self, seconds):
        try:
            key, came = self._came.get(timeout=seconds)
        except queue.Empty:
            return []
        if key is None:
            return [(None, came)]
        self._flying -= 1
        return [(key, _reply(came))]

    def close(self):
        try:
            self._client.run(sent.call_aside, self._source, "stop", *self._job, on_error="ignore", wait=True)
        except (OSError, asyncio.TimeoutError, AttributeError) as error:
            # What was forgotten there ends by itself.
            if not isinstance(error, AttributeError):
                print(f"{self.name} could not be told to stop: {error}", file=sys.stderr)
        self._client.close(timeout=_SECONDS)


def _reply(future):
    if future.status == "finished":
        return future.result()
    if future.status == "cancelled":
        return {"lost": "the scheduler is gone or dropped it"}
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return {"refused": f"Dask gave a part up after {error.allowed_failures} workers were lost with it", "code": 3, "worker": str(error.last_worker)}
    return {"lost": _words(error)}


def _words(error):
    return f"{type(error).__name__}: {error}"[:500]


def _compare(versions):
    """Scheduler and workers with this process."""
    ours = versions["client"]
    here, minor = ours["packages"], _minor(ours)
    wrong = []
    for who, facts in [("the scheduler", versions["scheduler"]), *((f"worker {name}", facts) for name, facts in versions["workers"].items())]:
        if facts is None:
            continue
        if _minor(facts) != minor:
            wrong.append(f"{who}: Python is {_minor(facts)} there and {minor} here")
        for name in _PACKAGES:
            there = facts["packages"].get(name)
            if there != here.get(name):
                wrong.append(f"{who}: {name} is {there} there and {here.get(name)} here")
    if wrong:
        raise Refused("the Dask cluster is of other versions than this process: " + "; ".join(wrong[:10]))


def _minor(facts):
    return ".".join(facts["host"]["python"].split(".")[:2])

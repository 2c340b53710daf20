"""The parts of a job, made by the workers of a cluster that is there already.

Takes an opened job. The pipeline is packed beside the job's notes, on the storage that workers write parts to, and each worker starts it as
a process of its own: its versions are compared with the lock, and golden rows are answered, before it makes a part. This process finds where
parts begin, hands them out, and hands out again what was lost. Parts and their notes are written by who makes them, so that the output
is the bytes that one machine makes, and a job that was killed goes on with or without a cluster.

An engine is a module with `connect(address, wanted) -> cluster`, and a cluster has

    name, slots         what people know it as; how many parts can be under way
    begin(spec)         tells it the job
    free()              whether a part can be handed out now
    send(key, order)    hands one out
    wait(seconds)       what came of some: [(key, reply)], a reply as `remote` makes them; [] where nothing did
    close()             ends all that was started there, whatever it does
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
import json
import os
import signal
import sys
import time

from mlrails_runtime.batch.refused import Misused, Refused, RowsRejected, Unavailable
from mlrails_runtime.engines.pack import Archive

# Name -> (module of ours, the module it needs, its distribution, where people say which cluster).
ENGINES = {
    "ray": ("on_ray", "ray", "ray", "RAY_ADDRESS"),
    "dask": ("on_dask", "distributed", "distributed", "DASK_SCHEDULER_ADDRESS"),
}

# How often a part is made again elsewhere before something else must be wrong.
_ATTEMPTS = 4
# Seconds between two lines of one who waits for workers.
_PATIENCE = 30


class Report:
    """What is told at the end of a job. `peak`: bytes of the largest pipeline process, None when none was started or told."""

    def __init__(self):
        self.there, self.made, self.lost, self.peak, self.names = 0, 0, 0, None, set()


def check(chosen):
    """(the engine, the cluster's address), or refuses what no cluster can do, before anything is read."""
    if "-" in (*chosen.input, chosen.output) or chosen.query is not None:
        raise Misused("--engine is for files: workers cannot share stdin, stdout or the rows of a query (--partition is for those)")
    module, needed, distribution, variable = ENGINES[chosen.engine]
    if importlib.util.find_spec(needed) is None:
        raise Refused(
            f"--engine {chosen.engine} needs {distribution}, which is not here: add it to the project's dependencies, in the version that the"
            f' cluster has, and to `[dependencies] keep = ["{distribution}"]` of mlrails.toml'
        )
    address = chosen.engine_address or os.environ.get(variable)
    if not address:
        raise Misused(f"--engine {chosen.engine}: which cluster? Say --engine-address or set {variable}; none is started")
    return importlib.import_module(f"{__package__}.{module}"), address


def run(job, chosen, wanted, progress):
    """Makes the parts that are not there. `wanted`: processes, at most; None for as many as the cluster has room for."""
    engine, address = check(chosen)
    one, came = _Run(job, chosen, progress, lambda: engine.connect(address, wanted)), []

    def terminated(number, frame):
        # As Ctrl-C until all is ended: Ray makes a 1 of an exit that is raised while it waits.
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        return one.done()
    except KeyboardInterrupt:
        if came:
            before(came[0], None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    """One job on one cluster. `_flying`: what was handed out, by key."""

    def __init__(self, job, chosen, progress, connect):
        self._job, self._chosen, self._progress, self._connect = job, chosen, progress, connect
        self._report, self._rows, self._slots = Report(), 0, 1
        self._again, self._flying, self._lost = collections.deque(), {}, collections.Counter()
        self._place = job.work.child(job.id).child("pipeline.zip")

    def done(self):
        orders = self._orders()
        first = next(orders, None)
        if first is None:
            return self._report
        self._again.append(first)
        cluster = None
        try:
            archive = Archive(self._job.service)
            archive.write(self._place)
            cluster = self._connect()
            print(
                f"{cluster.name}: room for {cluster.slots} at once; pipeline {archive.sha256[:12]}, {archive.size / 1e6:.1f} MB",
                file=sys.stderr,
            )
            self._slots = cluster.slots
            cluster.begin(self._spec(archive))
            self._hand_out(cluster, orders)
        finally:
            # A second Ctrl-C must not leave behind what the first one came for.
            before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
            if cluster is not None:
                cluster.close()
            self._place.remove()
            if not self._report.there + self._report.made:
                self._job.abandon()
            for number, handler in before:
                signal.signal(number, handler)
        return self._report

    def _hand_out(self, cluster, orders):
        ended, heard = False, time.monotonic()
        while True:
            while cluster.free() and not (ended and not self._again):
                order = self._again.popleft() if self._again else next(orders, None)
                if order is None:
                    ended = True
                    break
                key = (order["file"], order["at"])
                self._flying[key] = order
                cluster.send(key, order)
            if ended and not self._flying and not self._again:
                return
            came = cluster.wait(1.0)
            for key, reply in came:
                self._take(key, reply)
            now = time.monotonic()
            if came:
                heard = now
            elif now - heard > _PATIENCE and not self._flying:
                print(f"{cluster.name} has no room for a process yet; waiting", file=sys.stderr)
                heard = now

    def _take(self, key, reply):
        """`key` is None for what was said before any part was made."""
        worker = reply.get("worker", "a worker")
        order = self._flying.pop(key, None)
        if "ready" in reply:
            self._report.names.add(worker)
        elif "note" in reply:
            note = reply["note"]
            self._report.made += 1
            self._report.names.add(worker)
            if reply["peak"] is not None:
                self._report.peak = max(self._report.peak or 0, reply["peak"])
            self._rows += note["scored"] + note["rejected"]
            self._progress.tell(self._rows, f"{self._report.made} parts by {len(self._report.names)} workers")
        elif "rejected" in reply:
            raise RowsRejected(reply["rejected"], reply["lines"])
        elif "lost" in reply:
            self._report.lost += 1
            self._lost[key] += 1
            if self._lost[key] >= _ATTEMPTS * (1 if order else self._slots):
                what = "starting the pipeline" if order is None else f"part {key[1]} of {self._job.inputs[key[0]]}"
                raise Unavailable(f"{what} was tried {self._lost[key]} times and lost each time; at last on {worker}: {reply['lost']}")
            if order is not None:
                print(f"worker {worker}: {reply['lost']}; its part is made again", file=sys.stderr)
                self._again.append(order)
        elif reply.get("errno") is not None:
            raise OSError(reply["errno"], f"worker {worker}: {reply['refused']}")
        else:
            raise {2: Misused, 3: Unavailable}.get(reply.get("code"), Refused)(f"worker {worker}: {reply['refused']}")

    def _orders(self):
        """What there is to make, found as it is asked for."""
        job = self._job

        def make(reader, file, at):
            order = {"file": file, "at": at, "row": reader.row, "offset": reader.offset}
            return {**job.passed(reader), "order": order}

        identities = {}
        for file, at, note, there in job.parts(make):
            if there:
                self._report.there += 1
                continue
            if file not in identities:
                identities = {file: json.loads(json.dumps(job.inputs[file].identity(), default=str))}
            yield {**note["order"], "identity": identities[file]}

    def _spec(self, archive):
        """All that a worker has to know. Paths are such that a process in another folder finds them."""
        job, document = self._job, self._job.service.document
        names = {name: getattr(self._chosen, name) for name in ("on_error", "keep", "chunk", "part_rows", "input_format")}
        output = job.output.absolute() + ("/" if job.folder else "")
        rejected = job.rejected and job.rejected.absolute() + ("/" if job.folder else "")
        chosen = {"input": [place.absolute() for place in job.inputs], "query": None, "output": output, "output_format": job.format}
        chosen.update(names, rejected=rejected, partition=[0, 1], worker=None)
        place = archive.facts(self._place)
        place["place"] = self._place.absolute()
        known = {name: os.environ[name] for name in ("MLRAILS_THREADS", "MLRAILS_ACCELERATE") if name in os.environ}
        return {
            "job": job.id,
            "run": os.urandom(8).hex(),
            "archive": place,
            "environment": known,
            "expected": {"python": "{}.{}".format(*sys.version_info), "locked": document.get("locked") or {}},
            "chosen": chosen,
            "told": [str(place) for place in job.inputs],
        }

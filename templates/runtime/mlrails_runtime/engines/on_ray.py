"""Ray: an actor for each pipeline process, on a CPU of the cluster.

An actor dies with the driver, and its pipeline with it, so that nothing is left by a driver that was killed. One that is lost is replaced.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time

from mlrails_runtime.batch.refused import Misused, Refused, Unavailable
from mlrails_runtime.engines import sent

_SECONDS = 10
# Seconds until a cluster that has no worker is given up.
_WORKERLESS = 60


def connect(address, wanted):
    if address == "local":
        raise Misused("--engine-address local would start a cluster of its own; without --engine this machine scores by itself")
    _reachable(address)
    import ray

    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, namespace="mlrails")
    except RuntimeError as error:
        said = _line(error)
        if "ersion mismatch" in str(error):
            raise Refused(f"the Ray cluster at {address} is of other versions than this process: {_versions(str(error)) or said}") from None
        raise Unavailable(f"the Ray cluster at {address} does not take this process in: {said}") from None
    except (ConnectionError, ValueError, TimeoutError, OSError, ImportError) as error:
        raise Unavailable(f"no Ray cluster at {address}: {_line(error)}") from None
    finally:
        # Ray puts its own in its place.
        signal.signal(signal.SIGTERM, terminated)
    return _Cluster(ray, address, wanted)


def _reachable(address):
    """Ray itself tries for a minute, and ends the process when it gives up."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", address)
    if found is None:
        if address == "auto":
            return
        raise Misused(f"--engine-address {address}: expected HOST:PORT of the head node, ray://HOST:PORT, or auto")
    try:
        with socket.create_connection((found[1], int(found[2])), timeout=_SECONDS) as stream:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            # Ray speaks gRPC. A server of HTTP/2 begins with its settings: a frame of type 4 (RFC 9113, sections 3.4 and 6.5).
            stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            head = stream.recv(4, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise Unavailable(f"no Ray cluster answers at {address}: {error}") from None
    if head[3:] != b"\x04":
        raise Unavailable(f"what answers at {address} is no Ray cluster")


def _line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]


def _versions(text):
    """Which versions it names, on one line."""
    words = [" ".join(line.split()) for line in text.splitlines() if re.search(r"(Ray|Python)\s*[:=]|started with", line)]
    return "; ".join(words)[:500]


class _Cluster:
    def __init__(self, ray, address, wanted):
        self._ray, self.name = ray, f"ray cluster at {address}"
        room, until = 0, time.monotonic() + _WORKERLESS
        while not room:
            room = int(ray.cluster_resources().get("CPU", 0))
            if not room and time.monotonic() > until:
                raise Unavailable(f"the Ray cluster at {address} has no CPUs")
            # A machine that has just started tells of itself within a second.
            time.sleep(0 if room else 0.2)
        self.slots = min(wanted or room, room)
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, max_concurrency=2, scheduling_strategy="SPREAD")(sent.Maker)
        self._source, self._actors = sent.remote(), {}
        # Reference of a call -> (its key, the actor); what began has no key.
        self._calls, self._idle = {}, []

    def begin(self, spec):
        # Once in the cluster's store, not with each call.
        self._job = (spec["job"], spec["run"])
        self._spec, self._text = self._ray.put(spec), self._ray.put(self._source)
        for _ in range(self.slots):
            self._start()

    def _start(self):
        actor = self._class.remote()
        self._actors[actor._actor_id] = actor
        self._call(None, actor, "begin")

    def _call(self, key, actor, name, *arguments):
        reference = actor.call.remote(self._text, name, self._spec, *arguments)
        self._calls[reference] = (key, actor)

    def free(self):
        return bool(self._idle)

    def send(self, key, order):
        self._call(key, self._idle.pop(), "make", order)

    def wait(self, seconds):
        done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        return [self._came(reference) for reference in done]

    def _came(self, reference):
        key, actor = self._calls.pop(reference)
        try:
            reply = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            self._actors.pop(actor._actor_id, None)
            self._start()
            return key, {"lost": f"Ray lost it: {_reason(error)}"}
        except self._ray.exceptions.RayError as error:
            reply = {"refused": f"Ray: {_line(error)}", "code": 3}
        if "ready" in reply or key is not None:
            self._idle.append(actor)
        elif "lost" in reply:
            self._call(None, actor, "begin")
        return key, reply

    def close(self):
        # First they are told, while they are at work as well (`max_concurrency`): what Ray kills it kills at once, with its files.
        actors = list(self._actors.values())
        told = [actor.call.remote(self._text, "stop", *self._job) for actor in actors]
        if told:
            self._ray.wait(told, num_returns=len(told), timeout=_SECONDS)
        for actor in actors:
            self._ray.kill(actor)
        self._ray.shutdown()


def _reason(error):
    """The line of Ray's many that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "cause" in line.lower() or "died" in line.lower() or "killed" in line.lower()]
    return (said or lines or [type(error).__name__])[-1][:300]

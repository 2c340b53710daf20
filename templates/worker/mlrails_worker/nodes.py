"""Runs one node: its inputs from the spool, its settings, its function or query, its value to the spool."""

import asyncio
import hashlib
import importlib
import inspect
import os
import random
import sys
import time

from mlrails_worker import query, recording, spool
from mlrails_worker.failure import Refused


def run(plan, node):
    """Facts about the run of node number `node`: seconds, peak memory, what came out, which columns of the data it read."""
    node = plan["nodes"][node]
    seen = recording.Reads()
    # The module's import is part of the first node's time and of nobody's peak.
    function = None if node["phase"] == "sql" else resolve(node)
    arguments = {}
    for parameter, given in node["inputs"]:
        value = spool.get(plan, given)
        if given == plan["table"] and node["phase"] == "train":
            value = recording.watch(value, seen)
        arguments[parameter] = value
    settings = {name: reference(value, plan) for name, value in node["settings"].items()}
    seed(node["name"])
    reset_peak()
    began = time.perf_counter()
    if function is None:
        value = query.run(plan, node, settings)
    else:
        value = call(function, {**arguments, **settings})
    seconds = time.perf_counter() - began
    peak = peak_mb()
    size = spool.put(plan, node, recording.plain(value))
    return {
        "seconds": round(seconds, 3),
        "peak_mb": peak,
        "value": shape(value),
        "bytes": size,
        "read": sorted(seen.columns),
        "modules": sorted({name.partition(".")[0] for name in list(sys.modules)}),
    }


def resolve(node):
    module = importlib.import_module(node["module"])
    try:
        return getattr(module, node["function"])
    except AttributeError:
        message = f"{node['module']} has no `{node['function']}` once it is imported"
        raise Refused("vanished", message) from None


def call(function, arguments):
    value = function(**arguments)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    return value


def reference(value, plan):
    """`env:NAME` and `file:PATH` are resolved here, where they are used, and recorded nowhere."""
    if isinstance(value, str) and value.startswith("env:"):
        name = value[4:]
        if name not in os.environ:
            raise Refused("secret", f"a setting refers to the environment variable {name}, which is not set")
        return os.environ[name]
    if isinstance(value, str) and value.startswith("file:"):
        path = os.path.join(plan["root"], value[5:])
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().rstrip("\n")
        except OSError as error:
            raise Refused("secret", f"a setting refers to the file {value[5:]}, which cannot be read: {error.strerror}") from None
    return value


def seed(name):
    """Chance is the same in every run and in every process, whatever ran before in it."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    random.seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # elsewhere the peak is that of the process so far


def peak_mb():
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return 0.0


def shape(value):
    """What came out, in a few words."""
    kind = type(recording.plain(value)).__name__
    dimensions = getattr(value, "shape", None)
    if isinstance(dimensions, tuple) and dimensions and all(isinstance(size, int) for size in dimensions):
        return f"{kind} {' × '.join(f'{size:,}' for size in dimensions)}"
    if isinstance(value, (list, tuple, set, dict)):
        return f"{kind} of {len(value):,}"
    return kind

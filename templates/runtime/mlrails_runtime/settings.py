"""What the environment decides: one table of variables, read once.

Takes: `os.environ` and the machine's limits. Gives: `Settings`. It imports nothing heavy, because it runs before the thread
pools of numerical libraries are sized.
"""

from __future__ import annotations

import functools
import math
import os
import pathlib
import sys
import tempfile


class Refused(Exception):
    """A variable that cannot be what it is set to; names the variable."""


def _text(value):
    return value


def _count(value):
    number = int(value)
    if number < 1:
        raise ValueError("at least 1")
    return number


def _port(value):
    number = int(value)
    if not 0 <= number <= 65535:
        raise ValueError("a port is 0 to 65535")
    return number


def _seconds(value):
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError("seconds, 0 or more")
    return number


def _route(value):
    if not value.startswith("/"):
        raise ValueError("a route begins with /")
    return value.rstrip("/") or "/"


def _flag(value):
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("1 or 0")


_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _bytes(value):
    text = value.strip().lower().removesuffix("b").removesuffix("i")
    factor = _UNITS.get(text[-1:], 1)
    return _count(text[:-1] if factor > 1 else text) * factor


# Name, variables (the first one set wins), how it is read, default, meaning.
TABLE = [
    ("app", ["MLRAILS_APP"], _text, None, "folder with app.py and service.json (default: where the process starts)"),
    ("host", ["MLRAILS_HOST"], _text, "0.0.0.0", "address to listen on"),
    ("port", ["MLRAILS_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT"], _port, 8080, "port to listen on"),
    ("workers", ["MLRAILS_WORKERS"], _count, None, "processes (default: the cores this container may use)"),
    ("threads", ["MLRAILS_THREADS"], _count, 1, "threads of numerical libraries, per process"),
    ("max_body", ["MLRAILS_MAX_BODY"], _bytes, 16 << 20, "largest request body, in bytes or 16MiB"),
    ("max_header", ["MLRAILS_MAX_HEADER"], _bytes, 64 << 10, "largest request head"),
    ("header_timeout", ["MLRAILS_HEADER_TIMEOUT"], _seconds, 10.0, "seconds a client has to send its request head"),
    ("body_timeout", ["MLRAILS_BODY_TIMEOUT"], _seconds, 20.0, "seconds a client has to send its body"),
    ("timeout", ["MLRAILS_TIMEOUT"], _seconds, 60.0, "seconds until a prediction that was not answered is given up"),
    ("body_memory", ["MLRAILS_BODY_MEMORY"], _bytes, 256 << 20, "bytes of bodies held at once, per process; more are answered 503"),
    ("connections", ["MLRAILS_CONNECTIONS"], _count, 4096, "connections open at once, per process; more wait to be accepted"),
    ("queue", ["MLRAILS_QUEUE"], _count, 1024, "requests that may wait, per process; more are answered 503"),
    ("batch_rows", ["MLRAILS_BATCH_ROWS"], _count, 1024, "rows scored together, at most (a larger request goes alone)"),
    ("drain", ["MLRAILS_DRAIN"], _seconds, 1.0, "seconds between SIGTERM (not ready) and no longer listening"),
    ("stop_timeout", ["MLRAILS_STOP_TIMEOUT"], _seconds, 25.0, "seconds that accepted requests have to finish"),
    ("health_route", ["AIP_HEALTH_ROUTE"], _route, None, "one more route for readiness"),
    ("predict_route", ["AIP_PREDICT_ROUTE"], _route, None, "one more route for predictions ({instances} -> {predictions})"),
    ("token_file", ["MLRAILS_TOKEN_FILE"], _text, None, "file of bearer tokens, one per line: all but probes need one of them"),
    ("golden", ["MLRAILS_GOLDEN"], _text, "refuse", "when a golden row is answered differently: refuse to start, or warn"),
    ("accelerate", ["MLRAILS_ACCELERATE"], _flag, True, "use the fast paths that training proved for its estimators"),
    ("access_log", ["MLRAILS_ACCESS_LOG"], _flag, False, "a log line per request"),
    ("log_format", ["MLRAILS_LOG_FORMAT"], _text, "json", "json or text"),
]


class Settings:
    """One attribute per row of the table."""

    def __init__(self, **values):
        self.__dict__.update(values)


def read(environment=os.environ):
    """The settings, or `Refused` naming the variable."""
    values = {}
    for name, variables, parse, default, _ in TABLE:
        values[name] = default
        for variable in variables:
            text = environment.get(variable)
            if text is None or text == "":
                continue
            try:
                values[name] = parse(text)
            except (ValueError, OverflowError) as error:
                raise Refused(f"{variable}={text!r} cannot be used: {error}") from None
            break
    if environment.get("K_SERVICE") and not environment.get("MLRAILS_STOP_TIMEOUT"):
        # Cloud Run kills ten seconds after SIGTERM, the pause before the drain among them.
        values["stop_timeout"] = 8.0
    payload = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    if environment.get("SAGEMAKER_BATCH") and payload.isdecimal() and not environment.get("MLRAILS_MAX_BODY"):
        # A batch transform says how large its requests are.
        values["max_body"] = max(values["max_body"], int(payload) << 20)
    values["app"] = pathlib.Path(values["app"] or os.getcwd()).absolute()
    if values["log_format"] not in ("json", "text"):
        raise Refused(f"MLRAILS_LOG_FORMAT={values['log_format']!r} cannot be used: json or text")
    if values["golden"] not in ("refuse", "warn"):
        raise Refused(f"MLRAILS_GOLDEN={values['golden']!r} cannot be used: refuse or warn")
    return Settings(**values)


def table(chosen):
    """The table as people read it, with what is set now."""
    lines = []
    for name, variables, _, _, meaning in TABLE:
        value = getattr(chosen, name)
        lines.append(f"{', '.join(variables):38} {'-' if value is None else value!s:12} {meaning}")
    return "\n".join(lines)


# What sizes the thread pools of the libraries that models use.
_THREADS = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT"]


def prepare_process(chosen):
    """Thread pools of one process per core must not each take all cores; a container may have no home to write to."""
    for variable in _THREADS:
        os.environ.setdefault(variable, str(chosen.threads))
    home = os.environ.get("HOME", "")
    if not home or not os.access(home, os.W_OK):
        try:
            writable = tempfile.gettempdir()
        except FileNotFoundError:
            return  # a read-only root without /tmp: libraries that need a cache folder do without
        for variable in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "JOBLIB_TEMP_FOLDER"):
            os.environ[variable] = writable


@functools.lru_cache(maxsize=None)
def secret(reference):
    """The value behind `env:NAME` or `file:PATH`, read once where it runs; the image holds only the reference."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise Refused(f"the setting {reference!r} needs the environment variable {name}")
        return os.environ[name]
    with open(name, encoding="utf-8") as file:
        return file.read().rstrip("\n")


def workers(chosen, needed=None):
    """Processes to start: the cores of the affinity mask and of the cgroup's quota, and no more than memory holds.

    `needed`: bytes that one process was measured to take, when known.
    """
    if chosen.workers:
        return chosen.workers
    if sys.platform != "linux":
        return 1
    cores = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    if quota:
        cores = min(cores, max(1, math.floor(quota)))
    limit = _memory_limit()
    if needed and limit:
        cores = min(cores, max(1, limit // needed))
    return max(1, cores)


def _first_line(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().split()
    except (OSError, ValueError):
        return []


def _cpu_quota(root="/sys/fs/cgroup"):
    """Cores by the cgroup's bandwidth limit: version 2 `cpu.max`, else version 1; None without a limit."""
    words = _first_line(f"{root}/cpu.max")
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _first_line(f"{root}/cpu/cpu.cfs_quota_us"), _first_line(f"{root}/cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _memory_limit(root="/sys/fs/cgroup"):
    """Bytes by the cgroup's memory limit, or None. Version 1 says "none" with a number near 2^63."""
    for path in (f"{root}/memory.max", f"{root}/memory/memory.limit_in_bytes"):
        words = _first_line(path)
        if words and words[0] != "max" and int(words[0]) < 1 << 60:
            return int(words[0])
    return None

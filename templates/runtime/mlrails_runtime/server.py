"""`serve`: one process per core, each with the whole application; granian accepts, this module starts and stops it.

A worker listens at once and loads the model in its scoring thread, so that probes are answered within milliseconds of the
start; one that replaces a crashed worker loads first and listens then. SIGTERM makes every worker not ready, waits until load
balancers have seen it, and then lets accepted requests finish.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from mlrails_runtime import logs, metrics
from mlrails_runtime.access import Tokens
from mlrails_runtime.board import Board
from mlrails_runtime.service import Model, Service, Unusable, replay
from mlrails_runtime.settings import workers as count_workers
from mlrails_runtime.web import Web


def run(settings):
    log = logs.configure(settings)
    try:
        service = Service(settings.app)
    except Unusable as unusable:
        log.error("%s", unusable)
        return 1
    try:
        tokens = Tokens(settings.token_file) if settings.token_file else None
    except (OSError, ValueError) as error:
        log.error("MLRAILS_TOKEN_FILE cannot be used: %s", error)
        return 2
    tracer = _tracer(service, log)
    _raise_file_limit(settings.connections)
    workers = count_workers(settings, service.document.get("memory"))
    if sys.platform == "linux":
        # A forked worker starts without importing anything again, and shares the board.
        multiprocessing.set_start_method("fork", force=True)
    board = Board(workers, metrics.cells(service))
    server = Server(
        "mlrails",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        workers=workers,
        websockets=False,
        # While it looks which version a client speaks, granian has no deadline: who says nothing would keep a connection for good.
        http=HTTPModes.http1,
        # Connections, not requests: those are bounded by the runtime's own queue, which can answer 503; who is not accepted hangs.
        backpressure=settings.connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(settings.header_timeout * 1000), max_buffer_size=max(8192, settings.max_header)
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=max(1, int(settings.stop_timeout)),
        log_enabled=True,
        log_level=LogLevels.error,
        log_dictconfig={"version": 1, "disable_existing_loggers": False, "loggers": {"_granian": {"propagate": True}}},
    )
    _stop_on_signals(server, board, settings)
    log.info(
        "listening",
        extra={"fields": {"address": f"{settings.host}:{settings.port}", "service": service.name, "workers": workers}},
    )
    started = time.monotonic()
    load = functools.partial(_worker, service, settings, board, os.getpid(), started, tokens, tracer)
    try:
        server.serve(target_loader=load, wrap_loader=False)
    except SystemExit as ended:
        # It counts workers that ended by themselves, which those that heard Ctrl-C did.
        return 0 if board.draining and not board.failed() else ended.code or 0
    if board.failed():
        return 1
    log.info("stopped")
    return 0


def _worker(service, settings, board, parent, started, tokens, tracer):
    """In a worker process: its application. Runs before the worker listens."""
    log = logs.configure(settings)
    # Until granian installs its own, what the parent does on signals must not happen here as well. Ctrl-C at a terminal reaches every
    # process; it is the parent that stops this one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slot = board.claim()

    def load():
        model = Model(service, fast=settings.accelerate)
        # With fast paths they were replayed: that is what they were put in place by.
        differences = [] if model.accelerated else replay(model)
        if differences:
            first = differences[0]
            message = (
                f"{len(differences)} golden rows are answered differently than in training: "
                f"row {first['row']} expected {first['expected']!r}, got {first['got']!r}"
            )
            if settings.golden == "refuse":
                raise Unusable(message)
            log.warning("%s", message)
        return model

    def ready():
        # Who reads the line and asks at once is answered.
        slot.ready()
        log.info("ready", extra={"fields": {"seconds": round(time.monotonic() - started, 3)}})

    def stop(error):
        slot.fail()
        shown = None if isinstance(error, Unusable) else error
        log.error("the model cannot be loaded: %s", error, exc_info=shown)
        os.kill(parent, signal.SIGTERM)

    if slot.respawned:
        model = load()
        load = lambda: model  # noqa: E731
    return Web(service, settings, slot, load, ready, stop, tokens=tokens, tracer=tracer)


def _tracer(service, log):
    """What OTEL_* asks for. Without them, what it takes (TLS among it) is not even imported."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from mlrails_runtime import trace

    try:
        return trace.from_environment(service.name, service.version)
    except ValueError as error:
        # A service without traces is better than none.
        log.warning("requests are not traced: %s", error)
        return None


def _raise_file_limit(connections):
    """As many open files as connections may take, where the hard limit allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _stop_on_signals(server, board, settings):
    """SIGTERM drains; SIGINT (a person at a terminal) stops at once."""
    parent = os.getpid()

    def drain(number, _frame):
        if os.getpid() != parent:
            # A worker that was forked a moment ago and has not yet said what signals mean to it.
            if number == signal.SIGTERM:
                os._exit(0)
            return
        if board.draining:
            return
        board.drain()
        pause = 0 if number == signal.SIGINT or board.failed() else settings.drain
        timer = threading.Timer(pause, server.signal_handler_interrupt)
        timer.daemon = True
        timer.start()

    def install():
        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGINT, drain)

    def unexpected(record):
        """Whether a line is news: that workers end is none once they were asked to."""
        if "Unexpected exit" not in record.getMessage():
            return True
        # Ctrl-C reaches all processes of a terminal at once, and a worker may be gone before this one has heard of it.
        time.sleep(0.2)
        return not board.draining

    logging.getLogger("_granian").addFilter(unexpected)
    # granian installs its own first.
    server.on_startup(install)

"""The RSGI application of one worker: routes, bodies within limits, answers, and what is counted and logged of them.

Takes: the service, its settings, this worker's slot of the board. Gives: `Web`, which granian calls per request. What a body
means is `protocols`' affair; when rows are scored is `batching`'s.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import os
import re
import sys
import time
import urllib.parse

from granian.rsgi import ProtocolClosed, ProtocolError

from mlrails_runtime import page, problem, tables, unlike
from mlrails_runtime.batching import Batcher
from mlrails_runtime.metrics import Metrics
from mlrails_runtime.openapi import true_here
from mlrails_runtime.protocols import JSON, Call, kserve, media_type, mlflow, oip, own
from mlrails_runtime.service import NotPerRow, agree

CONTRACTS = (own, kserve, oip, mlflow)
# From so many bytes, and so many answers on, another thread decodes and encodes; and such bodies are taken in pieces.
_LARGE, _MANY = 64 << 10, 2048
# Pieces of a body below this are put together as they come: each would take more for itself than what is in it.
_SMALL = 4 << 10
# Wrong values of one request that are counted.
_TOLD = 1000
PROBES = ("/livez", "/readyz", "/healthz", "/ping", "/health", "/live", "/ready")
_ID = re.compile(r"^[!-~]{1,128}$")
log = logging.getLogger("mlrails")


class Health:
    """What contracts may ask about this worker."""

    def __init__(self, slot):
        self._slot = slot

    @property
    def ready(self):
        return self._slot.is_ready()


class Web:
    def __init__(self, service, settings, slot, load, ready, stop, *, tokens=None, tracer=None):
        """`load() -> Model` runs in the scoring thread, then `ready()`; `stop(error)` ends the service when loading fails."""
        self.service = service
        self.settings = settings
        self.slot = slot
        self.health = Health(slot)
        self.metrics = Metrics(slot, service)
        self.model = None
        self.batcher = None
        self.tokens = tokens
        self.tracer = tracer
        # Bytes of the bodies that are here now.
        self._held = 0
        service.max_body = settings.max_body
        service.decoder.most_values, service.decoder.most_errors = settings.max_body // tables.VALUES_DIVISOR, _TOLD
        service.tables = tables.Tables(service.columns, settings.max_body) if tables.available() else None
        self._load = load
        self._ready = ready
        self._stop = stop
        self._aside = concurrent.futures.ThreadPoolExecutor(1, "decoding")
        self._ids = itertools.count(1)
        self._id_head = f"{os.getpid():x}-{os.urandom(3).hex()}-"
        self._posts = {}
        self._gets = self._own_gets()
        for contract in CONTRACTS:
            for path, read in contract.posts(service).items():
                self._posts[path] = (contract, read)
            self._gets.update(contract.gets(service))
        if settings.predict_route:
            self._posts[settings.predict_route] = (kserve, kserve.reader(service))
        if settings.health_route:
            self._gets[settings.health_route] = self._readyz
        # A probe has no token to show.
        self._open = {path for path in self._gets if path.endswith(PROBES)} | {settings.health_route, f"/v1/models/{service.name}"}

    # Called by granian.

    def __rsgi_init__(self, loop):
        settings = self.settings
        self.loop = loop
        # While rows are scored, granian's thread takes in requests, each of which needs the interpreter for a moment; by default it would
        # be given up for that every 5 ms only.
        sys.setswitchinterval(0.001)
        self.batcher = Batcher(
            self._load_model,
            loop,
            queue_limit=settings.queue,
            batch_rows=settings.batch_rows,
            timeout=settings.timeout,
            observe=self.metrics.scored,
            loaded=self._ready,
            failed=self._stop,
            trial=lambda: self.model.trial(),
            agree=agree,
        )
        if self.tracer is not None:
            self.tracer.start()
        # Rows that depend on others of their request share a batch with no other request's.
        self.batcher.per_row = not self.service.document.get("alone")
        self.batcher.start()

    def __rsgi_del__(self, loop):
        self.batcher.stop()
        if self.tracer is not None:
            self.tracer.stop()

    async def __rsgi__(self, scope, proto):
        if scope.proto != "http":
            proto.close(404)
            return
        if scope.method == "POST":
            found = self._posts.get(scope.path)
            if found is not None:
                await self._predict(scope, proto, *found)
                return
        self._plain(scope, proto)

    # Predictions.

    async def _predict(self, scope, proto, contract, read):
        started = time.perf_counter()
        self.metrics.started()
        headers = scope.headers
        request_id = self._request_id(headers)
        status, media, extra = 500, contract.ERROR_TYPE, ()
        span = self.tracer.begin(headers) if self.tracer is not None else None
        closing, reading = False, None
        call = Call(JSON, headers, b"")
        try:
            if self.tokens is not None:
                self.tokens.check(headers)
            if self.model is None:
                raise problem.overloaded("the model is still loading")
            call.media = media_type(headers.get("content-type"))
            if (headers.get("content-encoding") or "identity").lower() != "identity":
                raise problem.unsupported("compressed bodies are not taken")
            if headers.get("transfer-encoding") is not None and any(
                coding.strip().lower() != "chunked" for coding in headers.get_all("transfer-encoding")
            ):
                raise problem.malformed("its transfer-encoding is not chunked alone")
            if headers.get("content-length") is None and scope.http_version.startswith("1"):
                # A chunked body. Whether the head had a length as well, which proxies may have believed, cannot be seen here (RFC 9112
                # section 6.3); nothing that follows on this connection is read, so nothing can be smuggled in.
                closing = True
            self.batcher.reading += 1
            try:
                call.body = await self._body(call, proto, closing)
                if len(call.body) < _LARGE and call.media not in tables.MEDIA_TYPES:
                    reading = self._read(read, call)
                else:
                    # Small requests need not wait until a large one, or one that unpacks to something large, is understood.
                    reading = await self.loop.run_in_executor(self._aside, self._read, read, call)
            finally:
                self.batcher.reading -= 1
            self.metrics.waiting(self.batcher.waiting + 1)
            begun = time.time_ns()
            answers = await self.batcher.submit(reading.rows) if reading.rows else []
            if span is not None:
                span.scored = (begun, time.time_ns(), len(reading.rows))
            if len(answers) < _MANY:
                media, body = reading.render(answers)
            else:
                media, body = await self.loop.run_in_executor(self._aside, reading.render, answers)
            status, extra = 200, self._told(reading)
        except problem.Problem as refused:
            status, body = contract.error(refused, request_id)
            extra = refused.headers
        except asyncio.CancelledError:
            # The client went away; its future is cancelled with this task, and the batcher drops it.
            self.metrics.answered(contract.LABEL, 499, time.perf_counter() - started)
            if span is not None:
                self.tracer.end(span, "POST", scope.path, 499, request_id)
            raise
        except BaseException as error:
            self.metrics.failed()
            log.error(
                "predict does not answer one item per row" if isinstance(error, NotPerRow) else "the pipeline raised",
                exc_info=error,
                extra={"fields": {"request_id": request_id, "path": scope.path, **_trace(span)}},
            )
            refused = None if reading is None else unlike.refusal(error, self.service.columns, reading.rows)
            if refused is None:
                detail = "see the service's log for this request_id"
                refused = problem.Problem(500, "The pipeline failed", detail, kind="urn:mlrails:pipeline")
            status, body = contract.error(refused, request_id)
        finally:
            self._held -= call.held
            self.metrics.held(self._held)
        sent = [("content-type", media), ("x-request-id", request_id), *extra]
        if closing or (self.slot.board.draining and scope.http_version.startswith("1")):
            # While draining: the client opens its next connection elsewhere.
            sent.append(("connection", "close"))
        proto.response_bytes(status, sent, body)
        seconds = time.perf_counter() - started
        self.metrics.answered(contract.LABEL, status, seconds)
        if status == 200:
            self.metrics.looked_at(reading.rows)
        if span is not None:
            self.tracer.end(span, "POST", scope.path, status, request_id)
        if self.settings.access_log:
            self._access(scope, status, request_id, seconds, span)

    def _read(self, read, call):
        reading = read(call)
        self.service.decoder.within(len(reading.rows))
        self.model.check(reading.rows)
        return reading

    def _hold(self, call, size):
        """Makes room for more of a body. Who reads it gives the room back when it is answered."""
        if self._held and self._held + size > self.settings.body_memory:
            raise problem.overloaded("the bodies of other requests take all the memory there is for them")
        self._held += size
        call.held += size
        self.metrics.held(self._held)

    def _told(self, reading):
        """The headers of an answer; one of them tells of names that were ignored where an optional column was left out."""
        ignored = getattr(reading.rows, "ignored", None)
        if not ignored:
            return reading.headers
        self.metrics.ignored()
        names = ", ".join(urllib.parse.quote(name, safe=" ()[]{}:/@+&") for name in ignored[:10])
        return [*reading.headers, ("x-mlrails-ignored", names[:1000] + (", ..." if len(ignored) > 10 else ""))]

    async def _body(self, call, proto, chunked):
        """The whole body, or the refusal: 413 above the cap, declared or not; 408 when it does not come; 400 when it is cut."""
        most = self.settings.max_body
        declared = call.headers.get("content-length")
        expected = None if declared is None else int(declared)
        if expected is not None and expected > most:
            raise _too_large(most)
        small = expected is not None and expected < _LARGE
        if small:
            self._hold(call, expected)
        elif self.batcher.waiting >= self.settings.queue:
            # A small one is read before it is refused, which keeps its connection.
            raise problem.overloaded()
        task = asyncio.current_task()
        late = []
        timer = self.loop.call_later(self.settings.body_timeout, _give_up, task, late)
        try:
            if small:
                return await proto()
            # Room is taken as it comes: who declares much and sends little takes little.
            pieces, small, size, empty = [], bytearray(), 0, 0
            async for piece in proto:
                size += len(piece)
                empty += not piece
                if size > most:
                    raise _too_large(most)
                self._hold(call, len(piece))
                if len(piece) < _SMALL:
                    small += piece
                if small and (len(piece) >= _SMALL or len(small) >= _LARGE):
                    pieces.append(bytes(small))
                    small.clear()
                if len(piece) >= _SMALL:
                    pieces.append(piece)
            if chunked and empty > 1:
                # granian gives one empty piece at the end, and one more in place of an error.
                raise problem.malformed("its chunks are broken or end early")
            if expected is not None and size != expected:
                raise problem.malformed("it ended before its content-length")
            return b"".join([*pieces, small])
        except (ProtocolClosed, ProtocolError):
            raise problem.malformed("it ended before its content-length") from None
        except asyncio.CancelledError:
            if late:
                raise problem.Problem(
                    408, "The body did not come in time", kind="urn:mlrails:slow", headers=[("connection", "close")]
                ) from None
            raise
        finally:
            timer.cancel()

    # Everything else.

    def _plain(self, scope, proto):
        method, path = scope.method, scope.path
        answer = self._gets.get(path)
        headers = []
        if self.tokens is not None and path not in self._open:
            try:
                self.tokens.check(scope.headers)
            except problem.Problem as refused:
                proto.response_bytes(401, [("content-type", problem.MEDIA_TYPE), *refused.headers], refused.body())
                self.metrics.answered("other", 401)
                return
        if answer is None or method not in ("GET", "HEAD"):
            allowed = (["GET", "HEAD"] if answer else []) + (["POST"] if path in self._posts else [])
            refused = problem.Problem(405 if allowed else 404, "Not this way" if allowed else "Nothing is here")
            if allowed:
                refused.detail = f"{path} takes {', '.join(allowed)}"
                headers.append(("allow", ", ".join(allowed)))
            status, media, body = refused.status, problem.MEDIA_TYPE, refused.body()
        else:
            status, media, body = answer(self.health)
        headers.append(("content-type", media))
        if media.startswith("text/html"):
            headers.extend(page.HEADERS)
        elif status == 503:
            headers.append(("retry-after", "1"))
        if self.slot.board.draining and scope.http_version.startswith("1"):
            headers.append(("connection", "close"))
        if method == "HEAD":
            proto.response_empty(status, headers)
        else:
            proto.response_bytes(status, headers, body)
        if status >= 400 and status != 503:
            self.metrics.answered("other", status)
        if self.settings.access_log:
            self._access(scope, status, self._request_id(scope.headers), None, None)

    def _own_gets(self):
        service = self.service
        openapi, docs = true_here(service, self.tokens is not None), page.render(service)
        metadata = _json(service.metadata())
        routes = {
            "/livez": lambda health: (200, JSON, b'{"status":"up"}'),
            "/readyz": self._readyz,
            "/healthz": self._readyz,
            "/metrics": self._metrics,
            "/metadata": lambda health: (200, JSON, metadata),
            "/docs": lambda health: (200, "text/html; charset=utf-8", docs),
            "/": lambda health: (200, "text/html; charset=utf-8", docs),
        }
        if openapi is not None:
            routes["/openapi.json"] = lambda health: (200, JSON, openapi)
        return routes

    def _readyz(self, health):
        if health.ready:
            return 200, JSON, b'{"status":"ready"}'
        return 503, JSON, b'{"status":"draining"}' if self.slot.board.draining else b'{"status":"loading"}'

    def _metrics(self, health):
        self.metrics.waiting(self.batcher.waiting)
        return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.text().encode()

    def _request_id(self, headers):
        given = headers.get("x-request-id")
        if given is not None and _ID.match(given):
            return given
        return f"{self._id_head}{next(self._ids):x}"

    def _access(self, scope, status, request_id, seconds, span):
        fields = {"request_id": request_id, "method": scope.method, "path": scope.path, "status": status, **_trace(span)}
        if seconds is not None:
            fields["seconds"] = round(seconds, 6)
        log.info("request", extra={"fields": fields})

    def _load_model(self):
        model = self._load()
        self.model = model
        return model.score


def _trace(span):
    """What joins a log line to a trace."""
    return {"trace_id": span.trace, "span_id": f"{span.id:016x}"} if span is not None else {}


def _give_up(task, late):
    late.append(True)
    task.cancel()


def _too_large(most):
    return problem.Problem(
        413,
        "The body is too large",
        f"at most {most} bytes (MLRAILS_MAX_BODY)",
        kind="urn:mlrails:too-large",
        headers=[("connection", "close")],
    )


def _json(value):
    import msgspec

    return msgspec.json.encode(value)

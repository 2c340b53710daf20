"""Traces of requests, as OpenTelemetry's collectors take them: OTLP over HTTP in JSON, when OTEL_* says where to.

Takes: the standard variables (OTLP exporter, resource, sampler) and W3C `traceparent` headers. Gives: `Tracer`, or None when nothing is
asked for. A thread of its own sends what has gathered; when the collector is slow or away, spans are dropped and requests are not
held up. The standard library is enough for this: the OpenTelemetry packages would be a dozen more distributions in every image, solved
together with the project's own.

Source: OpenTelemetry SDK environment variables, OTLP 1.x (JSON encoding), W3C Trace Context, HTTP semantic conventions 1.x.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import re
import ssl
import threading
import time
import urllib.parse

_PARENT = re.compile(r"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")
_MOST_WAITING, _MOST_SENT, _EVERY, _PATIENCE = 4096, 512, 2.0, 5.0
_INTERNAL, _SERVER = 1, 2


def from_environment(name, version, environment=os.environ):
    """The tracer that OTEL_* asks for, else None; `ValueError` when it cannot be what they say."""
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (base and base.rstrip("/") + "/v1/traces")
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    if off or not url:
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/json"
    if protocol == "grpc":
        raise ValueError("OTEL_EXPORTER_OTLP_PROTOCOL=grpc: this service speaks OTLP over HTTP (port 4318 of a collector)")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https address of a collector")
    attributes = _pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    attributes.setdefault("service.version", version or "")
    attributes["service.name"] = environment.get("OTEL_SERVICE_NAME") or attributes.get("service.name") or name
    attributes["telemetry.sdk.name"], attributes["telemetry.sdk.language"] = "mlrails", "python"
    headers = environment.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    return Tracer(parts, _pairs(headers), attributes, _sampler(environment))


def _pairs(text):
    """`a=b,c=d`, percent-encoded as in W3C Baggage."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key.strip(): urllib.parse.unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}


def _sampler(environment):
    """From the parent's decision (True, False, or None without a parent) to ours."""
    name = environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    try:
        ratio = float(environment.get("OTEL_TRACES_SAMPLER_ARG", "1"))
    except ValueError:
        ratio = 1.0
    parented, _, root = name.rpartition("parentbased_")
    share = {"always_on": 1.0, "always_off": 0.0, "traceidratio": ratio}.get(root)
    if share is None:
        raise ValueError(f"OTEL_TRACES_SAMPLER={name!r} is not known")

    def decide(parent):
        if "parentbased_" in name and parent is not None:
            return parent
        return random.random() < share

    return decide


class Span:
    """One request's. Times are nanoseconds since 1970; `scored` is (begin, end, rows) of its stay with the model."""

    __slots__ = ("trace", "id", "parent", "begin", "scored")

    def __init__(self, trace, parent):
        self.trace = trace
        self.id = random.getrandbits(64) or 1
        self.parent = parent
        self.begin = time.time_ns()
        self.scored = None


class Tracer:
    def __init__(self, parts, headers, attributes, sample):
        self._parts = parts
        self._headers = {"content-type": "application/json", **headers}
        self._resource = {"attributes": _attributes(attributes)}
        self._sample = sample
        self._queue = queue.Queue(_MOST_WAITING)
        self._connection = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self):
        """In the process that traces: a thread does not outlive a fork."""
        self._thread.start()

    def begin(self, headers):
        """A request's span, or None when this one is not sampled."""
        found = _PARENT.match((headers.get("traceparent") or "").strip())
        if found and found[1] != "ff" and set(found[2]) != {"0"} and set(found[3]) != {"0"}:
            return Span(found[2], found[3]) if self._sample(int(found[4], 16) & 1 == 1) else None
        return Span(f"{random.getrandbits(128) or 1:032x}", None) if self._sample(None) else None

    def end(self, span, method, route, status, request_id):
        now = time.time_ns()
        spans = [_span(span, f"{method} {route}", _SERVER, span.begin, now, f"{span.id:016x}", span.parent, status >= 500, {
            "http.request.method": method, "http.route": route, "http.response.status_code": status, "mlrails.request_id": request_id,
        })]
        if span.scored:
            begin, end, rows = span.scored
            own = f"{random.getrandbits(64) or 1:016x}"
            spans.append(_span(span, "predict", _INTERNAL, begin, end, own, f"{span.id:016x}", False, {"mlrails.rows": rows}))
        try:
            self._queue.put_nowait(spans)
        except queue.Full:
            pass

    def stop(self):
        """Sends what is left, within a few seconds."""
        self._stopping = True
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass
        self._thread.join(_PATIENCE)

    # The sending thread.

    def _run(self):
        while True:
            spans = []
            first = self._queue.get()
            until = time.monotonic() + _EVERY
            while first is not None:
                spans.extend(first)
                if len(spans) >= _MOST_SENT:
                    break
                try:
                    first = self._queue.get(timeout=0 if self._stopping else max(0, until - time.monotonic()))
                except queue.Empty:
                    break
            if spans:
                self._send(spans)
            if self._stopping and self._queue.empty():
                return

    def _send(self, spans):
        scope = {"scope": {"name": "mlrails"}, "spans": spans}
        body = json.dumps({"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}).encode()
        path = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        # A connection that stood still may be closed at the other end: once more on a new one, and then they are lost.
        for _ in range(2):
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.request("POST", path, body, self._headers)
                self._connection.getresponse().read()
                return
            except (OSError, http.client.HTTPException):
                if self._connection is not None:
                    self._connection.close()
                self._connection = None

    def _connect(self):
        host, port = self._parts.hostname, self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=_PATIENCE)


def _span(span, name, kind, begin, end, own, parent, failed, attributes):
    document = {
        "traceId": span.trace,
        "spanId": own,
        "name": name,
        "kind": kind,
        # 64-bit integers are strings in JSON's encoding of protocol buffers.
        "startTimeUnixNano": str(begin),
        "endTimeUnixNano": str(end),
        "attributes": _attributes(attributes),
        "status": {"code": 2} if failed else {},
    }
    if parent:
        document["parentSpanId"] = parent
    return document


def _attributes(values):
    def typed(value):
        return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}

    return [{"key": key, "value": typed(value)} for key, value in values.items()]

"""MLflow's scoring server: `POST /invocations`, `GET /ping`, `/health`, `/version`. SageMaker uses the first two as well, and sends JSON lines."""

from __future__ import annotations

import functools

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.decode import parse_with_nan
from mlrails_runtime.protocols import JSON, Reading, own, preferred, require
from mlrails_runtime.service import plain

_encode = msgspec.json.Encoder().encode
LABEL = "/invocations"
ERROR_TYPE = JSON
# A record in each line. The first is SageMaker's name for it.
_LINES = ("application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson")
_ANSWERS = (JSON, *_LINES)
_SHAPES = ("dataframe_split", "dataframe_records", "instances", "inputs")


def posts(service):
    decoder = service.decoder

    def read(call):
        accept = call.headers.get("accept")
        media = JSON if accept is None or accept == "*/*" else preferred(accept, _ANSWERS)
        render = own.as_json if media == JSON else functools.partial(_as_lines, media)
        return Reading(rows(call), render)

    def rows(call):
        if call.media == "text/csv":
            return decoder.csv(call.body)
        if call.media in _LINES:
            return _of_lines(decoder, call.body)
        require(call.media, JSON, "text/csv", _LINES[0])
        document = parse_with_nan(call.body)
        if not isinstance(document, dict):
            raise _bad(f"expected a JSON object with one of {', '.join(_SHAPES)}")
        given = [shape for shape in _SHAPES if shape in document]
        if len(given) != 1:
            raise _bad(f"expected exactly one of {', '.join(_SHAPES)}; got {', '.join(given) or 'none'}")
        return _rows(decoder, given[0], document[given[0]])

    return {"/invocations": read}


def _of_lines(decoder, body):
    """Rows of a record per line; blank lines are none."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    try:
        return decoder.lines(lines)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        pass
    records = []
    for at, line in enumerate(lines):
        try:
            records.append(parse_with_nan(line))
        except problem.Problem as refused:
            raise problem.malformed(f"line {at + 1}: {refused.detail}") from None
    return decoder.records(records)


def _as_lines(media, answers):
    """A line for each row, as text/csv has it: an answer that is an object, else an object with `prediction`."""
    lines = (_encode(answer if isinstance(answer, dict) else {"prediction": answer}) for answer in msgspec.to_builtins(answers, enc_hook=plain))
    return media, b"".join(line + b"\n" for line in lines)


def _rows(decoder, shape, value):
    if shape == "dataframe_split":
        if not isinstance(value, dict) or not {"columns", "data"} <= value.keys():
            raise _bad('dataframe_split is {"columns": [...], "data": [[...]]}')
        return decoder.split(value["columns"], value["data"])
    if shape == "dataframe_records":
        if not isinstance(value, list):
            raise _bad("dataframe_records is a list of records")
        return decoder.records(value)
    if shape == "inputs" and isinstance(value, dict):
        lists = list(value.values())
        if not all(isinstance(item, list) and len(item) == len(lists[0]) for item in lists):
            raise _bad("inputs is a list of equal length per column")
        return decoder.by_column(value, len(lists[0]) if lists else 0)
    return decoder.instances(value)


def gets(service):
    def ping(health):
        return (200 if health.ready else 503), JSON, b"\n"

    # SageMaker's batch transform asks before it sends: what one request may hold, and how many may be under way. It refuses a job where
    # the two make more than 100 MB.
    payload = min(100, max(1, service.max_body >> 20))
    limits = {"MaxConcurrentTransforms": min(8, 100 // payload), "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": payload}
    parameters = msgspec.json.encode(limits)
    return {
        "/ping": ping,
        "/health": ping,
        "/version": lambda health: (200, "text/plain; charset=utf-8", (service.version or "").encode()),
        "/execution-parameters": lambda health: (200, JSON, parameters),
    }


def error(refused, request_id):
    # What MLflow itself answers to input it cannot use is 400.
    status = 400 if refused.status == 422 else refused.status
    code = {400: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE", 500: "INTERNAL_ERROR"}.get(status, "INVALID_PARAMETER_VALUE")
    document = {"error_code": code, "message": str(refused)}
    if refused.errors:
        document["errors"] = refused.errors[:100]
    return status, msgspec.json.encode(document)


def _bad(detail):
    return problem.Problem(400, "The body is not rows", detail, kind="urn:mlrails:not-rows")

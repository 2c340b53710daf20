"""`POST /predict`: one record, a list of records, {"columns", "data"} or CSV; answers {"predictions": [...]} or CSV."""

from __future__ import annotations

import csv
import io

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.protocols import JSON, Reading, require
from mlrails_runtime.service import plain

LABEL = "/predict"
ERROR_TYPE = problem.MEDIA_TYPE
_encoder = msgspec.json.Encoder(enc_hook=plain)


def posts(service):
    decoder = service.decoder

    def read(call):
        if call.media == JSON:
            rows = decoder.json(call.body)
        else:
            require(call.media, JSON, "text/csv")
            rows = decoder.csv(call.body)
        accept = call.headers.get("accept")
        if accept is not None and accept.startswith("text/csv"):
            return Reading(rows, as_csv)
        return Reading(rows, as_json)

    return {"/predict": read}


def gets(service):
    return {}


def as_json(answers):
    return JSON, b'{"predictions":' + _encoder.encode(answers) + b"}"


def as_csv(answers):
    """A column per key when answers are objects, else one named `prediction`."""
    answers = msgspec.to_builtins(answers, enc_hook=plain)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    if answers and all(isinstance(answer, dict) for answer in answers):
        names = list(answers[0])
        writer.writerow(names)
        writer.writerows([answer.get(name) for name in names] for answer in answers)
    else:
        writer.writerow(["prediction"])
        writer.writerows([answer] for answer in answers)
    return "text/csv; charset=utf-8", file.getvalue().encode()


def error(refused, request_id):
    return refused.status, refused.body(request_id)

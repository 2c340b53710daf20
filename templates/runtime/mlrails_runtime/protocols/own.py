"""`POST /predict`: one record, a list of records, {"columns", "data"}, CSV, Arrow or Parquet; the answer in whichever of them is accepted."""

from __future__ import annotations

import csv
import functools
import io

import msgspec

from mlrails_runtime import problem, tables
from mlrails_runtime.protocols import JSON, Reading, preferred, require
from mlrails_runtime.service import plain

LABEL = "/predict"
ERROR_TYPE = problem.MEDIA_TYPE
_encoder = msgspec.json.Encoder(enc_hook=plain)


def posts(service):
    decoder = service.decoder
    media_types = (JSON, "text/csv", *(tables.MEDIA_TYPES if service.tables else ()))
    renders = {JSON: as_json, "text/csv": as_csv}
    for media in media_types[2:]:
        renders[media] = functools.partial(as_table, media)

    def read(call):
        if call.media == JSON:
            rows = decoder.json(call.body)
        else:
            require(call.media, *media_types)
            rows = decoder.csv(call.body) if call.media == "text/csv" else decoder.by_column(*service.tables.read(call.media, call.body))
        accept = call.headers.get("accept")
        # What most clients send is decided without looking closer.
        return Reading(rows, as_json if accept is None or accept == "*/*" else renders[preferred(accept, media_types)])

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


def as_table(media, answers):
    return tables.write(media, msgspec.to_builtins(answers, enc_hook=plain))


def error(refused, request_id):
    return refused.status, refused.body(request_id)

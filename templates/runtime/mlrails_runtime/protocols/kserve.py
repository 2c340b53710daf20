"""KServe's version 1 data plane, `{"instances": [...]} -> {"predictions": [...]}`; Vertex AI's is the same on a route of its own."""

from __future__ import annotations

import msgspec

from mlrails_runtime.protocols import JSON, Reading, own, require

LABEL = "/v1"
ERROR_TYPE = JSON


def posts(service):
    return {f"/v1/models/{service.name}:predict": reader(service)}


def reader(service):
    decoder = service.decoder

    def read(call):
        require(call.media, JSON)
        return Reading(decoder.wrapped(call.body, "instances"), own.as_json)

    return read


def gets(service):
    listing = msgspec.json.encode({"models": [service.name]})

    def model(health):
        return 200, JSON, msgspec.json.encode({"name": service.name, "ready": health.ready})

    return {"/v1/models": lambda health: (200, JSON, listing), f"/v1/models/{service.name}": model}


def error(refused, request_id):
    document = {"error": refused.title if not refused.detail else f"{refused.title}: {refused.detail}"}
    if refused.errors:
        document["errors"] = refused.errors[:100]
    return refused.status, msgspec.json.encode(document)

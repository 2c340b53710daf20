"""The wire contracts, one module each; all of them go through one decoder and one batcher.

A contract is a module with

    LABEL               its name in metrics
    ERROR_TYPE          the media type of its refusals
    posts(service)      {path: read}, where read(call) gives `Reading`
    gets(service)       {path: answer}, where answer(health) gives (status, media type, bytes)
    error(problem, id)  (status, bytes)

They know bodies; they must not know sockets or threads.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

from mlrails_runtime import problem

JSON = "application/json"


@dataclasses.dataclass
class Call:
    """What a contract may look at. `media` is the media type, in lower case, without parameters; `held`: bytes of memory that it takes."""

    media: str
    headers: Any
    body: bytes
    held: int = 0


@dataclasses.dataclass
class Reading:
    """Decoded rows, and how their answers are written: `render(answers) -> (media type, bytes)`, which may add to `headers`."""

    rows: list
    render: Callable
    headers: list = dataclasses.field(default_factory=list)


# What only serves to run code when it is read. Named, so that the refusal can say why.
_PICKLES = ("pickle", "joblib", "python", "x-npy", "dill")


def media_type(header):
    """The media type of a Content-Type header. A charset that is not UTF-8 and a pickle are refused here, for all contracts."""
    if not header:
        return JSON
    media, *parameters = header.lower().split(";")
    media = media.strip()
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip("\"'") not in ("utf-8", "utf8", "us-ascii"):
            raise problem.unsupported(f"the body's charset is {value.strip()}; this service reads UTF-8")
    if any(word in media for word in _PICKLES):
        raise problem.unsupported("pickled bodies are never read: loading one runs whatever it says")
    return media


def require(media, *taken):
    if media not in taken:
        raise problem.unsupported(f"{media} is not taken here; send {' or '.join(taken)}")


def preferred(accept, offered):
    """Which of `offered` an Accept header likes best (RFC 9110, section 12.5.1); the first when it likes none of them or there is none."""
    if not accept:
        return offered[0]
    best, chosen = 0.0, offered[0]
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        kind, _, name = media.partition("/")
        matching = [one for one in offered if one == media or media == "*/*" or (name == "*" and one.startswith(f"{kind}/"))]
        if matching and weight > best:
            best, chosen = weight, matching[0]
    return chosen

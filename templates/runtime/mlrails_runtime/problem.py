"""Refusals as people and programs read them: RFC 9457 problem details.

A refusal says which row, column and rule; it never holds a traceback or a value of the request.
"""

from __future__ import annotations

import msgspec

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 100


class Problem(Exception):
    """An answer that is not 2xx. `errors`: [{row, column, rule, message}], rows counted from 0."""

    def __init__(self, status, title, detail=None, errors=None, kind="about:blank", headers=()):
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.kind = kind
        self.headers = list(headers)

    def body(self, request_id=None):
        document = {"type": self.kind, "title": self.title, "status": self.status}
        if self.detail:
            document["detail"] = self.detail
        if self.errors is not None:
            document["errors"] = self.errors[:MOST_ERRORS]
            if len(self.errors) > MOST_ERRORS:
                document["more_errors"] = len(self.errors) - MOST_ERRORS
        if request_id:
            document["request_id"] = request_id
        return msgspec.json.encode(document)


def malformed(detail):
    """400: not what the media type says it is."""
    return Problem(400, "The body cannot be read", detail, kind="urn:mlrails:malformed")


def invalid(errors, all_of_them=True):
    """422: readable, and rows break rules of the schema."""
    count = len(errors)
    detail = "1 value does not fit the schema" if count == 1 else f"{count} values do not fit the schema"
    if not all_of_them:
        detail += ", and the rest was not looked at"
    return Problem(422, "Rows do not fit the schema", detail, errors, kind="urn:mlrails:invalid-rows")


def shape(detail):
    """422: readable, and of another shape than rows."""
    return Problem(422, "The body is not rows", detail, [], kind="urn:mlrails:not-rows")


def too_many_values(most):
    """413: a few bytes may stand for a value that takes fifty here, so these are counted too."""
    return Problem(413, "The body is too large", f"at most {most} values (MLRAILS_MAX_BODY)", kind="urn:mlrails:too-large")


def unsupported(detail):
    return Problem(415, "This media type is not taken", detail, kind="urn:mlrails:media-type")


def overloaded(detail="too many requests are waiting"):
    return Problem(503, "Not now", detail, kind="urn:mlrails:overloaded", headers=[("retry-after", "1")])

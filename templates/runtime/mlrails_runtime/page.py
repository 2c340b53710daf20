"""`/docs`: one page that needs nothing from anywhere else. What it shows comes from the schema; it never holds a real row."""

from __future__ import annotations

import json
import pathlib

# The page's own script and style are inline; it talks to this service and to nobody else.
HEADERS = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
]


def render(service):
    """The page's bytes, made once per process."""
    template = pathlib.Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # `<` is escaped so that no text of the project's can end the script element.
    facts = json.dumps(service.metadata()).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return template.replace("/*FACTS*/null", facts, 1).encode()

"""`/openapi.json` as it is true of this process: what was rendered from the project, less what is not there.

The document says all that the runtime can do. Whether pyarrow is installed and whether a token is needed is known only here.
"""

from __future__ import annotations

import msgspec

from mlrails_runtime import tables


def true_here(service, closed):
    """The bytes, or None when the app has no document. `closed`: whether a token is needed."""
    text = service.openapi()
    if text is None:
        return None
    document = msgspec.json.decode(text)
    if service.tables is None:
        _without_tables(document)
    if closed:
        document["security"] = [{"token": []}]
    else:
        document.get("components", {}).pop("securitySchemes", None)
        for _, operation in _operations(document):
            operation.get("responses", {}).pop("401", None)
    return msgspec.json.encode(document)


def _operations(document):
    for path, item in document.get("paths", {}).items():
        for operation in item.values():
            if isinstance(operation, dict):
                yield path, operation


def _without_tables(value):
    if isinstance(value, dict):
        content = value.get("content")
        if isinstance(content, dict):
            for media in tables.MEDIA_TYPES:
                content.pop(media, None)
        for item in value.values():
            _without_tables(item)
    elif isinstance(value, list):
        for item in value:
            _without_tables(item)

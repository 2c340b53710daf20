"""Log lines on stderr: JSON for machines, text for people at a terminal. A request's lines carry its id.

Bodies are never logged: they are other people's data.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import traceback


def configure(settings):
    """A logger, and the same shape for what libraries log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    log = logging.getLogger("mlrails")
    log.setLevel(logging.INFO)
    return log


class _Json(logging.Formatter):
    def format(self, record):
        now = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "process": os.getpid(),
        }
        line.update(getattr(record, "fields", None) or {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


class _Text(logging.Formatter):
    def format(self, record):
        fields = getattr(record, "fields", None) or {}
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        line = f"{record.levelname.lower()}: {record.getMessage()}" + (f"  {shown}" if shown else "")
        if record.exc_info:
            line += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return line

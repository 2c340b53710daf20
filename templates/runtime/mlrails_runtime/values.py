"""Frozen values from their files. Takes a path and a format, gives the value."""

import json


def load(path, format):
    """The value in `path`, which `format` says how to read."""
    if format == "json":
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    if format == "joblib":
        import joblib

        return joblib.load(path)
    raise ValueError(f"unknown artifact format {format!r}")

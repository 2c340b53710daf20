"""The served pipeline of @PROJECT@ as a library: `from @PACKAGE@ import Model; Model().predict(rows)`.

mlrails wrote this package from the project's source and its last training run: `app.py` is the pipeline, `artifacts` holds what training
learned, `runtime` decodes rows as the service does. Nothing is loaded before a `Model` is made.
"""

import threading


class Model:
    """What training learned, loaded once. Threads may share it: rows are scored by one of them at a time."""

    def __init__(self):
        import importlib.resources

        from @PACKAGE@._mlrails.runtime.service import Model as Pipeline
        from @PACKAGE@._mlrails.runtime.service import Service

        with importlib.resources.as_file(importlib.resources.files(__name__)) as folder:
            self._service = Service(folder)
            self._pipeline = Pipeline(self._service, freeze=False)
        self._lock = threading.Lock()

    def predict(self, rows):
        """One answer per row, as JSON has it.

        `rows`: a list of records (dicts), one record, or a DataFrame. A missing value is None or NaN; columns that the pipeline does
        not read are ignored. Rows that do not fit raise ValueError, which names row, column and rule.
        """
        import msgspec

        from @PACKAGE@._mlrails.runtime.problem import Problem
        from @PACKAGE@._mlrails.runtime.service import plain

        try:
            decoded = self._service.decoder.records(_records(rows))
            self._pipeline.check(decoded)
        except Problem as refused:
            raise ValueError(_text(refused)) from None
        if not decoded:
            return []
        with self._lock:
            answers = self._pipeline.score(decoded)
        return msgspec.to_builtins(answers, enc_hook=plain)


def _records(rows):
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("records")
    elif isinstance(rows, dict):
        rows = [rows]
    return [{name: _cell(value) for name, value in row.items()} if isinstance(row, dict) else row for row in rows]


def _cell(value):
    """A value as JSON has it: numpy's and pandas' own become Python's, what is missing becomes None."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _text(refused):
    lines = [refused.detail or refused.title]
    for error in (refused.errors or [])[:10]:
        place = f"row {error['row']}" + (f", column {error['column']!r}" if error["column"] is not None else "")
        lines.append(f"{place}: {error['message']} ({error['rule']})")
    return "\n".join(lines)

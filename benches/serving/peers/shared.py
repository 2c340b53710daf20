"""What every peer is given: the project's own functions and trained values, put together by hand as its author would."""

import json
import os
import pathlib
import sys
from typing import Optional

import joblib
import pandas as pd
from pydantic import create_model

PROJECT = pathlib.Path(os.environ["BENCH_PROJECT"])
sys.path.insert(0, str(PROJECT / "src"))

from churn import features, serve  # noqa: E402

_TYPES = {"integer": int, "number": float, "string": str, "boolean": bool}
_columns = json.loads((PROJECT / "artifacts/run.json").read_text())["request"]["columns"]
_fields = {}
for _column in _columns:
    _kind = _TYPES[_column["type"]]
    _fields[_column["name"]] = (Optional[_kind], None) if _column["nullable"] else (_kind, ...)
# One pydantic model per row, as FastAPI's and BentoML's documentation show it.
Customer = create_model("Customer", **_fields)


NAN = float("nan")
MAY_BE_MISSING = [_column["name"] for _column in _columns if _column["nullable"] and _column["type"] == "string"]


class Pipeline:
    def __init__(self):
        self.model = joblib.load(PROJECT / "artifacts/model.joblib")
        self.spend_stats = json.loads((PROJECT / "artifacts/spend_stats.json").read_text())

    def __call__(self, rows):
        # Without these two, a missing word is None where training had NaN, which is answered wrongly, or a row alone has a column of
        # floats, which is an error: what a team finds out in production, and golden rows found here.
        customers = pd.DataFrame([{name: NAN if value is None else value for name, value in row.items()} for row in rows])
        for name in MAY_BE_MISSING:
            customers[name] = customers[name].astype(object)
        spend_z = features.spend_z(customers, self.spend_stats)
        return serve.predict(self.model, features.X(customers, spend_z, features.burden(customers)))

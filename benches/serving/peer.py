"""The same model behind hand-written FastAPI + pydantic + pandas, as most teams write it: one model class per row, one frame per request.

Started by bench.py with uvicorn: one worker process per core, uvloop and httptools, access log off, and the numerical libraries' threads
set to 1, which is what FastAPI's and scikit-learn's own documentation advise. `def`, not `async def`: scoring blocks, so FastAPI's
thread pool runs it.
"""

import json
import os
import pathlib
import sys

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import create_model

FOLDER = pathlib.Path(os.environ["BENCH_SAMPLE"])
sys.path.insert(0, str(FOLDER))
SERVICE = json.loads((FOLDER / "service.json").read_text())

from churn import features, serve  # noqa: E402

TYPES = {"integer": int, "number": float, "string": str, "boolean": bool}
fields = {}
for column in SERVICE["request"]["columns"]:
    kind = TYPES[column["type"]]
    fields[column["name"]] = (kind | None, None) if column["nullable"] else (kind, ...)
Customer = create_model("Customer", **fields)

model = joblib.load(FOLDER / "artifacts/model.joblib")
spend_stats = json.loads((FOLDER / "artifacts/spend_stats.json").read_text())
app = FastAPI()


@app.post("/predict")
def predict(customer: Customer):
    customers = pd.DataFrame([customer.model_dump()])
    spend_z = features.spend_z(customers, spend_stats)
    X = features.X(customers, spend_z, features.ratio(customers))
    return {"predictions": serve.predict(model, X)}

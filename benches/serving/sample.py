"""Makes the project that both servers serve: 15 columns, an imputing, scaling, one-hot encoding pipeline and a logistic regression.

    python sample.py FOLDER     writes churn/, artifacts/, app.py, service.json and body.json (one row)
"""

import hashlib
import json
import pathlib
import sys

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FEATURES = '''
import numpy as np


def spend_z(customers, spend_stats):
    return (customers["spend"] - spend_stats["mean"]) / spend_stats["std"]


def ratio(customers):
    return customers["spend"] / customers["tenure"].clip(lower=1)


def X(customers, spend_z, ratio):
    return customers.assign(spend_z=spend_z, ratio=ratio, root_age=np.sqrt(customers["age"]))
'''
SERVE = '''
def predict(model, X) -> list[float]:
    return model.predict_proba(X)[:, 1].tolist()
'''
APP = '''
from churn import features, serve


def pipeline(frozen, customers):
    spend_z = features.spend_z(customers=customers, spend_stats=frozen["spend_stats"])
    ratio = features.ratio(customers=customers)
    X = features.X(customers=customers, spend_z=spend_z, ratio=ratio)
    return serve.predict(model=frozen["model"], X=X)
'''


def main(folder):
    for name in ("churn", "artifacts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "churn/__init__.py").write_text("")
    (folder / "churn/features.py").write_text(FEATURES)
    (folder / "churn/serve.py").write_text(SERVE)
    (folder / "app.py").write_text(APP)
    sys.path.insert(0, str(folder))
    from churn import features, serve

    random, count = np.random.default_rng(0), 2000
    customers = pd.DataFrame(
        {
            "age": random.integers(18, 90, count),
            "tenure": random.integers(0, 60, count),
            "spend": random.gamma(2, 50, count),
        }
    )
    numbers = [f"number_{at}" for at in range(8)]
    for name in numbers:
        customers[name] = random.normal(size=count)
        customers.loc[random.random(count) < 0.05, name] = np.nan
    kinds = [f"kind_{at}" for at in range(4)]
    for name in kinds:
        customers[name] = pd.Series(random.choice(["alpha", "beta", "gamma"], count)).astype(object)
    stats = {"mean": float(customers["spend"].mean()), "std": float(customers["spend"].std())}
    X = features.X(customers, features.spend_z(customers, stats), features.ratio(customers))
    scaled = ["age", "tenure", "spend", "spend_z", "ratio", "root_age", *numbers]
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), scaled),
                ("kinds", OneHotEncoder(handle_unknown="ignore"), kinds),
            ]
        ),
        LogisticRegression(max_iter=500),
    ).fit(X, (customers["spend"] > 90).astype(int))
    joblib.dump(model, folder / "artifacts/model.joblib")
    (folder / "artifacts/spend_stats.json").write_text(json.dumps(stats))
    rows = json.loads(customers.head(20).to_json(orient="records", double_precision=15))
    golden = pd.DataFrame(rows).astype({name: customers[name].dtype for name in customers})
    golden_x = features.X(golden, features.spend_z(golden, stats), features.ratio(golden))
    record = {"schema": 1, "golden": {"rows": rows, "predictions": serve.predict(model, golden_x)}}
    (folder / "artifacts/run.json").write_text(json.dumps(record))
    columns = [column(name, customers[name]) for name in customers]
    service = {
        "schema": 1,
        "name": "churn",
        "version": "0.1.0",
        "module": "churn",
        "artifacts": "artifacts",
        "frozen": [value(folder, "model", "model.joblib", "joblib"), value(folder, "spend_stats", "spend_stats.json", "json")],
        "request": {"node": "customers", "kind": "table", "columns": columns},
        "response": {"kind": "list", "items": {"type": "number"}},
        "example": {entry["name"]: entry["example"] for entry in columns},
    }
    (folder / "service.json").write_text(json.dumps(service, indent=1))
    (folder / "body.json").write_text(json.dumps(service["example"]))


def column(name, series):
    entry = {"name": name, "dtype": str(series.dtype), "required": True, "nullable": bool(series.isna().any())}
    if series.dtype == object:
        return entry | {"type": "string", "categories": sorted(series.unique()), "example": "beta"}
    mean = float(series.mean())
    entry |= {"minimum": series.min().item(), "maximum": series.max().item(), "mean": mean}
    whole = series.dtype.kind == "i"
    return entry | {"type": "integer" if whole else "number", "example": round(mean) if whole else round(mean, 2)}


def value(folder, name, file, kind):
    content = (folder / "artifacts" / file).read_bytes()
    return {"name": name, "file": file, "format": kind, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

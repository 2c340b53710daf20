"""Frozen values and their files: how each kind is saved, and how it is loaded again.

Takes values and paths. A format is a framework's own only for the framework's raw object (a Booster, a state dict, a ModelProto): what
wraps one holds more than the framework would save. JSON is for what reloads equal with the same types; everything else goes through
joblib, or pickle where joblib is not installed. Training saves with this file and serving loads with it, so both know the same formats.
Standard library only, and a framework when a value is its own.
"""

import json
import os
import pickle


def load(path, format):
    """The value in `path`, which `format` says how to read."""
    if format not in FORMATS:
        raise ValueError(f"unknown artifact format {format!r}")
    return FORMATS[format][2](str(path))


def save(value, stem):
    """Writes `value` to `stem` with the format's suffix; gives (path, format)."""
    format = format_of(value)
    suffix, write, _ = FORMATS[format]
    path = f"{stem}{suffix}"
    write(value, path)
    return path, format


def format_of(value):
    if is_plain(value):
        return "json"
    kind = type(value)
    framework = kind.__module__.partition(".")[0]
    if framework == "xgboost" and kind.__name__ == "Booster":
        return framework
    if framework == "lightgbm" and kind.__name__ == "Booster" and value.best_iteration <= 0 and not value.best_score:
        # Its file does not hold which iteration was the best: trees after that one would count, or be gone.
        return framework
    if framework == "onnx" and kind.__name__ == "ModelProto":
        return "onnx"
    if _is_state_dict(value):
        return "torch"
    try:
        import joblib  # noqa: F401
    except ImportError:
        return "pickle"
    return "joblib"


def is_plain(value, depth=0):
    """Whether JSON gives the value back equal and with the same types. NaN and Infinity are no JSON."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return True
    if kind is float:
        return value - value == 0.0
    if depth > 50:
        return False
    if kind is list:
        return all(is_plain(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and is_plain(item, depth + 1) for key, item in value.items())
    return False


def _is_state_dict(value):
    """A mapping of names to torch's tensors, and nothing else."""
    if type(value).__name__ not in ("dict", "OrderedDict") or not value:
        return False
    tensors = all(type(key) is str and type(item).__module__ == "torch" and type(item).__name__ == "Tensor" for key, item in value.items())
    # The restricted loader does not take those that are quantized.
    return tensors and not any(item.is_quantized for item in value.values())


def _save_json(value, path):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
        file.write("\n")


def _load_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _save_pickle(value, path):
    with open(path, "wb") as file:
        pickle.dump(value, file, protocol=5)


def _load_pickle(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def _save_joblib(value, path):
    import joblib

    joblib.dump(value, path, protocol=5)


def _load_joblib(path):
    import joblib

    return joblib.load(path)


def _load_xgboost(path):
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    return booster


def _load_lightgbm(path):
    import lightgbm

    return lightgbm.Booster(model_file=path)


def _load_xgboost_estimator(kind):
    def load(path):
        import xgboost

        estimator = getattr(xgboost, kind)()
        estimator.load_model(path)
        return estimator

    return load


def _load_skops(path):
    import skops.io

    # skops asks which types are trusted. Whoever made this file's record read them all, and its hash says that it is the same file.
    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def _load_mlflow(path):
    # Nothing that answers requests calls home.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(os.path.dirname(path))


def _loaded_elsewhere(kind):
    def save(value, path):
        raise ValueError(f"a value is not saved as {kind}: it comes from a model that was saved by others")

    return save


def _save_onnx(value, path):
    with open(path, "wb") as file:
        file.write(value.SerializeToString(deterministic=True))


def _load_onnx(path):
    import onnx

    return onnx.load(path)


def _save_torch(value, path):
    import torch

    torch.save(value, path)


def _load_torch(path):
    import torch

    # A state dict is tensors: the restricted loader runs no code of the file's.
    return torch.load(path, map_location="cpu", weights_only=True)


# Format: suffix, writer, reader.
FORMATS = {
    "json": (".json", _save_json, _load_json),
    "joblib": (".joblib", _save_joblib, _load_joblib),
    "pickle": (".pkl", _save_pickle, _load_pickle),
    "xgboost": (".ubj", lambda value, path: value.save_model(path), _load_xgboost),
    "lightgbm": (".txt", lambda value, path: value.save_model(path), _load_lightgbm),
    "onnx": (".onnx", _save_onnx, _load_onnx),
    "torch": (".pt", _save_torch, _load_torch),
    # What MLflow's models are: loaded, and never saved here. A file that the model itself opens is its path.
    "skops": (".skops", _loaded_elsewhere("skops"), _load_skops),
    "mlflow": ("", _loaded_elsewhere("mlflow"), _load_mlflow),
    "file": ("", _loaded_elsewhere("file"), str),
    "pickle-file": ("", _loaded_elsewhere("pickle-file"), str),
    **{
        f"xgboost.{kind}": (".ubj", _loaded_elsewhere("xgboost"), _load_xgboost_estimator(kind))
        for kind in ("XGBClassifier", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker", "XGBRegressor")
    },
}

"""xgboost and lightgbm given a matrix: what they do with a frame on each call (names, dtypes, categories) costs more than their trees.

Their trees are their own. Threads are those that the process was given (`MLRAILS_THREADS`): lightgbm's scikit-learn classes would take
all cores in each process, whatever the environment says.
"""

from __future__ import annotations

import numpy

from mlrails_runtime.accelerate import Refused, Unusual, features
from mlrails_runtime.accelerate.source import Source


def is_booster(value):
    return type(value).__name__ == "Booster" and package(value) is not None


def package(value):
    name = type(value).__module__.partition(".")[0]
    return name if name in ("xgboost", "lightgbm") else None


def raw(booster, method):
    """`plan(X)` of a Booster: `inplace_predict` of xgboost (`predict` takes what was converted already), `predict` of lightgbm."""
    if (package(booster), method) not in (("xgboost", "inplace_predict"), ("lightgbm", "predict")):
        raise Refused(f"Booster.{method} has no fast path")
    call = getattr(booster, method)
    if package(booster) == "xgboost":
        if any(kind == "c" for kind in booster.feature_types or ()):
            raise Refused("a Booster with categories")
        source = Source(_Fitted(booster.feature_names, booster.num_features()))
        # The source has compared names already.
        options = {"validate_features": False}
    else:
        if booster.pandas_categorical:
            raise Refused("a Booster with categories")
        source = Source(_Fitted(booster.feature_name(), booster.num_feature()))
        options = {}
    matrix = features.Raw(range(source.width)).part()

    def answer(X):
        if type(X) is numpy.ndarray:
            raise Unusual  # there is nothing to be saved
        return call(numpy.ascontiguousarray(matrix.dense(source.open(X)).T), **options)

    return answer


class _Fitted:
    """What a Booster was fitted on, by scikit-learn's names."""

    def __init__(self, names, width):
        self.feature_names_in_ = names
        self.n_features_in_ = width


def wrapped(estimator, method, parts):
    """A method of a scikit-learn class of theirs, as a function of a table."""
    call = _lightgbm(estimator, method) if package(estimator) == "lightgbm" else getattr(estimator, method)
    return lambda table: call(numpy.ascontiguousarray(features.dense(parts, table).T))


def _lightgbm(estimator, method):
    booster = estimator.booster_
    if callable(estimator.objective_):
        raise Refused("an objective of the project's own")
    classes = getattr(estimator, "classes_", None)

    def scores(matrix):
        return booster.predict(matrix, num_threads=0)

    def probabilities(matrix):
        found = scores(matrix)
        return found if found.ndim == 2 else numpy.vstack((1.0 - found, found)).transpose()

    if method == "predict_proba" and classes is not None:
        return probabilities
    if method == "predict" and classes is not None:
        return lambda matrix: classes[probabilities(matrix).argmax(axis=1)]
    if method == "predict":
        return scores
    raise Refused(f"{type(estimator).__name__}.{method} has no fast path")

"""An estimator's method as a plan: where its columns come from, transformers as parts, the model at the end."""

from __future__ import annotations

import numpy

from mlrails_runtime.accelerate import Refused, boosters, features, models
from mlrails_runtime.accelerate.source import Source


def of(estimator, method):
    """`plan(X)`, or `Refused`."""
    if boosters.is_booster(estimator):
        return boosters.raw(estimator, method)
    source = Source(estimator)
    steps = [step for _, step in estimator.steps] if type(estimator).__name__ == "Pipeline" else [estimator]
    given = features.Raw(range(source.width))
    if method == "transform":
        for step in steps:
            given = features.of(step, given)
        made = features.parts(given)
        return lambda X: numpy.ascontiguousarray(features.dense(made, source.open(X)).T)
    for step in steps[:-1]:
        if step is not None and step != "passthrough":
            given = features.of(step, given)
    made = features.parts(given)
    try:
        answer = models.of(steps[-1], method, made)
    except Refused:
        if boosters.package(steps[-1]):
            answer = boosters.wrapped(steps[-1], method, made)
        elif len(steps) > 1:
            answer = models.unknown(steps[-1], method, made)
        else:
            raise
    return lambda X: answer(source.open(X))

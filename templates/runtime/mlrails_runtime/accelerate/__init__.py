"""A fast path for fitted estimators: the arithmetic of scikit-learn's as plain numpy, without what they check on each call; xgboost and
lightgbm with a matrix instead of a frame.

A prediction for one row spends milliseconds in scikit-learn's checks and microseconds in its arithmetic. `compiled(estimator, method)`
gives a function that does the arithmetic alone, for the estimators it knows; whatever is unusual about a call (other columns, another
dtype, infinity, a category that is an error) is left to the estimator itself, by `Unusual`. `mlrails run` compares the two and records
what may be used; `install` uses it: the estimator's method is replaced on the loaded object, and the project's code is not touched.

It must not know requests. The estimator's library is imported by whoever made the estimator; this package imports numpy, and scipy for
`expit`.
"""

from __future__ import annotations

METHODS = ("predict", "predict_proba", "decision_function", "transform", "inplace_predict")


class Refused(Exception):
    """The estimator has no fast path; says why."""


class Unusual(Exception):
    """This call is the estimator's own."""


def compiled(estimator, method):
    """`plan(X)`, which answers as `estimator.method(X)` or raises `Unusual`. Raises `Refused`."""
    from mlrails_runtime.accelerate import plan

    try:
        return plan.of(estimator, method)
    except Refused:
        raise
    except Exception as error:  # an attribute that another version of the library names otherwise
        raise Refused(f"{type(estimator).__name__} is not as expected: {type(error).__name__}: {error}") from None


def estimators(values):
    """(path, object) of each estimator among frozen values: a value itself, or an item of a dict, list or tuple."""
    for name, value in values.items():
        if _is_estimator(value):
            yield name, value
        elif type(value) is dict:
            yield from ((f"{name}[{key!r}]", item) for key, item in value.items() if _is_estimator(item))
        elif type(value) in (list, tuple):
            yield from ((f"{name}[{at}]", item) for at, item in enumerate(value) if _is_estimator(item))


def replace(estimator, method, plan):
    """Puts `plan` in front of the method, on this object; gives a function that takes it away again."""
    original = getattr(estimator, method)

    def answer(X, *arguments, **options):
        if not arguments and not options:
            try:
                return plan(X)
            except Exception:
                # The estimator answers, or says what is wrong in its own words.
                pass
        return original(X, *arguments, **options)

    answer.__name__ = method
    estimator.__dict__[method] = answer

    def undo():
        estimator.__dict__.pop(method, None)

    return undo


def install(values, record):
    """Uses what `record` (run.json's `accelerate`) says was proven, on the loaded `values`. Gives a function that undoes it, or None when
    nothing was to be used."""
    undo = []
    for path, estimator in estimators(values):
        for method, said in (record.get(path) or {}).items():
            if said.get("kept") is not True:
                continue
            try:
                undo.append(replace(estimator, method, compiled(estimator, method)))
            except Refused:
                # Other versions than those of training: the estimator itself is always right.
                continue
    return (lambda: [one() for one in undo]) if undo else None


def _is_estimator(value):
    if type(value).__name__ == "Booster" and type(value).__module__.partition(".")[0] in ("xgboost", "lightgbm"):
        return True
    # What scikit-learn's own `get_params` needs, wherever the class is from; and room for the replacement.
    return hasattr(value, "get_params") and hasattr(value, "fit") and hasattr(value, "__dict__") and not isinstance(value, type)

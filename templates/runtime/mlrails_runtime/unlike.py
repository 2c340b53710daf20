"""Whose fault it is that the pipeline raised: that of rows unlike all that training saw, or the pipeline's own.

A zero where training had none divides something, 1e300 overflows a float32, a word that no dictionary has is looked up. The schema takes
such rows, because most pipelines answer them; one that cannot is not broken, and who sent them should hear which values it was. Takes
the exception and the rows; must not know HTTP.
"""

from __future__ import annotations

from mlrails_runtime import problem
from mlrails_runtime.columns import Broken
from mlrails_runtime.decode import ABSENT

# What values cause. A file that is missing, a refused connection, a failed assertion are the service's.
_CAUSED = (ArithmeticError, LookupError, TypeError, ValueError)


def refusal(error, columns, rows):
    """The 422, or None when the rows are like training's, or the exception is of a kind that no value causes."""
    if not isinstance(error, _CAUSED) or isinstance(error, UnicodeError):
        return None
    judges = [(at, column, _judge(column)) for at, column in enumerate(columns)]
    errors = []
    for number, row in enumerate(rows):
        for at, column, unlike in judges:
            value = row[at]
            if unlike is not None and value is not None and value is not ABSENT and unlike(value):
                errors.append({"row": number, "column": column.name, "rule": "unlike_training", "message": f"training saw {_seen(column)}"})
        if len(errors) > problem.MOST_ERRORS:
            break
    if not errors:
        return None
    return problem.Problem(
        422,
        "The pipeline has no answer for these rows",
        "it failed, and they are unlike those that it was trained on",
        errors,
        kind="urn:mlrails:unlike-training",
    )


def _judge(column):
    """Whether a value is outside of what training saw, as a function; None where that is not known."""
    if column.type == "string" and column.categories:
        known = frozenset(column.categories)
        return lambda value: value not in known
    low, high = column.minimum, column.maximum
    if low is None or high is None:
        return None
    if column.type == "datetime":
        try:
            low, high = column.check_time(low), column.check_time(high)
        except Broken:
            return None
    elif column.type not in ("integer", "number"):
        return None
    return lambda value: not low <= value <= high


def _seen(column):
    if column.type == "string":
        shown = ", ".join(column.categories[:10])
        return f"{shown}, …" if len(column.categories) > 10 else shown
    return f"{column.minimum} to {column.maximum}"

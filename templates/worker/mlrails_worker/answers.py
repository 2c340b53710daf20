"""Answers and intermediate values, row by row and in JSON's types, so that two passes can be compared.

Floats are equal within 1e-9, relatively or absolutely; everything else exactly. Missing values are equal to each other.
"""

import math

from mlrails_worker import recording, table
from mlrails_worker.failure import Refused

TOLERANCE = 1e-9


def per_row(answer, count):
    """One JSON value per row from what `predict` returned: a list, an array, a Series or a DataFrame."""
    rows = by_row(answer, count)
    if rows is None:
        try:
            shown = f"{len(answer)} answers"
        except TypeError:
            shown = f"a {type(answer).__name__}"
        raise Refused("not_per_row", f"predict returned {shown} for {count} rows; it must return one answer per row, in order")
    return rows


def by_row(value, count):
    """`value` cut into `count` rows in JSON's types, or None when it has no rows, or another number of them."""
    value = recording.plain(value)
    if isinstance(value, (str, bytes, dict)):
        return None
    length = value.shape[0] if getattr(value, "shape", None) else _length(value)
    if length != count:
        return None
    if table.is_frame(value):
        return [table.to_json(row) for row in value.to_dict("records")]
    if hasattr(value, "toarray"):
        value = value.toarray()
    if hasattr(value, "tolist"):
        return [table.to_json(item) for item in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [table.to_json(item) for item in value]
    return None


def whole(value):
    """A value that is not one per row, if JSON's types can say what it is."""
    value = recording.plain(value)
    if isinstance(value, (str, int, float, bool, dict, list, tuple, type(None))) or hasattr(value, "tolist") or table.is_frame(value):
        return table.to_json(value)
    return None


def _length(value):
    try:
        return len(value)
    except TypeError:
        return None


def same(one, other):
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        if isinstance(one, int) and isinstance(other, int):
            return one == other
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def schema(rows):
    """The answers' JSON schema, from the answers."""
    return {"kind": "list", "items": _items(rows)}


def _items(values):
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {bool}:
        described = {"type": "boolean"}
    elif kinds == {int}:
        described = {"type": "integer"}
    elif kinds and kinds <= {int, float}:
        described = {"type": "number"}
    elif kinds == {str}:
        described = {"type": "string"}
    elif kinds == {list}:
        described = {"type": "array", "items": _items([item for value in present for item in value])}
    elif kinds == {dict}:
        keys = list(dict.fromkeys(key for value in present for key in value))
        described = {"type": "object", "properties": {key: _items([value.get(key) for value in present]) for key in keys}}
    else:
        described = {}
    if len(present) < len(values):
        described["nullable"] = True
    return described


def rows_of(value):
    """How many rows a value has, or None when it is not one per row of anything."""
    if isinstance(value, (str, bytes, dict, set)):
        return None
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return shape[0] if shape else None
    return _length(value)


def take(value, positions):
    """The rows of `value` at `positions`, as the same kind of thing."""
    if hasattr(value, "iloc"):
        return value.iloc[positions]
    if hasattr(value, "tocsr"):
        return value.tocsr()[positions]
    if isinstance(getattr(value, "shape", None), tuple):
        return value[positions]
    return [value[at] for at in positions]

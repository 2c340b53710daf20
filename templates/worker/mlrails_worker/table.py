"""The request's rows: from the training data to records, from records to what the pipeline takes, and what is known of each column.

A record is a dict of JSON values; a missing value is None. A table built here from records is what the serving runtime builds from the
same ones: one array per column, with the dtype that training saw.
"""

import importlib
import math
import typing

from mlrails_worker.failure import Refused

# A text column with at most this many different values is described by them.
MOST_CATEGORIES = 50


def is_frame(value):
    return any(is_frame_class(base) for base in type(value).__mro__)


def is_frame_class(kind):
    # `pandas.core.frame` before pandas 3, `pandas` from there on.
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def is_records(value):
    return type(value) is list and all(isinstance(item, dict) for item in value)


def is_missing(value):
    if value is None:
        return True
    if isinstance(value, float):
        return value != value
    return type(value).__name__ in ("NaTType", "NAType") or (type(value).__name__.startswith("float") and bool(value != value))


def to_json(value):
    """A cell, or an item of an answer, as JSON has it."""
    if is_missing(value):
        return None
    kind = type(value)
    if kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return to_json(value.item())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "toarray"):
        return to_json(value.toarray())
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return [to_json(row) for row in value.to_dict("records")]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (int, float, str)):
        return to_json({int: int, float: float, str: str}[next(base for base in (int, float, str) if isinstance(value, base))](value))
    return str(value)


def count(value):
    return len(value)


def names(value):
    if is_frame(value):
        wrong = [name for name in value.columns if not isinstance(name, str)]
        if wrong:
            raise Refused("column_names", f"the table has a column named {wrong[0]!r}; a request's fields are named by text")
        return list(value.columns)
    found = {}
    for record in value:
        found.update(dict.fromkeys(record))
    return list(found)


def column(value, name):
    """A column's cells, as JSON has them."""
    if is_frame(value):
        return [to_json(cell) for cell in value[name].tolist()]
    return [to_json(record.get(name)) for record in value]


def describe(value, name):
    """A column of the training data: type, dtype, whether values are missing, statistics, an example that is nobody's."""
    entry = _describe_series(value[name], name) if is_frame(value) else _describe_cells(value, name)
    absent = entry.pop("absent", False)
    entry["required"] = not (entry["nullable"] or absent)
    return entry


def _describe_series(series, name):
    present = series.dropna()
    missing = len(present) < len(series)
    kind = _series_type(series, present)
    entry = {"name": name, "type": kind, "dtype": str(series.dtype), "required": True, "nullable": missing}
    if entry["dtype"] == "object" and missing:
        # What a missing value is in an object column: the recomputed nodes may tell None from NaN.
        entry["missing"] = "null" if series[series.isna()].iloc[0] is None else "nan"
    if not len(present) or kind == "object":
        return entry
    if kind == "string":
        counts = present.astype("object").value_counts()
        if entry["dtype"] == "category":
            entry["categories"] = [to_json(one) for one in series.cat.categories]
        else:
            _few_words(entry, {text: int(number) for text, number in counts.items()}, len(present))
        known = entry.get("categories")
        entry["example"] = min(known, key=lambda one: (-int(counts.get(one, 0)), one)) if known else "text"
    elif kind == "boolean":
        entry["example"] = bool(present.astype("bool").mean() >= 0.5)
    else:
        entry["minimum"], entry["maximum"] = to_json(present.min()), to_json(present.max())
        if kind != "datetime":
            entry["mean"] = float(present.mean())
        entry["example"] = to_json(present.sort_values().iloc[len(present) // 2])
    return entry


def _series_type(series, present):
    dtype = series.dtype
    if str(dtype) == "category":
        return {"string": "string", "integer": "integer", "floating": "number", "boolean": "boolean"}.get(_inferred(dtype.categories), "object")
    kind = getattr(dtype, "kind", "O")
    if kind in "biufM":
        return {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "M": "datetime"}[kind]
    if str(dtype) != "object" and not len(present):
        return "string"
    inferred = _inferred(present)
    return {"string": "string", "boolean": "boolean", "integer": "integer", "floating": "number", "mixed-integer-float": "number"}.get(inferred, "object")


def _inferred(values):
    from pandas.api.types import infer_dtype

    return infer_dtype(values, skipna=True)


def _few_words(entry, counts, present):
    if len(counts) <= MOST_CATEGORIES and len(counts) * 2 <= present:
        entry["categories"] = sorted(counts)


def _describe_cells(records, name):
    cells = [to_json(record[name]) for record in records if name in record]
    present = [cell for cell in cells if cell is not None]
    kinds = {type(cell) for cell in present}
    kind = "object"
    for candidate, types in (("boolean", {bool}), ("integer", {int}), ("number", {int, float}), ("string", {str})):
        if kinds and kinds <= types:
            kind = candidate
            break
    dtype = {"boolean": "bool", "integer": "int64", "number": "float64"}.get(kind, "object")
    entry = {"name": name, "type": kind, "dtype": dtype, "required": True, "nullable": len(present) < len(cells)}
    entry["absent"] = len(cells) < len(records)
    if kind in ("integer", "number"):
        entry["minimum"], entry["maximum"] = min(present), max(present)
        entry["mean"] = math.fsum(present) / len(present)
        entry["example"] = sorted(present)[len(present) // 2]
    elif kind == "boolean":
        entry["example"] = present.count(True) * 2 >= len(present)
    elif kind == "string":
        counts = {text: present.count(text) for text in set(present)} if len(set(present)) <= MOST_CATEGORIES else dict.fromkeys(present, 1)
        _few_words(entry, counts, len(present))
        known = entry.get("categories")
        entry["example"] = min(known, key=lambda one: (-counts[one], one)) if known else "text"
    return entry


def withhold(entry):
    """The entry of a column whose values are nobody's business: nothing in it comes from them."""
    kept = {key: entry[key] for key in ("name", "type", "dtype", "required", "nullable", "missing") if key in entry}
    if entry["dtype"] == "category":
        raise Refused("redacted_category", f"`{entry['name']}` is redacted and has the dtype category, which is made of its values")
    kept["example"] = {"boolean": False, "integer": 0, "number": 0.0, "string": "text", "datetime": "2000-01-01T00:00:00"}.get(entry["type"])
    return kept


def build(request, row, columns, rows):
    """`rows` as the pipeline takes them; `columns` are the schema's, in order."""
    if request == "records":
        make = _record_type(row)
        kept = [column["name"] for column in columns]
        optional = {column["name"] for column in columns if not column["required"] and not column["nullable"]}
        dicts = [{name: record.get(name) for name in kept if name in record and not (name in optional and record[name] is None)} for record in rows]
        return dicts if make is dict else [make(**fields) for fields in dicts]
    import pandas

    return pandas.DataFrame({column["name"]: _array(column, [record.get(column["name"]) for record in rows]) for column in columns}, index=range(len(rows)))


def _array(column, values):
    import numpy
    import pandas

    dtype = column["dtype"]
    if dtype == "category":
        return pandas.Categorical(values, categories=column.get("categories"))
    if dtype.startswith("datetime64"):
        # A column's zone is in its dtype; the times of a record carry offsets, which may differ within one zone.
        times = pandas.to_datetime(values, format="ISO8601", utc=True if "," in dtype else None)
        return pandas.Series(times).astype(dtype)
    if dtype == "object":
        blank = math.nan if column.get("missing") == "nan" else None
        array = numpy.empty(len(values), dtype=object)
        array[:] = [blank if value is None else value for value in values]
        return array
    if dtype == "str":
        # Of pandas, from 3 on. To numpy it means that None becomes "None".
        return pandas.array(values, dtype=dtype)
    try:
        plain = numpy.dtype(dtype)
    except TypeError:
        return pandas.array(values, dtype=dtype)
    if plain.kind in "iub" and None in values:
        return pandas.Series(values)
    return numpy.array(values, dtype=plain)


def _record_type(row):
    """dict, or the project's own class of a record."""
    if not row:
        return dict
    kind = getattr(importlib.import_module(row["module"]), row["name"])
    is_typed = getattr(typing, "is_typeddict", lambda _: False)
    if is_typed(kind) or not isinstance(kind, type) or issubclass(kind, dict):
        return dict
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        return lambda **values: kind(**{name: value for name, value in values.items() if name in fields})
    return kind


def fields(row):
    """The fields of the project's own class of a record, and whether each may be left out or be null; None when any dict will do."""
    if not row:
        return None
    kind = getattr(importlib.import_module(row["module"]), row["name"])
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError):
        hints = dict.fromkeys(getattr(kind, "__annotations__", {}))
    if not hints:
        return None
    required = getattr(kind, "__required_keys__", None)
    if required is None and hasattr(kind, "__dataclass_fields__"):
        import dataclasses

        lacking = dataclasses.MISSING
        required = {field.name for field in dataclasses.fields(kind) if field.default is lacking and field.default_factory is lacking}
    if required is None and hasattr(kind, "model_fields"):
        required = {name for name, field in kind.model_fields.items() if field.is_required()}
    none = type(None)
    nullable = {name for name, hint in hints.items() if none in typing.get_args(hint)}
    return {name: {"optional": required is not None and name not in required, "nullable": name in nullable} for name in hints}

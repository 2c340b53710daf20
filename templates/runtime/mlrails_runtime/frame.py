"""Rows to what the pipeline takes: a DataFrame with the dtypes recorded in training, or a list of records.

Takes rows as `decode` gives them. A frame is built once per batch, from one array per column.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing

from mlrails_runtime import problem
from mlrails_runtime.decode import ABSENT


def table(columns):
    """A function from rows to a DataFrame. pandas is imported here, once, by whoever needs frames."""
    import numpy
    import pandas

    makers = [_maker(column, numpy, pandas) for column in columns]
    names = [column.name for column in columns]
    empty = [()] * len(names)

    def build(rows):
        by_column = zip(*rows) if rows else empty
        return pandas.DataFrame({name: make(values) for name, make, values in zip(names, makers, by_column)})

    return build


def _maker(column, numpy, pandas):
    """From a tuple of values to the column's array."""
    dtype = column.dtype
    if dtype == "category":
        kind = pandas.CategoricalDtype(list(column.categories) or None)
        return lambda values: pandas.Categorical(values, dtype=kind)
    if dtype.startswith("datetime64"):
        return lambda values: pandas.Series(pandas.to_datetime(list(values)), dtype=dtype)
    if dtype == "object":
        objects = _objects_with_nan if column.missing == "nan" else _objects
        if int(pandas.__version__.partition(".")[0]) < 3:
            return lambda values: objects(values, numpy)
        # From pandas 3 on, an array of strings would become `str`, save where a Series says otherwise.
        return lambda values: pandas.Series(objects(values, numpy), dtype=object)
    try:
        plain = numpy.dtype(dtype)
    except TypeError:
        # One of pandas' own: Int64, boolean, string, str.
        return lambda values: pandas.array(values, dtype=dtype)
    if column.missing_allowed and plain.kind in "iub":
        # numpy's integers and booleans have no missing value; the batch that has one is what pandas itself would make of it.
        return lambda values: pandas.Series(values) if None in values else numpy.array(values, dtype=plain)
    return lambda values: numpy.array(values, dtype=plain)


def _objects(values, numpy):
    """An object array of the values themselves: numpy would make a matrix of lists of one length."""
    array = numpy.empty(len(values), dtype=object)
    array[:] = values
    return array


def _objects_with_nan(values, numpy):
    """The same with NaN for what is missing, as training had it."""
    if None in values:
        values = tuple(numpy.nan if value is None else value for value in values)
    return _objects(values, numpy)


def records(columns, row=None):
    """A function from rows to a list of records: dicts, or instances of `row` ({"module", "name"}) as serve.py annotates them."""
    names = [column.name for column in columns]
    kind = _record_type(row)

    def build(rows):
        dicts = [{name: value for name, value in zip(names, values) if value is not ABSENT} for values in rows]
        return dicts if kind is dict else [kind(**fields) for fields in dicts]

    return build


def check_records(build, rows):
    """Builds once while the request is still known, so that a class of the project's that validates gives a 422."""
    try:
        build(rows)
    except (TypeError, ValueError) as error:
        # The message may quote values; they are the client's own.
        raise problem.Problem(422, "Rows do not fit the schema", str(error)[:500], [], kind="urn:mlrails:invalid-rows") from None


def _record_type(row):
    if not row:
        return dict
    kind = getattr(importlib.import_module(row["module"]), row["name"])
    if typing.is_typeddict(kind) or not isinstance(kind, type) or issubclass(kind, dict):
        return dict
    if dataclasses.is_dataclass(kind):
        known = {field.name for field in dataclasses.fields(kind) if field.init}
        return lambda **fields: kind(**{name: value for name, value in fields.items() if name in known})
    return kind

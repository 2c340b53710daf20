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

    blocks = _from_blocks(columns, numpy, pandas)
    return blocks if blocks is not None and _equal(blocks, build, columns) else build


def _from_blocks(columns, numpy, pandas):
    """The same function, faster: pandas spends a quarter of a millisecond to sort twenty arrays into one block per dtype, which is known
    here beforehand. The constructor for it is semi-public from pandas 3 on and internal before, so `table` compares what it makes; None
    where there is none, or a column is of a kind that pandas stores in its own way."""
    if any(column.dtype.startswith("datetime64") for column in columns):
        return None
    assemble = _assemble(pandas)
    if assemble is None:
        return None
    objects = [_objects_with_nan if column.missing == "nan" else _objects for column in columns]
    makers = [
        (lambda values, make=make: make(values, numpy)) if column.dtype == "object" else _maker(column, numpy, pandas)
        for column, make in zip(columns, objects)
    ]
    header = pandas.Index([column.name for column in columns])
    array_type = numpy.ndarray

    def build(rows):
        if not rows:
            rows, keep = [_sample(columns)], 0
        else:
            keep = len(rows)
        alike, blocks = {}, []
        for at, (make, values) in enumerate(zip(makers, zip(*rows))):
            array = make(values)
            if type(array) is pandas.Series:
                array = array.to_numpy() if isinstance(array.dtype, numpy.dtype) else array.array
            if type(array) is array_type:
                places, arrays = alike.setdefault(array.dtype, ([], []))
                places.append(at)
                arrays.append(array)
            else:
                blocks.append((array, [at]))
        for dtype, (places, arrays) in alike.items():
            block = numpy.empty((len(places), len(rows)), dtype=dtype)
            for to, array in enumerate(arrays):
                block[to] = array
            blocks.append((block, places))
        made = assemble([(array, numpy.array(places)) for array, places in blocks], header, pandas.RangeIndex(len(rows)))
        return made if keep else made.iloc[:0]

    return build


def _assemble(pandas):
    """From [(array, places)], header and index to a DataFrame, or None."""
    try:
        from pandas.api.internals import create_dataframe_from_blocks

        return lambda blocks, header, index: create_dataframe_from_blocks(blocks, index=index, columns=header)
    except ImportError:
        pass
    try:
        from pandas._libs.internals import BlockPlacement
        from pandas.core.internals.blocks import new_block
        from pandas.core.internals.managers import BlockManager

        wrap = getattr(pandas.DataFrame, "_from_mgr", None) or (lambda manager, axes: pandas.DataFrame(manager))
    except ImportError:
        return None

    def assemble(blocks, header, index):
        made = tuple(new_block(array, placement=BlockPlacement(places), ndim=2) for array, places in blocks)
        manager = BlockManager(made, [header, index], verify_integrity=False)
        return wrap(manager, manager.axes)

    return assemble


def _sample(columns):
    """A row that every column takes."""
    known = {"boolean": True, "integer": 1, "number": 1.5, "string": "text"}
    return tuple(column.categories[0] if column.categories else known.get(column.type) for column in columns)


def _equal(blocks, build, columns):
    """Whether both make the same frames: of one row, of several, with what is missing."""
    sample = _sample(columns)
    gaps = tuple(None if column.missing_allowed else value for column, value in zip(columns, sample))
    try:
        for rows in ([], [sample], [sample, gaps], [gaps]):
            one, other = blocks(rows), build(rows)
            if not one.equals(other) or list(one.dtypes) != list(other.dtypes) or not one.columns.identical(other.columns):
                return False
            if type(one.index) is not type(other.index) or len(one._mgr.blocks) > len(other._mgr.blocks):
                return False
            # What a pipeline may do first: add a column, take one, copy.
            one["another"] = other["another"] = 1.0
            if not one.equals(other) or not one.copy().equals(other) or not one[[*one.columns[:1]]].equals(other[[*other.columns[:1]]]):
                return False
    except Exception:
        return False
    return True


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
    if dtype == "str":
        # Of pandas, from 3 on. To numpy it means that None becomes "None".
        return lambda values: pandas.array(values, dtype=dtype)
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

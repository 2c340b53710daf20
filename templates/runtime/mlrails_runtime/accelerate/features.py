"""Transformers as parts: each gives some columns of the transformed matrix, and a part by itself knows how to be multiplied with weights.

`of(estimator, columns)` takes a fitted transformer and what it reads (`Raw`: positions of the source; or parts) and gives parts, in the order of
its output. A part has

    width                  columns it gives
    dense(table)           float64, shape (width, rows)
    times(weights)         for weights of shape (width, outputs): a function from table to (rows, outputs), or to (1, outputs)

NaN goes through; infinity is `Unusual`.
"""

from __future__ import annotations

import warnings

import numpy

from mlrails_runtime.accelerate import Refused, Unusual


class Raw:
    """Columns as they are in the source. `fills`: by position, what stands for a missing text."""

    def __init__(self, places, fills=None):
        self.places = list(places)
        self.fills = fills or {}

    def part(self):
        if self.fills:
            raise Refused("texts that were filled in are not encoded")
        return Numbers(self.places, [])


class Numbers:
    """Numeric columns, then steps: functions that change an array of shape (width, rows) in place or give another of that shape."""

    def __init__(self, places, steps):
        self.places = list(places)
        self.width = len(self.places)
        self.steps = steps
        self._index = numpy.array(self.places, dtype=numpy.intp)

    def then(self, step):
        return Numbers(self.places, [*self.steps, step])

    def dense(self, table):
        values = table.numbers(self._index if hasattr(table, "_columns") else self.places)
        if not numpy.isfinite(values).all() and numpy.isinf(values).any():
            raise Unusual
        for step in self.steps:
            values = step(values)
        return values

    def times(self, weights):
        def product(table):
            return self.dense(table).T @ weights

        return product


class Codes:
    """Texts (or other single values), each replaced by a row of its column's table."""

    def __init__(self, columns):
        """`columns`: per column (place, {value: code}, code of NaN or None, table of shape (codes, width), code of the unknown or None)."""
        self.columns = columns
        self.width = sum(table.shape[1] for _, _, _, table, _ in columns)

    def codes(self, table):
        found = []
        for place, known, missing, _, unknown in self.columns:
            codes = []
            for cell in table.cells(place):
                code = known.get(cell, unknown) if cell == cell else missing
                if code is None:
                    raise Unusual
                codes.append(code)
            found.append(codes)
        return found

    def dense(self, table):
        made = numpy.empty((self.width, table.rows))
        at = 0
        for codes, (_, _, _, values, _) in zip(self.codes(table), self.columns):
            made[at : at + values.shape[1]] = values[codes].T
            at += values.shape[1]
        return made

    def times(self, weights):
        # What a category adds to each output, beforehand.
        sums, at = [], 0
        for _, _, _, values, _ in self.columns:
            sums.append(values @ weights[at : at + values.shape[1]])
            at += values.shape[1]

        # One table for all columns: a row's codes are picked and added at once.
        offsets = numpy.cumsum([0] + [len(one) for one in sums[:-1]])[:, None]
        together = numpy.concatenate(sums)

        def product(table):
            return together[numpy.array(self.codes(table), dtype=numpy.intp) + offsets].sum(axis=0)

        return product


class Whole:
    """A step that looks at the whole matrix, after parts of several kinds."""

    def __init__(self, parts, step):
        self.parts, self.step = parts, step
        self.width = sum(part.width for part in parts)

    def dense(self, table):
        return self.step(dense(self.parts, table))

    def times(self, weights):
        return lambda table: self.dense(table).T @ weights


def dense(parts, table):
    if len(parts) == 1:
        return parts[0].dense(table)
    made = numpy.empty((sum(part.width for part in parts), table.rows))
    at = 0
    for part in parts:
        made[at : at + part.width] = part.dense(table)
        at += part.width
    return made


def of(estimator, given):
    """Parts, or `Raw` where the values are still the source's."""
    name = type(estimator).__name__
    if type(estimator).__module__.partition(".")[0] != "sklearn" or name not in _KNOWN:
        raise Refused(f"{name} has no fast path")
    if "_sklearn_output_config" in getattr(estimator, "__dict__", {}) and getattr(estimator, "func", "") is not None:
        # (A ColumnTransformer's own passthrough is set to give what it is given.)
        raise Refused(f"{name} is set to give frames")
    return _KNOWN[name](estimator, given)


def parts(given):
    return [given.part()] if isinstance(given, Raw) else given


def _then(given, step):
    """The same parts, each value changed by `step`, which works on (columns, rows)."""
    given = parts(given)
    if len(given) == 1 and isinstance(given[0], Numbers):
        return [given[0].then(step)]
    return [Whole(given, step)]


def _column(values):
    return None if values is None else numpy.asarray(values, dtype=float).reshape(-1, 1)


def _pipeline(estimator, given):
    for _, step in estimator.steps:
        if step is not None and not (isinstance(step, str) and step == "passthrough"):
            given = of(step, given)
    return given


def _column_transformer(estimator, given):
    if not isinstance(given, Raw) or given.fills:
        raise Refused("a ColumnTransformer inside of a pipeline, after another step")
    chosen, made = estimator._transformer_to_input_indices, []
    if any((estimator.transformer_weights or {}).values()):
        raise Refused("transformer_weights")
    for name, step, _ in estimator.transformers_:
        places = [given.places[at] for at in chosen[name]]
        if not places or (isinstance(step, str) and step == "drop"):
            continue
        inner = Raw(places)
        made += parts(inner if isinstance(step, str) else of(step, inner))
    return made


def _function_transformer(estimator, given):
    if estimator.func is not None:
        raise Refused("a FunctionTransformer runs code of the project's")
    return given


def _imputer(estimator, given):
    if estimator.missing_values == estimator.missing_values or estimator.add_indicator:
        raise Refused("an imputer of other values than NaN, or with an indicator")
    statistics = estimator.statistics_
    if statistics.dtype == object:
        if not isinstance(given, Raw) or given.fills or any(value != value for value in statistics):
            raise Refused("an imputer of texts after another step")
        return Raw(given.places, dict(zip(given.places, statistics.tolist())))
    if not numpy.isfinite(statistics).all():
        raise Refused("an imputer that leaves columns out")
    fill = _column(statistics)

    def step(values):
        missing = numpy.isnan(values)
        return numpy.where(missing, fill, values) if missing.any() else values

    return _then(given, step)


def _standard(estimator, given):
    mean = _column(estimator.mean_ if estimator.with_mean else None)
    scale = _column(estimator.scale_ if estimator.with_std else None)

    def step(values):
        values = values - mean if mean is not None else values
        return values / scale if scale is not None else values

    return _then(given, step)


def _robust(estimator, given):
    center = _column(estimator.center_ if estimator.with_centering else None)
    scale = _column(estimator.scale_ if estimator.with_scaling else None)

    def step(values):
        values = values - center if center is not None else values
        return values / scale if scale is not None else values

    return _then(given, step)


def _min_max(estimator, given):
    scale, least = _column(estimator.scale_), _column(estimator.min_)
    low, high = estimator.feature_range

    def step(values):
        values = values * scale + least
        return values.clip(low, high) if estimator.clip else values

    return _then(given, step)


def _max_abs(estimator, given):
    scale = _column(estimator.scale_)
    return _then(given, lambda values: values / scale)


# A table wider than this would be copied for each row of a tree's input.
_WIDEST = 4096


def _encoder(estimator, given):
    """One-hot and ordinal encoders, by what they answer for each category: how they drop, group or number is theirs to know."""
    if not isinstance(given, Raw):
        raise Refused(f"{type(estimator).__name__} after another step")
    categories = estimator.categories_
    first = [_first(values) for values in categories]
    widths = _widths(estimator, first)
    if sum(widths) > _WIDEST:
        raise Refused(f"more than {_WIDEST} columns of categories")
    starts = numpy.cumsum([0, *widths])
    cells = [values.tolist() for values in categories]
    answers = _asked(estimator, first, cells)
    strangers = _asked_about_strangers(estimator, first, categories)
    columns = []
    for at in range(len(categories)):
        own = slice(starts[at], starts[at + 1])
        table = [answers[at][:, own]]
        known = {cell: code for code, cell in enumerate(cells[at]) if cell == cell}
        missing = next((code for code, cell in enumerate(cells[at]) if cell != cell), None)
        unknown = None
        if strangers[at] is not None:
            table.append(strangers[at][:, own])
            unknown = len(cells[at])
        if missing is None:
            missing = unknown
        place = given.places[at]
        if place in given.fills:
            missing = known.get(given.fills[place], unknown)
        columns.append((place, known, missing, numpy.concatenate(table), unknown))
    return [Codes(columns)]


def _first(values):
    for value in values.tolist():
        if value == value and value is not None:
            return value
    raise Refused("a column of which only missing values are known")


def _widths(estimator, first):
    if type(estimator).__name__ == "OrdinalEncoder":
        return [1] * len(first)
    return [int(width) for width in estimator._n_features_outs]


# Cells of a matrix that is made to ask an encoder about all columns at once: each call of it costs milliseconds of checks.
_ASKED_AT_ONCE = 1 << 20


def _asked(estimator, first, cells):
    """What the encoder answers for each of `cells[column]`, the other columns having their `first`: a matrix per column."""
    count = sum(map(len, cells))
    if len(cells) > 1 and count * count > _ASKED_AT_ONCE:
        alone = [[values if to == at else [] for to in range(len(cells))] for at, values in enumerate(cells)]
        return [_asked_once(estimator, first, one)[at] for at, one in enumerate(alone)]
    return _asked_once(estimator, first, cells)


def _asked_once(estimator, first, cells):
    rows = numpy.empty((sum(map(len, cells)), len(first)), dtype=object)
    for place, value in enumerate(first):
        rows[:, place] = value
    ends = numpy.cumsum([0, *map(len, cells)])
    for at, values in enumerate(cells):
        rows[ends[at] : ends[at + 1], at] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = type(estimator).transform(estimator, _as_fitted(estimator, rows))
    answer = answer.toarray() if hasattr(answer, "toarray") else numpy.asarray(answer)
    return [answer[ends[at] : ends[at + 1]].astype(float) for at in range(len(cells))]


def _asked_about_strangers(estimator, first, categories):
    """The same for a value that is no category; None where that is an error, which the estimator itself words."""
    strangers = [[_stranger(values)] for values in categories]
    try:
        return _asked(estimator, first, strangers)
    except ValueError:
        pass  # of one of the columns, at least
    made = []
    for at, stranger in enumerate(strangers):
        try:
            made.append(_asked_once(estimator, first, [stranger if to == at else [] for to in range(len(strangers))])[at])
        except ValueError:
            made.append(None)
    return made


def _as_fitted(estimator, rows):
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return rows
    import pandas

    frame = pandas.DataFrame(rows, columns=list(names))
    for at, values in enumerate(estimator.categories_):
        if values.dtype != object:
            frame[names[at]] = numpy.array(rows[:, at].tolist(), dtype=None if values.dtype.kind in "US" else float)
    return frame


def _stranger(values):
    """A value of the same kind that is no category."""
    if values.dtype.kind in "OUS":
        return "a category that training never saw"
    return float(numpy.nanmax(numpy.abs(values.astype(float)))) + 12345.0


_KNOWN = {
    "ColumnTransformer": _column_transformer,
    "FunctionTransformer": _function_transformer,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "OneHotEncoder": _encoder,
    "OrdinalEncoder": _encoder,
    "Pipeline": _pipeline,
    "RobustScaler": _robust,
    "SimpleImputer": _imputer,
    "StandardScaler": _standard,
}

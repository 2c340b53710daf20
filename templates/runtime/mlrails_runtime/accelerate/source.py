"""What a plan reads from `X`: columns of a DataFrame, or of a matrix, by position.

Numbers come as a float64 array of shape (columns, rows), which is how pandas stores them. Takes only what is as in training: a frame
with the header of the fit, or a float64 matrix of its width.
"""

from __future__ import annotations

import numpy

from mlrails_runtime.accelerate import Refused, Unusual

_NUMBERS = "fiub"


class Source:
    """`open(X)` gives a `Table`."""

    def __init__(self, estimator):
        names = getattr(estimator, "feature_names_in_", None)
        self.width = getattr(estimator, "n_features_in_", None)
        if self.width is None:
            raise Refused(f"{type(estimator).__name__} does not say what it was fitted on")
        self.names = None if names is None else list(names)
        self._seen = None

    def open(self, X):
        if self.names is None:
            if type(X) is not numpy.ndarray or X.dtype != numpy.float64 or X.ndim != 2 or X.shape[1] != self.width:
                raise Unusual
            return Matrix(X)
        columns = getattr(X, "columns", None)
        if columns is None:
            raise Unusual
        if columns is not self._seen:
            if list(columns) != self.names:
                raise Unusual
            self._seen = columns
        return Frame(X)


class Frame:
    def __init__(self, frame):
        self.rows = len(frame)
        # Internal, and a hundred times as fast as `frame.iloc[:, at]`.
        read = getattr(getattr(frame, "_mgr", None), "iget_values", None)
        self._column = read or (lambda at: frame.iloc[:, at].array)

    def numbers(self, places):
        made = numpy.empty((len(places), self.rows))
        for to, at in enumerate(places):
            column = self._column(at)
            kind = column.dtype
            # float32 alone would be computed as such; what is neither is converted by rules of its own.
            if type(column) is not numpy.ndarray or kind.kind not in _NUMBERS or (kind.kind == "f" and kind.itemsize != 8):
                raise Unusual
            made[to] = column
        return made

    def cells(self, at):
        column = self._column(at)
        return column.tolist()


class Matrix:
    def __init__(self, matrix):
        self.rows = len(matrix)
        self._columns = matrix.T

    def numbers(self, places):
        return self._columns[places]

    def cells(self, at):
        return self._columns[at].tolist()

"""The request's columns: what each takes, how a value is checked, and which rule it broke.

Takes: the request schema of `service.json`. Gives: `Column`s, each with the type that msgspec checks on the fast path and a
`check` that explains on the slow one. Rows are tuples in column order everywhere above this module. What each type takes:

    type       JSON                                  CSV                     in the frame
    boolean    true, false                           true/false/1/0          bool, boolean, object
    integer    whole numbers (5 and 5.0)             digits                  int8..64, uint8..64, Int64
    number     numbers; NaN and Infinity never       decimal; empty, nan: missing   float32, float64
    string     strings                               text; empty: missing    object, str, string, category
    datetime   ISO 8601 strings                      ISO 8601                datetime64[..]; an offset is converted to UTC
    object     anything                              text                    object
    missing    null                                  an empty cell           NaN, NaT, None, <NA>
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from typing import Annotated, Any, Literal

import msgspec

_BITS = re.compile(r"^(u?)int(8|16|32|64)$", re.IGNORECASE)
# The largest finite number of each; what is larger would become infinity.
_LARGEST = {"float16": 65504.0, "float32": 3.4028234663852886e38}
# What 64 bits of nanoseconds hold, in whole microseconds; other units hold every year that ISO 8601 has.
_NANOSECONDS = (datetime.datetime(1677, 9, 21, 0, 12, 43, 145225), datetime.datetime(2262, 4, 11, 23, 47, 16, 854775))
_NAMES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a string",
    "datetime": "an ISO 8601 time as a string",
}


class Broken(Exception):
    """A value that breaks a rule. `rule` is a word for programs, the message is for people."""

    def __init__(self, rule, message):
        super().__init__(message)
        self.rule = rule


@dataclasses.dataclass(frozen=True)
class Column:
    name: str
    type: str = "object"
    dtype: str = "object"
    required: bool = True
    nullable: bool = False
    categories: tuple = ()
    minimum: Any = None
    maximum: Any = None
    example: Any = None
    # What a missing value is in an object column, "nan" or "null": encoders tell them apart, so it must be training's.
    missing: str = "null"

    @classmethod
    def from_schema(cls, entry):
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in entry.items() if key in known and value is not None}
        values["categories"] = tuple(entry.get("categories") or ())
        values["dtype"] = entry.get("dtype") or "object"
        return cls(**values)

    @property
    def missing_allowed(self):
        return self.nullable or not self.required

    @property
    def closed(self):
        """Whether only the recorded categories are taken: elsewhere in pandas an unknown one would silently become missing."""
        return self.dtype == "category" and bool(self.categories)

    @property
    def bounds(self):
        """Smallest and largest integer of the column's dtype, or None."""
        bits = _BITS.match(self.dtype)
        if self.type != "integer" or not bits:
            return None
        size = int(bits[2])
        return (0, 2**size - 1) if bits[1] else (-(2 ** (size - 1)), 2 ** (size - 1) - 1)

    def fast_type(self):
        """The type by which msgspec takes most valid values at once; what it does not take, `check` judges."""
        kind = {"boolean": bool, "integer": int, "number": float, "string": str, "datetime": str}.get(self.type, Any)
        if kind is Any:
            return Any
        if self.closed and self.type == "string":
            kind = Literal[self.categories]
        elif kind is int:
            # msgspec's own bounds are 64-bit signed; wider ones are left to `check`.
            low, high = self.bounds or (-(2**63), 2**63 - 1)
            kind = Annotated[int, msgspec.Meta(ge=low, le=min(high, 2**63 - 1))]
        elif kind is float and self.dtype in _LARGEST:
            most = _LARGEST[self.dtype]
            kind = Annotated[float, msgspec.Meta(ge=-most, le=most)]
        return kind | None if self.missing_allowed else kind

    def check(self, value):
        """The value as rows hold it, or `Broken`. Takes what a JSON decoder gives."""
        if value is None:
            if self.missing_allowed:
                return None
            raise Broken("not_null", "a value is needed, and null was given")
        kind = type(value)
        if self.type == "boolean" and kind is not bool:
            raise self._wrong(value)
        if self.type == "integer":
            if kind is float and value.is_integer():
                value = int(value)
            elif kind is not int:
                raise self._wrong(value)
            low, high = self.bounds or (-(2**63), 2**64 - 1)
            if not low <= value <= high:
                raise Broken("range", f"{self.dtype} holds {low} to {high}")
        if self.type == "number":
            if kind is not float and kind is not int:
                raise self._wrong(value)
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
            if not math.isfinite(value):
                raise Broken("finite", "numbers are finite; a missing one is null")
            most = _LARGEST.get(self.dtype, math.inf)
            if not -most <= value <= most:
                raise Broken("range", f"{self.dtype} holds -{most} to {most}")
        if self.type in ("string", "datetime") and kind is not str:
            raise self._wrong(value)
        if self.closed and value not in self.categories:
            shown = ", ".join(map(str, self.categories[:10])) + (", …" if len(self.categories) > 10 else "")
            raise Broken("category", f"one of {shown}")
        return value

    def check_time(self, text):
        """A datetime's text as a `datetime` that fits the column: naive, or aware in UTC."""
        if text is None:
            return None
        try:
            # Before Python 3.11 `fromisoformat` knows no "Z".
            value = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
        except ValueError:
            raise Broken("datetime", "expected an ISO 8601 time such as 2024-05-31T12:00:00") from None
        if value.tzinfo is not None:
            try:
                value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
            except OverflowError:
                raise Broken("range", "the time is out of range") from None
        low, high = _NANOSECONDS
        if self.dtype.startswith("datetime64[ns") and not low <= value <= high:
            raise Broken("range", f"{self.dtype} holds {low.year} to {high.year}")
        return value.replace(tzinfo=datetime.timezone.utc) if "," in self.dtype else value

    def from_text(self, cell):
        """A CSV cell as a JSON decoder would have given it; what does not parse stays text, and `check` refuses it."""
        if cell == "":
            return None
        if self.type == "integer":
            try:
                return int(cell)
            except ValueError:
                pass
        if self.type in ("integer", "number"):
            try:
                value = float(cell)
            except ValueError:
                return cell
            return None if math.isnan(value) else value
        if self.type == "boolean":
            return {"true": True, "1": True, "false": False, "0": False}.get(cell.lower(), cell)
        return cell

    def from_texts(self, cells):
        """`from_text` of many cells, most of them at once."""
        try:
            if self.type == "integer":
                return list(map(int, cells))
            if self.type == "number":
                values = [float(cell) if cell else None for cell in cells]
                # A sum is finite only when all are; what is not finite is judged below.
                if math.isfinite(sum(value for value in values if value is not None)):
                    return values
        except ValueError:
            pass
        if self.type in ("string", "datetime", "object") and "" not in cells:
            return list(cells)
        return list(map(self.from_text, cells))

    def _wrong(self, value):
        given = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
        return Broken("type", f"expected {_NAMES[self.type]}, got {given.get(type(value), type(value).__name__)}")

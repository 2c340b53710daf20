"""The columns of an output: which of the input's, and what `predict` answers.

They are decided before the first row, by the first input's header and the answer's recorded schema, so that every part has the same.
"""

from __future__ import annotations

import dataclasses
import typing

from mlrails_runtime.batch.refused import Refused


@dataclasses.dataclass
class Layout:
    """`names`: the input's columns that are kept, None for all that a record has. `fields`: an answer's keys, None where answers are
    values. `kinds`: the answer's JSON types, one per column. `schema`: the types of an Arrow output."""

    names: typing.Optional[list]
    fields: typing.Optional[list]
    kinds: list
    schema: typing.Any = None

    @property
    def answers(self):
        return ["prediction"] if self.fields is None else self.fields

    def columns_of(self, answers):
        """Each answer as the list of its cells."""
        from mlrails_runtime.batch.text import texts

        if self.fields is None:
            return zip(texts(answers))
        return zip(*(texts(values) for values in self.split(answers)))

    def split(self, answers):
        """One list of values per answer column."""
        if self.fields is None:
            return [answers]
        known = set(self.fields)
        for answer in answers:
            if not isinstance(answer, dict) or not answer.keys() <= known:
                raise Refused(f"predict answered something other than {', '.join(self.fields)}, which is what training recorded")
        return [[answer.get(field) for answer in answers] for field in self.fields]


def of(response, names, keep, flat):
    """`names`: the first input's, None where records have their own. `flat`: whether the output has one header for all rows."""
    items = response.get("items") or {}
    properties = items.get("properties") if flat else None
    fields = list(properties) if properties else None
    kinds = [entry.get("type") for entry in properties.values()] if properties else [items.get("type")]
    if keep is not None:
        missing = [name for name in keep if names is not None and name not in names]
        if missing:
            raise Refused(f"--keep: the input has no column {', '.join(missing)}")
        names = keep
    if names is not None:
        # An answer takes the place of a column of its name.
        names = [name for name in names if name not in (fields or ["prediction"])]
    return Layout(names, fields, kinds)

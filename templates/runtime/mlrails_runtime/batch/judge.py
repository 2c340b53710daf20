"""One chunk to answers: which rows fit the schema, what `predict` says of them, and which it cannot answer."""

from __future__ import annotations

import msgspec

from mlrails_runtime import problem
from mlrails_runtime.batch.chunks import BadRows
from mlrails_runtime.batch.refused import Refused
from mlrails_runtime.service import NotPerRow, plain

# More rows than these of one chunk that `predict` fails on are no bad rows: it is broken.
_MOST_FAILED = 64


def judge(model, chunk):
    """(indices that were answered, None for all; their answers; {index: [error]} of the others)."""
    bad = dict(chunk.bad)
    while True:
        keep = [at for at in range(chunk.count) if at not in bad] if bad else None
        try:
            rows = chunk.rows(model.service.decoder, keep)
            break
        except BadRows as refused:
            bad.update(refused.errors)
    if not rows:
        return [], [], bad
    try:
        return keep, _score(model, rows), bad
    except NotPerRow as error:
        raise Refused(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        failed = {}
        _find(model, rows, 0, len(rows), failed)
        if not failed or len(failed) == len(rows) > 1 or len(failed) > _MOST_FAILED:
            raise Refused(f"predict fails on rows {chunk.start + 1} to {chunk.start + chunk.count}: {_words(error)}") from error
    places = chunk.indices(keep)
    bad.update({places[at]: errors for at, errors in failed.items()})
    left = [row for at, row in enumerate(rows) if at not in failed]
    keep = [place for at, place in enumerate(places) if at not in failed]
    return keep, _score(model, left) if left else [], bad


def _score(model, rows):
    model.check(rows)
    return msgspec.to_builtins(model.score(rows), enc_hook=plain)


def _find(model, rows, first, end, failed):
    """The rows that `predict` fails on, by halves."""
    if len(failed) > _MOST_FAILED:
        return
    try:
        _score(model, rows[first:end])
        return
    except Exception as error:
        if end - first == 1:
            rule = "schema" if isinstance(error, problem.Problem) else "predict"
            failed[first] = [{"column": None, "rule": rule, "message": _words(error)}]
            return
    middle = (first + end) // 2
    _find(model, rows, first, middle, failed)
    _find(model, rows, middle, end, failed)


def _words(error):
    if isinstance(error, problem.Problem):
        return str(error.detail)
    return f"{type(error).__name__}: {error}"[:500]

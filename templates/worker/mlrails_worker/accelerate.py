"""Which fitted estimators serving may answer by their fast path (`mlrails_runtime.accelerate`): proven here, in the replay's process.

Golden rows show which methods the serving half calls, and on what. Each of these calls is varied into 10,000 rows (values mixed between rows,
numbers moved, thresholds hit, values missing, categories never seen) and answered by both; every answer must agree within 1e-9, an
error must be an error in both, and the fast path must be faster. Nothing in here can fail a run: the outcome is a record that says
what is kept, or why not.
"""

import random
import statistics
import time
import warnings

from mlrails_runtime import accelerate

TOLERANCE = 1e-9
ROWS = 10_000
# Rows of each batch that both answer: many alone, as most requests come.
BATCHES = (1, 2, 7, 64, 300)
_MOST_SECONDS = 20


def prove(frozen, replay):
    """`replay()` runs golden rows through the serving half and says whether they are answered as in training. Gives {path: {method: said}}."""
    try:
        return _prove(frozen, replay)
    except Exception as error:
        return {"why": f"{type(error).__name__}: {error}"}


def _prove(frozen, replay):
    calls = _watched(frozen, replay)
    record, undo = {}, []
    for (path, method), (estimator, X) in calls.items():
        plan = None
        try:
            plan = accelerate.compiled(estimator, method)
            said = compare(getattr(estimator, method), plan, X)
        except accelerate.Refused as refused:
            said = {"kept": False, "why": str(refused)}
        except Exception as error:
            said = {"kept": False, "why": f"{type(error).__name__}: {error}"}
        if said["kept"]:
            undo.append(accelerate.replace(estimator, method, plan))
        record.setdefault(path, {})[method] = said
    if undo and not replay():
        for methods in record.values():
            for said in methods.values():
                if said["kept"]:
                    said.update(kept=False, why="golden rows are answered differently")
    for one in undo:
        one()
    return record


def _watched(frozen, replay):
    """{(path, method): (estimator, X)} of what the serving half calls with one argument; the largest X of each."""
    calls, undo = {}, []
    for path, estimator in accelerate.estimators(frozen):
        for method in accelerate.METHODS:
            if not hasattr(estimator, method):
                continue

            def note(X, path=path, method=method, estimator=estimator):
                known = calls.get((path, method))
                if known is None or len(X) > len(known[1]):
                    calls[path, method] = (estimator, X.copy())
                # The estimator itself answers.
                raise accelerate.Unusual

            undo.append(accelerate.replace(estimator, method, note))
    try:
        replay()
    finally:
        for one in undo:
            one()
    return calls


def compare(original, plan, X):
    """What the record says of one method."""
    import numpy

    chance = numpy.random.default_rng(0)
    rows, used, worst, began = 0, 0, 0.0, time.monotonic()
    sizes = _sizes()
    for kind, size in sizes:
        varied = vary(X, size, kind, chance)
        want, got = _answer(original, varied), _answer(plan, varied)
        rows += size
        if isinstance(got, accelerate.Unusual):
            continue  # the estimator answers, so there is nothing to differ
        if isinstance(got, Exception) or isinstance(want, Exception):
            if isinstance(want, Exception):
                return {"kept": False, "why": f"it answers where the estimator raises {type(want).__name__} ({kind})"}
            continue  # an exception of the plan's own falls back as well
        distance = _distance(want, got)
        if not distance <= TOLERANCE:
            return {"kept": False, "why": f"answers differ by {distance:.1e} ({kind})"}
        used += size
        worst = max(worst, distance)
        if time.monotonic() - began > _MOST_SECONDS:
            return {"kept": False, "why": f"comparing {ROWS} rows takes longer than {_MOST_SECONDS} s"}
    if used < rows / 2:
        return {"kept": False, "why": f"of {rows} varied rows it answers {used}"}
    faster = {}
    for count in (1, 100):
        some = vary(X, count, "golden", chance)
        if isinstance(_answer(plan, some), Exception):
            return {"kept": False, "why": "it does not answer golden rows"}
        faster[str(count)] = round(_seconds(original, some) / max(_seconds(plan, some), 1e-9), 1)
    if min(faster.values()) < 1.05:
        return {"kept": False, "why": f"it is {faster['1']} times as fast for 1 row, {faster['100']} for 100"}
    return {"kept": True, "rows": rows, "answered": used, "worst": worst, "faster": faster}


def _sizes():
    """(kind, rows) of each batch, together `ROWS`."""
    kinds = ("golden", "mixed", "moved", "missing", "unseen", "extreme")
    made, left, at = [], ROWS, 0
    while left:
        size = min(left, BATCHES[at % len(BATCHES)])
        made.append((kinds[at % len(kinds)], size))
        left -= size
        at += 1
    return made


def _answer(call, X):
    import numpy

    try:
        with warnings.catch_warnings(), numpy.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return call(X)
    except Exception as error:
        return error


def _distance(want, got):
    """The largest difference, above 1 relative to the value; infinite where kinds or shapes differ."""
    import numpy

    if type(want) is not type(got) or getattr(want, "shape", None) != getattr(got, "shape", None):
        return float("inf")
    if want.dtype.kind not in "fc" or got.dtype.kind not in "fc":
        return 0.0 if want.dtype == got.dtype and bool((want == got).all()) else float("inf")
    if want.dtype != got.dtype:
        return float("inf")
    if not want.size:
        return 0.0
    apart = numpy.abs(want - got) / numpy.maximum(1.0, numpy.abs(want))
    apart[(want == got) | (numpy.isnan(want) & numpy.isnan(got))] = 0.0
    # NaN on one side only compares as no number, and is refused.
    return float(apart.max())


def _seconds(call, X):
    times = []
    for _ in range(7):
        started = time.perf_counter()
        _answer(call, X)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def vary(X, count, kind, chance):
    """`count` rows made of those of `X`, with the same columns and dtypes."""
    import numpy

    if isinstance(X, numpy.ndarray):
        made = X[chance.integers(0, len(X), count)].astype(X.dtype)
        for at in range(X.shape[1] if X.ndim == 2 else 0):
            made[:, at] = _column(X[:, at], made[:, at], kind, chance)
        return made
    if type(X).__name__ != "DataFrame":
        raise accelerate.Refused(f"it is called with a {type(X).__name__}")
    picked = chance.integers(0, len(X), count)
    made = X.iloc[picked].reset_index(drop=True)
    for at, name in enumerate(X.columns):
        column = X.iloc[:, at]
        if str(column.dtype) in ("str", "string"):
            # What pandas from 3 on makes of words.
            words = column.to_numpy(dtype=object)
            made[name] = type(column)(_column(words, words[picked], kind, chance), dtype=column.dtype)
            continue
        if not isinstance(column.dtype, numpy.dtype):
            continue
        made[name] = _column(column.to_numpy(), column.to_numpy()[picked], kind, chance)
    return made


def _column(known, cells, kind, chance):
    import numpy

    if kind == "golden":
        return cells
    count = len(cells)
    cells = known[chance.integers(0, len(known), count)]
    if kind == "mixed":
        return cells
    some = chance.random(count) < 0.2
    if known.dtype.kind in "iu":
        if kind in ("moved", "extreme"):
            spread = max(1, int(numpy.ptp(known) * (2 if kind == "extreme" else 0.2)))
            moved = cells.astype(object) + chance.integers(-spread, spread + 1, count).astype(object)
            limits = numpy.iinfo(known.dtype)
            return numpy.array([min(max(int(value), limits.min), limits.max) for value in moved], dtype=known.dtype)
    elif known.dtype.kind == "f":
        finite = known[numpy.isfinite(known)]
        spread = float(finite.std()) if len(finite) else 1.0
        if kind == "moved":
            cells = cells + chance.normal(size=count) * (spread or 1.0) * 0.3
        elif kind == "extreme":
            cells = cells * chance.choice([0.0, -1.0, 10.0, 1e6, 1e-6], count)
        elif kind == "missing":
            cells = numpy.where(some, numpy.nan, cells)
        return cells.astype(known.dtype)
    elif known.dtype == object:
        cells = cells.copy()
        if kind == "missing":
            cells[some] = random.Random(count).choice([None, numpy.nan])
        elif kind == "unseen":
            texts = any(isinstance(value, str) for value in known)
            cells[some] = "never seen" if texts else -98765
    return cells

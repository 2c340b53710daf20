"""Replays golden rows through the serving half in a process that has seen no training.

Loads the saved values, compares them with those that were trained, then runs the rows through the recomputed nodes together, one by one
and shuffled. What differs from the training pass is told by the first node that differs.
"""

import difflib
import importlib.metadata
import json
import os
import random
import sys
import sysconfig

from mlrails_runtime import values
from mlrails_worker import accelerate, answers, equal, hidden, nodes, recording, spool, table
from mlrails_worker.failure import Refused


def run(plan, allow, files, folder, recorded=None, everything=False):
    """`allow`: modules whose distributions may be imported. `files`: the frozen values in `folder`, by name. `recorded`: what run.json
    says of the request and of golden rows, when this is no part of a training run. `everything`: nothing is hidden."""
    allowed = hidden.all_names() if everything else hidden.install(allow)
    try:
        frozen = {name: values.load(os.path.join(folder, entry["file"]), entry["format"]) for name, entry in files.items()}
        if recorded is None:
            compare(plan, frozen)
            with open(os.path.join(plan["scratch"], "golden.json"), encoding="utf-8") as file:
                document = json.load(file)
            outcome = prove(plan, frozen, document)
        else:
            outcome = again(plan, frozen, recorded)
    except BaseException as error:
        error.hidden = hidden.tried()
        raise
    return {**outcome, "hidden": hidden.tried(), "loaded": loaded(), "versions": versions(allowed)}


def loaded():
    """Modules of distributions that serving loaded from source, by top-level package: what is worth compiling beforehand. A line a
    package, since they stand in run.json: `pandas` to `core core.frame ...`, the package itself as an empty name. The standard library
    has none here: which of its modules load differs between machines."""
    found = {}
    library = sysconfig.get_path("stdlib") + os.sep
    for name, module in sorted(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        top, _, rest = name.partition(".")
        if not isinstance(origin, str) or not origin.endswith(".py") or top.startswith("mlrails_"):
            continue
        # site-packages lies inside of the library's folder.
        if origin.startswith(library) and not origin[len(library) :].split(os.sep)[0].endswith("-packages"):
            continue
        found.setdefault(top, []).append(rest)
    return {top: " ".join(rest for rest in names if rest) for top, names in found.items()}


def compare(plan, frozen):
    for number in plan["frozen"]:
        name = plan["nodes"][number]["name"]
        found = equal.difference(spool.get(plan, number), frozen[name])
        if found:
            raise Refused("not_reloaded", f"`{name}` is not the same once it is saved and loaded: {found}", node=name)


def prove(plan, frozen, document):
    """The request's schema, the answer's, and golden rows as run.json holds them."""
    rows, serving = document["rows"], plan["serving"]
    redact = set(plan["golden"].get("redact") or ())
    columns = document.get("columns") or []
    _known(redact, [column["name"] for column in columns])
    if rows is None:
        kept = _without(columns, document.get("read_by_frozen", ()))
        return {"columns": _published(kept, redact), "rows": [], "predictions": [], "response": {}}
    # All columns at first, watched: which of them the serving half reads decides what a request must bring.
    whole = plan["golden"].get("whole")
    reads = recording.Reads()
    together = Pass(plan, frozen, columns, None if whole else reads).answers(rows)
    read = {column["name"] for column in columns} if whole else reads.columns
    if reads.whole or serving.get("row"):
        only_frozen = set(document.get("read_by_frozen", ())) - reads.columns
        read = read | {column["name"] for column in columns if column["name"] not in only_frozen}
    columns = [column for column in columns if column["name"] in read]
    expected = Expected(document, together)
    expected.check(serving, together, range(len(rows)), "together")
    passes = Pass(plan, frozen, columns, None)
    _replay(passes, expected, rows, document["batches"])
    records = [{column["name"]: row.get(column["name"]) for column in columns if column["name"] in row} for row in rows]
    predictions = expected.predictions
    hide = [column for column in columns if column["name"] in redact]
    if hide:
        blank = {column["name"]: table.withhold(column)["example"] for column in hide}
        records = [{**record, **{name: cell for name, cell in blank.items() if name in record}} for record in records]
        predictions = passes.answers(records)["predictions"]
    response = answers.schema(predictions)
    proof = {"columns": _published(columns, redact), "rows": records, "predictions": predictions, "response": response}
    if plan.get("accelerate"):
        proof["accelerate"] = accelerate.prove(frozen, lambda: _still(passes, expected, rows, document["batches"]))
    return proof


def _still(passes, expected, rows, batches):
    try:
        _replay(passes, expected, rows, batches)
    except Refused:
        return False
    return True


def again(plan, frozen, recorded):
    """Recorded golden rows through the serving half as it is now."""
    columns, golden = recorded["columns"], recorded["golden"]
    rows = golden.get("rows") or []
    document = {"predictions": golden.get("predictions"), "expected": {}}
    passes = Pass(plan, frozen, columns, None)
    expected = Expected(document, None)
    if rows:
        group = plan["golden"].get("group")
        batches = [[at] for at in range(len(rows))]
        if group and all(group in row for row in rows):
            members = {}
            for at, row in enumerate(rows):
                members.setdefault(row[group], []).append(at)
            batches = list(members.values())
        _replay(passes, expected, rows, batches)
    return {"rows": len(rows)}


def _replay(passes, expected, rows, batches):
    everything = list(range(len(rows)))
    shuffled = list(everything)
    random.Random(0).shuffle(shuffled)
    one_by_one = "one by one" if all(len(batch) == 1 for batch in batches) else "group by group"
    for how, several in (("together", [everything]), (one_by_one, batches), ("shuffled", [shuffled])):
        for batch in several:
            try:
                got = passes.answers([rows[at] for at in batch])
            except Refused:
                raise
            except Exception as error:
                error.during = how
                raise
            expected.check(passes.serving, got, batch, how)


class Expected:
    """What training gave for the golden rows; `first` stands in where there was no training pass of `predict`."""

    def __init__(self, document, first):
        self.predictions = document.get("predictions")
        if self.predictions is None:
            self.predictions = first["predictions"] if first else []
        self.nodes = document.get("expected") or {}

    def check(self, serving, got, batch, how):
        batch = list(batch)
        wanted = [self.predictions[at] for at in batch]
        wrong = next((at for at, (one, other) in enumerate(zip(wanted, got["predictions"])) if not answers.same(one, other)), None)
        if wrong is None:
            return
        for step in serving["steps"]:
            known = self.nodes.get(step["name"])
            value = got["values"][step["name"]]
            if known is None:
                continue
            if "rows" in known:
                now = answers.by_row(value, len(batch))
                if now is None:
                    self._differs(serving, step, how, batch[wrong], "one value per row", answers.whole(value))
                for at, row in enumerate(batch):
                    if not answers.same(known["rows"][row], now[at]):
                        self._differs(serving, step, how, row, known["rows"][row], now[at])
            elif known["whole"] is not None and not answers.same(known["whole"], answers.whole(value)):
                self._differs(serving, step, how, None, known["whole"], answers.whole(value))
        self._differs(serving, serving["steps"][-1], how, batch[wrong], wanted[wrong], got["predictions"][wrong])

    def _differs(self, serving, step, how, row, expected, got):
        name = step["name"]
        message = f"`{name}` is not what it was in training when golden rows are replayed {how}"
        expected, got = _apart(expected, got)
        inputs = [parameter for parameter, _ in step["inputs"]]
        raise Refused("skew", message, node=name, how=how, row=row, expected=expected, got=got, inputs=inputs)


def _apart(expected, got):
    """Of two records, only the fields that differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        names = [name for name in expected if name not in got or not answers.same(expected[name], got[name])]
        if names:
            return {name: expected[name] for name in names[:3]}, {name: got.get(name) for name in names[:3]}
    return expected, got


class Pass:
    """One way through the serving half."""

    def __init__(self, plan, frozen, columns, reads):
        self.plan, self.serving = plan, plan["serving"]
        self.frozen, self.columns, self.reads = frozen, columns, reads

    def answers(self, rows):
        """{"values": by node, "predictions": per row} for one batch."""
        serving = self.serving
        request = table.build(serving["request"], serving.get("row"), self.columns, rows)
        if self.reads is not None:
            request = recording.watch(request, self.reads)
        got = {}
        for step in serving["steps"]:
            arguments = {}
            for parameter, given in step["inputs"]:
                if "request" in given:
                    arguments[parameter] = request
                elif "frozen" in given:
                    arguments[parameter] = self.frozen[given["frozen"]]
                else:
                    arguments[parameter] = got[given["node"]]
            settings = {name: nodes.reference(value, self.plan) for name, value in step["settings"].items()}
            got[step["name"]] = nodes.call(nodes.resolve(step), {**arguments, **settings})
        return {"values": got, "predictions": answers.per_row(got[serving["steps"][-1]["name"]], len(rows))}


def _known(redact, names):
    """A misspelt name would publish what was to be withheld."""
    for name in sorted(redact.difference(names)):
        near = difflib.get_close_matches(name, names, 1)
        hint = f": did you mean `{near[0]}`?" if near else ""
        raise Refused("unknown_redacted", f"[golden] redact names `{name}`, which no column of the request is{hint}")


def _without(columns, names):
    return [column for column in columns if column["name"] not in names]


def _published(columns, redact):
    return [table.withhold(column) if column["name"] in redact else column for column in columns]


def versions(allowed):
    """Name to version of the distributions that could be imported."""
    found = {}
    for name in allowed:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {"python": ".".join(map(str, sys.version_info[:3])), "distributions": found}

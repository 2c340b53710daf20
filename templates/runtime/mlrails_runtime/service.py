"""The served project: what `service.json` says, and the model that `app.py` and the artifacts make.

`Service` is cheap and read by every process; `Model` is what only scoring processes load. Whatever comes from the project is
used through these two.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import math
import sys

from mlrails_runtime import SCHEMA, accelerate, frame, problem, values
from mlrails_runtime.columns import Column
from mlrails_runtime.decode import ABSENT, Decoder


class Unusable(Exception):
    """The folder, an artifact or the golden row is not what it must be; says which and why."""


class NotPerRow(Exception):
    """`predict` answered something other than one item per row."""


class Service:
    """`service.json`, and beside it `openapi.json` and `artifacts/run.json`."""

    def __init__(self, folder):
        self.folder = folder
        document = self._json(folder / "service.json")
        if document.get("schema") != SCHEMA:
            raise Unusable(f"{folder / 'service.json'}: schema {document.get('schema')!r}, and this runtime reads {SCHEMA}")
        self.document = document
        self.name = document["name"]
        self.version = document.get("version")
        self.request = document["request"]
        self.response = document.get("response") or {}
        self.example = document.get("example")
        self.artifacts = (folder / document.get("artifacts", "artifacts")).resolve()
        self.columns = [Column.from_schema(entry) for entry in self.request["columns"]]
        self.is_table = self.request.get("kind", "table") == "table"
        self.decoder = Decoder(self.columns, absent=None if self.is_table else ABSENT)
        # What reads and writes Arrow and Parquet, where the project brings what that takes.
        self.tables = None
        self.max_body = 16 << 20

    def openapi(self):
        """The bytes of openapi.json, made when the app was rendered; None when there is none."""
        path = self.folder / "openapi.json"
        return path.read_bytes() if path.exists() else None

    def golden(self):
        """The request records that training kept, and the answers of its pass: ([], []) when there are none."""
        path = self.artifacts / "run.json"
        if not path.exists():
            return [], []
        golden = self._json(path).get("golden") or {}
        return golden.get("rows") or [], golden.get("predictions") or []

    def metadata(self):
        """What anyone may know: no golden row, no path of this machine."""
        known = ("name", "version", "request", "response", "example", "run", "labels", "versions")
        return {key: self.document[key] for key in known if self.document.get(key) is not None}

    def _json(self, path):
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise Unusable(f"{path} is missing") from None
        except ValueError as error:
            raise Unusable(f"{path} is not JSON: {error}") from None


class Model:
    """The loaded pipeline. `score(rows)` is called by one thread at a time."""

    def __init__(self, service, freeze=True, fast=True):
        """`freeze`: whether this process exists for the model; in a library the collector is somebody else's. `fast`: whether fast paths
        that training proved are used."""
        self.service = service
        collected = freeze and gc.isenabled()
        if collected:
            # What imports and unpickling make is kept: to look through it again and again while it grows finds nothing.
            gc.disable()
        try:
            self._load(service, fast)
        finally:
            if collected:
                gc.enable()
        if freeze:
            # What was just loaded lives as long as the process: the collector need not walk it on each pass.
            gc.collect()
            gc.freeze()

    def _load(self, service, fast):
        self.app = _import_app(service.folder / "app.py")
        self.frozen = {entry["name"]: _load(service.artifacts, entry) for entry in service.document["frozen"]}
        if service.is_table:
            self.build = frame.table(service.columns)
        else:
            self.build = frame.records(service.columns, service.document.get("row"))
        self.accelerated = fast and self._accelerate(service.document.get("accelerate"))

    def _accelerate(self, record):
        """Whether fast paths are used: golden rows decide here too, with the versions that are installed here."""
        if not record or not self.service.golden()[0]:
            return False
        try:
            undo = accelerate.install(self.frozen, record)
        except Exception:
            return False
        if undo is None:
            return False
        try:
            if not replay(self) and not replay(self, one_by_one=True, most=16):
                return True
        except Exception:
            pass  # what is wrong is told by the replay without them
        undo()
        return False

    def answer(self, rows):
        """Whatever `predict` returns for these rows."""
        return self.app.pipeline(self.frozen, self.build(rows))

    def score(self, rows):
        """One answer per row, as JSON-ready values; `NotPerRow` when `predict` does not answer that way."""
        return per_row(self.answer(rows), len(rows))

    def trial(self):
        """Rows to try and to time the pipeline with: golden ones, else the example; [] when there is neither."""
        rows, _ = self.service.golden()
        if not rows:
            rows = [self.service.example] if self.service.example else []
        try:
            return self.service.decoder.records(rows[:64])
        except problem.Problem:
            return []

    def check(self, rows):
        """What only the project's own record classes know about rows; raises the 422."""
        if not self.service.is_table and self.service.document.get("row"):
            frame.check_records(self.build, rows)


def per_row(answer, count):
    """A list with one item per row, from a list, an array, a Series or a DataFrame."""
    if hasattr(answer, "to_dict") and hasattr(answer, "columns"):
        answer = answer.to_dict("records")
    elif hasattr(answer, "tolist"):
        answer = answer.tolist()
    elif isinstance(answer, tuple):
        answer = list(answer)
    if not isinstance(answer, list) or len(answer) != count:
        shown = f"{len(answer)} answers" if isinstance(answer, list) else f"a {type(answer).__name__}"
        raise NotPerRow(f"predict returned {shown} for {count} rows")
    return answer


def plain(value):
    """For msgspec: what JSON has no type for. NaN becomes null there by itself."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return value.to_dict("records")
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise NotImplementedError(f"predict returned a {type(value).__name__}, which has no JSON form")


def replay(model, one_by_one=False, most=None):
    """Replays the golden rows, `most` of them; differences as [{row, expected, got}]. The rows go through the decoder like any request's."""
    rows, expected = model.service.golden()
    rows, expected = rows[:most], expected[:most]
    if not rows:
        return []
    try:
        decoded = model.service.decoder.records(rows)
    except problem.Problem as refused:
        raise Unusable(f"a golden row does not fit the schema: {refused.errors[:3]}") from None
    if one_by_one:
        answers = [item for row in decoded for item in model.score([row])]
    else:
        answers = model.score(decoded)
    answers = json.loads(_encode(answers))
    differences = []
    for at, (want, got) in enumerate(zip(expected, answers)):
        if not same(want, got):
            differences.append({"row": at, "expected": want, "got": got})
    return differences


def unlike(model):
    """Golden rows without answers, one by one against together; differences as `replay` gives them."""
    rows, _ = model.service.golden()
    decoded = model.service.decoder.records(rows)
    together = json.loads(_encode(model.score(decoded)))
    alone = json.loads(_encode([item for row in decoded for item in model.score([row])]))
    pairs = enumerate(zip(together, alone))
    return [{"row": at, "expected": want, "got": got} for at, (want, got) in pairs if not same(want, got)]


def same(want, got, tolerance=1e-9):
    """Equal, numbers within `tolerance` (relative above 1, absolute below)."""
    if isinstance(want, bool) or isinstance(got, bool):
        return want is got
    if isinstance(want, (int, float)) and isinstance(got, (int, float)):
        return math.isclose(want, got, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(want, dict) and isinstance(got, dict):
        return want.keys() == got.keys() and all(same(want[key], got[key], tolerance) for key in want)
    if isinstance(want, list) and isinstance(got, list):
        return len(want) == len(got) and all(same(a, b, tolerance) for a, b in zip(want, got))
    return want == got


def agree(one, other):
    """Whether two lists of answers are the same on the wire."""
    return same(json.loads(_encode(one)), json.loads(_encode(other)))


def _encode(answers):
    import msgspec

    return msgspec.json.encode(answers, enc_hook=plain)


def _import_app(path):
    """By path, under a name of its own: a project may itself be called `app`."""
    spec = importlib.util.spec_from_file_location("mlrails_app", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mlrails_app"] = module
    spec.loader.exec_module(module)
    return module


def _load(artifacts, entry):
    """One frozen value, after its hash was compared: a half-copied model must not answer."""
    path = artifacts / entry["file"]
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise Unusable(f"the trained value {entry['name']!r} cannot be read: {error}") from None
    if entry.get("sha256") and digest.hexdigest() != entry["sha256"]:
        raise Unusable(f"{path} is not the trained value {entry['name']!r} that was recorded: its sha256 differs")
    return values.load(path, entry["format"])

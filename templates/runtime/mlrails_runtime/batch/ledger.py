"""Which parts of a job are done: a note beside each, so that a job that was killed goes on where it was.

A part is a range of rows of one input file, the same whoever makes it. Its note is written after it; what has no note is made again.
Notes lie under the job's fingerprint: a changed input, model or option is another job and finds none of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pathlib

import mlrails_runtime


def fingerprint(service, inputs, options):
    """16 hex digits over whatever decides the output's bytes."""
    digest = hashlib.sha256()
    known = [mlrails_runtime.SCHEMA, service.document, options, [[place.text, place.identity()] for place in inputs]]
    digest.update(json.dumps(known, sort_keys=True, default=str).encode())
    folders = [pathlib.Path(mlrails_runtime.__file__).parent, service.folder / "app.py"]
    spec = importlib.util.find_spec(service.document.get("module") or "") if service.document.get("module") else None
    if spec is not None:
        folders += map(pathlib.Path, spec.submodule_search_locations or [spec.origin])
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for path in files:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


class Ledger:
    """`folder`: of the notes; `parts`, `rejected`: where the parts and the rejected rows of each go."""

    def __init__(self, folder, parts, rejected, suffix):
        self.folder, self.parts, self._rejected, self._suffix = folder, parts, rejected, suffix
        for place in {one.text: one for one in (folder, parts, rejected) if one is not None}.values():
            place.make_folder()
        self._notes = {child.name for child in folder.children()}

    def part(self, file, at):
        return self.parts.child(f"part-{file:05}-{at:05}{self._suffix}")

    def rejected(self, file, at):
        return self._rejected and self._rejected.child(f"rejected-{file:05}-{at:05}.jsonl")

    def note(self, file, at):
        """What was noted of a part that is there as it was noted; None where it has to be made."""
        if self._name(file, at) not in self._notes:
            return None
        with self.folder.child(self._name(file, at)).open() as noted:
            note = json.loads(noted.read())
        if note["size"] is not None and not _has(self.part(file, at), note["size"]):
            return None
        if note["rejected_size"] is not None and self._rejected is not None and not _has(self.rejected(file, at), note["rejected_size"]):
            return None
        return note

    def write(self, file, at, note):
        with self.folder.child(self._name(file, at)).appending() as out:
            out.write(json.dumps(note).encode())

    def forget(self, parts):
        """After a job whose input may be another one next time."""
        for file, at in parts:
            self.folder.child(self._name(file, at)).remove()

    def _name(self, file, at):
        return f"{file:05}-{at:05}.json"


def _has(place, size):
    return place.exists() and place.size() == size

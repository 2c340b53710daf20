"""The pipeline as one archive: the runtime, the app, the project's package and what training learned, for machines that have none of them.

Takes a service; writes a zip with `lib/` for PYTHONPATH and, unless the app lies in a package (a wheel's does), `app/`, where the pipeline is
started. The same files give the same bytes. Distributions are not in it: workers have them, and they are compared.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
import zipfile

from mlrails_runtime.batch.refused import Refused


class Archive:
    """`app`: the app's folder inside. `maker`: the module to start. `sha256`, `size`: set when it was written."""

    def __init__(self, service):
        self._files = {}
        app, names = service.folder.resolve(), [__name__]
        if service.document.get("module"):
            names.append(service.document["module"])
        self.app = "app"
        for name in dict.fromkeys(name.partition(".")[0] for name in names):
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise Refused(f"the project's package {name} is not here")
            if spec.submodule_search_locations is None:
                self._files[f"lib/{name}.py"] = pathlib.Path(spec.origin)
            for folder in map(pathlib.Path, spec.submodule_search_locations or ()):
                folder = folder.resolve()
                if folder.is_relative_to(app) and folder != app:
                    # An image's: it comes with the app.
                    continue
                self._tree(folder, f"lib/{name}")
                if app.is_relative_to(folder):
                    self.app = f"lib/{name}/{app.relative_to(folder).as_posix()}"
        self._app(service, app)
        # The package of this module, whatever it is called here.
        self.maker = f"{__name__.rpartition('.')[0]}.maker"

    def _tree(self, folder, inside):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                self._files[f"{inside}/{path.relative_to(folder).as_posix()}"] = path

    def _app(self, service, app):
        artifacts = service.artifacts
        if not artifacts.is_relative_to(app):
            raise Refused(f"the trained values are in {artifacts}, outside of the app's folder: a cluster takes what an image or a wheel holds")
        if self.app == "app":
            # Whatever an image has beside it: `[image] include` is there to be opened by its path.
            self._tree(app, self.app)

    def write(self, place):
        digest = _Hashed()
        with place.writing() as out:
            digest.file = out
            with zipfile.ZipFile(digest, "w") as packed:
                for name in sorted(self._files):
                    # 1980 is when zip's time begins; what is in a model does not get smaller.
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = 0o644 << 16
                    with open(self._files[name], "rb") as source, packed.open(entry, "w", force_zip64=True) as inner:
                        while piece := source.read(1 << 20):
                            inner.write(piece)
        self.sha256, self.size = digest.hash.hexdigest(), digest.size

    def facts(self, place):
        """What a worker needs to find and to check it."""
        return {"place": place.text, "shown": str(place), "sha256": self.sha256, "app": self.app, "maker": self.maker}


class _Hashed:
    """A file that is written once, from its beginning to its end."""

    def __init__(self):
        self.file, self.hash, self.size = None, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self):
        self.file.flush()

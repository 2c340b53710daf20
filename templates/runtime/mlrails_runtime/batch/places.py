"""Where rows come from and answers go: local files, and whatever fsspec knows when the project brings it.

Takes a path or a URL as people write it. Gives `Place`s that open, list and replace: what is written appears under its name only
when it is whole. Knows nothing of rows.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import importlib
import importlib.util
import os
import re
import shutil

from mlrails_runtime.batch.refused import Refused

_URL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_HIDDEN = ("_", ".")
_BUFFER = 1 << 20


def place(text):
    """The place that a word of the command line names."""
    found = _URL.match(text)
    if found is None:
        return Local(text)
    if found[1].lower() == "file":
        return Local(text[len("file://") :])
    return Remote.at(text)


def shown(text):
    """A URL as it may be printed: no password, no signature of a query."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "***@", text)
    return re.sub(r"\?.*$", "?***", text) if _URL.match(text) else text


class Place:
    """One file or folder. Its last part is `name`; `str()` of it is what people are told."""

    # What people called it, where this process has to know it by another name.
    told = None

    def __str__(self):
        return self.told or shown(self.text)

    @property
    def name(self):
        return self.text.rstrip("/").rsplit("/", 1)[-1]

    def read(self):
        """The file's bytes, unpacked when its name ends in .gz."""
        file = self.open()
        return gzip.GzipFile(fileobj=file) if self.text.endswith(".gz") else file

    @contextlib.contextmanager
    def writing(self):
        """A binary file that takes this name when the block ends well. Packed when the name ends in .gz, the same bytes each time."""
        with self._replacing() as file:
            if not self.text.endswith(".gz"):
                yield file
                return
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed

    @contextlib.contextmanager
    def appending(self):
        """The same for bytes that are packed already."""
        with self._replacing() as file:
            yield file

    def matches(self):
        """What is named: the files of a folder or of a pattern, sorted, else this one."""
        if self.is_folder():
            found = [child for child in self.children() if not child.name.startswith(_HIDDEN)]
        elif glob.has_magic(self.text) and not self.exists():
            found = self._glob()
        else:
            return [self]
        if not found:
            raise Refused(f"{self}: there is no file there")
        return sorted(found, key=lambda one: one.text)


class Local(Place):
    def __init__(self, path):
        self.text = str(path)

    def absolute(self):
        """How another process of this file system finds it."""
        return os.path.abspath(self.text)

    def child(self, name):
        return Local(os.path.join(self.text, name))

    def open(self):
        return open(self.text, "rb", buffering=_BUFFER)

    def identity(self):
        """What changes when the file does."""
        facts = os.stat(self.text)
        return [facts.st_size, facts.st_mtime_ns]

    def size(self):
        return os.stat(self.text).st_size

    def exists(self):
        return os.path.exists(self.text)

    def is_folder(self):
        return os.path.isdir(self.text)

    def children(self):
        return [Local(entry.path) for entry in os.scandir(self.text) if entry.is_file()] if self.is_folder() else []

    def remove(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.text)

    def remove_all(self):
        shutil.rmtree(self.text, ignore_errors=True)

    def make_folder(self):
        os.makedirs(self.text, exist_ok=True)

    def _glob(self):
        return [Local(path) for path in glob.glob(self.text, recursive=True) if os.path.isfile(path)]

    @contextlib.contextmanager
    def _replacing(self):
        # Two processes that write one file write the same bytes, each under a name of its own; in containers all have the same number.
        temporary = f"{self.text}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        try:
            with open(temporary, "wb", buffering=_BUFFER) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.text)
        finally:
            # Twice: SIGTERM may come during the first.
            try:
                Local(temporary).remove()
            finally:
                Local(temporary).remove()


class Remote(Place):
    """A file of a file system of fsspec's. Object stores show an object when it was closed, whole."""

    def __init__(self, system, path, text):
        self._system, self._path, self.text = system, path, text

    @classmethod
    def at(cls, text):
        if importlib.util.find_spec("fsspec") is None:
            raise Refused(
                f"{shown(text)}: URLs need fsspec, and what it needs for this one (s3fs, gcsfs, adlfs), among the project's dependencies"
                ' and in `[dependencies] keep`'
            )
        fsspec = importlib.import_module("fsspec")
        try:
            system, path = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError) as error:
            raise Refused(f"{shown(text)}: {error}") from None
        return cls(system, path, text)

    def absolute(self):
        return self.text

    def child(self, name):
        return Remote(self._system, f"{self._path.rstrip('/')}/{name}", f"{self.text.rstrip('/')}/{name}")

    def open(self):
        return self._system.open(self._path, "rb")

    def identity(self):
        return [self._system.size(self._path), str(self._system.ukey(self._path))]

    def size(self):
        return self._system.size(self._path) or 0

    def exists(self):
        return self._system.exists(self._path)

    def is_folder(self):
        return self.text.endswith("/") or self._system.isdir(self._path)

    def children(self):
        if not self._system.exists(self._path):
            return []
        # Listings are cached, and other machines write too.
        self._system.invalidate_cache()
        found = self._system.ls(self._path, detail=True)
        return [self.child(entry["name"].rstrip("/").rsplit("/", 1)[-1]) for entry in found if entry["type"] == "file"]

    def remove(self):
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path)

    def remove_all(self):
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._path, recursive=True)

    def make_folder(self):
        self._system.makedirs(self._path, exist_ok=True)

    def _glob(self):
        return [Remote(self._system, path, self._system.unstrip_protocol(path)) for path in self._system.glob(self._path)]

    @contextlib.contextmanager
    def _replacing(self):
        file = self._system.open(self._path, "wb")
        try:
            yield file
        except BaseException:
            # Closing would make what there is the object.
            with contextlib.suppress(Exception):
                file.discard()
            # Nor may it be closed by whoever collects it.
            with contextlib.suppress(AttributeError):
                file.closed = True
            raise
        file.close()

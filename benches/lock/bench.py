"""`mlrails lock` against `uv lock` on real projects' requirements, over an index on loopback that replays the real one.

Each side has caches of its own. Arguments name the sets (trio jupyter airflow torch churn); none means all. Needs uv (from tests/store),
and the machine's index for the recording, which is made once.
"""

import contextlib
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK, Report, Side, machine, run, version
from sets import SETS, pyproject

UV = ROOT / "tests/store/venv-uv/bin/uv"
FOLDER = WORK / "lock"
RECORDING = WORK / "recording"
ADDED = ["flask"]


@contextlib.contextmanager
def index(mode, delay=0.0):
    """The URL of an index that records or replays."""
    server = pathlib.Path(__file__).with_name("replay.py")
    process = subprocess.Popen(
        [sys.executable, server, mode, RECORDING, "--delay", str(delay)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/simple/"
    finally:
        process.kill()
        process.wait()


def forget(*paths):
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class Locker:
    """One side: its project's folder, its cache, its lock, and its command."""

    def __init__(self, name, lock, command):
        self.name, self.command = name, command
        self.folder = FOLDER / name
        self.cache = FOLDER / f"cache-{name}"
        self.lock = self.folder / lock
        self.saved = FOLDER / f"saved-{lock}"

    def project(self, text):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pyproject.toml").write_text(text)

    def side(self, url, before=None, *flags):
        env = {"MLRAILS_CACHE_DIR": str(self.cache), "UV_CACHE_DIR": str(self.cache), "UV_DEFAULT_INDEX": url, "UV_PYTHON_DOWNLOADS": "never"}
        return Side(self.name, [*self.command, *flags], before, env, self.folder)


def cases(name, lockers, url, report, label):
    """Cold, warm, offline, one more dependency, nothing to do: each prepared alike on both sides."""

    def pair(case, before, *flags):
        report.pair(f"{name}, {label}: {case}", *(locker.side(url, before and (lambda l=locker: before(l)), *flags) for locker in lockers))

    plain, more = pyproject(name, ROOT), pyproject(name, ROOT, ADDED)
    for locker in lockers:
        locker.project(plain)
    pair("nothing cached", lambda locker: forget(locker.cache, locker.lock))
    pair("everything cached, no lock", lambda locker: forget(locker.lock))
    pair("everything cached, offline", lambda locker: forget(locker.lock), "--offline")
    pair("the lock still holds", None)
    for locker in lockers:
        shutil.copy(locker.lock, locker.saved)
        locker.project(more)
        run(locker.side(url))  # what the added one needs is cached too
    pair("one dependency added", lambda locker: shutil.copy(locker.saved, locker.lock))


def main():
    names = sys.argv[1:] or list(SETS)
    shutil.rmtree(FOLDER, ignore_errors=True)
    lockers = (Locker("mlrails", "pylock.toml", [MLRAILS, "lock"]), Locker("uv", "uv.lock", [UV, "lock"]))
    print(machine())
    print(version(UV, "--version"))
    with index("record") as url:
        for name in names:
            for extra in [], ADDED:
                for locker in lockers:
                    forget(locker.folder, locker.cache)
                    locker.project(pyproject(name, ROOT, extra))
                    run(locker.side(url))
    report = Report("Lock")
    for delay in 0.0, 0.02:
        with index("replay", delay) as url:
            for name in names:
                for locker in lockers:
                    forget(locker.folder, locker.cache)
                cases(name, lockers, url, report, f"{delay * 1000:.0f} ms away")
    report.keep()


if __name__ == "__main__":
    main()

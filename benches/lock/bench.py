"""`mlrails lock` against `uv lock` on fixtures/churn's requirements: nothing cached, everything cached, and a lock that still holds.

Both ask the machine's own index over the network and end in a lock file. Each side has an empty cache of its own where the case
says so. Needs uv (from tests/store).
"""

import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK, Report, Side, machine, version

UV = ROOT / "tests/store/venv-uv/bin/uv"
FOLDER = WORK / "lock"


def project(name):
    """Only pyproject.toml: without the pipeline, both sides lock the same requirements and nothing else."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "fixtures/churn/pyproject.toml", folder / "pyproject.toml")
    return folder


def forget(*paths):
    def act():
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    return act


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    ours, theirs = project("mlrails"), project("uv")
    our_cache, their_cache = FOLDER / "cache-mlrails", FOLDER / "cache-uv"
    our_lock, their_lock = ours / "pylock.toml", theirs / "uv.lock"

    def pair(our_before, their_before):
        return (
            Side("mlrails", [MLRAILS, "lock", "--project", ours], our_before, {"MLRAILS_CACHE_DIR": str(our_cache)}),
            Side("uv", [UV, "lock", "--project", theirs], their_before, {"UV_CACHE_DIR": str(their_cache)}),
        )

    print(machine())
    print(version(UV, "--version"))
    report = Report("Lock")
    report.pair("nothing cached", *pair(forget(our_cache, our_lock), forget(their_cache, their_lock)))
    report.pair("everything cached, no lock", *pair(forget(our_lock), forget(their_lock)))
    report.pair("the lock still holds", *pair(None, None))
    report.keep()


if __name__ == "__main__":
    main()

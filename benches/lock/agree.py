"""Whether `mlrails lock` and `uv lock` choose the same versions for real projects, and whether others accept our locks.

Both look at the same index as it was at one moment. Each lock is then proven (`--check --prove`), and given to pip and to uv as a dry run.
Run by hand: it needs the machine's index. Arguments: a moment (2026-10-01), then names of sets (trio jupyter airflow torch churn).
MLRAILS names another binary than the release build.
"""

import os
import pathlib
import subprocess
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK
from sets import SETS, pyproject

BINARY = os.environ.get("MLRAILS", str(MLRAILS))
STORE = ROOT / "tests/store"
UV = STORE / "venv-uv/bin/uv"
PYTHON = STORE / "venv-pip/bin/python"
FOLDER = WORK / "agree"


def run(what, command, folder):
    """Whether a command succeeds; what it says where it does not."""
    env = {**os.environ, "MLRAILS_CACHE_DIR": str(FOLDER / "cache"), "UV_CACHE_DIR": str(FOLDER / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never"}
    env.pop("PIP_FIND_LINKS", None)
    done = subprocess.run([str(word) for word in command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"  {what}: REFUSED\n    " + (done.stdout + done.stderr).strip()[-2500:].replace("\n", "\n    "))
    return done


def versions(packages, project):
    found = {}
    for package in packages:
        if package["name"] != project:
            found.setdefault(package["name"], set()).add(package.get("version"))
    return found


def agree(name, moment):
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in "pylock.toml", "uv.lock":
        (folder / old).unlink(missing_ok=True)
    text = pyproject(name, ROOT)
    (folder / "pyproject.toml").write_text(text)
    project = tomllib.loads(text)["project"]["name"]
    newer = ["--exclude-newer", moment]
    ours = run("mlrails lock", [BINARY, "lock", *newer], folder)
    theirs = run("uv lock", [UV, "lock", *newer], folder)
    if ours.returncode or theirs.returncode:
        return False
    ours = versions(tomllib.loads((folder / "pylock.toml").read_text())["packages"], project)
    theirs = versions(tomllib.loads((folder / "uv.lock").read_text())["package"], project)
    different = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    print(f"{name}: {len(ours)} packages, {len(different)} different from uv's")
    for package in different:
        print(f"  {package}: {sorted(ours.get(package, []))} and not {sorted(theirs.get(package, []))}")
    proof = run("prove", [BINARY, "lock", *newer, "--check", "--prove"], folder)
    print("  " + proof.stderr.strip().splitlines()[-1])
    pip = run("pip", [PYTHON, "-m", "pip", "install", "--dry-run", "--no-deps", "-q", "-r", "pylock.toml"], folder)
    uv = run("uv", [UV, "pip", "sync", "--dry-run", "--python", PYTHON, "pylock.toml"], folder)
    print(f"  pip {'accepts' if pip.returncode == 0 else 'refuses'} it, uv {'accepts' if uv.returncode == 0 else 'refuses'} it")
    return not different and all(done.returncode == 0 for done in (proof, pip, uv))


def main():
    moment = sys.argv[1] if len(sys.argv) > 1 else "2026-11-01"
    outcomes = [agree(name, moment) for name in sys.argv[2:] or SETS]
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()

"""From `podman run` to the first 200 on /readyz, with layers of bytecode and without; against a container of the same image that only imports
the same modules and loads the model.

Needs podman and runc, as root. Both kinds of container share the network of the machine, so that no port is forwarded. What is imported is
what a serving process has once it is ready, but for mlrails' own modules.
"""

import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK, machine, show

RUNS = 7
CONF = """[containers]
default_ulimits = ["nofile=20000:20000","nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
LOADED = """
import json, sys
from mlrails_runtime import server, settings
from mlrails_runtime.service import Model, Service
chosen = settings.read()
settings.prepare_process(chosen)
Model(Service(chosen.app))
print(json.dumps([name for name, module in sys.modules.items() if name != "__main__" and getattr(module, "__spec__", None)]))
"""
PLAIN = """
import importlib, joblib
for name in {names!r}:
    importlib.import_module(name)
joblib.load("/app/artifacts/model.joblib")
print("ready", flush=True)
"""


def podman(*words, **options):
    return subprocess.run(["podman", *map(str, words)], check=True, capture_output=True, text=True, **options).stdout


def image(name, project, env, *flags):
    """The image in podman's storage, by its name there."""
    archive = WORK / "start/image.tar"
    archive.unlink(missing_ok=True)
    command = [MLRAILS, "--project", project, "--quiet", "image", "--tag", f"bench-start:{name}", "--output", archive, *flags]
    subprocess.run([str(word) for word in command], env=env, check=True, stdout=subprocess.DEVNULL)
    return podman("load", "-q", "-i", archive).strip().split(": ")[1]


def ready(image):
    """Seconds until /readyz says yes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    container = subprocess.Popen(
        ["podman", "run", "--rm", "--read-only", "--network=host", "-e", f"PORT={port}", "-e", "MLRAILS_WORKERS=1", image],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()
            seconds = time.perf_counter() - started
            break
        except (OSError, urllib.error.URLError):
            if container.poll() is not None:
                sys.exit("the container ended before it was ready")
            time.sleep(0.005)
    container.terminate()
    container.wait()
    return seconds


def python(image, script):
    return ["podman", "run", "--rm", "--read-only", "--network=host", "--entrypoint", "/opt/venv/bin/python", image, "-c", script]


def imports(image, names):
    """Seconds until the modules and the model are there."""
    started = time.perf_counter()
    container = subprocess.Popen(python(image, PLAIN.format(names=names)), stdout=subprocess.PIPE, text=True)
    said = container.stdout.readline()
    seconds = time.perf_counter() - started
    if said.strip() != "ready" or container.wait() != 0:
        sys.exit(f"the modules cannot be imported: {said}")
    return seconds


def main():
    folder = WORK / "start"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "containers.conf").write_text(CONF)
    os.environ["CONTAINERS_CONF"] = str(folder / "containers.conf")
    env = {**os.environ, "MLRAILS_CACHE_DIR": str(WORK / "store")}
    project = folder / "churn"
    shutil.copytree(ROOT / "fixtures/churn", project, ignore=shutil.ignore_patterns("dist", ".venv", ".mlrails", "pylock.toml"))
    subprocess.run([str(MLRAILS), "--project", str(project), "--quiet", "lock"], env=env, check=True)
    compiled, bare = image("compiled", project, env), image("bare", project, env, "--no-bytecode")
    said = subprocess.run(python(compiled, LOADED), check=True, capture_output=True, text=True).stdout
    names = [name for name in json.loads(said) if not name.startswith("mlrails_")]
    sides = {
        "imports and the model alone, with bytecode": lambda: imports(compiled, names),
        "start to /readyz, with bytecode": lambda: ready(compiled),
        "start to /readyz, without": lambda: ready(bare),
    }
    figures = {side: [] for side in sides}
    for turn in range(RUNS + 1):
        for side, measure in sides.items():
            seconds = measure()
            if turn:
                figures[side].append(seconds)
    medians = {side: statistics.median(figure) for side, figure in figures.items()}
    least = next(iter(medians.values()))
    print(f"\n{machine()}\n\n## container start: {len(names)} modules\n\n| container | seconds | of imports alone |\n|---|---|---|")
    for side, median in medians.items():
        print(f"| {side} | {show(median)} | {median / least:.2f}x |")


if __name__ == "__main__":
    main()

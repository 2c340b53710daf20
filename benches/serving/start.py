"""From the start of the process to the first 200 on /readyz, against a plain Python that imports the same modules and loads the model.

    python3 start.py [--python PYTHON] [--rounds 9]

Processor time counts as well as the clock: the server imports in one process and loads in another, so that two cores hide a part of it. Both
sides find compiled bytecode. The modules are those that a serving process has when it is ready.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request

import bench

# In the environment of the server: the modules that it has once it answers.
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
import importlib, joblib, sys
for name in {names!r}:
    if not name.startswith("mlrails_"):
        importlib.import_module(name)
joblib.load({model!r})
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    bench.WORK.mkdir(parents=True, exist_ok=True)
    python = (chosen.python or bench.environment()).absolute()
    project = bench.trained("light", python)
    served = project / ".mlrails/serve"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{served / 'runtime'}:{project / 'src'}", "MLRAILS_APP": str(served), **bench.THREADS}
    names = json.loads(subprocess.run([python, "-c", LOADED], env=environment, capture_output=True, check=True).stdout)
    names = [name for name in names if name != "mlrails_app"]
    plain = [python, "-c", PLAIN.format(names=names, model=str(project / "artifacts/model.joblib"))]
    figures = {"ready": [], "plain": []}
    for _ in range(chosen.rounds):
        figures["ready"].append(ready(project, python))
        figures["plain"].append(once(plain, environment))
    print(f"{bench.harness.machine()}\n{len(names)} modules, {chosen.rounds} rounds in turns; medians\n")
    print("| | seconds | of a processor |\n|---|---|---|")
    wall, cpu = ({side: statistics.median(one[at] for one in rows) for side, rows in figures.items()} for at in (0, 1))
    for side, what in (("plain", "imports and the model alone"), ("ready", "start to /readyz")):
        print(f"| {what} | {wall[side]:.2f} | {cpu[side]:.2f} |")
    print(f"| ratio | {wall['ready'] / wall['plain']:.2f} | {cpu['ready'] / cpu['plain']:.2f} |")


def ready(project, python):
    """(seconds until /readyz says yes, processor seconds of all processes until then)."""
    server = bench.Server("mlrails", project, python, 1)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=5).read()
                return time.monotonic() - server.started, spent(server.process.pid)
            except (OSError, urllib.error.URLError):
                time.sleep(0.005)
    finally:
        server.process.send_signal(signal.SIGINT)
        server.process.wait()


def spent(pid):
    total, waiting = 0, [pid]
    while waiting:
        at = waiting.pop()
        words = pathlib.Path(f"/proc/{at}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(words[11]) + int(words[12])
        for task in pathlib.Path(f"/proc/{at}/task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return total / os.sysconf("SC_CLK_TCK")


def once(command, environment):
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

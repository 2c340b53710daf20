"""Resident memory of the mlrails runtime over a million requests of one row each, which should not grow.

    python3 memory.py [--python PYTHON] [--requests 1000000] [--every 100000] [--connections 16] [--workers 1]

The project and the server are those of bench.py (light, accelerated). wrk asks `/predict` with the golden rows in turn, in runs of some
seconds with new connections each; between two runs, with nothing under way, the process and those it started are looked at. The first line is after
a warm-up; what is quoted is the growth from the line after a tenth of the requests to the last.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

import bench
import harness

_LUA = """
local bodies = {%s}
local at = 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
request = function()
  at = at %% #bodies + 1
  return wrk.format(nil, "/predict", nil, bodies[at])
end
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    bench.WORK.mkdir(parents=True, exist_ok=True)
    python = (chosen.python or bench.environment()).absolute()
    print(harness.machine())
    project = bench.trained("light", python)
    golden = json.loads((project / "artifacts/run.json").read_text())["golden"]
    script = bench.WORK / "memory.lua"
    script.write_text(_LUA % ", ".join(f"[==[{json.dumps(row)}]==]" for row in golden["rows"]))
    server = bench.Server("mlrails", project, python, chosen.workers)
    try:
        server.until_it_answers(golden)
        server.check(golden)
        ask(server, script, chosen.connections, 2)
        print("| requests | resident, MiB | of the largest process | seconds |\n|---|---|---|---|")
        began, asked, told, seen = time.monotonic(), 0, 0, []
        while True:
            if asked >= told:
                told += chosen.every
                resident = processes(server)
                seen.append(sum(resident))
                print(f"| {asked:,} | {seen[-1]:.1f} | {max(resident):.1f} | {time.monotonic() - began:.0f} |", flush=True)
            if asked >= chosen.requests:
                break
            asked += ask(server, script, chosen.connections, 2)
        server.check(golden)
        print(f"\ngrowth from {chosen.every:,} requests on: {seen[-1] - seen[1]:+.1f} MiB")
    finally:
        server.stop()


def ask(server, script, connections, seconds):
    """How many requests were answered, all of them with 200."""
    url = f"http://127.0.0.1:{server.port}/predict"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30", "-s", script, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(output)
    return int(re.search(r"(\d+) requests in", output)[1])


def processes(server):
    """MiB resident of each process of the server."""
    found, waiting = [], [server.process.pid]
    while waiting:
        pid = waiting.pop()
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        found.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":
    main()

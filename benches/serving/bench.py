"""Requests per second of the mlrails runtime against hand-written FastAPI + pandas: the same model, machine and minute.

    python3 bench.py [--python PYTHON] [--seconds 10] [--rounds 3]

PYTHON is an environment with granian, msgspec, pandas, scikit-learn, joblib, fastapi, uvicorn[standard]: by default one that this script
makes under target/bench/serving with `pip install`. The servers run in turn, never together, each with one process per core; wrk
runs on the same machine. What is quoted is the ratio of medians.
"""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import harness  # noqa: E402

WORK = harness.WORK / "serving"
PACKAGES = ["granian", "msgspec", "pandas", "scikit-learn", "joblib", "fastapi", "uvicorn[standard]"]
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
CASES = [("1 row, 1 connection", 1), ("1 row, 8 connections", 8), ("1 row, 64 connections", 64)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    python = chosen.python or environment()
    sample = WORK / "sample"
    subprocess.run([python, HERE / "sample.py", sample], check=True)
    script = WORK / "post.lua"
    body = (sample / "body.json").read_text()
    script.write_text(f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [==[{body}]==]\n')
    workers = str(len(os.sched_getaffinity(0)))
    versions = subprocess.run([python, "-m", "pip", "list", "--format", "freeze"], capture_output=True, text=True).stdout
    shown = [line for line in versions.split() if re.match(r"(granian|msgspec|pandas|numpy|scikit-learn|fastapi|pydantic|uvicorn|uvloop)==", line)]
    print(f"{harness.machine()}\n{' '.join(shown)}\n{workers} worker processes each; {chosen.rounds} rounds of {chosen.seconds} s")
    print("\n## serving\n\n| case | mlrails | FastAPI + pandas | ratio | p99 |\n|---|---|---|---|---|", flush=True)
    rows = []
    for case, connections in CASES:
        rates, tails = {"ours": [], "peer": []}, {"ours": [], "peer": []}
        for _ in range(chosen.rounds):
            for side, start in (("ours", ours), ("peer", peer)):
                with start(python, sample, workers) as port:
                    wrk(script, port, connections, 2)
                    rate, tail = wrk(script, port, connections, chosen.seconds)
                rates[side].append(rate)
                tails[side].append(tail)
        a, b = statistics.median(rates["ours"]), statistics.median(rates["peer"])
        p = {side: statistics.median(values) for side, values in tails.items()}
        row = f"| {case} | {a:.0f}/s | {b:.0f}/s | {a / b:.1f}x | {p['ours']:.1f} ms / {p['peer']:.1f} ms |"
        print(row, flush=True)
        rows.append(row)


def environment():
    folder = WORK / "venv"
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True)
    return folder / "bin/python"


def ours(python, sample, workers):
    environment = {
        "PYTHONPATH": f"{harness.ROOT / 'templates/runtime'}:{sample}",
        "MLRAILS_APP": str(sample),
        "MLRAILS_WORKERS": workers,
        "MLRAILS_DRAIN": "0",
    }
    return server([python, "-m", "mlrails_runtime", "serve"], environment, "MLRAILS_PORT", "/readyz")


def peer(python, sample, workers):
    environment = {"BENCH_SAMPLE": str(sample), "PYTHONPATH": str(HERE), **THREADS}
    command = [python, "-m", "uvicorn", "peer:app", "--workers", workers, "--no-access-log", "--log-level", "warning"]
    return server(command, environment, "--port", "/openapi.json")


@contextlib.contextmanager
def server(command, environment, port_by, probe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if port_by.startswith("--"):
        command = [*command, port_by, str(port)]
    else:
        environment = {**environment, port_by: str(port)}
    with open(WORK / "server.log", "ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command], env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{probe}", timeout=2).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{command} does not answer; see {WORK / 'server.log'}")
                time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wrk(script, port, connections, seconds):
    """(requests per second, 99th percentile in ms). Any answer that is not 2xx ends the run: it would be fast, and wrong."""
    threads = str(min(2, connections))
    output = subprocess.run(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}", "--latency", "-s", script, f"http://127.0.0.1:{port}/predict"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(output)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    tail, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()
    return rate, float(tail) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


if __name__ == "__main__":
    main()

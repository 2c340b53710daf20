"""The mlrails runtime against FastAPI + pydantic + pandas, BentoML and LitServe: the same project, machine and minutes.

    python3 bench.py [--python PYTHON] [--seconds 2] [--rounds 2] [--models light,heavy] [--workers 1,2]

The project is a copy of fixtures/churn (20 columns), trained by `mlrails run`: light is its logistic regression, heavy a forest of 200
trees in its place. PYTHON is an environment with all servers: by default one that this script makes under target/bench/serving. All
servers of a row are up at the same time and asked in turn by wrk on the same machine, so that none has the better minute; what is
quoted is the ratio of medians. Each server's answers are compared with the golden rows first. "plain" is mlrails with
`accelerate` off.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
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
CHURN = harness.ROOT / "fixtures/churn"
PACKAGES = ["granian", "msgspec", "pandas>=2.2,<3", "scikit-learn", "matplotlib", "joblib", "fastapi", "uvicorn[standard]", "bentoml", "litserve"]
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
SIDES = ("mlrails", "plain", "FastAPI", "BentoML", "LitServe")
PEERS = SIDES[2:]
CONNECTIONS = (1, 16, 64)
FOREST = ("LogisticRegression(C=C, max_iter=1000)", "RandomForestClassifier(n_estimators=200, random_state=0)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", default="light,heavy")
    parser.add_argument("--workers", default="1,2")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    python = (chosen.python or environment()).absolute()
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "freeze"], capture_output=True, text=True).stdout
    names = "granian|msgspec|pandas|numpy|scikit-learn|fastapi|pydantic|uvicorn|bentoml|litserve"
    shown = [line for line in listed.split() if re.match(rf"({names})==", line)]
    print(f"{harness.machine()}\n{' '.join(shown)}\n{chosen.rounds} rounds of {chosen.seconds} s; requests per second, p99 below\n")
    for model in chosen.models.split(","):
        project = trained(model, python)
        for workers in map(int, chosen.workers.split(",")):
            table(model, project, python, workers, chosen)


def table(model, project, python, workers, chosen):
    golden = json.loads((project / "artifacts/run.json").read_text())["golden"]
    plural = "process" if workers == 1 else "processes"
    servers, first = {}, {}
    try:
        for side in SIDES:
            servers[side] = Server(side, project, python, workers)
            first[side] = servers[side].until_it_answers(golden)
        for server in servers.values():
            server.check(golden)
        print(f"### {model}, {workers} {plural} a side\n")
        print(f"| rows, connections | {' | '.join(SIDES)} | mlrails against the best peer | p99 against the best peer's |")
        print(f"|---|{'---|' * len(SIDES)}---|---|", flush=True)
        for rows in (1, 100):
            for connections in CONNECTIONS:
                cell(servers, golden["rows"][:rows], connections, chosen)
        memory = {side: server.memory() for side, server in servers.items()}
        print("| resident, MiB | " + " | ".join(f"{memory[side]:.0f}" for side in SIDES) + " | | |")
        print("| first answer, s | " + " | ".join(f"{first[side]:.1f}" for side in SIDES) + " | | |\n", flush=True)
    finally:
        for server in servers.values():
            server.stop()


def cell(servers, rows, connections, chosen):
    rates, tails = {side: [] for side in SIDES}, {side: [] for side in SIDES}
    for side in SIDES:
        wrk(servers[side], rows, connections, 1)
    for _ in range(chosen.rounds):
        for side in SIDES:
            rate, tail = wrk(servers[side], rows, connections, chosen.seconds)
            rates[side].append(rate)
            tails[side].append(tail)
    rate = {side: statistics.median(values) for side, values in rates.items()}
    tail = {side: statistics.median(values) for side, values in tails.items()}
    best, quickest = max(rate[side] for side in PEERS), min(tail[side] for side in PEERS)
    figures = " | ".join(f"{rate[side]:,.0f}/s<br>{tail[side]:.1f} ms" for side in SIDES)
    ratios = f"{rate['mlrails'] / best:.1f}x (plain {rate['plain'] / best:.1f}x)"
    print(f"| {len(rows)}, {connections} | {figures} | {ratios} | {tail['mlrails'] / quickest:.2f} |", flush=True)


def trained(model, python):
    """A copy of the example project, run by mlrails in the bench's environment."""
    project = WORK / model
    shutil.rmtree(project, ignore_errors=True)
    leave = shutil.ignore_patterns(".venv", ".mlrails", "dist", "artifacts", "reports")
    shutil.copytree(CHURN, project, ignore=leave)
    (project / ".venv").symlink_to(pathlib.Path(python).absolute().parent.parent)
    if model == "heavy":
        path = project / "src/churn/train.py"
        text = path.read_text()
        assert FOREST[0] in text
        path.write_text(text.replace(*FOREST).replace("from sklearn.impute", "from sklearn.ensemble import RandomForestClassifier\nfrom sklearn.impute"))
    binary = os.environ.get("MLRAILS") or harness.ROOT / "target/release/mlrails"
    subprocess.run([binary, "--project", project, "--quiet", "run"], check=True)
    said = json.loads((project / "artifacts/run.json").read_text()).get("accelerate")
    print(f"accelerate, {model}: {json.dumps(said)}\n")
    # The app is rendered by `serve`; what runs it below is what runs it in an image.
    with open(WORK / "render.log", "wb") as log:
        rendering = subprocess.Popen([binary, "--project", project, "serve", "--no-reload", "--port", str(free())], stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while not (project / ".mlrails/serve/runtime/mlrails_runtime/web.py").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    rendering.send_signal(signal.SIGINT)
    rendering.wait()
    return project


def environment():
    folder = WORK / "venv"
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "-q", "--disable-pip-version-check", *PACKAGES], check=True)
    return folder / "bin/python"


class Server:
    """One of `SIDES`, listening."""

    def __init__(self, side, project, python, workers):
        self.side, self.port = side, free()
        self.started = time.monotonic()
        command, environment = self._command(project, python, workers)
        self.log = WORK / f"{side}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True, cwd=WORK
            )

    def _command(self, project, python, workers):
        peer = {"BENCH_PROJECT": str(project), "BENCH_WORKERS": str(workers), "PYTHONPATH": str(HERE / "peers"), **THREADS}
        if self.side in ("mlrails", "plain"):
            served = project / ".mlrails/serve"
            return [python, "-m", "mlrails_runtime", "serve"], {
                "PYTHONPATH": f"{served / 'runtime'}:{project / 'src'}",
                "MLRAILS_APP": str(served),
                "MLRAILS_HOST": "127.0.0.1",
                "MLRAILS_PORT": str(self.port),
                "MLRAILS_WORKERS": str(workers),
                "MLRAILS_DRAIN": "0",
                "MLRAILS_ACCELERATE": "1" if self.side == "mlrails" else "0",
            }
        if self.side == "FastAPI":
            quiet = ["--no-access-log", "--log-level", "warning"]
            return [python, "-m", "uvicorn", "by_fastapi:app", "--workers", workers, "--port", self.port, *quiet], peer
        if self.side == "BentoML":
            peer |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(WORK / "bentoml")}
            return [python, "-m", "bentoml", "serve", "by_bentoml:Churn", "--port", self.port, "--working-dir", HERE / "peers", "--host", "127.0.0.1"], peer
        return [python, HERE / "peers/by_litserve.py", self.port], peer

    def request(self, rows):
        """(path, body) of these rows, as this server takes them."""
        if self.side in ("BentoML", "LitServe"):
            return "/predict", json.dumps({"customers": rows})
        if self.side == "FastAPI" and len(rows) > 1:
            return "/predict_many", json.dumps(rows)
        return "/predict", json.dumps(rows[0] if len(rows) == 1 else rows)

    def ask(self, rows):
        path, body = self.request(rows)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body.encode(), headers={"content-type": "application/json"}
        )
        answer = json.load(urllib.request.urlopen(request, timeout=30))
        return answer["predictions"] if isinstance(answer, dict) else answer

    def until_it_answers(self, golden):
        """Seconds from the start to the first prediction."""
        while True:
            try:
                self.ask(golden["rows"][:1])
                return time.monotonic() - self.started
            except OSError:
                if self.process.poll() is not None or time.monotonic() - self.started > 90:
                    sys.exit(f"{self.side} does not answer; see {self.log}")
                time.sleep(0.02)

    def check(self, golden):
        """One by one and together, as in training: a wrong answer is no answer."""
        rows, expected = golden["rows"], golden["predictions"]
        alone = [self.ask([row])[0] for row in rows[:20]]
        for got, want in zip([*alone, *self.ask(rows)], [*expected[:20], *expected]):
            if abs(got - want) > 1e-9:
                sys.exit(f"{self.side} answers {got} where training answered {want}")

    def memory(self):
        """MiB of the process and all it started, shared pages counted once."""
        total, waiting = 0, [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
            except OSError:
                continue
        return total / 1024

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        except ProcessLookupError:
            pass


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wrk(server, rows, connections, seconds):
    """(requests per second, 99th percentile in ms). Of ours any answer that is not 2xx ends the run; a peer's are not counted."""
    path, body = server.request(rows)
    script = WORK / f"{server.side}.lua"
    script.write_text(f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = [==[{body}]==]\n')
    url = f"http://127.0.0.1:{server.port}{path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30", "--latency", "-s", script, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if (bad or "Socket errors" in output) and server.side not in PEERS:
        sys.exit(f"{server.side}, {connections} connections:\n{output}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    if bad:
        rate *= 1 - int(bad[1]) / int(re.search(r"(\d+) requests in", output)[1])
    tail, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", output).groups()
    return rate, float(tail) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


if __name__ == "__main__":
    main()

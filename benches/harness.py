"""Times pairs of commands in turn and prints medians and ratios. Standard library only.

A figure means little on a shared machine; a ratio of two commands that ran alternately in the same minutes means more. So every
case has a peer, both are prepared the same way before each run, and what is quoted is the median and the ratio of medians.
"""

import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MLRAILS = ROOT / "target/release/mlrails"
WORK = ROOT / "target/bench"


@dataclasses.dataclass
class Side:
    """One side of a pair: what is timed, and what is put back, untimed, before each run."""

    name: str
    command: list
    before: object = None
    env: dict = dataclasses.field(default_factory=dict)
    cwd: object = None


def run(side):
    """Seconds of wall clock and peak MiB of the largest process of one run."""
    if side.before:
        side.before()
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in side.command],
        cwd=side.cwd,
        env={**os.environ, **side.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        sys.exit(f"{side.name} failed ({side.command}):\n{output.decode(errors='replace')[-4000:]}")
    return seconds, usage.ru_maxrss / 1024


class Report:
    """Collects rows, prints them as they come, and keeps them for docs/benchmarks.md."""

    def __init__(self, title):
        self.title = title
        self.rows = []
        print(f"\n## {title}\n\n| case | mlrails | peer | ratio |\n|---|---|---|---|", flush=True)

    def pair(self, case, ours, peer, runs=5):
        ours_seconds, peer_seconds, ours_peak, peer_peak = [], [], [], []
        for turn in range(runs + 1):
            mine, other = run(ours), run(peer) if peer else (0, 0)
            if turn:  # the first pair warms what both rely on
                ours_seconds.append(mine[0])
                peer_seconds.append(other[0])
                ours_peak.append(mine[1])
                peer_peak.append(other[1])
        a, b = statistics.median(ours_seconds), statistics.median(peer_seconds)
        ratio = f"{b / a:.1f}x faster" if b >= a else f"{a / b:.2f}x slower" if b else "-"
        row = f"| {case} | {show(a)}, {max(ours_peak):.0f} MiB | {peer.name if peer else '-'} {show(b)}, {max(peer_peak):.0f} MiB | {ratio} |"
        print(row, flush=True)
        self.rows.append(row)

    def keep(self):
        WORK.mkdir(parents=True, exist_ok=True)
        name = self.title.lower().replace(" ", "-")
        (WORK / f"{name}.json").write_text(json.dumps({"title": self.title, "rows": self.rows}, indent=1))


def show(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def machine():
    """The machine in one line, as docs/benchmarks.md quotes it."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores ({model}), {memory} GiB, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d')}"


def version(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True).stdout.split("\n")[0].strip()

"""What 1,000 slow clients cost the others: the 99th percentile with them against without, in turns.

    python3 slow.py [--python PYTHON] [--slow 1000] [--seconds 4] [--rounds 5] [--connections 16] [--workers 1]

The project is bench.py's light one. Half of the slow clients drip a request head, half a body of 10,000 bytes, a byte a second each; one
that the server closes at its deadline comes back at once. The others ask for one row over and over.
"""

import argparse
import collections
import pathlib
import selectors
import socket
import statistics
import sys
import threading
import time

import bench

HEAD = b"POST /predict HTTP/1.1\r\nhost: slow\r\ncontent-type: application/json\r\nx-slow: "
BODY = b"POST /predict HTTP/1.1\r\nhost: slow\r\ncontent-type: application/json\r\ncontent-length: 10000\r\n\r\n["


class Slow(threading.Thread):
    """`count` clients that drip until `stop`."""

    def __init__(self, port, count):
        super().__init__(daemon=True)
        self.port, self.count = port, count
        self.closed = collections.Counter()
        self._ends = threading.Event()

    def run(self):
        ready = selectors.DefaultSelector()
        clients = [self._client(at, ready) for at in range(self.count)]
        turn = 0
        while not self._ends.is_set():
            # A tenth of them each tenth of a second.
            for at in range(turn % 10, self.count, 10):
                try:
                    clients[at].send(b"a" if at % 2 else b" ")
                except OSError:
                    pass  # closed; seen below
            for key, _ in ready.select(0):
                said = b""
                try:
                    said = key.fileobj.recv(4096)
                except OSError:
                    pass
                if said:
                    continue  # 408; the end of the connection follows
                self.closed["head" if key.data % 2 else "body"] += 1
                ready.unregister(key.fileobj)
                key.fileobj.close()
                clients[key.data] = self._client(key.data, ready)
            turn += 1
            time.sleep(0.1)
        for client in clients:
            client.close()

    def _client(self, at, ready):
        client = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(HEAD if at % 2 else BODY)
        client.setblocking(False)
        ready.register(client, selectors.EVENT_READ, at)
        return client

    def stop(self):
        self._ends.set()
        self.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    bench.WORK.mkdir(parents=True, exist_ok=True)
    python = (chosen.python or bench.environment()).absolute()
    project = bench.trained("light", python)
    print(bench.harness.machine())
    server = bench.Server("mlrails", project, python, chosen.workers)
    figures = {"without": [], "with": []}
    closed = collections.Counter()
    try:
        golden = bench.json.loads((project / "artifacts/run.json").read_text())["golden"]
        server.until_it_answers(golden)
        bench.wrk(server, golden["rows"][:1], chosen.connections, 1)
        for _ in range(chosen.rounds):
            figures["without"].append(bench.wrk(server, golden["rows"][:1], chosen.connections, chosen.seconds))
            slow = Slow(server.port, chosen.slow)
            slow.start()
            time.sleep(2)
            figures["with"].append(bench.wrk(server, golden["rows"][:1], chosen.connections, chosen.seconds))
            slow.stop()
            closed.update(slow.closed)
    finally:
        server.stop()
    print(f"\n{chosen.connections} connections, {chosen.workers} processes, {chosen.rounds} rounds of {chosen.seconds} s; medians\n")
    print("| slow clients | requests/s | p99, ms |\n|---|---|---|")
    for name, count in (("without", 0), ("with", chosen.slow)):
        rates, tails = zip(*figures[name])
        print(f"| {count} | {statistics.median(rates):,.0f} | {statistics.median(tails):.1f} |")
    ratio = [one[1] / other[1] for one, other in zip(figures["with"], figures["without"])]
    print(f"\np99 with against without: {statistics.median(ratio):.2f} (each round: {' '.join(f'{one:.2f}' for one in ratio)})")
    print(f"closed at a deadline meanwhile: {closed['head']} heads, {closed['body']} bodies")
    return 0 if statistics.median(ratio) <= 2 else 1


if __name__ == "__main__":
    sys.exit(main())

"""`batch --engine` on clusters of two workers on loopback: the bytes of one process, kills, lost workers, refusals."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import zipfile

from mlrails_runtime.batch import places
from mlrails_runtime.engines import maker, pack
from mlrails_runtime.service import Service
from tests import test_batch

HERE = pathlib.Path(__file__).resolve().parent
FOUND = all(importlib.util.find_spec(name) for name in ("ray", "distributed", "pandas"))
# FOLDER is where a test leaves word for a process that it did not start.
APP = """
import os
import pathlib
import signal

word = pathlib.Path("FOLDER")


def pipeline(frozen, rows):
    print("what a project prints")
    most = int(rows["amount"].max())
    if (word / "gate").exists() and most >= 300:
        open(word / "gate").read()
    for name, victim in (("die", os.getpid), ("orphan", os.getppid)):
        if most >= 300 and (word / f"{name}-always").exists():
            os.kill(victim(), signal.SIGKILL)
        try:
            os.unlink(word / name)
        except FileNotFoundError:
            continue
        os.kill(victim(), signal.SIGKILL)
        signal.pause()
    return (rows["amount"] * 2 + frozen["offset"]).tolist()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Cluster:
    """Daemons in a folder of their own, ended by their numbers. What they say is in `log`."""

    def __init__(self, folder):
        self.folder, self.started, self.address = folder, [], f"127.0.0.1:{free_port()}"
        self.log = open(folder / "log", "wb")

    def start(self, *words):
        environment = {**os.environ, "TMPDIR": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        # Pipelines must not get the code of the test's own folder.
        environment.pop("PYTHONPATH", None)
        command = [f"{sys.prefix}/bin/{words[0]}", *words[1:]]
        self.started.append(subprocess.Popen(command, env=environment, cwd=self.folder, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True))

    def wait(self):
        """Until something listens there."""
        host, _, port = self.address.partition(":")
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                return
            except ConnectionRefusedError:
                assert all(child.poll() is None for child in self.started), (self.folder / "log").read_text()

    def end(self):
        for child in reversed(self.started):
            child.terminate()
        for child in self.started:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self.log.close()


def ray(folder):
    cluster = Cluster(folder)
    port = cluster.address.rpartition(":")[2]
    options = ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    options += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000", f"--temp-dir={folder}"]
    cluster.start("ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2", *options)
    cluster.wait()
    return cluster


def dask(folder):
    cluster = Cluster(folder)
    host, _, port = cluster.address.partition(":")
    cluster.start("dask", "scheduler", "--host", host, "--port", port, "--no-dashboard")
    cluster.wait()
    for at in range(2):
        cluster.start("dask", "worker", f"tcp://{cluster.address}", "--host", host, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / f"w{at}"))
    return cluster


class Engine(test_batch.Batch):
    """The tests; a subclass says on which cluster. None of `Batch`'s own are tried again."""

    start = None
    variable = None

    @classmethod
    def setUpClass(cls):
        if cls.start is None or not FOUND:
            raise unittest.SkipTest("needs ray and distributed")
        # Ray's sockets have to have short names.
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="e", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.cluster = cls.start(cls.scratch)
        cls.addClassCleanup(cls.cluster.end)

    def setUp(self):
        super().setUp()
        (self.app / "app.py").write_text(APP.replace("FOLDER", str(self.folder)))
        self.change("service.json", locked={name: importlib.metadata.version(name) for name in ("pandas", "numpy", "msgspec")})

    def change(self, name, **entries):
        path = self.app / name
        document = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**document, **entries}))

    @property
    def engine(self):
        return ["--engine", self.name, "--engine-address", self.cluster.address, "--workers", "2"]

    def started(self, *words):
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MLRAILS_APP": str(self.app)}
        command = [sys.executable, "-m", "mlrails_runtime", "batch", *words, *self.engine]
        # Who started the tests in the background may have told them to ignore Ctrl-C, which is inherited.
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=heard)
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        return child

    def pipelines(self):
        """Processes that make parts, and folders that they left."""
        found = [str(path) for path in self.scratch.glob("mlrails-*")]
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if b"engines.maker" in (process / "cmdline").read_bytes() and str(self.scratch) in os.readlink(process / "cwd"):
                    found.append(process.name)
        return found

    def both(self, output, *words):
        """The same by one process and by the cluster, which is told of."""
        self.run_it(*words, "--output", self.path(f"own-{output}"), "--workers", "1")
        told = self.run_it(*words, "--output", self.path(output), *self.engine)
        self.assertEqual(self.tree(output), self.tree(f"own-{output}"))
        return told

    # What is the same.

    def test_the_cluster_makes_the_bytes_that_one_process_makes(self):
        for at in range(2):
            self.rows(f"day-{at}.csv", at * 100, 250)
        words = ["--input", self.path("day-*.csv"), "--part-rows", "32", "--chunk", "16"]
        told = self.both("o.csv", *words)
        self.assertEqual((told["scored"], told["engine"]["parts"], told["engine"]["lost"]), (500, 16, 0))
        self.assertLess(told["engine"]["largest_process_mib"], 350)
        self.both("parts/", *words)
        self.both("o.jsonl.gz", *words, "--keep", "id")
        if test_batch.ARROW:
            self.both("o.parquet", *words)
            self.both("p.csv", "--input", self.path("o.parquet"), "--part-rows", "32", "--chunk", "16")
        told = self.run_it(*words, "--output", self.path("parts/"), *self.engine)
        self.assertEqual((told["parts_there"], told["engine"]["parts"]), (16, 0))
        self.assertEqual(self.pipelines(), [])
        self.assertFalse([path for path in self.folder.rglob("*") if path.name == "pipeline.zip" or path.suffix in (".parts", ".tmp")])

    def test_rejected_rows_are_told_alike(self):
        lines = [b"id,amount,plan"] + [b"r%d,%s,pro" % (at, b"x" if at % 9 == 0 else b"%d" % at) for at in range(200)]
        (self.folder / "rows.csv").write_bytes(b"\n".join(lines))
        # A path as people type it, which is another one for a worker.
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        words = ["--input", "rows.csv", "--part-rows", "32", "--chunk", "16", "--on-error", "skip", "--rejected"]
        self.run_it(*words, "own.jsonl", "--output", "own.csv", "--workers", "1")
        told = self.run_it(*words, "bad.jsonl", "--output", "o.csv", *self.engine)
        self.assertEqual((told["scored"], told["rejected"]), (177, 23))
        self.assertEqual((self.tree("o.csv"), self.tree("bad.jsonl")), (self.tree("own.csv"), self.tree("own.jsonl")))
        self.run_it("--input", "rows.csv", "--part-rows", "32", "--chunk", "16", "--output", "f.csv", *self.engine, code=1)
        self.assertIn("column amount", self.said)
        self.assertFalse(list(self.folder.glob("f.csv*")))

    @unittest.skipUnless("MLRAILS_BUNDLE" in os.environ, "needs a folder with an installed wheel, and the rows of its project")
    def test_a_wheel_scores_where_workers_have_its_distributions_only(self):
        folder, rows = os.environ["MLRAILS_BUNDLE"], os.environ["MLRAILS_ROWS"]

        def batch(*words):
            command = [sys.executable, "-m", "churn._mlrails", "batch", "--input", rows, "--part-rows", "1024", "--chunk", "512", *words]
            done = subprocess.run(command, capture_output=True, env={"PYTHONPATH": folder}, cwd=self.folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stderr.splitlines()[-1])

        batch("--output", "own.csv", "--workers", "1")
        told = batch("--output", "o.csv", *self.engine)
        self.assertEqual((told["scored"], told["engine"]["parts"]), (7000, 7))
        self.assertLess(told["engine"]["largest_process_mib"], 350)
        self.assertEqual(self.tree("o.csv"), self.tree("own.csv"))

    # What goes wrong.

    def halfway(self, *words):
        """A driver that is at work: four parts are made, two wait. Opening the gate for writing returns when somebody waits at it."""
        self.rows("rows.csv", 0, 640)
        self.words = ["--input", self.path("rows.csv"), "--part-rows", "64", "--chunk", "16"]
        self.run_it(*self.words, "--output", self.path("own.csv"), "--workers", "1")
        os.mkfifo(self.path("gate"))
        child = self.started(*self.words, "--output", self.path("o.csv"))
        writer = open(self.path("gate"), "wb")
        self.addCleanup(writer.close)
        while len(list(self.folder.glob("o.csv.parts/*/notes/*.json"))) < 4:
            self.assertIsNone(child.poll(), child.stderr)
        return child, writer

    def gone_on(self, there):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("gate"))
        told = self.run_it(*self.words, "--output", self.path("o.csv"), *self.engine)
        self.assertEqual(self.tree("o.csv"), self.tree("own.csv"))
        self.assertGreaterEqual(told["parts_there"], there)
        self.assertEqual(self.pipelines(), [])

    def test_a_driver_that_was_killed_goes_on(self):
        child, writer = self.halfway()
        child.kill()
        child.wait()
        os.unlink(self.path("gate"))
        writer.close()
        self.gone_on(4)

    def test_signals_end_what_runs_elsewhere(self):
        child, writer = self.halfway()
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            child.send_signal(number)
            _, said = child.communicate()
            self.assertEqual((child.returncode, b"Traceback" in said), (code, False), said)
            self.assertIn(b"goes on from here", said)
            self.assertEqual(self.pipelines(), [])
            self.assertFalse([path for path in self.folder.rglob("*") if path.suffix == ".tmp" or path.name == "pipeline.zip"])
            if number == signal.SIGTERM:
                child = self.started(*self.words, "--output", self.path("o.csv"))
                writer.close()
                writer = open(self.path("gate"), "wb")
        writer.close()
        self.gone_on(4)

    def test_what_was_lost_is_made_again(self):
        self.rows("rows.csv", 0, 500)
        words = ["--input", self.path("rows.csv"), "--part-rows", "64", "--chunk", "16"]
        self.run_it(*words, "--output", self.path("own.csv"), "--workers", "1")
        for name in ("die", "orphan"):
            (self.folder / name).touch()
            told = self.run_it(*words, "--output", self.path(f"{name}.csv"), *self.engine)
            self.assertEqual(self.tree(f"{name}.csv"), self.tree("own.csv"))
            self.assertFalse((self.folder / name).exists())
        self.assertEqual(told["scored"], 500)
        (self.folder / "die-always").touch()
        self.run_it(*words, "--output", self.path("o.csv"), *self.engine, code=3)
        self.assertIn("lost each time", self.said)
        self.assertIn("signal 9", self.said)
        os.unlink(self.folder / "die-always")
        told = self.run_it(*words, "--output", self.path("o.csv"), *self.engine)
        self.assertEqual(self.tree("o.csv"), self.tree("own.csv"))
        self.assertGreaterEqual(told["parts_there"], 1)

    def test_an_input_that_changes_is_not_mixed(self):
        child, writer = self.halfway()
        os.utime(self.path("rows.csv"))
        os.unlink(self.path("gate"))
        writer.close()
        _, said = child.communicate()
        self.assertEqual(child.returncode, 1, said)
        self.assertIn(b"rows.csv is another file there", said)

    # What is refused before anything is scored.

    def test_workers_that_are_not_as_locked_are_refused(self):
        self.rows("rows.csv", 0, 50)
        words = ["--input", self.path("rows.csv"), "--output", self.path("o.csv"), *self.engine]
        self.change("service.json", locked={"pandas": "0.1", "nosuch": "7"})
        self.run_it(*words, code=1)
        for part in ("worker ", f"pandas is {importlib.metadata.version('pandas')} there, 0.1 is locked", "nosuch is missing there, 7 is locked"):
            self.assertIn(part, self.said)
        self.change("service.json", locked={})
        self.change("artifacts/run.json", golden={"rows": [{"amount": 1}, {"amount": 2}], "predictions": [3.0, 5.5]})
        self.run_it(*words, code=1)
        self.assertIn("1 golden rows are answered differently than in training: row 1 expected 5.5, got 5.0", self.said)
        self.assertFalse(list(self.folder.glob("o.csv*")))
        self.change("artifacts/run.json", golden={"rows": [{"amount": 1}, {"amount": 2}], "predictions": [3.0, 5.0]})
        self.run_it(*words)

    def test_a_cluster_that_is_not_there_or_is_something_else(self):
        self.rows("rows.csv", 0, 50)
        words = ["--input", self.path("rows.csv"), "--output", self.path("o.csv"), "--engine", self.name]
        self.run_it(*words, code=2)
        self.assertIn(f"set {self.variable}", self.said)
        self.run_it(*words, code=3, env={self.variable: f"127.0.0.1:{free_port()}"})
        self.assertIn("answers at 127.0.0.1:", self.said)
        with subprocess.Popen([sys.executable, "-c", _OTHER], stdout=subprocess.PIPE) as other:
            self.addCleanup(other.kill)
            self.run_it(*words, "--engine-address", f"127.0.0.1:{int(other.stdout.readline())}", code=3)
            other.kill()
        self.run_it(*words, "--engine-address", "no address", code=2)
        self.run_it("--input", "-", "--output", self.path("o.csv"), *self.engine, code=2)
        self.run_it("--input", self.path("rows.csv"), "--output", "-", *self.engine, code=2)
        self.assertFalse(list(self.folder.glob("o.csv*")))

    def test_another_version_of_the_cluster_is_refused(self):
        self.rows("rows.csv", 0, 50)
        words = ["--input", self.path("rows.csv"), "--output", self.path("o.csv"), *self.engine]
        # This process takes itself to be of another one, as one in an older image would.
        (self.folder / "sitecustomize.py").write_text(self.older)
        self.run_it(*words, code=1, env={"PYTHONPATH": f"{HERE.parent}:{self.folder}"})
        self.assertIn("is of other versions than this process", self.said)
        self.assertIn("0.0.1", self.said)


# A server that is neither: it closes each connection after one line.
_OTHER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    stream, _ = listener.accept()
    stream.sendall(b"HTTP/1.1 400 Bad Request\\r\\nConnection: close\\r\\n\\r\\n")
    stream.close()
"""

for _name in [name for name in vars(test_batch.Batch) if name.startswith("test_")]:
    setattr(Engine, _name, None)


class OnRay(Engine):
    name, start, variable = "ray", staticmethod(ray), "RAY_ADDRESS"
    older = "import ray\nray.__version__ = '0.0.1'\n"


class OnDask(Engine):
    name, start, variable = "dask", staticmethod(dask), "DASK_SCHEDULER_ADDRESS"
    older = "import distributed.versions\ndistributed.versions._version_cached = lambda name: '0.0.1'\n"


class Sent(unittest.TestCase):
    def test_an_image_s_app_is_sent_with_what_lies_beside_it(self):
        with tempfile.TemporaryDirectory() as folder:
            app = pathlib.Path(folder, "app")
            (app / "packed_tiny").mkdir(parents=True)
            test_batch.service(app)
            (app / "packed_tiny/__init__.py").write_text("")
            (app / "data").mkdir()
            (app / "data/areas.csv").write_text("a\n")
            document = json.loads((app / "service.json").read_text())
            (app / "service.json").write_text(json.dumps({**document, "module": "packed_tiny"}))
            sys.path.insert(0, str(app))
            self.addCleanup(sys.path.remove, str(app))
            written = []
            for _ in range(2):
                archive = pack.Archive(Service(app))
                archive.write(places.place(f"{folder}/pipeline.zip"))
                written.append((archive.sha256, pathlib.Path(folder, "pipeline.zip").read_bytes()))
            self.assertEqual(written[0], written[1])
            self.assertEqual(written[0][0], hashlib.sha256(written[0][1]).hexdigest())
            self.assertEqual(archive.app, "app")
            with zipfile.ZipFile(f"{folder}/pipeline.zip") as packed:
                names = packed.namelist()
            ours = [name for name in names if not name.startswith("lib/mlrails_runtime/")]
            beside = ["app.py", "artifacts/offset.json", "data/areas.csv", "packed_tiny/__init__.py", "service.json"]
            self.assertEqual(ours, [f"app/{name}" for name in beside])
            self.assertIn("lib/mlrails_runtime/engines/maker.py", names)

    def test_all_that_differs_is_named(self):
        here = "{}.{}".format(*sys.version_info)
        self.assertEqual(maker.differences({"python": here, "locked": {"msgspec": importlib.metadata.version("msgspec")}}), [])
        lines = maker.differences({"python": "2.7", "locked": {"msgspec": "0.0", "nosuch": "1"}})
        self.assertEqual(lines[0], f"Python is {here} there and 2.7 here")
        self.assertEqual(lines[2], "nosuch is missing there, 1 is locked")
        self.assertEqual(len(lines), 3)


if __name__ == "__main__":
    unittest.main()

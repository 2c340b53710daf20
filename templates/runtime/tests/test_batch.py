"""`batch` as it is started: every format, bad rows, kills, shares of several machines, workers, pipes."""

import contextlib
import csv
import gzip
import hashlib
import importlib.util
import json
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import unittest

from mlrails_runtime.batch.lines import Lines, blank_csv, blank_json
from mlrails_runtime.batch.text import CsvReader, LinesReader

ARROW = importlib.util.find_spec("pyarrow") is not None
HERE = pathlib.Path(__file__).resolve().parent
APP = """
import os
import signal

made = 0


def pipeline(frozen, rows):
    global made
    made += len(rows)
    if (rows["amount"] == -1).any():
        raise ValueError("an inner detail")
    if made > int(os.environ.get("DIE_AFTER", 1 << 60)):
        os.kill(os.getpid(), signal.SIGKILL)
    return (rows["amount"] * 2 + frozen["offset"]).tolist()
"""


def service(folder):
    (folder / "artifacts").mkdir()
    (folder / "artifacts/offset.json").write_text("1.0\n")
    (folder / "app.py").write_text(APP)
    columns = [
        {"name": "amount", "type": "number", "dtype": "float64", "required": True, "nullable": False},
        {"name": "plan", "type": "string", "dtype": "object", "required": False, "nullable": True},
    ]
    document = {
        "schema": 1,
        "name": "tiny",
        "request": {"kind": "table", "columns": columns},
        "response": {"kind": "list", "items": {"type": "number"}},
        "frozen": [{"name": "offset", "file": "offset.json", "format": "json", "sha256": hashlib.sha256(b"1.0\n").hexdigest()}],
    }
    (folder / "service.json").write_text(json.dumps(document))


class Reading(unittest.TestCase):
    """What is skipped without looking is what would have been read."""

    def check(self, kind, blob):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "rows")
            path.write_bytes(blob)

            class Decoder:
                columns = []

            def opened():
                return kind(open(path, "rb"), "rows", Decoder)

            reader = opened()
            rows, places = [], []
            while True:
                places.append((reader.row, reader.offset))
                chunk = reader.read(1)
                if not chunk.count:
                    break
                rows.append(chunk.original(0))
            reader.close()
            for row, offset in places:
                for hint in (None, offset):
                    reader = opened()
                    reader.seek(row, hint)
                    self.assertEqual(reader.row, row)
                    chunk = reader.read(2)
                    self.assertEqual([chunk.original(at) for at in range(chunk.count)], rows[row : row + 2], (blob, row, hint))
                    reader.close()
            return rows

    def test_a_place_is_found_by_bytes_and_by_rows(self):
        some = random.Random(1)
        pieces = [b"a,1\n", b"b,2\r\n", b"\n", b"\r\n", b'"x\ny",3\n', b'"d""q\n\n",4\n', b" \n", b'"bad"x,1\n', b"\xff,1\n", b"1,2,3\n", b'5" pipe,7\n']
        for _ in range(200):
            blob = b"k,v\n" + b"".join(some.choice(pieces) for _ in range(some.randrange(12)))
            self.check(CsvReader, blob if some.random() < 0.7 else blob[:-1] + b"")
        pieces = [b'{"a":1}\n', b'{"a": [1, "\\n"]}\r\n', b"\n", b"  \n", b"{bad\n", b"\xff\n"]
        for _ in range(200):
            blob = b"".join(some.choice(pieces) for _ in range(some.randrange(12)))
            self.check(LinesReader, blob if some.random() < 0.7 else blob[:-1])
        self.assertEqual(len(self.check(CsvReader, b'\xef\xbb\xbfk,v\n"a\nb",1\n')), 1)

    def test_many_lines_are_skipped_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "rows")
            path.write_bytes(b"".join(b"%d\n" % at for at in range(300_000)))
            for most in (1, 15, 16, 17, 1000, 54_321):
                for blank in (blank_csv, blank_json):
                    lines = Lines(open(path, "rb"), "rows")
                    self.assertEqual(lines.skip_plain(most, blank), most)
                    self.assertEqual(next(lines), b"%d\n" % most)
                    lines.close()


class Batch(unittest.TestCase):
    def setUp(self):
        self.scope = contextlib.ExitStack()
        self.addCleanup(self.scope.close)
        self.folder = pathlib.Path(self.scope.enter_context(tempfile.TemporaryDirectory()))
        self.app = self.folder / "app"
        self.app.mkdir()
        service(self.app)

    def path(self, name):
        return f"{self.folder}/{name}"

    def run_it(self, *words, code=0, stdin=b"", env=()):
        environment = {"PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MLRAILS_APP": str(self.app), **dict(env)}
        command = [sys.executable, "-m", "mlrails_runtime", "batch", *words]
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
        said = done.stderr.decode()
        self.assertEqual(done.returncode, code, said)
        self.assertNotIn("Traceback", said)
        self.assertNotIn("Exception ignored", said)
        self.said, self.out = said, done.stdout
        return json.loads(said.splitlines()[-1]) if code == 0 else None

    def rows(self, name, first, count):
        with open(self.path(name), "w", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(["id", "amount", "plan"])
            out.writerows([f"r{at}", at, "a \"b\"\nc" if at % 7 == 0 else "pro"] for at in range(first, first + count))

    def tree(self, name):
        """Every file below, by name and content; or the file's own content."""
        top = self.folder / name
        if top.is_file():
            return top.read_bytes()
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file() and "_parts" not in path.parts}

    def test_every_text_format_to_every_other(self):
        self.rows("rows.csv", 0, 50)
        self.run_it("--input", self.path("rows.csv"), "--output", self.path("a.jsonl.gz"), "--chunk", "7", "--part-rows", "20")
        with gzip.open(self.path("a.jsonl.gz"), "rt") as file:
            records = [json.loads(line) for line in file]
        self.assertEqual(records[7], {"id": "r7", "amount": 7.0, "plan": 'a "b"\nc', "prediction": 15.0})
        self.assertEqual(len(records), 50)
        self.run_it("--input", self.path("a.jsonl.gz"), "--output", self.path("b.csv"), "--keep", "id,amount")
        with open(self.path("b.csv"), newline="") as file:
            self.assertEqual(list(csv.reader(file))[:3], [["id", "amount", "prediction"], ["r0", "0.0", "1.0"], ["r1", "1.0", "3.0"]])
        self.assertFalse(list(self.folder.glob("*.parts")) + list(self.folder.glob("*.tmp")))

    def test_several_inputs_are_one_output_or_a_folder(self):
        for at in range(3):
            self.rows(f"day-{at}.csv", at * 30, 30)
        told = self.run_it("--input", self.path("day-*.csv"), "--output", self.path("all.csv"), "--part-rows", "8", "--chunk", "4")
        self.assertEqual((told["scored"], told["rejected"]), (90, 0))
        with open(self.path("all.csv"), newline="") as file:
            found = list(csv.DictReader(file))
        self.assertEqual([row["id"] for row in found], [f"r{at}" for at in range(90)])
        self.run_it("--input", *[self.path(f"day-{at}.csv") for at in range(3)], "--output", self.path("many/"))
        self.assertEqual(sorted(self.tree("many")), [f"part-{at:05}-00000.csv" for at in range(3)])
        # What is a folder of parts is an input again.
        self.run_it("--input", self.path("many"), "--output", self.path("again.csv"), "--keep", "id,amount,plan")
        self.assertEqual(self.tree("again.csv"), self.tree("all.csv"))

    def test_rejected_rows_go_to_a_file_with_their_reasons(self):
        lines = [b'{"amount": 1}', b'{"amount": "x", "id": 1}', b"{bad", b'{"amount": -1}', b'{"amount": 2, "big": 12345678901234567890123}', b"\xff"]
        (self.folder / "rows.jsonl").write_bytes(b"\n".join(lines))
        words = ["--input", self.path("rows.jsonl"), "--output", self.path("o.jsonl")]
        self.run_it(*words, code=1)
        self.assertIn("row 2: column amount: expected a number, got a string", self.said)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["app", "rows.jsonl"])
        told = self.run_it(*words, "--on-error", "skip", "--rejected", self.path("bad.jsonl"))
        self.assertEqual((told["scored"], told["rejected"]), (2, 4))
        expected = b'{"amount":1,"prediction":3.0}\n{"amount":2,"big":12345678901234567890123,"prediction":5.0}\n'
        self.assertEqual(self.tree("o.jsonl"), expected)
        bad = [json.loads(line) for line in self.tree("bad.jsonl").splitlines()]
        self.assertEqual([(one["row"], one["errors"][0]["rule"]) for one in bad], [(2, "type"), (3, "json"), (4, "predict"), (6, "json")])
        self.assertEqual(bad[0]["record"], {"amount": "x", "id": 1})
        self.assertIn("an inner detail", bad[2]["errors"][0]["message"])

    def test_csv_that_is_broken_loses_only_its_bad_rows(self):
        blob = b'id,amount\na,1\nb\nc,x\nd,2,3\n"e"f,4\ng,\xff\nh\xff,5\ni,6\n'
        (self.folder / "rows.csv").write_bytes(blob)
        words = ["--input", self.path("rows.csv"), "--output", self.path("o.csv"), "--on-error", "skip", "--rejected", self.path("bad.jsonl")]
        self.run_it(*words)
        self.assertEqual(self.tree("o.csv"), b"id,amount,prediction\na,1,3.0\ni,6,13.0\n")
        bad = [json.loads(line) for line in self.tree("bad.jsonl").splitlines()]
        self.assertEqual([one["row"] for one in bad], [2, 3, 4, 5, 6, 7])
        (self.folder / "rows.csv").write_bytes(b"id,price\na,1\n")
        self.run_it(*words, code=1)
        self.assertIn("there is no column amount; it has id, price", self.said)

    def killed(self, source, output, *words):
        """Killed by itself in the middle, gone on, and the same bytes as without."""
        words = ["--input", self.path(source), "--part-rows", "64", "--chunk", "16", "--workers", "1", *words]
        self.run_it(*words, "--output", self.path(f"whole-{output}"))
        self.run_it(*words, "--output", self.path(output), code=-signal.SIGKILL, env={"DIE_AFTER": "300"})
        if not output.endswith("/"):
            self.assertFalse(os.path.exists(self.path(output)))
        told = self.run_it(*words, "--output", self.path(output))
        self.assertEqual(told["parts_there"], 4)
        self.assertEqual(told["scored"], 500)
        self.assertEqual(self.tree(output), self.tree(f"whole-{output}"))

    def test_a_killed_job_goes_on_to_the_same_bytes(self):
        self.rows("rows.csv", 0, 500)
        self.killed("rows.csv", "o.csv")
        self.killed("rows.csv", "o.jsonl.gz")
        self.killed("rows.csv", "parts/")
        self.run_it("--input", self.path("rows.csv"), "--output", self.path("rows.jsonl"))
        self.killed("rows.jsonl", "p.csv")
        # A changed input is another job.
        words = ["--input", self.path("rows.csv"), "--output", self.path("q.csv"), "--part-rows", "64", "--chunk", "16"]
        self.run_it(*words, code=-signal.SIGKILL, env={"DIE_AFTER": "300"})
        self.rows("rows.csv", 1000, 500)
        self.assertNotIn("parts_there", self.run_it(*words))
        self.assertIn(b"r1000,1000,pro,2001.0\n", self.tree("q.csv"))

    @unittest.skipUnless(ARROW, "needs pyarrow")
    def test_columnar_formats(self):
        import pyarrow
        from pyarrow import ipc, parquet

        table = pyarrow.table({"id": list(range(500)), "amount": pyarrow.array(range(500), pyarrow.float32()), "plan": pyarrow.array(["a", None] * 250).dictionary_encode()})
        parquet.write_table(table, self.path("rows.parquet"), row_group_size=90)
        with ipc.new_file(self.path("rows.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=77)
        with ipc.new_stream(self.path("rows.arrows"), table.schema) as file:
            file.write_table(table, max_chunksize=50)
        for source in ("rows.parquet", "rows.arrow", "rows.arrows"):
            for output in ("o.parquet", "o.arrow", "o.arrows", "o.csv", "parts/"):
                with self.subTest(source=source, output=output):
                    for name in (output, f"whole-{output}"):
                        subprocess.run(["rm", "-rf", self.path(name)], check=True)
                    self.killed(source, output)
            found = parquet.read_table(self.path("o.parquet"))
            self.assertEqual(found.column_names, ["id", "amount", "plan", "prediction"])
            self.assertEqual(found.schema.field("amount").type, pyarrow.float32())
            self.assertEqual(found["prediction"].to_pylist(), [at * 2 + 1.0 for at in range(500)])
            self.assertEqual(found["plan"].to_pylist(), ["a", None] * 250)
        self.run_it("--input", self.path("o.csv"), "--output", self.path("c.parquet"))
        self.assertEqual(parquet.read_table(self.path("c.parquet"))["prediction"].to_pylist(), found["prediction"].to_pylist())
        stdin = (self.folder / "rows.arrows").read_bytes()
        self.run_it("--input", "-", "--output", "-", "--input-format", "arrows", "--chunk", "100", "--part-rows", "200", stdin=stdin)
        self.assertEqual(ipc.open_stream(self.out).read_all()["prediction"].to_pylist(), found["prediction"].to_pylist())

    def test_inputs_that_break_off_are_refused(self):
        self.rows("rows.csv", 0, 5000)
        packed = gzip.compress(self.tree("rows.csv"))
        for damaged in (packed[:-9], packed[:900] + b"\xff" * 100 + packed[1000:], b"no gzip"):
            (self.folder / "cut.csv.gz").write_bytes(damaged)
            self.run_it("--input", self.path("cut.csv.gz"), "--output", self.path("o.csv"), "--on-error", "skip", code=1)
            self.assertFalse((self.folder / "o.csv").exists())
        if not ARROW:
            return
        for name in ("rows.parquet", "rows.arrow", "rows.arrows"):
            self.run_it("--input", self.path("rows.csv"), "--output", self.path(name))
            whole = self.tree(name)
            for damaged in (whole[: len(whole) // 2], whole[:2000] + b"\xff" * 400 + whole[2400:], b""):
                (self.folder / f"cut-{name}").write_bytes(damaged)
                environment = {"PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MLRAILS_APP": str(self.app)}
                command = [sys.executable, "-m", "mlrails_runtime", "batch", "--input", self.path(f"cut-{name}"), "--output", self.path("o.csv")]
                done = subprocess.run(command, capture_output=True, env=environment)
                # Bytes of a value may be overwritten without a word of the format's; then it is the answer that tells.
                self.assertIn(done.returncode, (0, 1), done.stderr)
                self.assertNotIn(b"Traceback", done.stderr)

    @unittest.skipIf(ARROW, "pyarrow is here")
    def test_columnar_formats_without_pyarrow_are_refused(self):
        self.rows("rows.csv", 0, 5)
        self.run_it("--input", self.path("rows.csv"), "--output", self.path("o.parquet"), code=1)
        self.assertIn("parquet needs pyarrow", self.said)

    def test_shares_of_machines_and_workers_make_what_one_makes(self):
        for at in range(2):
            self.rows(f"day-{at}.csv", at * 100, 100)
        words = ["--input", self.path("day-*.csv"), "--part-rows", "16", "--chunk", "16"]
        self.run_it(*words, "--output", self.path("one/"))
        for at in range(3):
            self.run_it(*words, "--output", self.path("shares/"), env={"JOB_COMPLETION_INDEX": str(at), "JOB_COMPLETIONS": "3"})
        self.assertEqual(self.tree("shares"), self.tree("one"))
        for at in range(2):
            self.run_it(*words, "--output", self.path("both/"), "--partition", f"{at}/2", "--workers", "2")
        self.assertEqual(self.tree("both"), self.tree("one"))
        self.run_it(*words, "--output", self.path("one.csv"))
        self.run_it(*words, "--output", self.path("workers.csv"), "--workers", "2")
        self.assertEqual(self.tree("workers.csv"), self.tree("one.csv"))
        self.run_it(*words, "--output", self.path("x.csv"), "--partition", "0/2", code=2)
        self.run_it(*words, "--output", self.path("x/"), env={"JOB_COMPLETION_INDEX": "0"}, code=2)
        self.assertIn("JOB_COMPLETIONS", self.said)

    @unittest.skipIf(importlib.util.find_spec("ray") or importlib.util.find_spec("distributed"), "they are there")
    def test_an_engine_that_is_not_there_is_named(self):
        self.rows("rows.csv", 0, 10)
        for engine, needed in (("ray", "ray"), ("dask", "distributed")):
            words = ["--input", self.path("rows.csv"), "--output", self.path("o.csv"), "--engine", engine]
            self.run_it(*words, "--engine-address", "127.0.0.1:1", code=1)
            self.assertIn(f'`[dependencies] keep = ["{needed}"]`', self.said)
        self.run_it("--input", self.path("rows.csv"), "--output", self.path("o.csv"), "--engine-address", "x:1", code=2)
        self.assertFalse(list(self.folder.glob("o.csv*")))

    def full(self, *outputs):
        """A disk that gets full: 3, as retrying may help; with room the same command goes on, and leaves nothing else."""
        self.rows("rows.csv", 0, 20_000)
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        for output in outputs:
            words = ["--input", self.path("rows.csv"), "--part-rows", "2048", "--chunk", "1024"]
            self.run_it(*words, "--output", self.path(f"whole-{output}"), "--workers", "1")
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], check=True)
            try:
                for workers in ("1", "2"):
                    self.run_it(*words, "--output", f"{disk}/{output}", "--workers", workers, code=3)
                    self.assertIn("No space left on device", self.said)
                    self.assertFalse([path for path in disk.rglob("*") if path.suffix == ".tmp"])
                    self.assertFalse((disk / "o.csv").exists())
                subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
                self.assertGreaterEqual(self.run_it(*words, "--output", f"{disk}/{output}", "--workers", "1")["parts_there"], 1)
                self.assertEqual(self.tree(f"disk/{output}"), self.tree(f"whole-{output}"))
            finally:
                subprocess.run(["umount", str(disk)], check=True)

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small disk, as root")
    def test_a_full_disk_is_told_apart_from_a_wrong_input(self):
        self.full("o.csv", "parts/")

    @unittest.skipUnless(ARROW and os.geteuid() == 0, "needs pyarrow, and mounts a small disk as root")
    def test_a_full_disk_under_columnar_formats(self):
        self.full("o.parquet", "o.arrow")

    def test_a_full_device_behind_stdout(self):
        self.rows("rows.csv", 0, 2000)
        environment = {"PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MLRAILS_APP": str(self.app)}
        with open("/dev/full", "wb") as device:
            command = [sys.executable, "-m", "mlrails_runtime", "batch", "--input", self.path("rows.csv"), "--output", "-"]
            done = subprocess.run(command, stdout=device, stderr=subprocess.PIPE, env=environment)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn(b"No space left on device", done.stderr)
        self.assertNotIn(b"Traceback", done.stderr)
        self.assertNotIn(b"Exception ignored", done.stderr)

    def test_what_a_project_prints_is_no_answer(self):
        self.rows("rows.csv", 0, 40)
        (self.app / "app.py").write_text("import os\nprint('loaded')\n" + APP.replace("global made", "global made; print('scored'); os.write(1, b'raw\\n')"))
        words = ["--input", self.path("rows.csv"), "--keep", "id", "--chunk", "8", "--part-rows", "8", "--output"]
        self.run_it(*words, "-")
        self.assertEqual(self.out.splitlines()[:2], [b"id,prediction", b"r0,1.0"])
        self.assertEqual(len(self.out.splitlines()), 41)
        self.assertIn("scored", self.said)
        self.run_it(*words, self.path("o.csv"), "--workers", "2")
        self.assertEqual((self.tree("o.csv").count(b"\n"), self.out), (41, b""))

    def test_pipes(self):
        self.run_it("--input", "-", "--output", "-", "--keep", "id", "--chunk", "2", "--part-rows", "2", stdin=b"id,amount\na,1\nb,2\nc,3\n")
        self.assertEqual(self.out, b"id,prediction\na,3.0\nb,5.0\nc,7.0\n")
        self.run_it("--input", "-", "--output", self.path("o.csv"), "--part-rows", "2", "--chunk", "2", stdin=b"id,amount\na,1\nb,2\nc,3\n")
        self.assertEqual(self.tree("o.csv"), b"id,amount,prediction\na,1,3.0\nb,2,5.0\nc,3,7.0\n")
        self.run_it("--input", "-", "--output", "-", "--input-format", "jsonl", stdin=b'{"amount":1}\n{"amount":2}')
        self.assertEqual(self.out, b'{"amount":1,"prediction":3.0}\n{"amount":2,"prediction":5.0}\n')

    @unittest.skipUnless(importlib.util.find_spec("fsspec"), "needs fsspec")
    def test_urls_go_through_fsspec(self):
        self.rows("rows.csv", 0, 100)
        self.run_it("--input", self.path("rows.csv"), "--output", self.path("o.csv"))
        url = f"local://{self.folder}"
        self.run_it("--input", f"{url}/row*.csv", "--output", f"{url}/url.csv", "--part-rows", "16", "--chunk", "16")
        self.assertEqual(self.tree("url.csv"), self.tree("o.csv"))
        words = ["--input", f"{url}/rows.csv", "--part-rows", "16", "--chunk", "16", "--output"]
        self.run_it(*words, f"{url}/whole/")
        self.run_it(*words, f"{url}/parts/", code=-signal.SIGKILL, env={"DIE_AFTER": "70"})
        self.assertEqual(self.run_it(*words, f"{url}/parts/")["parts_there"], 4)
        self.assertEqual(self.tree("parts"), self.tree("whole"))
        self.run_it("--input", "nowhere://x/y.csv", "--output", f"{url}/n.csv", code=1)


    def test_memory_does_not_grow_with_the_input(self):
        text = "x" * 4000
        with gzip.open(self.path("rows.csv.gz"), "wt", compresslevel=1) as file:
            file.write("amount,plan\n")
            for at in range(100):
                file.write("".join(f"{at},{text}\n" for _ in range(1000)))
        command = [sys.executable, "-m", "mlrails_runtime", "batch", "--input", self.path("rows.csv.gz"), "--output", self.path("o.csv"), "--keep", "amount"]
        environment = {"PYTHONPATH": str(HERE.parent), "PYTHONDONTWRITEBYTECODE": "1", "MLRAILS_APP": str(self.app)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(child.returncode, 0)
        self.assertEqual(self.tree("o.csv").count(b"\n"), 100_001)
        # 400 MB of rows.
        self.assertLess(used.ru_maxrss, 350 << 10)

    @unittest.skipUnless(importlib.util.find_spec("sqlalchemy"), "needs sqlalchemy")
    def test_a_query_is_an_input(self):
        base = sqlite3.connect(self.path("base.db"))
        base.execute("create table rows (id integer, amount real, plan text)")
        base.executemany("insert into rows values (?, ?, ?)", [(at, at / 2, None if at % 3 else "pro") for at in range(500)])
        base.commit()
        url = f"sqlite:///{self.folder}/base.db"
        words = ["--input", "env:BASE", "--query", "select * from rows order by id", "--part-rows", "64", "--chunk", "16", "--output"]
        for whole, output in (("whole.csv", "o.csv"), ("whole/", "o/")):
            self.run_it(*words, self.path(whole), env={"BASE": url})
            self.run_it(*words, self.path(output), env={"BASE": url, "DIE_AFTER": "300"}, code=-signal.SIGKILL)
            told = self.run_it(*words, self.path(output), env={"BASE": url})
            self.assertEqual((told["scored"], told["parts_there"]), (500, 4))
            self.assertEqual(self.tree(output), self.tree(whole))
        self.assertTrue(self.tree("o.csv").startswith(b"id,amount,plan,prediction\n0,0.0,pro,1.0\n1,0.5,,2.0\n"))
        # What the database holds may have changed: a job that ended is not gone on with.
        self.assertNotIn("parts_there", self.run_it(*words, self.path("o/"), env={"BASE": url}))
        self.run_it("--input", url, "--query", "select * from rows", "--output", self.path("x.csv"), code=2)
        self.run_it("--input", url, "--query", "select * from absent order by 1", "--output", self.path("x.csv"), code=1)
        self.assertIn("no such table: absent", self.said)
        self.run_it("--input", "nosuch://me:secret@host/x", "--query", "select 1 order by 1", "--output", self.path("x.csv"), code=1)
        self.assertNotIn("secret", self.said)


if __name__ == "__main__":
    unittest.main()

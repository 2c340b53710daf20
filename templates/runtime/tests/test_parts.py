"""Frames, answers, settings, the shared board and its metrics."""

import json
import os
import pathlib
import tempfile
import types
import unittest

import numpy
import pandas

from mlrails_runtime import access, frame, metrics, openapi, problem, service, settings, tables, trace
from mlrails_runtime.board import Board
from mlrails_runtime.columns import Column
from mlrails_runtime.decode import ABSENT


def column(kind, dtype, **more):
    return Column.from_schema({"name": f"{kind} {dtype}", "type": kind, "dtype": dtype, **more})


class Frames(unittest.TestCase):
    def test_every_dtype_is_the_recorded_one(self):
        import datetime

        noon = datetime.datetime(2024, 5, 31, 12)
        utc = noon.replace(tzinfo=datetime.timezone.utc)
        cases = [
            (column("integer", "int64"), (1, 2)),
            (column("integer", "int8"), (1, -2)),
            (column("integer", "uint64"), (1, 2**64 - 1)),
            (column("integer", "Int64", nullable=True), (1, None)),
            (column("number", "float64", nullable=True), (1.5, None)),
            (column("number", "float32"), (1.5, 2.0)),
            (column("boolean", "bool"), (True, False)),
            (column("boolean", "boolean", nullable=True), (True, None)),
            (column("string", "object", nullable=True), ("a", None)),
            (column("string", "string", nullable=True), ("a", None)),
            (column("string", "category", categories=["b", "a"]), ("a", "b")),
            (column("datetime", "datetime64[ns]", nullable=True), (noon, None)),
            (column("datetime", "datetime64[ns, UTC]"), (utc, utc)),
            (column("object", "object"), ([1, 2], [3, 4])),
        ]
        columns = [made for made, _ in cases]
        built = frame.table(columns)(list(zip(*(values for _, values in cases))))
        for made, values in cases:
            self.assertEqual(str(built[made.name].dtype), made.dtype)
            self.assertEqual(len(built), len(values))
        self.assertEqual(built["object object"].tolist(), [[1, 2], [3, 4]])
        self.assertEqual(list(built["string category"].cat.categories), ["b", "a"])
        self.assertTrue(built["number float64"].isna().tolist(), [False, True])

    def test_one_row_and_none(self):
        build = frame.table([column("number", "float64"), column("string", "object")])
        self.assertEqual(build([(1.0, "a")]).shape, (1, 2))
        empty = build([])
        self.assertEqual((empty.shape, [str(kind) for kind in empty.dtypes]), ((0, 2), ["float64", "object"]))

    def test_records_leave_out_what_was_not_sent(self):
        build = frame.records([Column("a", "integer"), Column("b", "string", required=False)])
        self.assertEqual(build([(1, ABSENT), (2, None)]), [{"a": 1}, {"a": 2, "b": None}])


class Answers(unittest.TestCase):
    def test_one_item_per_row_from_what_models_return(self):
        for answer, expected in [
            ([1, 2], [1, 2]),
            ((1, 2), [1, 2]),
            (numpy.array([[1.0, 2.0], [3.0, 4.0]]), [[1.0, 2.0], [3.0, 4.0]]),
            (pandas.Series([1, 2], index=[7, 8]), [1, 2]),
            (pandas.DataFrame({"p": [0.5, 1.0]}), [{"p": 0.5}, {"p": 1.0}]),
        ]:
            self.assertEqual(service.per_row(answer, 2), expected)
        for answer in [[1], {"p": 1}, 5, "ab", None]:
            with self.assertRaises(service.NotPerRow):
                service.per_row(answer, 2)

    def test_same_is_within_tolerance(self):
        self.assertTrue(service.same([{"p": 1.0, "label": "a"}], [{"p": 1.0 + 1e-12, "label": "a"}]))
        for want, got in [(1.0, 1.0001), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (True, 1), (None, 0.0), ("a", "b")]:
            self.assertFalse(service.same(want, got), (want, got))


class Settings(unittest.TestCase):
    def test_the_first_variable_that_is_set_wins(self):
        self.assertEqual(settings.read({"PORT": "1", "AIP_HTTP_PORT": "2"}).port, 2)
        self.assertEqual(settings.read({"MLRAILS_PORT": "3", "PORT": "1"}).port, 3)
        self.assertEqual(settings.read({}).port, 8080)
        self.assertEqual(settings.read({"MLRAILS_MAX_BODY": "2MiB"}).max_body, 2 << 20)

    def test_a_bad_value_names_its_variable(self):
        for name, value in [("PORT", "x"), ("PORT", "70000"), ("MLRAILS_TIMEOUT", "nan"), ("MLRAILS_QUEUE", "0"), ("AIP_HEALTH_ROUTE", "health")]:
            with self.assertRaisesRegex(settings.Refused, name):
                settings.read({name: value})

    def test_cgroup_limits(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            self.assertIsNone(settings._cpu_quota(folder))
            (root / "cpu.max").write_text("150000 100000\n")
            (root / "memory.max").write_text("1073741824\n")
            self.assertEqual((settings._cpu_quota(folder), settings._memory_limit(folder)), (1.5, 1 << 30))
            (root / "cpu.max").write_text("max 100000\n")
            (root / "memory.max").write_text("max\n")
            self.assertEqual((settings._cpu_quota(folder), settings._memory_limit(folder)), (None, None))

    def test_a_secret_is_read_where_it_runs(self):
        os.environ["A_TEST_SECRET"] = "value"
        self.assertEqual(settings.secret("env:A_TEST_SECRET"), "value")
        with self.assertRaisesRegex(settings.Refused, "A_MISSING_SECRET"):
            settings.secret("env:A_MISSING_SECRET")


    def test_the_documents_table_is_this_table(self):
        text = (pathlib.Path(__file__).parents[3] / "docs/configuration.md").read_text()
        for name, variables, _, default, meaning in settings.TABLE:
            shown = "-" if default is None else int(default) if isinstance(default, bool) else default
            if name in ("max_body", "max_header", "body_memory"):
                shown = f"{default >> 20} MiB" if default >= 1 << 20 else f"{default >> 10} KiB"
            line = f"| {', '.join(f'`{variable}`' for variable in variables)} | {shown} | {meaning} |"
            self.assertIn(line, text)

    def test_cloud_run_waits_ten_seconds(self):
        self.assertEqual(settings.read({"K_SERVICE": "churn"}).stop_timeout, 8.0)
        self.assertEqual(settings.read({"K_SERVICE": "churn", "MLRAILS_STOP_TIMEOUT": "5"}).stop_timeout, 5.0)

    def test_a_batch_transform_says_how_large_its_requests_are(self):
        transform = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}
        self.assertEqual(settings.read(transform).max_body, 100 << 20)
        self.assertEqual(settings.read({**transform, "MLRAILS_MAX_BODY": "1m"}).max_body, 1 << 20)
        self.assertEqual(settings.read({**transform, "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6"}).max_body, 16 << 20)
        self.assertEqual(settings.read({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}).max_body, 16 << 20)

    def test_a_port_is_the_first_that_is_set(self):
        self.assertEqual(settings.read({"PORT": "1", "SAGEMAKER_BIND_TO_PORT": "2"}).port, 2)
        self.assertEqual(settings.read({"PORT": "1", "AIP_HTTP_PORT": "3", "MLRAILS_PORT": "4"}).port, 4)


class Documents(unittest.TestCase):
    def test_the_document_says_what_is_true_of_this_process(self):
        def made():
            content = {"text/csv": {}, tables.ARROW: {}, tables.PARQUET: {}}
            post = {"requestBody": {"content": content}, "responses": {"200": {"content": content}, "401": {}}}
            return {"paths": {"/predict": {"post": post}}, "components": {"securitySchemes": {"token": {}}}}

        def said(tables_here, closed):
            served = types.SimpleNamespace(openapi=lambda: json.dumps(made()).encode(), tables=tables_here)
            return json.loads(openapi.true_here(served, closed))

        self.assertEqual(said(object(), True), {**made(), "security": [{"token": []}]})
        post = {"requestBody": {"content": {"text/csv": {}}}, "responses": {"200": {"content": {"text/csv": {}}}}}
        self.assertEqual(said(None, False), {"paths": {"/predict": {"post": post}}, "components": {}})
        self.assertIsNone(openapi.true_here(types.SimpleNamespace(openapi=lambda: None, tables=None), False))


class Access(unittest.TestCase):
    def test_one_of_the_tokens_is_needed_and_the_file_may_change(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "tokens"
            path.write_text("old\n\nnew\n")
            tokens = access.Tokens(path)
            for good in ("Bearer old", "bearer new"):
                tokens.check({"authorization": good})
            for bad in (None, "", "Bearer", "Bearer ", "Basic old", "Bearer olD", "Bearer old new"):
                with self.assertRaises(problem.Problem) as caught:
                    tokens.check({"authorization": bad})
                self.assertEqual((caught.exception.status, caught.exception.headers), (401, [("www-authenticate", "Bearer")]))
            path.write_text("newer\n")
            tokens.check({"authorization": "Bearer newer"})
            with self.assertRaises(problem.Problem):
                tokens.check({"authorization": "Bearer old"})
            path.unlink()
            tokens.check({"authorization": "Bearer newer"})
            path.write_text(" \n")
            with self.assertRaisesRegex(ValueError, "no token"):
                access.Tokens(path)


class Traces(unittest.TestCase):
    def test_what_the_environment_asks_for(self):
        def tracer(**environment):
            return trace.from_environment("churn", "1", environment)

        self.assertIsNone(tracer())
        self.assertIsNone(tracer(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318", OTEL_SDK_DISABLED="true"))
        self.assertIsNone(tracer(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318", OTEL_TRACES_EXPORTER="none"))
        self.assertEqual(tracer(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318/")._parts.path, "/v1/traces")
        for wrong in [{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"OTEL_TRACES_SAMPLER": "mine"}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "c:4318"}]:
            with self.assertRaises(ValueError):
                tracer(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318", **wrong)

    def test_parents_decide_and_broken_ones_are_none(self):
        made = trace.from_environment("churn", "1", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})
        trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        span = made.begin({"traceparent": f"00-{trace_id}-{span_id}-01"})
        self.assertEqual((span.trace, span.parent), (trace_id, span_id))
        self.assertIsNone(made.begin({"traceparent": f"00-{trace_id}-{span_id}-00"}))
        for broken in (None, "", f"ff-{trace_id}-{span_id}-01", f"00-{'0' * 32}-{span_id}-01", f"00-{trace_id}-01", "x" * 9999):
            self.assertIsNone(made.begin({"traceparent": broken}).parent)


class Shared(unittest.TestCase):
    def test_workers_see_each_other_and_a_dead_ones_slot_is_taken(self):
        board = Board(2, 4)
        mine = board.claim()
        child = os.fork()
        if child == 0:
            slot = board.claim()
            slot.cells[0] = 5.0
            slot.ready()
            os._exit(0)
        os.waitpid(child, 0)
        mine.cells[0] = 2.0
        self.assertEqual(board.total(0), 7.0)
        self.assertFalse(mine.is_ready())
        mine.ready()
        self.assertTrue(mine.is_ready())
        board.drain()
        self.assertFalse(mine.is_ready())

    def test_the_text_is_prometheus(self):
        columns = [column("number", "float64"), column("string", "object", categories=["a", "b"], nullable=True)]
        served = types.SimpleNamespace(name='ch"urn', version="1", document={}, columns=columns)
        board = Board(1, metrics.cells(served))
        made = metrics.Metrics(board.claim(), served)
        made.looked_at([(1.0, "a"), (2.0, None), (3.0, ABSENT), (4.0, "new"), (5.0, "newer")])
        made.started()
        made.answered("/predict", 200, 0.003)
        made.scored(3, 0.002)
        lines = made.text().splitlines()
        for line in [
            'mlrails_requests_total{route="/predict",status="200"} 1',
            'mlrails_request_seconds_bucket{le="0.0025"} 0',
            'mlrails_request_seconds_bucket{le="0.005"} 1',
            'mlrails_request_seconds_bucket{le="+Inf"} 1',
            "mlrails_batch_rows_sum 3.0",
            "mlrails_rows_total 3",
            "mlrails_in_flight_requests 0",
            'mlrails_unseen_categories_total{column="string object"} 2',
            "mlrails_worker_restarts_total 0",
            'mlrails_model_info{name="ch\\"urn",version="1",run=""} 1',
        ]:
            self.assertIn(line, lines)


class Words(unittest.TestCase):
    def test_what_is_missing_among_words_of_pandas_own_dtype_is_no_word(self):
        # What pandas 3 does by default.
        with pandas.option_context("future.infer_string", True):
            build = frame.table([Column("word", "string", "str", nullable=True), Column("number", "number", "float64")])
            made = build([("x", 1.0), (None, 2.0)])
        self.assertEqual(str(made["word"].dtype), "str")
        self.assertEqual(made["word"].isna().tolist(), [False, True])


if __name__ == "__main__":
    unittest.main()

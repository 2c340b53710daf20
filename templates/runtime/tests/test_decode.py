"""Bodies to rows: every shape, and every rule by its row and column."""

import datetime
import unittest

import msgspec

from mlrails_runtime.columns import Column
from mlrails_runtime.decode import ABSENT, Decoder, parse_with_nan
from mlrails_runtime.problem import Problem

SCHEMA = [
    {"name": "age", "type": "integer", "dtype": "int64", "required": True, "nullable": False},
    {"name": "monthly spend", "type": "number", "dtype": "float64", "required": True, "nullable": True},
    {"name": "plan", "type": "string", "dtype": "object", "required": False, "nullable": True},
]


def decoder(schema=SCHEMA, absent=None):
    return Decoder([Column.from_schema(entry) for entry in schema], absent)


def one(kind, dtype, **more):
    return decoder([{"name": "c", "type": kind, "dtype": dtype, "required": True, "nullable": False, **more}])


class Shapes(unittest.TestCase):
    rows = [(40, 9.5, "pro"), (41, None, None)]

    def test_all_shapes_of_json_are_the_same_rows(self):
        bodies = [
            b'[{"age":40,"monthly spend":9.5,"plan":"pro"},{"age":41,"monthly spend":null}]',
            b'[{"age":40.0,"monthly spend":9.5,"plan":"pro"},{"age":41,"monthly spend":null,"plan":null}]',
            b'{"columns":["plan","other","age","monthly spend"],"data":[["pro",0,40,9.5],[null,0,41,null]]}',
        ]
        for body in bodies:
            self.assertEqual(decoder().json(body), self.rows, body)

    def test_one_record(self):
        self.assertEqual(decoder().json(b'{"age":40,"monthly spend":9,"plan":"pro","unknown":{"a":[1]}}'), [(40, 9.0, "pro")])

    def test_csv_with_quotes_a_byte_order_mark_and_empty_cells(self):
        body = "\ufeffplan,age,monthly spend,other\r\n\"p,r\"\"o\",40,9.5,x\r\n\r\n,41,,\r\n".encode()
        self.assertEqual(decoder().csv(body), [(40, 9.5, 'p,r"o'), (41, None, None)])

    def test_a_wrapped_list(self):
        body = b'{"instances":[{"age":40,"monthly spend":9.5,"plan":"pro"},{"age":41,"monthly spend":null}],"parameters":{}}'
        self.assertEqual(decoder().wrapped(body, "instances"), self.rows)
        self.assertEqual(decoder().wrapped(b'{"instances":[[40,9.5,"pro"],[41,null,null]]}', "instances"), self.rows)
        self.assertEqual(one("integer", "int64").wrapped(b'{"instances":[1,2]}', "instances"), [(1,), (2,)])

    def test_tensors(self):
        self.assertEqual(decoder().by_column({"age": [40, 41], "monthly spend": [9.5, None], "plan": ["pro", None]}, 2), self.rows)

    def test_columns_named_columns_and_data_are_columns(self):
        schema = [{"name": name, "type": "integer", "dtype": "int64"} for name in ("columns", "data")]
        self.assertEqual(decoder(schema).json(b'{"columns":1,"data":2}'), [(1, 2)])

    def test_a_table_of_optional_columns_is_not_taken_for_an_empty_record(self):
        schema = [{"name": "a", "type": "integer", "dtype": "int64", "required": False}]
        self.assertEqual(decoder(schema).json(b'{"columns":["a"],"data":[[1],[2]]}'), [(1,), (2,)])

    def test_what_a_record_does_not_have_is_told_from_null(self):
        rows = decoder(absent=ABSENT).json(b'[{"age":1,"monthly spend":2},{"age":1,"monthly spend":2,"plan":null}]')
        self.assertEqual([row[2] for row in rows], [ABSENT, None])

    def test_no_rows(self):
        self.assertEqual(decoder().json(b"[]"), [])


class Rules(unittest.TestCase):
    def errors(self, call, *arguments):
        with self.assertRaises(Problem) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.status, 422)
        return [(error["row"], error["column"], error["rule"]) for error in caught.exception.errors]

    def test_every_bad_field_is_named(self):
        body = b'[{"age":1,"monthly spend":1},{"age":"x","monthly spend":true,"plan":3},{"monthly spend":null},7]'
        expected = [
            (1, "age", "type"),
            (1, "monthly spend", "type"),
            (1, "plan", "type"),
            (2, "age", "required"),
            (3, None, "record"),
        ]
        self.assertEqual(self.errors(decoder().json, body), expected)

    def test_rules_of_single_values(self):
        cases = [
            (one("integer", "int64"), b"null", "not_null"),
            (one("integer", "int64"), b"1.5", "type"),
            (one("integer", "int64"), b"true", "type"),
            (one("integer", "int64"), b"9223372036854775808", "range"),
            (one("integer", "int8"), b"128", "range"),
            (one("integer", "uint8"), b"-1", "range"),
            (one("integer", "uint64"), b"18446744073709551616", "range"),
            (one("number", "float64"), b'"1"', "type"),
            (one("number", "float64"), b"1" + b"0" * 400, "finite"),
            (one("boolean", "bool"), b"1", "type"),
            (one("string", "object"), b"[]", "type"),
            (one("string", "category", categories=["a", "b"]), b'"c"', "category"),
            (one("datetime", "datetime64[ns]"), b'"yesterday"', "datetime"),
            (one("datetime", "datetime64[ns]"), b"5", "type"),
        ]
        for made, value, rule in cases:
            try:
                got = self.errors(made.json, b'{"c":' + value + b"}")
            except AssertionError:
                # A number that no JSON reader holds is refused as such.
                self.assertEqual((rule, len(value) > 300), ("finite", True), value)
                continue
            self.assertEqual(got, [(0, "c", rule)], value)

    def test_values_at_the_edge_are_taken(self):
        cases = [
            (one("integer", "int64"), b"-9223372036854775808", -(2**63)),
            (one("integer", "uint64"), b"18446744073709551615", 2**64 - 1),
            (one("integer", "uint8"), b"255", 255),
            (one("integer", "int64"), b"5.0", 5),
            (one("number", "float64"), b"7", 7.0),
            (one("string", "category", categories=["a"]), b'"a"', "a"),
        ]
        for made, value, expected in cases:
            self.assertEqual(made.json(b'{"c":' + value + b"}"), [(expected,)], value)

    def test_times(self):
        utc = datetime.timezone.utc
        naive, aware = one("datetime", "datetime64[ns]"), one("datetime", "datetime64[ns, UTC]")
        noon = datetime.datetime(2024, 5, 31, 12)
        for made, text, expected in [
            (naive, "2024-05-31T12:00:00", noon),
            (naive, "2024-05-31T14:00:00+02:00", noon),
            (naive, "2024-05-31T12:00:00Z", noon),
            (aware, "2024-05-31T12:00:00", noon.replace(tzinfo=utc)),
            (aware, "2024-05-31T14:00:00+02:00", noon.replace(tzinfo=utc)),
        ]:
            self.assertEqual(made.json(msgspec.json.encode({"c": text})), [(expected,)], text)

    def test_wrong_shapes(self):
        for body in [b"null", b"5", b'"x"', b'{"columns":"age","data":[]}', b'{"columns":["age","age"],"data":[]}', b'{"columns":["age"],"data":1}']:
            self.errors(decoder().json, body)
        self.assertEqual(self.errors(decoder().json, b'{"columns":["age"],"data":[[1,2],3]}'), [(0, None, "length"), (1, None, "length")])

    def test_what_is_no_json_is_400(self):
        for body in [b"", b"{", b"[NaN]", b'{"age":Infinity}', b"\xff", b"[" * 100_000, b'{"age":' * 100_000, b"[1]x"]:
            with self.assertRaises(Problem) as caught:
                decoder().json(body)
            self.assertEqual(caught.exception.status, 400, body[:20])

    def test_csv_that_is_none(self):
        for body, status in [(b"", 400), (b"\xff\xfe", 400), (b'age,"monthly\nspend', 400), (b"age,monthly spend\n1\n", 422)]:
            with self.assertRaises(Problem) as caught:
                decoder().csv(body)
            self.assertEqual(caught.exception.status, status, body)

    def test_errors_are_bounded(self):
        with self.assertRaises(Problem) as caught:
            decoder().json(b"[" + b",".join([b"{}"] * 500) + b"]")
        document = msgspec.json.decode(caught.exception.body("id"))
        self.assertEqual((len(document["errors"]), document["more_errors"]), (100, 900))

    def test_what_a_dtype_does_not_hold(self):
        columns = [Column("small", "number", "float32"), Column("at", "datetime", "datetime64[ns]"), Column("day", "datetime", "datetime64[us, UTC]")]
        good = {"small": 3.4e38, "at": "1677-09-22T00:00:00", "day": "0001-01-01T00:00:00"}
        one = Decoder(columns)
        self.assertEqual(len(one.json(msgspec.json.encode(good))), 1)
        for name, value in (("small", 3.5e38), ("small", -1e300), ("at", "1677-09-21T00:00:00Z"), ("at", "2262-04-12T00:00:00")):
            with self.assertRaises(Problem) as caught:
                one.json(msgspec.json.encode({**good, name: value}))
            self.assertEqual([(error["column"], error["rule"]) for error in caught.exception.errors], [(name, "range")])

    def test_values_and_what_is_wrong_with_them_are_counted_where_anyone_may_send_them(self):
        one = decoder()
        one.most_values, one.most_errors = 1000, 20
        width = len(one.columns)
        at_most = 1000 // width
        record = b'{"age":1,"monthly spend":1}'
        for count, status in ((at_most + 1, 413), (at_most, 422)):
            for body in (b"[" + b",".join([b"{}"] * count) + b"]", b'{"columns":[],"data":[' + b",".join([b"[]"] * count) + b"]}"):
                with self.assertRaises(Problem) as caught:
                    one.json(body)
                self.assertEqual(caught.exception.status, status, body[:40])
            self.assertLess(len(caught.exception.errors or ()), 30)
        self.assertEqual(len(one.json(b"[" + b",".join([record] * at_most) + b"]")), at_most)
        with self.assertRaises(Problem) as caught:
            one.json(b"[" + b",".join([record] * (at_most + 1)) + b"]")
        self.assertEqual(caught.exception.status, 413)
        with self.assertRaises(Problem) as caught:
            one.csv(b"age,monthly spend\n" + b"1,1\n" * (at_most + 1))
        self.assertEqual(caught.exception.status, 413)

    def test_nan_is_missing_where_clients_write_it_so(self):
        self.assertEqual(parse_with_nan(b'{"a": [NaN, 1, "NaN"]}'), {"a": [None, 1, "NaN"]})
        for wrong in (b'{"a": NaN, "b": "\\ud800"}', b'{"a": NaN', b'[NaN, "\xff"]', b"[" * 100_000 + b"NaN"):
            with self.assertRaises(Problem):
                parse_with_nan(wrong)


if __name__ == "__main__":
    unittest.main()

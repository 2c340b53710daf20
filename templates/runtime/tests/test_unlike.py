"""Who is told that the pipeline failed: the client, where rows are unlike training's; else nobody but the log."""

import datetime
import unittest

from mlrails_runtime import unlike
from mlrails_runtime.columns import Column
from mlrails_runtime.decode import ABSENT

COLUMNS = [
    Column("age", "number", "float64", minimum=18.0, maximum=92.0),
    Column("plan", "string", "object", categories=("basic", "pro"), nullable=True),
    Column("since", "datetime", "datetime64[ns]", minimum="2020-01-01T00:00:00", maximum="2024-01-01T00:00:00"),
    Column("note", "string", "object"),
]
DAY = datetime.datetime(2022, 1, 1)
USUAL = (18.0, "pro", DAY, "")


class Unlike(unittest.TestCase):
    def named(self, error, *rows):
        refused = unlike.refusal(error, COLUMNS, list(rows))
        if refused is None:
            return None
        self.assertEqual(refused.status, 422)
        return [(one["row"], one["column"]) for one in refused.errors]

    def test_values_that_training_never_saw_are_named(self):
        self.assertEqual(self.named(ValueError("inf"), USUAL, (0.0, "pro", DAY, "")), [(1, "age")])
        self.assertEqual(self.named(KeyError("gold"), (18.0, "gold", DAY, "")), [(0, "plan")])
        self.assertEqual(self.named(ZeroDivisionError(), (18.0, "pro", datetime.datetime(2019, 1, 1), "")), [(0, "since")])

    def test_rows_like_training_s_are_not_at_fault(self):
        self.assertIsNone(self.named(ValueError("a bug"), USUAL, (92.0, None, DAY, "anything"), (ABSENT, ABSENT, ABSENT, ABSENT)))

    def test_what_no_value_causes_is_the_service_s(self):
        for error in (OSError("a file is missing"), RuntimeError("a bug"), AssertionError(), MemoryError(), SystemExit(1)):
            self.assertIsNone(self.named(error, (0.0, "gold", DAY, "")))

    def test_many_are_told_in_part(self):
        refused = unlike.refusal(ValueError(), COLUMNS, [(0.0, "gold", DAY, "")] * 10_000)
        self.assertLess(len(refused.errors), 200)


if __name__ == "__main__":
    unittest.main()

"""The worker's comparison of a value with what was saved of it. Needs numpy."""

import pathlib
import sys
import unittest

import numpy

sys.path.append(str(pathlib.Path(__file__).parents[2] / "worker"))
from mlrails_worker import equal  # noqa: E402


class Equal(unittest.TestCase):
    def nodes(self, padding, left=3):
        """Records as a decision tree has them, with `padding` in the bytes that belong to no field."""
        kind = numpy.dtype([("threshold", "f8"), ("left", "u1")], align=True)
        made = numpy.frombuffer(bytes([padding]) * kind.itemsize * 4, dtype=kind).copy()
        made["threshold"], made["left"] = 0.5, left
        return made

    def test_bytes_between_fields_are_no_difference(self):
        one, other = self.nodes(0), self.nodes(255)
        self.assertNotEqual(one.tobytes(), other.tobytes())
        self.assertIsNone(equal.difference(one, other))

    def test_a_field_that_differs_is_named(self):
        self.assertIn("['left']", equal.difference(self.nodes(0), self.nodes(0, left=4)))


if __name__ == "__main__":
    unittest.main()

"""stdout, kept for answers and for what a worker tells. Whatever the project's own code prints goes to stderr, where it breaks nothing."""

from __future__ import annotations

import os
import sys

_taken = None


def take():
    """The real stdout, as a binary file; from the first call on, `print` writes to stderr."""
    global _taken
    if _taken is None:
        sys.stdout.flush()
        _taken = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        # In order with what else is said there.
        sys.stdout = sys.stderr
    return _taken

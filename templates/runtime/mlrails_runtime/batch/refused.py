"""What stops a batch with words for people instead of a traceback, and with which exit code."""

from __future__ import annotations

import errno

# A full disk, a limit, a device or a network that may be well again: what the command line of mlrails counts among them as well.
_TEMPORARY = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EBUSY,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ESTALE,
}


class Refused(Exception):
    """The input, the output or what the project has; exit 1."""


class Unavailable(Refused):
    """What is needed is not there now: the same command may do later; exit 3."""


class Misused(Exception):
    """Options that do not go together; exit 2."""


class RowsRejected(Exception):
    """Rows broke the schema under `--on-error fail`. `lines`: what is told of the first ones."""

    def __init__(self, count, lines):
        super().__init__(f"{count} rows were rejected")
        self.count = count
        self.lines = lines


def code_of(error):
    """2: usage; 3: the same command may do later; else 1."""
    if isinstance(error, Misused):
        return 2
    return 3 if isinstance(error, Unavailable) or isinstance(error, OSError) and error.errno in _TEMPORARY else 1


def words(error):
    """What is told of it: what is raised with words for people has no need of its type's name."""
    said = str(error)
    if isinstance(error, (Refused, Misused, OSError)) or type(error).__name__ in ("Unusable", "Problem"):
        return said
    return f"{type(error).__name__}: {said}"[:1000]

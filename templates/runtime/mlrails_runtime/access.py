"""Who may ask: an optional bearer token (RFC 6750), from a file that may change while the service runs.

Takes: the file that MLRAILS_TOKEN_FILE names; each of its lines is a token, so that an old and a new one hold during a change. Gives:
`Tokens`, which refuses. Probes are never refused: those who send them have no secrets.
"""

from __future__ import annotations

import hmac
import os

from mlrails_runtime import problem


class Tokens:
    """Raises `OSError` or `ValueError` when the file cannot be read or holds no token: a service that should be closed must not start open."""

    def __init__(self, path):
        self._path = path
        self._stamp = None
        self._tokens = ()
        self._read()

    def check(self, headers):
        """Raises the 401, unless the request has one of the tokens."""
        scheme, _, given = (headers.get("authorization") or "").partition(" ")
        try:
            self._read()
        except (OSError, ValueError):
            pass  # in the middle of being replaced: what was known holds
        if scheme.lower() == "bearer":
            given = given.strip().encode()
            # Each is compared, and all of it: how long it took must not tell how much was right.
            if any([hmac.compare_digest(given, token) for token in self._tokens]):
                return
        raise problem.Problem(
            401,
            "A token is needed",
            "send the header: authorization: Bearer TOKEN",
            kind="urn:mlrails:token",
            headers=[("www-authenticate", "Bearer")],
        )

    def _read(self):
        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._stamp:
            return
        with open(self._path, "rb") as file:
            tokens = tuple(line.strip() for line in file.read(1 << 16).splitlines() if line.strip())
        if not tokens:
            raise ValueError("it holds no token")
        self._tokens, self._stamp = tokens, stamp

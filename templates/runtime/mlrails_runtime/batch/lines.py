"""Lines of bytes with their places, so that a run can begin in the middle of a file.

Takes an open binary file. Gives lines one by one, and skips many without looking into them where that is safe.
"""

from __future__ import annotations

import re

from mlrails_runtime.batch.refused import Refused

_BLOCK = 1 << 20
_LONGEST = 64 << 20
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"\n[ \t\r]*\n")


class Lines:
    """`offset`: where the next line begins, in bytes of the unpacked file."""

    def __init__(self, file, name):
        self._file, self._name = file, name
        self._block, self._at, self._start = b"", 0, 0
        if self._fill() and self._block.startswith(_BOM):
            self._at = len(_BOM)

    @property
    def offset(self):
        return self._start + self._at

    def seek(self, offset):
        self._file.seek(offset)
        self._block, self._at, self._start = b"", 0, offset

    def close(self):
        self._file.close()

    def __iter__(self):
        return self

    def __next__(self):
        at = self._at
        end = self._block.find(b"\n", at) + 1
        if not end:
            # Blocks end with a line; only the file's last line has no end.
            end = len(self._block)
            if at == end:
                if not self._fill():
                    raise StopIteration
                return self.__next__()
        self._at = end
        return self._block[at:end]

    def _fill(self):
        """The next block, whole lines."""
        self._start += len(self._block)
        self._at = 0
        block = self._file.read(_BLOCK)
        if block and not block.endswith(b"\n"):
            rest = self._file.readline(_LONGEST)
            if len(rest) == _LONGEST:
                raise Refused(f"{self._name}: a line that is longer than {_LONGEST >> 20} MiB")
            block += rest
        self._block = block
        return bool(block)

    def skip_plain(self, most, blank):
        """Skips up to `most` lines that are certainly rows and gives how many; 0 where the next ones have to be looked at.

        `blank`: from the bytes of many lines to whether any is no row, or rows and lines may differ.
        """
        if self._at == len(self._block) and not self._fill():
            return 0
        rest = self._block[self._at :] if self._at else self._block
        if blank(rest):
            return 0
        count = rest.count(b"\n") + (not rest.endswith(b"\n"))
        if count <= most:
            self._at = len(self._block)
            return count
        # The place of the line after `most` others, by halves: counting is far faster than finding one after the other.
        low, high, seen = 0, len(rest), 0
        while seen < most:
            if most - seen <= 16:
                for _ in range(most - seen):
                    low = rest.index(b"\n", low) + 1
                break
            middle = (low + high) // 2
            here = rest.count(b"\n", low, middle)
            if seen + here <= most:
                low, seen = middle, seen + here
            else:
                high = middle
        # `low` may stand inside a line when the count fell out even; it belongs to the line that was counted last.
        if low and rest[low - 1 : low] != b"\n":
            low = rest.rindex(b"\n", 0, low) + 1
        self._at += low
        return most


def blank_json(block):
    """Whether a block of JSON lines may have lines that are no rows."""
    return block[:1] in (b"\n", b"\r", b" ", b"\t") or not block.endswith(b"\n") or _SPACE.search(block) is not None


def blank_csv(block):
    """The same for CSV, where a quoted cell may go on in the next line."""
    return b'"' in block or block[:1] in (b"\n", b"\r") or b"\n\n" in block or b"\n\r\n" in block

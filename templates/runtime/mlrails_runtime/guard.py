"""What the loop's thread does not wait for: files, sockets, processes, sleep.

While the loop's thread scores, nobody answers probes. A pipeline that only computes is back in milliseconds, which is known from having
timed it; one that opens something may not be. So under `guarded` whatever is about to wait is stopped by an audit hook before it does
(PEP 578), and the rows go to a thread that has time. Waiting that no hook sees (a connection that was opened earlier) shows as time
in which nothing was computed: `idles`. Must not know what is scored.
"""

from __future__ import annotations

import sys
import threading
import time

_EVENTS = frozenset(
    {
        "open",
        "os.posix_spawn",
        "os.system",
        "pty.spawn",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "socket.sendmsg",
        "socket.sendto",
        "sqlite3.connect",
        "subprocess.Popen",
        "time.sleep",
        "urllib.Request",
    }
)


class MayWait(BaseException):
    """No `Exception`: a pipeline that has an answer for a file that cannot be read must not give it because of this."""


class _State:
    # The thread that is guarded now, and what it was stopped at.
    thread = None
    stopped_at = None
    installed = False


def _hook(event, _arguments):
    if _State.thread is not None and event in _EVENTS and _State.thread == threading.get_ident():
        _State.stopped_at = event
        raise MayWait(event)


def guarded(call, *arguments):
    """`call(*arguments)`, or `MayWait`. One thread at a time."""
    if not _State.installed:
        # A hook stays as long as the process.
        sys.addaudithook(_hook)
        _State.installed = True
    _State.stopped_at = None
    _State.thread = threading.get_ident()
    try:
        answer = call(*arguments)
    finally:
        _State.thread = None
    if _State.stopped_at is not None:
        # Something swallowed even that.
        raise MayWait(_State.stopped_at)
    return answer


def idles(call, *arguments, times=5):
    """Whether a noticeable part of each call passes without this thread computing."""
    least = None
    for _ in range(times):
        started, computed = time.monotonic(), time.thread_time()
        call(*arguments)
        computed = time.thread_time() - computed
        seconds = time.monotonic() - started
        idle = seconds - computed - max(0.0002, seconds * 0.2)
        least = idle if least is None else min(least, idle)
    return least > 0

"""What runs inside a cluster's own worker process: it fetches the pipeline, starts it as a process of its own, and hands it parts to make.

The text of this module is sent there (`sent`), so it knows the standard library and nothing of the package. A process of its own has
thread pools of the right size, a memory that is its own, and modules that no other job of a long-lived worker sees.
Replies are plain dicts; each says which worker it is from.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile

# Of this machine's folders: a pipeline's has the number of the process that it works for.
_PREFIX = f"mlrails-{socket.gethostname()}-"

_lock = threading.Lock()
# Job -> the processes that nobody uses now, and all of them.
_idle, _all = {}, {}
# Drivers that have ended.
_stopped = set()


class Fault(Exception):
    """What cannot be done here, as a reply."""

    def __init__(self, **reply):
        super().__init__(str(reply))
        self.reply = reply


def begin(spec):
    """Starts a pipeline unless one is there, and says whether it answers as in training."""
    return _with_pipeline(spec, lambda pipeline: pipeline.ready)


def make(spec, order):
    """The note of one part, or why there is none."""
    return _with_pipeline(spec, lambda pipeline: pipeline.ask(order))


def stop(job, run):
    """Ends the job's processes on this worker, those that are at work as well."""
    with _lock:
        # A part that was on its way here must not start what nobody would end.
        _stopped.add(run)
        _idle.pop(job, None)
        found = _all.pop(job, set())
    for pipeline in found:
        pipeline.end()
    return len(found)


def _with_pipeline(spec, act):
    try:
        pipeline = _taken(spec)
        try:
            reply = act(pipeline)
        except Fault as fault:
            reply = fault.reply
        _give_back(spec["job"], pipeline)
    except Fault as fault:
        reply = fault.reply
    except OSError as error:
        reply = {"refused": str(error), "errno": error.errno}
    return {**reply, "worker": f"{socket.gethostname()} (process {os.getpid()})"}


def _taken(spec):
    with _lock:
        if spec["run"] in _stopped:
            raise Fault(lost="it was stopped")
        waiting = _idle.setdefault(spec["job"], [])
        while waiting:
            pipeline = waiting.pop()
            if pipeline.child.poll() is None:
                return pipeline
            _all[spec["job"]].discard(pipeline)
        # `stop` has to find it while it starts as well.
        pipeline = _Pipeline()
        _all.setdefault(spec["job"], set()).add(pipeline)
    try:
        pipeline.start(spec)
    except BaseException:
        pipeline.end()
        with _lock:
            _all.get(spec["job"], set()).discard(pipeline)
        raise
    return pipeline


def _give_back(job, pipeline):
    if pipeline.child.poll() is not None:
        pipeline.end()
    with _lock:
        if pipeline not in _all.get(job, ()):
            # `stop` came between.
            return
        if pipeline.child.poll() is None:
            _idle.setdefault(job, []).append(pipeline)
        else:
            _all[job].discard(pipeline)


class _Pipeline:
    """`ready`: what it said when it was asked to begin."""

    def __init__(self):
        self.folder = self.child = self.ready = None
        self._ended = False

    def start(self, spec):
        _sweep()
        with _lock:
            if self._ended:
                raise Fault(lost="it was stopped")
            self.folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        _unpack(spec["archive"], self.folder)
        path = [os.path.join(self.folder, "lib")] + [one for one in [os.environ.get("PYTHONPATH")] if one]
        environment = {**os.environ, **spec["environment"], "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["MLRAILS_APP"] = os.path.join(self.folder, spec["archive"]["app"])
        command = [sys.executable, "-m", spec["archive"]["maker"]]
        with _lock:
            if self._ended:
                raise Fault(lost="it was stopped")
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=environment["MLRAILS_APP"], env=environment
            )
        self.ready = self.ask({**spec, "folder": self.folder})
        if "ready" not in self.ready:
            raise Fault(**self.ready)

    def ask(self, document):
        try:
            self.child.stdin.write(json.dumps(document).encode() + b"\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except (OSError, ValueError):
            # ValueError: closed by `end` in another thread.
            line = b""
        if not line.endswith(b"\n"):
            raise Fault(lost=_ended(self.child.wait()))
        return json.loads(line)

    def end(self):
        """Its input's end tells it to leave nothing behind; it has some seconds for that."""
        with _lock:
            self._ended, child = True, self.child
        if child is not None:
            _close(child.stdin)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            # Not before: whoever reads from it in another thread holds it until there is no more to read.
            _close(child.stdout)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _sweep():
    """Folders of processes that were killed, and nobody was left to remove them."""
    for entry in os.scandir(tempfile.gettempdir()):
        owner = entry.name.removeprefix(_PREFIX).partition("-")[0]
        if entry.name.startswith(_PREFIX) and owner.isdecimal() and os.path.isdir("/proc/self") and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(entry.path, ignore_errors=True)


def _close(file):
    try:
        file.close()
    except OSError:
        pass


def _ended(code):
    if code == -9:
        return "its process was killed (signal 9), as is done where memory runs out"
    return f"its process ended by signal {-code}" if code < 0 else f"its process ended with {code}; the worker's log has its last words"


def _unpack(archive, folder):
    """The pipeline, from the storage that all workers share; refused unless it is what was sent."""
    path, digest = os.path.join(folder, "pipeline.zip"), hashlib.sha256()
    try:
        with _open(archive["place"]) as source, open(path, "wb") as out:
            while piece := source.read(1 << 20):
                digest.update(piece)
                out.write(piece)
    except FileNotFoundError:
        raise Fault(refused=f"{archive['shown']} is not there: the output has to be on storage that all workers share", code=1) from None
    if digest.hexdigest() != archive["sha256"]:
        raise Fault(refused=f"{archive['shown']} is another pipeline there: its sha256 is {digest.hexdigest()[:16]}, not {archive['sha256'][:16]}", code=1)
    with zipfile.ZipFile(path) as packed:
        packed.extractall(folder)
    os.unlink(path)


def _open(place):
    if "://" not in place:
        return open(place, "rb")
    try:
        import fsspec
    except ImportError:
        raise Fault(refused=f"{place.partition('://')[0]}:// URLs need fsspec, which is not there", code=1) from None
    return fsspec.open(place, "rb").open()

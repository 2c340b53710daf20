"""The protocol: commands come as JSON lines on the first standard stream, events leave as JSON lines on the second.

What nodes print goes to the third, together with warnings. Events: {"ok": ...}, {"failed": {...}}. The process ends when the first
stream does: a parent that is gone needs no answers.
"""

import json
import os
import sys
import threading

from mlrails_worker import failure


class Channel:
    """The two protocol streams, moved out of the way of what nodes read and print."""

    def __init__(self):
        self._in = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        # What a node prints is seen when it prints it.
        sys.stdout.reconfigure(line_buffering=True)
        self._pending = []
        self._ready = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._in:
            with self._ready:
                self._pending.append(json.loads(line))
                self._ready.notify()
        # In the middle of a node too: nobody waits for its value any more.
        os._exit(0)

    def commands(self):
        while True:
            with self._ready:
                while not self._pending:
                    self._ready.wait()
                command = self._pending.pop(0)
            yield command

    def send(self, event):
        # A node may have left text in Python's buffer; it belongs before the event.
        sys.stdout.flush()
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()


def main(plan_path):
    channel = Channel()
    with open(plan_path, encoding="utf-8") as file:
        plan = json.load(file)
    sys.path.insert(0, plan["source"])
    # What the project itself starts (a pool of processes, a script) finds the package too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [plan["source"], os.environ.get("PYTHONPATH")]))
    for command in channel.commands():
        try:
            answer = _verb(command.pop("do"))(plan, **command)
        except BaseException as error:  # noqa: B036 - SystemExit in a node is a failure of the node
            channel.send({"failed": failure.describe(error, plan)})
        else:
            channel.send({"ok": answer})


def _verb(name):
    # Imported when first needed: a process that replays must not have loaded what training needs.
    if name == "node":
        from mlrails_worker.nodes import run
    elif name == "freeze":
        from mlrails_worker.freeze import run
    elif name == "golden":
        from mlrails_worker.golden import run
    elif name == "versions":
        from mlrails_worker.versions import run
    elif name == "replay":
        from mlrails_worker.replay import run
    else:
        raise ValueError(f"unknown command {name!r}")
    return run

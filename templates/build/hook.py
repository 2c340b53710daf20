"""Calls one hook of a build backend (PEP 517), in the project's folder and with the build's own interpreter.

What is asked arrives as JSON on standard input; what the hook returns goes as JSON into the file `answer`. Everything printed is the
build's log. Standard library only, and nothing newer than Python 3.8.
"""

import importlib
import json
import os
import sys
import traceback


def die_with_parent():
    """The build has no business without whoever asked for it, however that one ended."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    except Exception:
        pass


def find(name, paths):
    """The backend object `package.module:attribute.path`."""
    module_name, _, attributes = name.partition(":")
    sys.path[:0] = paths
    backend = importlib.import_module(module_name)
    if paths:
        # A backend of the tree must come from the tree: not from a module of that name that is installed.
        place = os.path.realpath(getattr(backend, "__file__", None) or "")
        if not any(place.startswith(os.path.realpath(path) + os.sep) for path in paths):
            raise ImportError("the backend %s is not in backend-path, but at %s" % (module_name, place))
    for attribute in attributes.split(".") if attributes else []:
        backend = getattr(backend, attribute)
    return backend


def call(asked):
    """The hook's return value, or that the backend has none of that name."""
    hook = getattr(find(asked["backend"], asked["paths"]), asked["hook"], None)
    if hook is None:
        return {"missing": True}
    return {"value": hook(*asked["arguments"])}


def main():
    asked = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    die_with_parent()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        answer = call(asked)
        json.dumps(answer)
    except (KeyboardInterrupt, SystemExit) as error:
        answer = {"failed": "it ended Python: %s" % (error.args[:1] or "",)}
    except BaseException as error:
        traceback.print_exc()
        text = str(error).strip().splitlines()
        answer = {"failed": "%s%s" % (type(error).__name__, ": " + text[0] if text else "")}
    sys.stdout.flush()
    with open(asked["answer"], "w", encoding="utf-8") as file:
        json.dump(answer, file)
    sys.exit("failed" in answer)


main()

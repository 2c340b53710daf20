"""An exception as people want it: the project's own frames, and what was hidden between them.

Errors that this package itself raises are `Refused`: a sentence, no traceback.
"""

import os
import traceback


class Refused(Exception):
    """Something that is wrong with what the project does. `kind` is a word that the binary knows advice for."""

    def __init__(self, kind, message, **facts):
        super().__init__(message)
        self.kind = kind
        self.facts = facts


def describe(error, plan):
    if isinstance(error, Refused):
        return {"kind": error.kind, "message": str(error), "traceback": [], "hidden": getattr(error, "hidden", []), "facts": error.facts}
    root = os.path.join(plan["root"], "")
    lines = []
    for link in chain(error):
        if lines:
            lines.append("which led to:")
        lines.extend(_frames(link, root))
        lines.extend(line for text in traceback.format_exception_only(type(link), link) for line in text.rstrip().splitlines())
    return {
        "kind": "raised",
        "message": _summary(error),
        "traceback": lines,
        "missing_module": error.name if isinstance(error, ImportError) else None,
        "hidden": getattr(error, "hidden", []),
        "during": getattr(error, "during", None),
    }


def chain(error):
    """The causes that were meant (`raise ... from ...`), first cause first."""
    links = [error]
    while links[0].__cause__ is not None and len(links) < 5:
        links.insert(0, links[0].__cause__)
    return links


def _summary(error):
    text = str(error).strip().splitlines()
    name = type(error).__name__
    return f"{name}: {text[0]}" if text else name


def _frames(error, root):
    hidden = []
    for frame in traceback.extract_tb(error.__traceback__):
        # A relative name is of compiled code, and relative to where that was compiled.
        path = frame.filename
        own = path.startswith(root) and not os.path.relpath(path, root).startswith((".venv", ".mlrails"))
        if own:
            yield from _skipped(hidden)
            hidden = []
            yield f"{os.path.relpath(path, root)}:{frame.lineno}, in {frame.name}"
            if frame.line:
                yield f"    {frame.line}"
        elif "mlrails_worker" not in path:
            hidden.append(_package(path))
    yield from _skipped(hidden)


def _skipped(packages):
    if packages:
        names = ", ".join(dict.fromkeys(packages))
        count = f"{len(packages)} frames" if len(packages) > 1 else "1 frame"
        yield f"  ({count} in {names})"


def _package(path):
    for folder in ("site-packages", "dist-packages"):
        _, found, rest = path.partition(f"{os.sep}{folder}{os.sep}")
        if found:
            return rest.split(os.sep)[0].removesuffix(".py")
    if not os.path.isabs(path) and not path.startswith("<"):
        return path.split(os.sep)[0]
    return "Python"

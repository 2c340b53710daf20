"""Hides installed distributions from imports, as if they were not there: what serving will not have, its replay must not have.

Everything is visible but the modules of distributions that none of the allowed ones needs. A requirement counts whatever its
environment marker says; one of an extra only if the extra is asked for.
"""

import re
import sys

_tried = []


class Finder:
    def __init__(self, hidden):
        self.hidden = hidden

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.hidden:
            if name not in _tried:
                _tried.append(name)
            raise ModuleNotFoundError(f"No module named {name!r} (not reached by serving)", name=name)
        return None


def install(modules):
    """Hides every distribution but those that `modules` come from and what these require."""
    import importlib.metadata

    providers = importlib.metadata.packages_distributions()
    # What is being run must be able to finish: nothing that is loaded already is taken away.
    wanted = {(normalized(owner), "") for module in modules for owner in providers.get(module.partition(".")[0], ())}
    allowed = _closure(wanted, importlib.metadata)
    hidden = {top for top, owners in providers.items() if not any(normalized(owner) in allowed for owner in owners)}
    hidden -= {"mlrails_worker", "mlrails_runtime"} | set(sys.stdlib_module_names)
    sys.meta_path.insert(0, Finder(hidden))
    return sorted(allowed)


def all_names():
    """Every distribution there is, for a replay from which nothing is hidden."""
    import importlib.metadata

    return sorted({normalized(found.metadata["Name"]) for found in importlib.metadata.distributions()})


def tried():
    """Hidden modules that something asked for, in order."""
    return list(_tried)


def _closure(wanted, metadata):
    seen, waiting = set(), list(wanted)
    while waiting:
        name, extra = item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            requires = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        for text in requires:
            required = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", text)
            of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", text)
            if of_extra and normalized(of_extra[1]) != extra:
                continue
            waiting.append((normalized(required[1]), ""))
            waiting.extend((normalized(required[1]), normalized(part)) for part in (required[2] or "").split(",") if part.strip())
    return {name for name, _ in seen}


def normalized(text):
    return re.sub(r"[-_.]+", "-", text.strip()).lower()

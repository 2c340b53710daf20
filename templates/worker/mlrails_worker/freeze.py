"""Saves the frozen values from the spool into the folder that will become artifacts/."""

import hashlib
import os

from mlrails_runtime import values
from mlrails_worker import spool


def run(plan):
    """Per frozen node: file, format, sha256, size, and the modules that its pickle names."""
    os.makedirs(plan["staging"], exist_ok=True)
    saved = {}
    for number in plan["frozen"]:
        node = plan["nodes"][number]
        value, modules = spool.get_with_modules(plan, number)
        path, format = values.save(value, os.path.join(plan["staging"], node["name"]))
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        saved[node["name"]] = {
            "file": os.path.basename(path),
            "format": format,
            "sha256": digest.hexdigest(),
            "size": os.path.getsize(path),
            # JSON names no module; a framework's own file needs the framework.
            "modules": sorted(modules | {format}) if format not in ("json", "pickle") else sorted(modules if format == "pickle" else ()),
        }
    return saved

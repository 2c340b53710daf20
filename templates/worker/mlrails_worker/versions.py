"""Which versions of which distributions were used, by the modules that were imported."""

import importlib.metadata
import sys

from mlrails_worker.hidden import normalized


def run(plan, modules):
    """Python's version, and name to version of the distributions that provide `modules`."""
    providers = importlib.metadata.packages_distributions()
    owners = {owner for module in modules for owner in providers.get(module, ())}
    # Files that only make the environment work are in every process and in no result.
    found = {normalized(owner): importlib.metadata.version(owner) for owner in owners if normalized(owner) not in ("pip", "setuptools", "wheel")}
    return {"python": ".".join(map(str, sys.version_info[:3])), "distributions": found}

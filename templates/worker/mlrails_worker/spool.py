"""Values on their way from one node to the next: a pickle per node in the run's folder.

Every consumer reads its own copy, in every process, so that a node which changes what it was given changes nothing for the others,
and one worker or eight give the same results.
"""

import os
import pickle

from mlrails_worker.failure import Refused


def path(plan, node):
    return os.path.join(plan["spool"], f"{node}.pkl")


def put(plan, node, value):
    target = path(plan, node["id"])
    try:
        with open(target + ".part", "wb") as file:
            pickle.dump(value, file, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        message = f"`{node['name']}` returned a {kind}, which cannot be handed to another process: {error}"
        raise Refused("unpicklable", message) from None
    os.replace(target + ".part", target)
    return os.path.getsize(target)


def get(plan, node):
    with open(path(plan, node), "rb") as file:
        return pickle.load(file)


class Globals(pickle.Unpickler):
    """Loads, and notes the modules whose names the pickle holds: loading the saved value will import them."""

    def __init__(self, file):
        super().__init__(file)
        self.modules = set()

    def find_class(self, module, name):
        self.modules.add(module)
        return super().find_class(module, name)


def get_with_modules(plan, node):
    with open(path(plan, node), "rb") as file:
        unpickler = Globals(file)
        return unpickler.load(), unpickler.modules

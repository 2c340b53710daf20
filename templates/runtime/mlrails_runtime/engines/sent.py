"""What is sent to a cluster's workers, as text: they have nothing of ours, and long-lived ones may have an older version of it.

`call` runs a function of a module whose text comes with the call; the module stays in the worker's process under the hash of its text.
The two are made in a namespace that is nobody's module, so that they travel by value and not by a name that workers do not know.
"""

from __future__ import annotations

import pathlib

_TEXT = '''
def call(source, name, *arguments):
    import hashlib
    import sys
    import types

    key = "mlrails_remote_" + hashlib.sha256(source.encode()).hexdigest()[:16]
    module = sys.modules.get(key)
    if module is None:
        module = types.ModuleType(key)
        exec(compile(source, key, "exec"), module.__dict__)
        module = sys.modules.setdefault(key, module)
    return getattr(module, name)(*arguments)


async def call_aside(*arguments):
    import asyncio

    return await asyncio.to_thread(call, *arguments)


class Maker:
    def call(self, *arguments):
        return call(*arguments)
'''

_space = {"__name__": "__main__"}
exec(compile(_TEXT, "mlrails", "exec"), _space)

call, call_aside, Maker = _space["call"], _space["call_aside"], _space["Maker"]


def remote():
    """The text of `remote`, the first argument of each call."""
    return (pathlib.Path(__file__).parent / "remote.py").read_text(encoding="utf-8")

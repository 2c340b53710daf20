"""Compiles modules for an image: a few requested, as many answers, until the input ends.

Run by mlrails inside the base's own interpreter, unpacked, with nothing but its standard library. A request is how many modules
there are, and for each two byte strings, its path in the image and its source; an answer is a number and a byte string: 0 and
the .pyc (PEP 552, unchecked hash), or 1 and why there is none. Numbers are 4 bytes, little-endian, but for an answer's first, which
is 1; a byte string is its length and itself.

The path goes into the code objects, so that tracebacks in production name the file that is there.
"""

import gc
import os
import sys
from _imp import source_hash
from importlib._bootstrap_external import MAGIC_NUMBER, _code_to_hash_pyc

# Whatever a module's compilation might print must not get between the answers.
requests = sys.stdin.buffer
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)

# The number that importlib.util.source_hash uses, without importing what that brings.
KEY = int.from_bytes(MAGIC_NUMBER, "little")


def number():
    data = requests.read(4)
    if len(data) < 4:
        sys.exit(0)
    return int.from_bytes(data, "little")


def take():
    size = number()
    data = requests.read(size)
    if len(data) < size:
        sys.exit(1)
    return data


def compiled(path, source):
    # No flags and no optimisation level of this process may leak into the result.
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    return bytes(_code_to_hash_pyc(code, source_hash(KEY, source), False))


def answer(path, source):
    try:
        status, body = 0, compiled(path, source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        # Packages ship files that are no modules of this Python: templates, tests of the tokenizer, Python 2.
        status, body = 1, f"{type(error).__name__}: {error}".encode(errors="replace")
    answers.write(bytes([status]) + len(body).to_bytes(4, "little") + body)
    answers.flush()


# A copy lives for a few modules: collecting garbage in it would only copy pages.
gc.disable()

while True:
    modules = [(take().decode(), take()) for _ in range(number())]
    # They are compiled in a copy of this process that has never compiled anything. What an interpreter has seen shows
    # in a .pyc: a string that an earlier module interned (in 3.11 the "*" of the first `import *`, from 3.12 on every
    # name) is marked otherwise, or keeps equal constants apart. The answers must not depend on who came before.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for path, source in modules:
                answer(path, source)
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)

"""Compiles modules for an image: one request in, one answer out, until the input ends.

Run by mlrails inside the base's own interpreter, unpacked, with nothing but its standard library. A request is two
byte strings, the module's path in the image and its source; the answer is a number and a byte string: 0 and the .pyc
(PEP 552, unchecked hash), or 1 and why there is none. A byte string is its length in 4 bytes, little-endian, and itself.

The path goes into the code objects, so that tracebacks in production name the file that is there.
"""

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


def take():
    head = requests.read(4)
    if len(head) < 4:
        sys.exit(0)
    size = int.from_bytes(head, "little")
    data = requests.read(size)
    if len(data) < size:
        sys.exit(1)
    return data


def compiled(path, source):
    # No flags and no optimisation level of this process may leak into the result.
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    return bytes(_code_to_hash_pyc(code, source_hash(KEY, source), False))


# One-character strings exist once in a process, and a .pyc tells whether one is interned: "*" is from the first
# `import *` on, so a module's bytecode would depend on what was compiled before it. Here all of them are, from the start.
for number in range(256):
    sys.intern(chr(number))

while True:
    path, source = take().decode(), take()
    try:
        status, answer = 0, compiled(path, source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        # Packages ship files that are no modules of this Python: templates, tests of the tokenizer, Python 2.
        status, answer = 1, f"{type(error).__name__}: {error}".encode(errors="replace")
    answers.write(bytes([status]) + len(answer).to_bytes(4, "little") + answer)
    answers.flush()

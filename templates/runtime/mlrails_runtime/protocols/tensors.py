"""Tensors of the Open Inference Protocol: from JSON or little-endian bytes to flat values, and back.

In bytes, numbers follow each other without gaps, a BOOL is one byte, and each of BYTES has its length before it in four. A NaN there is a
missing value, because bytes have no null.

Source: Open Inference Protocol 2 (inference data), its binary tensor data extension.
"""

from __future__ import annotations

import math
import struct

import msgspec

from mlrails_runtime import problem

HEADER = "inference-header-content-length"
CODES = {"BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"}
CODES.update({"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"})
DATATYPES = {*CODES, "BYTES"}


def split(body, length):
    """A body with binary tensors as (its JSON part, the bytes after it); `length` is the header that says where."""
    if not length.isascii() or not length.isdigit() or len(length) > 20 or int(length) > len(body):
        raise problem.malformed("Inference-Header-Content-Length is not the length of its JSON part")
    end = int(length)
    return body[:end], memoryview(body)[end:]


class Source:
    """The bytes after the JSON part, taken tensor by tensor. `most`: values that a tensor may have, None for any number."""

    def __init__(self, rest, most=None):
        self._rest = rest
        self.most = most

    def take(self, name, size):
        if type(size) is not int or not 0 <= size <= len(self._rest):
            raise problem.malformed(f"the binary data of the tensor {name!r} ends early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def done(self):
        if len(self._rest):
            raise problem.malformed("there are bytes after the last tensor")


def read(tensor, source):
    """(name, shape, flat values) of one input, after its datatype, shape and data agreed."""
    name, shape, kind = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(name, str):
        raise problem.shape("a tensor has a name")
    if not isinstance(kind, str) or kind not in DATATYPES:
        raise problem.shape(f"the tensor {name!r} has no known datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise problem.shape(f"the tensor {name!r} has no shape")
    size = 0 if 0 in shape else _product(shape, source.most)
    parameters = tensor.get("parameters")
    binary = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if binary is not None:
        data = _unpack(name, kind, source.take(name, binary), size)
    else:
        data = _flat(name, tensor.get("data"))
    if size != len(data):
        raise problem.shape(f"the tensor {name!r} holds {len(data)} values and its shape says {size}")
    return name, shape, data


def _product(shape, most):
    """How many values a shape without zeros has. What is too large to be is not multiplied out: it may have thousands of digits."""
    size = 1
    for length in shape:
        size *= length
        if most is not None and size > most:
            raise problem.too_many_values(most)
    return size


def _flat(name, data):
    if not isinstance(data, list):
        raise problem.shape(f"the tensor {name!r} has no data")
    while data and isinstance(data[0], list):
        if not all(isinstance(item, list) for item in data):
            raise problem.shape(f"the data of the tensor {name!r} is ragged")
        data = [value for item in data for value in item]
    return data


def _unpack(name, kind, data, count):
    code = CODES.get(kind)
    if code is None:
        return _texts(name, data, count)
    width = struct.calcsize(f"<{code}")
    if len(data) != count * width:
        raise problem.shape(f"the tensor {name!r} has {len(data)} bytes; {count} of {kind} take {count * width}")
    values = struct.unpack(f"<{count}{code}", data)
    if code in "efd":
        return [None if value != value else value for value in values]
    return list(values)


def _texts(name, data, count):
    values, at = [], 0
    while at < len(data):
        if len(values) == count:
            raise problem.shape(f"the tensor {name!r} holds more values than its shape says, which is {count}")
        if at + 4 > len(data):
            raise problem.malformed(f"the tensor {name!r} ends within a length")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise problem.malformed(f"the tensor {name!r} ends within a value")
        try:
            values.append(str(data[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            raise problem.malformed(f"the tensor {name!r} holds text that is not UTF-8") from None
        at += length
    return values


def output(name, values):
    """One output tensor, in JSON form; lists of one length become a matrix."""
    shape = [len(values)]
    if values and all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        shape.append(len(values[0]))
        values = [item for value in values for item in value]
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        kind = "BOOL"
    elif kinds and kinds <= {int}:
        kind = "INT64" if all(value is None or -(2**63) <= value < 2**63 for value in values) else "UINT64"
    elif kinds <= {int, float}:
        kind = "FP64"
    else:
        kind = "BYTES"
        values = [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]
    return {"name": name, "datatype": kind, "shape": shape, "data": values}


def pack(tensor):
    """An output's values as bytes, or None where a null has no place among them."""
    kind, values = tensor["datatype"], tensor["data"]
    if kind == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if kind == "FP64":
        values = [math.nan if value is None else value for value in values]
    elif None in values:
        return None
    try:
        return struct.pack(f"<{len(values)}{CODES[kind]}", *values)
    except struct.error:
        return None

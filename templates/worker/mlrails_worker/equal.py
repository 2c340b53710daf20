"""Whether a value that was saved and loaded is still the same: by type and content, all the way down.

`difference(a, b)` gives the path to the first difference (`.steps[1].coef_`), or None. Objects without an equality of their own are
compared by what they would put into a pickle; those of frameworks whose pickles also hold what is of the process and not of the model
(threads, addresses of memory), by what the framework itself says that the model is.
"""

import types


def difference(one, other):
    return _walk(one, other, "", {}, 0)


def _walk(one, other, path, seen, depth):
    if one is other:
        return None
    if type(one) is not type(other):
        return f"{path or 'its type'}: {type(one).__name__} became {type(other).__name__}"
    if (id(one), id(other)) in seen or depth > 500:
        return None
    # Kept alive with the key, so that an id is not given to another object.
    seen[id(one), id(other)] = (one, other)
    kind = type(one)
    if kind in (bool, int, str, bytes, type(None), complex):
        return None if one == other else _told(path, one, other)
    if kind is float:
        return None if one == other or (one != one and other != other) else _told(path, one, other)
    if kind in (list, tuple):
        return _items(one, other, path, seen, depth)
    if isinstance(one, dict):
        found = _dicts(one, other, path, seen, depth)
        if found or kind is dict:
            return found
    if kind in (set, frozenset):
        return None if one == other else f"{path or 'it'} has other members"
    if isinstance(one, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
        return f"{path or 'it'} is another {kind.__name__}"
    if hasattr(one, "dtype") and hasattr(one, "tobytes") and hasattr(one, "shape"):
        return _arrays(one, other, path, seen, depth)
    framework = kind.__module__.partition(".")[0]
    if framework in ("pandas", "polars") and hasattr(one, "equals"):
        return None if one.equals(other) else f"{path or 'it'} has other values"
    if framework == "torch" and hasattr(one, "detach") and hasattr(one, "requires_grad") and hasattr(one, "layout"):
        return _tensors(one, other, path)
    if framework in _MODELS and kind.__name__ == "Booster":
        return _walk(_MODELS[framework](one), _MODELS[framework](other), path, seen, depth + 1)
    return _objects(one, other, path, seen, depth)


def _told(path, one, other):
    return f"{path or 'it'}: {_short(one)} became {_short(other)}"


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _items(one, other, path, seen, depth):
    if len(one) != len(other):
        return f"{path or 'it'} has {len(other)} items instead of {len(one)}"
    for at, (first, second) in enumerate(zip(one, other)):
        found = _walk(first, second, f"{path}[{at}]", seen, depth + 1)
        if found:
            return found
    return None


def _dicts(one, other, path, seen, depth):
    if len(one) != len(other):
        return f"{path or 'it'} has {len(other)} keys instead of {len(one)}"
    for (key, first), (again, second) in zip(one.items(), other.items()):
        found = _walk(key, again, f"{path} key", seen, depth + 1) or _walk(first, second, f"{path}[{key!r}]", seen, depth + 1)
        if found:
            return found
    return None


def _arrays(one, other, path, seen, depth):
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{path or 'it'} is {other.dtype}{list(other.shape)} instead of {one.dtype}{list(one.shape)}"
    if one.dtype.names:
        # Field by field: what lies between fields (a tree's nodes have seven such bytes each) is whatever was in memory.
        for name in one.dtype.names:
            found = _arrays(one[name], other[name], f"{path}[{name!r}]", seen, depth + 1)
            if found:
                return found
        return None
    if one.dtype.hasobject:
        return _walk(one.tolist(), other.tolist(), path, seen, depth + 1)
    return None if one.tobytes() == other.tobytes() else f"{path or 'it'} has other values"


def _tensors(one, other, path):
    """Tensors of torch, wherever they are: values are loaded to where serving computes."""
    told = [f"{tensor.dtype}{list(tensor.shape)}{' that requires a gradient' if tensor.requires_grad else ''}" for tensor in (one, other)]
    if told[0] != told[1] or one.layout != other.layout or one.is_quantized != other.is_quantized:
        return f"{path or 'it'} is {told[1]} instead of {told[0]}"
    return None if _same_bits(one.detach().cpu(), other.detach().cpu()) else f"{path or 'it'} has other values"


def _same_bits(one, other):
    import torch

    if one.is_quantized:
        return one.qscheme() == other.qscheme() and repr(one) == repr(other) and torch.equal(one.int_repr(), other.int_repr())
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    # As bytes: NaN is equal to itself, and zero is not minus zero.
    one, other = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(one, other)


def _lightgbm(booster):
    # `params` is what training was told; a model that was read from its own file has the file's instead.
    return [booster.model_to_string(num_iteration=-1), max(booster.best_iteration, 0), dict(booster.best_score), booster.pandas_categorical]


def _xgboost(booster):
    return [bytes(booster.save_raw("ubj")), {name: value for name, value in vars(booster).items() if name != "handle"}]


_MODELS = {"lightgbm": _lightgbm, "xgboost": _xgboost}


def _objects(one, other, path, seen, depth):
    try:
        first, second = one.__reduce_ex__(4), other.__reduce_ex__(4)
    except Exception:
        return None if one == other else f"{path or 'it'} cannot be compared, and is not equal"
    if isinstance(first, str) or isinstance(second, str):
        return None if first == second else f"{path or 'it'} is another object"
    for at, (part, again) in enumerate(zip(first, second)):
        if at >= 3:  # items of a list or a dict that is more than one
            part, again = (list(part) if part is not None else None), (list(again) if again is not None else None)
        if at == 2 and isinstance(part, dict) and isinstance(again, dict):
            for key in part.keys() | again.keys():
                if key not in part or key not in again:
                    return f"{path}.{key} is only in one of them"
                found = _walk(part[key], again[key], f"{path}.{key}", seen, depth + 1)
                if found:
                    return found
            continue
        found = _walk(part, again, path, seen, depth + 1)
        if found:
            return found
    return None

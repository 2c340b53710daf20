"""Notes which columns of a table are read: a DataFrame and records that watch themselves being used.

A column is read when it is asked for by name; whatever uses the table as a whole counts as reading all of it. What is made from a
watched table is an ordinary one (but for a copy), and so is its pickle.
"""

from mlrails_worker.table import is_frame_class


class Reads:
    """What was read: `columns` by name, in no order; `whole` when something took all of them."""

    def __init__(self):
        self.columns = set()
        self.whole = False
        # Above zero while a watched frame answers a question whose columns are known, or that is about none.
        self.quiet = 0

    def __enter__(self):
        self.quiet += 1

    def __exit__(self, *_):
        self.quiet -= 1


def watch(value, reads):
    """`value`, watched: a DataFrame, or a list of records. Anything else is left as it is."""
    kind = type(value)
    if is_frame_class(kind):
        return _frame_class()(value)._mlrails_watch(reads)
    if kind is list and value and all(type(item) is dict for item in value):
        return [Record(item, reads) for item in value]
    return value


def plain(value):
    """The ordinary form of a watched value."""
    if getattr(type(value), "_mlrails_watched", False):
        return value._mlrails_plain()
    if type(value) is list and value and type(value[0]) is Record:
        return [dict(item) for item in value]
    return value


class Record(dict):
    """A record that notes which fields are asked for."""

    def __init__(self, fields, reads):
        super().__init__(fields)
        self._reads = reads

    def __getitem__(self, name):
        self._reads.columns.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self._reads.columns.add(name)
        return super().get(name, default)

    def __contains__(self, name):
        self._reads.columns.add(name)
        return super().__contains__(name)

    def _all(self):
        self._reads.whole = True
        return self

    def __iter__(self):
        return dict.__iter__(self._all())

    def keys(self):
        return dict.keys(self._all())

    def values(self):
        return dict.values(self._all())

    def items(self):
        return dict.items(self._all())

    def copy(self):
        return dict(self._all())

    def __eq__(self, other):
        return dict.__eq__(self._all(), other)

    __hash__ = None

    def __reduce_ex__(self, protocol):
        return (dict, (dict(dict.items(self)),))


_made = []


def _frame_class():
    """Made once a DataFrame is there: this package does without pandas otherwise."""
    if _made:
        return _made[0]
    import pandas

    def quietly(name):
        """The property or method `name` of DataFrame, asked without anything being read."""
        inherited = getattr(pandas.DataFrame, name)
        if not callable(inherited) or name in ("index", "columns"):
            return property(lambda self: _in_quiet(self, lambda: getattr(super(Watched, self), name)))

        def method(self, *arguments, **named):
            return _in_quiet(self, lambda: inherited(self, *arguments, **named))

        return method

    class Watched(pandas.DataFrame):
        """Everything that pandas does with a frame's content goes through `_mgr`: what touches it and is not one of the questions below
        reads the whole frame."""

        _mlrails_watched = True

        @property
        def _mgr(self):
            reads = self.__dict__.get("_mlrails_reads")
            if reads is not None and not reads.quiet:
                reads.whole = True
            return self.__dict__["_mlrails_mgr"]

        @_mgr.setter
        def _mgr(self, blocks):
            self.__dict__["_mlrails_mgr"] = blocks

        @property
        def _constructor(self):
            return pandas.DataFrame

        def _mlrails_watch(self, reads):
            self.__dict__["_mlrails_reads"] = reads
            return self

        def _mlrails_plain(self):
            return _in_quiet(self, lambda: pandas.DataFrame(self))

        def __getitem__(self, key):
            reads = self.__dict__.get("_mlrails_reads")
            names = _names(self.columns, key)
            if reads is not None and names is None:
                reads.whole = True
            elif reads is not None:
                reads.columns.update(names)
            return _in_quiet(self, lambda: super(Watched, self).__getitem__(key))

        def __setitem__(self, key, value):
            _in_quiet(self, lambda: super(Watched, self).__setitem__(key, value))

        def get(self, key, default=None):
            return self[key] if _names(self.columns, key) else default

        def copy(self, *arguments, **named):
            reads = self.__dict__.get("_mlrails_reads")
            made = _in_quiet(self, lambda: super(Watched, self).copy(*arguments, **named))
            return made if reads is None else Watched(made)._mlrails_watch(reads)

        @property
        def loc(self):
            return _Located(self)

        def __reduce_ex__(self, protocol):
            return self._mlrails_plain().__reduce_ex__(protocol)

    for name in ("index", "columns", "shape", "empty", "ndim", "axes", "dtypes", "keys", "__len__", "__iter__", "__contains__"):
        setattr(Watched, name, _axis(name) if name in ("index", "columns") else quietly(name))
    _made.append(Watched)
    return Watched


def _in_quiet(frame, question):
    reads = frame.__dict__.get("_mlrails_reads")
    if reads is None:
        return question()
    with reads:
        return question()


def _axis(name):
    """`index` and `columns`, which can be set too."""
    import pandas

    inherited = getattr(pandas.DataFrame, "__dict__", {}).get(name) or getattr(pandas.DataFrame, name)

    def get(self):
        return _in_quiet(self, lambda: inherited.__get__(self, type(self)))

    def set(self, labels):
        _in_quiet(self, lambda: inherited.__set__(self, labels))

    return property(get, set)


class _Located:
    """`.loc`: its columns are known when they are named."""

    def __init__(self, frame):
        self._frame = frame

    def _ask(self, key):
        named = key[1] if isinstance(key, tuple) and len(key) == 2 else None
        names = None if named is None else _names(self._frame.columns, named)
        reads = self._frame.__dict__.get("_mlrails_reads")
        if reads is not None and names is None:
            reads.whole = True
        elif reads is not None:
            reads.columns.update(names)

    def __getitem__(self, key):
        self._ask(key)
        return self._frame._mlrails_plain().loc[key]

    def __setitem__(self, key, value):
        self._ask(key)
        frame = self._frame
        changed = frame._mlrails_plain().copy()
        changed.loc[key] = value
        frame.__dict__["_mlrails_mgr"] = changed._mgr

    def __call__(self, *arguments, **named):
        self._ask(None)
        return self._frame._mlrails_plain().loc(*arguments, **named)

    def __getattr__(self, name):
        self._ask(None)
        return getattr(self._frame._mlrails_plain().loc, name)


def _names(columns, key):
    """The columns that `key` names, or None when it does not name them: a mask, a slice."""
    try:
        if key in columns:
            return [key]
    except TypeError:
        pass
    if isinstance(key, (str, int)):
        return []
    if type(key).__name__ in ("list", "Index", "ndarray", "Series", "tuple"):
        names = list(key)
        if all(isinstance(name, str) for name in names):
            return names
    return None

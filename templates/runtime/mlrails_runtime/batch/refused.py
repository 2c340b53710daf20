"""What stops a batch with words for people instead of a traceback."""


class Refused(Exception):
    """The input, the output or what the project has; exit 1."""


class Misused(Exception):
    """Options that do not go together; exit 2."""


class RowsRejected(Exception):
    """Rows broke the schema under `--on-error fail`. `lines`: what is told of the first ones."""

    def __init__(self, count, lines):
        super().__init__(f"{count} rows were rejected")
        self.count = count
        self.lines = lines

"""The pipeline of @PROJECT@ on the command line: `python -m @PACKAGE@._mlrails batch --input rows.csv --output answers.csv`, or `verify`.

The image has the same verbs and a server beside them.
"""

import os
import pathlib
import sys

USAGE = """usage: python -m @PACKAGE@._mlrails [batch | verify | settings]

  batch      score files, on this machine or on a cluster (batch --help)
  verify     replay the golden rows that training recorded; exit 1 when an answer differs
  settings   the environment variables that are read, and what they are set to
"""


def main(words):
    if not words or words[0] not in ("batch", "verify", "settings"):
        asked = bool(words) and words[0] in ("-h", "--help", "help")
        print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    # Processes that it starts find the pipeline by this as well.
    os.environ["MLRAILS_APP"] = str(pathlib.Path(__file__).resolve().parent)
    from @PACKAGE@._mlrails.runtime.__main__ import main as verb

    return verb(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

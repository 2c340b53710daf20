"""The verbs of the image: `serve` (default), `batch`, `verify`, `settings`."""

import sys

from mlrails_runtime import settings

USAGE = """usage: python -m mlrails_runtime [serve | batch | verify | settings]

  serve      answer over HTTP (default)
  batch      score files: --input rows.csv --output answers.csv (batch --help)
  verify     replay the golden rows that training recorded; exit 1 when an answer differs
  settings   the environment variables that are read, and what they are set to
"""


def main(words):
    verb, rest = (words[0], words[1:]) if words else ("serve", [])
    if verb in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    try:
        chosen = settings.read()
    except settings.Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    # Before numpy is imported by anyone: thread pools are sized when their library loads.
    settings.prepare_process(chosen)
    if verb == "serve":
        from mlrails_runtime import server

        return server.run(chosen)
    if verb == "batch":
        from mlrails_runtime import batch

        return batch.run(chosen, rest)
    if verb == "verify":
        from mlrails_runtime import verify

        return verify.run(chosen)
    if verb == "settings":
        print(settings.table(chosen))
        return 0
    print(f"error: unknown verb {verb!r}\n{USAGE}", end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

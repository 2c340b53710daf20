"""The Python side of `mlrails run`: runs nodes, saves what was learned, replays golden rows.

Started by the binary with the project's interpreter, once per worker. Each process reads a plan (a JSON file) and then one command per
line; `main` has the protocol. Standard library only: the project's environment need not hold anything for it. It must not know
how the plan was made.
"""

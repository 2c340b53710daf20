"""`batch --engine`: the workers of a cluster make the parts of a job. `drive` is this side, `maker` and `remote` are the other.

`maker` runs where nothing may be as it should: this file imports nothing.
"""

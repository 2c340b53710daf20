"""The part of mlrails that runs beside a model: it serves, scores in batches, and replays golden rows.

It knows a folder with `app.py` and `service.json`, both made by mlrails from a project, and the artifacts that training
left. It must not know how an image is made. Each module has one subject; `__main__` names the verbs.
"""

SCHEMA = 1
"""The `service.json` schema that this runtime reads."""

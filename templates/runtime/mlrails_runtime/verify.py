"""`verify`: replays the golden rows, one by one and together, and compares with the answers of training."""

from __future__ import annotations

import json
import sys

from mlrails_runtime.service import Model, NotPerRow, Service, Unusable, replay, unlike


def run(settings):
    """Prints a report as JSON. 0: all equal; 1: something differs or cannot run."""
    try:
        service = Service(settings.app)
        rows, answers = service.golden()
        model = Model(service, fast=settings.accelerate)
        together, alone = replay(model), replay(model, one_by_one=True)
        if rows and not answers:
            # Nobody recorded what these rows are answered: at least they are answered, and a row alone as among others.
            alone = unlike(model)
    except (Unusable, NotPerRow) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {"service": service.name, "rows": len(rows), "compared": bool(answers), "together": together, "one_by_one": alone}
    report["verified"] = bool(rows) and not together and not alone
    print(json.dumps(report, indent=2))
    if not rows:
        print("error: there are no golden rows to verify with", file=sys.stderr)
    return 0 if report["verified"] else 1

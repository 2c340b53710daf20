"""Golden rows: rows of the training data, with the predictions that the training pass made for the whole table.

Runs in a training worker, where the values are. Writes golden.json: records, predictions, each column's description, and what every
recomputed node gave for the same rows; `replay` does the rest in a process that has seen no training.
"""

import json
import os

from mlrails_worker import answers, nodes, spool, table
from mlrails_worker.failure import Refused

MOST = 100


def run(plan, read_by_frozen=()):
    golden = plan["golden"]
    if plan["table"] is not None:
        document = _from_training(plan, set(read_by_frozen))
    else:
        document = {"rows": None, "source": "none", "columns": golden.get("columns") or []}
    if golden.get("file"):
        document.update(_records(_read(os.path.join(plan["root"], golden["file"])), golden["file"], document))
    elif document["rows"] is None and plan["examples"]:
        records = nodes.call(nodes.resolve(plan["examples"]), {})
        file = plan["examples"]["module"].rpartition(".")[2]
        document.update(_records(records, f"examples() in {file}.py", document))
    with open(os.path.join(plan["scratch"], "golden.json"), "w", encoding="utf-8") as file:
        json.dump(document, file)
    return {"rows": len(document["rows"] or ()), "source": document["source"]}


def _from_training(plan, read_by_frozen):
    value = spool.get(plan, plan["table"])
    name = plan["nodes"][plan["table"]]["name"]
    if plan["serving"]["request"] == "table" and not table.is_frame(value):
        kind = type(value).__name__
        raise Refused("not_a_table", f"`{name}` returned a {kind}, and only a pandas DataFrame can be supplied from requests", node=name)
    if not table.is_frame(value) and not table.is_records(value):
        return {"rows": None, "source": "none"}
    names, count = table.names(value), len(value)
    hinted = table.fields(plan["serving"]["row"])
    if hinted is not None:
        lacking = [field for field, hint in hinted.items() if field not in names and not hint["optional"]]
        if lacking:
            row = plan["serving"]["row"]["name"]
            raise Refused("missing_columns", f"`{row}` has the field `{lacking[0]}`, and `{name}` has no such column", node=name)
        names = [field for field in hinted if field in names]
    if not count:
        raise Refused("no_rows", f"`{name}` has no rows: there is nothing to learn from, and nothing to take golden rows from", node=name)
    document = {
        "source": name,
        "columns": [hint(table.describe(value, column), hinted) for column in names],
        "read_by_frozen": sorted(read_by_frozen & set(names)),
        "rows": None,
    }
    if plan["predict"] is None or plan["golden"].get("file"):
        return document
    positions, batches = pick(value, names, plan["golden"])
    document["positions"] = positions
    document["batches"] = batches
    document["rows"] = records(value, names, positions)
    predictions = spool.get(plan, plan["predict"])
    if answers.rows_of(predictions) != count:
        answers.per_row(predictions, count)  # says what it is instead
    document["predictions"] = answers.by_row(answers.take(predictions, positions), len(positions))
    document["expected"] = {}
    for step in plan["serving"]["steps"]:
        if step["training"] is None:
            continue
        value = spool.get(plan, step["training"])
        if answers.rows_of(value) == count:
            rows = answers.by_row(answers.take(value, positions), len(positions))
            document["expected"][step["name"]] = {"rows": rows}
        else:
            document["expected"][step["name"]] = {"whole": answers.whole(value)}
    return document


def hint(entry, hinted):
    """A column's description with what the project's own class says of it."""
    if hinted:
        said = hinted[entry["name"]]
        entry["required"] = entry["required"] and not said["optional"]
        entry["nullable"] = entry["nullable"] or said["nullable"]
    return entry


def records(value, names, positions):
    if table.is_frame(value):
        picked = value.iloc[positions]
        columns = {name: [table.to_json(cell) for cell in picked[name].tolist()] for name in names}
        return [{name: columns[name][at] for name in names} for at in range(len(positions))]
    return [{name: table.to_json(value[at][name]) for name in names if name in value[at]} for at in positions]


def pick(value, names, golden):
    """Positions of the rows, ascending, and batches of places in that list that are replayed together; one row each without a group."""
    most = golden.get("rows") or MOST
    if golden.get("group"):
        return _groups(value, names, golden["group"], most)
    count = len(value)
    chosen = {}
    for name in names:
        for at in _telling(value, name):
            if len(chosen) < most:
                chosen.setdefault(at)
    # The rest evenly over the table, which may be sorted by something.
    left = min(most, count) - len(chosen)
    for step in range(count):
        if left <= 0:
            break
        at = step * count // min(most, count) if step < min(most, count) else step - min(most, count)
        if at not in chosen:
            chosen[at] = None
            left -= 1
    positions = sorted(chosen)
    return positions, [[at] for at in range(len(positions))]


def _telling(value, name):
    """Rows that show something of a column: the first with a missing value, of each category, the smallest, the largest."""
    if not table.is_frame(value):
        return _telling_cells([table.to_json(record.get(name)) for record in value])
    series = value[name].reset_index(drop=True)
    missing = series.isna()
    found = [int(missing.to_numpy().argmax())] if missing.any() else []
    if getattr(series.dtype, "kind", "O") in "iufM":
        if not missing.all():
            found += [int(series.idxmin()), int(series.idxmax())]
        return found
    try:
        first = series[~missing].drop_duplicates()
    except TypeError:
        return found  # lists and the like
    return found + ([int(at) for at in first.index] if len(first) <= table.MOST_CATEGORIES else [])


def _telling_cells(cells):
    present = [(cell, at) for at, cell in enumerate(cells) if cell is not None]
    found = [cells.index(None)] if len(present) < len(cells) else []
    kinds = {type(cell) for cell, _ in present}
    if kinds and kinds <= {int, float}:
        return found + [min(present)[1], max(present, key=lambda pair: (pair[0], -pair[1]))[1]]
    if kinds <= {str, bool}:
        first = {}
        for cell, at in present:
            first.setdefault(cell, at)
        if len(first) <= table.MOST_CATEGORIES:
            found += first.values()
    return found


def _groups(value, names, group, most):
    if group not in names:
        raise Refused("no_group", f"[golden] group names the column `{group}`, which the table does not have")
    cells = table.column(value, group)
    members = {}
    for at, cell in enumerate(cells):
        members.setdefault(cell, []).append(at)
    chosen, used = [], 0
    for rows in members.values():
        if used + len(rows) <= most:
            chosen.append(rows)
            used += len(rows)
    if not chosen:
        smallest = min(map(len, members.values()))
        raise Refused("group_too_large", f"the smallest group of `{group}` has {smallest} rows, and [golden] rows allows {most}")
    positions = sorted(at for rows in chosen for at in rows)
    place = {at: number for number, at in enumerate(positions)}
    return positions, [[place[at] for at in rows] for rows in chosen]


def _read(path):
    """Records of the project's own: a JSON list, or one record per line."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        return json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise Refused("golden_file", f"the golden rows cannot be read: {error}") from None


def _told(column, seen):
    """A column that is known, with an example from rows where it has none."""
    if column.get("example") is not None:
        return column
    alike = next((other for other in seen if other["name"] == column["name"] and other["type"] == column["type"]), {})
    return {**{key: alike[key] for key in ("example", "categories") if key in alike}, **column}


def _records(found, source, document):
    if not table.is_records(found) or not found:
        raise Refused("golden_file", f"{source} must give a list of records, with at least one")
    rows = [{str(name): table.to_json(cell) for name, cell in record.items()} for record in found]
    seen = [table.describe(rows, name) for name in table.names(rows)]
    known = [_told(column, seen) for column in document.get("columns") or seen]
    single = [[at] for at in range(len(rows))]
    return {"rows": rows, "source": source, "columns": known, "predictions": None, "expected": {}, "batches": single}

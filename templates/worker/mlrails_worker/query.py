"""A query as a node: `[data] url` says where it runs, `:name` parameters are bound, never pasted into the text.

sqlite:///relative, sqlite:////absolute by the standard library; any other URL by SQLAlchemy when the project has it. The result is a
DataFrame where pandas is installed, else a list of dicts.
"""

import os

from mlrails_worker.failure import Refused


def run(plan, node, parameters):
    from mlrails_worker.nodes import reference

    url = plan.get("data_url")
    if not url:
        raise Refused("no_data_url", f"`{node['name']}` is a query, and nothing says which database it runs on")
    url = reference(url, plan)
    if url.startswith("sqlite:///"):
        return _sqlite(os.path.join(plan["root"], url[len("sqlite:///") :]), node, parameters)
    try:
        import sqlalchemy
    except ImportError:
        scheme = url.partition(":")[0]
        message = f"`{node['name']}` runs on a {scheme} database, and SQLAlchemy is not installed in .venv"
        raise Refused("no_sqlalchemy", message) from None
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text(node["query"]), parameters)
            return _table(list(result.keys()), [tuple(row) for row in result])
    finally:
        engine.dispose()


def _sqlite(path, node, parameters):
    import sqlite3

    if not os.path.exists(path):
        # SQLite would make an empty database of that name.
        raise Refused("no_database", f"`{node['name']}` runs on {path}, which does not exist")
    connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)
    try:
        cursor = connection.execute(node["query"], parameters)
        return _table([column[0] for column in cursor.description or []], cursor.fetchall())
    finally:
        connection.close()


def _quoted(path):
    from urllib.parse import quote

    return quote(path)


def _table(columns, rows):
    try:
        import pandas
    except ImportError:
        return [dict(zip(columns, row)) for row in rows]
    return pandas.DataFrame.from_records(rows, columns=columns, coerce_float=True)

"""Schemathesis against a running service: requests made from its own OpenAPI document, right ones and wrong ones.

Usage: fuzz.py ADDRESS PROJECT EXAMPLES, by a Python that has schemathesis. EXAMPLES: the most cases per operation and phase. Two runs:

    the document as it is     wrong requests too; all checks, save that right ones be answered 200, because no schema can say that a
                              tensor's data fills its shape, or that a text is CSV with these columns
    JSON, as in training      only right requests, with columns as bounded as training saw them; all checks

Prints the cases of each; exits 1 with what schemathesis says when it finds anything, and when the service answered 500 at all.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

COMMON = ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--no-color"]
# What asks for more than is set aside is told so (413), whatever else is wrong with it.
REFUSED = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""


def ask(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
        return answer.read().decode()


def run(name, words, examples, folder):
    command = [sys.executable, "-m", "schemathesis.cli", "run", *words, "-c", "all", "-n", examples, "--seed", "1", *COMMON]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    if done.returncode or not found or found[1] != found[2]:
        sys.exit(f"{name}: exit {done.returncode}\n{done.stdout[-20000:]}{done.stderr[-4000:]}")
    print(f"{name}: {found[1]} cases")


def bounded(document, record):
    """Only JSON that a schema can say all of, with columns between what training saw."""
    seen = {column["name"]: column for column in record["request"]["columns"]}

    def narrow(name, schema):
        column = seen[name]
        if column["type"] in ("integer", "number") and column.get("minimum") is not None:
            schema.update(minimum=column["minimum"], maximum=column["maximum"])
        elif column["type"] == "datetime":
            schema["enum"] = [column["minimum"], column["maximum"]]
        elif column["type"] == "string" and column.get("categories"):
            schema["enum"] = [*column["categories"], *([None] if "null" in schema["type"] else [])]

    for name, schema in document["components"]["schemas"]["Record"]["properties"].items():
        narrow(name, schema)
    for path, item in list(document["paths"].items()):
        content = item.get("post", {}).get("requestBody", {}).get("content")
        if path.startswith("/v2/") and content:
            del document["paths"][path]
        elif content:
            for media in [media for media in content if media != "application/json"]:
                del content[media]
    names = list(seen)
    for body in document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]:
        for name, schema in zip(names, body.get("properties", {}).get("data", {}).get("items", {}).get("prefixItems", [])):
            narrow(name, schema)
    shapes = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    # Lists that are as long as others are, again, more than a schema can say.
    shapes[:] = [shape for shape in shapes if shape["required"][0] in ("dataframe_records", "instances")]
    return document


def main(address, project, examples):
    record = json.loads((pathlib.Path(project) / "artifacts/run.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "schemathesis.toml").write_text(REFUSED)
        run("the document as it is", [f"http://{address}/openapi.json", "--exclude-checks", "positive_data_acceptance", "-m", "all"], examples, folder)
        path = pathlib.Path(folder) / "bounded.json"
        path.write_text(json.dumps(bounded(json.loads(ask(address, "/openapi.json")), record)))
        run("JSON, as in training", [str(path), "-u", f"http://{address}", "-m", "positive"], examples, folder)
    for line in ask(address, "/metrics").splitlines():
        if 'status="500"' in line:
            sys.exit(line)


if __name__ == "__main__":
    main(*sys.argv[1:])

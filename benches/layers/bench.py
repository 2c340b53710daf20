"""Making layers from warm wheels, against the least that it can cost (limit.c) and against gzip -6 of the same tar.

Two sets of wheels: pandas + scikit-learn + scipy + numpy + pyarrow, and with xgboost's large one instead. What counts as ours is a whole
`mlrails image --no-bytecode` whose layers of wheels were forgotten, less the same with all layers known. Needs gcc, libisal-dev, libdeflate-dev, libssl-dev, zlib1g-dev and skopeo (Debian).
"""

import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK, Side, machine, run, show

HERE = pathlib.Path(__file__).resolve().parent
# What is added to fixtures/churn, which has pandas, scikit-learn, scipy and numpy: distribution, module.
SETS = {"pandas + scikit-learn + pyarrow": ("pyarrow>=17", "pyarrow"), "pandas + scikit-learn + xgboost": ("xgboost==2.1.4", "xgboost")}


def call(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def make_project(distribution, module, env):
    """fixtures/churn, whose answers need one distribution more."""
    folder = WORK / "layers" / module
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "fixtures/churn", folder, ignore=shutil.ignore_patterns("dist", ".venv", ".mlrails", "pylock.toml"))
    for file, old, new in (
        ("pyproject.toml", '    "matplotlib', f'    "{distribution}",\n    "matplotlib'),
        ("src/churn/serve.py", "\n\ndef ", f"\nimport {module}\n\n\ndef "),
    ):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace(old, new, 1))
    call(MLRAILS, "--project", folder, "--quiet", "lock", env=env)
    call(MLRAILS, "--project", folder, "--quiet", "image", "--no-bytecode", "--allow-stale", env=env, stdout=subprocess.DEVNULL)
    return folder


def blobs(env):
    """The files of the cache by their digest."""
    cache = pathlib.Path(env["MLRAILS_CACHE_DIR"])
    found = {path.name: path for path in cache.rglob("*") if path.is_file() and len(path.name) in (62, 64)}
    return lambda digest: next(path for name, path in found.items() if digest.removeprefix("sha256:").endswith(name))


def inspected(project, env):
    """The image's wheels, and the blobs of its layers of wheels, in the cache."""
    said = subprocess.run([str(MLRAILS), "inspect", "--format", "json", str(project / "dist/churn")], env=env, capture_output=True, text=True, check=True).stdout
    image = json.loads(said)["images"][0]
    blob = blobs(env)
    layers = [one for one in image["layers"][1:] if one.get("key") and one["title"] != "trained values"]
    return [blob(one["wheel"]) for one in image["distributions"]], [blob(one["digest"]) for one in layers]


def cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def gzip_seconds(project):
    """Processor seconds of gzip -6 for the tars of all layers of the image."""
    total = 0
    with tempfile.NamedTemporaryFile(dir=WORK) as tar:
        for blob in sorted((project / "dist/churn/blobs/sha256").iterdir()):
            if blob.read_bytes()[:2] != b"\x1f\x8b":
                continue
            call("gzip", "-dc", stdin=open(blob), stdout=open(tar.name, "wb"))
            before = cpu()
            call("gzip", "-6c", tar.name, stdout=subprocess.DEVNULL)
            total += cpu() - before
    return total


def main():
    WORK.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "MLRAILS_CACHE_DIR": str(WORK / "store")}
    limit = WORK / "limit"
    call("gcc", "-O3", "-march=native", "-o", limit, HERE / "limit.c", "-lisal", "-ldeflate", "-lcrypto", "-lz", "-lpthread")
    print(f"\n{machine()}\n\n## layers from warm wheels\n")
    print("| wheels | mlrails | the limit | of the limit | gzip -6, core for core |\n|---|---|---|---|---|", flush=True)
    details = []
    for name, added in SETS.items():
        project = make_project(*added, env)
        wheels, layers = inspected(project, env)
        image = [MLRAILS, "--project", project, "--quiet", "image", "--no-bytecode", "--allow-stale"]

        def forget():
            for layer in layers:
                layer.unlink()
            shutil.rmtree(project / "dist", ignore_errors=True)

        ours, least, processor = [], [], []
        for turn in range(6):
            forget()
            before = cpu()
            made = run(Side("mlrails", image, None, env))[0]
            used = cpu() - before
            before = cpu()
            shutil.rmtree(project / "dist")
            again = run(Side("mlrails", image, None, env))[0]
            used -= cpu() - before
            said = subprocess.run([str(limit), str(os.cpu_count()), "3", *map(str, wheels)], capture_output=True, text=True, check=True).stdout
            if turn:
                ours.append(made - again)
                processor.append(used)
                least.append(float(said.split("\nlimit ")[1].split()[0]))
        a, b = statistics.median(ours), statistics.median(least)
        ratio = gzip_seconds(project) / statistics.median(processor)
        print(f"| {name} | {show(a)} | {show(b)} | {a / b:.2f}x | {ratio:.1f}x faster |", flush=True)
        details.append(f"\n{name}: {said}")
    print("".join(details))


if __name__ == "__main__":
    main()

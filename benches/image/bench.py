"""An image of fixtures/churn with mlrails and with buildah + uv: all from warm wheels, after a code change, after one bump.

Both sides end in the same places: a local image, and in the second table a registry on loopback. The peer's base is a Debian with
Python made once by mmdebstrap, untimed; its uv cache and buildah's layers are warm, as its documentation recommends.
Needs root, buildah, mmdebstrap and docker-registry (Debian) and uv (from tests/store).
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from harness import MLRAILS, ROOT, WORK, Report, Side, machine, version

HERE = pathlib.Path(__file__).resolve().parent
UV = ROOT / "tests/store/venv-uv/bin/uv"
UV_CACHE = WORK / "uv-cache"
BASE = "localhost/mlrails-bench-base"
# Each is built once, so that no side finds the last round's layers: the first warms up, as everywhere in these benchmarks.
BUMPS = ("pytz==2026.6", "pytz==2026.5", "pytz==2026.4", "pytz==2026.3", "pytz==2026.2")


def call(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def container_settings():
    """Limits and runtime that work without systemd, in a file of our own."""
    path = WORK / "containers.conf"
    path.write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    os.environ["CONTAINERS_CONF"] = str(path)
    os.environ["BUILDAH_ISOLATION"] = "chroot"


def make_base():
    """A Debian with Python and uv as a local image, once."""
    listed = subprocess.run(["buildah", "images", "-q", BASE], capture_output=True, text=True).stdout.strip()
    if listed:
        return
    tar = WORK / "base.tar"
    call("mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates,libgomp1", "bookworm", tar)
    container = subprocess.run(["buildah", "from", "scratch"], capture_output=True, text=True, check=True).stdout.strip()
    call("buildah", "add", "-q", container, tar, "/")
    call("buildah", "copy", "-q", container, UV.resolve(), "/usr/local/bin/uv")
    call("buildah", "commit", "-q", container, BASE)
    call("buildah", "rm", container)
    tar.unlink()


def registry():
    """A docker-registry of our own on a free port; stopped by its pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = WORK / "registry"
    shutil.rmtree(folder, ignore_errors=True)
    config = WORK / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1)
            return process, port, folder
        except OSError:
            time.sleep(0.1)
    sys.exit("docker-registry did not start")


def prepare(env):
    """Two copies of the project, one a side, with every dependency set locked and its wheels downloaded beforehand."""
    ours, peer = WORK / "ours", WORK / "peer"
    for copy in (ours, peer):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ROOT / "fixtures/churn", copy, ignore=shutil.ignore_patterns("dist", ".venv", ".mlrails", "pylock.toml"))
        for file, old, new in (
            # A table library, a model library, a columnar one and a web framework, all of them needed by what is served.
            ("pyproject.toml", '    "matplotlib', '    "pyarrow>=17",\n    "fastapi>=0.115",\n    "matplotlib'),
            ("src/churn/serve.py", "\n\ndef ", "\nimport fastapi\nimport pyarrow\n\n\ndef "),
        ):
            text = (copy / file).read_text()
            (copy / file).write_text(text.replace(old, new, 1))
    # What serving needs, declared by hand: the peer has no reachability.
    text = (peer / "pyproject.toml").read_text()
    (peer / "pyproject.toml").write_text(text.replace('"matplotlib', '# "matplotlib'))
    for index, pin in enumerate(BUMPS):
        constraint = WORK / "constraint.txt"
        constraint.write_text(pin + "\n")
        project = (peer / "pyproject.toml").read_text().split("\n[tool.uv]")[0]
        (peer / "pyproject.toml").write_text(project + f'\n[tool.uv]\nconstraint-dependencies = ["{pin}"]\n')
        call(UV, "lock", "-q", "--directory", peer)
        # Every wheel is downloaded, and unpacked in uv's cache, before anything is timed.
        sync = ["sync", "-q", "--frozen", "--no-dev", "--no-install-project", "--directory", peer, "--python", "/usr/bin/python3"]
        call(UV, *sync, env={**os.environ, "UV_CACHE_DIR": str(UV_CACHE), "UV_LINK_MODE": "copy"})
        shutil.rmtree(peer / ".venv")
        shutil.copy(peer / "uv.lock", WORK / f"uv.lock.{index}")
        shutil.copy(peer / "pyproject.toml", WORK / f"pyproject.peer.{index}")
        project = (ours / "pyproject.toml").read_text().split("\n[tool.uv]")[0]
        (ours / "pyproject.toml").write_text(project + f'\n[tool.uv]\nconstraint-dependencies = ["{pin}"]\n')
        call(MLRAILS, "--project", ours, "--quiet", "lock", env=env)
        call(MLRAILS, "--project", ours, "--quiet", "image", "--allow-stale", env=env, stdout=subprocess.DEVNULL)
        shutil.copy(ours / "pylock.toml", WORK / f"pylock.{index}")
        shutil.copy(ours / "pyproject.toml", WORK / f"pyproject.ours.{index}")
    return ours, peer


def choose(ours, peer, index):
    shutil.copy(WORK / f"uv.lock.{index}", peer / "uv.lock")
    shutil.copy(WORK / f"pyproject.peer.{index}", peer / "pyproject.toml")
    shutil.copy(WORK / f"pylock.{index}", ours / "pylock.toml")
    shutil.copy(WORK / f"pyproject.ours.{index}", ours / "pyproject.toml")


def edit(project):
    """A change of code that nothing else depends on."""
    serve = project / "src/churn/serve.py"
    serve.write_text(serve.read_text().split("\n# bench ")[0] + f"\n# bench {time.time_ns()}\n")


def main():
    for tool in ("buildah", "mmdebstrap", "docker-registry"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: apt-get install {tool}")
    WORK.mkdir(parents=True, exist_ok=True)
    container_settings()
    make_base()
    env = {**os.environ, "MLRAILS_CACHE_DIR": str(WORK / "store")}
    ours, peer = prepare(env)
    process, port, folder = registry()
    print(f"\n{machine()}\n{version('buildah', '--version')}; {version(UV, '--version')}; {version(MLRAILS, '--version')}")
    build = ["buildah", "build", "-q", "--layers", "--network", "host", "--volume", f"{UV_CACHE}:/root/.cache/uv", "--build-arg", f"BASE={BASE}", "-t", "localhost/bench-churn"]
    build += ["-f", HERE / "Containerfile", peer]

    def forget_made():
        """Downloads stay; bytecode, the base and every layer are made again. The peer keeps its base."""
        forget("--made")

    def forget_layers():
        """What is made once per wheel and per base stays as well: bytecode, compressed. Every layer and every built image goes."""
        forget("--layers")

    def forget(what):
        call(MLRAILS, "cache", "clean", what, env=env, stdout=subprocess.DEVNULL)
        shutil.rmtree(ours / "dist", ignore_errors=True)
        shutil.rmtree(folder / "docker", ignore_errors=True)

    def forget_images():
        shutil.rmtree(folder / "docker", ignore_errors=True)
        images = subprocess.run(["buildah", "images", "-a", "--format", "{{.ID}} {{.Name}}"], capture_output=True, text=True).stdout
        gone = [line.split()[0] for line in images.splitlines() if BASE not in line]
        if gone:
            subprocess.run(["buildah", "rmi", "-f", *gone], capture_output=True)

    def bump():
        bump.index += 1
        choose(ours, peer, bump.index)

    try:
        for pushed in (False, True):
            report = Report("image and push" if pushed else "image")
            tag = f"127.0.0.1:{port}/churn:1"
            mine = [MLRAILS, "--project", ours, "--quiet", "image"] + (["--tag", tag, "--push"] if pushed else [])
            script = " ".join(f"'{word}'" for word in build)
            push = f" && buildah push -q --tls-verify=false localhost/bench-churn docker://127.0.0.1:{port}/peer:1" if pushed else ""
            theirs = ["sh", "-c", script + push]
            choose(ours, peer, 0)
            bump.index = 0
            run = lambda before, env=env: Side("mlrails", mine, before, env)  # noqa: E731
            # The artifacts were trained with another version: a replay would prove the new one, and the peer has no such check.
            bumped = Side("mlrails", [*mine, "--allow-stale"], bump, env)
            all_layers = Side("buildah + uv", theirs, forget_images)
            report.pair("all layers from downloads alone", run(forget_made), all_layers, runs=3)
            report.pair("all layers from warm wheels", run(forget_layers), all_layers, runs=3)
            report.pair("after a code change", run(lambda: edit(ours)), Side("buildah + uv", theirs, lambda: edit(peer)))
            report.pair("after one dependency's bump", bumped, Side("buildah + uv", theirs), runs=len(BUMPS) - 2)
            report.keep()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()

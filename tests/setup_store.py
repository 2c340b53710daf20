"""Fills tests/store with real wheels and a slice of the signed Debian archive. Standard library and pip only.

Usage: setup_store.py FOLDER. Reads store.list beside this file and the example project's pins. The index and the mirror are
the machine's own (pip's configuration, apt's sources); nothing here names a host.

    FOLDER/wheels/*.whl
    FOLDER/debian/dists/<suite>/InRelease, main/binary-amd64/Packages.xz
    FOLDER/debian/pool/...   FOLDER/debian-security/... the same for the security archive
"""

import hashlib
import lzma
import pathlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent


def listed(kind):
    for line in (HERE / "store.list").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == kind:
            yield rest.split()


def fill_wheels(folder):
    folder.mkdir(parents=True, exist_ok=True)
    pins = HERE.parent / "fixtures/churn/requirements.txt"
    requirements = [" ".join(words) for words in listed("wheel")]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--python-version", "3.11.2", "--implementation", "cp"]
    for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1"):
        command += ["--platform", f"{tag}_x86_64"]
    command += ["-d", str(folder)]
    # The pins are complete: each is fetched by itself, so that pip does not solve what is solved already.
    subprocess.run([*command, "--no-deps", "-r", str(pins)], check=True)
    subprocess.run([*command, "--find-links", str(folder), *requirements], check=True)


def mirrors():
    """The machine's Debian archive and its security archive, from apt's sources in either format."""
    found = {}
    files = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        text = file.read_text() if file.is_file() else ""
        for url in re.findall(r"https?://[^\s]+", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
            name = url.rstrip("/").rsplit("/", 1)[-1]
            if name in ("debian", "debian-security"):
                found.setdefault(name, url.rstrip("/"))
    return found


class Moved(Exception):
    """The mirror, or a cache before it, answered with another state of the archive than its signed index names."""


def fetch(url, path, digest=None):
    """The body at `url`, kept at `path`; one that is there already and has the digest is not asked for again."""
    if path.exists() and (digest is None or hashlib.sha256(path.read_bytes()).hexdigest() == digest):
        return path.read_bytes()
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise Moved(f"{url}: {error}") from error
    if digest and hashlib.sha256(body).hexdigest() != digest:
        raise Moved(f"{url}: not the bytes that the signed index names")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return body


def fill_suite(base, root, suite, packages):
    release = root / "dists" / suite / "InRelease"
    release.unlink(missing_ok=True)  # it moves; what it names must match it
    text = fetch(f"{base}/dists/{suite}/InRelease", release).decode()
    section = text.split("\nSHA256:\n", 1)[1]
    folder, file = "main/binary-amd64", "Packages.xz"
    digest = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {folder}/{file}$", section, re.M).group(1)
    index_path = root / "dists" / suite / folder / file
    try:  # By its hash first: that address never holds another state.
        index = fetch(f"{base}/dists/{suite}/{folder}/by-hash/SHA256/{digest}", index_path, digest)
    except Moved:
        index = fetch(f"{base}/dists/{suite}/{folder}/{file}", index_path, digest)
    for paragraph in lzma.decompress(index).decode().split("\n\n"):
        fields = dict(re.findall(r"^(Package|Filename|SHA256): (.*)$", paragraph, re.M))
        if fields.get("Package") in packages:
            fetch(f"{base}/{fields['Filename']}", root / fields["Filename"], fields["SHA256"])


def fill_debian(folder, attempts=5, pause=20):
    wanted = {}
    for suite, *packages in listed("deb"):
        wanted.setdefault(suite, set()).update(packages)
    sources = mirrors()
    for codename, packages in wanted.items():
        suites = [("debian", codename), ("debian", f"{codename}-updates"), ("debian-security", f"{codename}-security")]
        for archive, suite in suites:
            if archive not in sources:
                continue
            for attempt in range(1, attempts + 1):
                try:
                    fill_suite(sources[archive], folder / archive, suite, packages)
                    break
                except Moved as error:
                    if attempt == attempts:
                        raise SystemExit(str(error)) from None
                    print(f"setup: {error}; again in {pause} s", file=sys.stderr)
                    time.sleep(pause)


if __name__ == "__main__":
    store = pathlib.Path(sys.argv[1])
    fill_wheels(store / "wheels")
    fill_debian(store)

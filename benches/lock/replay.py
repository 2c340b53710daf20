"""A Python index on loopback that answers from a recording, so that a lock's time is the locker's and not the network's.

`record` passes what it has not seen on to the machine's own index and keeps the answer; `replay` answers from what was kept, after
a delay that stands for the network's, and counts what it was not prepared for. Pages carry an ETag and max-age as the public index's
do, files have `.metadata` beside them (PEP 658), and both are answered in ranges. The recording is made where the benchmark runs and is
not committed. Standard library only.

    replay.py record|replay FOLDER [--delay SECONDS]      prints the port it listens on
"""

import argparse
import asyncio
import hashlib
import io
import json
import os
import pathlib
import sys
import urllib.parse
import urllib.request
import zipfile

REASONS = {200: "OK", 206: "Partial Content", 304: "Not Modified", 404: "Not Found", 416: "Range Not Satisfiable"}


def upstream():
    """The index that pip uses on this machine."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url.rstrip("/")
    from pip._internal.configuration import Configuration
    from pip._internal.models.index import PyPI

    configuration = Configuration(isolated=False)
    configuration.load()
    return dict(configuration.items()).get("global.index-url", PyPI.simple_url).rstrip("/")


class Remote(io.RawIOBase):
    """A file of the real index, read in ranges: enough for zipfile to find METADATA."""

    def __init__(self, url):
        self.url, self.at = url, 0
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
            self.size = int(answer.headers["content-length"])

    def seekable(self):
        return True

    def readable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def readinto(self, buffer):
        end = min(self.at + len(buffer), self.size)
        if end <= self.at:
            return 0
        body = fetch(self.url, f"bytes={self.at}-{end - 1}")
        buffer[: len(body)] = body
        self.at += len(body)
        return len(body)


def fetch(url, range_=None):
    headers = {"accept": "application/vnd.pypi.simple.v1+json, */*;q=0.1"} | ({"range": range_} if range_ else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read()


class Recording:
    """Answers by path: what is kept in the folder, and while recording what the index says."""

    def __init__(self, folder, recording):
        self.folder, self.recording = pathlib.Path(folder), recording
        self.places = {}  # file name -> its URL and size at the index
        self.kept = {}
        self.missing = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        places = self.folder / "places.json"
        if places.exists():
            self.places = json.loads(places.read_text())

    def get(self, key, make):
        """The bytes kept as `key`, made if this is a recording; `None` where there are none."""
        if key not in self.kept:
            path = self.folder / hashlib.sha256(key.encode()).hexdigest()
            if not path.exists():
                if not self.recording:
                    self.missing += 1
                    print(f"not recorded: {key}", file=sys.stderr, flush=True)
                    return None
                try:
                    path.write_bytes(make())
                except urllib.error.HTTPError as error:
                    if error.code not in (403, 404):
                        raise
                    path.write_bytes(b"")
            self.kept[key] = path.read_bytes()
        return self.kept[key] or None

    def page(self, name):
        def make():
            page = json.loads(fetch(f"{upstream()}/{name}/"))
            for file in page["files"]:
                url = urllib.parse.urljoin(f"{upstream()}/{name}/", file["url"])
                self.places[file["filename"]] = [url, file.get("size")]
                file["url"] = f"../../files/{file['filename']}"
                if file["filename"].endswith(".whl"):
                    file["core-metadata"] = True
            (self.folder / "places.json").write_text(json.dumps(self.places))
            return json.dumps(page).encode()

        return self.get(f"page {name}", make)

    def metadata(self, name):
        def make():
            archive = zipfile.ZipFile(io.BufferedReader(Remote(self.places[name][0]), 256 << 10))
            entry = next(e for e in archive.namelist() if e.endswith(".dist-info/METADATA") and e.count("/") == 1)
            return archive.read(entry)

        return self.get(f"metadata {name}", make)

    def size(self, name):
        url, size = self.places[name]
        if size is None:
            size = self.places[name][1] = Remote(url).size
        return size

    def piece(self, name, first, last):
        return self.get(f"piece {name} {first}-{last}", lambda: fetch(self.places[name][0], f"bytes={first}-{last}"))

    def whole(self, name):
        return self.get(f"whole {name}", lambda: fetch(self.places[name][0]))


def answer(recording, path, headers):
    """Status, headers and body for one GET or HEAD."""
    parts = [urllib.parse.unquote(part) for part in path.split("?")[0].strip("/").split("/")]
    if parts[0] == "simple" and len(parts) == 2:
        body = recording.page(parts[1])
        kind, age = "application/vnd.pypi.simple.v1+json", "max-age=600, public"
    elif parts[0] == "files" and len(parts) == 2 and parts[1].removesuffix(".metadata") in recording.places:
        kind, age = "application/octet-stream", "max-age=365000000, immutable, public"
        name, asked = parts[1], headers.get("range", "").removeprefix("bytes=")
        if name.endswith(".metadata"):
            body = recording.metadata(name.removesuffix(".metadata"))
        elif asked:
            size = recording.size(name)
            first, _, last = asked.partition("-")
            first, last = (size - int(last), size - 1) if not first else (int(first), min(int(last or size), size - 1))
            body = recording.piece(name, max(first, 0), last)
            if body is not None:
                return 206, {"content-range": f"bytes {max(first, 0)}-{last}/{size}", "accept-ranges": "bytes"}, body
        else:
            body = recording.whole(name)
    else:
        body = None
    if body is None:
        return 404, {}, b"not here"
    tag = f'"{hashlib.md5(body).hexdigest()}"'
    shared = {"etag": tag, "cache-control": age}
    if headers.get("if-none-match") == tag:
        return 304, shared, b""
    return 200, {**shared, "content-type": kind, "accept-ranges": "bytes"}, body


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and nothing else: GET and HEAD without bodies."""

    def __init__(self, recording, delay):
        self.recording, self.delay, self.buffer = recording, delay, b""
        self.answers = {}

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, self.buffer = self.buffer[:end].decode("latin-1"), self.buffer[end + 4 :]
            first, *lines = head.split("\r\n")
            method, path, _ = first.split(" ", 2)
            headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.reply, method, path, headers)
            else:
                self.reply(method, path, headers)

    def reply(self, method, path, headers):
        status, extra, body = answer(self.recording, path, headers)
        length = {} if status == 304 else {"content-length": str(len(body))}
        head = "".join(f"{key}: {value}\r\n" for key, value in {**extra, **length}.items())
        text = f"HTTP/1.1 {status} {REASONS[status]}\r\n{head}\r\n".encode("latin-1")
        self.transport.write(text if method == "HEAD" else text + body)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["record", "replay"])
    parser.add_argument("folder")
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    recording = Recording(arguments.folder, arguments.mode == "record")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(recording, arguments.delay), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started it closes its standard input, by ending too.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())

"""One large file to and from the local Hub, beside a plain file server; and many small files in one commit.

    python benchmarks/hub_transfer.py [--gigabytes 1] [--rounds 3] [--files 2500]

Method. The plain file server is Python's own http.server, which writes a PUT to a file and syncs it, and sends
a file for a GET. That is the least that a Hub must do, without a hash, a database or a protocol. Both keep every file
(memory that a virtual machine has not touched yet makes the first writes slow). The same program sends to and
receives from both over plain sockets (1 MiB at a time), in turns, with new random contents each round: for
the Hub that is the PUT of an LFS object, in one piece, and the GET of a resolve address. Then huggingface_hub
itself uploads (hashing first; by LFS in parts of 16 MiB, and by xet) and downloads. Times are medians in
seconds. Memory is the server process's own peak (VmHWM), files in the page cache not counted.

The last lines commit N and 4N small files, each in one commit: four times the files should take four times as
long, not sixteen.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from hubkit.localhub import LocalHub

CHUNK = 1 << 20

PLAIN = """
import os, shutil, sys
from http.server import ThreadingHTTPServer, SimpleHTTPRequestHandler

class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = int(self.headers["content-length"])
        with open(os.path.basename(self.path), "wb") as file:
            while left:
                data = self.rfile.read(min(left, 1 << 20))
                file.write(data)
                left -= len(data)
            file.flush()
            os.fsync(file.fileno())
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

CLIENT = """
import sys, time
from huggingface_hub import HfApi, hf_hub_download
what, name, path = sys.argv[1:]
started = time.perf_counter()
if what == "up":
    HfApi().upload_file(path_or_fileobj=path, path_in_repo=name, repo_id="local/x")
else:
    hf_hub_download("local/x", name, local_dir=path)
print(time.perf_counter() - started)
"""


@contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", PLAIN], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def request(url: str, method: str, file: Path | None = None, token: str = "") -> float:
    """Seconds that a transfer takes."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, blocksize=CHUNK, timeout=600)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    started = time.perf_counter()
    if file is None:
        connection.request(method, parts.path, headers=headers)
    else:
        headers["content-length"] = str(file.stat().st_size)
        with file.open("rb") as body:
            connection.request(method, parts.path, body, headers)
    answer = connection.getresponse()
    buffer = bytearray(CHUNK)
    while answer.readinto(buffer):
        pass
    assert answer.status == 200, answer.status
    connection.close()
    return time.perf_counter() - started


def post(hub: LocalHub, path: str, body: bytes) -> dict[str, object]:
    parts = urlsplit(hub.endpoint)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=600)
    connection.request("POST", path, body, {"authorization": f"Bearer {hub.token}"})
    answer = connection.getresponse()
    data: dict[str, object] = json.loads(answer.read())
    assert answer.status == 200, data
    return data


def commit(hub: LocalHub, operations: list[dict[str, object]]) -> float:
    lines = [{"key": "header", "value": {"summary": "benchmark"}}, *operations]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    started = time.perf_counter()
    post(hub, "/api/models/local/x/commit/main", body)
    return time.perf_counter() - started


def put_to_hub(hub: LocalHub, file: Path, name: str) -> float:
    with file.open("rb") as opened:
        digest = sha256()
        while data := opened.read(CHUNK):
            digest.update(data)
    item = {"oid": digest.hexdigest(), "size": file.stat().st_size}
    batch = {"operation": "upload", "transfers": ["basic"], "objects": [item]}
    answer = post(hub, "/local/x.git/info/lfs/objects/batch", json.dumps(batch).encode())
    url = answer["objects"][0]["actions"]["upload"]["href"]  # type: ignore[index]
    seconds = request(url, "PUT", file)
    commit(hub, [{"key": "lfsFile", "value": {"path": name, "algo": "sha256", **item}}])
    return seconds


def with_client(hub: LocalHub, what: str, name: str, path: Path, xet: bool) -> float:
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": str(int(not xet)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(path.parent / "hf_home"),
    }  # fmt: skip
    command = [sys.executable, "-c", CLIENT, what, name, str(path)]
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(os.urandom(min(CHUNK, size - start)))


def peak(pid: int) -> int:
    """MB of memory that a process had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1000


def large_file(hub: LocalHub, folder: Path, size: int, rounds: int) -> None:
    file, back = folder / "data.bin", folder / "back"
    (folder / "plain").mkdir()
    times: dict[str, list[float]] = {}

    def note(what: str, seconds: float) -> None:
        times.setdefault(what, []).append(seconds)

    with plain_server(folder / "plain") as plain:
        for turn in range(rounds):
            fill(file, size)
            note("plain server, PUT", request(f"{plain}/{turn}.bin", "PUT", file))
            note("hub, PUT", put_to_hub(hub, file, f"{turn}.bin"))
            note("plain server, GET", request(f"{plain}/{turn}.bin", "GET"))
            note("hub, GET", request(f"{hub.endpoint}/local/x/resolve/main/{turn}.bin", "GET"))
            for way in ("lfs", "xet"):
                fill(file, size)
                note(
                    f"huggingface_hub, upload by {way}",
                    with_client(hub, "up", f"{way}.bin", file, way == "xet"),
                )
            note("huggingface_hub, download", with_client(hub, "down", "xet.bin", back, True))
    for what, taken in times.items():
        print(f"{what:32} {median(taken):7.2f} s {size / median(taken) / 1e6:7.0f} MB/s")
    for method in ("PUT", "GET"):
        ratio = median(times[f"hub, {method}"]) / median(times[f"plain server, {method}"])
        print(f"hub / plain server, {method}: {ratio:.2f}")


def small_files(hub: LocalHub, count: int) -> None:
    for part, number in enumerate((count, 4 * count)):
        operations: list[dict[str, object]] = [
            {"key": "file", "value": {"path": f"{part}/{i % 100}/{i}.txt", "content": f"{part} {i}\n"}}
            for i in range(number)
        ]
        print(f"{number} small files in one commit: {commit(hub, operations):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=2_500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.perf_counter()
        with LocalHub(folder / "hub") as hub:
            print(f"started in {time.perf_counter() - started:.2f} s")
            assert hub._process is not None
            post(hub, "/api/repos/create", b'{"name": "x", "organization": "local"}')
            large_file(hub, folder, int(arguments.gigabytes * 1e9), arguments.rounds)
            print(f"the server's memory: at most {peak(hub._process.pid)} MB")
            small_files(hub, arguments.files)
            print(f"the server's memory: at most {peak(hub._process.pid)} MB")


if __name__ == "__main__":
    main()

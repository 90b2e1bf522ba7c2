"""A release is published whole through a Hub that counts requests, as the real one does."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from small_release import Run, build

from hubkit.localhub import LocalHub
from hubkit.recipe.config import Recipe
from hubkit.release import publish

MOST, WINDOW = 40, 3.0
"""Requests to the API in a window of seconds; a release of twelve repos has some 120."""


class Counting(ThreadingHTTPServer):
    """Stands before a Hub, and answers 429 to more requests than a window may have."""

    daemon_threads = True

    def __init__(self, hub: LocalHub) -> None:
        self.there = hub.endpoint.removeprefix("http://")
        self.lock, self.began, self.number = threading.Lock(), time.monotonic(), 0
        self.answers: Counter[int] = Counter()
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def left(self) -> tuple[bool, int]:
        """Whether one more request is taken, and the seconds until the window ends, rounded down."""
        with self.lock:
            now = time.monotonic()
            if now - self.began >= WINDOW:
                self.began, self.number = now, 0
            self.number += 1
            return self.number <= MOST, int(self.began + WINDOW - now)


class Handler(BaseHTTPRequestHandler):
    server: Counting

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        taken, seconds = self.server.left() if self.path.startswith("/api/") else (True, 0)
        if taken:
            line = http.client.HTTPConnection(self.server.there, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            line.request(self.command, self.path, body or None, headers)
            reply = line.getresponse()
            status, data, sent = reply.status, reply.read(), reply.getheaders()
            line.close()
        else:
            status, data = 429, b"{}"
            sent = [
                ("RateLimit", f'"api";r=0;t={seconds}'),
                ("RateLimit-Policy", f'"api";q={MOST};w={WINDOW}'),
            ]
        self.server.answers[status] += 1
        self.send_response(status)
        for name, value in sent:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[LocalHub, Counting]]:
    with LocalHub(tmp_path / "hub") as hub:
        counting = Counting(hub)
        threading.Thread(target=counting.serve_forever, daemon=True).start()
        yield hub, counting
        counting.shutdown()
        counting.server_close()


def test_every_repo_arrives_once_though_requests_are_counted(
    hub: tuple[LocalHub, Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, counting = hub
    monkeypatch.setenv("HF_ENDPOINT", counting.endpoint)
    monkeypatch.setenv("HF_TOKEN", local.token)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose own client asks no API
    built = build(tmp_path / "run", reported=True)
    about = built.recipe.model_dump(mode="json")
    about["hub"] = {"endpoint": counting.endpoint, "namespace": "local"}
    run: Run = replace(built, recipe=Recipe.model_validate(about))
    record = run.finish("publish", publish.run, tmp_path / "p")
    release = json.loads((run.inputs["publish"] / "release.json").read_text())
    assert counting.answers[429] > 0 and record.counts == {"pushed": len(release["repos"])}
    api = HfApi(endpoint=local.endpoint, token=local.token)
    for repo in release["repos"]:
        commits = api.list_repo_commits(repo["id"], repo_type=repo["type"])
        assert commits[0].commit_id == repo["sha"]
        made = [commit for commit in commits if "by hubkit" in commit.title]
        assert len(made) == 1, "no commit twice, whatever was asked again"

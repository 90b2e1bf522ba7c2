"""What the tests of the local Hub share: short forms of what clients do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import warm
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hubkit.localhub import LocalHub


def add(api: HfApi, repo: str, files: Mapping[str, bytes | str | None], **more: Any) -> str:
    """One commit of new contents (or paths of them), and deletions; returns its id."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in files.items()
    ]
    return str(api.create_commit(repo, operations, commit_message="add", **more).oid)


def read(
    api: HfApi, repo: str, path: str, cache: Path, revision: str | None = None, repo_type: str = "model"
) -> bytes:
    found = api.hf_hub_download(repo, path, revision=revision, cache_dir=cache, repo_type=repo_type)
    return Path(found).read_bytes()


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return int(error.value.response.status_code)


def run(code: str, environment: dict[str, str], *arguments: str) -> str:
    done = warm.run("-c", code, *arguments, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def call(
    hub: LocalHub,
    method: str,
    path: str,
    body: Any = None,
    token: bool = True,
    seconds: int = 20,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """A request exactly as given: no client in between that would tidy up its path."""
    host, port = hub.endpoint.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=seconds)
    if token:
        headers["authorization"] = f"Bearer {hub.token}"
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()

"""hubkit hub fsck and gc on real folders, whole and damaged."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hub_support import add, read
from huggingface_hub import HfApi

from hubkit.errors import BusyError, HubError
from hubkit.localhub import LocalHub, fsck, gc


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hub with a squashed history, a pull request, and an upload that no commit took."""
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/x")
        add(api, "local/x", {"a.txt": b"one", "big.bin": random.Random(1).randbytes(50_000)})
        add(api, "local/x", {"a.txt": b"two"})
        add(api, "local/x", {"big.bin": None, "b.txt": b"b"})
        add(api, "local/x", {"c.txt": b"c"}, create_pr=True)
        api.super_squash_history("local/x")
        assert fsck(tmp_path / "hub").problems == []  # beside the server
        with pytest.raises(BusyError):
            gc(tmp_path / "hub")
    return tmp_path / "hub"


def test_gc_removes_what_nothing_refers_to(folder: Path, tmp_path: Path) -> None:
    before = fsck(folder)
    freed = gc(folder)
    after = fsck(folder)
    assert before.problems == after.problems == []
    # The pull request keeps the history it started from; nothing else is old enough to go.
    assert freed.commits == 0 and after.commits == before.commits
    with LocalHub(folder) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.change_discussion_status("local/x", 1, "closed")
        assert read(api, "local/x", "c.txt", tmp_path / "cache", revision="refs/pr/1") == b"c"
        api.delete_repo("local/x")
        api.create_repo("local/y")
        add(api, "local/y", {"big.bin": random.Random(1).randbytes(50_000)})
    freed = gc(folder)
    assert freed.commits == 0  # they went with their repo
    assert freed.objects >= 3 and freed.bytes > 50_000  # a.txt, b.txt, c.txt, and xet's copy of big.bin
    assert not list((folder / "xorbs").glob("*/*")) and fsck(folder).problems == []
    with LocalHub(folder) as hub:  # a client that had sent the content before gc can send it again
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/z")
        content = random.Random(1).randbytes(50_000) + b"more"
        add(api, "local/z", {"big.bin": content})
        assert read(api, "local/z", "big.bin", tmp_path / "cache") == content


def test_gc_drops_squashed_history(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/x")
        tagged = add(api, "local/x", {"a.txt": b"one"})
        api.create_tag("local/x", tag="v1")
        old = add(api, "local/x", {"a.txt": b"two"})
        api.super_squash_history("local/x")
    assert gc(tmp_path / "hub").commits == 1
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        assert api.revision_exists("local/x", tagged) and not api.revision_exists("local/x", old)
        assert read(api, "local/x", "a.txt", tmp_path / "cache") == b"two"


def test_fsck_finds_damage(folder: Path) -> None:
    objects = sorted((folder / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    small, big = objects[0], objects[-1]
    big.write_bytes(big.read_bytes()[:-1] + b"?")
    small.unlink()
    (xorb,) = (folder / "xorbs").glob("*/*")
    xorb.write_bytes(xorb.read_bytes()[:-1])
    with sqlite3.connect(folder / "hub.sqlite") as database:
        database.execute("UPDATE refs SET sha = 'f' WHERE name = 'refs/heads/main'")
        database.execute("UPDATE trees SET entries = '{}' WHERE rowid = 1")
    problems = "\n".join(fsck(folder).problems)
    for expected in (
        f"object {big.name} is damaged",
        f"missing or damaged: {small.name}",
        f"missing or damaged: {big.name}",
        f"xorb {xorb.name} is damaged",
        "refs/heads/main points to no commit",
        "tree ",
    ):
        assert expected in problems


def test_commands(folder: Path) -> None:
    def hub(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hubkit", "hub", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    whole = hub("fsck", str(folder))
    assert whole.returncode == 0 and whole.stdout.startswith("0 problems in 1 repos"), whole.stderr
    told = json.loads(hub("fsck", str(folder), "--json").stdout)
    assert told["problems"] == [] and told["repos"] == 1 and told["objects"] > 0
    assert hub("gc", str(folder)).stdout.startswith("removed 0 commits and ")
    assert json.loads(hub("gc", str(folder), "--json").stdout) == {"commits": 0, "objects": 0, "bytes": 0}
    next((folder / "objects").glob("*/*")).write_bytes(b"?")
    assert hub("fsck", str(folder)).returncode == 1
    nothing = hub("fsck", str(folder / "elsewhere"))
    assert (
        nothing.returncode == 1 and nothing.stderr.startswith("error: ") and "Traceback" not in nothing.stderr
    )
    with pytest.raises(HubError):
        gc(folder / "elsewhere")

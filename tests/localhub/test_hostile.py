"""The local Hub against hostile and malformed requests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hub_support import call

from hubkit.localhub import LocalHub
from hubkit.localhub.storage import xet
from hubkit.localhub.storage.errors import check_path

BAD_PATHS = [
    "../x", "a/../../x", "/etc/x", "a//b", "a/", "./a", "a/.", ".git/config", "a/.GIT/x", "a\\b", "C:x",
    "a\0b", "a\nb", "", "x" * 2000,
]  # fmt: skip


@pytest.fixture(scope="module")
def repo(local_hub: LocalHub) -> str:
    assert call(local_hub, "POST", "/api/repos/create", {"name": "x", "organization": "local"})[0] == 200
    return "local/x"


def commit(hub: LocalHub, *operations: dict[str, Any], header: dict[str, Any] | None = None) -> int:
    lines = [{"key": "header", "value": header or {"summary": "s"}}, *operations]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return call(hub, "POST", "/api/models/local/x/commit/main", body)[0]


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_are_refused(local_hub: LocalHub, path: str) -> None:
    value = {"path": path, "content": base64.b64encode(b"x").decode(), "encoding": "base64"}
    assert commit(local_hub, {"key": "file", "value": value}) == 400


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    "path",
    [
        "/local/x/resolve/main/../../../token",
        "/local/x/resolve/main/..%2F..%2F..%2Ftoken",
        "/local/x/resolve/main/%2Fetc%2Fpasswd",
        "/local/x/resolve/..%2F..%2Ftoken/x",
        "/local/..%2f..%2ftoken/resolve/main/x",
        "/api/models/local/x/tree/main/..%2F..",
        "/../../token",
        "/local/x/resolve/main/a%00b",
        "/local/x/resolve/main/%ff",
        "/xet/..%2F..%2Ftoken",
    ],
)
def test_nothing_outside_a_repo_is_served(local_hub: LocalHub, path: str) -> None:
    status, _, body = call(local_hub, "GET", path)
    assert status in (400, 404, 501) and local_hub.token.encode() not in body


@pytest.mark.parametrize("name", ["..", "a/b", "x.git", "-x", "x" * 97, "a--b", "a b", "é", ""])
def test_bad_repo_names_are_refused(local_hub: LocalHub, name: str) -> None:
    assert call(local_hub, "POST", "/api/repos/create", {"name": name, "organization": "local"})[0] == 400


@pytest.mark.usefixtures("repo")
def test_malformed_requests_are_answered_in_words(local_hub: LocalHub) -> None:
    sha = "0" * 64
    assert (
        commit(local_hub, {"key": "file", "value": {"path": "a", "content": "?", "encoding": "base64"}})
        == 400
    )
    assert commit(local_hub, {"key": "lfsFile", "value": {"path": "a", "oid": sha, "size": 1}}) == 400
    assert commit(local_hub, {"key": "lfsFile", "value": {"path": "a", "oid": "../../token"}}) == 400
    assert commit(local_hub, {"key": "header", "value": {}}) == 400
    assert commit(local_hub, {"key": "other", "value": {}}) == 501
    assert commit(local_hub, header={"summary": 3}) == 400
    for card in (
        "---\na: [\n---\n",
        "---\n- list\n---\n",
        "---\na: &x 1\nb: *x\n---\n",
        "---\ntags: 3\n---\n",
    ):
        assert commit(local_hub, {"key": "file", "value": {"path": "README.md", "content": card}}) == 400
    file = {"content": "", "encoding": "utf-8"}
    both = [{"key": "file", "value": file | {"path": path}} for path in ("q", "q/r")]
    assert commit(local_hub, *both) == 400
    for body in (b"", b"[]", b"\xff", b"[" * 100_000, b"null"):
        for path in (
            "/api/repos/create",
            "/api/models/local/x/commit/main",
            "/api/models/local/x/preupload/main",
        ):
            status, headers, _ = call(local_hub, "POST", path, body)
            assert (status == 400 and headers["x-error-message"]) or (body == b"" and status in (200, 400))
    for path in ("/api/models/local/x/preupload/main", "/local/x.git/info/lfs/objects/batch"):
        for files in ("x", [1], [{"path": 1}], [{"path": "a", "size": "1"}]):
            body = {"files": files, "objects": files, "operation": "upload"}
            assert call(local_hub, "POST", path, body)[0] == 400, files
    assert call(local_hub, "POST", "/api/repos/create", b'{"name":"' + b"x" * (9 << 20) + b'"}')[0] == 413
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        status, headers, _ = call(local_hub, method, "/api/daily_papers/x", b"\xff")
        assert status == 501 and f"{method} /api/daily_papers/x" in headers["x-error-message"]


@pytest.mark.usefixtures("repo")
def test_uploads_are_checked_and_need_their_signature(local_hub: LocalHub) -> None:
    content = b"\0" * 1000
    oid = hashlib.sha256(content).hexdigest()
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": 1000}]}
    batch = "/local/x.git/info/lfs/objects/batch"
    assert call(local_hub, "POST", batch, body, token=False)[0] == 401
    (answer,) = json.loads(call(local_hub, "POST", batch, body)[2])["objects"]
    path = answer["actions"]["upload"]["href"].removeprefix(local_hub.endpoint)
    assert call(local_hub, "PUT", path, b"\1" * 1000, token=False)[0] == 400
    assert call(local_hub, "PUT", path, b"\0" * 999, token=False)[0] == 400
    assert call(local_hub, "PUT", path, b"\0" * 1001, token=False)[0] == 413
    for forged in (path.replace(oid, "1" * 64), path[:-1], path.rsplit("/", 1)[0] + "/99999999999-00"):
        assert call(local_hub, "PUT", forged, content)[0] == 403
    assert not list((local_hub.folder / "objects").rglob(oid)) and not list(
        (local_hub.folder / "tmp").iterdir()
    )
    assert call(local_hub, "PUT", path, content, token=False)[0] == 200
    assert "actions" not in json.loads(call(local_hub, "POST", batch, body)[2])["objects"][0]


@pytest.mark.usefixtures("repo")
def test_xet_uploads_are_checked(local_hub: LocalHub) -> None:
    token_path = "/api/models/local/x/xet-write-token/main"
    assert call(local_hub, "GET", token_path, token=False)[0] == 401
    info = json.loads(call(local_hub, "GET", token_path)[2])
    base = info["casUrl"].removeprefix(local_hub.endpoint)
    xorb, shard = f"{base}/v1/xorbs/default/{'a' * 64}", f"{base}/v1/shards"
    access = {"authorization": f"Bearer {info['accessToken']}"}
    assert call(local_hub, "POST", xorb, b"x", token=False)[0] == 403
    assert call(local_hub, "POST", xorb, b"x")[0] == 403  # the Hub's token is not the storage's
    whole = bytes([0, 5, 0, 0, 0, 5, 0, 0]) + b"hello"
    for bad in (
        b"",
        b"x",
        whole[:-1],
        whole + b"\0",
        b"\1" + whole[1:],
        bytes([0, 0, 0, 0, 1, 255, 255, 255]),
    ):
        assert call(local_hub, "POST", xorb, bad, token=False, **access)[0] == 400
    assert call(local_hub, "POST", xorb, whole, token=False, **access)[0] == 200
    for name in ("..%2F..%2Ftoken", "a" * 63):
        assert (
            call(local_hub, "POST", f"{base}/v1/xorbs/default/{name}", whole, token=False, **access)[0] == 400
        )

    def file(sha256: str, first: int, last: int, size: int = 5, name: str = "a" * 64) -> bytes:
        def packed(digest: str) -> bytes:
            return b"".join(int(digest[i : i + 16], 16).to_bytes(8, "little") for i in range(0, 64, 16))

        def numbers(*values: int) -> bytes:
            return b"".join(value.to_bytes(4, "little") for value in values)

        start = b"HFRepoMetaData\0".ljust(48, b"\0") + b"\1" * 32 + numbers(1 << 30, 1, 0, 0)
        return (
            start + packed(name) + numbers(0, size, first, last) + packed(sha256) + bytes(16) + b"\xff" * 48
        )

    good = hashlib.sha256(b"hello").hexdigest()
    for bad in (
        b"", b"x" * 48, file(good, 0, 1)[:150], file("b" * 64, 0, 1), file(good, 0, 2), file(good, 1, 1),
        file(good, 0, 1, size=4), file(good, 0, 1, size=6), file(good, 0, 1, name="b" * 64),
    ):  # fmt: skip
        assert call(local_hub, "POST", shard, bad, token=False, **access)[0] in (400, 413)
    assert call(local_hub, "POST", shard, file(good, 0, 1), token=False, **access)[0] == 200
    (kept,) = (local_hub.folder / "objects").rglob(good)
    assert kept.read_bytes() == b"hello"


@pytest.mark.usefixtures("repo")
def test_ranges_and_conditions(local_hub: LocalHub) -> None:
    value = {"path": "r.txt", "content": "0123456789", "encoding": "utf-8"}
    assert commit(local_hub, {"key": "file", "value": value}) == 200
    path = "/local/x/resolve/main/r.txt"
    for asked, status, body in (
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=5-100", 206, b"56789"),
        ("bytes=10-", 416, None),
    ):
        answer = call(local_hub, "GET", path, token=False, range=asked)
        assert answer[0] == status and (body is None or answer[2] == body)
    status, headers, body_ = call(local_hub, "HEAD", path, token=False)
    assert (status, headers["content-length"], body_) == (200, "10", b"")
    assert call(local_hub, "GET", path, **{"if-none-match": headers["etag"]})[0] == 304


@pytest.mark.usefixtures("repo")
def test_paths_info_takes_forms_and_json(local_hub: LocalHub) -> None:
    value = {"path": "d/é.txt", "content": "x", "encoding": "utf-8"}
    assert commit(local_hub, {"key": "file", "value": value}) == 200
    path = "/api/models/local/x/paths-info/main"
    for body, kind in (
        (b"paths=d%2F%C3%A9.txt&paths=none", "application/x-www-form-urlencoded"),
        (json.dumps({"paths": ["d/é.txt", "none"]}).encode(), "application/json"),
    ):
        status, _, answer = call(local_hub, "POST", path, body, **{"content-type": kind})
        assert status == 200 and [item["path"] for item in json.loads(answer)] == ["d/é.txt"]
    for wrong in (b"[]", b'{"paths": "x"}', b'{"paths": [1]}', b"{"):
        assert call(local_hub, "POST", path, wrong, **{"content-type": "application/json"})[0] == 400


@pytest.mark.usefixtures("repo")
def test_what_is_large_is_said_by_gitattributes_too(local_hub: LocalHub) -> None:
    lines = "*.parquet filter=lfs\n/data/** filter=lfs -text\n*.md -filter\nsaved[0-9]/* filter=lfs\n[z-a] filter=lfs\n"
    value = {"path": ".gitattributes", "content": lines, "encoding": "utf-8"}
    assert commit(local_hub, {"key": "file", "value": value}) == 200
    expected = {
        "a.parquet": "lfs", "d/a.parquet": "lfs", "data/a.txt": "lfs", "data/README.md": "regular",
        "d/data/a.txt": "regular", "a.txt": "regular", "saved3/a": "lfs", "saved/a": "regular",
    }  # fmt: skip
    files = [{"path": path, "sample": "YQ==", "size": 1} for path in expected]
    files += [
        {"path": "large.txt", "sample": "YQ==", "size": 11 << 20},
        {"path": "x", "sample": "AA==", "size": 1},
    ]
    answer = call(local_hub, "POST", "/api/models/local/x/preupload/main", {"files": files})[2]
    modes = {file["path"]: file["uploadMode"] for file in json.loads(answer)["files"]}
    assert modes == expected | {"large.txt": "lfs", "x": "lfs"}


def test_every_float_grouping_is_undone() -> None:
    for length in range(20):
        data = bytes(range(length))
        assert xet._ungroup(b"".join(data[lane::4] for lane in range(4))) == data


@pytest.mark.parametrize("path", ["a", "a/b c", "ü/é.txt", ".gitattributes", "a..b", ".gitignore", "x/..y"])
def test_usual_paths_are_allowed(path: str) -> None:
    assert check_path(path) == path

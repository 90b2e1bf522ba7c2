"""The client against a real HTTP server that answers with a Hub's errors, and against the local Hub."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import save
from small_release import small_recipe

from hubkit import hub as client
from hubkit import push as pushing
from hubkit.errors import HubError
from hubkit.hub import Access, RepoType
from hubkit.push import CollectionItem
from hubkit.release import publish
from hubkit.store import CheckContext

TOKEN = "hf_averysecrettoken"


class Answers:
    """A server that gives each request the next (status, headers, body) of a list, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], dict[str, Any]]] = []
        self.seen: list[tuple[str, str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                outer.seen.append((self.command, self.path, self.headers.get("authorization")))
                answers = outer.answers
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                data = json.dumps(body).encode()
                self.send_response(status)
                for name, value in (headers | {"content-length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Answers]:
    answers = Answers()
    threading.Thread(target=answers.server.serve_forever, daemon=True).start()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_DELAYS", [0.01, 0.01])


INFO = {"id": "org/m", "sha": "a" * 40, "siblings": [], "tags": [], "private": False}


@pytest.mark.parametrize(
    ("status", "headers", "message", "remedy"),
    [
        (401, {}, "does not know this token", "hf auth login"),
        (403, {}, "is not allowed", "write access"),
        (401, {"X-Error-Code": "RepoNotFound"}, "does not know this token", "hf auth login"),
        (404, {"X-Error-Code": "RepoNotFound"}, "is not on", "check its name"),
        (404, {"X-Error-Code": "RevisionNotFound"}, "no such revision", "check the branch"),
        (403, {"X-Error-Code": "GatedRepo"}, "terms", "accept"),
        (429, {"Retry-After": "9999"}, "rate limit", "wait"),
        (503, {}, "answered 503", "later"),
    ],
)
def test_errors_say_what_to_change_and_hide_the_token(
    hub: Answers, status: int, headers: dict[str, str], message: str, remedy: str
) -> None:
    hub.answers = [(status, headers, {"error": f"no, {TOKEN}!"})]
    with pytest.raises(HubError) as caught:
        client.resolve("org/m", "main", "model", Access(hub.endpoint, TOKEN))
    assert message in caught.value.message and remedy in caught.value.remedy
    assert TOKEN not in str(caught.value) and TOKEN not in repr(Access(hub.endpoint, TOKEN))
    assert caught.value.__suppress_context__


def test_passing_errors_are_tried_again(hub: Answers) -> None:
    hub.answers = [(503, {}, {}), (429, {"Retry-After": "0"}, {}), (200, {}, INFO)]
    assert client.resolve("org/m", "", "model", Access(hub.endpoint, TOKEN)) == "a" * 40
    assert len(hub.seen) == 3


def test_a_window_that_the_hub_counts_requests_in_is_waited_for(hub: Answers) -> None:
    full = (429, {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, {})
    hub.answers = [full, (200, {}, INFO)]
    began = time.monotonic()
    assert client.resolve("org/m", "", "model", Access(hub.endpoint, TOKEN)) == "a" * 40
    assert time.monotonic() - began >= 2, "its seconds may be rounded down"


def test_errors_that_stay_are_not_tried_again(hub: Answers) -> None:
    hub.answers = [(403, {}, {})]
    with pytest.raises(HubError):
        client.resolve("org/m", "", "model", Access(hub.endpoint, TOKEN))
    assert len(hub.seen) == 1


def test_unreachable() -> None:
    with pytest.raises(HubError, match="cannot be reached") as caught:
        client.resolve("org/m", "", "model", Access("http://127.0.0.1:9", TOKEN))
    assert "HF_ENDPOINT" in caught.value.remedy


def test_a_download_that_cannot_reach_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface_hub retries too, with long waits
    with pytest.raises(HubError, match="cannot be reached"):
        client.download_model("org/not-in-any-cache", "a" * 40, Access("http://127.0.0.1:9"))


def test_a_hub_without_a_token_gets_none(hub: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.answers = [(200, {}, INFO)]
    client.resolve("org/m", "", "model", Access(hub.endpoint))
    assert hub.seen[0][2] is None


def test_namespaces(hub: Answers) -> None:
    orgs = [{"name": "us", "roleInOrg": "write"}, {"name": "seen", "roleInOrg": "read"}]
    hub.answers = [(200, {}, {"name": "me", "type": "user", "orgs": orgs})]
    access = Access(hub.endpoint, TOKEN)
    client.check_namespace(access, "me")
    client.check_namespace(access, "us")
    for name in ("them", "seen"):
        with pytest.raises(HubError, match=rf"may not write to {name} \(it can to me, us\)"):
            client.check_namespace(access, name)
    with pytest.raises(HubError, match="no token"):
        client.check_namespace(Access(hub.endpoint), "me")


def test_a_token_that_may_only_read_is_refused_at_once(tmp_path: Path) -> None:
    server = pytest.importorskip("hubkit.localhub")
    with server.LocalHub(tmp_path) as hub:
        reads, writes = (server.make_token(tmp_path, "me", role, "t", []) for role in ("read", "write"))
        with pytest.raises(HubError, match="the token may only read"):
            client.check_namespace(Access(hub.endpoint, reads), "me")
        client.check_namespace(Access(hub.endpoint, writes), "me")


def test_a_recipe_cannot_have_the_token_asked_for_elsewhere(
    hub: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hub.answers = [(200, {}, {"name": "me", "type": "user", "orgs": []})]
    recipe = small_recipe().model_dump(mode="json", exclude={"run"})
    recipe["hub"] = {"endpoint": hub.endpoint, "namespace": "me", "private": False}
    before = CheckContext("publish", {"recipe": recipe}, {}, {}, set(), set(), True)
    with pytest.raises(HubError, match="your token is for https://huggingface"):
        publish.check(before)
    assert not hub.seen
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    publish.check(before)
    assert [seen[2] for seen in hub.seen] == [f"Bearer {TOKEN}"]


# Against the local Hub.


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Access]:
    server = pytest.importorskip("hubkit.localhub")
    with server.LocalHub(tmp_path / "hub") as hub:
        yield Access(hub.endpoint, hub.token)


CARD = b"---\ntags: [hubkit]\nlicense: mit\n---\n# x\n"


def test_push_is_one_commit_and_none_when_nothing_changed(local: Access, tmp_path: Path) -> None:
    big = tmp_path / "data.parquet"
    big.write_bytes(bytes(range(256)) * 8000)
    files: dict[str, Path | bytes] = {"README.md": CARD, "data/raw/train.parquet": big, "old.json": b"{}"}
    first = pushing.push(local, "local/x", "dataset", files, "one")
    assert first.changed
    before = len(local.api().list_repo_commits("local/x", repo_type="dataset"))
    again = pushing.push(local, "local/x", "dataset", files, "one")
    assert again.sha == first.sha and not again.changed
    del files["old.json"]
    second = pushing.push(local, "local/x", "dataset", files, "two")
    assert second.changed
    assert len(local.api().list_repo_commits("local/x", repo_type="dataset")) == before + 1
    names = set(local.api().list_repo_files("local/x", repo_type="dataset"))
    assert {n for n in names if not n.startswith(".")} == {"README.md", "data/raw/train.parquet"}
    got = local.api().hf_hub_download(
        "local/x", "data/raw/train.parquet", repo_type="dataset", cache_dir=tmp_path / "cache"
    )
    assert Path(got).read_bytes() == big.read_bytes()
    assert client.resolve("local/x", "", "dataset", local) == second.sha


def test_files_are_added_to_what_they_are_for(local: Access) -> None:
    first = pushing.push(local, "local/x", "dataset", {"README.md": CARD}, "one").sha
    added = pushing.add_files(local, "local/x", {"a.txt": b"a"}, "a", first)
    # Again, as after an answer that was lost.
    assert pushing.add_files(local, "local/x", {"a.txt": b"a"}, "a", first) == added
    with pytest.raises(HubError, match="somebody else keeps committing"):
        pushing.add_files(local, "local/x", {"b.txt": b"b"}, "b", first)
    assert pushing.add_files(local, "local/x", {"b.txt": b"b"}, "b") != added


def test_a_repo_of_somebody_else_is_not_replaced(local: Access) -> None:
    local.api().create_repo("local/theirs")
    local.api().upload_file(path_or_fileobj=b"x", path_in_repo="work.txt", repo_id="local/theirs")
    with pytest.raises(HubError, match="not made by hubkit"):
        pushing.push(local, "local/theirs", "model", {"README.md": CARD}, "mine now")
    assert "work.txt" in local.api().list_repo_files("local/theirs")


def test_a_card_that_somebody_wrote_is_not_replaced(local: Access) -> None:
    """A repo that holds nothing else; but one that was given a licence when it was made is as good as empty."""
    heads = (b"---\nlicense: mit\n---\n", b"---\r\nlicense: mit\r\n---")
    for number, (card, theirs) in enumerate(
        [(b"# What I learned\n", True), *((head, False) for head in heads), (heads[0] + b"# Mine\n", True)]
    ):
        repo = f"local/card-{number}"
        local.api().create_repo(repo)
        local.api().upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
        if theirs:
            with pytest.raises(HubError, match="not made by hubkit"):
                pushing.push(local, repo, "model", {"README.md": CARD}, "x")
        else:
            pushing.push(local, repo, "model", {"README.md": CARD}, "x")


def test_tags_move(local: Access) -> None:
    for number in (b"1", b"2"):
        pushed = pushing.push(local, "local/t", "model", {"README.md": CARD + number}, "x")
        pushing.put_tag(local, pushed, "v1")
        pushing.put_tag(local, pushed, "v1")
        assert client.resolve("local/t", "v1", "model", local) == pushed.sha


@pytest.mark.parametrize("there", [False, True])
def test_a_tag_that_another_publisher_moves_at_the_same_time(
    local: Access, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    one, two, three = (
        pushing.push(local, "local/t", "model", {"README.md": CARD + number}, "x")
        for number in (b"1", b"2", b"3")
    )
    if there:
        pushing.put_tag(local, one, "v1")
    list_refs, other = HfApi.list_repo_refs, [two]

    def listed(self: HfApi, *given: Any, **named: Any) -> Any:
        found = list_refs(self, *given, **named)
        if other:  # between this answer and what is done with it
            pushing.put_tag(local, other.pop(), "v1")
        return found

    monkeypatch.setattr(HfApi, "list_repo_refs", listed)
    pushing.put_tag(local, three, "v1")
    assert client.resolve("local/t", "v1", "model", local) == three.sha
    with pytest.raises(HubError, match="no such revision"):
        pushing.put_tag(local, replace(three, sha="0" * 40), "v2")


def test_collections_are_not_doubled(local: Access) -> None:
    pushed = pushing.push(local, "local/c", "model", {"README.md": CARD}, "x")
    items = [CollectionItem(pushed.repo_id, "model", "a note")]
    slugs = {pushing.put_collection(local, "local", "All of it", "why", items, False) for _ in range(2)}
    assert len(slugs) == 1
    assert len(local.api().get_collection(slugs.pop()).items) == 1


def test_models_come_without_code_or_pickles(
    local: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, Path | bytes] = {
        "README.md": CARD,
        "config.json": b"{}",
        "model.safetensors": save({"weight": torch.zeros(2, 3)}),
        "modeling_x.py": b"raise SystemExit",
        "pytorch_model.bin": b"x",
    }
    pushed = pushing.push(local, "local/m", "model", files, "x")
    folder = client.download_model("local/m", pushed.sha, local)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert client.weight_shapes("local/m", pushed.sha, local) == {"weight": [2, 3]}
    pushed = pushing.push(local, "local/n", "model", {"README.md": CARD, "pytorch_model.bin": b"x"}, "x")
    for ask in (client.weight_shapes, client.download_model):
        with pytest.raises(HubError, match="no safetensors"):
            ask("local/n", pushed.sha, local)


def test_wrong_token(local: Access) -> None:
    with pytest.raises(HubError) as caught:
        pushing.push(Access(local.endpoint, TOKEN), "local/w", "model", {"README.md": CARD}, "x")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_a_public_repo_is_made_private_before_anything_is_sent(local: Access, repo_type: RepoType) -> None:
    files: dict[str, Path | bytes] = {"README.md": CARD}
    if repo_type == "space":
        files["README.md"] = CARD.replace(b"license", b"sdk: gradio\nlicense")
    public = pushing.push(local, "local/p", repo_type, files, "public")
    visitor = Access(local.endpoint).api()
    assert not visitor.repo_info("local/p", repo_type=repo_type).private
    files["secret.json"] = b"{}"
    pushed = pushing.push(local, "local/p", repo_type, files, "private", private=True)
    assert pushed.changed and pushed.sha != public.sha
    with pytest.raises(RepositoryNotFoundError):
        visitor.repo_info("local/p", repo_type=repo_type)
    # A later public release does not open it: its owner may have other reasons.
    again = pushing.push(local, "local/p", repo_type, files, "again", private=False)
    assert not again.changed and local.api().repo_info("local/p", repo_type=repo_type).private


def test_a_repo_of_somebody_else_keeps_its_visibility(local: Access) -> None:
    local.api().create_repo("local/theirs")
    local.api().upload_file(path_or_fileobj=b"x", path_in_repo="work.txt", repo_id="local/theirs")
    with pytest.raises(HubError, match="not made by hubkit"):
        pushing.push(local, "local/theirs", "model", {"README.md": CARD}, "mine now", private=True)
    assert not local.api().repo_info("local/theirs").private


def test_a_repo_that_stays_public_gets_nothing(hub: Answers) -> None:
    """A Hub that says yes to the change and does not make it."""
    created = {"url": f"{hub.endpoint}/org/m"}
    info = INFO | {"cardData": {"tags": ["hubkit"]}}
    hub.answers = [(200, {}, created), (200, {}, info), (200, {}, {"private": True}), (200, {}, info)]
    with pytest.raises(HubError, match="org/m is public and stays public"):
        pushing.push(Access(hub.endpoint, TOKEN), "org/m", "model", {"README.md": CARD}, "x", private=True)
    assert not [path for method, path, _ in hub.seen if "/commit/" in path or "/preupload/" in path]


def test_a_public_collection_is_made_private(local: Access) -> None:
    for private in (False, True, False):
        slug = pushing.put_collection(local, "local", "All of it", "why", [], private)
    assert local.api().get_collection(slug).private
    assert not list(Access(local.endpoint).api().list_collections(owner="local"))

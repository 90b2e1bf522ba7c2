"""Users, organisations, and what each role of a token may do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hub_support import add, call, status
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hubkit.errors import HubError
from hubkit.localhub import LocalHub, make_member, make_token


def as_user(hub: LocalHub, user: str, role: str = "write", *scopes: str) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=make_token(hub.folder, user, role, "t", list(scopes)))


def refused(code: int, do: object) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        do()  # type: ignore[operator]
    assert status(error) == code


def test_read_tokens_read(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    reader = as_user(local_hub, "local", "read")
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    api.update_repo_settings(repo, private=True)
    assert reader.model_info(repo).private
    refused(403, lambda: add(reader, repo, {"a.txt": b"a"}))
    refused(403, lambda: reader.create_repo("local/other"))
    refused(403, lambda: reader.create_discussion(repo, "hello"))
    refused(403, lambda: reader.delete_repo(repo))


def test_others_see_a_private_repo_as_missing(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    other = as_user(local_hub, "alice")
    refused(403, lambda: add(other, repo, {"a.txt": b"a"}))
    refused(403, lambda: other.create_repo("local/hers"))
    api.update_repo_settings(repo, private=True)
    assert repo not in [model.id for model in other.list_models()]
    for do in (
        lambda: other.model_info(repo),
        lambda: add(other, repo, {"a.txt": b"a"}),
        lambda: other.delete_repo(repo),
        lambda: other.move_repo(repo, "alice/taken"),
        lambda: other.create_discussion(repo, "hello"),
        lambda: other.duplicate_repo(repo, "alice/copy"),
    ):
        with pytest.raises(RepositoryNotFoundError):
            do()
    refused(403, lambda: other.create_repo(repo, exist_ok=False))
    assert other.create_repo("alice/own").repo_id == "alice/own"
    refused(403, lambda: api.delete_repo("alice/own"))
    other.delete_repo("alice/own")


def test_organisations(local_hub: LocalHub, api: HfApi) -> None:
    make_member(local_hub.folder, "lab", "bob", "write")
    make_member(local_hub.folder, "lab", "carol", "read")
    bob, carol = as_user(local_hub, "bob"), as_user(local_hub, "carol")
    assert [org["name"] for org in bob.whoami()["orgs"]] == ["lab"]
    bob.create_repo("lab/secret", private=True)
    assert carol.model_info("lab/secret").private
    refused(403, lambda: add(carol, "lab/secret", {"a.txt": b"a"}))
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("lab/secret")
    assert api.get_organization_overview("lab").num_users == 2
    assert {user.username for user in api.list_organization_members("lab")} == {"bob", "carol"}
    assert carol.get_organization_overview("lab").num_models == 1
    assert api.get_organization_overview("lab").num_models == 0
    assert api.get_user_overview("bob").username == "bob"
    with pytest.raises(HfHubHTTPError):
        api.get_user_overview("nobody")
    bob.delete_repo("lab/secret")


def test_fine_grained_tokens(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    api.create_repo("local/second", private=True)
    one = as_user(local_hub, "local", "fineGrained", f"{repo}=repo.write")
    add(one, repo, {"a.txt": b"a"})
    with pytest.raises(RepositoryNotFoundError):
        one.model_info("local/second")
    refused(403, lambda: one.create_repo("local/third"))
    reader = as_user(local_hub, "local", "fineGrained", "local=repo.content.read")
    assert reader.model_info("local/second").private
    refused(403, lambda: add(reader, "local/second", {"a.txt": b"a"}))
    refused(403, lambda: reader.create_discussion(repo, "hello"))
    talker = as_user(local_hub, "alice", "fineGrained", f"{repo}=discussion.write")
    assert talker.create_discussion(repo, "hello").num == 1
    assert add(talker, repo, {"b.txt": b"b"}, create_pr=True)
    refused(403, lambda: add(talker, repo, {"a.txt": b"other"}))
    assert one.whoami()["auth"]["accessToken"]["fineGrained"]["scoped"][0]["permissions"] == ["repo.write"]
    api.delete_repo("local/second")


def test_gated_repos(local_hub: LocalHub, api: HfApi, anonymous: HfApi, repo: str, tmp_path: Path) -> None:
    add(api, repo, {"a.txt": b"a"})
    number = api.create_commit(
        repo, [CommitOperationAdd("b.txt", b"b")], commit_message="b.txt", create_pr=True
    ).pr_num
    assert number
    api.update_repo_settings(repo, gated="auto")
    other = as_user(local_hub, "alice")
    assert api.file_exists(repo, "a.txt") and anonymous.model_info(repo).gated == "auto"
    for do in (
        lambda: other.hf_hub_download(repo, "a.txt", cache_dir=tmp_path),
        lambda: anonymous.hf_hub_download(repo, "a.txt", cache_dir=tmp_path),
        lambda: other.auth_check(repo),
    ):
        with pytest.raises(GatedRepoError):
            do()
    assert "+b" in str(getattr(api.get_discussion_details(repo, number), "diff", ""))
    said = other.get_discussion_details(repo, number)
    assert said.title == "b.txt" and not getattr(said, "diff", None)
    assert [model.id for model in api.list_models(gated=True)] == [repo]
    api.update_repo_settings(repo, gated=False)
    other.auth_check(repo)


def test_tokens_are_not_kept_nor_said(local_hub: LocalHub) -> None:
    token = make_token(local_hub.folder, "dave", "read", "t", [])
    assert HfApi(endpoint=local_hub.endpoint, token=token).whoami()["name"] == "dave"
    for path in local_hub.folder.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()
    for bad in (["x=repo.write"], []):
        with pytest.raises(HubError):
            make_token(local_hub.folder, "dave", "fineGrained" if not bad else "read", "t", bad)
    with pytest.raises(HubError):
        make_token(local_hub.folder, "../x", "read", "t", [])


@pytest.mark.usefixtures("transfer")
def test_a_hub_that_listens_elsewhere_asks_everybody(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    with LocalHub(folder, host="0.0.0.0", require_token=True) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/x")
        add(api, "local/x", {"x.bin": b"\0" * 100})
        assert api.model_info("local/x").id == "local/x"
        for path in ("/api/models/local/x", "/", "/api/models", "/local/x/resolve/main/.gitattributes"):
            assert call(hub, "GET", path, token=False)[0] == 401
        command = [sys.executable, "-m", "hubkit", "hub", "token", str(folder), "eve", "--role", "read"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert HfApi(endpoint=hub.endpoint, token=made.stdout.strip()).whoami()["name"] == "eve"


def test_names_of_other_machines_are_refused(local_hub: LocalHub) -> None:
    for host, expected in (
        ("evil.example", 421),
        ("localhost:1", 200),
        ("[::1]:1", 200),
        ("127.0.0.1", 200),
    ):
        assert call(local_hub, "GET", "/api/models", token=False, host=host)[0] == expected

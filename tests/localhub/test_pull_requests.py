"""Discussions and pull requests, as huggingface_hub makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_support import add, read, status
from huggingface_hub import CommitOperationDelete, HfApi
from huggingface_hub.community import DiscussionComment, DiscussionCommit
from huggingface_hub.errors import HfHubHTTPError

from hubkit.localhub import LocalHub, make_token


@pytest.mark.usefixtures("transfer")
def test_from_commit_to_merge(local_hub: LocalHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    add(api, repo, {"a.txt": b"one\ntwo\n", "gone.txt": b"x", "same.bin": b"\0" * 1000})
    other = HfApi(endpoint=local_hub.endpoint, token=make_token(local_hub.folder, "alice", "write", "t", []))
    files: dict[str, bytes | str | None] = {"a.txt": b"one\n2\n", "gone.txt": None, "new.bin": b"\0\1" * 500}
    info = other.create_commit(repo, operations(files), commit_message="Better", create_pr=True)
    assert info.pr_num == 1 and info.pr_revision == "refs/pr/1"
    assert read(api, repo, "a.txt", tmp_path) == b"one\ntwo\n"  # main is as it was
    add(other, repo, {"more.txt": b"more"}, revision="refs/pr/1")
    with pytest.raises(HfHubHTTPError) as refused:
        other.merge_pull_request(repo, 1)
    assert status(refused) == 403

    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.status, details.author) == ("Better", "open", "alice")
    assert [event.summary for event in details.events if isinstance(event, DiscussionCommit)] == [
        "Better",
        "add",
    ]
    assert details.diff is not None and "-two\n+2\n" in details.diff and "deleted file mode" in details.diff
    assert "oid sha256:" in details.diff and details.conflicting_files == []
    add(api, repo, {"b.txt": b"on main meanwhile"})
    api.merge_pull_request(repo, 1, comment="thanks")
    merged = api.get_discussion_details(repo, 1)
    assert merged.status == "merged" and merged.merge_commit_oid == api.model_info(repo).sha
    assert set(api.list_repo_files(repo)) == {
        ".gitattributes", "a.txt", "b.txt", "more.txt", "new.bin", "same.bin",
    }  # fmt: skip
    assert read(api, repo, "new.bin", tmp_path) == b"\0\1" * 500
    assert api.list_repo_commits(repo)[0].title == "Better (#1)"
    with pytest.raises(HfHubHTTPError):
        add(other, repo, {"late.txt": b"late"}, revision="refs/pr/1")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert refs.pull_requests is not None and [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]


def operations(files: dict[str, bytes | str | None]) -> list[object]:
    from huggingface_hub import CommitOperationAdd

    return [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in files.items()
    ]


def test_conflicts(api: HfApi, repo: str) -> None:
    add(api, repo, {"a.txt": b"one"})
    draft = api.create_pull_request(repo, "A draft")
    assert draft.status == "draft" and draft.git_reference == "refs/pr/1"
    add(api, repo, {"a.txt": b"two", "free.txt": b"free"}, revision="refs/pr/1")
    add(api, repo, {"a.txt": b"three"})
    assert api.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError) as conflict:
        api.merge_pull_request(repo, 1)
    assert status(conflict) == 409 and "a.txt" in str(conflict.value)
    add(api, repo, {"a.txt": b"two"})  # the same on both sides is no conflict
    api.merge_pull_request(repo, 1)
    assert "free.txt" in api.list_repo_files(repo)


def test_discussions(local_hub: LocalHub, api: HfApi, anonymous: HfApi, repo: str) -> None:
    other = HfApi(endpoint=local_hub.endpoint, token=make_token(local_hub.folder, "alice", "write", "t", []))
    talk = other.create_discussion(repo, "A question", description="Why <script>alert(1)</script>?")
    assert (talk.num, talk.status, talk.is_pull_request) == (1, "open", False)
    (first,) = talk.events
    assert isinstance(first, DiscussionComment) and "<script>" not in first.rendered
    reply = api.comment_discussion(repo, 1, "Because **so**")
    assert reply.rendered == "<p>Because <strong>so</strong></p>\n" and reply.author == "local"
    edited = api.edit_discussion_comment(repo, 1, reply.id, "Because not")
    assert edited.content == "Because not" and edited.number_of_edits == 1
    with pytest.raises(HfHubHTTPError):
        other.edit_discussion_comment(repo, 1, reply.id, "I was never wrong")
    with pytest.warns(UserWarning):
        assert api.hide_discussion_comment(repo, 1, first.id).hidden
    assert api.rename_discussion(repo, 1, "A good question").new_title == "A good question"
    assert api.change_discussion_status(repo, 1, "closed", comment="done").new_status == "closed"
    for i in range(50):
        api.create_discussion(repo, f"Talk {i}")
    api.create_pull_request(repo, "A change")
    assert len(list(anonymous.get_repo_discussions(repo))) == 52  # two pages
    assert [d.title for d in anonymous.get_repo_discussions(repo, discussion_type="pull_request")] == [
        "A change"
    ]
    assert [d.num for d in anonymous.get_repo_discussions(repo, discussion_status="closed")] == [1]
    assert [d.num for d in anonymous.get_repo_discussions(repo, author="alice")] == [1]
    with pytest.raises(HfHubHTTPError):
        anonymous.create_discussion(repo, "Anonymous")
    with pytest.raises(HfHubHTTPError) as missing:
        api.get_discussion_details(repo, 99)
    assert status(missing) == 404


def test_upload_folder_as_pull_request(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    for i in range(3):
        (tmp_path / "up" / f"{i}.bin").write_bytes(b"\0" * i)
    info = api.upload_folder(repo_id=repo, folder_path=tmp_path / "up", create_pr=True)
    assert info.pr_num == 1
    assert {"0.bin", "1.bin", "2.bin"} <= set(api.list_repo_files(repo, revision="refs/pr/1"))
    assert "2.bin" not in api.list_repo_files(repo)

"""The local Hub as huggingface_hub, datasets, transformers, peft and the hf CLI use it."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_support import add, call, read, status
from huggingface_hub import (
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubkit.localhub import LocalHub

CARD = b"""---
license: apache-2.0
tags: [hubkit, synthetic]
base_model: local/base
base_model_relation: finetune
---
See https://arxiv.org/abs/2606.05988
"""


# Contents


def test_contents_come_back_as_they_were(
    api: HfApi, anonymous: HfApi, repo: str, transfer: str, tmp_path: Path
) -> None:
    generator = random.Random(transfer)  # what one way has brought here would not be sent by the other
    noise = generator.randbytes(18 << 20)  # more than one part
    files: dict[str, bytes] = {
        "README.md": CARD,
        "empty.txt": b"",
        "noise.bin": noise,
        # Floats make xet regroup their bytes; odd lengths end in the middle of a group.
        "floats.bin": b"".join(struct.pack("<f", 0.37 * i) for i in range(200_000)) + b"\1\2\3",
        "repeated/a.bin": b"\0" * 3_000_001,
        "repeated/b.bin": noise[: 5 << 20] + b"\0" * 1000 + noise[5 << 20 : 7 << 20],
        "ünï/cödé name+%23.bin": b"\xff\xfe" * 10,
        "long.txt": b"words and words\n" * 100_000,
    }
    path = tmp_path / "on-disk.bin"
    path.write_bytes(generator.randbytes(100_000))
    commit = add(api, repo, {**files, "on-disk.bin": str(path)})
    files["on-disk.bin"] = path.read_bytes()
    folder = Path(anonymous.snapshot_download(repo, cache_dir=tmp_path / "cache"))
    assert folder.name == commit
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found.pop(".gitattributes")
    assert found == files
    info = anonymous.model_info(repo, files_metadata=True)
    assert info.siblings is not None
    sizes = {s.rfilename: s.size for s in info.siblings if s.rfilename != ".gitattributes"}
    assert sizes == {name: len(content) for name, content in files.items()}


@pytest.mark.usefixtures("transfer")
def test_what_a_client_sent_before_is_used_again(api: HfApi, repo: str, tmp_path: Path) -> None:
    noise = random.Random(2).randbytes(3 << 20)
    for i in range(3):
        add(api, repo, {f"{i}.bin": noise[: 1 << 20] + bytes([i]) * 1000 + noise[1 << 20 :]})
    assert read(api, repo, "2.bin", tmp_path)[1 << 20 : (1 << 20) + 1000] == b"\2" * 1000


@pytest.mark.usefixtures("transfer")
def test_many_processes_may_push_at_once(
    api: HfApi, repo: str, local_hub: LocalHub, client_environment: dict[str, str], transfer: str
) -> None:
    code = f"""
import sys, random
from huggingface_hub import HfApi
i = int(sys.argv[1])
HfApi().upload_file(path_or_fileobj=random.Random(i).randbytes(500_000), path_in_repo=f"{{i}}.bin", repo_id="{repo}")
"""
    environment = client_environment | {
        "HF_TOKEN": local_hub.token,
        "HF_HUB_DISABLE_XET": str(int(transfer == "lfs")),
    }
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen([*command, str(i)], env=environment) for i in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert {f"{i}.bin" for i in range(3)} <= set(api.list_repo_files(repo))


def test_files_opened_by_the_caller(api: HfApi, repo: str, tmp_path: Path) -> None:
    content = b"\0\1" * 50_000
    api.upload_file(path_or_fileobj=io.BytesIO(content), path_in_repo="x.bin", repo_id=repo)
    assert read(api, repo, "x.bin", tmp_path) == content


@pytest.mark.usefixtures("transfer")
def test_upload_folder(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "x.bin").write_bytes(b"\0" * 10)
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "in" / ".gitignore").write_text("*.log\n!keep.log\n/build/\n")
    for name in ("x.log", "keep.log"):
        (tmp_path / "in" / name).write_text("x")
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "in", path_in_repo="sub")
    files = set(api.list_repo_files(repo))
    assert {"sub/deep/x.bin", "sub/a.txt"} <= files


def test_ranges(api: HfApi, repo: str, local_hub: LocalHub) -> None:
    content = random.Random(3).randbytes(100_000)
    add(api, repo, {"x.bin": content, "e.txt": b""})
    with HfFileSystem(endpoint=local_hub.endpoint, token=False).open(
        f"{repo}/x.bin", block_size=1000
    ) as file:
        file.seek(50_000)
        assert file.read(10) == content[50_000:50_010]
        file.seek(-5, 2)
        assert file.read() == content[-5:]
    fs = HfFileSystem(endpoint=local_hub.endpoint, token=False)
    assert fs.cat_file(f"{repo}/e.txt") == b"" and fs.glob(f"{repo}/*.bin") == [f"{repo}/x.bin"]


# Commits


@pytest.mark.usefixtures("transfer")
def test_delete_copy_and_parent(api: HfApi, repo: str, tmp_path: Path) -> None:
    first = add(api, repo, {"a.txt": b"a", "big.bin": b"\0" * 5000, "d/1.txt": b"1", "d/e/2.txt": b"2"})
    second = api.create_commit(
        repo,
        [
            CommitOperationCopy("big.bin", "copies/big.bin"),
            CommitOperationCopy("a.txt", "copies/a.txt"),
            CommitOperationDelete("d/"),
            CommitOperationDelete("a.txt"),
        ],
        commit_message="change",
        commit_description="why",
        parent_commit=first,
    ).oid
    assert set(api.list_repo_files(repo)) == {".gitattributes", "big.bin", "copies/big.bin", "copies/a.txt"}
    assert read(api, repo, "copies/big.bin", tmp_path) == b"\0" * 5000
    assert read(api, repo, "a.txt", tmp_path, revision=first) == b"a"
    with pytest.raises(HfHubHTTPError) as stale:
        add(api, repo, {"b.txt": b"b"}, parent_commit=first)
    assert status(stale) == 412
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nothing.txt", repo)
    assert add(api, repo, {"big.bin": b"\0" * 5000}) == second  # nothing to do
    commits = api.list_repo_commits(repo)
    assert [c.title for c in commits] == ["change", "add", "initial commit"]
    assert commits[0].message == "why" and commits[0].authors == ["local"]


def test_one_of_two_commits_on_the_same_parent_wins(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha
    results: list[int] = []

    def commit(i: int) -> None:
        try:
            add(api, repo, {f"{i}.txt": b"%d" % i}, parent_commit=parent)
            results.append(200)
        except HfHubHTTPError as error:
            results.append(error.response.status_code)

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [200, *[412] * 5]


def test_tree(api: HfApi, repo: str) -> None:
    add(api, repo, {f"many/{i:04}.txt": b"%d" % i for i in range(1100)})
    later = add(api, repo, {"many/0007.txt": b"changed", "top.bin": b"\0\0"})
    assert len(list(api.list_repo_tree(repo, "many"))) == 1100  # two pages
    top = {item.path: type(item).__name__ for item in api.list_repo_tree(repo)}
    assert top == {".gitattributes": "RepoFile", "many": "RepoFolder", "top.bin": "RepoFile"}
    assert len(list(api.list_repo_tree(repo, recursive=True))) == 1103
    info = {
        item.path: item for item in api.get_paths_info(repo, ["many/0007.txt", "many", "no"], expand=True)
    }
    assert info.keys() == {"many", "many/0007.txt"}
    assert all(item.last_commit and item.last_commit.oid == later for item in info.values())
    expanded = list(api.list_repo_tree(repo, "many", expand=True))
    assert len(expanded) == 1100 and sum(i.last_commit.oid == later for i in expanded if i.last_commit) == 1
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "nothing"))


def test_refs(api: HfApi, repo: str, tmp_path: Path) -> None:
    first = add(api, repo, {"a.txt": b"1"})
    api.create_tag(repo, tag="v1", tag_message="one")
    api.create_branch(repo, branch="feature/x", revision="v1")
    second = add(api, repo, {"a.txt": b"2"}, revision="feature/x")
    refs = api.list_repo_refs(repo)
    assert {b.name: b.target_commit for b in refs.branches} == {"main": first, "feature/x": second}
    assert {t.name: t.target_commit for t in refs.tags} == {"v1": first}
    assert read(api, repo, "a.txt", tmp_path, revision="feature/x") == b"2"
    assert read(api, repo, "a.txt", tmp_path, revision="v1") == b"1"
    for again in (
        lambda: api.create_tag(repo, tag="v1"),
        lambda: api.create_branch(repo, branch="feature/x"),
    ):
        with pytest.raises(HfHubHTTPError) as conflict:
            again()
        assert status(conflict) == 409
    api.create_tag(repo, tag="v1", exist_ok=True)
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="feature/x")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="v1")
    api.super_squash_history(repo)
    assert len(api.list_repo_commits(repo)) == 1 and read(api, repo, "a.txt", tmp_path) == b"1"


# Repos


def test_card_becomes_metadata(api: HfApi, anonymous: HfApi, repo: str) -> None:
    add(api, repo, {"README.md": CARD})
    info = anonymous.model_info(repo)
    assert info.card_data is not None and info.card_data["license"] == "apache-2.0"
    assert info.tags is not None
    assert {"hubkit", "license:apache-2.0", "base_model:finetune:local/base", "arxiv:2606.05988"} <= set(
        info.tags
    )
    assert [m.id for m in anonymous.list_models(filter="hubkit")] == [repo]
    assert [m.id for m in anonymous.list_models(author="local", search=repo[6:12], limit=1)] == [repo]
    with pytest.raises(ValueError, match="Invalid metadata"):
        add(api, repo, {"README.md": b"---\na: [\n---\n"})


def test_lists_are_sorted_filtered_and_paged(local_hub: LocalHub, api: HfApi, anonymous: HfApi) -> None:
    names = [f"local/page-{i}" for i in range(5)]
    for i, name in enumerate(names):
        api.create_repo(name)
        add(api, name, {"README.md": f"---\ntags: [paged, n{i % 2}]\n---\n".encode()})
    newest_first = names[::-1]
    assert [m.id for m in anonymous.list_models(filter="paged", sort="last_modified")] == newest_first
    assert [m.id for m in anonymous.list_models(filter=["paged", "n1"])] == [names[3], names[1]]
    assert [m.id for m in anonymous.list_models(search="page 3")] == [names[3]]
    code, headers, body = call(local_hub, "GET", "/api/models?filter=paged&limit=2", token=False)
    pages = [json.loads(body)]
    while "link" in headers:
        url = headers["link"].split(">")[0].removeprefix(f"<{local_hub.endpoint}")
        code, headers, body = call(local_hub, "GET", url, token=False)
        pages.append(json.loads(body))
    assert code == 200 and [[m["id"] for m in page] for page in pages] == [
        newest_first[:2], newest_first[2:4], newest_first[4:],
    ]  # fmt: skip
    (model, *_) = anonymous.list_models(filter="paged", expand=["sha", "cardData", "siblings"])
    assert model.sha and model.card_data and model.siblings and model.private is None
    for query, expected in (
        ("num_parameters=1", 501),
        ("sort=color", 501),
        ("expand=color", 400),
        ("limit=x", 400),
    ):
        assert call(local_hub, "GET", f"/api/models?{query}")[0] == expected
    for name in names:
        api.delete_repo(name)


def test_duplicates_share_contents(api: HfApi, anonymous: HfApi, repo: str, tmp_path: Path) -> None:
    add(api, repo, {"big.bin": b"\0\1" * 5000, "a.txt": b"a"})
    copy = api.duplicate_repo(repo, f"{repo}-copy").repo_id
    assert set(anonymous.list_repo_files(copy)) == set(anonymous.list_repo_files(repo))
    assert read(anonymous, copy, "big.bin", tmp_path) == b"\0\1" * 5000
    with pytest.raises(HfHubHTTPError) as again:
        api.duplicate_repo(repo, copy)
    assert status(again) == 409
    api.delete_repo(copy)
    assert read(anonymous, repo, "a.txt", tmp_path) == b"a"


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_repos(api: HfApi, anonymous: HfApi, kind: str) -> None:
    name = f"local/a-{kind}"
    sdk = "gradio" if kind == "space" else None
    url = api.create_repo(name, repo_type=kind, space_sdk=sdk)
    assert url.repo_id == name and url.repo_type == kind
    assert api.create_repo(name, repo_type=kind, space_sdk=sdk, exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as again:
        api.create_repo(name, repo_type=kind, space_sdk=sdk)
    assert status(again) == 409
    assert anonymous.repo_info(name, repo_type=kind).id == name
    listed = {
        "model": anonymous.list_models,
        "dataset": anonymous.list_datasets,
        "space": anonymous.list_spaces,
    }
    assert name in [item.id for item in listed[kind](author="local")]
    api.update_repo_settings(name, private=True, repo_type=kind)
    assert name not in [item.id for item in listed[kind]()]
    with pytest.raises(RepositoryNotFoundError):
        anonymous.repo_info(name, repo_type=kind)
    assert api.repo_info(name, repo_type=kind).private
    api.move_repo(name, name + "-2", repo_type=kind)
    assert not api.repo_exists(name, repo_type=kind) and api.repo_exists(name + "-2", repo_type=kind)
    api.delete_repo(name + "-2", repo_type=kind)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(name + "-2", repo_type=kind)


def test_who_may_do_what(api: HfApi, anonymous: HfApi, repo: str, local_hub: LocalHub) -> None:
    add(api, repo, {"a.txt": b"a"})
    stranger = HfApi(endpoint=local_hub.endpoint, token="hf_of_another_hub")
    assert api.whoami()["name"] == "local"
    for other in (anonymous, stranger):
        assert other.file_exists(repo, "a.txt")  # a token for another Hub does no harm
        with pytest.raises(HfHubHTTPError) as refused:
            add(other, repo, {"b.txt": b"b"})
        assert status(refused) == 401
        with pytest.raises(HfHubHTTPError):
            other.create_repo("local/mine")
        api.update_repo_settings(repo, private=True)
        for do in (
            lambda o: o.model_info(repo),
            lambda o: o.hf_hub_download(repo, "a.txt"),
            lambda o: list(o.list_repo_tree(repo)),
            lambda o: add(o, repo, {"b.txt": b"b"}),
        ):
            with pytest.raises(RepositoryNotFoundError):
                do(other)
        api.update_repo_settings(repo, private=False)
    with pytest.raises(HfHubHTTPError) as elsewhere:
        api.create_repo("somebody/x")
    assert status(elsewhere) == 403


def test_errors_are_those_of_the_hub(api: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("local/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="none")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "none.txt")
    assert not api.file_exists(repo, "none.txt") and not api.revision_exists(repo, "none")
    with pytest.raises(HfHubHTTPError) as missing:
        list(api.list_papers(query="x"))
    assert status(missing) == 501


def test_spaces(api: HfApi) -> None:
    api.create_repo(
        "local/app",
        repo_type="space",
        space_sdk="gradio",
        space_variables=[{"key": "A", "value": "1"}],
        space_secrets=[{"key": "S", "value": "hidden"}],
    )
    api.add_space_variable("local/app", "B", "2")
    api.delete_space_variable("local/app", "A")
    assert {k: v.value for k, v in api.get_space_variables("local/app").items()} == {"B": "2"}
    assert list(api.get_space_secrets("local/app")) == ["S"]
    assert api.get_space_runtime("local/app").stage == "STOPPED"
    assert api.space_info("local/app").sdk == "gradio"


def test_collections(api: HfApi, anonymous: HfApi, repo: str) -> None:
    made = api.create_collection("A release", description="d", namespace="local")
    assert api.create_collection("A release", namespace="local", exists_ok=True).slug == made.slug
    api.add_collection_item(made.slug, repo, "model", note="first")
    api.add_collection_item(made.slug, repo, "model", exists_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.add_collection_item(made.slug, "local/none", "model")
    (item,) = anonymous.get_collection(made.slug).items
    assert (item.item_id, item.item_type, item.note) == (repo, "model", "first")
    assert [c.title for c in anonymous.list_collections(owner="local", item=f"models/{repo}")] == [
        "A release"
    ]
    api.update_collection_item(made.slug, item.item_object_id, note="second")
    api.update_collection_metadata(made.slug, title="B", private=True)
    assert api.get_collection(made.slug).items[0].note == "second"
    assert not list(anonymous.list_collections(owner="local"))
    with pytest.raises(HfHubHTTPError):
        anonymous.get_collection(made.slug)
    api.delete_collection_item(made.slug, item.item_object_id)
    assert not api.get_collection(made.slug).items
    api.delete_collection(made.slug)
    assert not list(api.list_collections(owner="local"))


@pytest.mark.parametrize(
    ("attributes", "large"),
    [
        ("*.bin filter=lfs", {"a.bin", "d/a.bin"}),
        ("d/ filter=lfs\nd filter=lfs", set()),  # a folder's line says nothing about what is in it
        ("/a.bin filter=lfs", {"a.bin"}),
        ("d/** filter=lfs\n*.txt -filter", {"d/a.bin", "d/[x].dat"}),
        ("\\[x].dat filter=lfs", {"d/[x].dat"}),
        ("!*.bin filter=lfs\n[ filter=lfs", set()),
    ],
)
def test_what_gitattributes_say_is_large(api: HfApi, repo: str, attributes: str, large: set[str]) -> None:
    api.upload_file(repo_id=repo, path_or_fileobj=attributes.encode(), path_in_repo=".gitattributes")
    files = dict.fromkeys(("a.bin", "d/a.bin", "d/a.txt", "d/[x].dat"), b"text\n")
    add(api, repo, files)
    assert {f.rfilename for f in api.model_info(repo, files_metadata=True).siblings or [] if f.lfs} == large


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("*.log\n!keep.log", {"keep.log", "d/e.txt"}),
        ("/d/\n", {"a.log", "keep.log"}),
        ("d/**/e.txt\n[\n!", {"a.log", "keep.log"}),
        ("\\#x\n# a.log", {"a.log", "keep.log", "d/e.txt"}),
    ],
)
def test_what_gitignore_keeps_out(api: HfApi, repo: str, tmp_path: Path, ignore: str, left: set[str]) -> None:
    for name in ("a.log", "keep.log", "d/e.txt", "#x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text(ignore)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    found = set(api.list_repo_files(repo)) - {".gitattributes", ".gitignore"}
    assert found - {"#x"} == left and ("#x" in found) == (not ignore.startswith("\\"))

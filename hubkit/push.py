"""What hubkit writes to a Hub: repos, their tags, and the collection of a release.

    push(access, "org/nano-traces", "dataset", {"README.md": b"…", "data/raw/…": Path(…)}, "v1")
        -> Pushed(repo_id="org/nano-traces", repo_type="dataset", sha="9c1f…", changed=True)

A push is one commit: readers see the whole old release or the whole new one. (`upload_folder` of huggingface_hub makes
several over xet, its default transfer.) Files that are on the Hub already are not sent again, so a push that was killed
is completed by running it again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hubkit.errors import HubError
from hubkit.hub import Access, RepoType, attempt, download_file

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

__all__ = [
    "PUSHES",
    "SIGNED",
    "CollectionItem",
    "Pushed",
    "add_files",
    "additions",
    "commit_title",
    "push",
    "put_collection",
    "put_tag",
]

_TAG: Final = "hubkit"
"""Tag in the card of every repo that hubkit made; a repo without it is not overwritten."""
SIGNED: Final = ", by hubkit"
"""End of the message of a release's commits: what such a commit wrote last, the next release may remove."""
_MOVES: Final = 5
"""Tries to move a tag that somebody else moves at the same time."""
_HEAD: Final = re.compile(rb"\A---\r?\n.*?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
"""YAML at the beginning of a card."""
PUSHES: Final = 4
"""Repos that are pushed at the same time. Each sends several files at once; when the Hub counts too many requests,
one waits as long as it says."""


@dataclass(frozen=True)
class Pushed:
    """A repo after a push."""

    repo_id: str
    repo_type: RepoType
    sha: str
    changed: bool
    """Whether the push made a commit. False if the Hub had all files already."""


@dataclass(frozen=True)
class CollectionItem:
    repo_id: str
    repo_type: RepoType
    note: str = ""


def push(
    access: Access,
    repo_id: str,
    repo_type: RepoType,
    files: Mapping[str, Path | bytes],
    message: str,
    private: bool = False,
    stale: Collection[str] = (),
) -> Pushed:
    """Make a repo hold exactly these files, in one commit; nothing is committed when it does already.

    The repo is created when missing. Files that an earlier release left and this one lacks are deleted in
    the same commit (of dot files and licences only those in `stale`). With `private`, a repo that is public is made
    private before anything is sent to it; a private repo stays private. Raises HubError for a repo that hubkit did not
    make.
    """
    from huggingface_hub import CommitOperationDelete

    api = access.api()
    attempt(
        access,
        f"create {repo_type} {repo_id}",
        lambda: api.create_repo(
            repo_id,
            repo_type=repo_type,
            private=private,
            exist_ok=True,
            space_sdk="gradio" if repo_type == "space" else None,
        ),
    )

    def commit() -> Pushed:
        # All of this is repeated on a retry: a commit whose answer was lost is then found to be there,
        # and one that lost a race against another commit (412) starts from the new head.
        info: Any = api.repo_info(repo_id, repo_type=repo_type)
        there = {sibling.rfilename for sibling in info.siblings or []}
        _check_ours(access, repo_id, repo_type, info)
        if private and not info.private:
            api.update_repo_settings(repo_id, repo_type=repo_type, private=True)
            if not api.repo_info(repo_id, repo_type=repo_type).private:
                raise HubError(
                    f"{repo_id} is public and stays public", "make it private on its page, or delete it"
                )
        gone = sorted(
            name for name in there - files.keys() if name in stale or not name.startswith((".", "LICENSE"))
        )
        operations: list[Any] = additions(files)
        operations += [CommitOperationDelete(name, is_folder=False) for name in gone]
        with _no_word_of_nothing():
            result = api.create_commit(
                repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=info.sha
            )
        return Pushed(repo_id, repo_type, str(result.oid), changed=result.oid != info.sha)

    return attempt(access, f"push {repo_type} {repo_id}", commit)


def additions(files: Mapping[str, Path | bytes]) -> list[CommitOperationAdd]:
    """Returns files as the operations of a commit, in the order of their names."""
    from huggingface_hub import CommitOperationAdd

    return [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in sorted(files.items())
    ]


@contextmanager
def _no_word_of_nothing() -> Iterator[None]:
    """Silence huggingface_hub's warning about a commit that changes nothing: a second push is expected to be one."""
    logger = logging.getLogger("huggingface_hub.hf_api")

    def changed(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No files have been modified")

    logger.addFilter(changed)
    try:
        yield
    finally:
        logger.removeFilter(changed)


def add_files(
    access: Access, dataset: str, files: Mapping[str, bytes], message: str, parent: str | None = None
) -> str:
    """Add files to a dataset or replace them, in one commit. Returns its id.

    Raises HubError when the dataset stands at another commit than `parent` by now.
    """
    api, operations = access.api(), additions(files)
    return attempt(
        access,
        f"add files to dataset {dataset}",
        lambda: str(
            api.create_commit(
                dataset, operations, commit_message=message, repo_type="dataset", parent_commit=parent
            ).oid
        ),
    )


def commit_title(access: Access, repo_id: str, repo_type: RepoType, sha: str) -> str:
    """The first line of a commit's message. Raises HubError if there is no such commit."""
    api = access.api()
    commits = attempt(
        access,
        f"look up commit {sha[:12]} of {repo_type} {repo_id}",
        lambda: api.list_repo_commits(repo_id, repo_type=repo_type, revision=sha),
    )
    return commits[0].title


def put_tag(access: Access, pushed: Pushed, tag: str) -> None:
    """Make a tag point to a pushed commit. A tag of that name on another commit is moved.

    Of two publishers at once the later one has it: neither believes that the other's tag is its own.
    """
    api = access.api()
    repo_id, repo_type = pushed.repo_id, pushed.repo_type

    def put() -> None:
        for _ in range(_MOVES):
            refs = api.list_repo_refs(repo_id, repo_type=repo_type)
            at = {ref.name: ref.target_commit for ref in refs.tags}
            if at.get(tag) == pushed.sha:
                return
            # Another publisher may move the tag between these requests: then it is gone, or there again.
            if tag in at:
                with _but(404):
                    api.delete_tag(repo_id, tag=tag, repo_type=repo_type)
            with _but(409):
                api.create_tag(repo_id, tag=tag, revision=pushed.sha, repo_type=repo_type)
                return
        raise HubError(
            f"somebody else keeps moving the tag {tag} of {repo_id}", "stop the other run, then run again"
        )

    attempt(access, f"tag {repo_type} {repo_id}", put)


@contextmanager
def _but(status: int) -> Iterator[None]:
    """Let an answer of this status pass."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code != status:
            raise


def put_collection(
    access: Access,
    namespace: str,
    title: str,
    description: str,
    items: Sequence[CollectionItem],
    private: bool,
) -> str:
    """Make a collection of that title hold these repos (and what it held before). Returns its slug.

    With `private`, a collection that is public is made private first.
    """
    api = access.api()

    def put() -> str:
        # Found by title: every new collection gets a new slug, so creating it again would make a second one.
        mine = (c for c in api.list_collections(owner=namespace) if c.title == title)
        found = next(mine, None) or api.create_collection(
            title, namespace=namespace, description=description[:150], private=private, exists_ok=True
        )
        if private and not found.private:
            found = api.update_collection_metadata(found.slug, private=True)
        held = {(item.item_id, item.item_type) for item in api.get_collection(found.slug).items}
        for item in items:
            if (item.repo_id, item.repo_type) not in held:
                api.add_collection_item(
                    found.slug, item.repo_id, item.repo_type, note=item.note[:500] or None, exists_ok=True
                )
        return found.slug

    return attempt(access, f"put together the collection {title!r}", put)


def _check_ours(access: Access, repo_id: str, repo_type: RepoType, info: Any) -> None:
    """Raise HubError if the repo has contents that hubkit did not make."""
    card, there = info.card_data, {sibling.rfilename for sibling in info.siblings or []}
    tags = (card.to_dict().get("tags") if card is not None else None) or []
    if _TAG in tags:
        return
    # The Hub puts .gitattributes into a new repo, a README into a new Space, and one without a text into a repo that is
    # given a licence when it is made.
    theirs = any(name != "README.md" and not name.startswith(".") for name in there)
    if not theirs and "README.md" in there and repo_type != "space":
        text = download_file(repo_id, "README.md", repo_type, str(info.sha), access).read_bytes()
        theirs = bool(_HEAD.sub(b"", text).strip())
    if theirs:
        raise HubError(
            f"{repo_id} exists and was not made by hubkit",
            f"change the recipe's name or hub.namespace, or add the tag `{_TAG}` to its card to let it be replaced",
        )

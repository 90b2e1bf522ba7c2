"""Sends planned results, and reads them back.

[Item(path=".eval_results/gsm8k.yaml", …)]
    -> one commit on main (one's own model) or one pull request (another's)
    -> the line of openai/gsm8k's leaderboard that shows it
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hubkit.errors import HubError
from hubkit.hub import Access, attempt
from hubkit.push import additions
from hubkit.release.leaderboard import rows
from hubkit.release.submission import Item

__all__ = ["Sent", "read_back", "send"]

_NEAR: Final = 1e-9


@dataclass(frozen=True)
class Sent:
    """A submission on the Hub."""

    url: str
    sha: str
    pull_request: int | None


def send(
    access: Access, model: str, items: Sequence[Item], message: str, pull_request: bool, body: str = ""
) -> Sent:
    """Make one commit with all files: on main, or as a pull request. Raises HubError if main has moved since."""
    api = access.api()
    head = str(attempt(access, f"look up model {model}", lambda: api.model_info(model)).sha)
    if any(item.head != head for item in items):
        raise HubError(
            f"{model} has changed since the submission was planned",
            "run again to plan it for the current files",
        )
    operations = additions({item.path: item.content for item in items})
    tried = False

    def commit() -> Sent:
        nonlocal tried
        # A commit whose answer was lost is there: made again it would be a second pull request, or be refused.
        if tried and (sent := _sent_before(access, model, items, head, message, pull_request)):
            return sent
        tried = True
        info = api.create_commit(
            model,
            operations,
            commit_message=message,
            commit_description=body,
            create_pr=pull_request,
            parent_commit=head,
        )
        url = info.pr_url if pull_request else info.commit_url
        return Sent(str(url), str(info.oid), int(info.pr_num) if info.pr_num else None)

    return attempt(access, f"commit to model {model}", commit)


def _sent_before(
    access: Access, model: str, items: Sequence[Item], head: str, message: str, pull_request: bool
) -> Sent | None:
    """The commit or pull request that holds just these files, since main stood at `head`; None if there is none."""
    from huggingface_hub.utils.sha import git_hash

    api = access.api()
    wanted = {(item.path, git_hash(item.content)) for item in items}

    def commit_with_all(revision: str) -> str:
        info = api.model_info(model, revision=revision, files_metadata=True)
        there = {(sibling.rfilename, sibling.blob_id) for sibling in info.siblings or []}
        return str(info.sha) if wanted <= there and info.sha != head else ""

    at = access.endpoint.rstrip("/")
    if not pull_request:
        sha = commit_with_all("main")
        return Sent(f"{at}/{model}/commit/{sha}", sha, None) if sha else None
    for one in api.get_repo_discussions(model, discussion_type="pull_request", discussion_status="open"):
        if one.title == message and (sha := commit_with_all(f"refs/pr/{one.num}")):
            return Sent(f"{at}/{model}/discussions/{one.num}", sha, one.num)
    return None


def read_back(
    access: Access, model: str, items: Iterable[Item], sent: Sent, patience: float = 120.0
) -> list[str]:
    """Returns one line per item that says where it shows now, at the model and on the leaderboard.

    Raises HubError if one does not show within `patience` seconds although the commit was made.
    """
    deadline = time.monotonic() + patience
    shown = []
    for item in items:
        delay = 0.2
        while (line := _shown(access, model, item, sent)) is None:
            if time.monotonic() > deadline:
                raise HubError(
                    f"{item.path} is committed ({sent.url}), but {item.board.dataset} does not show it after "
                    f"{patience:.0f} s",
                    f"look at {item.board.address(access.endpoint)} later; an unlisted benchmark shows nothing",
                )
            time.sleep(delay)
            delay = min(5.0, delay * 1.6)
        shown.append(line)
    return shown


def _shown(access: Access, model: str, item: Item, sent: Sent) -> str | None:
    """By huggingface_hub's own readers."""
    api, entry = access.api(), item.entry
    if sent.pull_request is None:
        info = attempt(
            access, f"read the results of {model}", lambda: api.model_info(model, expand=["evalResults"])
        )
        held = [(e.dataset_id.lower(), e.task_id, e.value) for e in info.eval_results or []]
        if (entry.dataset_id.lower(), entry.task_id, entry.value) not in held:
            return None
    line = next((line for line in rows(access, item.board) if line.model_id.lower() == model.lower()), None)
    if line is None:
        return None
    where = f"rank {line.rank} of {item.board.dataset}: {line.value:g}"
    if abs(line.value - item.value) > _NEAR:
        # A board has one line per model, its best one.
        return f"{where}, another result of this model; this one of {entry.value:g} shows on the model's page"
    return where + (f", as pull request #{line.pull_request}" if line.pull_request is not None else "")

"""The files of a submission: where a result goes, and what is there already. `sending` commits them.

    Score("gsm8k|0", share=0.4117, …) of org/student
        -> Item(path=".eval_results/gsm8k.yaml", content=b"- dataset: …") against what the repo holds already

Nothing here writes to a Hub: `hubkit submit` shows the items first, and asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, attempt, download_file, own_namespaces, resolve
from hubkit.release.leaderboard import (
    FOLDER,
    Board,
    Scale,
    choose_scale,
    entry_yaml,
    find_board,
    load_yaml,
    make_entry,
    parse_board,
    result_tree,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry

    from hubkit.release.lighteval_run import Score

__all__ = [
    "Item",
    "Place",
    "board_of",
    "file_name",
    "fill",
    "is_own",
    "locate",
    "notes_of",
]

_AT_ONCE: Final = 8
"""Pull requests that are looked at at the same time."""
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_BRANCH: Final = re.compile(r"[A-Za-z0-9][\w./-]{0,99}")


@dataclass(frozen=True)
class Item:
    """One file of a submission."""

    board: Board
    scale: Scale
    entry: EvalResultEntry
    path: str
    content: bytes
    head: str
    """Commit of the model that the file was made for."""
    remarks: list[str] = field(default_factory=list)
    """Remarks for the user who decides."""

    @property
    def value(self) -> float:
        return float(self.entry.value or 0)


@dataclass(frozen=True)
class _Held:
    """An entry that a model's repo holds already."""

    path: str
    index: int
    data: Mapping[str, Any]
    pull_request: int | None = None

    @property
    def where(self) -> str:
        return f"{self.path} on main" if self.pull_request is None else f"pull request #{self.pull_request}"


def is_own(access: Access, model: str) -> bool:
    """Returns whether the token may write to the model's namespace. Raises HubError without a token."""
    if not access.token:
        raise HubError(f"no token for {access.endpoint}", "run `hf auth login`, or set HF_TOKEN")
    user = attempt(access, "ask who the token belongs to", access.api().whoami, patient=False)
    return model.split("/")[0] in own_namespaces(user)


def notes_of(
    score: Score,
    versions: Mapping[str, str],
    model_revision: str = "",
    level: Mapping[str, str] | None = None,
) -> str:
    """How a result came to be, in one line: task, shots, level of effort, decoding, n, interval, versions.

    `versions` are of what evaluated, as far as it is known: {"lighteval": "0.13.0", "hubkit": "0.1.0"}.
    """
    parts = [f"lighteval {score.task}", f"{score.shots}-shot", f"metric {score.metric}"]
    parts += [f"{variable} {value}" for variable, value in (level or {}).items()]
    if score.temperature is not None:
        parts.append("greedy" if score.temperature == 0 else f"temperature {score.temperature:g}")
    if score.max_tokens:
        parts.append(f"at most {score.max_tokens:,} tokens")
    if score.n:
        parts.append(f"n = {score.n:,}")
    if score.low is not None and score.high is not None:
        parts.append(f"95 % CI {100 * score.low:.1f} to {100 * score.high:.1f} %")
    if model_revision:
        parts.append(f"model at {model_revision[:12]}")
    parts += [f"{name} {version}" for name, version in versions.items()]
    return ", ".join(parts)


def file_name(board: Board, variant: str = "") -> str:
    """.eval_results/<benchmark>.yaml; the task and the variant of use are named where there are several."""
    plain = [
        re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-.")
        for part in (board.dataset.split("/")[1], board.task)
    ]
    dataset, task = plain
    name = dataset if task in (dataset, "default") or board.task == board.dataset else f"{dataset}-{task}"
    if variant and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,80}", variant):
        raise InputError(
            f"the variant {variant!r} is no name", "use lower case letters, digits, dots and dashes"
        )
    return f"{FOLDER}/{name}{f'-{variant}' if variant else ''}.yaml"


@dataclass(frozen=True)
class Place:
    """The destination of a result, found before anything is evaluated."""

    board: Board
    scale: Scale
    path: str
    others: list[Mapping[str, Any]]
    """Entries of other tasks that the file holds and keeps."""
    index: int
    """Where among them the result goes."""
    head: str
    """Commit that the model's main branch stands at."""
    remarks: list[str]


def locate(
    access: Access,
    model: str,
    board: Board,
    *,
    scale: int = 0,
    variant: str = "",
    replace: bool = False,
) -> Place:
    """The file and the scale for a result of a model on a board, checked against what both hold.

    Raises InputError for a result of the same task that is there, on main unless `replace`, or in an open pull request.
    """
    chosen = choose_scale(access, board, scale)
    head, held, unreadable = _held(access, model)
    path = file_name(board, variant)
    if path in unreadable:
        raise InputError(
            f"{path} is there already, and cannot be read: {unreadable[path]}", "use --variant NAME"
        )
    same = [h for h in held if _is_for(h, board)]
    for one in same:
        if not variant or one.path == path:
            _check_conflict(one, replace)
    mine = [h for h in same if h.path == path] or ([] if variant else same)
    if len({h.path for h in mine}) > 1:
        raise InputError(
            f"{' and '.join(h.path for h in mine)} hold results of the same task, and none is {path}",
            "name the one to take the place of by its --variant, or delete them",
        )
    remarks = [f"this takes the place of {_value(h)} in {h.where}" for h in mine]
    remarks += [
        f"{h.where} holds {_value(h)} for the same task, which the board may show instead"
        for h in same
        if h not in mine
    ]
    path = mine[0].path if mine else path
    in_file = [h for h in held if h.path == path and h.pull_request is None]
    if in_file and not mine:
        raise InputError(
            f"{path} is there already, with {_value(in_file[0])} for another benchmark",
            "use --variant NAME for a separate file",
        )
    kept = [h.data for h in in_file if h not in mine]
    return Place(board, chosen, path, kept, mine[0].index if mine else 0, head, remarks)


def fill(
    place: Place, score: Score, date: str = "", notes: str = "", source: Mapping[str, str] | None = None
) -> Item:
    """The file with a score in its place."""
    board, remarks = place.board, list(place.remarks)
    if _BRANCH.fullmatch(score.revision) and not _COMMIT.fullmatch(score.revision):
        remarks.append(
            f"the run read {score.revision} of its dataset, which is not a commit: the entry names none"
        )
        score = replace(score, revision="")
    if score.revision and score.dataset.lower() != board.dataset.lower():
        remarks.append(
            f"the problems were read from {score.dataset[:80]}, of which {board.dataset} has no commit: the entry "
            "names none"
        )
        score = replace(score, revision="")
    if score.revision and score.revision != board.revision:
        remarks.append(f"{board.dataset} has changed since it was evaluated, at {score.revision[:12]}")
    value = place.scale.value(score.share)
    entry = make_entry(board, value, date or score.date, notes, source, revision=score.revision)
    entries: list[EvalResultEntry | Mapping[str, Any]] = list(place.others)
    entries.insert(place.index, entry)
    return Item(board, place.scale, entry, place.path, entry_yaml(entries), place.head, remarks)


def board_of(access: Access, score: Score, leaderboard: str = "") -> Board:
    """The board that a score belongs to: of `leaderboard` (org/name#task), or of the dataset that lighteval read."""
    dataset, task = parse_board(leaderboard) if leaderboard else (score.dataset, "")
    if "/" not in dataset:
        raise InputError(
            f"{score.task} was read from {dataset or 'an unnamed place'}, which is not a dataset on the Hub",
            "name the benchmark: --leaderboard org/name#task",
        )
    if leaderboard:
        return find_board(access, dataset, task, name=score.name)
    return find_board(access, dataset, "", score.config, score.splits, score.name)


def _held(access: Access, model: str) -> tuple[str, list[_Held], dict[str, str]]:
    """Head of main, entries on main and in open pull requests, and files that cannot be read with the reason."""
    api = access.api()
    held: list[_Held] = []
    unreadable: dict[str, str] = {}
    head = resolve(model, "", access=access)
    numbers = attempt(
        access,
        f"list the pull requests of {model}",
        lambda: [
            d.num
            for d in api.get_repo_discussions(model, discussion_type="pull_request", discussion_status="open")
        ],
    )
    revisions = [head, *(f"refs/pr/{number}" for number in numbers)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        trees = list(pool.map(lambda revision: result_tree(access, model, revision), revisions))
    on_main = {(file.path, file.blob_id) for file in trees[0]}
    for number, revision, tree in zip([None, *numbers], revisions, trees, strict=True):
        for file in tree:
            if number is not None and (file.path, file.blob_id) in on_main:
                continue
            data = download_file(model, file.path, "model", revision, access).read_bytes()
            try:
                found = load_yaml(data, file.path)
                entries = found if isinstance(found, list) else []
                if not entries or not all(
                    isinstance(e, dict) and isinstance(e.get("dataset"), dict) for e in entries
                ):
                    raise InputError(f"{file.path} is not a list of results", "repair it first")
            except InputError as error:
                if number is None:
                    unreadable[file.path] = error.message
                continue
            held.extend(_Held(file.path, place, entry, number) for place, entry in enumerate(entries))
    return head, held, unreadable


def _is_for(held: _Held, board: Board) -> bool:
    about = held.data["dataset"]
    return str(about.get("id")).lower() == board.dataset.lower() and about.get("task_id") == board.task


def _value(held: _Held) -> str:
    return str(held.data.get("value"))[:40]


def _check_conflict(held: _Held, replace: bool) -> None:
    if held.pull_request is not None:
        raise InputError(
            f"{held.where} proposes {_value(held)} for the same task",
            "have it merged or closed first, or give this one a --variant",
        )
    if not replace:
        verified = ", which may carry a verified badge" if held.data.get("verifyToken") else ""
        raise InputError(
            f"{held.where} says {_value(held)} for the same task already{verified}",
            "--replace takes its place; --variant NAME keeps both",
        )

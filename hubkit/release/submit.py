"""`hubkit submit` without its options: from a model and a task to a line on a leaderboard.

    Wish("org/model", ("gsm8k|0",)) -> evaluated, or read from a finished run -> Planned: the files, in full, and where
    they would go -> carry_out: details dataset, commit or pull request, read back

`plan` writes nothing to the Hub; `carry_out` writes what the plan shows and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.evaluation.benchmark import level_named
from hubkit.hub import Access, check_namespace, default_access, resolve
from hubkit.release.details import details_repo, push_details, run_files
from hubkit.release.leaderboard import Board, is_address
from hubkit.release.lighteval_run import Score, read_run
from hubkit.release.sending import Sent, read_back, send
from hubkit.release.submission import (
    Item,
    Place,
    board_of,
    fill,
    is_own,
    locate,
    notes_of,
)
from hubkit.section import Sampling, is_repo_id
from hubkit.students.gates import level_of

__all__ = ["Done", "Planned", "Wish", "carry_out", "plan"]

_LONGEST_URL: Final = 300


@dataclass(frozen=True)
class Wish:
    """The options of the command line."""

    model: str
    tasks: tuple[str, ...] = ()
    results: Path | None = None
    leaderboard: str = ""
    metric: str = ""
    scale: int = 0
    revision: str = ""
    max_tokens: int = 4096
    temperature: float = 0.0
    samples: int = 0
    """Answers to each problem; 0: the task's own number."""
    level: str = ""
    """What the chat template is given, such as reasoning_effort=low."""
    engine: str = "auto"
    """auto: vLLM where it is installed and there is a GPU, else transformers."""
    device: str = "auto"
    source: str = ""
    details: str = ""
    variant: str = ""
    replace: bool = False
    pull_request: bool = False
    same_model: bool = False
    dry_run: bool = False
    """Shows what would be sent; needs no token, and assumes somebody else's model."""


@dataclass(frozen=True)
class Planned:
    """A submission that is not sent yet."""

    access: Access
    wish: Wish
    items: list[Item]
    pull_request: bool
    details: str = ""
    """Repo id of the details dataset to publish."""
    details_files: Mapping[str, Path | bytes] = field(default_factory=dict)

    def text(self) -> str:
        """Everything that would be written, file by file."""
        lines = []
        way = "a pull request to" if self.pull_request else "a commit on main of"
        for item in self.items:
            lines += [
                f"{way} {self.wish.model} at {self.access.endpoint}: {item.path}",
                "",
                *(f"    {line}" for line in item.content.decode().rstrip("\n").splitlines()),
                "",
                f"leaderboard: {item.board.dataset}, task {item.board.task}; "
                f"its values go up to {item.scale.top} ({item.scale.reason})",
                *(f"note: {remark}" for remark in item.remarks),
            ]
        if self.details:
            lines.append(f"details: {len(self.details_files)} files to the public dataset {self.details}")
        elif not self.wish.source:
            lines.append(
                "note: no source; --details NAMESPACE publishes what the model answered, and names it"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.wish.model,
            "endpoint": self.access.endpoint,
            "pull_request": self.pull_request,
            "files": [
                {
                    "path": item.path,
                    "content": item.content.decode(),
                    "dataset": item.board.dataset,
                    "task": item.board.task,
                    "value": item.entry.value,
                    "scale": {"top": item.scale.top, "reason": item.scale.reason},
                    "remarks": item.remarks,
                }
                for item in self.items
            ],
            "details": self.details,
        }


@dataclass(frozen=True)
class Done:
    """A submission that was sent, and where it shows."""

    sent: Sent
    shown: list[str]
    addresses: list[str]

    def text(self) -> str:
        what = "pull request" if self.sent.pull_request is not None else "commit"
        lines = [f"{what}: {self.sent.url}"]
        for line, address in zip(self.shown, self.addresses, strict=True):
            lines += [f"shown: {line}", f"  {address}"]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "url": self.sent.url,
            "commit": self.sent.sha,
            "number": self.sent.pull_request,
            "shown": self.shown,
            "addresses": self.addresses,
        }


def plan(wish: Wish, root: Path, access: Access | None = None) -> Planned:
    """Evaluate or read, and return what would be sent. Raises HubkitErrors before an evaluation if possible."""
    import importlib.metadata

    from hubkit import __version__

    access = access or default_access()
    if not is_repo_id(wish.model, owned=True):
        raise InputError(f"{wish.model!r} is not a model on the Hub", "write org/model")
    if wish.results is None and not wish.tasks:
        raise InputError("nothing to submit", "give --task gsm8k|0, or --results of a finished run")
    if wish.engine not in ("auto", "transformers", "vllm"):
        raise InputError(f"--engine {wish.engine!r}", "use auto, transformers or vllm")
    if wish.source and wish.details:
        raise InputError("--source and --details are both given", "give one of them")
    if wish.source and (len(wish.source) > _LONGEST_URL or not is_address(wish.source)):
        raise InputError(
            f"--source {wish.source[:80]!r} is no web address of at most {_LONGEST_URL} characters",
            "write https://…",
        )
    level = level_named(wish.level)
    if level and wish.results is not None:
        raise InputError("--level is for an evaluation, and --results is one", "leave --level out")
    # What lies here is read before the Hub is asked for anything.
    scores = read_run(wish.results, wish.tasks, wish.metric) if wish.results is not None else []
    for score in scores:
        _check_model(score, wish)
    commit = resolve(wish.model, wish.revision, "model", access)
    anonymous = wish.dry_run and not access.token
    pull_request = wish.pull_request or anonymous or not is_own(access, wish.model)
    repo = details_repo(wish.details, wish.model) if wish.details else ""
    if repo and not wish.dry_run:
        check_namespace(access, wish.details)
    found: list[tuple[Place, Score, str]] = []
    versions: dict[str, str] = {}

    # Results at two levels of effort stand beside each other.
    variant = wish.variant or re.sub(r"[^a-z0-9.-]", "-", level.get("value", "").lower())

    def place(board: Board) -> Place:
        return locate(access, wish.model, board, scale=wish.scale, variant=variant, replace=wish.replace)

    if wish.results is not None:
        for score in scores:
            found.append((place(board_of(access, score, wish.leaderboard)), score, score.date))
        _check_apart([where for where, _, _ in found])
        commit = ""  # which one was evaluated, a results file does not say
    else:
        from hubkit.release.evaluating import evaluate, plan_task

        tasks = [plan_task(access, task, wish.leaderboard, root) for task in wish.tasks]
        for task in tasks:
            if (wish.samples or task.samples) > 1 and wish.temperature == 0:
                raise InputError(
                    f"{task.task}: {wish.samples or task.samples} greedy answers to a problem are all the same",
                    "give a --temperature, or --samples 1",
                )
        places = [place(task.board) for task in tasks]
        _check_apart(places)
        sampling = Sampling(max_tokens=wish.max_tokens, temperature=wish.temperature)
        runtime = EngineRuntime.model_validate({"engine": wish.engine})
        versions = {"lighteval": importlib.metadata.version("lighteval"), "hubkit": __version__}
        for task, where in zip(tasks, places, strict=True):
            samples = wish.samples or task.samples
            more = task is not tasks[-1]
            folder, record = evaluate(
                access,
                wish.model,
                commit,
                task,
                sampling,
                runtime,
                wish.device,
                root,
                samples,
                keep_engine=more,
                level=level,
            )
            (score,) = read_run(folder, (), wish.metric, main=True)
            # hubkit's own problems were read from a folder, into which they were copied.
            dataset = score.dataset if task.folder is None else task.board.dataset
            found.append((where, replace(score, dataset=dataset, revision=task.revision), record.started))
    source = _source(access, wish, repo)
    items = [
        fill(where, score, date, notes_of(score, versions, commit, level_of({"level": level})), source)
        for where, score, date in found
    ]
    files: dict[str, Path | bytes] = {}
    for _, score, _ in found if repo else []:
        if score.details is None:
            raise InputError(f"{score.results.name} has no details beside it", "leave --details out")
        files |= run_files(score.results, [score.details])
    return Planned(access, wish, items, pull_request, repo, files)


def _check_apart(places: Sequence[Place]) -> None:
    """Raise InputError if two results would go to one file: each of its contents was made without the other."""
    paths = [where.path for where in places]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(
                f"two results would be written to {path}", "submit one after the other with --variant"
            )


def _check_model(score: Score, wish: Wish) -> None:
    if score.model.strip("/").lower() != wish.model.lower() and not wish.same_model:
        shown = score.model[:80]
        raise InputError(
            f"{score.results.name} is of {shown!r}, not of {wish.model}",
            "if it is the same model by another name, say --same-model",
        )


def _source(access: Access, wish: Wish, repo: str) -> dict[str, str] | None:
    if repo:
        url = f"{access.endpoint.rstrip('/')}/datasets/{repo}"
        return {"url": url, "name": "lighteval details", "user": wish.details}
    return {"url": wish.source, "name": "evaluation details"} if wish.source else None


def carry_out(planned: Planned) -> Done:
    """Publish the details, commit the files, and wait until the board shows them."""
    access, wish = planned.access, planned.wish
    if planned.details:
        push_details(access, planned.details, wish.model, planned.details_files)
    names = ", ".join(item.board.dataset for item in planned.items)
    body = "\n".join(filter(None, (item.entry.notes for item in planned.items)))
    sent = send(
        access, wish.model, planned.items, f"Add evaluation results: {names}", planned.pull_request, body
    )
    shown = read_back(access, wish.model, planned.items, sent)
    return Done(sent, shown, [item.board.address(access.endpoint) for item in planned.items])

"""Evaluates an existing model, made with any toolkit, for a submission: hubkit's evaluation step without a recipe.

    org/model at 9c1f…, "gsm8k|0", greedy, at most 4,096 tokens  ->  runs/steps/evaluation/org-model/gsm8k/5f1c…/
        results.json, details/…, samples.parquet, record.json, read by `lighteval_run`
    org/model, "org/nano-sums#sums"  ->  likewise on the problems of a benchmark dataset that hubkit published

It can be stopped and run again: answers are kept, and a finished evaluation is found by its key.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import HubError, InputError
from hubkit.evaluation import evaluation
from hubkit.evaluation.benchmark import task_name
from hubkit.evaluation.tasks import describe
from hubkit.hub import Access, attempt, download_file, download_model, resolve
from hubkit.records import PROBLEM_SCHEMA
from hubkit.release.leaderboard import Board, find_board, parse_board
from hubkit.section import Sampling, is_repo_id
from hubkit.store import Record, StepContext, Store, digest

__all__ = ["Task", "base_of", "benchmark_rows", "evaluate", "merged_adapter", "plan_task"]


@dataclass(frozen=True)
class Task:
    """A task to evaluate, and the board of its result."""

    task: str
    """As given: gsm8k|0, or org/name#task."""
    name: str
    board: Board
    revision: str
    """Commit of the problems."""
    folder: Path | None
    """Of the problems of a benchmark that hubkit published."""
    samples: int = 1
    """Answers to each problem that the task wants."""


def plan_task(access: Access, task: str, leaderboard: str, root: Path) -> Task:
    """Find a task's problems and its board. Raises a HubkitError if it cannot be evaluated or has no board."""
    name = task_name(task)
    if "|" in task:
        _check_address(access)
        facts = describe(task)
        if leaderboard:
            board = find_board(access, *parse_board(leaderboard), name=facts.name)
        else:
            board = find_board(access, facts.dataset, "", facts.config, facts.splits, facts.name)
        same = board.dataset.lower() == facts.dataset.lower()
        newest = board.revision if same else resolve(facts.dataset, "", "dataset", access)
        return Task(task, name, board, facts.revision or newest, None, facts.samples)
    board = find_board(access, *parse_board(task))
    # The configuration comes from the benchmark: it names no folder here.
    folder = (
        root
        / "benchmarks"
        / board.dataset.replace("/", "--")
        / board.revision[:16]
        / digest(board.config)[:8]
    )
    if not (folder / "problems.parquet").is_file():
        benchmark_rows(access, board, folder)
    return Task(task, name, board, board.revision, folder)


def _check_address(access: Access) -> None:
    """Raise HubError if lighteval would read its problems from another Hub: datasets takes HF_ENDPOINT at import, and
    sends the token of the environment there."""
    from datasets import config

    if config.HF_ENDPOINT.rstrip("/") != access.endpoint.rstrip("/"):
        raise HubError(
            f"lighteval would read its problems from {config.HF_ENDPOINT}, not from {access.endpoint}",
            f"start Python again with HF_ENDPOINT={access.endpoint}",
        )


def benchmark_rows(access: Access, board: Board, folder: Path) -> Path:
    """problems.parquet in `folder`: the problems of a benchmark that hubkit published, schema checked.

    Raises InputError for a dataset of any other form: what its columns mean only its own lighteval task knows.
    """
    api = access.api()
    info = attempt(
        access,
        f"look up dataset {board.dataset}",
        lambda: api.dataset_info(board.dataset, revision=board.revision),
    )
    wanted = re.compile(rf"data/{re.escape(board.config)}/{re.escape(board.split)}-[\w-]+\.parquet")
    names = [s.rfilename for s in info.siblings or [] if wanted.fullmatch(s.rfilename)]
    fault = InputError(
        f"{board.dataset} is not a benchmark that hubkit published",
        "evaluate it by a task of lighteval: --task name|0",
    )
    if len(names) != 1:
        raise fault
    path = download_file(board.dataset, names[0], "dataset", board.revision, access)
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError) as error:
        raise HubError(
            f"{names[0]} of {board.dataset} is no Parquet file", "choose another benchmark"
        ) from error
    if not schema.remove_metadata().equals(PROBLEM_SCHEMA):
        raise fault
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "problems.part"
    shutil.copyfile(path, temporary)
    return temporary.replace(folder / "problems.parquet")


def base_of(access: Access, model: str, revision: str) -> tuple[str, str] | None:
    """Returns repo id and commit of an adapter's base. Returns None for whole weights.

    Raises InputError if the adapter names its base by anything but a Hub id, such as a folder.
    """
    api = access.api()
    info = attempt(
        access, f"look up model {model}", lambda: api.model_info(model, revision=revision), patient=False
    )
    if not any(sibling.rfilename == "adapter_config.json" for sibling in info.siblings or []):
        return None
    path = download_file(model, "adapter_config.json", "model", revision, access)
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        base, at = str(about["base_model_name_or_path"]), str(about.get("revision") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"adapter_config.json of {model} names no base", "save it with PEFT again") from None
    if not is_repo_id(base, owned=True):
        raise InputError(
            f"the adapter {model} names its base as {base[:80]!r}, which is not a model on the Hub",
            "name it by its id in adapter_config.json, or publish merged weights",
        )
    return base, resolve(base, at, "model", access)


def merged_adapter(access: Access, model: str, revision: str, base: tuple[str, str], root: Path) -> Path:
    """Returns the adapter merged into its base, with the adapter's own tokenizer and chat template if it has them."""
    from hubkit.evaluation.published import merged

    folder = root / "models" / f"{model.replace('/', '--')}-{digest([revision, base[1]])[:16]}"
    if not folder.is_dir():
        whole, adapter = download_model(*base, access), download_model(model, revision, access)
        merged(whole, adapter, folder.with_name(f"{folder.name}.part")).rename(folder)
    return folder


def evaluate(
    access: Access,
    model: str,
    revision: str,
    task: Task,
    sampling: Sampling,
    runtime: EngineRuntime,
    device: str,
    root: Path,
    samples: int = 1,
    keep_engine: bool = False,
    level: dict[str, str] | None = None,
) -> tuple[Path, Record]:
    """Returns folder and record of an evaluation of a model at a commit, which is run if it is not finished yet.

    An adapter is merged into its base first. `level` is what the chat template is given, as an evaluation's
    configuration has it. With `keep_engine` the model stays loaded for the next task.
    """
    import joblib

    benchmark: dict[str, Any] = {"name": task.name, "sampling": sampling.model_dump(mode="json")}
    benchmark |= {"samples": samples} if samples > 1 else {}
    own = task.folder is not None
    benchmark |= {"problems": task.name if own else None, "task": None if own else task.task}
    nobody = dict.fromkeys(("teacher", "variant", "method", "seed"))
    config = {"student": model, "base": "model", **nobody, "benchmark": benchmark, "system": ""}
    config |= {"level": level} if level else {}
    step = f"evaluation/{model.replace('/', '--')}/{task.name}"
    base = base_of(access, model, revision)
    inputs = {"model": revision, "problems": task.revision} | ({"base": base[1]} if base else {})
    key = digest([step, evaluation.VERSION, config, inputs])
    store = Store(root)
    weights = {"model": model, "revision": revision}
    if base and store.find(step, key) is None:
        weights = {"model": str(merged_adapter(access, model, revision, base, root)), "revision": ""}
    context = StepContext(
        step=step,
        config=config,
        runtime={
            "engine": runtime.model_dump(mode="json"),
            "device": device,
            "keep_engine": keep_engine,
            "threads": joblib.cpu_count(),
        },
        inputs={"problems": task.folder} if task.folder else {},
        models={
            "base": weights,
            "benchmark": {"model": "", "revision": task.revision},
        },
        out=root / "tmp" / key[:16],
        work=store.work(step, key),
    )
    record = store.run(context, "evaluation", evaluation.VERSION, key, inputs, evaluation.run)
    return store.folder(step, key), record

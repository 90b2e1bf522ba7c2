"""Evaluation alone: a model of the Hub or a folder on tasks, by the recipe's own step, in a folder with a card.

evaluate("org/model", ["gsm8k|0"], Path("scores"))
    scores/README.md  results.json  gsm8k/samples.parquet  gsm8k/results.json  gsm8k/details/…  .hubkit/

The same call goes on where it stopped, and evaluates nothing twice.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.evaluation.benchmark import level_named, task_name
from hubkit.section import Sampling
from hubkit.stages.folder import INNER, own_folder
from hubkit.stages.step import pinned_model, run_step
from hubkit.store import Record, digest, write_json

__all__ = ["Score", "evaluate"]

_MEASURED: Final = ("n", "correct", "accuracy", "ci_low", "ci_high", "mean_output_tokens", "cut_share")


@dataclass(frozen=True)
class Score:
    """A model on one task."""

    task: str
    """As it was given."""
    folder: str
    """Name of its folder."""
    dataset: str
    revision: str
    """Commit of the problems."""
    n: int
    correct: int
    accuracy: float
    ci_low: float
    ci_high: float
    mean_output_tokens: float
    cut_share: float


def evaluate(
    model: str | Path,
    tasks: Sequence[str],
    out: Path,
    *,
    revision: str = "",
    max_tokens: int = 4096,
    temperature: float = 0.0,
    system: str = "",
    level: str = "",
    engine: EngineRuntime | None = None,
    device: str = "auto",
) -> list[Score]:
    """Evaluate a model on tasks: lighteval's, as gsm8k|0, or of a benchmark that hubkit published, as org/name#task.

    `model` is a Hub id or a folder; `level` is for its chat template: reasoning_effort=low. Raises InputError for a
    task or model that is not there and for an `out` that holds something else, GateError where the template does not
    tell the level, HubError if the Hub refuses, EngineError if the model cannot answer.
    """
    if not tasks:
        raise InputError("nothing to evaluate on", "give a task, such as --task 'gsm8k|0'")
    engine = engine or EngineRuntime()
    if engine.engine == "openai":
        raise InputError(
            "an endpoint does not say which weights answer", "give a model's Hub id or its folder"
        )
    sampling, asked_at = Sampling(max_tokens=max_tokens, temperature=temperature), level_named(level)
    with own_folder(out):
        pinned = pinned_model(model, revision)
        called = re.sub(r"[^A-Za-z0-9.]+", "-", Path(model).name).strip("-.") or "model"
        found = [_plan(task, out / INNER) for task in tasks]
        names = [name for name, *_ in found]
        if len(set(names)) < len(names):
            raise InputError(
                f"two tasks would be called {max(names, key=names.count)!r}", "evaluate them one by one"
            )
        weights = _weights(
            pinned, out / INNER
        )  # an adapter is merged: only once the tasks are known to be there
        scores, records = [], []
        for task, (name, dataset, commit, folder) in zip(tasks, found, strict=True):
            made = _run(
                out / INNER,
                weights,
                (called, name, task, commit, folder),
                sampling,
                {"system": system} | ({"level": asked_at} if asked_at else {}),
                (engine, device),
            )
            shutil.copytree(
                made, out / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("record.json")
            )
            record = Record.read(made)
            records.append(record)
            measured = {key: record.metrics[key] for key in _MEASURED}
            scores.append(Score(task=task, folder=name, dataset=dataset, revision=commit, **measured))
        about = {
            "model": Path(model).name if "digest" in pinned else str(model),
            "revision": pinned["revision"],
        }
        about |= {"sampling": sampling.words(), "system": system, "level": level}
        write_json(out / "results.json", about | {"scores": [asdict(score) for score in scores]})
        from hubkit.release.stage import scores_card

        (out / "README.md").write_text(
            scores_card(about, [asdict(s) for s in scores], records), encoding="utf-8"
        )
        return scores


def _weights(model: dict[str, str], root: Path) -> dict[str, str]:
    """Returns the model to load; an adapter on the Hub is merged into its base."""
    if "digest" in model:
        return model
    from hubkit.hub import default_access
    from hubkit.release.evaluating import base_of, merged_adapter

    access = default_access()
    base = base_of(access, model["model"], model["revision"])
    if base is None:
        return model
    folder = merged_adapter(access, model["model"], model["revision"], base, root)
    return {"model": str(folder), "revision": "", "digest": digest([model["revision"], base[1]])}


def _plan(task: str, root: Path) -> tuple[str, str, str, Path | None]:
    """(name, dataset, its commit, folder of its problems if they are hubkit's own) of a task."""
    from hubkit.hub import default_access, resolve

    name = task_name(task)
    if "#" in task:
        from hubkit.release.evaluating import plan_task

        planned = plan_task(default_access(), task, "", root)
        return name, planned.board.dataset, planned.revision, planned.folder
    from hubkit.evaluation.tasks import describe

    facts = describe(task)
    return name, facts.dataset, facts.revision or resolve(facts.dataset, "", "dataset"), None


def _run(
    root: Path,
    model: dict[str, str],
    task: tuple[str, str, str, str, Path | None],
    sampling: Sampling,
    prompt: dict[str, Any],
    how: tuple[EngineRuntime, str],
) -> Path:
    (called, name, asked, commit, folder), (engine, device) = task, how
    own = {"problems": name, "task": None} if folder else {"problems": None, "task": asked}
    nobody: dict[str, Any] = dict.fromkeys(("teacher", "variant", "method", "seed"))
    return run_step(
        root,
        f"evaluation/{called}/{name}",
        "hubkit.evaluation.evaluation:run",
        {
            "student": called,
            "base": "model",
            **nobody,
            "benchmark": {"name": name, "sampling": sampling.model_dump(mode="json"), **own},
            **prompt,
        },
        inputs={"problems": folder} if folder else {},
        models={"base": model, "benchmark": {"model": "", "revision": commit}},
        runtime={
            "engine": engine.model_dump(mode="json"),
            "device": device,
        },
    )

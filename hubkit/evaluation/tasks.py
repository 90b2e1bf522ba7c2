"""What lighteval is asked to evaluate: a recipe's own held-out problems, or a task of its own.

Problem {"problem": "State the final answer … 47 + 38 - 12 =", "answer": "73", …}
-> lighteval's Doc(query="State the final answer …", choices=["73"], specific={"problem": …})
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hubkit.errors import InputError, RecipeError
from hubkit.records import PROBLEM_SCHEMA
from hubkit.verifiers import verify_problem

__all__ = ["built_in", "contained", "only", "own_task", "questions"]

METRIC: Final = "accuracy"


def own_task(name: str, folder: Path, max_tokens: int) -> types.ModuleType:
    """A module with TASKS_TABLE, as lighteval's custom tasks are, for problems.parquet in a folder."""
    import numpy as np
    from lighteval.metrics.metrics_sample import SampleLevelComputation
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.tasks.lighteval_task import LightevalTaskConfig
    from lighteval.tasks.requests import Doc, SamplingMethod

    class Judge(SampleLevelComputation):  # type: ignore[misc,unused-ignore]
        """The verifier that the problem names, on the text after the thinking span."""

        def compute(self, doc: Any, model_response: Any, **_: Any) -> float:
            problem = json.loads(doc.specific["problem"])
            return float(verify_problem(problem, model_response.final_text[0]).correct)

    def prompt(line: dict[str, Any], task_name: str) -> Any:
        problem = {name: line[name] for name in PROBLEM_SCHEMA.names}  # lighteval adds notes of its own
        return Doc(
            task_name=task_name,
            query=line["problem"],
            choices=[line["answer"]],
            gold_index=0,
            specific={"problem": json.dumps(problem, ensure_ascii=False)},
        )

    metric = SampleLevelMetric(
        metric_name=METRIC,
        higher_is_better=True,
        category=SamplingMethod.GENERATIVE,
        sample_level_fn=Judge(),
        corpus_level_fn=np.mean,
    )
    module = types.ModuleType("hubkit_tasks")
    module.TASKS_TABLE = [  # type: ignore[attr-defined]
        LightevalTaskConfig(
            name=name,
            prompt_function=prompt,
            hf_repo=str(folder),
            hf_subset="default",
            hf_avail_splits=["train"],
            evaluation_splits=["train"],
            generation_size=max_tokens,
            metrics=[metric],
        )
    ]
    return module


def built_in(task: str, max_tokens: int, revision: str = "") -> types.ModuleType:
    """The module of lighteval that defines a task such as gsm8k|0, with room for max_tokens in answers.

    `revision` is the commit of its dataset; "" leaves what the task itself says, mostly the newest.
    Raises RecipeError for a task that lighteval does not have.
    """
    name, bar, shots = task.partition("|")
    if not bar or not shots.isdecimal():
        raise RecipeError(f"{task!r} is not a lighteval task", "write name|number of examples: gsm8k|0")
    source = importlib.import_module(_module_of(name))
    module = types.ModuleType("hubkit_tasks")
    # Copies: the next student may be asked for other lengths in this process.
    module.TASKS_TABLE = [  # type: ignore[attr-defined]
        dataclasses.replace(
            config, generation_size=max_tokens, **({"hf_revision": revision} if revision else {})
        )
        for config in source.TASKS_TABLE
        if config.name == name or config.name.startswith(f"{name}:")
    ]
    return module


@contextmanager
def only(tasks: types.ModuleType) -> Iterator[None]:
    """Let lighteval's registry know these tasks and no others.

    Its own loader (lighteval 0.13.0, Registry.load_all_task_configs) imports every built-in task; one of
    them reaches the network at import, and another calls what huggingface_hub 2 has removed.
    """
    from lighteval.tasks.registry import Registry

    def load(custom_tasks: Any = None, load_multilingual: bool = False) -> dict[str, Any]:
        return {config.name: config for config in tasks.TASKS_TABLE}

    original = Registry.load_all_task_configs
    Registry.load_all_task_configs = staticmethod(load)
    try:
        yield
    finally:
        Registry.load_all_task_configs = staticmethod(original)


def questions(task: str, cache: Path) -> list[str]:
    """What a lighteval task such as gsm8k|0 asks: its prompts, in the order of its dataset.

    Raises RecipeError for a task that lighteval does not have, InputError when its dataset cannot be had.
    """
    with contained(cache):
        from httpx2 import HTTPError
        from lighteval.tasks.registry import Registry

        module = built_in(task, 1)
        with only(module):
            tasks = Registry(task).load_tasks()
        try:
            return [doc.query for name in sorted(tasks) for doc in tasks[name].eval_docs()]
        except (
            HTTPError,
            OSError,
            ValueError,
        ) as error:  # datasets and huggingface_hub raise these, or their kinds
            raise InputError(
                f"the problems of {task} cannot be had: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
                "see that its dataset is there, and ask for access to it where it is gated",
            ) from error


@contextmanager
def contained(cache: Path) -> Iterator[None]:
    """Keep lighteval's habits to itself: importing it turns gradients off for the whole process (and this
    process trains the next student), and it logs every stage and shows bars where hubkit shows one. What
    datasets converts goes to `cache`, which goes away with the step."""
    import datasets
    import torch
    import transformers

    bars = datasets.are_progress_bars_disabled(), transformers.logging.is_progress_bar_enabled()
    folder, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, cache
    verbosity = transformers.logging.get_verbosity()
    before, gradients = logging.root.manager.disable, torch.is_grad_enabled()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        transformers.logging.set_verbosity(verbosity)
        datasets.config.HF_DATASETS_CACHE = folder
        if not bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers.logging.enable_progress_bar()
        torch.set_grad_enabled(gradients)


def _module_of(task: str) -> str:
    """The module of lighteval that defines a task: found by its name in the source, without importing."""
    import lighteval.tasks

    folder = Path(lighteval.tasks.__file__).parent / "tasks"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/main.py")]):
        text = path.read_text(encoding="utf-8")
        if f'name="{task}"' in text or f'name="{task}:' in text:
            return "lighteval.tasks." + ".".join(path.relative_to(folder.parent).with_suffix("").parts)
    raise RecipeError(
        f"lighteval has no task {task!r}", "its names are in `lighteval tasks list`; write name|0"
    )

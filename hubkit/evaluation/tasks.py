"""What lighteval evaluates: a recipe's own held-out problems, or a task of lighteval.

"gsm8k|5" -> TaskFacts("gsm8k|5", "openai/gsm8k", "main", ("test",), samples=1, examples="train", …)

Problem {"problem": "State the final answer … 47 + 38 - 12 =", "answer": "73", …}
-> lighteval's Doc(query="State the final answer …", choices=["73"], specific={"problem": …})
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.errors import InputError, RecipeError, first_line
from hubkit.evaluation.sampled import Sampled, of_metric
from hubkit.records import PROBLEM_SCHEMA
from hubkit.verifiers import verify_problem

__all__ = [
    "TaskFacts",
    "Tasks",
    "built_in",
    "check_words",
    "contained",
    "describe",
    "only",
    "own_task",
    "questions",
    "reading",
]

METRIC: Final = "accuracy"
_GRADED: Final = (
    "F1_score",
    "ROUGE",
    "BertScore",
    "Extractiveness",
    "Faithfulness",
    "BLEURT",
    "BLEU",
    "StringDistance",
)
"""Metrics of lighteval (0.13.0, metrics_sample) with values between wrong and right."""


@dataclass(frozen=True)
class TaskFacts:
    """What a task of lighteval reads and how it asks, as far as that is known without its dataset."""

    task: str
    """name|number of examples"""
    dataset: str
    config: str
    splits: tuple[str, ...]
    revision: str
    """Commit of the dataset that lighteval itself pins; "" if it takes the newest."""
    samples: int
    """Answers to each problem."""
    examples: str
    """Split that examples in the prompt come from; "" if there is no other split than the evaluated one."""

    @property
    def name(self) -> str:
        return self.task.partition("|")[0]


@dataclass(frozen=True)
class Tasks:
    """Tasks for lighteval's registry, and the scores of each answer if there are several per problem."""

    table: list[Any]
    sampled: Sampled | None = None


def own_task(name: str, folder: Path, max_tokens: int, samples: int = 1) -> Tasks:
    """The task for problems.parquet in a folder."""
    import numpy as np
    from lighteval.metrics.metrics_sample import SampleLevelComputation
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.tasks.lighteval_task import LightevalTaskConfig
    from lighteval.tasks.requests import Doc, SamplingMethod

    def judge(doc: Any, text: str) -> tuple[float, str | None]:
        """By the verifier that the problem names, on the text after the thinking span."""
        verdict = verify_problem(json.loads(doc.specific["problem"]), text)
        return float(verdict.correct), verdict.answer or None

    class Judge(SampleLevelComputation):  # type: ignore[misc,unused-ignore]
        def compute(self, doc: Any, model_response: Any, **_: Any) -> float:
            return judge(doc, model_response.final_text[0])[0]

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
    sampled = Sampled(samples, judge) if samples > 1 else None
    config = LightevalTaskConfig(
        name=name,
        prompt_function=prompt,
        hf_repo=str(folder),
        hf_subset="default",
        hf_avail_splits=["train"],
        evaluation_splits=["train"],
        generation_size=max_tokens,
        metrics=[sampled.metric() if sampled else metric],
    )
    return Tasks([config], sampled)


def built_in(task: str, max_tokens: int, revision: str = "", samples: int = 1) -> Tasks:
    """Returns the task of lighteval such as gsm8k|0, with answers of at most max_tokens.

    `revision` is the commit of its dataset; "" leaves what the task itself says, mostly the newest.
    Raises RecipeError for a task that lighteval does not have, or that cannot be scored here (`describe`).
    """
    config = _config(task)
    _check_scored(task, config)
    # A copy: the next student may be asked for other lengths in this process, and pass@k without a number of answers
    # remembers that of its first.
    values = {"generation_size": max_tokens, "metrics": copy.deepcopy(config.metrics)}
    sampled = None
    if max(samples, _samples(values["metrics"])) > 1:
        sampled = of_metric(samples, values["metrics"][0])
        values["metrics"] = (sampled.metric(),)
    if revision:
        values["hf_revision"] = revision
    return Tasks([dataclasses.replace(config, **values)], sampled)


def describe(task: str) -> TaskFacts:
    """Returns what a task of lighteval reads. Imports lighteval, which takes 10 to 20 s once per process.

    Raises RecipeError for a task that lighteval does not have, one that stands for several, and one that cannot be
    scored here, with the reason: log-likelihoods, judges, scores of a whole set.
    """
    from lighteval.tasks.lighteval_task import LightevalTask

    config = _config(task)
    _check_scored(task, config)
    whole = LightevalTask(dataclasses.replace(config, metrics=copy.deepcopy(config.metrics)))
    return TaskFacts(
        task=task,
        dataset=config.hf_repo,
        config=config.hf_subset,
        splits=tuple(config.evaluation_splits),
        revision=config.hf_revision or "",
        samples=_samples(config.metrics),
        examples=whole.fewshot_split or "",
    )


def _config(task: str) -> Any:
    """lighteval's own configuration of one task."""
    name, bar, shots = task.partition("|")
    if not bar or not shots.isdecimal():
        raise RecipeError(f"{task!r} is not a lighteval task", "write name|number of examples: gsm8k|0")
    module, path = _module_of(name)
    if "JudgeLLM" in path.read_text(encoding="utf-8"):
        raise _judged(task)  # importing it would ask the network for the judge
    try:
        source = importlib.import_module(module)
    except Exception as error:
        # Some tasks of lighteval 0.13.0 need packages that it does not require, or an older huggingface_hub.
        line = first_line(error)
        raise RecipeError(
            f"lighteval cannot load {task!r} here: {type(error).__name__}: {line}", "choose another task"
        ) from error
    found = {c.name: c for c in source.TASKS_TABLE if c.name == name or c.name.startswith(f"{name}:")}
    if name in found:
        return found[name]
    if not found:
        raise _unknown(name)
    names = [f"{n}|{shots}" for n in found]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise RecipeError(
        f"{task!r} is {len(names)} tasks of lighteval",
        f"give each its own benchmark, the model is loaded once for all: {shown}",
    )


def _samples(metrics: Iterable[Any]) -> int:
    """Answers to each problem that lighteval would ask for."""
    from lighteval.metrics.metrics_sample import SamplingMetric

    functions = [metric.sample_level_fn for metric in metrics]
    return max([1, *(f.num_samples() or 1 for f in functions if isinstance(f, SamplingMetric))])


def _check_scored(task: str, config: Any) -> None:
    """Raise RecipeError if a metric of a task does not score generated answers as right or wrong.

    Of several metrics the first is the main one; the others may score answers as partly right.
    """
    import numpy as np
    from lighteval.metrics import metrics_sample
    from lighteval.metrics.metrics_sample import JudgeLLM, SampleLevelComputation
    from lighteval.tasks.requests import SamplingMethod

    for metric in config.metrics:
        name = metric.metric_name if isinstance(metric.metric_name, str) else metric.metric_name[0]
        if metric.category != SamplingMethod.GENERATIVE:
            raise RecipeError(
                f"{task!r} is scored by log-likelihoods ({name}), which engines that write answers do not give",
                "choose a task that models answer in words, such as gpqa:diamond for gpqa:mc",
            )
        if isinstance(metric.sample_level_fn, JudgeLLM) or metric.batched_compute:
            raise _judged(task)
        if not isinstance(metric.sample_level_fn, SampleLevelComputation):
            raise RecipeError(
                f"{task!r} is scored over all its answers at once ({name}), and not problem by problem",
                "choose a task whose answers are right or wrong",
            )
    main = config.metrics[0]
    name = main.metric_name if isinstance(main.metric_name, str) else main.metric_name[0]
    if isinstance(main.sample_level_fn, tuple(getattr(metrics_sample, graded) for graded in _GRADED)):
        raise RecipeError(
            f"{task!r} is scored by likeness ({name}), which finds answers partly right",
            "choose a task whose answers are right or wrong",
        )
    overall = main.corpus_level_fn
    overall = next(iter(overall.values())) if isinstance(overall, dict) else overall
    if overall is not np.mean:
        raise RecipeError(
            f"{task!r} does not score by the mean over its problems ({name})",
            "choose a task whose score is the share of right answers",
        )


@contextmanager
def only(tasks: Tasks) -> Iterator[None]:
    """Let lighteval's registry know these tasks and no others.

    Its own loader (lighteval 0.13.0, Registry.load_all_task_configs) imports every built-in task; one of
    them reaches the network at import, and another calls what huggingface_hub 2 has removed.
    """
    from lighteval.tasks.registry import Registry

    def load(custom_tasks: Any = None, load_multilingual: bool = False) -> dict[str, Any]:
        return {config.name: config for config in tasks.table}

    original = Registry.load_all_task_configs
    Registry.load_all_task_configs = staticmethod(load)
    try:
        yield
    finally:
        Registry.load_all_task_configs = staticmethod(original)


def questions(task: str, cache: Path, revision: str = "") -> list[str]:
    """What a lighteval task such as gsm8k|0 asks: its prompts, in the order of its dataset.

    Raises RecipeError for a task that lighteval does not have, InputError when its dataset cannot be had.
    """
    with contained(cache):
        from lighteval.tasks.registry import Registry

        module = built_in(task, 1, revision)
        with only(module):
            tasks = Registry(task).load_tasks()
        with reading(task):
            docs = [doc for name in sorted(tasks) for doc in tasks[name].eval_docs()]
        check_words(task, docs)
        return [doc.query for doc in docs]


def check_words(task: str, docs: Iterable[Any]) -> None:
    """Raise RecipeError for a task with pictures: engines get only the text, and would guess."""
    if any(doc.images for doc in docs):
        raise RecipeError(f"{task!r} asks about pictures", "choose a task in words")


@contextmanager
def reading(task: str) -> Iterator[None]:
    """Raise InputError if the problems of a task, or the examples in its prompts, cannot be loaded."""
    from httpx2 import HTTPError

    try:
        yield
    except (HTTPError, OSError, ValueError, KeyError) as error:
        # datasets and huggingface_hub raise these, or their kinds
        line = first_line(error, 300)
        if line.startswith("Sample larger than population"):
            raise InputError(
                f"{task} asks for more examples in its prompt than its dataset has",
                "write a smaller number after |",
            ) from error
        raise InputError(
            f"the problems of {task} cannot be loaded: {line}",
            "check that its dataset exists, and ask for access if it is gated",
        ) from error


@contextmanager
def contained(cache: Path) -> Iterator[None]:
    """Undo lighteval's side effects on leaving: importing it turns gradients off for the whole process, which may
    train the next student, and it logs every stage and shows its own progress bars. Files that datasets converts go
    to `cache`, which is removed with the step."""
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


def _judged(task: str) -> RecipeError:
    return RecipeError(
        f"{task!r} is scored by a language model over the network",
        "choose a task whose answers are compared with known ones",
    )


def _module_of(task: str) -> tuple[str, Path]:
    """Returns the lighteval module that defines a task, and its file, by searching the source without importing it."""
    import lighteval.tasks

    folder = Path(lighteval.tasks.__file__).parent / "tasks"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/main.py")]):
        text = path.read_text(encoding="utf-8")
        if f'name="{task}"' in text or f'name="{task}:' in text:
            return "lighteval.tasks." + ".".join(path.relative_to(folder.parent).with_suffix("").parts), path
    raise _unknown(task)


def _unknown(name: str) -> RecipeError:
    if "@" in name:
        return RecipeError(
            f"{name!r} sets a metric's parameters",
            f"write {name.partition('@')[0]}|0, and `samples: 4` beside it",
        )
    return RecipeError(
        f"lighteval has no task {name!r}", "its names are in `lighteval tasks list`; write name|0"
    )

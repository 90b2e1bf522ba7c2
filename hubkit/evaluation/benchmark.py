"""A recipe's benchmark: what students are evaluated on."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import Field, model_validator

from hubkit.errors import GateError, InputError, first_line
from hubkit.section import Name, Sampling, Section

__all__ = ["Benchmark", "check_level", "level_named", "task_name"]


class Benchmark(Section):
    """What students are evaluated on: the recipe's own held-out problems, or a task that lighteval knows."""

    LATER: ClassVar[frozenset[str]] = frozenset({"leaderboard", "samples"})

    name: Name
    problems: Name | None = None
    """A set under `problems`."""
    task: str | None = None
    """A lighteval task such as gsm8k|0."""
    sampling: Sampling
    samples: int = Field(default=0, ge=0, le=1024)
    """Answers to each problem. With several, accuracy is the mean over all, with pass@k and maj@k beside it.
    0: as many as the lighteval task takes, and one for a set of problems."""
    leaderboard: str = ""
    """For a task: the benchmark dataset whose leaderboard gets the results, as org/name#task. Empty: the dataset that
    the task reads, if it has an eval.yaml."""

    @model_validator(mode="after")
    def _one_source(self) -> Benchmark:
        if (self.problems is None) == (self.task is None):
            raise ValueError("give either `problems` (a set of this recipe) or `task` (a lighteval task)")
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"{self.samples} greedy answers to a problem are all the same: give `sampling` a temperature"
            )
        if self.leaderboard and not self.task:
            raise ValueError(
                "`leaderboard` is for a `task`: problems of this recipe have a board of their own"
            )
        if self.leaderboard and not re.fullmatch(r"[\w.-]+/[\w.-]+#[^#]+", self.leaderboard):
            raise ValueError(f"{self.leaderboard!r} is not a leaderboard: write org/name#task")
        return self


def task_name(task: str) -> str:
    """Returns a valid name for a benchmark of a task: gsm8k for gsm8k|0, sums for org/name#sums."""
    last = task.rpartition("#")[2].partition("|")[0]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.")[:39].rstrip("-.") or "task"


def level_named(text: str) -> dict[str, str]:
    """Returns the level of effort for an evaluation's configuration, from reasoning_effort=low. Empty for "".

    Raises InputError for any other text.
    """
    if not text:
        return {}
    match = re.fullmatch(r"([a-z][a-z0-9_]{0,38})=([A-Za-z0-9][\w.-]{0,38})", text)
    if match is None:
        raise InputError(f"{text[:80]!r} is no level", "write VARIABLE=VALUE, such as reasoning_effort=low")
    return {"variable": match[1], "value": match[2]}


def check_level(tokenizer: Any, level: dict[str, str]) -> None:
    """Raise GateError if the chat template does not show the model its level of effort."""
    if not level:
        return
    chat = [{"role": "user", "content": "What is 40 + 45?"}]
    variable, value = level["variable"], level["value"]

    def prompt(given: str) -> str:
        return str(
            tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False, **{variable: given}
            )
        )

    try:
        with_level = prompt(value)
    except Exception as error:  # whatever a stranger's template raises
        told = first_line(error)
        raise GateError(
            f"the chat template fails at {variable} {value}: {told}", "choose a level that it knows"
        ) from None
    try:
        alike = prompt(f"no-{value}") == with_level
    except Exception:  # it knows its levels
        alike = False
    if alike:
        raise GateError(
            f"the chat template does not tell the model its level: {variable} {value} changes nothing in the prompt",
            "name the variable that its template reads, or leave the level out",
        )

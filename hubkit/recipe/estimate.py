"""What a step will cost: tokens, seconds, bytes. For `hubkit recipe plan`, and to check the disk first.

Best known: an earlier record of the same step on this machine. Else the recipe's limits, which bound
tokens from above, and one CPU thread's rates; for models of unknown size or on a GPU the time stays open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hubkit.hub import PUSHES
from hubkit.recipe.pipeline import State
from hubkit.recipe.plan import Plan, Step
from hubkit.records import count_rows
from hubkit.store import Record, Store
from hubkit.traces.answers import Answers
from hubkit.traces.compressors import Compressor
from hubkit.traces.journal import request_hash
from hubkit.traces.origins import Origin
from hubkit.traces.variants import VARIANTS

__all__ = ["Answered", "Estimate", "answered", "estimate_all"]

TRAIN_FLOPS: Final = 4e10
"""One CPU thread, of 6 x parameters per token; a 0.5M-parameter model through TRL reached 4.2e10."""
GENERATE_FLOPS: Final = 1e10
"""One CPU thread, of 2 x parameters per token, batched; small models are bound by overhead instead."""
BYTES_PER_TOKEN: Final = 8
"""Of a published row: text at about 4 bytes a token, twice (`reasoning` and `messages`)."""
TOKENIZE: Final = 100_000
"""Tokens a second of a variant on one core; 60,000 to 330,000 were measured, with the gates of training."""
TOKEN_BYTES: Final = 4.3
"""Of a token in its Arrow file, with keys and spans."""
TASK_ROWS: Final = 1000
"""Questions of a lighteval task, whose dataset is not asked before the run."""
UPLOAD: Final = 30e6
"""Bytes a second that are sent to the Hub: what a line of 250 Mbit carries."""
REPO_S: Final = 6.0
"""Seconds that a repo takes besides its bytes: it is created, committed, tagged and put into the collection."""
LOOKED_AT: Final = 10_000
"""Requests of which `answered` looks for the answers: half a second's worth."""


@dataclass(frozen=True)
class Estimate:
    """None where it cannot be known before the run."""

    tokens: int | None
    seconds: float | None
    bytes: int | None
    source: str
    """record, earlier run, or limits."""

    def cells(self) -> tuple[str, str, str]:
        """For the plan's table."""
        seconds = "?" if self.seconds is None else f"{self.seconds:.1f}"
        return _short(self.tokens), seconds, _short(self.bytes)


def _short(number: int | None) -> str:
    if number is None:
        return "-"
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.0f}{unit}" if unit == "" or number >= 100 else f"{number:.1f}{unit}"
        number /= 1000  # type: ignore[assignment]
    return f"{number:.1f}T"


def estimate_all(plan: Plan, store: Store, states: list[State]) -> dict[str, Estimate]:
    """Step name -> Estimate, for every step of the plan."""
    result = {}
    # A file is counted once, and only if a step needs to know.
    count = functools.cache(lambda name: plan.recipe.problems[name].count(plan.pins[name]))
    for state in states:
        earlier = store.records(state.step.name)
        if state.record:
            result[state.step.name] = _of_record(state.record, "record")
        elif earlier:
            result[state.step.name] = _of_record(earlier[0], "earlier run")
        elif state.step.kind == "publish" and plan.recipe.hub.endpoint != "local":
            result[state.step.name] = _of_publish(state.step, result)  # the last step: all others are known
        else:
            result[state.step.name] = _of_limits(plan, state.step, count)
    return result


class Answered(NamedTuple):
    """How many of a step's requests were answered before."""

    number: int
    exact: bool
    """Whether all requests were looked at; otherwise it follows from some of them."""

    def __str__(self) -> str:
        return f"{'' if self.exact else 'about '}{self.number:,} answers are there"


def answered(plan: Plan, store: Store, states: list[State]) -> dict[str, Answered]:
    """Step name -> how many of its requests were answered before, for the steps that can run now.

    Of a compressor's requests those of the first attempt: which need another is not known before. Where there are more
    than LOOKED_AT requests in all, some of each step's are looked at.
    """
    done = {state.step.name: state.record for state in states if state.record}
    found: list[tuple[Step, str, Path, int]] = []
    for state in states:
        for model, source in (("teacher", "problems"), ("compressor", "raw")):
            step = state.step
            if state.state == "ready" and model in step.models and "engine" in step.runtime:
                folder = store.folder(step.inputs[source], done[step.inputs[source]].key)
                found.append((step, model, folder, _asked(step, model, folder)))
    most = LOOKED_AT // max(1, len(found)) if sum(number for *_, number in found) > LOOKED_AT else None
    result: dict[str, Answered] = {}
    for step, model, folder, number in found:
        answers = Answers(store.root, plan.models[step.models[model]].digest)
        if not answers.any():
            continue
        requests = list(step.module.requests_of(step.config, folder, most))
        had = answers.count(request_hash(request) for _, request in requests)
        if had:
            share = had / len(requests)
            exact = len(requests) == number
            result[step.name] = Answered(had if exact else round(share * number), exact)
    return result


def _asked(step: Step, model: str, folder: Path) -> int:
    """Requests of a step, before any second attempt."""
    index, shards = step.config["shard"]
    if model == "teacher":
        rows = count_rows(folder / "problems.parquet")
        return len(range(index, rows, shards)) * int(step.config["samples"])
    return len(range(index, count_rows(folder / "data.parquet"), shards))


def _of_record(record: Record, source: str) -> Estimate:
    names = ("completion_tokens", "train_tokens", "output_tokens", "reasoning_tokens")
    tokens = next((int(record.metrics[name]) for name in names if name in record.metrics), None)
    if judged := record.metrics.get("judge_completion_tokens"):
        tokens = int(judged) + (tokens or 0)
    return Estimate(tokens, record.seconds, sum(entry.size for entry in record.files), source)


def _of_limits(plan: Plan, step: Step, count: Callable[[str], int | None]) -> Estimate:
    recipe, config = plan.recipe, step.config
    problems = recipe.train_on if recipe.teachers else None
    if step.kind == "problems":
        problems = step.name.split("/")[1]
    if step.kind == "evaluation":
        problems = config["benchmark"]["problems"]
    number = count(problems) if problems else TASK_ROWS
    if number is None:
        return Estimate(None, None, None, "limits")
    held = [_held(plan, origin, count) for origin in recipe.origins()]
    if None in held:
        return Estimate(None, None, None, "limits")
    rows = max(n or 0 for n in held)
    if recipe.select and recipe.select.rows and step.kind not in ("traces", "judge", "raw"):
        rows = min(rows, recipe.select.rows)
    match step.kind:
        case "problems":
            return Estimate(None, 3, number * 500, "limits")
        case "traces" | "judge" | "compress":
            asked = rows // config["shard"][1]
            parts = []
            for own, makers in (("teacher", recipe.origins()), ("compressor", recipe.compressors)):
                if own in step.models:
                    maker = next(maker for maker in makers if maker.name == config[own])
                    if (longest := maker.longest()) is None:
                        parts.append(Estimate(None, None, None, "limits"))
                    else:
                        raw = max(origin.longest() for origin in recipe.origins())
                        texts = maker.requests(raw) if isinstance(maker, Compressor) else 1
                        parts.append(_generation(plan, step, own, asked * texts * longest))
            if judge := config.get("judge"):
                parts.append(_generation(plan, step, "judge", asked * judge["sampling"]["max_tokens"]))
            return _sum(parts)
        case "student":
            trained = recipe.students.methods[config["method"]].tokens(rows)
            size = _parameters(plan, step.models["base"])
            known = trained is not None and size and recipe.run.device in ("auto", "cpu")
            seconds = 6 * size * (trained or 0) / TRAIN_FLOPS if known else None
            return Estimate(trained, seconds, size * 4 if size else None, "limits")
        case "evaluation":
            asked = number * max(1, config["benchmark"].get("samples", 1))
            return _generation(plan, step, "base", asked * config["benchmark"]["sampling"]["max_tokens"])
        case "tokens":
            tokens = rows * max((t.longest() or 0) for t in recipe.origins())
            return Estimate(tokens, 1 + tokens / TOKENIZE, int(tokens * TOKEN_BYTES), "limits")
        case "rows":
            return Estimate(None, 1 + rows / 50_000, rows * 40, "limits")
        case kind if kind in ("verify", "selected", "control") or kind in VARIANTS:
            rows //= config.get("shard", (0, 1))[1]
            limit = max(t.longest() for t in recipe.origins())
            return Estimate(None, rows / 500, rows * limit * BYTES_PER_TOKEN, "limits")
        case _:
            return Estimate(None, 5, 1_000_000, "limits")


def _held(plan: Plan, origin: Origin, count: Callable[[str], int | None]) -> int | None:
    """Traces of an origin at most. Returns None where the source cannot say how many rows it has."""
    own = origin.brings_problems
    rows = origin.held(plan.pins[f"traces/{origin.name}"]) if own else count(plan.recipe.train_on)
    return None if rows is None else origin.count(rows)


def _generation(plan: Plan, step: Step, model: str, tokens: int) -> Estimate:
    size = _parameters(plan, step.models[model])
    engine = step.runtime["judge_engine" if model == "judge" else "engine"]
    known = (
        size and plan.recipe.run.device in ("auto", "cpu") and engine["engine"] in ("auto", "transformers")
    )
    return Estimate(
        tokens,
        2 * size * tokens / GENERATE_FLOPS if size and known else None,
        tokens * BYTES_PER_TOKEN,
        "limits",
    )


def _of_publish(step: Step, known: dict[str, Estimate]) -> Estimate:
    """What is sent, at UPLOAD bytes a second and REPO_S for each of the repos, PUSHES at a time. Sizes of students
    whose bases are on the Hub are not known before, and are left out."""
    sent = ("problems", "student", "evaluation", *VARIANTS)
    inputs = [of for of in step.inputs.values() if of.partition("/")[0] in sent]
    parts = [known[of] for of in inputs if of in known]  # of a run that goes on, the steps that are left
    repos = sum(of.partition("/")[0] in ("student", "raw") for of in step.inputs.values()) + 3
    size = sum(part.bytes or 0 for part in parts)
    return Estimate(None, size / UPLOAD + repos * REPO_S / PUSHES, size, "limits")


def _sum(parts: list[Estimate]) -> Estimate:
    """Of models that work one after the other in one step; the time is open where that of one is."""
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Estimate(
        sum(part.tokens or 0 for part in parts),
        sum(seconds) if len(seconds) == len(parts) else None,
        sum(part.bytes or 0 for part in parts),
        "limits",
    )


def _parameters(plan: Plan, name: str) -> int:
    """Of a local model, from its files at 2 bytes each; 0 when it is still on the Hub."""
    folder = Path(plan.models[name].model)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) // 2 if folder.is_dir() else 0

"""Rows and tokens that go through each step of a plan: counted for finished steps, else bounded by the recipe's limits.

traces/t/0 is done, with 70,752 answers of 608,723,082 tokens; compress/t/c/0 is to come, with at most 6,144 for each
-> {"traces/t/0": Flow(given=Amount(70752, None, True), made=Amount(70752, 608723082, True)),
    "compress/t/c/0": Flow(given=Amount(63580, 530488897, True), made=Amount(63580, 390635520, False)), …}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from hubkit.problems.hub import split_held
from hubkit.recipe.graph import Plan, Step
from hubkit.store import Record, digest
from hubkit.traces.origins.base import Origin
from hubkit.traces.variants import VARIANTS

__all__ = ["Amount", "Flow", "flows", "rows_of"]

LEAST_BYTES: Final = 2
"""Minimum bytes of a token of existing traces, if their source states only bytes: most tokenizers have four in English,
and half of that with many numbers and symbols."""

PROMPT_TOKENS: Final = 125
"""Tokens of a problem including the chat template's, if no teacher has counted them yet."""

_WITHOUT_TOKENS: Final = ("problems", "judge", "matched", "rows", "student", "evaluation")
"""Kinds of steps whose rows have no texts that a later step reads."""

Look = Callable[[str, str, Callable[[], Any]], Any]
"""The function that `pins.recall` returns: (name, commit, how to look it up) -> the value, looked up now or before."""


@dataclass(frozen=True)
class Amount:
    rows: int
    tokens: int | None = None
    """Tokens of all rows together; None where nobody counts them, as in problems."""
    counted: bool = False
    """Whether it was counted by finished steps; otherwise it is an upper bound, by sources and the recipe's limits."""

    def part(self, rows: int) -> Amount:
        """Returns the amount of this many rows of the mean length."""
        tokens = None if self.tokens is None else round(self.tokens * rows / max(1, self.rows))
        return replace(self, rows=rows, tokens=tokens)


class Flow(NamedTuple):
    """Input and output of one step. None if unknown before the run, or if there are no rows."""

    given: Amount | None
    """None also if the step is done."""
    made: Amount | None


def flows(plan: Plan, done: Mapping[str, Record], look: Look) -> dict[str, Flow]:
    """Returns step name -> input and output, for all steps. `done`: the records of the finished steps."""
    found: dict[str, Flow] = {}
    for step in plan.steps:
        record = done.get(step.name)
        made = _counted(record) if record else None
        if record and (made is None or made.tokens is not None or step.kind in _WITHOUT_TOKENS):
            found[step.name] = Flow(None, made)
            continue
        given = _given(plan, step, {name: found[of].made for name, of in step.inputs.items()}, look)
        if (
            step.kind in ("tokens", "tokenise")
            and "data" in step.inputs
            and given
            and given.tokens is not None
        ):
            given = replace(given, tokens=given.tokens + round(given.rows * _prompt(step, done.values())))
        most = given and _at_most(plan, step, given, look)
        # Tokens that a record does not tell are as many a row as they would be without it.
        found[step.name] = Flow(given, most.part(made.rows) if made and most else made or most)
    return found


def rows_of(record: Record) -> int | None:
    """Returns the number of input rows of a finished step: those that it kept and those that it dropped."""
    if record.kind == "student":
        return int(record.metrics["train_rows"]) if "train_rows" in record.metrics else None
    if record.kind == "evaluation" and "problems" in record.counts:
        return record.counts["problems"] * _samples(record.config)
    kept = record.counts.get("kept", record.counts.get("traces"))
    dropped = sum(number for name, number in record.counts.items() if name.startswith("dropped_"))
    return None if kept is None else kept + dropped


def _samples(config: Mapping[str, Any]) -> int:
    return max(1, int(config["benchmark"].get("samples", 1)))


def _given(plan: Plan, step: Step, into: Mapping[str, Amount | None], look: Look) -> Amount | None:
    shards = step.config.get("shard", (0, 1))[1]
    match step.kind:
        case "problems":
            return _source(plan, step.name.partition("/")[2], look)
        case "traces":
            return _asked(plan, step, into.get("problems"), look)
        case "evaluation":
            problems = into["problems"] if "problems" in into else _questions(plan, step, look)
            return problems and replace(problems, rows=problems.rows * _samples(step.config))
        case "student":
            forms = [amount for name, amount in into.items() if name.startswith("tokens")]
            rows, whole = into["rows"], _sum(forms)
            # Of rows in several forms an epoch takes one form each.
            return rows and whole and replace(whole.part(rows.rows), counted=rows.counted and whole.counted)
        case "matched":
            parts = [amount for amount in into.values() if amount]
            return min(parts, key=lambda amount: amount.rows) if parts and len(parts) == len(into) else None
    if any(name.startswith("shard-") for name in into):
        return _sum([amount for name, amount in into.items() if name.startswith("shard-")])
    matched = step.kind == "control" or (step.kind in VARIANTS and VARIANTS[step.kind].matched)
    of = {"judge": "traces", "selected": "raw", "compress": "raw", "rows": "matched"} | dict.fromkeys(
        ("tokens", "tokenise"), "data"
    )
    amount = into.get("compressed" if matched else of.get(step.kind, ""))
    # What a judge is given is a shard already.
    return amount and (amount if step.kind == "judge" else amount.part(amount.rows // shards))


def _prompt(step: Step, done: Iterable[Record]) -> float:
    """Tokens of a prompt, with the chat template's, as the teacher counted them."""
    teacher = step.config["teacher"]
    told = [
        r
        for r in done
        if r.kind == "traces" and r.config["teacher"] == teacher and "prompt_tokens" in r.metrics
    ]
    asked = sum(record.counts.get("traces", 0) for record in told)
    return sum(record.metrics["prompt_tokens"] for record in told) / asked if asked else PROMPT_TOKENS


def _source(plan: Plan, name: str, look: Look) -> Amount | None:
    source, pin = plan.recipe.problems[name], plan.pins[name]
    about = digest(source.model_dump(mode="json"))[:16]
    rows = look(f"rows/problems/{about}", pin.revision, lambda: source.count(pin))
    return None if rows is None else Amount(rows)


def _asked(plan: Plan, step: Step, problems: Amount | None, look: Look) -> Amount | None:
    """Answers that a step asks for, or rows of existing traces."""
    origin = _origin(plan, step)
    if not origin.brings_problems:
        return problems and replace(problems, rows=origin.count(problems.rows) // origin.shards)
    held = _held(plan, origin, look)[0]
    return None if held is None else Amount(origin.count(held))


def _origin(plan: Plan, step: Step) -> Origin:
    return next(origin for origin in plan.recipe.origins() if origin.name == step.config["teacher"])


def _held(plan: Plan, origin: Origin, look: Look) -> tuple[int | None, int | None]:
    """Rows of existing traces in their source, and bytes of their texts."""
    pin = plan.pins[f"traces/{origin.name}"]
    about = digest([origin.name, origin.identity()])[:16]
    rows, size = look(
        f"held/traces/{about}",
        pin.revision,
        lambda: found if (found := (origin.held(pin), origin.held_bytes(pin))) != (None, None) else None,
    ) or (None, None)
    return rows, size


def _questions(plan: Plan, step: Step, look: Look) -> Amount | None:
    """Of a lighteval task."""
    facts = plan.tasks[step.config["benchmark"]["name"]]
    commit = plan.models[step.models["benchmark"]].revision
    held = [
        look(
            f"rows/{facts.dataset}/{facts.config}/{split}",
            commit,
            lambda split=split: split_held(facts.dataset, commit, facts.config, split).rows,  # type: ignore[misc]
        )
        for split in facts.splits
    ]
    return Amount(sum(held)) if held and None not in held else None


def _sum(parts: Sequence[Amount | None]) -> Amount | None:
    there = [part for part in parts if part]
    if not there or len(there) < len(parts):
        return None
    tokens = [part.tokens for part in there if part.tokens is not None]
    return Amount(
        sum(part.rows for part in there),
        sum(tokens) if len(tokens) == len(there) else None,
        all(part.counted for part in there),
    )


def _counted(record: Record) -> Amount | None:
    """Returns the output amount in a finished step's record."""
    rows = record.counts.get("kept", record.counts.get("traces"))
    if rows is None:
        return None
    told = record.metrics
    # A compressor's answers are reasoning, and its record counts the tokens of solutions alone.
    tokens = told.get("tokens", told.get("reasoning_tokens", told.get("completion_tokens")))
    return Amount(rows, None if tokens is None else int(tokens + told.get("solution_tokens", 0)), True)


def _at_most(plan: Plan, step: Step, given: Amount, look: Look) -> Amount | None:
    """Returns the largest output that a step can make from its input."""
    recipe = plan.recipe
    match step.kind:
        case "traces":
            origin = _origin(plan, step)
            tokens = given.rows * origin.longest()
            if origin.brings_problems:
                rows, size = _held(plan, origin, look)
                if rows and size is not None:
                    tokens = min(tokens, size * given.rows // rows // LEAST_BYTES)
            return Amount(given.rows, tokens)
        case "compress":
            compressor = next(c for c in recipe.compressors if c.name == step.config["compressor"])
            if (longest := compressor.longest()) is None or given.tokens is None:
                return replace(given, counted=False)
            texts = compressor.requests(given.tokens // max(1, given.rows))
            return Amount(given.rows, min(given.tokens, given.rows * texts * longest))
        case "selected" if recipe.select:
            kept = given.part(min(given.rows, recipe.select.rows or given.rows))
            if recipe.select.tokens and kept.tokens is not None:
                kept = replace(kept, tokens=min(kept.tokens, recipe.select.tokens))
            return replace(kept, counted=False)
        case "evaluation" | "student":
            return None
        case _:
            return given

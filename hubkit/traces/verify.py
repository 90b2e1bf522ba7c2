"""Verification: is a trace's answer right?

    Trace {"reasoning": "47 + 38: ones …", "solution": "The answer is \\\\boxed{85}.", …} with the problem's
    answer "85" gets Verdict("correct", "85", "equal to the answer"), and becomes a row of `raw`; all
    others go to `rejected` with a reason that is counted.

Doubtful cases, settled here once:
- Only the text after the thinking span is judged; a trace whose span never closed has no solution.
- The last \\boxed{…} counts where there is one, even if another answer stands in the text.
- "1,000" equals "1000"; "50%" equals "50" only as math-verify says so; units are not stripped.
- An answer key that cannot be read is an error of the problem set, never a correct trace
  (open-r1's reward function counts it as correct).
- math-verify's own limits (5 s by SIGALRM) need the main thread of a process, so call it there.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from hubkit.errors import GateError, InputError
from hubkit.records import REJECTED_SCHEMA, VARIANT_SCHEMAS, messages_of, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.statistics import count_tokens, length_metrics

__all__ = ["VERSION", "Verdict", "boxed", "run", "verify"]

VERSION: Final = 1
_PLAIN_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


class Verdict(NamedTuple):
    """A verifier's judgement: what it saw as the answer, and why it judged so."""

    status: Literal["correct", "wrong", "unparseable", "timeout"]
    extracted: str
    reason: str


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{…} with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def verify(problem: Mapping[str, Any], text: str) -> Verdict:
    """Judge the answer in `text` against a problem's, by the verifier that the problem names.

    Raises InputError for an unknown verifier or an answer key that cannot be read.
    """
    answer = str(problem["answer"]).strip()
    found = boxed(text)
    if found is not None and _plain(found) == _plain(answer):
        return Verdict("correct", found.strip(), "equal to the answer")
    match problem["verifier"]:
        case "exact":
            extracted = found if found is not None else text
            status: Literal["correct", "wrong"] = (
                "correct" if _plain(extracted) == _plain(answer) else "wrong"
            )
            return Verdict(status, extracted.strip()[:200], "compared as text")
        case "reasoning-gym":
            return _reasoning_gym(problem, text if found is None else found)
        case "math":
            return _math(answer, text if found is None else f"\\boxed{{{found}}}")
        case other:
            raise InputError(f"no verifier is called {other!r}", "use math, exact or reasoning-gym")


def _plain(text: str) -> str:
    text = text.strip().strip("$").strip()
    joined = text.replace(",", "")
    return joined if _PLAIN_NUMBER.fullmatch(joined) else text


def _math(answer: str, text: str) -> Verdict:
    import math_verify

    gold = _gold(answer)
    # Extraction alone is tried first, so that "found nothing" and "found something wrong" stay apart.
    try:
        guess = math_verify.parse(text, raise_on_error=True)
    except math_verify.errors.TimeoutException:
        return Verdict("timeout", "", "math-verify ran out of time")
    except Exception as error:  # sympy raises all sorts on hostile input
        return Verdict("unparseable", "", f"math-verify: {type(error).__name__}")
    if not guess:
        return Verdict("unparseable", "", "no answer found in the text")
    shown = str(guess[-1])[:200]
    try:
        right = math_verify.verify(list(gold), guess, raise_on_error=True)
    except math_verify.errors.TimeoutException:
        return Verdict("timeout", shown, "math-verify ran out of time")
    except Exception as error:
        return Verdict("unparseable", shown, f"math-verify: {type(error).__name__}")
    return (
        Verdict("correct", shown, "equal by math-verify") if right else Verdict("wrong", shown, "not equal")
    )


@functools.lru_cache(maxsize=4096)
def _gold(answer: str) -> tuple[Any, ...]:
    import math_verify

    _self_test()
    gold = math_verify.parse(answer) or math_verify.parse(f"${answer}$")
    if not gold:
        raise InputError(f"the answer {answer[:80]!r} cannot be read as mathematics", "use `verifier: exact`")
    return tuple(gold)


@functools.cache
def _self_test() -> None:
    """math-verify returns False for everything off the main thread: say so instead of dropping all."""
    import math_verify

    if not math_verify.verify(math_verify.parse("\\boxed{1/2}"), math_verify.parse("0.5")):
        raise InputError(
            "math-verify does not work in this process", "verify on the main thread of a process"
        )


def _reasoning_gym(problem: Mapping[str, Any], answer: str) -> Verdict:
    scorer, entry = _scorer(problem["source"]), json.loads(problem["metadata"])
    extracted = answer.strip()
    try:
        score = float(scorer(extracted, entry))
    except Exception as error:  # scorers parse free text each in their own way
        return Verdict("unparseable", extracted[:200], f"scorer: {type(error).__name__}")
    if score == 1.0:
        return Verdict("correct", extracted[:200], "full score by reasoning-gym")
    if not extracted:
        return Verdict("unparseable", "", "no answer found in the text")
    return Verdict("wrong", extracted[:200], f"reasoning-gym score {score:g}")


@functools.lru_cache(maxsize=64)
def _scorer(source: str) -> Any:
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(source.split("/")[-1])


def run(context: StepContext) -> None:
    """Write data.parquet with the correct traces, and rejected.parquet with the rest and their reasons."""
    problems = {row["id"]: row for row in read_rows(context.inputs["problems"] / "problems.parquet")}
    shards = sorted((n for n in context.inputs if n.startswith("shard-")), key=lambda n: int(n[6:]))
    total = sum(context.record(name).counts.get("traces", 0) for name in shards)
    kept: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    rows = (row for name in shards for row in read_rows(context.inputs[name] / "traces.parquet"))
    for number, trace in enumerate(rows, 1):
        reason, detail = _judge(problems[trace["id"]], trace)
        if reason == "correct":
            kept.append(trace)
        else:
            text = trace["reasoning"] + trace["solution"]
            rejected.append({**trace, "reason": reason, "detail": detail, "text": text})
        context.count("kept" if reason == "correct" else f"dropped_{reason}")
        context.progress(number, max(total, number), kept=len(kept))
    if not kept:
        reasons = ", ".join(f"{name} {n}" for name, n in sorted(context.counts.items()))
        raise GateError(
            f"{context.step}: not one trace is correct ({reasons})",
            "look at the teacher's sampling, its max_tokens and the verifier of the problems",
        )
    data = list(_variant_rows(kept, problems, context))
    write_rows(context.out / "data.parquet", data, VARIANT_SCHEMAS["raw"])
    write_rows(context.out / "rejected.parquet", rejected, REJECTED_SCHEMA)
    context.metrics.update(length_metrics(data))


def _judge(problem: Mapping[str, Any], trace: Mapping[str, Any]) -> tuple[str, str]:
    if trace["error"]:
        return "error", trace["error"]
    if trace["finish_reason"] == "length":
        return "length", "cut at max_tokens"
    if trace["thinking"] in ("none", "unclosed") or not trace["reasoning"].strip():
        return "no_thinking", f"thinking span: {trace['thinking']}"
    if not trace["solution"].strip():
        return "no_solution", "nothing after the thinking span"
    verdict = verify(problem, trace["solution"])
    return verdict.status, verdict.reason


def _variant_rows(
    traces: list[dict[str, Any]], problems: dict[str, dict[str, Any]], context: StepContext
) -> Iterator[dict[str, Any]]:
    tokens = count_tokens(context.model("tokenizer"), [trace["reasoning"] for trace in traces])
    for trace, reasoning_tokens in zip(traces, tokens, strict=True):
        problem = problems[trace["id"]]
        chars = len(trace["reasoning"])
        yield {
            **{name: problem[name] for name in ("id", "source", "problem", "answer", "verifier")},
            **{name: trace[name] for name in ("reasoning", "solution", "teacher", "sample", "finish_reason")},
            "messages": messages_of(problem["problem"], trace["reasoning"], trace["solution"]),
            "correct": True,
            "reasoning_chars": chars,
            "reasoning_tokens": reasoning_tokens,
            "raw_reasoning_chars": chars,
            "raw_reasoning_tokens": reasoning_tokens,
            "ratio": 1.0,
        }

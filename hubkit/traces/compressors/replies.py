"""Requests to a language model about a trace, and its replies.

{"problem": "47 + 38 = ?", "reasoning": "I need to work out 47 + 38. …", …} and a prompt with {problem} and {reasoning}
-> Request("[\"x\", 0, 0]", [{"role": "user", "content": "Shorten …"}], …)  ->  Reply("47 + 38 = 85.\n\\boxed{85}", …)

With `chunk_tokens` there is a request for each part of a trace, which contains the shortened parts before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hubkit.engines import Request, Response
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.compressors.writing import ASKED_COLUMNS, Row, raw_rows
from hubkit.traces.journal import Journal, Key, request_hash, request_seed
from hubkit.traces.lengths import load_tokenizer
from hubkit.traces.steps import chunks
from hubkit.traces.thinking import inert, split

__all__ = [
    "Refusal",
    "Reply",
    "asked_columns",
    "asked_rows",
    "fill",
    "first_requests",
    "parts_of",
    "reasoning_and_solution",
    "reply_of",
    "request_of",
    "request_of_part",
    "strip_answer",
]

RETRY_TEMPERATURE: Final = 0.7
"""Further attempts are sampled: a greedy reply would be the same again."""
_PLACEHOLDER: Final = re.compile(r"\{(problem|reasoning|solution|words|before|part|parts)\}")
_SOLUTION_LINE: Final = re.compile(r"^[\s#*_]*solution[\s#*_:]*$", re.IGNORECASE | re.MULTILINE)
_ANSWER_LINE: Final = re.compile(r"\s*[^\n\w]*\\boxed\{[^\n]*\}[.$*\s]*$")

Refusal = tuple[str, str]
"""(counted category, one line for people)."""


class Reply(NamedTuple):
    """A model's reply to a whole trace in one attempt."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    refusal: Refusal | None
    """Why it is incomplete."""


def first_requests(
    config: dict[str, Any], raw: Path, most: int | None = None
) -> Iterator[tuple[Key, Request]]:
    """Yield the first requests of a step with this configuration to the output of a raw step, without second attempts:
    all, or about `most`.

    Yields nothing if traces are asked about in parts, which depend on the tokenizer.
    """
    if not config.get("chunk_tokens"):
        yield from (request_of(config, row, 0) for row in asked_rows(config, raw, most))


def asked_rows(config: dict[str, Any], raw: Path, most: int | None = None) -> Iterator[Row]:
    """Yield this shard's raw rows, with only the columns of a request."""
    return raw_rows(config, raw, asked_columns(config), most)


def asked_columns(config: dict[str, Any]) -> list[str]:
    """Those of which requests are made."""
    return ASKED_COLUMNS + (["solution"] if config.get("solution") == "shorten" else [])


def request_of_part(
    context: StepContext, journal: Journal, row: Row, attempt: int, number: int
) -> tuple[Key, Request] | None:
    """Returns the request about the `number`-th part of a trace, from 0. Returns None if there is no such part, or
    if one before it failed."""
    parts = parts_of(context, row)
    if number >= len(parts):
        return None
    responses = _responses(context.config, journal, row, attempt, parts[:number], len(parts))
    if any(response.unfinished for response in responses):
        return None
    return request_of(context.config, row, attempt, number, parts[number], len(parts), _joined(responses))


def parts_of(context: StepContext, row: Row) -> list[str]:
    """Returns the parts of a trace that are asked about one after the other; without `chunk_tokens`, the whole."""
    limit = context.config.get("chunk_tokens")
    if not limit:
        return [row["reasoning"]]
    return chunks(load_tokenizer(context.model("tokenizer")), row["reasoning"], limit)


def _responses(
    config: dict[str, Any], journal: Journal, row: Row, attempt: int, parts: list[str], of: int
) -> list[Response]:
    """The responses to the first parts of `of`, as far as they go: none was asked for after one that is not whole."""
    responses: list[Response] = []
    for number, part in enumerate(parts):
        key, request = request_of(config, row, attempt, number, part, of, _joined(responses))
        response = journal.get(key, request_hash(request))
        assert response is not None, f"{key} was answered"
        responses.append(response)
        if response.unfinished:
            break
    return responses


def _joined(responses: list[Response]) -> str:
    """The shortened parts so far."""
    return "\n\n".join(filter(None, (strip_answer(_text(response)) for response in responses)))


def request_of(
    config: dict[str, Any],
    row: Row,
    attempt: int,
    number: int = 0,
    part: str | None = None,
    parts: int = 1,
    before: str = "",
) -> tuple[Key, Request]:
    sampling = Sampling(**config["sampling"])
    if attempt and sampling.temperature < RETRY_TEMPERATURE:
        sampling = sampling.model_copy(update={"temperature": RETRY_TEMPERATURE})
    key = Key(row["id"], row["sample"], attempt + number * config["attempts"])
    values = {"problem": row["problem"], "reasoning": row["reasoning"] if part is None else part}
    if shorten := config.get("solution") == "shorten":
        values["solution"] = row["solution"]
    if "chunk_tokens" in config:
        values |= {"before": before, "part": str(number + 1), "parts": str(parts)}
    if ratio := config.get("ratio"):
        text = values["reasoning"] + (f" {row['solution']}" if shorten else "")
        values["words"] = str(max(1, round(ratio * len(text.split()))))
    messages = [{"role": "user", "content": fill(config["prompt"], values)}]
    return key, Request(key.text, messages, sampling, request_seed(config["seed"], key))


def fill(prompt: str, values: dict[str, str]) -> str:
    """Fill placeholders in one literal pass: {problem} inside a trace is not replaced, and other braces stay."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), prompt)


def reply_of(context: StepContext, journal: Journal, row: Row, attempt: int) -> Reply:
    """Returns the replies to all parts of a trace, as one text."""
    parts = parts_of(context, row)
    responses = _responses(context.config, journal, row, attempt, parts, len(parts))
    last, refusal = responses[-1], None
    if last.finish_reason == "error":
        refusal = "error", last.error
    elif why := last.unfinished:
        refusal = ("length" if last.finish_reason == "length" else "unfinished"), why
    return Reply(
        "\n\n".join(filter(None, (_joined(responses[:-1]), _text(last)))),
        sum(response.prompt_tokens for response in responses),
        sum(response.completion_tokens for response in responses),
        refusal,
    )


def reasoning_and_solution(text: str) -> tuple[str, str]:
    """Returns (reasoning, solution) of a reply with a line `Solution:` between them; else two empty texts."""
    line = _SOLUTION_LINE.search(text)
    parts = (text[: line.start()].strip(), text[line.end() :].strip()) if line else ("", "")
    return parts if all(parts) else ("", "")


def _text(response: Response) -> str:
    """Returns the text after the compressor's own thinking, without think tags; the whole text if it is incomplete."""
    if response.unfinished:
        return response.text
    return inert(split(response.text, response.reasoning).solution)


def strip_answer(text: str) -> str:
    """Returns a compressor's text without a last line that only boxes the answer."""
    head, _, last = text.strip().rpartition("\n")
    return head.strip() if _ANSWER_LINE.fullmatch(last) else text.strip()

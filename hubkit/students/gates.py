"""Checks before training: each stops a run that would train silently on something worthless.

All of these have happened to people: loss on nothing because truncation took every trainable token,
a student that never ends because the end token was outside the loss, a chat template that drops the
thinking span that the student was to learn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubkit.errors import GateError
from hubkit.records import messages_of

__all__ = [
    "Example",
    "check_base",
    "check_examples",
    "check_template",
    "encode",
    "end_tokens",
    "open_tokenizer",
]

REMEDY_TEMPLATE = "use a chat template that writes assistant content as it is"


@dataclass(frozen=True)
class Example:
    """One chat as training sees it, before any cut."""

    input_ids: list[int]
    trainable: list[bool]
    """True where the loss counts: the assistant's tokens, end of turn included."""


def open_tokenizer(folder: Path, chat_template: str = "") -> Any:
    """The tokenizer of a base, with another chat template where one is given."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if chat_template:
        tokenizer.chat_template = chat_template
    if not tokenizer.chat_template:
        raise GateError(
            "the tokenizer has no chat template", "give a file with one: students.bases.<n>.chat_template"
        )
    return tokenizer


def end_tokens(folder: Path, tokenizer: Any) -> set[int]:
    """What ends a turn: the tokenizer's eos, and those of generation_config.json."""
    ends = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id", [])
        ends |= set(named if isinstance(named, list) else [named])
    return ends - {None}


def check_base(folder: Path, chat_template: str = "", system: str = "") -> None:
    """What the gates would say of a base's chat template when training begins, said before: no weights needed."""
    from jinja2 import TemplateError

    head = [{"role": "system", "content": system}] if system else []
    messages = head + messages_of("What is 40 + 45?", "40 + 45 = 85.", "The answer is 85.")
    try:
        tokenizer = open_tokenizer(folder, chat_template)
        check_template(tokenizer, messages)
        example = encode(tokenizer, messages)
    except TemplateError as error:
        raise GateError(
            f"the chat template fails: {error}", "mend it, or give another: students.bases.<n>.chat_template"
        ) from error
    check_examples([example], end_tokens(folder, tokenizer), len(example.input_ids), 0.0)


def encode(tokenizer: Any, messages: Sequence[dict[str, str]]) -> Example:
    """Tokens of a chat and which of them are the assistant's.

    From the template's {% generation %} markers where it has them; otherwise all that the last answer
    adds to the prompt, which must then be a prefix of the whole.
    """
    if "{% generation" in tokenizer.chat_template or "{%- generation" in tokenizer.chat_template:
        encoded = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return Example(list(encoded["input_ids"]), [bool(bit) for bit in encoded["assistant_masks"]])
    whole = tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(
        list(messages[:-1]), tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"]
    if whole[: len(prompt)] != prompt:
        raise GateError(
            "the chat template gives a prompt that its full chat does not begin with",
            "add {% generation %} markers around the assistant's content in the template",
        )
    return Example(list(whole), [place >= len(prompt) for place in range(len(whole))])


def check_template(tokenizer: Any, messages: Sequence[dict[str, str]]) -> None:
    """The rendered chat holds the assistant's content to the letter, thinking span and all."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False)
    content = messages[-1]["content"].strip()
    if content not in text:
        raise GateError("the chat template rewrites the thinking span of the answers", REMEDY_TEMPLATE)
    ids = tokenizer(content, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(ids, skip_special_tokens=True).strip() != content:
        raise GateError("the tokenizer does not give the answers back as they were", "use another tokenizer")


def check_examples(
    examples: Sequence[Example], end_tokens: set[int], max_length: int, max_cut_share: float
) -> float:
    """Raise GateError where training would be worthless; returns the share of examples cut by max_length."""
    if not examples:
        raise GateError("there is nothing to train on", "look at the counts of dropped traces")
    for number, example in enumerate(examples):
        trained = {
            token for token, counts in zip(example.input_ids, example.trainable, strict=True) if counts
        }
        if not trained & end_tokens:
            raise GateError(
                f"row {number}: the end-of-turn token is not in the loss, so the student would never stop",
                "put it inside the template's {% generation %} block, and name it as eos_token",
            )
    lost = sum(not any(example.trainable[:max_length]) for example in examples)
    if lost:
        raise GateError(
            f"max_length {max_length} leaves no trainable token in {lost} of {len(examples)} rows",
            "raise max_length",
        )
    share = sum(len(example.input_ids) > max_length for example in examples) / len(examples)
    if share > max_cut_share:
        raise GateError(
            f"max_length {max_length} cuts {share:.1%} of the rows, more than max_cut_share {max_cut_share:.1%}",
            f"raise max_length (the longest row has {max(len(e.input_ids) for e in examples)} tokens)",
        )
    return share

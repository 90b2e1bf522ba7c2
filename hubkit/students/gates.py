"""Checks before training: each stops a run that would train silently on something worthless.

All of these have happened to people: loss on nothing because truncation took every trainable token,
a student that never ends because the end token was outside the loss, a chat template that drops the
thinking span that the student was to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubkit.errors import GateError

__all__ = ["Example", "check_examples", "check_template", "encode"]

REMEDY_TEMPLATE = "use a chat template that writes assistant content as it is"


@dataclass(frozen=True)
class Example:
    """One chat as training sees it, before any cut."""

    input_ids: list[int]
    trainable: list[bool]
    """True where the loss counts: the assistant's tokens, end of turn included."""


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

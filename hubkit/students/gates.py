"""Checks of training data: a chat becomes tokens, or the reason why training on it would be silently worthless.

    [{"role": "user", …}, {"role": "assistant", "content": "<think>\\n…\\n</think>\\n\\nThe answer is 85."}]
    -> Example(input_ids=[151644, …], trained=[31, 148])      or      Failure("no_end_of_turn", "")

All of these happen in practice: a chat template that drops the thinking span that the student should learn, a student
that never ends because the end token was outside the loss, a problem that quotes `<|im_end|>` and so ends the turn in
its middle, a tokenizer that normalises text that the verifier compares.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.engines.weights import has_text_class, no_code, read_config
from hubkit.errors import GateError, first_line
from hubkit.records import messages_of
from hubkit.traces.lengths import plain_backend

__all__ = [
    "REASONS",
    "Encoder",
    "Example",
    "Failure",
    "check_base",
    "check_cut",
    "gate_error",
    "level_of",
    "open_tokenizer",
]

REASONS: Final = {
    "template_fails": (
        "the chat template fails",
        "fix it, or give another: students.bases.<n>.chat_template",
    ),
    "template_rewrites": (
        "the chat template rewrites the thinking span of the answers, or other text",
        "use a chat template that writes content as it is: students.bases.<n>.chat_template",
    ),
    "prompt_is_no_prefix": (
        "the chat template gives a prompt that its full chat does not begin with",
        "add {% generation %} markers around the assistant's content in the template",
    ),
    "no_end_of_turn": (
        "the end-of-turn token is not in the loss, so the student would never stop",
        "put it inside the template's {% generation %} block, and name it as eos_token",
    ),
    "tokenizer_rewrites": (
        "the tokenizer does not give the text back as it was",
        "use another base, or let such rows be dropped: students.max_dropped_share",
    ),
    "control_tokens": (
        "a text spells one of the tokenizer's control tokens, which would be one in training",
        "let such rows be dropped: students.max_dropped_share",
    ),
    "outside_embedding": (
        "the tokenizer gives ids that the model has no embedding for",
        "use the tokenizer that belongs to the model, or resize the embeddings of the base",
    ),
    "levels_alike": (
        "the chat template does not show the model its level of effort",
        "give a template that writes it into the prompt, such as {{ reasoning_effort }} in its system turn: "
        "students.bases.<n>.chat_template, with the mixture's `variable`",
    ),
}
"""Reason why a row is not trained on -> what is wrong, and the remedy if all rows have it."""

THINKING: Final = ("<think>", "</think>")
"""The tags that `messages_of` writes around the reasoning."""
PLAIN: Final = messages_of("x", "x", "x")
"""A chat without any control token in its texts."""


@dataclass(frozen=True)
class Example:
    """The tokens of one chat for training, before any cut."""

    input_ids: list[int]
    trained: list[int]
    """Positions of trained tokens, which are the assistant's with the end of turn: start, end, start, end, …"""


@dataclass(frozen=True)
class Failure:
    """Why a chat is not trained on."""

    reason: str
    """A key of REASONS."""
    detail: str = ""


def open_tokenizer(folder: Path, chat_template: str = "") -> Any:
    """Returns the tokenizer of a base, with the given chat template if there is one."""
    from transformers import AutoTokenizer

    no_code()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if chat_template:
        tokenizer.chat_template = chat_template
    if not tokenizer.chat_template:
        raise GateError(
            "the tokenizer has no chat template", "give a file with one: students.bases.<n>.chat_template"
        )
    return tokenizer


class Encoder:
    """Turns chats into tokens, with the tokenizer, chat template and end tokens of a base.

    `variables` are given to the template: {"reasoning_effort": "low"}.
    """

    def __init__(
        self, folder: Path, chat_template: str = "", variables: Mapping[str, str] | None = None
    ) -> None:
        self.tokenizer = open_tokenizer(folder, chat_template)
        self._render = functools.partial(self.tokenizer.apply_chat_template, **(variables or {}))
        self.ends = _end_tokens(folder, self.tokenizer)
        self.embedding = embedding_rows(folder)
        added = self.tokenizer.added_tokens_decoder
        # Models that think have tokens for the span, which some of them call special.
        self.control = {
            number
            for number, token in added.items()
            if token.special and token.content.strip() not in THINKING
        } | {number for number in self.tokenizer.all_special_ids if number not in added}
        template = self.tokenizer.chat_template
        self._expected: dict[tuple[str, ...], Counter[int]] = {}
        self.marked = isinstance(template, str) and (
            "{% generation" in template or "{%- generation" in template
        )

    def encode(self, messages: Sequence[dict[str, str]]) -> Example | Failure:
        """Returns the tokens of a chat, and which of them are the assistant's.

        The template's {% generation %} markers say which, if it has them. Otherwise they are what the last answer adds
        to the prompt, which must then be a prefix of the whole.
        """
        from jinja2 import TemplateError

        try:
            text = self._render(list(messages), tokenize=False)
            example = self._tokens(messages, text)
            expected = self._control_of(messages)
        except TemplateError as error:
            return Failure("template_fails", first_line(error))
        if any(message["content"].strip() not in text for message in messages):
            return Failure("template_rewrites")
        if example is None:
            return Failure("prompt_is_no_prefix")
        spelt = Counter(token for token in example.input_ids if token in self.control) - expected
        if spelt:
            return Failure(
                "control_tokens", ", ".join(map(str, self.tokenizer.convert_ids_to_tokens(list(spelt))))
            )
        if max(example.input_ids) >= self.embedding:
            return Failure(
                "outside_embedding",
                f"id {max(example.input_ids)}, and the embedding has {self.embedding} rows",
            )
        starts, ends = example.trained[::2], example.trained[1::2]
        if not any(
            token in self.ends
            for start, end in zip(starts, ends, strict=True)
            for token in example.input_ids[start:end]
        ):
            return Failure("no_end_of_turn")
        decoded = self.tokenizer.decode(example.input_ids, clean_up_tokenization_spaces=False)
        if any(message["content"].strip() not in decoded for message in messages):
            return Failure("tokenizer_rewrites")
        return example

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Returns the tokens with which an engine asks for an answer to these messages."""
        encoded = self._render(list(messages), tokenize=True, return_dict=True, add_generation_prompt=True)
        return list(encoded["input_ids"])

    def _tokens(self, messages: Sequence[dict[str, str]], text: str) -> Example | None:
        """`text` is the whole chat."""
        if self.marked:
            encoded = self._render(
                list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            return Example(list(encoded["input_ids"]), _spans(encoded["assistant_masks"]))
        if self.tokenizer.is_fast:
            # What apply_chat_template does, without the places of all tokens in the text: a quarter less time.
            (encoding,) = plain_backend(self.tokenizer).encode_batch_fast([text], add_special_tokens=False)
            whole = encoding.ids
        else:
            whole = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        prompt = self.prompt(messages[:-1])
        if whole[: len(prompt)] != prompt:
            return None
        return Example(whole, [len(prompt), len(whole)])

    def _control_of(self, messages: Sequence[dict[str, str]]) -> Counter[int]:
        """Returns the control tokens that the template itself writes into a chat with these roles."""
        roles = tuple(message["role"] for message in messages)
        if roles not in self._expected:
            chat = [
                {"role": role, "content": PLAIN[1]["content"] if role == "assistant" else "x"}
                for role in roles
            ]
            ids = self._render(chat, tokenize=True, return_dict=True)["input_ids"]
            self._expected[roles] = Counter(token for token in ids if token in self.control)
        return self._expected[roles]


def check_base(
    folder: Path, chat_template: str = "", system: str = "", variable: str = "", levels: Sequence[str] = ()
) -> None:
    """Raise GateError if no chat with this base could pass. It is called before anything is made, and needs no weights.

    `levels` are the values of `variable` that a mixture gives to the template: the text before the answer must differ
    between every two of them, in training and when an answer is asked for.
    """
    if not has_text_class(folder):
        raise GateError(
            "transformers has no class of it for text alone, which training needs",
            "choose another base, or save its language model as one of its own",
        )
    head = [{"role": "system", "content": system}] if system else []
    chat = [*head, *messages_of("What is 40 + 45?", "40 + 45 = 85.", "The answer is 85.")]
    seen: dict[tuple[str | int, ...], str] = {}
    for level in levels or [""]:
        encoder = Encoder(folder, chat_template, {variable: level} if level else None)
        example = encoder.encode(chat)
        if isinstance(example, Failure):
            raise gate_error(example)
        if not level:
            continue
        for where, prompt in (
            ("in training", example.input_ids[: example.trained[0]]),
            ("when an answer is asked for", encoder.prompt(chat[:-1])),
        ):
            if other := seen.get((where, *prompt)):
                alike = f"{variable} {other} and {level} give the same prompt {where}"
                raise gate_error(Failure("levels_alike", alike))
            seen[where, *prompt] = level
    if len(encoder.tokenizer) > encoder.embedding:
        raise gate_error(
            Failure(
                "outside_embedding",
                f"{len(encoder.tokenizer)} tokens, and the embedding has {encoder.embedding} rows",
            )
        )


def level_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the template variables in a step's configuration: {"reasoning_effort": "low"}, or {}."""
    level = config.get("level")
    return {level["variable"]: level["value"]} if level else {}


def gate_error(failure: Failure) -> GateError:
    """Returns the error for a failure that stops a run."""
    message, remedy = REASONS[failure.reason]
    return GateError(f"{message}: {failure.detail}" if failure.detail else message, remedy)


def check_cut(lengths: Sequence[int], starts: Sequence[int], max_length: int, max_cut_share: float) -> float:
    """Returns the share of rows that max_length cuts. Raises GateError if it is too large or no trained token is left.

    `starts` are the first trained positions of the rows.
    """
    lost = sum(start >= max_length for start in starts)
    if lost:
        raise GateError(
            f"max_length {max_length} leaves no trainable token in {lost} of {len(starts)} rows",
            "raise max_length",
        )
    share = sum(length > max_length for length in lengths) / len(lengths)
    if share > max_cut_share:
        raise GateError(
            f"max_length {max_length} cuts {share:.1%} of the rows, more than max_cut_share {max_cut_share:.1%}",
            f"raise max_length (the longest row has {max(lengths)} tokens)",
        )
    return share


def embedding_rows(folder: Path) -> int:
    """Returns the number of rows of a model's token embedding, by its config.json."""
    return int(read_config(folder).get_text_config().vocab_size)


def _end_tokens(folder: Path, tokenizer: Any) -> set[int]:
    """Returns the tokens that end a turn: the tokenizer's eos, and those of generation_config.json."""
    ends = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id", [])
        ends |= set(named if isinstance(named, list) else [named])
    ends -= {None}
    if strange := [end for end in ends if type(end) is not int]:
        raise ValueError(f"generation_config.json has an end token that is no id: {strange[0]!r}")
    return ends


def _spans(mask: Sequence[int]) -> list[int]:
    spans: list[int] = []
    before = 0
    for place, bit in enumerate(mask):
        if bool(bit) != bool(before):
            spans.append(place)
        before = bit
    return [*spans, len(mask)] if before else spans

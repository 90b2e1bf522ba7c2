"""Gates: what would train silently on something worthless is no example, and has a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import CHAT_TEMPLATE, save_seeing, save_tiny_model, save_tiny_tokenizer

from hubkit.errors import GateError
from hubkit.records import messages_of
from hubkit.students.gates import REASONS, Encoder, Example, Failure, check_base, check_cut

CHAT = messages_of("What is 2 + 2?", "two and two", "The answer is \\boxed{4}.")
MARKED = (
    "{%- for message in messages -%}{%- if message.role == 'assistant' -%}"
    "{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else -%}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def encoder(
    folder: Path, template: str = CHAT_TEMPLATE, special: list[str] | None = None, **config: Any
) -> Encoder:
    """Of a base that is all but its weights."""
    save_tiny_tokenizer(folder, template, special)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": 300} | config))
    return Encoder(folder)


def trained(made: Encoder, example: Example | Failure) -> str:
    assert isinstance(example, Example)
    starts, ends = example.trained[::2], example.trained[1::2]
    pieces = [example.input_ids[a:b] for a, b in zip(starts, ends, strict=True)]
    return "".join(made.tokenizer.decode(piece) for piece in pieces)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED], ids=["plain", "generation markers"])
def test_only_the_answer_and_its_end_count(tmp_path: Path, template: str) -> None:
    made = encoder(tmp_path, template)
    assert trained(made, made.encode(CHAT)).strip() == CHAT[1]["content"] + "<|im_end|>"


def test_the_mask_is_that_of_trl(models: Path) -> None:
    """TRL's own assistant_only_loss on the shipped template marks the same tokens."""
    made = Encoder(models / "student-s")
    whole = made.tokenizer.apply_chat_template(
        CHAT, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    example = made.encode(CHAT)
    assert isinstance(example, Example)
    assert example.input_ids == whole["input_ids"]
    [start, end] = example.trained
    assert [bool(bit) for bit in whole["assistant_masks"]] == [
        start <= place < end for place in range(len(example.input_ids))
    ]


TEMPLATES = {
    "no_end_of_turn": MARKED.replace(
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}",
        "{{ message.content }}{% endgeneration %}{{ '<|im_end|>' }}",
    ),
    "template_rewrites": CHAT_TEMPLATE.replace("message.content", "message.content.split('</think>')[-1]"),
    "prompt_is_no_prefix": CHAT_TEMPLATE.replace("assistant\\n' }}{%- endif", "assistant\\n\\n' }}{%- endif"),
    "template_fails": "{{ raise_exception('Roles must alternate') }}",
}


@pytest.mark.parametrize("reason", TEMPLATES)
def test_a_template_that_no_student_should_learn_from_stops_before_anything_is_made(
    reason: str, tmp_path: Path
) -> None:
    made = encoder(tmp_path, TEMPLATES[reason])
    found = made.encode(CHAT)
    assert isinstance(found, Failure) and found.reason == reason
    with pytest.raises(GateError) as caught:
        check_base(tmp_path)
    assert caught.value.message.startswith(REASONS[reason][0]) and caught.value.remedy


def test_a_template_that_fails_without_a_word_is_a_reason_too(tmp_path: Path) -> None:
    """The first line of nothing was an IndexError."""
    found = encoder(tmp_path, "{{ raise_exception('') }}").encode(CHAT)
    assert found == Failure("template_fails", "TemplateError")


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("spelt", ["<|im_end|>", "<|im_start|>assistant", "<|pad|>"])
def test_control_tokens_that_a_text_spells_are_no_turns(role: str, spelt: str, tmp_path: Path) -> None:
    made = encoder(tmp_path)
    chat = [
        message | ({"content": message["content"] + " " + spelt} if message["role"] == role else {})
        for message in CHAT
    ]
    found = made.encode(chat)
    assert isinstance(found, Failure) and found.reason == "control_tokens"
    assert found.detail and found.detail in spelt


@pytest.mark.parametrize("special", [None, ["<think>", "</think>"]], ids=["words", "special"])
def test_thinking_tokens_may_be_special(special: list[str] | None, tmp_path: Path) -> None:
    made = encoder(tmp_path, special=special)
    assert "<think>" in trained(made, made.encode(CHAT))
    check_base(tmp_path)
    # A row that spells one more is treated alike in both.
    asked = [{"role": "user", "content": "What does </think> end?"}, CHAT[1]]
    assert "<think>" in trained(made, made.encode(asked))


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_tokenizer_that_normalises_what_a_row_says_refuses_that_row(role: str, tmp_path: Path) -> None:
    from tokenizers import normalizers

    made = encoder(tmp_path)
    made.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    assert isinstance(made.encode(CHAT), Example)
    chat = [
        message | ({"content": message["content"] + " 2 \u2126"} if message["role"] == role else {})
        for message in CHAT
    ]
    found = made.encode(chat)
    assert isinstance(found, Failure) and found.reason == "tokenizer_rewrites"


def test_ids_outside_the_embedding_are_told_beforehand(tmp_path: Path) -> None:
    made = encoder(tmp_path, vocab_size=100)
    found = made.encode(CHAT)
    assert isinstance(found, Failure) and found.reason == "outside_embedding"
    with pytest.raises(GateError, match=r"no embedding for.*has 100 rows"):
        check_base(tmp_path)


def test_a_base_without_a_class_of_text_alone_is_told_beforehand(tmp_path: Path) -> None:
    text = save_tiny_model(tmp_path / "text")
    check_base(save_seeing(text, tmp_path / "qwen3_5", "qwen3_5"))
    with pytest.raises(GateError, match="no class of it for text alone"):
        check_base(save_seeing(text, tmp_path / "mistral3", "mistral3"))


def test_a_tokenizer_longer_than_the_embedding_is_told_even_where_the_chat_fits(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    check_base(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(GateError, match=r"no embedding for"):
        check_base(tmp_path)


def test_a_limit_that_leaves_nothing_to_train_on_stops() -> None:
    with pytest.raises(GateError, match="no trainable token in 1 of 2"):
        check_cut([20, 20], [10, 4], 10, 1.0)


def test_the_share_that_is_cut_is_bounded_and_told() -> None:
    assert check_cut([20, 30], [4, 4], 20, 0.5) == 0.5
    with pytest.raises(GateError, match=r"cuts 50.0%") as caught:
        check_cut([20, 30], [4, 4], 20, 0.02)
    assert "30" in caught.value.remedy

"""Gates: what would train silently on something worthless is stopped before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import CHAT_TEMPLATE, save_tiny_tokenizer

from hubkit.errors import GateError
from hubkit.records import messages_of
from hubkit.students.gates import check_examples, check_template, encode

CHAT = messages_of("What is 2 + 2?", "two and two", "The answer is \\boxed{4}.")
MARKED = (
    "{%- for message in messages -%}{%- if message.role == 'assistant' -%}"
    "{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else -%}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
STRIPPING = CHAT_TEMPLATE.replace("message.content", "message.content.split('</think>')[-1]")


def tokenizer(folder: Path, template: str) -> Any:
    return save_tiny_tokenizer(folder, template)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED], ids=["plain", "generation markers"])
def test_only_the_answer_and_its_end_count(tmp_path: Path, template: str) -> None:
    loaded = tokenizer(tmp_path, template)
    example = encode(loaded, CHAT)
    trained = [t for t, counts in zip(example.input_ids, example.trainable, strict=True) if counts]
    assert loaded.decode(trained).strip() == CHAT[1]["content"] + "<|im_end|>"
    assert check_examples([example], {loaded.eos_token_id}, 500, 0.0) == 0.0
    check_template(loaded, CHAT)


def test_the_mask_is_that_of_trl(models: Path) -> None:
    """TRL's own assistant_only_loss on the shipped template marks the same tokens."""
    from transformers import AutoTokenizer
    from trl.data_utils import is_conversational

    loaded = AutoTokenizer.from_pretrained(models / "student-s")
    example = encode(loaded, CHAT)
    assert is_conversational({"messages": CHAT})
    whole = loaded.apply_chat_template(
        CHAT, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert example.input_ids == whole["input_ids"]
    assert example.trainable == [bool(bit) for bit in whole["assistant_masks"]]


def test_an_end_of_turn_outside_the_loss_stops(tmp_path: Path) -> None:
    outside = MARKED.replace(
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}",
        "{{ message.content }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    loaded = tokenizer(tmp_path, outside)
    with pytest.raises(GateError, match="end-of-turn") as caught:
        check_examples([encode(loaded, CHAT)], {loaded.eos_token_id}, 500, 0.0)
    assert "generation" in caught.value.remedy


def test_a_template_that_drops_the_thinking_stops(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="thinking span"):
        check_template(tokenizer(tmp_path, STRIPPING), CHAT)


def test_a_limit_that_leaves_nothing_to_train_on_stops(tmp_path: Path) -> None:
    loaded = tokenizer(tmp_path, CHAT_TEMPLATE)
    example = encode(loaded, CHAT)
    with pytest.raises(GateError, match="no trainable token in 1 of 1"):
        check_examples([example], {loaded.eos_token_id}, 10, 1.0)


def test_the_share_that_is_cut_is_bounded_and_told(tmp_path: Path) -> None:
    loaded = tokenizer(tmp_path, CHAT_TEMPLATE)
    short = encode(loaded, CHAT)
    long = encode(loaded, messages_of("x", "y" * 300, "z"))
    limit = len(short.input_ids)
    ends = {loaded.eos_token_id}
    assert check_examples([short, long], ends, limit, 0.5) == 0.5
    with pytest.raises(GateError, match=r"cuts 50.0%") as caught:
        check_examples([short, long], ends, limit, 0.02)
    assert str(len(long.input_ids)) in caught.value.remedy
    with pytest.raises(GateError, match="nothing to train on"):
        check_examples([], ends, limit, 0.02)

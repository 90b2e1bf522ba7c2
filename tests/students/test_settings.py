"""A method's arguments are those of the installed TRL and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from students_support import LORA, context, uneven
from tiny_model import HYBRID, save_tiny_model

from hubkit.errors import RecipeError
from hubkit.students import student
from hubkit.students.adapters import uncovered
from hubkit.students.settings import LORA_SETS, METHODS, SFT_SETS, SftMethod, method_card

REQUIRED = {"learning_rate": 1e-3, "max_length": 64}


def method(sft: dict[str, Any] | None = None, lora: dict[str, Any] | None = None) -> SftMethod:
    return SftMethod.model_validate({"sft": REQUIRED | (sft or {})} | ({"lora": lora} if lora else {}))


def test_further_arguments_are_passed_on_and_written_only_where_they_are_given() -> None:
    plain = method(lora={"r": 8}).model_dump(mode="json")
    assert set(plain["sft"]) == {
        *("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("max_length", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "optim"),
        "gradient_checkpointing",
    }
    assert set(plain) == {"sft", "lora"} and set(plain["lora"]) == set(LORA) | {"lora_dropout", "use_rslora"}
    more = {"adam_beta2": 0.95, "gradient_checkpointing_kwargs": {"use_reentrant": False}, "loss_type": "dft"}
    lora = {"use_dora": True, "rank_pattern": {"q_proj": 4}, "modules_to_save": ["embed_tokens"]}
    written = method(more, lora).model_dump(mode="json")
    assert more.items() <= written["sft"].items() and lora.items() <= written["lora"].items()


@pytest.mark.parametrize(
    ("sft", "lora", "told"),
    [
        ({"adam_beta3": 0.9}, None, "no such argument; did you mean 'adam_beta"),
        ({"adam_beta2": "high"}, None, "sft.adam_beta2: Input should be a valid number"),
        ({"packing": True}, None, "not the recipe's to give: give run.layout"),
        ({"output_dir": "/etc"}, None, "not the recipe's to give: hubkit sets it"),
        ({"trust_remote_code": True}, None, "not the recipe's to give"),
        ({}, {"rank": 8}, "lora.rank: PEFT's LoraConfig has no such argument"),
        ({}, {"use_dora": "perhaps"}, "lora.use_dora: Input should be a valid boolean"),
        ({}, {"task_type": "SEQ_CLS"}, "lora.task_type is not the recipe's to give"),
    ],
)
def test_what_the_libraries_do_not_take_is_told(
    sft: dict[str, Any], lora: dict[str, Any] | None, told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        method(sft, lora)


def test_what_hubkit_sets_are_arguments_that_there_are() -> None:
    from peft import LoraConfig
    from trl import SFTConfig

    assert set(SFT_SETS) <= set(SFTConfig.__dataclass_fields__) | {"local_rank"}
    assert set(LORA_SETS) <= set(LoraConfig.__dataclass_fields__)


def test_a_card_says_adapter_by_the_method_not_by_its_name() -> None:
    assert set(METHODS) == {"sft"}
    full, lora = ({"method": "lora-like", "lora": None}, {"method": "cheap", "lora": {"r": 8}})
    assert (method_card(full).relation, method_card(full).library) == ("finetune", "transformers")
    assert (method_card(lora).relation, method_card(lora).tags) == ("adapter", ("lora", "trl", "sft"))


def test_layers_that_an_adapter_does_not_reach_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attention alone, on a model of which three layers in four are of another kind."""
    model = save_tiny_model(tmp_path / "base", "qwen3_5_text", **HYBRID)
    attention = LORA | {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    step = context(tmp_path / "some", uneven(), model=model, lora=attention)
    student.run(step)
    assert {"linear_attn.in_proj_qkv", "linear_attn.out_proj", "mlp.up_proj"} <= set(
        step.metrics["lora_without"]
    )
    assert "without an adapter: linear_attn.in_proj_a" in capsys.readouterr().err
    every = context(tmp_path / "all", uneven(), model=model, lora=LORA)
    student.run(every)
    assert "lora_without" not in every.metrics


def test_experts_are_layers_too(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    options = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    base = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path, "qwen3_moe", **options))
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert {"experts.gate_up_proj", "experts.down_proj"} <= set(uncovered(model))


def test_target_modules_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    step = context(tmp_path, uneven(), lora=LORA | {"target_modules": ["query"]})
    with pytest.raises(RecipeError, match=r"lora: Target modules .*query.* not found") as caught:
        student.run(step)
    assert "\n" not in str(caught.value)

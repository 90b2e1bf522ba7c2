"""A recipe's settings of training: TRL's and PEFT's arguments by their own names."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from hubkit.section import Section

__all__ = [
    "LORA_SETS",
    "METHODS",
    "SFT_SETS",
    "Lora",
    "Method",
    "MethodCard",
    "Sft",
    "SftMethod",
    "method_arguments",
    "method_card",
    "training_arguments",
]

_BY_HUBKIT: Final = "hubkit sets it"
SFT_SETS: Final[dict[str, str]] = {
    **dict.fromkeys(("seed", "data_seed", "full_determinism"), "give students.seeds"),
    **dict.fromkeys(
        ("use_cpu", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval"),
        "give run.device, run.precision or sft.bf16",
    ),
    **dict.fromkeys(("packing", "packing_strategy", "padding_free", "pad_to_multiple_of"), "give run.layout"),
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed", "accelerator_config", "parallelism_config", "local_rank"),
        "give run.accelerate",
    ),
    **dict.fromkeys(
        ("chat_template_path", "eos_token", "pad_token"), "give students.bases.<n>.chat_template"
    ),
    **dict.fromkeys(
        ("model_init_kwargs", "trust_remote_code"), "the base and run.attention say how it is loaded"
    ),
    **dict.fromkeys(
        """
        output_dir resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint
        save_strategy save_steps save_total_limit save_only_model save_on_each_node enable_jit_checkpoint
        load_best_model_at_end metric_for_best_model greater_is_better logging_strategy logging_steps
        logging_first_step log_on_each_node log_level log_level_replica disable_tqdm report_to run_name
        project debug label_names trackio_space_id trackio_bucket_id trackio_static_space_id
        skip_memory_metrics eval_strategy eval_steps eval_delay per_device_eval_batch_size
        prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object
        eval_accumulation_steps include_for_metrics batch_eval_metrics eval_packing
        include_num_input_tokens_seen push_to_hub hub_token hub_private_repo hub_model_id hub_strategy
        hub_always_push hub_revision do_train do_eval do_predict remove_unused_columns use_cache
        dataset_text_field dataset_kwargs dataset_num_proc shuffle_dataset truncation_mode
        completion_only_loss assistant_only_loss length_column_name auto_find_batch_size
        average_tokens_across_devices dataloader_drop_last dataloader_in_order ddp_find_unused_parameters
        ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
        logging_nan_inf_filter
        """.split(),  # noqa: SIM905
        _BY_HUBKIT,
    ),
}
"""Arguments of SFTConfig that a recipe does not give, and why."""
LORA_SETS: Final = dict.fromkeys(
    """task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode runtime_config
    megatron_config megatron_core loftq_config""".split(),  # noqa: SIM905
    _BY_HUBKIT,
)
"""Arguments of LoraConfig that a recipe does not give, and why."""


class _Passed(Section):
    """A section whose further keys are arguments of a library's class. Only those that are given are written."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_validator(mode="after")
    def _known(self) -> _Passed:
        for name, value in (self.model_extra or {}).items():
            _check(type(self).__name__.lower(), name, value)
        return self


class Sft(_Passed):
    """Arguments of TRL's SFTConfig, by their own names: these, and all others but those that hubkit sets."""

    LATER: ClassVar[frozenset[str]] = frozenset({"bf16", "weights"})

    learning_rate: float = Field(gt=0)
    num_train_epochs: float = Field(default=1, gt=0)
    per_device_train_batch_size: int = Field(default=16, gt=0)
    gradient_accumulation_steps: int = Field(default=1, gt=0)
    """Times per_device_train_batch_size: the examples of one optimizer step, for any number and kind of devices."""
    max_length: int = Field(gt=0)
    """Maximum tokens of prompt and response; longer rows are cut (see max_cut_share)."""
    lr_scheduler_type: str = "cosine"
    warmup_steps: int | float = Field(default=0.03, ge=0)
    """Steps, or a share of them when below 1."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: str = "adamw_torch"
    gradient_checkpointing: Literal[True, False, "auto"] = False
    """Compute activations twice and keep less of them. auto: only if a micro-batch does not fit otherwise. It changes
    no student."""
    bf16: bool | None = None
    """Matrix products in bfloat16, with float32 weights. Unset: as run.precision says."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Not TRL's: type of the weights in full fine-tuning. bfloat16 needs torchao, whose optimizer does not lose small
    updates by rounding."""


class Lora(_Passed):
    """Arguments of PEFT's LoraConfig, by their own names: these, and all others but those that hubkit sets."""

    r: int = Field(default=16, gt=0)
    lora_alpha: int | float = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_rslora: bool = False


@dataclass(frozen=True)
class MethodCard:
    """What the card of a student says about its training."""

    adapter: bool
    """Whether it is published as an adapter on its base, not as whole weights."""
    tags: tuple[str, ...]
    """For the Hub's search."""

    @property
    def relation(self) -> str:
        return "adapter" if self.adapter else "finetune"

    @property
    def library(self) -> str:
        return "peft" if self.adapter else "transformers"


class Method(Section):
    """What all methods of training share."""

    step: ClassVar[str]
    """module:function of the step that trains by it."""

    def tokens(self, rows: int) -> int | None:
        """Returns the most tokens that training on this number of rows processes. Returns None if that is unknown."""
        return None

    def tokens_of(self, rows: int, tokens: int) -> int | None:
        """Returns the most tokens that training processes on rows with this number of tokens together."""
        return self.tokens(rows)

    @classmethod
    def card(cls, config: Mapping[str, Any]) -> MethodCard:
        """Returns what a card says, from the configuration of a student's record."""
        raise NotImplementedError


class SftMethod(Method):
    """Supervised fine-tuning on the tokens of the traces."""

    LATER: ClassVar[frozenset[str]] = frozenset({"kind"})
    step: ClassVar[str] = "hubkit.students.student:run"

    kind: Literal["sft"] = "sft"
    sft: Sft
    lora: Lora | None = None
    """Present: train an adapter. Absent: train all weights."""

    def tokens(self, rows: int) -> int:
        return int(rows * self.sft.num_train_epochs * self.sft.max_length)

    def tokens_of(self, rows: int, tokens: int) -> int:
        return min(self.tokens(rows), int(tokens * self.sft.num_train_epochs))

    @classmethod
    def card(cls, config: Mapping[str, Any]) -> MethodCard:
        lora = config.get("lora") is not None
        return MethodCard(lora, ("lora", "trl", "sft") if lora else ("trl", "sft"))


METHODS: Final[dict[str, type[Method]]] = {"sft": SftMethod}
"""Kind -> its keys, the step that trains by it, and what cards say of it."""


def method_card(config: Mapping[str, Any]) -> MethodCard:
    """Returns what the card of a student says about its method, from the configuration of its record."""
    return METHODS[config.get("kind", "sft")].card(config)


def method_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe's arguments of the method, from the configuration of a student's record."""
    names = METHODS[config.get("kind", "sft")].model_fields
    return {name: config[name] for name in names if name != "kind" and config.get(name)}


def training_arguments(sft: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments in a recipe's `sft` that are SFTConfig's. Of gradient_checkpointing: auto it is what needs
    least memory."""
    known = {name: value for name, value in sft.items() if name != "weights"}
    return known | {"gradient_checkpointing": bool(known.get("gradient_checkpointing"))}


@functools.cache
def _types(section: str) -> dict[str, Any]:
    """Returns argument -> its type, of the installed class."""
    if section == "sft":
        from trl import SFTConfig as Installed
    else:
        from peft import LoraConfig as Installed
    hints = typing.get_type_hints(Installed)
    return {name: hints[name] for name, field in Installed.__dataclass_fields__.items() if field.init}


def _check(section: str, name: str, value: Any) -> None:
    """Raise ValueError for an argument that the installed class does not take."""
    refused = SFT_SETS if section == "sft" else LORA_SETS
    if name in refused:
        raise ValueError(f"{section}.{name} is not the recipe's to give: {refused[name]}")
    types = _types(section)
    if name not in types:
        import difflib

        near = difflib.get_close_matches(name, types, 1)
        owner = "TRL's SFTConfig" if section == "sft" else "PEFT's LoraConfig"
        raise ValueError(
            f"{section}.{name}: {owner} has no such argument"
            + (f"; did you mean {near[0]!r}" if near else "")
        )
    try:
        TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{section}.{name}: {error.errors()[0]['msg']}, and it is {value!r}") from None
